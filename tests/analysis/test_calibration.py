"""That intervals and verdicts are right as often as they say: a fast part of `make calibration`, and its own parts."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.metrics.smoothing import FINE, Curve, quadratic
from benchmarks.calibration import BLOCK, STUDY, Block, by_chance, calibrate, markdown, simulate, summary, targets
from benchmarks.scenarios import EVALUATIONS, MID, Noise, PowerLaw, fit_noise, fitted, scenarios

SIMULATIONS = 300
KNOWN = {s.key: s for s in scenarios(STUDY)}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    chosen = [KNOWN[key] for key in ("D", "high-1.00", "harness-1.05", "endpoints-1.50")]
    return calibrate(chosen, SIMULATIONS, [5], workers=1).set_index("scenario")


@pytest.mark.parametrize("key", ["D", "high-1.00", "harness-1.05", "endpoints-1.50"])
def test_the_interval_covers_as_often_as_it_says(table: pd.DataFrame, key: str) -> None:
    low, high = stats.binom.ppf([0.0005, 0.9995], SIMULATIONS, 0.95)
    assert low <= table["coverage"][key] * SIMULATIONS <= high


def test_no_effect_is_seldom_called_one(table: pd.DataFrame) -> None:
    assert table["supported"]["high-1.00"] * SIMULATIONS <= stats.binom.ppf(0.9995, SIMULATIONS, 0.025)


def test_the_smallest_effect_of_interest_is_seldom_excluded(table: pd.DataFrame) -> None:
    excluded = table["contradicted"]["harness-1.05"] + table["no_gain"]["harness-1.05"]
    assert excluded * SIMULATIONS <= stats.binom.ppf(0.9995, SIMULATIONS, 0.05)


def test_a_large_effect_is_found_and_its_estimate_is_right(table: pd.DataFrame) -> None:
    row = table.loc["endpoints-1.50"]
    error = row["rmse_pct"] / math.sqrt(SIMULATIONS)
    assert row["supported"] == 1 and abs(row["bias_pct"]) < 0.5 + 3 * error


def test_simulations_do_not_depend_on_how_they_are_shared_out() -> None:
    scenario, n = KNOWN["E"], BLOCK + 7
    [row] = calibrate([scenario], n, [4], workers=1).to_dict("records")
    last = simulate(Block(scenario, 4, BLOCK, 7))
    first = simulate(Block(scenario, 4, 0, BLOCK))
    assert summary(scenario, 4, pd.concat([first, last])) == row
    assert (first["ln_speedup"].iloc[:7].to_numpy() != last["ln_speedup"].to_numpy()).all()


def test_three_seeds_carry_no_verdict_and_the_page_says_what_was_missed() -> None:
    found = calibrate([KNOWN["B"]], 10, [3, 5], workers=1)
    assert found["supported"][0] == found["contradicted"][0] == found["no_gain"][0] == 0
    missed = found.assign(coverage=[0.95, 0.90])
    asked = {(t.of, t.name): t for t in targets(missed)}
    assert asked["A to K", "mean coverage"].figures == {3: 95.0, 5: 90.0} and not asked["A to K", "mean coverage"].met
    assert asked["mid noise", "supported at no effect"].figures == {5: 0.0}
    assert ("high noise", "mean coverage") not in asked
    page = markdown(missed, MID)
    assert "| mid noise | worst coverage | at least 93 % | 95.00 / 90.00 | **no** |" in page and "0.0080" in page


def test_what_chance_allows_is_what_a_binomial_does() -> None:
    assert stats.binom.sf(round(4000 * (0.025 + by_chance(2.5, 4000) / 100)), 4000, 0.025) <= 0.05
    assert by_chance(2.5, 400_000) < by_chance(2.5, 4000) < 0.5


@pytest.mark.parametrize(
    ("key", "speedup"),
    [("A", 1.5), ("B", 1.0), ("C", 1.1765), ("E", 1.3), ("F", 0.85), ("K", 3.0), ("harness-1.50", 1.5)],
)
def test_the_truth_of_a_scenario_is_that_of_its_laws(key: str, speedup: float) -> None:
    assert math.exp(KNOWN[key].ln_speedup) == pytest.approx(speedup, rel=1e-4)


def test_every_scenario_of_the_method_is_there() -> None:
    assert set("ABCDEFGHIJK") <= set(KNOWN)
    for level in ("mid", "high", "harness", "endpoints"):
        speedups = {round(math.exp(s.ln_speedup), 3) for s in KNOWN.values() if s.level == level}
        assert {1.0, 1.05} <= speedups


def test_noise_has_the_spread_and_the_pairing_that_it_says() -> None:
    x = np.log(np.geomspace(0.1, 1, 12))
    drawn = MID.draw(np.random.default_rng(0), x, 4000, 2)
    assert drawn.shape == (4000, 2, 2, 12)
    variance = MID.seed_sd**2 + MID.drift_sd**2 + MID.eval_sd**2
    assert drawn.var() == pytest.approx(variance, rel=0.03)
    pair = (drawn[:, :, 0] * drawn[:, :, 1]).mean()
    assert pair == pytest.approx(MID.shared * MID.seed_sd**2, rel=0.15)
    near, far = ((drawn[..., 0] * drawn[..., k]).mean() - MID.seed_sd**2 for k in (1, 11))
    assert near == pytest.approx(MID.drift_sd**2 * math.exp(-(x[1] - x[0]) / 0.5), rel=0.25)
    assert abs(far) < 0.25 * MID.drift_sd**2


def test_noise_that_runs_were_made_with_is_found_again_in_them() -> None:
    shares = np.array(EVALUATIONS)
    law, noise = PowerLaw(2.0, 3.0, 0.3), Noise(seed_sd=0.03, eval_sd=0.008, shared=0.4, drift_sd=0.012)
    [drawn] = noise.draw(np.random.default_rng(0), np.log(shares), 1, 2000)
    found = fit_noise([(shares, law(shares) + drawn[:, arm]) for arm in (0, 1)])
    assert found.seed_sd == pytest.approx(noise.seed_sd, rel=0.05)
    assert found.drift_sd == pytest.approx(noise.drift_sd, rel=0.05)
    assert found.eval_sd == pytest.approx(noise.eval_sd, rel=0.05)
    assert found.shared == pytest.approx(noise.shared, abs=0.07)


def test_the_harness_has_the_curve_and_the_noise_of_its_committed_study() -> None:
    law, noise, shares = fitted(STUDY)
    assert shares[-1] == 1 and len(shares) == 32
    assert law(np.array([1.0])) == pytest.approx(2.4975, abs=1e-3)  # target_loss_nats of its effects
    assert 0.02 < noise.seed_sd < 0.05 and 0.005 < noise.eval_sd < 0.02 and 0 <= noise.shared < 0.5


# The curve through decayed endpoints.

BUDGETS = 1e6 * np.array([0.3, 0.45, 0.6, 0.8, 1.0])


def through(tokens: np.ndarray, loss: np.ndarray) -> Curve:
    found = quadratic(tokens, loss)
    assert found is not None
    return found


def test_a_quadratic_goes_through_what_is_one() -> None:
    loss = 3 - 0.4 * np.log(BUDGETS / 1e6) + 0.1 * np.log(BUDGETS / 1e6) ** 2
    found = through(BUDGETS, loss)
    assert len(found.x) == len(found.loss) == FINE
    assert found.at(np.log(BUDGETS)) == pytest.approx(loss, abs=1e-5)
    assert found.end == pytest.approx(math.log(1e6)) and found.final == pytest.approx(3.0)


def test_a_quadratic_takes_endpoints_in_any_order_and_averages_repeats() -> None:
    loss = PowerLaw(2.0, 3.0, 0.3)(BUDGETS / 1e6)
    found = through(np.r_[BUDGETS[::-1], BUDGETS], np.r_[loss[::-1] + 0.01, loss - 0.01])
    assert found.loss == pytest.approx(through(BUDGETS, loss).loss, abs=1e-9)


def test_a_quadratic_needs_four_distinct_finite_endpoints() -> None:
    loss = np.array([3.4, 3.2, 3.1, 3.05, 3.0])
    assert quadratic(BUDGETS[:3], loss[:3]) is None
    assert quadratic(BUDGETS[[0, 1, 2, 2]], loss[:4]) is None
    assert quadratic(np.r_[0.0, BUDGETS[:3]], loss[:4]) is None
    assert quadratic(BUDGETS[:4], np.r_[np.nan, loss[1:4]]) is None
    assert quadratic(BUDGETS[:4], loss[:4]) is not None


def test_endpoints_are_read_by_the_quadratic() -> None:
    assert KNOWN["endpoints-1.00"].read is quadratic and KNOWN["A"].read is not quadratic
