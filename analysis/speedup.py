"""How much text an arm saves: tokens to equal loss, the gap at the end, and both net of what came before the text.

The estimator is METHOD's headline: per seed pair, smooth both curves in ln tokens, take the baseline's own final loss
as the target, and read the signed ln of the ratio of tokens; then a t interval over pairs. Losses are in nats per
token, tokens are counted, logarithms are natural.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.cells import Cell, Run, cells
from analysis.frame import axis_columns, table
from analysis.intervals import LEVEL, Interval, holm, t_interval, t_p_value, welch
from analysis.smoothing import Curve

LEAST_CORRELATION = 0.2
"""Below this correlation of a pair's final losses pairing buys nothing, and Welch's comparison is used."""
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


def inverted_welch(baselines: Sequence[Curve], treated: Sequence[Curve]) -> Interval:
    """95 % interval of ln speedup by inverting Welch's test at every speedup; an open end is infinite.

    At speedup s the mean treated loss at D/s tokens equals the mean baseline loss at D tokens, with D so chosen that
    both lie inside the data. Needs at least two runs of each; `mean` is the speedup whose difference is nearest zero.
    """
    grid = _speedup_grid(baselines, treated)
    test = welch(*_losses_at(baselines, treated, grid))
    t = test.difference / np.maximum(test.error, 1e-300)
    critical = stats.t.ppf(0.5 + LEVEL / 2, test.df)
    above, below = np.flatnonzero(t >= -critical), np.flatnonzero(t <= critical)
    low = -np.inf if len(above) == 0 or above[0] == 0 else _zero(grid, t + critical, above[0])
    high = np.inf if len(below) == 0 or below[-1] == len(grid) - 1 else _zero(grid, t - critical, below[-1] + 1)
    return Interval(float(grid[np.abs(t).argmin()]), float(low), float(high))


def welch_p_value(baselines: Sequence[Curve], treated: Sequence[Curve], ln_speedup: float) -> float:
    """Two-sided p of Welch's test that the speedup is exp(`ln_speedup`)."""
    a, b = _losses_at(baselines, treated, np.array([ln_speedup]))
    return welch(a[:, 0], b[:, 0]).p_value


def speedup_curve(pairs: Sequence[tuple[Curve, Curve]], targets: int = 25) -> pd.DataFrame:
    """S(L) of (baseline, treated) pairs: the speedup at losses from the baseline's at a tenth of its budget to its
    final one. Columns target_loss_nats, speedup, speedup_lo, speedup_hi (pointwise t interval).

    As in the headline every pair has its own targets, equally spaced between its own ends, and the loss given is
    their mean; where the treated run never comes so low, its own final loss is the target. So the last row is the
    headline. NaN where a run was that low at its first evaluation.
    """
    rows = []
    for share in np.linspace(0, 1, targets):
        losses, readings = [], []
        for baseline, treated in pairs:
            high = float(baseline.at(max(baseline.end + math.log(0.1), baseline.x[0])))
            target = max(high + share * (baseline.final - high), treated.final)
            losses.append(target)
            readings.append(ln_speedup_at(baseline, treated, target))
        mean, low, high = t_interval(readings)
        speedups = {"speedup": _exp(mean), "speedup_lo": _exp(low), "speedup_hi": _exp(high)}
        rows.append({"target_loss_nats": float(np.mean(losses)), **speedups})
    return pd.DataFrame(rows)


def gap_curve(pairs: Sequence[tuple[Curve, Curve]], points: int = 128) -> pd.DataFrame:
    """Loss gap of (baseline, treated) pairs while they train, where all have been measured and from 5 % of the
    shorter budget on. Columns tokens, gap_nats, gap_nats_lo, gap_nats_hi (pointwise t interval; NaN for one pair)."""
    curves = [c for pair in pairs for c in pair]
    end = min(c.end for c in curves)
    x = np.linspace(max(end + math.log(0.05), *(c.x[0] for c in curves)), end, points)
    gaps = np.stack([b.at(x) - t.at(x) for b, t in pairs])
    bounds = np.array([t_interval(column) for column in gaps.T])
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


PAIR_COLUMNS = (
    "pair_id", "trial_t", "trial_b", "ln_speedup", "direction", "left_censored", "dloss_nats", "auc_gain_nats",
    "tokens_saved", "baseline_loss_nats", "treated_loss_nats", "diverged", "same_machine",
)  # fmt: skip


