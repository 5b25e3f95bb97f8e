"""What a token before the text is worth: known rates and transfers are recovered, and what lies beyond is flagged."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cells import Cell
from analysis.metrics.budget import data_transferred, mrs_marginal, mrs_table, power_law, tokens_needed, transfer_table

from .cell_runs import cell, curve, loss, run, shifted


def test_marginal_rates_by_hand() -> None:
    tokens = np.array([[1000.0, 800, 750, 760], [1000, 700, 700, 640]])
    found = mrs_marginal(tokens, np.array([0, 100, 200, 300]))
    assert found.tolist() == [[2, 0.5, -0.1], [3, 0, 0.6]]
    assert np.isnan(mrs_marginal(tokens[:, :2], np.array([100, 100]))).all()
    assert mrs_marginal(tokens[:, :1], np.array([100])).shape == (2, 0)


@settings(max_examples=30)
@given(st.lists(st.floats(1e5, 1e6), min_size=3, max_size=5))
def test_rates_add_up_to_all_that_was_saved(tokens: list[float]) -> None:
    budgets = np.arange(len(tokens)) * 1e5
    saved = (mrs_marginal(np.array([tokens]), budgets) * np.diff(budgets)).sum()
    assert saved == pytest.approx(tokens[0] - tokens[-1], abs=1e-6)


def faster(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda tokens: loss(factor * tokens)


def ahead(tokens: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda own: loss(own + tokens)


def budgets(last_seed_missing: bool = False) -> list[Cell]:
    """After 100k, 200k and 400k tokens a run needs 80, 70 and 65 % of the text, give or take the seed."""
    base = [run(loss, stage=f"scratch {s}") for s in range(3)]
    cells = []
    for budget, share in ((400_000, 0.65), (100_000, 0.8), (200_000, 0.7)):
        pairs = [(run(faster(1 / (share + 0.01 * s)), before=budget), b) for s, b in enumerate(base)]
        cells.append(cell("nca", {"syn": budget}, pairs[: 2 if last_seed_missing and budget == 100_000 else 3]))
    return cells


def test_rates_of_cells_from_none_on() -> None:
    table = mrs_table(budgets())
    assert table["syn_tokens_from"].tolist() == [0, 100_000, 200_000]
    assert table["syn_tokens_to"].tolist() == [100_000, 200_000, 400_000]
    assert table["mrs"].tolist() == pytest.approx([1.9, 1.0, 0.25], rel=1e-3)
    assert table["mrs_lo"][0] < 1.9 < table["mrs_hi"][0]
    assert table["mrs_hi"][1] - table["mrs_lo"][1] == pytest.approx(0, abs=1e-3)  # the seed moves both alike
    assert (table["n_pairs"] == 3).all() and (table[["n_not_reached", "n_left_censored"]] == 0).all(axis=None)


def test_a_seed_that_one_budget_lacks_is_left_out_and_counted() -> None:
    table = mrs_table(budgets(last_seed_missing=True))
    assert (table["n_pairs"] == 2).all() and (table["n_left_out"] == 1).all()
    assert table["mrs"].tolist() == pytest.approx([1.95, 1.0, 0.25], rel=1e-3)


def test_an_arm_that_never_reaches_the_baseline_has_a_negative_rate() -> None:
    base = [run(loss) for _ in range(3)]
    slow = [cell("nca", {"syn": b}, [(run(faster(0.8), before=b), r) for r in base]) for b in (100_000, 200_000)]
    table = mrs_table(slow)
    assert table["mrs"].tolist() == pytest.approx([-2.5, 0], abs=5e-3)
    assert table["n_not_reached"].tolist() == [3, 3]


def test_no_cells_one_seed_and_runs_without_a_curve() -> None:
    assert mrs_table([]).empty and transfer_table([], []).empty
    one = [Cell(c.arm, c.axes, c.pairs[:1], "") for c in budgets()]
    table = mrs_table(one)
    assert table["mrs"][0] == pytest.approx(2, rel=1e-3) and np.isnan(table["mrs_lo"]).all()
    odd = run(loss)
    object.__setattr__(odd, "curve", None)
    assert math.isnan(tokens_needed(odd, run(loss)))


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(2.0, 1.0, 0.3), (1.7, 2.5, 0.15), (0.5, 0.9, 1.2)])
def test_a_power_law_is_recovered(floor: float, scale: float, exponent: float) -> None:
    found = power_law(curve(lambda d: floor + scale * (d / 1e6) ** -exponent, 1e6))
    assert found is not None
    assert found == pytest.approx((floor, scale, exponent, 1e6), rel=1e-5)
    assert found.tokens(floor + scale * 2**-exponent) == pytest.approx(2e6, rel=1e-5)
    assert found.tokens(found.floor) == math.inf


def test_a_curve_that_rises_has_no_power_law() -> None:
    rising = curve(lambda d: 2 + (d / 1e6) ** 0.3, 1e6)
    assert power_law(rising) is None
    assert math.isnan(data_transferred(rising, curve(shifted(1.0), 1e6)).tokens)


def test_data_transferred_within_what_the_baseline_reached() -> None:
    """The treated run is ahead by 300k tokens throughout."""
    treated = curve(ahead(300_000), 1e6)
    tokens, extrapolated = data_transferred(curve(loss, 2e6), treated)
    assert tokens == pytest.approx(300_000, rel=1e-3) and not extrapolated


def test_beyond_what_the_baseline_reached_the_law_is_read_and_says_so() -> None:
    treated = curve(ahead(300_000), 1e6)
    tokens, extrapolated = data_transferred(curve(loss, 1e6), treated)
    assert tokens == pytest.approx(300_000, rel=1e-3) and extrapolated
    assert data_transferred(curve(loss, 1e6), curve(shifted(1.5), 1e6)) == (math.inf, True)
    worse = data_transferred(curve(loss, 1e6), curve(lambda d: loss(d) + 9, 1e6))
    assert math.isnan(worse.tokens) and not worse.extrapolated


def test_transfer_of_cells_is_read_on_the_longest_run_from_scratch() -> None:
    base = [run(loss, stage=f"scratch {s}") for s in range(3)]
    warm = [run(ahead(300_000 + 10_000 * s), before=100_000) for s in range(3)]
    nca = cell("nca", {"syn": 1}, zip(warm, base, strict=True))
    longer = cell("longer", {"syn": None}, [(run(loss, 2_000_000), b) for b in base])
    table = transfer_table([nca, longer], ["nca", "longer"])
    assert table["label"].tolist() == ["nca"] and not table["d_t_extrapolated"][0]
    assert table["d_t_tokens"][0] == pytest.approx(310_000, rel=1e-3)
    assert table["d_t_tokens_lo"][0] < 310_000 < table["d_t_tokens_hi"][0]
    assert table["baseline_text_tokens"][0] == 2_000_000
    alone = transfer_table([nca], ["nca"])
    assert alone["d_t_extrapolated"][0] and alone["n_extrapolated"][0] == 3
