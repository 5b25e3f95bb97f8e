"""How much text an arm saves: tokens to equal loss, the gap at the end, and both net of what came before the text.

The headline: per seed pair, smooth both curves in ln tokens, take the baseline's own final loss
as the target, and read the signed ln of the ratio of tokens; the interval inverts the paired t test of equal losses.
Losses are in nats per token, tokens are counted, logarithms are natural.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.metrics.intervals import Difference, Interval, critical, paired, t_interval
from analysis.metrics.smoothing import FINE, Curve

NEAR_TARGETS = (0.005, 0.02)
"""Nats above the target at which the speedup is read again: far from it means that it hangs on a flat tail."""


class Reading(NamedTuple):
    """Signed ln speedup of a pair. `direction` is "forward" where the treated run reached the baseline's final loss,
    else "reverse"; `left_censored` if the crossing came before the first evaluation, so that the value is a bound."""

    ln_speedup: float
    direction: str
    left_censored: bool


def read_pair(baseline: Curve, treated: Curve) -> Reading:
    """ln of (tokens that the baseline needs / tokens that the treated run needs) for the same loss.

    That loss is the baseline's final one; where the treated run never reaches it, the treated run's final one, which
    the baseline then reached earlier. One of the two lies inside the data, so a failure to reach the target is a value
    below 0, not a missing value.
    """
    crossing, censored = treated.first_crossing(baseline.final)
    if not math.isnan(crossing):
        return Reading(baseline.end - crossing, "forward", censored)
    crossing, censored = baseline.first_crossing(treated.final)
    return Reading(crossing - treated.end, "reverse", censored)


def ln_speedup_at(baseline: Curve, treated: Curve, target: float) -> float:
    """ln of the ratio of tokens to the loss `target`; NaN where one of the two never reaches it or already had."""
    b, b_censored = baseline.first_crossing(target)
    t, t_censored = treated.first_crossing(target)
    return float("nan") if b_censored or t_censored else b - t


def gap(baseline: Curve, treated: Curve) -> float:
    """Loss of the baseline minus that of the treated run (nats), each at its own end."""
    return baseline.final - treated.final


def auc_gain(baseline: Curve, treated: Curve) -> float:
    """Mean loss gap (nats) over ln tokens from 5 % of the baseline's budget to the end of the shorter run."""
    end = min(baseline.end, treated.end)
    start = max(baseline.end + math.log(0.05), baseline.x[0], treated.x[0])
    x = np.linspace(start, end, 256)
    return float((baseline.at(x) - treated.at(x)).mean()) if end > start else float("nan")


def net_speedup(speedup: float, text: float, before: float, ratio: float = 1.0) -> float:
    """Speedup net of what came before the text: text / (ratio text / speedup + before).

    In tokens `ratio` is 1 and `before` the tokens of the stages before. In FLOPs `text` is the baseline's whole cost,
    `ratio` the treated run's FLOPs a token over the baseline's and `before` the FLOPs before, generation included.
    """
    if not speedup > 0:
        return speedup  # nothing was reached (0), or unknown (NaN)
    return text / (ratio * text / speedup + before) if math.isfinite(speedup) or before else math.inf


Test = Callable[[np.ndarray, np.ndarray], Difference]
"""Compares the means of losses (n, ...) of treated runs and of baselines."""


def inverted(baselines: Sequence[Curve], treated: Sequence[Curve], test: Test = paired) -> Interval:
    """95 % interval of ln speedup by inverting `test` at every speedup; an open end is infinite.

    At speedup s the mean treated loss at D/s tokens equals the mean baseline loss at D tokens, with D so chosen that
    both lie inside the data. Needs at least two runs of each; `mean` is the speedup whose difference is nearest zero.
    The ratio of tokens at which two noisy lines are level: Fieller, E. C. (1954), "Some problems in interval
    estimation".
    """
    grid = _speedup_grid(baselines, treated)
    found = test(*_losses_at(baselines, treated, grid))
    t = found.difference / np.maximum(found.error, 1e-300)
    bound = critical(found.df)
    above, below = np.flatnonzero(t >= -bound), np.flatnonzero(t <= bound)
    if len(above) == 0:  # every speedup that the data could show is too low
        return Interval(float(grid[-1]), float(grid[-1]), np.inf)
    if len(below) == 0:
        return Interval(float(grid[0]), -np.inf, float(grid[0]))
    low = -np.inf if above[0] == 0 else _zero(grid, t + bound, above[0])
    high = np.inf if below[-1] == len(grid) - 1 else _zero(grid, t - bound, below[-1] + 1)
    return Interval(float(grid[np.abs(t).argmin()]), float(low), float(high))