def pairs(frame: pd.DataFrame, plan: dict[str, Any], stages: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per pair whose runs are both finished: arm, axes, seed and PAIR_COLUMNS.

    `trial_t` and `trial_b` are stage digests. A pair with a diverged run (`diverged` "treated", "baseline" or "both")
    or too few evaluations is listed without estimates.
    """
    rows = []
    for cell in cells(frame, plan, stages):
        for seed, treated, baseline in cell.finished():
            rows.append({"arm": cell.arm, **cell.axes, "seed": seed, **_pair_row(treated, baseline)})
    return table(rows, ["arm", *axis_columns(plan), "seed", *PAIR_COLUMNS], plan)


EFFECT_COLUMNS = (
    "n_planned", "n_pairs", "n_diverged_baseline", "n_diverged_treated", "n_left_censored", "n_machines_differ",
    "pair_corr", "text_tokens", "treated_text_tokens", "syn_tokens", "target_loss_nats", "treated_loss_nats",
    "dloss_nats", "dloss_nats_lo", "dloss_nats_hi", "gap_kind", "dloss_bits_per_byte", "ppl_change_pct",
    "auc_gain_nats", "speedup", "speedup_lo", "speedup_hi", "speedup_median", "p", "p_adj", "p_sesoi", "p_sesoi_adj",
    "family", "speedup_5_mnats_up", "speedup_20_mnats_up", "tail_sensitivity", "flat_tail", "net_speedup_tokens",
    "net_speedup_tokens_lo", "net_speedup_tokens_hi", "net_speedup_flops", "net_speedup_flops_lo",
    "net_speedup_flops_hi", "tokens_saved", "mrs_avg", "estimator", "schedule_kind", "differs_in",
)  # fmt: skip


def effects(frame: pd.DataFrame, plan: dict[str, Any], stages: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per cell that the study planned: arm, axes and EFFECT_COLUMNS; NaN where nothing can be read yet.

    Adjusted p values are Holm's over all cells with the baseline's text budget. `gap_kind` says where the loss gap was
    read: at the "shared budget", or at the "own ends" of runs whose text budgets differ, because one that has not yet
    finished its schedule at the shared budget cannot be compared there; then the speedup, read as ever, mixes text
    with schedule, is not tested, and enters no verdict. `tail_sensitivity` is the speedup over that at a loss 0.02
    nats higher.
    """
    sesoi = math.log(plan.get("sesoi", 1.05))
    rows = [{"arm": c.arm, **c.axes, **_effect_row(c, sesoi)} for c in cells(frame, plan, stages)]
    found = table(rows, ["arm", *axis_columns(plan), *EFFECT_COLUMNS], plan)
    tested = found["gap_kind"] != "own ends"
    for p in ("p", "p_sesoi"):
        found.loc[~tested, p] = np.nan
        found.loc[tested, f"{p}_adj"] = holm(found.loc[tested, p].to_numpy(float))
        found[[p, f"{p}_adj"]] = found[[p, f"{p}_adj"]].astype(float)
    found["family"] = np.where(tested, f"all {tested.sum()} cells with the baseline's budget", "")
    return found


def _pair_row(treated: Run, baseline: Run) -> dict[str, Any]:
    bad = {(True, True): "both", (True, False): "treated", (False, True): "baseline"}
    row = {
        "pair_id": f"{treated.stage[:12]}-{baseline.stage[:12]}",
        "trial_t": treated.stage,
        "trial_b": baseline.stage,
        "direction": "",
        "left_censored": False,
        "diverged": bad.get((treated.diverged, baseline.diverged), ""),
        "same_machine": treated.machine == baseline.machine,
    }
    if treated.curve is None or baseline.curve is None:
        return row
    reading = read_pair(baseline.curve, treated.curve)
    return row | {
        **reading._asdict(),
        "dloss_nats": gap(baseline.curve, treated.curve),
        "auc_gain_nats": auc_gain(baseline.curve, treated.curve),
        "tokens_saved": baseline.text_tokens * (1 - math.exp(-reading.ln_speedup)),
        "baseline_loss_nats": baseline.curve.final,
        "treated_loss_nats": treated.curve.final,
    }


def _effect_row(cell: Cell, sesoi: float) -> dict[str, Any]:
    finished = cell.finished()
    read = [(t, b) for _, t, b in finished if t.curve is not None and b.curve is not None]
    row: dict[str, Any] = {
        "n_planned": len(cell.pairs),
        "n_pairs": len(read),
        "n_diverged_treated": sum(t.diverged for _, t, _ in finished),
        "n_diverged_baseline": len({b.stage for _, _, b in finished if b.diverged}),
        "n_machines_differ": sum(t.machine != b.machine for _, t, b in finished),
        "n_left_censored": 0,
        "gap_kind": "",
        "estimator": "",
        "schedule_kind": " / ".join(sorted({r.schedule for _, t, b in finished for r in (t, b)})),
        "differs_in": cell.differs_in,
        "flat_tail": False,
    }
    if not read:
        return row
    treated, baselines = [t.curve for t, _ in read if t.curve], [b.curve for _, b in read if b.curve]
    readings = [read_pair(b, t) for b, t in zip(baselines, treated, strict=True)]
    ln_s = np.array([r.ln_speedup for r in readings])
    finals = np.array([[b.final, t.final] for b, t in zip(baselines, treated, strict=True)])
    paired, correlation = _paired(finals)
    gap_interval = t_interval(finals[:, 0] - finals[:, 1]) if paired else welch(finals[:, 0], finals[:, 1]).interval
    mean, low, high = t_interval(ln_s)
    if not paired:
        _, low, high = inverted_welch(baselines, treated)
    text = float(np.mean([b.text_tokens for _, b in read]))
    treated_text = float(np.mean([t.text_tokens for t, _ in read]))
    row |= {
        "n_left_censored": sum(r.left_censored for r in readings),
        "pair_corr": correlation,
        "text_tokens": text,
        "treated_text_tokens": treated_text,
        "syn_tokens": float(np.mean([t.before_tokens for t, _ in read])),
        "target_loss_nats": finals[:, 0].mean(),
        "treated_loss_nats": finals[:, 1].mean(),
        **_triple("dloss_nats", gap_interval),
        "gap_kind": "shared budget" if cell.same_budget else "own ends",
        "dloss_bits_per_byte": gap_interval.mean * np.mean([b.bits_per_nat for _, b in read]),
        "ppl_change_pct": 100 * math.expm1(-gap_interval.mean),
        "auc_gain_nats": np.mean([auc_gain(b, t) for b, t in zip(baselines, treated, strict=True)]),
        **_triple("speedup", Interval(_exp(mean), _exp(low), _exp(high))),
        "speedup_median": _median_speedup(finished),
        "p": t_p_value(ln_s) if paired else welch_p_value(baselines, treated, 0.0),
        "p_sesoi": t_p_value(ln_s, sesoi) if paired else welch_p_value(baselines, treated, sesoi),
        "estimator": "LOESS, paired t" if paired else "LOESS, inverted Welch",
        **_tail(baselines, treated, mean),
    }
    return row | _net([t for t, _ in read], [b for _, b in read], row)


def _paired(finals: np.ndarray) -> tuple[bool, float]:
    """Whether to use the pairing of final losses (n, 2), and their correlation (NaN where it does not exist)."""
    if len(finals) < 3 or (finals.std(axis=0) < 1e-9).any():
        return True, float("nan")
    correlation = float(np.corrcoef(finals.T)[0, 1])
    return correlation >= LEAST_CORRELATION, correlation


def _median_speedup(finished: Sequence[tuple[Any, Run, Run]]) -> float:
    """Median speedup with a diverged run as never reaching any loss (AlgoPerf's convention)."""
    values = []
    for _, treated, baseline in finished:
        if treated.curve and baseline.curve:
            values.append(math.exp(read_pair(baseline.curve, treated.curve).ln_speedup))
        elif treated.diverged != baseline.diverged:
            values.append(0.0 if treated.diverged else math.inf)
    return float(np.median(values)) if values else float("nan")


def _tail(baselines: list[Curve], treated: list[Curve], ln_speedup: float) -> dict[str, Any]:
    up = []
    for above in NEAR_TARGETS:
        # A treated run that ends above that loss is read at its own end, as the headline is.
        read = [ln_speedup_at(b, t, max(b.final + above, t.final)) for b, t in zip(baselines, treated, strict=True)]
        up.append(float(np.mean(read)))
    flat = False
    if len(baselines) > 1:
        noise = float(np.std([b.final for b in baselines], ddof=1))
        shares = [math.exp(b.first_crossing(b.final + 2 * noise)[0] - b.end) for b in baselines]
        flat = bool(1 - np.mean(shares) > 0.05)
    return {
        "speedup_5_mnats_up": _exp(up[0]),
        "speedup_20_mnats_up": _exp(up[1]),
        "tail_sensitivity": _exp(ln_speedup - up[1]),
        "flat_tail": flat,
    }


def _net(treated: list[Run], baselines: list[Run], row: dict[str, Any]) -> dict[str, Any]:
    """The speedup and its bounds net of tokens and of FLOPs: a monotone map of the gross ones, so that net tokens are
    above 1 exactly where `mrs_avg`, text tokens saved per token spent before, is."""
    text, before = row["text_tokens"], row["syn_tokens"]
    cost = text * float(np.mean([b.flops_per_token for b in baselines]))
    ratio = float(np.mean([t.flops_per_token for t in treated])) * text / cost
    before_flops = float(np.mean([t.before_flops for t in treated]))
    gross = Interval(row["speedup"], row["speedup_lo"], row["speedup_hi"])
    saved = text * (1 - 1 / row["speedup"])
    return {
        **_triple("net_speedup_tokens", Interval(*(net_speedup(s, text, before) for s in gross))),
        **_triple("net_speedup_flops", Interval(*(net_speedup(s, cost, before_flops, ratio) for s in gross))),
        "tokens_saved": saved,
        "mrs_avg": saved / before if before else float("nan"),
    }


def _speedup_grid(baselines: Sequence[Curve], treated: Sequence[Curve]) -> np.ndarray:
    """Values of ln speedup at which all runs have been measured."""
    low = max(b.x[0] for b in baselines) - min(t.end for t in treated)
    high = min(b.end for b in baselines) - max(t.x[0] for t in treated)
    return np.linspace(low, high, 2048)


def _losses_at(
    baselines: Sequence[Curve], treated: Sequence[Curve], ln_speedup: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Losses, treated (n, m) and baseline (k, m), that are equal in the mean if the speedup is exp(ln_speedup)."""
    end_b, end_t = min(b.end for b in baselines), min(t.end for t in treated)
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


def _triple(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_lo": interval.low, f"{name}_hi": interval.high}


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else value  # NaN compares false and stays NaN, as inf stays inf
