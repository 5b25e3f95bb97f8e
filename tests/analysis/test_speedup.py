"""The estimator: what it recovers, how often its interval is right, and what it says when there is little to read."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.metrics.intervals import holm, paired, welch
from analysis.metrics.smoothing import Curve, smooth
from analysis.metrics.speedup import (
    Test,
    auc_gain,
    crossings,
    gap_curve,
    headline,
    inverted,
    net_speedup,
    read_pair,
    speedup_curve,
    speedup_p_values,
)
from analysis.results import Results

from .synthetic_store import GRID, Store, law

TEXT = 1_000_000
TOKENS = np.round(GRID * TEXT)


def curve(loss: np.ndarray, tokens: np.ndarray = TOKENS) -> Curve:
    found = smooth(tokens, loss)
    assert found is not None
    return found


@pytest.mark.parametrize("speedup", [1.5, 1.0, 0.6])
def test_recovers_a_known_speedup_without_noise(speedup: float) -> None:
    reading = read_pair(curve(law(TOKENS)), curve(law(speedup * TOKENS)))
    assert math.exp(reading.ln_speedup) == pytest.approx(speedup, rel=0.01)
    assert reading.direction == ("forward" if speedup >= 1 else "reverse")
    assert not reading.left_censored


@given(st.floats(0.3, 3.0))
def test_swapping_the_sides_inverts_the_speedup(speedup: float) -> None:
    a, b = curve(law(TOKENS)), curve(law(speedup * TOKENS))
    assert read_pair(a, b).ln_speedup == pytest.approx(-read_pair(b, a).ln_speedup, abs=0.01)


def test_an_arm_that_is_below_the_target_at_once_gives_a_bound() -> None:
    reading = read_pair(curve(law(TOKENS)), curve(np.full(len(TOKENS), 2.5)))
    assert reading.left_censored and reading.direction == "forward"
    assert math.exp(reading.ln_speedup) == pytest.approx(TOKENS[-1] / TOKENS[0])


def test_an_arm_above_everything_the_baseline_did_gives_a_bound_from_the_other_side() -> None:
    reading = read_pair(curve(law(TOKENS)), curve(np.full(len(TOKENS), 9.0)))
    assert reading.left_censored and reading.direction == "reverse"
    assert math.exp(reading.ln_speedup) == pytest.approx(TOKENS[0] / TOKENS[-1])


def test_smoothing_averages_repeats_bridges_gaps_and_refuses_too_few() -> None:
    doubled = curve(np.repeat(law(TOKENS), 2), np.repeat(TOKENS, 2))
    assert doubled.final == pytest.approx(curve(law(TOKENS)).final, abs=1e-9)
    kept = np.r_[0:12, 20 : len(TOKENS)]
    gappy = curve(law(TOKENS)[kept], TOKENS[kept])
    assert gappy.at(math.log(TOKENS[16])) == pytest.approx(law(TOKENS)[16], abs=0.01)
    assert smooth(TOKENS[:5], law(TOKENS)[:5]) is None
    assert smooth(np.array([0.0, *TOKENS[:5]]), law(np.r_[1.0, TOKENS[:5]])) is None


def simulate(rng: np.random.Generator, speedup: float, seeds: int, shared: float) -> list[tuple[Curve, Curve]]:
    pairs = []
    for _ in range(seeds):
        both = rng.normal(0, shared)
        noise = rng.normal(0, 0.006, (2, 1)) + rng.normal(0, 0.006, (2, len(TOKENS)))
        pairs.append((curve(law(TOKENS) + both + noise[0]), curve(law(speedup * TOKENS) + both + noise[1])))
    return pairs


@pytest.mark.parametrize(("test", "shared"), [(paired, 0.008), (welch, 0.0)])
def test_an_inverted_test_covers_and_agrees_with_its_own_p_value(test: Test, shared: float) -> None:
    rng, hits, runs = np.random.default_rng(1), 0, 60
    for _ in range(runs):
        baselines, treated = zip(*simulate(rng, 1.3, 5, shared), strict=True)
        _, low, high = inverted(baselines, treated, test)
        hits += low <= math.log(1.3) <= high
        assert speedup_p_values(baselines, treated, (low, high), test) == pytest.approx(0.05, abs=0.01)
    assert hits / runs >= 0.88


@pytest.mark.parametrize("test", [paired, welch])
def test_an_inverted_test_leaves_an_end_open_that_the_data_do_not_close(test: Test) -> None:
    rng = np.random.default_rng(2)
    wide = [curve(law(TOKENS) + rng.normal(0, 9)) for _ in range(3)]
    _, low, high = inverted(wide, wide[::-1], test)
    assert low == -math.inf and high == math.inf


@pytest.mark.parametrize("level", [2.4, 9.0])
def test_an_effect_beyond_what_was_measured_is_bounded_on_one_side(level: float) -> None:
    baselines = [curve(law(TOKENS) + 0.001 * i) for i in range(4)]
    flat = [curve(np.full(len(TOKENS), level) + 0.002 * i) for i in range(4)]
    found = headline(baselines, flat, math.log(1.05))
    edge = math.log(TOKENS[-1] / TOKENS[0])
    assert found.ln_speedup == pytest.approx((edge, edge, math.inf) if level < 3 else (-edge, -math.inf, -edge))
    assert found.p < 0.001


def test_the_test_of_no_effect_is_that_of_the_gap() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        baselines, treated = zip(*simulate(rng, 1.02, 5, 0.008), strict=True)
        found = headline(baselines, treated, math.log(1.05))
        assert (found.gap.low > 0) == (found.ln_speedup.low > 0) and (found.gap.high < 0) == (found.ln_speedup.high < 0)
        assert (found.p < 0.05) == (found.gap.low > 0 or found.gap.high < 0)


@given(st.floats(0.2, 5), st.floats(1e3, 1e9), st.floats(1e2, 1e9))
def test_net_tokens_above_one_exactly_where_more_text_is_saved_than_was_spent(s: float, text: float, b: float) -> None:
    saved = text * (1 - 1 / s)
    if not math.isclose(saved, b, rel_tol=1e-6):
        assert (net_speedup(s, text, b) > 1) == (saved / b > 1)


def test_net_flops_prices_both_sides() -> None:
    # Baseline 100 at its own price; the arm needs half the text at twice the price a token, plus 50 before.
    assert net_speedup(2.0, 100.0, 50.0, ratio=2.0) == pytest.approx(100 / 150)
    assert math.isnan(net_speedup(math.nan, 100.0, 50.0)) and net_speedup(0.0, 100.0, 50.0) == 0


def test_auc_gain_of_a_constant_gap_is_that_gap() -> None:
    assert auc_gain(curve(law(TOKENS)), curve(law(TOKENS) - 0.07)) == pytest.approx(0.07, abs=1e-6)


def test_the_speedup_curve_ends_at_the_headline() -> None:
    rng = np.random.default_rng(3)
    for true in (1.4, 0.7):
        pairs = simulate(rng, true, 4, 0.01)
        found = headline([b for b, _ in pairs], [t for _, t in pairs], 0.0).ln_speedup.mean
        assert speedup_curve(pairs)["speedup"].iloc[-1] == pytest.approx(math.exp(found), rel=1e-6)


def test_curves_that_cross_are_reported_where_they_do_and_noise_is_not() -> None:
    crossing = law(TOKENS) + 0.2 - 0.1 * np.log(TOKENS / 1e5)
    pairs = [(curve(law(TOKENS)), curve(crossing + d)) for d in (-0.01, 0.0, 0.01)]
    [(tokens, leads)] = crossings(gap_curve(pairs))
    assert leads and tokens == pytest.approx(1e5 * math.exp(2), rel=0.02)
    assert crossings(gap_curve(simulate(np.random.default_rng(4), 1.0, 4, 0.0))) == []


def test_holm_by_hand() -> None:
    adjusted = holm([0.01, 0.04, math.nan, 0.03])
    assert adjusted[[0, 1, 3]] == pytest.approx([0.04, 0.09, 0.09])
    assert math.isnan(adjusted[2])


# Whole cells, from files.

Losses = Callable[[int], np.ndarray]


def study(store: Store, treated: Losses, seeds: int = 4, **settings: Any) -> Results:
    """Scratch against an arm "nca" whose losses at seed s are treated(s); settings go to the arm's text stage."""
    for seed in range(seeds):
        base = store.train(f"scratch {seed}", TEXT, law(TOKENS) + 0.01 * seed)
        index = store.point("scratch", {"seed": seed}, [base])
        tokens = settings.get("tokens", TEXT)
        rest = {k: v for k, v in settings.items() if k != "tokens"}
        warm = store.train(f"warm {seed}", 100_000, np.linspace(3, 2, len(GRID)), generation_flops=7)
        digest = store.train(f"nca {seed}", tokens, treated(seed), init=warm, **rest)
        store.point("nca", {"seed": seed}, [warm, digest], index)
    return Results.from_store(store.register("s", ["seed"]), "s")


