"""How noisy a study is, and what that leaves to be seen: spread over seeds, of evaluations, and of pairs."""

import functools
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.cells import Cell, Run

ALPHA, POWER = 0.05, 0.8

COLUMNS = (
    "label", "n_pairs", "seed_sd_baseline_nats", "seed_sd_treated_nats", "pair_sd_nats", "pair_corr",
    "evaluation_sd_nats", "detectable_nats",
)  # fmt: skip


def noise_table(cells: Iterable[Cell], labels: Iterable[str]) -> pd.DataFrame:
    """A row per cell with at least two readable pairs. `seed_sd_*` are standard deviations over seeds of the smoothed
    final loss, `pair_sd_nats` that of the gap within pairs, `evaluation_sd_nats` that of an evaluation about its run's
    smoothed curve in the last half of its tokens, and `detectable_nats` the gap that the pairs would show with 80 %
    power at the 5 % level."""
    rows = []
    for cell, label in zip(cells, labels, strict=True):
        runs = [(t, b) for _, t, b in cell.finished() if t.curve and b.curve and not cell.unlike]
        if len(runs) < 2:
            continue
        finals = np.array([[b.curve.final, t.curve.final] for t, b in runs if t.curve and b.curve])
        spread = finals.std(axis=0, ddof=1)
        pair = float((finals[:, 0] - finals[:, 1]).std(ddof=1))
        corr = float(np.corrcoef(finals.T)[0, 1]) if len(runs) > 2 and (spread > 0).all() else math.nan
        evaluations = [sd for t, b in runs for run in (t, b) if not math.isnan(sd := _evaluation_sd(run))]
        within = math.sqrt(float(np.mean(np.square(evaluations)))) if evaluations else math.nan
        rows.append((label, len(runs), *map(float, spread), pair, corr, within, pair * detectable(len(runs))))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@functools.cache
def detectable(pairs: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest mean difference that a paired t test of that many pairs finds with `power`, in standard deviations
    of a difference: 3.26, 2.13, 1.68 and 1.16 for 3, 4, 5 and 8 pairs. Infinite below two."""
    if pairs < 2:
        return math.inf
    df = pairs - 1
    critical = stats.t.ppf(1 - alpha / 2, df)

    def missing(effect: float) -> float:
        shift = effect * math.sqrt(pairs)
        above, below = stats.nct.sf(critical, df, shift), stats.nct.cdf(-critical, df, shift)
        # Far from zero scipy's noncentral t has no value; there the power is 1.
        return float(np.nan_to_num(above, nan=1.0) + np.nan_to_num(below)) - power

    return float(optimize.brentq(missing, 0.01, 50.0))


def _evaluation_sd(run: Run) -> float:
    late = (run.tokens > run.text_tokens / 2) & np.isfinite(run.loss)
    if run.curve is None or late.sum() < 3:
        return math.nan
    return float((run.loss[late] - run.curve.at(np.log(run.tokens[late]))).std(ddof=1))
