"""Intervals and tests over seeds. The seed is the only unit of replication; evaluations are never counted as one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its 95 % interval; the bounds are NaN where fewer than two values were given."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of `values` (n,) with the t interval on n - 1 degrees of freedom."""
    v = np.asarray(values, float)
    if len(v) == 0:
        return Interval(np.nan, np.nan, np.nan)
    if len(v) == 1:
        return Interval(float(v[0]), np.nan, np.nan)
    half = stats.t.ppf(0.5 + LEVEL / 2, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v))
    return Interval(float(v.mean()), float(v.mean() - half), float(v.mean() + half))


def t_p_value(values: Sequence[float] | np.ndarray, null: float = 0.0) -> float:
    """Two-sided p of the mean of `values` (n,) being `null`; NaN below two values."""
    v = np.asarray(values, float)
    if len(v) < 2:
        return float("nan")
    error = v.std(ddof=1) / np.sqrt(len(v))
    return _p_value(float(v.mean() - null), float(error), len(v) - 1)


class Welch(NamedTuple):
    """Difference of two means (first minus second), its standard error and its degrees of freedom; arrays (...)."""

    difference: np.ndarray
    error: np.ndarray
    df: np.ndarray

    @property
    def interval(self) -> Interval:
        half = stats.t.ppf(0.5 + LEVEL / 2, self.df) * self.error
        return Interval(float(self.difference), float(self.difference - half), float(self.difference + half))

    @property
    def p_value(self) -> float:
        return _p_value(float(self.difference), float(self.error), float(self.df))


def welch(a: np.ndarray, b: np.ndarray) -> Welch:
    """Welch's comparison of samples a (n, ...) and b (m, ...) along their first axis, n and m at least 2."""
    va, vb = a.var(axis=0, ddof=1) / len(a), b.var(axis=0, ddof=1) / len(b)
    tiny = np.finfo(float).tiny
    df = (va + vb) ** 2 / np.maximum(va**2 / (len(a) - 1) + vb**2 / (len(b) - 1), tiny)
    return Welch(a.mean(axis=0) - b.mean(axis=0), np.sqrt(va + vb), np.maximum(df, 1.0))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p values; a test that could not be made (NaN) counts in the family and stays NaN."""
    p = np.asarray(p, float)
    order = np.argsort(np.where(np.isnan(p), 2.0, p), kind="stable")
    factor = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.nan_to_num(p[order], nan=1.0) * factor), 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)


def _p_value(difference: float, error: float, df: float) -> float:
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, df))