def test_a_cell_counts_what_came_before_the_text(store: Store) -> None:
    effect = study(store, lambda s: law(1.5 * TOKENS) + 0.01 * s).effects.iloc[0]
    assert effect["speedup"] == pytest.approx(1.5, rel=0.01)
    assert effect["syn_tokens"] == 100_000
    assert effect["net_speedup_tokens"] == pytest.approx(1 / (1 / 1.5 + 0.1), rel=0.01)
    assert effect["mrs_avg"] == pytest.approx((1 - 1 / 1.5) / 0.1, rel=0.02)
    assert effect["gap_kind"] == "shared budget" and effect["estimator"] == "LOESS, paired t"
    assert effect["ppl_change_pct"] == pytest.approx(100 * math.expm1(-effect["dloss_nats"]))


def test_pairs_are_pairs_whatever_their_correlation(store: Store) -> None:
    effect = study(store, lambda s: law(1.5 * TOKENS) + 0.01 * (3 - s)).effects.iloc[0]
    assert effect["pair_corr"] == pytest.approx(-1)
    assert effect["estimator"] == "LOESS, paired t"
    assert effect["speedup_lo"] < 1.5 < effect["speedup_hi"]


def test_a_diverged_arm_is_counted_not_read(store: Store) -> None:
    def losses(seed: int) -> np.ndarray:
        good = law(1.5 * TOKENS) + 0.01 * seed
        if seed == 0:
            return np.where(TOKENS > 5e5, np.nan, good)  # written as null
        if seed == 1:
            return np.where(TOKENS > 5e5, good + 1, good)  # half a nat up for three evaluations
        return good

    results = study(store, losses, seeds=5)
    effect = results.effects.iloc[0]
    assert (effect["n_pairs"], effect["n_planned"], effect["n_diverged_treated"]) == (3, 5, 2)
    assert effect["speedup"] == pytest.approx(1.5, rel=0.01)
    assert effect["speedup_median"] == pytest.approx(1.5, rel=0.01)
    assert list(results.pairs["diverged"]) == ["treated", "treated", "", "", ""]


