"""Scaling laws: known ones are recovered, outliers do not move them, and what they convert is what was put in."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cells import Cell
from analysis.metrics.scaling import (
    arm_factor,
    data_multiplier,
    fit_law,
    lacking,
    multiplier_table,
    scaling_table,
    scalings,
)

from .cell_runs import cell, run

LAW = np.array([1.8172, 482.01, 2085.43, 0.3478, 0.3658])
"""Of Besiroglu et al. (2024): E, A, B, alpha, beta."""
PARAMS = np.repeat([1e7, 4e7, 16e7, 64e7], 5)
TOKENS = np.tile([5.0, 10, 20, 40, 80], 4) * PARAMS


def law(params: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
    e, a, b, alpha, beta = LAW
    return np.asarray(e + a * np.asarray(params) ** -alpha + b * np.asarray(tokens) ** -beta)


LOSS = law(PARAMS, TOKENS)


def test_a_law_is_recovered_and_predicts_the_size_it_was_not_shown() -> None:
    found = fit_law(PARAMS, TOKENS, LOSS, bootstrap=0)
    assert found is not None and (found.sizes, found.runs, found.endpoints) == (4, 20, 20)
    assert found.values == pytest.approx(LAW, rel=1e-4) and found.rms < 1e-8
    assert found.loss(2e8, 4e9) == pytest.approx(law(2e8, 4e9), abs=1e-8)
    assert found.held_out is not None and found.held_out.params == 64e7
    assert abs(found.held_out.error) < 1e-6 and found.held_out.endpoints == 5
    assert found.interval("alpha").mean == pytest.approx(0.3478, rel=1e-4)
    assert math.isnan(found.interval("alpha").low)


def test_neither_outliers_nor_the_order_of_runs_move_it() -> None:
    order = np.random.default_rng(0).permutation(len(LOSS))
    loss = LOSS.copy()
    loss[[2, 13]] += 0.3
    straight = fit_law(PARAMS, TOKENS, loss, bootstrap=0)
    mixed = fit_law(PARAMS[order], TOKENS[order], loss[order], bootstrap=0)
    assert straight is not None and mixed is not None
    assert straight.values == pytest.approx(mixed.values, rel=1e-3)
    assert straight.values[[0, 3, 4]] == pytest.approx(LAW[[0, 3, 4]], rel=0.02)


def test_a_law_of_another_shape_shows_at_the_size_held_out() -> None:
    bent = LOSS + 0.01 * np.log(PARAMS / 1e7) ** 2
    found = fit_law(PARAMS, TOKENS, bent, bootstrap=0)
    assert found is not None and found.held_out is not None
    assert found.held_out.error > 0.02 > found.rms


def noisy(seeds: int, trunk: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Endpoints of runs, `seeds` a size, with noise of the run and of the endpoint, and which run they are of."""
    rng = np.random.default_rng(0)
    params, tokens = np.tile(PARAMS, seeds), np.tile(TOKENS, seeds)
    of = (np.arange(len(params)) // 5).tolist()
    loss = law(params, tokens) + rng.normal(0, trunk, 4 * seeds)[of] + rng.normal(0, 0.001, len(params))
    return params, tokens, loss, of


def test_the_bootstrap_draws_runs_and_not_endpoints() -> None:
    """Endpoints of one trunk share its noise: to draw them one by one would promise too much."""
    params, tokens, loss, of = noisy(4, trunk=0.01)
    by_run = fit_law(params, tokens, loss, of, bootstrap=300)
    by_endpoint = fit_law(params, tokens, loss, bootstrap=300)
    assert by_run is not None and by_endpoint is not None and by_run.bootstrap.shape == (300, 5)
    assert by_run.runs == 16 and by_endpoint.runs == 80
    at = [f.loss(64e7, 1e10) for f in (by_run, by_endpoint)]
    assert at[0] == pytest.approx(at[1], abs=1e-6) and at[0] == pytest.approx(law(64e7, 1e10), abs=0.02)
    spread = [
        np.std([b[0] + b[1] * 64e7 ** -b[3] + b[2] * 1e10 ** -b[4] for b in f.bootstrap]) for f in (by_run, by_endpoint)
    ]
    assert spread[0] > 1.3 * spread[1]
    low, high = by_run.interval("alpha")[1:]
    assert low < 0.3478 < high


def test_the_bootstrap_lies_about_the_fit_and_is_the_same_each_time() -> None:
    params, tokens, loss, of = noisy(2, trunk=0.005)
    once, again = (fit_law(params, tokens, loss, of, bootstrap=50) for _ in range(2))
    assert once is not None and again is not None and (once.bootstrap == again.bootstrap).all()
    spread = once.bootstrap[:, 3].std()
    assert 0 < spread < 0.2
    assert once.bootstrap[:, 3].mean() == pytest.approx(once.values[3], abs=spread)


def test_too_few_endpoints_sizes_and_values() -> None:
    three = np.tile([5.0, 10, 20, 20, 20], 4) * PARAMS
    assert lacking(PARAMS, three) == "0 sizes with 4 decayed endpoints or more, 3 needed"
    assert fit_law(PARAMS, three, LOSS) is None
    assert lacking(PARAMS[:10], TOKENS[:10]) == "2 sizes with 4 decayed endpoints or more, 3 needed"
    assert fit_law(np.empty(0), np.empty(0), np.empty(0)) is None
    assert fit_law(PARAMS, TOKENS, np.where(PARAMS < 1e8, LOSS, np.nan)) is None
    holed = fit_law(PARAMS[:15], TOKENS[:15], np.where(np.arange(15) == 3, np.nan, LOSS[:15]), bootstrap=0)
    assert holed is not None and holed.endpoints == 14 and holed.held_out is None
    assert holed.values == pytest.approx(LAW, rel=1e-3)


def test_one_run_a_size_has_no_interval() -> None:
    found = fit_law(PARAMS, TOKENS, LOSS, runs=PARAMS.tolist(), bootstrap=100)
    assert found is not None and found.runs == 4 and found.bootstrap.shape == (0, 5)
    assert math.isnan(found.interval("E").low) and found.interval("E").mean == pytest.approx(1.8172, rel=1e-4)


def test_losses_without_any_difference_are_answered() -> None:
    found = fit_law(PARAMS, TOKENS, np.full(20, 3.0), bootstrap=0)
    assert found is not None and found.loss(1e8, 1e9) == pytest.approx(3, abs=1e-3)


@settings(max_examples=50)
@given(st.floats(0.2, 5.0), st.floats(7, 10), st.floats(8, 11))
def test_the_multiplier_is_what_the_tokens_were_multiplied_by(factor: float, ln_n: float, ln_d: float) -> None:
    params, tokens = 10**ln_n, 10**ln_d
    assert data_multiplier(LAW, params, tokens, law(params, factor * tokens)) == pytest.approx(factor, rel=1e-6)


def test_below_what_endless_tokens_would_give_the_multiplier_is_infinite() -> None:
    assert data_multiplier(LAW, 1e8, 1e9, 1.0) == math.inf
    assert math.isnan(data_multiplier(LAW, 1e8, 1e9, math.nan))


def test_a_joint_law_finds_the_factor_of_an_arm() -> None:
    params, tokens = np.tile(PARAMS, 2), np.tile(TOKENS, 2)
    treated = np.arange(40) >= 20
    loss = law(params, tokens * np.where(treated, 1.5, 1))
    assert arm_factor(params, tokens, loss, treated, bootstrap=0).mean == pytest.approx(1.5, rel=1e-4)
    noise = np.random.default_rng(1).normal(0, 0.002, 40)
    mean, low, high = arm_factor(params, tokens, loss + noise, treated, bootstrap=200)
    assert low < 1.5 < high and low < mean < high and high / low < 1.2
    assert math.isnan(arm_factor(params, tokens, loss, treated & False).mean)
    assert math.isnan(arm_factor(params, tokens, loss, treated | True).mean)


def study(sizes: int = 3, schedule: str = "wsd", seeds: int = 3) -> list[Cell]:
    """An arm whose text counts 1.4 times, five text budgets a size; a seed moves both sides alike."""
    rng, cells = np.random.default_rng(0), []

    def of(params: int, factor: float, bump: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda tokens: law(params, factor * tokens) + bump

    for params in [10_000_000 * 4**k for k in range(sizes)]:
        for ratio in (5, 10, 20, 40, 80):
            pairs = []
            for s in range(seeds):
                bump, more = rng.normal(0, 0.0005), rng.normal(0, 0.0005)
                base = run(
                    of(params, 1.0, bump), params * ratio, stage=f"{params} {ratio} {s}", params=params,
                    schedule=schedule,
                )  # fmt: skip
                arm = run(
                    of(params, 1.4, bump + more), params * ratio, params=params, before=1000, schedule=schedule
                )  # fmt: skip
                pairs.append((arm, base))
            cells.append(cell("nca", {"width": params // 10_000, "text": ratio}, pairs))
    return cells


def test_scalings_of_cells() -> None:
    (found,) = scalings(study(), bootstrap=60)
    assert (found.arm, found.group, found.reason) == ("nca", "nca", "") and found.fit is not None
    assert (found.fit.sizes, found.fit.runs, found.fit.endpoints) == (3, 9, 45)
    table = multiplier_table([found])
    assert len(table) == 15 and (table["n_pairs"] == 3).all() and (table["n_beyond"] == 0).all()
    assert table["multiplier"].to_numpy() == pytest.approx(1.4, abs=0.1)
    assert (table["multiplier_lo"] < table["multiplier"]).all()
    assert (table["multiplier_law_lo"] <= table["multiplier_law_hi"]).all()
    row = scaling_table([found]).iloc[0]
    assert row["arm_factor"] == pytest.approx(1.4, abs=0.05) and row["alpha_lo"] < row["alpha_hi"]
    assert math.isnan(row["held_out_error_nats"]) and row["reason"] == ""


def test_what_cells_lack_stands_in_the_table() -> None:
    undecayed = scaling_table(scalings(study(seeds=1, schedule="wsd, undecayed"))).iloc[0]
    assert undecayed["reason"] == "0 sizes with 4 decayed endpoints or more, 3 needed"
    assert math.isnan(undecayed["alpha"]) and undecayed["n_endpoints"] == 0
    constant = scaling_table(scalings(study(seeds=1, schedule="constant"))).iloc[0]
    assert constant["reason"] == undecayed["reason"]
    two = scalings(study(sizes=2))
    assert two[0].reason.startswith("2 sizes") and multiplier_table(two).empty
    assert scalings([]) == [] and scaling_table([]).empty


def test_one_seed_has_multipliers_without_intervals() -> None:
    (found,) = scalings(study(seeds=1), bootstrap=60)
    table = multiplier_table([found])
    assert table["multiplier"].to_numpy() == pytest.approx(1.4, abs=0.1)
    assert np.isnan(table[["multiplier_lo", "multiplier_law_lo"]].to_numpy()).all()
