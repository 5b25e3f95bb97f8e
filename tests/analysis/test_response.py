"""Optima over complexity and over size x budget: known ones are found, absent ones are not claimed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cells import Cell
from analysis.metrics.response import (
    response,
    response_table,
    responses,
    surface,
    surface_table,
    surfaces,
)
from analysis.metrics.seeds import ln_net_flops

from .cell_runs import cell, loss, run, shifted

X = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.8])


def parabolas(rng: np.random.Generator, seeds: int = 5, a: float = -0.6, noise: float = 0.002) -> np.ndarray:
    """Loss gaps (seeds, bands) around one parabola with its vertex at 0.45."""
    return 0.05 + a * (X - 0.45) ** 2 + rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, noise, (seeds, len(X)))


def test_recovers_known_parabolas_exactly() -> None:
    c, b, a = np.array([0.1, 0.2, 0.3]), np.array([0.8, 1.0, 1.2]), np.array([-1.0, -1.1, -1.2])
    y = c[:, None] + b[:, None] * X + a[:, None] * X**2
    found = response(X, y)
    assert found.coefficients == pytest.approx(np.stack([c, b, a], axis=1), abs=1e-12)
    assert found.optimum.mean == pytest.approx(b.mean() / (-2 * a.mean()))
    assert found.at(X) == pytest.approx(y)
    assert found.located and found.reason == ""


def test_bands_may_come_in_any_order_and_without_a_complexity() -> None:
    y = parabolas(np.random.default_rng(0))
    a = response(X, y)
    b = response(np.r_[np.nan, X[::-1]], np.column_stack([np.full(5, 9.0), y[:, ::-1]]))
    assert b.x == pytest.approx(a.x) and b.optimum == pytest.approx(a.optimum)


def test_the_optimum_is_covered_as_often_as_it_says() -> None:
    rng, runs = np.random.default_rng(1), 400
    found = [response(X, parabolas(rng)) for _ in range(runs)]
    assert all(f.located for f in found)
    hits = sum(f.optimum.low <= 0.45 <= f.optimum.high for f in found)
    assert abs(hits / runs - 0.95) < 3 * math.sqrt(0.95 * 0.05 / runs)


def test_a_flat_response_is_hardly_ever_located() -> None:
    """Both the curvature's sign and an optimum inside must come about by chance: below 2.5 %."""
    rng, runs = np.random.default_rng(2), 300
    flat = [response(X, parabolas(rng, a=0.0, noise=0.01)) for _ in range(runs)]
    assert sum(f.located for f in flat) / runs < 0.025 + 3 * math.sqrt(0.025 * 0.975 / runs)


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (lambda rng: parabolas(rng, a=0.0, noise=0.01), "the curvature may be zero"),
        (lambda rng: -parabolas(rng), "the curvature is positive: what is best lies at an end"),
        (lambda rng: parabolas(rng) + 2 * X, "the interval of the optimum reaches beyond the bands"),
        (lambda rng: parabolas(rng, seeds=1), "1 seed, 2 needed for an interval"),
        (lambda rng: parabolas(rng, seeds=0), "0 seeds, 2 needed for an interval"),
    ],
)
def test_what_is_not_located_says_why(y, reason: str) -> None:
    found = response(X, y(np.random.default_rng(3)))
    assert not found.located and found.reason == reason


def test_four_bands_give_a_slope_alone() -> None:
    y = 0.1 + np.array([[0.2], [0.3]]) * X[:4]
    found = response(X[:4], y)
    assert found.slope.mean == pytest.approx(0.25) and found.slope.low < 0.25
    assert found.reason == "4 bands, 5 needed" and math.isnan(found.optimum.mean)
    assert found.coefficients == pytest.approx(np.array([[0.1, 0.2, 0], [0.1, 0.3, 0]]))


def test_a_band_measured_twice_is_one_band() -> None:
    found = response(np.r_[X[:3], X[:3] + 0.001], np.ones((3, 6)))
    assert found.reason == "3 bands, 5 needed" and response_table([found])["n_bands"][0] == 3