def speedup_p_values(
    baselines: Sequence[Curve], treated: Sequence[Curve], ln_speedups: Sequence[float], test: Test = paired
) -> np.ndarray:
    """Two-sided p (m,), by `test`, of the speedup being exp(s) for every s of `ln_speedups` (m,)."""
    return test(*_losses_at(baselines, treated, np.asarray(ln_speedups, float))).p_values


class Headline(NamedTuple):
    """The estimate of a cell: `ln_speedup` and `gap` (nats) with their intervals, p values of no effect and of an
    effect as large as the smallest of interest, and how they were got."""

    ln_speedup: Interval
    gap: Interval
    p: float
    p_sesoi: float
    correlation: float
    """Of a pair's final losses; NaN where it does not exist."""
    readings: list[Reading]
    """One a pair."""
    estimator: str


def headline(baselines: Sequence[Curve], treated: Sequence[Curve], ln_sesoi: float) -> Headline:
    """The headline of pairs (baselines[i], treated[i]): the mean signed ln speedup, with the interval that inverts
    the paired t test. `ln_sesoi` is ln of the smallest speedup of interest; without a second pair there is no interval.

    The test compares losses, whose noise is close to normal; ln speedup is bent by the curve. At the noise of
    results/crossover a t interval of the pairs' ln S covers 94.2 to 94.8 %, this one 95.0 to 95.7 %. No effect is
    excluded exactly where the gap excludes it. The pairing is used whatever its correlation: Welch's test where a
    correlation measured on the same few pairs is below 0.2 covers 93.2 to 93.4 % there, because it leaves the paired
    interval to the samples in which chance made it narrow. Figures: docs/calibration.md.
    """
    readings = [read_pair(b, t) for b, t in zip(baselines, treated, strict=True)]
    mean = float(np.mean([r.ln_speedup for r in readings]))
    finals = np.array([[b.final, t.final] for b, t in zip(baselines, treated, strict=True)])
    gaps = t_interval(finals[:, 0] - finals[:, 1])
    if len(readings) < 2:
        nothing = float("nan")
        return Headline(Interval(mean, nothing, nothing), gaps, nothing, nothing, nothing, readings, ESTIMATOR)
    _, low, high = inverted(baselines, treated)
    p, p_sesoi = speedup_p_values(baselines, treated, (0.0, ln_sesoi)).tolist()
    return Headline(Interval(mean, low, high), gaps, p, p_sesoi, correlation(finals), readings, ESTIMATOR)


ESTIMATOR = "LOESS, paired t"


def correlation(finals: np.ndarray) -> float:
    """Of final losses (n, 2) of pairs; NaN where it does not exist."""
    off = finals - finals.mean(axis=0)
    squares = (off**2).sum(axis=0)
    if len(finals) < 3 or (squares < 1e-18 * len(finals)).any():
        return float("nan")
    return float(off[:, 0] @ off[:, 1] / math.sqrt(squares[0] * squares[1]))


def speedup_curve(pairs: Sequence[tuple[Curve, Curve]], targets: int = 25) -> pd.DataFrame:
    """S(L) of (baseline, treated) pairs: the speedup at losses from the baseline's at a tenth of its budget to its
    final one. Columns target_loss_nats, speedup, speedup_lo, speedup_hi (pointwise t interval).

    As in the headline every pair has its own targets, equally spaced between its own ends, and the loss given is
    their mean; where the treated run never comes so low, its own final loss is the target. So the last row is the
    headline. NaN where a run was that low at its first evaluation.
    """
    rows = []
    starts = [float(b.at(max(b.end + math.log(0.1), b.x[0]))) for b, _ in pairs]
    for share in np.linspace(0, 1, targets):
        losses, readings = [], []
        for high, (baseline, treated) in zip(starts, pairs, strict=True):
            target = max(high + share * (baseline.final - high), treated.final)
            losses.append(target)
            readings.append(ln_speedup_at(baseline, treated, target))
        mean, low, high = t_interval(readings)
        speedups = {"speedup": exp(mean), "speedup_lo": exp(low), "speedup_hi": exp(high)}
        rows.append({"target_loss_nats": float(np.mean(losses)), **speedups})
    return pd.DataFrame(rows)


