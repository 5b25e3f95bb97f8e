"""The matching contrast: known slopes, its power and error against simulation, and regret that no choice flatters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.metrics.matching import (
    interaction,
    matching,
    matching_table,
    matchings,
    one_sided_p,
    regret_table,
    transfer_regrets,
)

from .cell_runs import cell, loss, run, shifted

X = np.array([0.25, 0.35, 0.45, 0.7])
DOMAINS = ["code", "math", "web"]
HIGH, LOW = ["web", "math"], ["code"]


def gaps(rng: np.random.Generator, slopes: tuple[float, ...], seeds: int = 5, noise: float = 0.011) -> np.ndarray:
    """Loss gaps (seeds, domains, bands) with the given slopes and a level of every seed."""
    signal = np.array(slopes)[:, None] * (X - X.mean()) + 0.05
    return signal + rng.normal(0, 0.01, (seeds, 1, 1)) + rng.normal(0, noise, (seeds, len(slopes), len(X)))


def test_known_slopes_are_recovered_exactly() -> None:
    found = matching(X, gaps(np.random.default_rng(0), (-0.1, 0.2, 0.3), noise=0.0), DOMAINS, HIGH, LOW)
    assert found.slopes == pytest.approx(np.tile([-0.1, 0.2, 0.3], (5, 1)))
    assert found.contrast == pytest.approx((0.35, 0.35, 0.35)) and found.p < 1e-9
    assert found.omnibus.p < 1e-9 and found.omnibus.df == (6, 24)
    regret = {(r.domain, r.other): r.nats.mean for r in found.regrets}
    assert regret["web", "code"] == pytest.approx(0.3 * 0.45) and regret["code", "web"] == pytest.approx(0.1 * 0.45)
    assert regret["web", "math"] == pytest.approx(0, abs=1e-12) and len(regret) == 6


def test_complexity_may_differ_by_domain() -> None:
    x = np.stack([X, X + 0.1, 2 * X])
    y = np.broadcast_to(0.2 * X, (4, 3, len(X)))
    assert matching(x, y, DOMAINS, HIGH, LOW).slopes[0] == pytest.approx([0.2, 0.2, 0.1])


def test_without_a_difference_contrast_and_omnibus_err_as_often_as_they_say() -> None:
    rng, runs = np.random.default_rng(1), 300
    found = [matching(X, gaps(rng, (0.1, 0.1, 0.1)), DOMAINS, HIGH, LOW) for _ in range(runs)]
    tolerance = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert abs(np.mean([f.p < 0.05 for f in found]) - 0.05) < tolerance
    assert abs(np.mean([f.omnibus.p < 0.05 for f in found]) - 0.05) < tolerance
    assert abs(np.mean([f.contrast.low <= 0 <= f.contrast.high for f in found]) - 0.95) < tolerance


def test_the_contrast_has_more_power_than_the_omnibus() -> None:
    """A contrast finds one slope with 66 % at five seeds, the omnibus test with 37 %; here the sizes are its own."""
    rng, runs = np.random.default_rng(2), 150
    found = [matching(X, gaps(rng, (0.0, 0.04, 0.04)), DOMAINS, HIGH, LOW) for _ in range(runs)]
    assert np.mean([f.p < 0.05 for f in found]) > np.mean([f.omnibus.p < 0.05 for f in found]) + 0.1


def test_the_omnibus_of_two_by_two_is_a_paired_t_test() -> None:
    y = np.random.default_rng(3).normal(0, 1, (6, 2, 2))
    t = stats.ttest_1samp(y[:, 0, 0] - y[:, 0, 1] - y[:, 1, 0] + y[:, 1, 1], 0)
    found = interaction(y)
    assert found.f == pytest.approx(t.statistic**2) and found.p == pytest.approx(t.pvalue)


def test_the_regret_of_noise_alone_is_not_flattered_by_the_choice() -> None:
    """Choosing the band on the seed that is judged would give a mean well above zero."""
    rng = np.random.default_rng(4)
    means = [transfer_regrets(rng.normal(0, 0.01, (5, 2, 4)), ["a", "b"])[0].nats.mean for _ in range(300)]
    assert abs(np.mean(means)) < 3 * np.std(means) / math.sqrt(len(means))


def test_a_one_sided_test_by_hand() -> None:
    values = np.array([0.1, 0.3, -0.05, 0.2])
    assert one_sided_p(values) == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)
    assert one_sided_p(-values) == pytest.approx(1 - one_sided_p(values))
    assert (one_sided_p(np.ones(3)), one_sided_p(np.zeros(3)), one_sided_p(-np.ones(3))) == (0, 1, 1)


@pytest.mark.parametrize(
    ("high", "low", "reason"),
    [
        ([], LOW, "no contrast of domains was given"),
        (["webb"], LOW, "no domain webb here; there are code, math, web"),
        (HIGH, ["web"], "web is on both sides of the contrast"),
    ],
)
def test_a_contrast_that_cannot_be_made_says_why(high: list[str], low: list[str], reason: str) -> None:
    found = matching(X, gaps(np.random.default_rng(0), (0.1, 0.2, 0.3)), DOMAINS, high, low)
    assert found.reason == reason and math.isnan(found.contrast.mean) and math.isnan(found.p)
    assert len(found.regrets) == 6 and math.isfinite(found.omnibus.f)


def test_few_seeds_missing_values_and_no_variance() -> None:
    y = gaps(np.random.default_rng(0), (0.1, 0.2, 0.3))
    one = matching(X, y[:1], DOMAINS, HIGH, LOW)
    assert one.reason == "1 seed, 2 needed for an interval" and math.isfinite(one.contrast.mean)
    assert math.isnan(one.contrast.low) and math.isnan(one.omnibus.p) and math.isnan(one.regrets[0].nats.mean)
    none = matching(X, y[:0], DOMAINS, HIGH, LOW)
    assert none.reason == "0 seeds, 2 needed for an interval" and math.isnan(none.contrast.mean)
    y[1, 2, 0] = np.nan
    assert matching(X, y, DOMAINS, HIGH, LOW).left_out == 1
    flat = matching(X, np.full((4, 3, 4), 0.3), DOMAINS, HIGH, LOW)
    assert flat.contrast.mean == pytest.approx(0) and flat.omnibus.p == 1
    assert matching(X[:1], y[:, :, :1], DOMAINS, HIGH, LOW).reason == "a domain has a single complexity"


@settings(max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(5)), st.floats(-1, 1))
def test_neither_order_nor_shift_of_gaps_changes_anything(data: int, order: list[int], shift: float) -> None:
    y = gaps(np.random.default_rng(data), (0.1, 0.2, 0.3))
    a, b = matching(X, y, DOMAINS, HIGH, LOW), matching(X, y[order] + shift, DOMAINS, HIGH, LOW)
    assert a.contrast == pytest.approx(b.contrast) and a.omnibus.f == pytest.approx(b.omnibus.f)
    for one, other in zip(a.regrets, b.regrets, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-9)


def test_matchings_of_cells() -> None:
    rng, cells = np.random.default_rng(6), []
    for domain, slope in (("web", 0.3), ("code", -0.1)):
        base = [run(loss, domain=domain, stage=f"{domain} {s}") for s in range(4)]
        for x in X:
            level = 0.05 + slope * (x - 0.45) + rng.normal(0, 0.0005, 4)
            pairs = [
                (run(shifted(g), domain=domain, before=1, complexity=x), b) for g, b in zip(level, base, strict=True)
            ]
            missing = 1 if (domain, x) == ("web", 0.45) else 0
            cells.append(cell("nca", {"text": domain, "band": f"{x}"}, pairs[missing:], missing))
    (found,) = matchings(cells, ["web"], ["code"])
    assert (found.arm, found.group, found.left_out, found.y.shape) == ("nca", "nca", 1, (3, 2, 4))
    assert found.contrast.mean == pytest.approx(0.4, abs=0.01) and found.p < 0.01
    table = matching_table([found])
    assert (table["high"][0], table["low"][0], table["n_bands"][0]) == ("web", "code", 4)
    assert regret_table([found]).set_index("domain")["regret_nats"]["web"] == pytest.approx(0.135, abs=0.005)
    assert matchings([], [], []) == [] and matching_table([]).empty and regret_table([]).empty
