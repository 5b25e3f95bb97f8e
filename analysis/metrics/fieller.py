"""The t interval of a ratio of two means, such as the vertex of parabolas whose coefficients vary with the seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from analysis.metrics.intervals import LEVEL, Interval


class Ratio(NamedTuple):
    """A ratio of means with its 95 % set. `bounded` is False where that set is no finite interval, because the
    denominator may well be zero: a half line, all but an interval, or the whole line. The bounds are infinite then."""

    interval: Interval
    bounded: bool


def ratio(numerator: Sequence[float] | np.ndarray, denominator: Sequence[float] | np.ndarray) -> Ratio:
    """mean(numerator) / mean(denominator) of pairs (n,), (n,), with the set of ratios r at which a t test on n - 1
    degrees of freedom does not reject that numerator - r denominator has mean zero.

    Fieller, E. C. (1954), "Some problems in interval estimation", JRSS B 16. Pairs with a value that is not finite are
    left out. Below two pairs the bounds are NaN; where the denominator's mean is zero so is the ratio.
    """
    pairs = np.stack([np.asarray(numerator, float), np.asarray(denominator, float)])
    p, q = pairs[:, np.isfinite(pairs).all(axis=0)]
    n = len(p)
    if n == 0:
        return Ratio(Interval(np.nan, np.nan, np.nan), False)
    mean_p, mean_q = float(p.mean()), float(q.mean())
    estimate = mean_p / mean_q if mean_q else np.nan
    if n == 1:
        return Ratio(Interval(estimate, np.nan, np.nan), False)
    (pp, pq), (_, qq) = np.cov(p, q) * stats.t.ppf(0.5 + LEVEL / 2, n - 1) ** 2 / n
    # The set is where square r^2 - 2 middle r + rest <= 0 with rest = mean_p^2 - pp, an interval if square > 0. Its
    # discriminant is written out, so that without variance it is zero and not the rounding of large terms.
    square, middle = mean_q**2 - qq, mean_p * mean_q - pq
    if not square > 0:
        return Ratio(Interval(estimate, -np.inf, np.inf), False)
    discriminant = mean_q**2 * pp - 2 * mean_p * mean_q * pq + mean_p**2 * qq - (pp * qq - pq**2)
    half = np.sqrt(max(discriminant, 0.0))
    return Ratio(Interval(estimate, float((middle - half) / square), float((middle + half) / square)), True)


def vertex(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Ratio:
    """Where the mean parabola a x^2 + b x + c has its vertex, -mean(b) / (2 mean(a)), from the coefficients (n,) of n
    seeds. See `ratio`."""
    return ratio(-np.asarray(b, float), 2 * np.asarray(a, float))
