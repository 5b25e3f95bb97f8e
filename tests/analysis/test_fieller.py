"""The interval of a ratio: a set worked out by hand, its coverage, and what it says where there is none."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.metrics.fieller import ratio, vertex

VALUES = st.lists(st.tuples(st.floats(-2, 2), st.floats(3, 5)), min_size=2, max_size=8)


def test_the_bounds_are_where_the_t_test_just_rejects() -> None:
    p, q = np.array([1.0, 1.3, 0.9, 1.2]), np.array([2.1, 1.9, 2.0, 2.4])
    found = ratio(p, q)
    assert found.bounded and found.interval.mean == p.mean() / q.mean()
    for bound in (found.interval.low, found.interval.high):
        assert stats.ttest_1samp(p - bound * q, 0).pvalue == pytest.approx(0.05, abs=1e-9)
    assert stats.ttest_1samp(p - found.interval.mean * q, 0).pvalue == pytest.approx(1)


def test_a_known_denominator_gives_the_t_interval() -> None:
    p = np.array([1.0, 1.3, 0.9, 1.2])
    low, high = stats.t.interval(0.95, 3, p.mean(), p.std(ddof=1) / 2)
    assert ratio(p, np.full(4, 2.0)).interval == pytest.approx((p.mean() / 2, low / 2, high / 2))


def test_the_vertex_of_a_known_parabola() -> None:
    """-3 (x - 0.4)^2 + c on every seed."""
    found = vertex(np.full(3, -3.0), np.full(3, 2.4))
    assert found.bounded and found.interval == pytest.approx((0.4, 0.4, 0.4))


@pytest.mark.parametrize(("curvature", "seeds", "runs"), [(-1.0, 5, 800), (-1.0, 3, 800), (-0.4, 8, 800)])
def test_covers_as_often_as_it_says(curvature: float, seeds: int, runs: int) -> None:
    """Coefficients with the errors of a fit on five points, strongly correlated. A set without bounds covers: that is
    part of Fieller's promise, which holds for the mean parabola however weak its curvature."""
    rng = np.random.default_rng(0)
    x = np.linspace(0.2, 0.8, 5)
    fit = np.linalg.pinv(np.stack([np.ones(5), x, x**2], axis=1))
    y = curvature * (x - 0.45) ** 2 + rng.normal(0, 0.02, (runs, seeds, 5))
    _, b, a = np.moveaxis(y @ fit.T, -1, 0)
    hits = 0
    for i in range(runs):
        q, p = 2 * a[i], -b[i]
        found = vertex(a[i], b[i])
        # The set itself, not its convex hull: where it has no bounds, ask the test that it inverts.
        inside = found.interval.low <= 0.45 <= found.interval.high
        hits += inside if found.bounded else stats.ttest_1samp(p - 0.45 * q, 0).pvalue >= 0.05
    assert abs(hits / runs - 0.95) < 3 * math.sqrt(0.95 * 0.05 / runs)


def test_a_denominator_that_may_be_zero_has_no_bounds() -> None:
    found = ratio(np.array([1.0, 1.1, 0.9]), np.array([-0.5, 0.6, 0.1]))
    assert not found.bounded and found.interval[1:] == (-math.inf, math.inf)
    zero = ratio(np.ones(3), np.zeros(3))
    assert not zero.bounded and math.isnan(zero.interval.mean) and zero.interval.high == math.inf


def test_too_few_and_missing_seeds() -> None:
    assert not ratio([], []).bounded and math.isnan(ratio([], []).interval.mean)
    one = ratio([1.0], [2.0])
    assert one.interval.mean == 0.5 and math.isnan(one.interval.low) and not one.bounded
    assert ratio([1.0, np.nan, 1.2], [2.0, 2.0, 2.1]) == ratio([1.0, 1.2], [2.0, 2.1])


@settings(max_examples=30)
@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_seeds_changes_nothing(values: list[tuple[float, float]], random: Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    a, b = ratio(*np.array(values).T), ratio(*np.array(shuffled).T)
    if a.bounded and np.ptp(a.interval) < 1e3:
        assert b.bounded
        assert a.interval == pytest.approx(b.interval, rel=1e-6, abs=1e-6)


@settings(max_examples=30)
@given(VALUES, st.floats(-5, 5), st.floats(0.1, 10))
def test_moving_and_scaling_the_axis_moves_and_scales_the_set(
    values: list[tuple[float, float]], shift: float, scale: float
) -> None:
    p, q = np.array(values).T
    a, b = ratio(p, q), ratio(scale * p + shift * q, q)
    if a.bounded and b.bounded and np.ptp(a.interval) < 1e3:
        assert b.interval == pytest.approx([scale * v + shift for v in a.interval], rel=1e-5, abs=1e-5)