def gap_curve(pairs: Sequence[tuple[Curve, Curve]], points: int = 128) -> pd.DataFrame:
    """Loss gap of (baseline, treated) pairs while they train, where all have been measured and from 5 % of the
    shorter budget on. Columns tokens, gap_nats, gap_nats_lo, gap_nats_hi (pointwise t interval; NaN for one pair)."""
    curves = [c for pair in pairs for c in pair]
    end = min(c.end for c in curves)
    x = np.linspace(max(end + math.log(0.05), *(c.x[0] for c in curves)), end, points)
    gaps = np.stack([b.at(x) - t.at(x) for b, t in pairs])
    mean, n = gaps.mean(axis=0), len(gaps)
    half = critical(n - 1) * gaps.std(axis=0, ddof=1) / math.sqrt(n) if n > 1 else np.full(points, np.nan)
    bounds = np.column_stack([mean, mean - half, mean + half])
    columns = ["tokens", "gap_nats", "gap_nats_lo", "gap_nats_hi"]
    return pd.DataFrame(np.column_stack([np.exp(x), bounds]), columns=columns)


def crossings(gap: pd.DataFrame) -> list[tuple[float, bool]]:
    """Where a `gap_curve` changes its sign for good reason: (tokens, whether the treated arm leads from there on).

    Only a change between a stretch whose interval lies wholly on one side of zero and one wholly on the other counts;
    without intervals (one pair) the mean alone decides.
    """
    mean = gap["gap_nats"].to_numpy()
    low, high = gap["gap_nats_lo"].fillna(gap["gap_nats"]), gap["gap_nats_hi"].fillna(gap["gap_nats"])
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))
    sure = np.flatnonzero(sign)
    found = []
    for i, j in itertools.pairwise(sure):
        if sign[i] != sign[j]:
            k = i + 1 + int((np.sign(mean[i + 1 : j + 1]) == sign[j]).argmax())
            found.append(
                (float(np.interp(0, *_ascending(mean[k - 1 : k + 1], gap["tokens"][k - 1 : k + 1]))), sign[j] > 0)
            )
    return found


def _speedup_grid(baselines: Sequence[Curve], treated: Sequence[Curve]) -> np.ndarray:
    """Values of ln speedup, ascending, at which all runs have been measured. No effect is one of them, so that an
    interval excludes it exactly where its test does."""
    low = max(b.x[0] for b in baselines) - min(t.end for t in treated)
    high = min(b.end for b in baselines) - max(t.x[0] for t in treated)
    return np.union1d(np.linspace(low, high, FINE), [0.0] if low < 0 < high else [])


def _losses_at(
    baselines: Sequence[Curve], treated: Sequence[Curve], ln_speedup: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Losses, treated (n, m) and baseline (k, m), that are equal in the mean if the speedup is exp(ln_speedup)."""
    end_b, end_t = min([b.end for b in baselines]), min([t.end for t in treated])
    x_t = np.minimum(end_b - ln_speedup, end_t)
    x_b = np.minimum(x_t + ln_speedup, end_b)
    return np.stack([np.interp(x_t, t.x, t.loss) for t in treated]), np.stack(
        [np.interp(x_b, b.x, b.loss) for b in baselines]
    )


def _zero(grid: np.ndarray, values: np.ndarray, i: int) -> float:
    """Where `values` cross zero between grid points i - 1 and i."""
    before, after = values[i - 1], values[i]
    return float(grid[i - 1] - before / (after - before) * (grid[i] - grid[i - 1]))


def _ascending(x: np.ndarray, y: Any) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x)
    return np.asarray(x)[order], np.asarray(y)[order]


def exp(value: float) -> float:
    """e to the `value`; infinite where that is beyond a float, NaN for NaN."""
    return math.inf if value > 700 else math.exp(value)