def test_one_band_and_none() -> None:
    assert response(X[:1], np.ones((3, 1))).reason == "1 band, 5 needed"
    assert response(np.empty(0), np.empty((0, 0))).reason == "0 bands, 5 needed"


def test_seeds_without_variance_and_a_seed_with_a_gap() -> None:
    y = parabolas(np.random.default_rng(4), noise=0.0)
    y[2, 3] = np.nan
    found = response(X, y)
    assert (found.left_out, len(found.y)) == (1, 4)
    assert found.located and found.optimum == pytest.approx((0.45, 0.45, 0.45))
    assert not response(X, np.zeros((3, len(X)))).located


@settings(max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(5)))
def test_the_order_of_seeds_changes_nothing(data: int, order: list[int]) -> None:
    y = parabolas(np.random.default_rng(data))
    assert response(X, y[order]).optimum == pytest.approx(response(X, y).optimum, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(-5, 5))
def test_a_shift_of_all_gaps_moves_no_optimum(data: int, shift: float) -> None:
    y = parabolas(np.random.default_rng(data))
    a, b = response(X, y), response(X, y + shift)
    assert a.optimum == pytest.approx(b.optimum, abs=1e-9) and a.located == b.located


SIZES = np.repeat([1e6, 4e6, 16e6], 5)
BUDGETS = np.tile(np.geomspace(1e5, 1e7, 5), 3)


def test_recovers_a_known_surface_and_its_optimum_at_every_size() -> None:
    """The best budget is a twentieth of the size, and four sizes of budgets lie around it."""
    rng = np.random.default_rng(0)
    n, s = np.log(SIZES), np.log(BUDGETS)
    best = np.log(1e6) + 0.4 * (n - np.log(4e6))
    y = 0.05 - 0.01 * (s - best) ** 2 + 0.02 * (n - 14) + rng.normal(0, 0.01, (4, 1))
    found = surface(SIZES, BUDGETS, y)
    assert found.at(n, s) == pytest.approx(y, abs=1e-12)
    assert found.curvature.mean == pytest.approx(-0.01)
    expected = np.exp(np.log(1e6) + 0.4 * np.log([0.25, 1, 4]))
    assert [o.tokens.mean for o in found.optima] == pytest.approx(expected)
    assert all(o.located for o in found.optima) and found.reason == ""
    table = surface_table([found])
    assert list(table["params"]) == pytest.approx([1e6, 4e6, 16e6]) and list(table["n_pairs"]) == [4, 4, 4]
    sizes, budgets, grid = found.grid(9)
    assert grid.shape == (9, 9) and grid[0, 0] == pytest.approx(y.mean(axis=0)[0])
    assert np.exp(sizes[[0, -1]]) == pytest.approx([1e6, 16e6]) and np.exp(budgets[-1]) == pytest.approx(1e7)


def test_two_sizes_have_no_curvature_in_size() -> None:
    n, s = np.log(SIZES[:10]), np.log(BUDGETS[:10])
    y = np.stack([0.1 + 0.02 * n - k * (s - 13.8) ** 2 for k in (0.01, 0.011)])
    found = surface(SIZES[:10], BUDGETS[:10], y)
    assert found.coefficients[:, 5] == pytest.approx(0) and found.at(n, s) == pytest.approx(y)
    assert [o.tokens.mean for o in found.optima] == pytest.approx([math.exp(13.8)] * 2)


def test_budgets_that_rise_throughout_have_no_optimum_inside() -> None:
    s = np.log(BUDGETS)
    y = np.stack([-k * (s - np.log(1e8)) ** 2 for k in (0.01, 0.011, 0.012)])
    found = surface(SIZES, BUDGETS, y)
    assert {o.reason for o in found.optima} == {"the interval of the optimum reaches beyond the budgets"}


