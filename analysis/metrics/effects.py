"""The tables of effects: a row a pair of runs, and a row a cell. What is a number a pair is added in `listed`, what is
estimated otherwise here."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import Cell, Run
from analysis.frame import axis_columns, table
from analysis.metrics import listed
from analysis.metrics.intervals import Interval, benjamini_hochberg, bounds, holm, t_interval
from analysis.metrics.smoothing import Curve
from analysis.metrics.speedup import (
    NEAR_TARGETS,
    Headline,
    exp,
    gap,
    headline,
    ln_speedup_at,
    net_speedup,
    read_pair,
)

EXPLORATORY = "exploratory"
"""The family of cells in a study whose claims carry the verdicts."""

PAIR_COLUMNS = (
    "pair_id", "trial_t", "trial_b", "ln_speedup", "direction", "left_censored", "dloss_nats", "tokens_saved",
    "baseline_loss_nats", "treated_loss_nats", "diverged", "same_machine",
)  # fmt: skip


def pair_table(
    cells: Iterable[Cell], plan: dict[str, Any], metrics: Sequence[listed.Metric] = listed.METRICS
) -> pd.DataFrame:
    """One row per pair whose runs are both finished: arm, axes, seed, PAIR_COLUMNS and the `metrics` of pairs.

    `trial_t` and `trial_b` are stage digests. A pair with a diverged run (`diverged` "treated", "baseline" or "both")
    or too few evaluations, or of a cell whose sides are `unlike`, is listed without estimates.
    """
    rows, of_pairs = [], listed.of_pairs(metrics)
    for cell in cells:
        unlike = cell.unlike
        for seed, treated, baseline in cell.finished():
            row = _pair_row(treated, baseline, unlike, of_pairs)
            rows.append({"arm": cell.arm, **cell.axes, "seed": seed, **row})
    return table(rows, ["arm", *axis_columns(plan), "seed", *PAIR_COLUMNS, *(m.__name__ for m in of_pairs)], plan)


EFFECT_COLUMNS = (
    "n_planned", "n_pairs", "n_diverged_baseline", "n_diverged_treated", "n_left_censored", "n_machines_differ",
    "pair_corr", "text_tokens", "treated_text_tokens", "syn_tokens", "target_loss_nats", "treated_loss_nats",
    "dloss_nats", "dloss_nats_lo", "dloss_nats_hi", "gap_kind", "dloss_bits_per_byte", "dloss_bits_per_byte_lo",
    "dloss_bits_per_byte_hi", "ppl_change_pct",
    "speedup", "speedup_lo", "speedup_hi", "speedup_median", "p", "p_adj", "p_sesoi", "p_sesoi_adj",
    "family", "speedup_5_mnats_up", "speedup_20_mnats_up", "tail_sensitivity", "flat_tail", "net_speedup_tokens",
    "net_speedup_tokens_lo", "net_speedup_tokens_hi", "net_speedup_flops", "net_speedup_flops_lo",
    "net_speedup_flops_hi", "tokens_saved", "mrs_avg", "estimator", "schedule_kind", "n_horizons",
    "unlike", "sets", "differs_in",
)  # fmt: skip


def effect_table(
    cells: Iterable[Cell], plan: dict[str, Any], metrics: Sequence[listed.Metric] = listed.METRICS
) -> pd.DataFrame:
    """One row per cell that the study planned: arm, axes, EFFECT_COLUMNS and the means of `metrics` of pairs; NaN where
    nothing can be read yet.

    Adjusted p values are Holm's over all cells with the baseline's text budget; in a study that registers claims those
    carry the verdicts, all cells are exploratory, and the adjustment is Benjamini and Hochberg's. `gap_kind` says where
    the loss gap was read: at the "shared budget", or at the "own ends" of runs whose text budgets differ, because one
    that has not yet finished its schedule at the shared budget cannot be compared there; then the speedup mixes
    text with schedule, is not tested, and enters no verdict. `tail_sensitivity` is the speedup over that at a loss 0.02
    nats higher. `unlike` says what forbids a comparison of losses, with the digests in `sets`.
    """
    sesoi = math.log(plan.get("sesoi", 1.05))
    of_pairs = listed.of_pairs(metrics)
    rows = [{"arm": c.arm, **c.axes, **_effect_row(c, sesoi, of_pairs)} for c in cells]
    own = [column for metric in of_pairs for column in listed.columns(metric)]
    found = table(rows, ["arm", *axis_columns(plan), *EFFECT_COLUMNS, *own], plan)
    tested = found["gap_kind"] != "own ends"
    exploratory = bool(plan.get("claims"))
    for p in ("p", "p_sesoi"):
        found.loc[~tested, p] = np.nan
        adjust = benjamini_hochberg if exploratory else holm
        found.loc[tested, f"{p}_adj"] = adjust(found.loc[tested, p].to_numpy(float))
        found[[p, f"{p}_adj"]] = found[[p, f"{p}_adj"]].astype(float)
    family = EXPLORATORY if exploratory else f"all {tested.sum()} cells with the baseline's budget"
    found["family"] = np.where(tested, family, "")
    return found


def headline_columns(found: Headline) -> dict[str, Any]:
    """The columns of a cell that its headline gives; the decision rule reads them, p values once adjusted."""
    return {
        "pair_corr": found.correlation,
        **bounds("dloss_nats", found.gap),
        **bounds("speedup", Interval(*(exp(v) for v in found.ln_speedup))),
        "p": found.p,
        "p_sesoi": found.p_sesoi,
        "estimator": found.estimator,
    }


def _pair_row(treated: Run, baseline: Run, unlike: str, metrics: Sequence[listed.Metric]) -> dict[str, Any]:
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
    if treated.curve is None or baseline.curve is None or unlike:
        return row
    reading = read_pair(baseline.curve, treated.curve)
    return row | {
        **reading._asdict(),
        "dloss_nats": gap(baseline.curve, treated.curve),
        "tokens_saved": baseline.text_tokens * (1 - math.exp(-reading.ln_speedup)),
        "baseline_loss_nats": baseline.curve.final,
        "treated_loss_nats": treated.curve.final,
        **{metric.__name__: listed.number(metric, treated, baseline) for metric in metrics},
    }


def _effect_row(cell: Cell, sesoi: float, metrics: Sequence[listed.Metric]) -> dict[str, Any]:
    finished = cell.finished()
    read = [] if cell.unlike else [(t, b) for _, t, b in finished if t.curve is not None and b.curve is not None]
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
        "n_horizons": cell.horizons,
        "unlike": cell.unlike,
        "sets": cell.sets if cell.unlike else "",
        "differs_in": cell.differs_in,
        "flat_tail": False,
    }
    if cell.unlike == "tokenizers":  # what the two sides still have in common are bytes
        row |= bounds("dloss_bits_per_byte", t_interval([b.bits_per_byte - t.bits_per_byte for _, t, b in finished]))
    if not read:
        return row
    treated, baselines = [t.curve for t, _ in read if t.curve], [b.curve for _, b in read if b.curve]
    found = headline(baselines, treated, sesoi)
    text = float(np.mean([b.text_tokens for _, b in read]))
    treated_text = float(np.mean([t.text_tokens for t, _ in read]))
    bits = float(np.mean([b.bits_per_nat for _, b in read]))
    row |= {
        "n_left_censored": sum(r.left_censored for r in found.readings),
        "text_tokens": text,
        "treated_text_tokens": treated_text,
        "syn_tokens": float(np.mean([t.before_tokens for t, _ in read])),
        "target_loss_nats": np.mean([b.final for b in baselines]),
        "treated_loss_nats": np.mean([t.final for t in treated]),
        "gap_kind": "shared budget" if cell.same_budget else "own ends",
        **bounds("dloss_bits_per_byte", Interval(*(bits * bound for bound in found.gap))),
        "ppl_change_pct": 100 * math.expm1(-found.gap.mean),
        "speedup_median": _median_speedup(finished),
        **headline_columns(found),
        **_tail(baselines, treated, found.ln_speedup.mean),
    }
    for metric in metrics:
        row |= listed.mean(metric, read)
    return row | _net([t for t, _ in read], [b for _, b in read], row)


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
        "speedup_5_mnats_up": exp(up[0]),
        "speedup_20_mnats_up": exp(up[1]),
        "tail_sensitivity": exp(ln_speedup - up[1]),
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
        **bounds("net_speedup_tokens", Interval(*(net_speedup(s, text, before) for s in gross))),
        **bounds("net_speedup_flops", Interval(*(net_speedup(s, cost, before_flops, ratio) for s in gross))),
        "tokens_saved": saved,
        "mrs_avg": saved / before if before else float("nan"),
    }
