"""Early signals: agreement by hand, the ceiling of noise, and that split halves find it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cells import Cell
from analysis.metrics.proxy import (
    accuracy_of,
    decision_accuracy,
    early_signal,
    early_signals,
    noise_ceiling,
    proxy_table,
    top_regret,
)

from .cell_runs import cell, loss, run

EFFECT_SD, SEED_SD = 0.010, 0.011


def expected_accuracy(effect_sd: float, seed_sd: float, seeds: int) -> float:
    """Pairwise accuracy of means over `seeds` seeds against the truth, with normal effects and noise."""
    return accuracy_of(effect_sd / math.sqrt(effect_sd**2 + seed_sd**2 / seeds))


def test_agreement_by_hand() -> None:
    small, large = np.array([[1.0, 2, 3, 4]]), np.array([[0.1, 0.3, 0.2, 0.25]])
    found = early_signal(small, large, list("abcd"))
    # Of six pairs the late reading turns round b-c and b-d.
    assert found.accuracy == pytest.approx(4 / 6) and found.kendall == pytest.approx((4 - 2) / 6)
    assert found.spearman == pytest.approx(1 - 6 * (0 + 4 + 1 + 1) / (4 * 15))
    assert found.regret == pytest.approx(0.05) and found.reason == ""


def test_ties() -> None:
    assert decision_accuracy(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx((0.5 + 2) / 3)
    assert decision_accuracy(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0])) == 1
    assert math.isnan(decision_accuracy(np.array([1.0, 2.0]), np.array([1.0, 1.0])))
    assert top_regret(np.array([5.0, 5.0, 1.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1.5)
    flat = early_signal(np.ones((3, 4)), np.random.default_rng(0).normal(size=(3, 4)))
    assert math.isnan(flat.spearman) and math.isnan(flat.kendall) and flat.accuracy == 0.5
    assert math.isnan(flat.ceiling)


@pytest.mark.parametrize(("seeds", "percent"), [(1, 73), (3, 82), (5, 85)])
def test_the_ceiling_is_what_method_says_and_what_simulation_gives(seeds: int, percent: int) -> None:
    """73, 82 and 85 % at 1, 3 and 5 seeds, with effects that transfer perfectly."""
    assert round(100 * expected_accuracy(EFFECT_SD, SEED_SD, seeds)) == percent
    rng = np.random.default_rng(seeds)
    effects = rng.normal(0, EFFECT_SD, 1000)
    means = (effects + rng.normal(0, SEED_SD, (seeds, 1000))).mean(axis=0)
    assert decision_accuracy(means, effects) == pytest.approx(expected_accuracy(EFFECT_SD, SEED_SD, seeds), abs=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_split_halves_find_the_ceiling(seeds: int) -> None:
    """Seeds have a level of their own, which no order of arms is moved by."""
    rng = np.random.default_rng(seeds)
    values = rng.normal(0, EFFECT_SD, 400) + rng.normal(0, SEED_SD, (seeds, 400)) + rng.normal(0, 0.02, (seeds, 1))
    found = noise_ceiling(values)
    assert found.accuracy == pytest.approx(expected_accuracy(EFFECT_SD, SEED_SD, seeds), abs=0.02)
    assert found.split_half < found.accuracy


def test_a_perfect_proxy_with_noise_on_both_sides_reaches_the_joint_ceiling() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(0, EFFECT_SD, 400)
    small, large = (effects + rng.normal(0, SEED_SD, (n, 400)) for n in (5, 3))
    found = early_signal(small, large)
    assert found.accuracy == pytest.approx(found.ceiling, abs=0.02)
    assert found.ceiling < min(found.small_ceiling.accuracy, found.large_ceiling.accuracy)


def test_no_noise_and_nothing_but_noise() -> None:
    assert noise_ceiling(np.tile(np.arange(4.0), (3, 1))) == pytest.approx((1, 1, 1))
    opposite = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert noise_ceiling(opposite) == (0, 0, 0.5)


def test_too_few_arms_seeds_and_missing_values() -> None:
    assert early_signal(np.ones((3, 1)), np.ones((3, 1))).reason == "1 arm, 2 needed"
    none = early_signal(np.ones((0, 3)), np.ones((3, 3)))
    assert none.reason == "no seed that every arm has" and math.isnan(none.accuracy)
    one = early_signal(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]))
    assert one.accuracy == 1 and math.isnan(one.ceiling) and math.isnan(one.small_ceiling.accuracy)
    holed = early_signal(np.array([[1.0, 2.0], [np.nan, 3.0]]), np.array([[1.0, 2.0]]))
    assert holed.left_out == 1 and len(holed.small) == 1


@pytest.mark.parametrize("seeds", [12, 13])
def test_many_seeds_are_split_in_some_ways_only(seeds: int) -> None:
    values = np.random.default_rng(1).normal(size=(1, 30)) + np.random.default_rng(2).normal(size=(seeds, 30))
    assert noise_ceiling(values).accuracy == pytest.approx(expected_accuracy(1, 1, seeds), abs=0.06)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(4)), st.permutations(range(5)), st.floats(-1, 1))
def test_neither_order_nor_shift_changes_anything(data: int, order: list[int], arms: list[int], shift: float) -> None:
    rng = np.random.default_rng(data)
    small, large = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    a, b = early_signal(small, large), early_signal(small[order][:, arms] + shift, large[order][:, arms] - shift)
    keys = ("spearman", "kendall", "accuracy", "regret", "ceiling")
    assert [getattr(a, k) for k in keys] == pytest.approx([getattr(b, k) for k in keys])


def study(domains: tuple[str, ...] = ("web",)) -> list[Cell]:
    """Three bands at two sizes. At a quarter of the text the worst band leads, at half of it the best one does."""
    rng, cells = np.random.default_rng(0), []
    for domain in domains:
        for params in (1_000_000, 8_000_000):
            base = [run(loss, params=params, domain=domain, stage=f"{domain} {params} {s}") for s in range(4)]
            for band, final in (("a", 0.01), ("b", 0.02), ("c", 0.03)):
                early = {"a": 0.05, "b": 0.04, "c": 0.03}[band]
                pairs = []
                for b in base:
                    noise = rng.normal(0, 0.0001)

                    def law(t: Any, early: float = early, final: float = final, noise: float = noise) -> Any:
                        return loss(t) - np.where(t < 4e5, early, final) - noise

                    pairs.append((run(law, params=params, domain=domain, before=1000, stage="t"), b))
                axes = {"depth": params // 1_000_000, "band": band, "text": domain}
                cells.append(cell("nca", axes, pairs[: 3 if band == "c" else 4]))
    return cells


def test_early_signals_of_cells() -> None:
    table = proxy_table(early_signals(study()))
    sizes = table[table["early"] == "1M parameters"]
    assert len(sizes) == 1 and sizes["late"].iloc[0] == "8M parameters"
    assert sizes["decision_acc"].iloc[0] == 1 and sizes["n_left_out"].iloc[0] == 2
    shares = table[table["late"] == "all of the text"]
    assert shares["group"].tolist() == ["1M parameters"] * 2 + ["8M parameters"] * 2
    assert shares["early"].tolist() == ["25 % of the text", "50 % of the text"] * 2
    assert shares["decision_acc"].tolist() == [0, 1, 0, 1]
    assert shares["regret_nats"].tolist() == pytest.approx([0.02, 0, 0.02, 0], abs=5e-4)
    assert (shares["n_pairs_early"] == 3).all() and (shares["n_left_out"] == 1).all()
    assert shares["ceiling"].tolist() == pytest.approx([1] * 4)


def test_domains_are_decided_apart() -> None:
    signals = early_signals(study(("web", "code")))
    assert [s.group for s in signals[:2]] == ["web", "code"] and len(signals) == 2 + 8
    assert signals[0].arms == ["nca, band a", "nca, band b", "nca, band c"]


def test_no_cells() -> None:
    assert early_signals([]) == [] and proxy_table([]).empty