def test_a_surface_says_what_it_lacks() -> None:
    y = np.zeros((3, 15))
    assert surface(SIZES[:5], BUDGETS[:5], y[:, :5]).reason == "1 size x 5 budgets, 2 x 3 needed"
    diagonal = surface(np.geomspace(1e6, 3e7, 4), np.geomspace(1e5, 3e6, 4), y[:, :4])
    assert diagonal.reason == "4 cells do not tell 6 terms apart" and np.isnan(diagonal.coefficients).all()
    assert surface_table([diagonal])["reason"][0] == diagonal.reason
    assert surface(np.empty(0), np.empty(0), np.empty((0, 0))).reason == "0 sizes x 0 budgets, 2 x 3 needed"
    flat = surface(SIZES, BUDGETS, y)
    assert not any(o.located for o in flat.optima)
    one = surface(SIZES, BUDGETS, y[:1])
    assert {o.reason for o in one.optima} == {"1 seed, 2 needed for an interval"}


@settings(max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(4)), st.floats(-5, 5))
def test_neither_order_nor_shift_moves_the_best_budget(data: int, order: list[int], shift: float) -> None:
    s = np.log(BUDGETS)
    y = -0.02 * (s - 13.8) ** 2 + np.random.default_rng(data).normal(0, 0.002, (4, 15))
    a, b = surface(SIZES, BUDGETS, y), surface(SIZES, BUDGETS, y[order] + shift)
    for one, other in zip(a.optima, b.optima, strict=True):
        assert one.tokens == pytest.approx(other.tokens, rel=1e-6) and one.located == other.located


def bands(seeds: int = 4) -> list[Cell]:
    """Five bands whose gap peaks at 0.45; the last seed of the last band is missing."""
    rng, cells = np.random.default_rng(5), []
    base = [run(loss, stage=f"scratch {s}") for s in range(seeds)]
    for x in (0.2, 0.3, 0.4, 0.6, 0.8):
        gaps = 0.05 - 0.3 * (x - 0.45) ** 2 + rng.normal(0, 0.0005, seeds)
        pairs = [(run(shifted(g), before=200_000, complexity=x), b) for g, b in zip(gaps, base, strict=True)]
        cells.append(cell("nca", {"band": f"{x}"}, pairs[: seeds - (x == 0.8)]))
    return [*cells, cell("longer", {"band": None}, [(run(loss, 1_200_000), b) for b in base])]


def test_responses_of_cells() -> None:
    (found,) = responses(bands())
    assert (found.arm, found.group, found.left_out, found.y.shape) == ("nca", "nca", 1, (3, 5))
    assert found.located and found.optimum.mean == pytest.approx(0.45, abs=0.01)
    table = response_table([found])
    assert (table["n_bands"][0], table["n_pairs"][0], table["n_left_out"][0]) == (5, 3, 1)
    assert responses([]) == [] and response_table([]).empty


def test_surfaces_of_cells() -> None:
    cells = []
    for params in (1_000_000, 4_000_000):
        base = [run(loss, params=params) for _ in range(3)]
        for budget in (0, 100_000, 300_000, 900_000):
            gaps = 0.05 - 0.01 * (np.log(max(budget, 1) / 250_000) ** 2) * np.array([1, 1.01, 1.02])
            pairs = [(run(shifted(g), before=budget, params=params), b) for g, b in zip(gaps, base, strict=True)]
            cells.append(cell("nca", {"depth": params // 500_000, "syn": budget}, pairs))
    gaps, net = surfaces(cells)
    assert (gaps.measure, net.measure) == ("loss gap, nats", "ln speedup net of FLOPs")
    assert gaps.group == "nca" and gaps.y.shape == (3, 6)
    assert [o.tokens.mean for o in gaps.optima] == pytest.approx([250_000] * 2, rel=1e-3)
    assert all(o.located for o in gaps.optima)
    assert surface_table([gaps, net])["params"].tolist() == pytest.approx([1e6, 4e6] * 2)
    assert surfaces([]) == [] and surface_table([]).empty


def test_net_of_flops_a_pair_pays_for_what_came_before() -> None:
    """Twice the text at equal loss, but a warm-up as dear as half the text: no gain."""
    base = run(loss)
    treated = run(lambda tokens: loss(2 * tokens), before=500_000)
    assert ln_net_flops(treated, base) == pytest.approx(0, abs=1e-4)
