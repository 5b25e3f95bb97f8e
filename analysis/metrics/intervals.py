"""Intervals and tests over seeds. The seed is the only unit of replication; evaluations are never counted as one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its 95 % interval; the bounds are NaN where fewer than two values were given."""

    mean: float
    low: float
    high: float


def bounds(name: str, interval: Interval) -> dict[str, float]:
    """The columns `name`, `name`_lo and `name`_hi of a table."""
    return {name: interval.mean, f"{name}_lo": interval.low, f"{name}_hi": interval.high}


def critical(df: float | np.ndarray) -> np.ndarray:
    """The t beyond which lies what LEVEL leaves out, both sides together, at `df` (...) degrees of freedom."""
    return np.asarray(special.stdtrit(df, 0.5 + LEVEL / 2))


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of `values` (n,) with the t interval on n - 1 degrees of freedom."""
    v = np.asarray(values, float)
    if len(v) == 0:
        return Interval(np.nan, np.nan, np.nan)
    if len(v) == 1:
        return Interval(float(v[0]), np.nan, np.nan)
    half = critical(len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v))
    return Interval(float(v.mean()), float(v.mean() - half), float(v.mean() + half))


def t_p_value(values: Sequence[float] | np.ndarray, null: float = 0.0) -> float:
    """Two-sided p of the mean of `values` (n,) being `null`; NaN below two values."""
    v = np.asarray(values, float)
    return paired(v, np.full(len(v), null)).p_value if len(v) > 1 else float("nan")


class Difference(NamedTuple):
    """Difference of two means (first minus second), its standard error and its degrees of freedom: arrays (...),
    or what broadcasts to them."""

    difference: np.ndarray
    error: np.ndarray
    df: np.ndarray

    @property
    def interval(self) -> Interval:
        half = critical(self.df) * self.error
        return Interval(float(self.difference), float(self.difference - half), float(self.difference + half))

    @property
    def p_value(self) -> float:
        """Two-sided p of one pair of means being equal."""
        return float(self.p_values)

    @property
    def p_values(self) -> np.ndarray:
        """Two-sided p (...) of the means being equal; means that differ without error surely do."""
        t = np.abs(self.difference) / np.maximum(self.error, np.finfo(float).tiny)
        return np.asarray(2 * special.stdtr(self.df, -t))


def paired(a: np.ndarray, b: np.ndarray) -> Difference:
    """The paired comparison of samples a (n, ...) and b (n, ...) along their first axis, n at least 2."""
    d = a - b
    return Difference(d.mean(axis=0), d.std(axis=0, ddof=1) / np.sqrt(len(d)), np.asarray(len(d) - 1.0))


def welch(a: np.ndarray, b: np.ndarray) -> Difference:
    """Welch's comparison of samples a (n, ...) and b (m, ...) along their first axis, n and m at least 2."""
    va, vb = a.var(axis=0, ddof=1) / len(a), b.var(axis=0, ddof=1) / len(b)
    tiny = np.finfo(float).tiny
    df = (va + vb) ** 2 / np.maximum(va**2 / (len(a) - 1) + vb**2 / (len(b) - 1), tiny)
    return Difference(a.mean(axis=0) - b.mean(axis=0), np.sqrt(va + vb), np.maximum(df, 1.0))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p values; a test that could not be made (NaN) counts in the family and stays NaN."""
    p = np.asarray(p, float)
    order = np.argsort(np.where(np.isnan(p), 2.0, p), kind="stable")
    factor = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.nan_to_num(p[order], nan=1.0) * factor), 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's (1995) adjusted p values, which control the false discovery rate. NaN stays NaN and,
    unlike in `holm`, counts for none of the tests."""
    p = np.asarray(p, float)
    known = ~np.isnan(p)
    found = np.full(len(p), np.nan)
    if known.any():
        found[known] = stats.false_discovery_control(p[known])
    return found