def test_unlike_budgets_compare_at_their_own_ends_and_are_not_tested(store: Store) -> None:
    longer = 1_200_000
    results = study(store, lambda s: law(np.round(GRID * longer)) + 0.01 * s, tokens=longer)
    effect, verdict = results.effects.iloc[0], results.verdicts.iloc[0]
    assert effect["gap_kind"] == "own ends"
    assert effect["dloss_nats"] == pytest.approx(law(np.array(1e6)) - law(np.array(1.2e6)), abs=1e-3)
    assert math.isnan(effect["p_adj"]) and effect["family"] == ""
    assert verdict["verdict"] == "no verdict (text budgets differ)"


def test_less_text_and_still_lower_bounds_the_speedup(store: Store) -> None:
    results = study(store, lambda s: law(2 * np.round(GRID * 800_000)) + 0.01 * s, tokens=800_000)
    assert "its speedup is at least 1.25x" in results.verdicts["reason"][0]


def test_one_seed_gives_an_estimate_and_no_interval(store: Store) -> None:
    results = study(store, lambda s: law(1.5 * TOKENS), seeds=1)
    effect = results.effects.iloc[0]
    assert effect["speedup"] == pytest.approx(1.5, rel=0.01)
    assert math.isnan(effect["speedup_lo"]) and math.isnan(effect["p"])
    assert results.verdicts["verdict"][0] == "no verdict (1 pair, 4 needed)"


def test_without_a_finished_baseline_a_cell_is_planned_and_empty(store: Store) -> None:
    base = store.train("scratch", TEXT, [], done=False)
    index = store.point("scratch", {"seed": 0}, [base])
    store.point("nca", {"seed": 0}, [store.train("nca", TEXT, law(TOKENS))], index)
    results = Results.from_store(store.register("s", ["seed"]), "s")
    effect = results.effects.iloc[0]
    assert (effect["n_planned"], effect["n_pairs"]) == (1, 0) and math.isnan(effect["speedup"])
    assert results.verdicts["verdict"][0] == "no verdict (0 pairs, 4 needed)"
    assert results.pairs.empty


def test_too_few_evaluations_are_not_read(store: Store) -> None:
    at = np.array([2e5, 5e5, 1e6])
    base = store.point("scratch", {"seed": 0}, [store.train("scratch", TEXT, law(at), at=at)])
    store.point("nca", {"seed": 0}, [store.train("nca", TEXT, law(at), at=at)], base)
    results = Results.from_store(store.register("s", ["seed"]), "s")
    assert results.effects["n_pairs"][0] == 0
    assert "hardly evaluated" in results.verdicts["reason"][0]


def test_pairs_on_unlike_machines_are_flagged(store: Store) -> None:
    effect = study(store, lambda s: law(1.5 * TOKENS), threads=2).effects.iloc[0]
    assert effect["n_machines_differ"] == 4
