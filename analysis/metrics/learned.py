"""Was the task of a first stage learned in context? If not, what follows says nothing about what it teaches."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.frame import axes_of, axis_columns, phases, table
from analysis.metrics.intervals import t_interval, t_p_value

LEAST_SHARE = 0.05
"""The gain over the best simple predictor must exceed this share of its loss."""

BASELINES = {
    "unigram": "unigram_nats",
    "copy of the last frame": "copy_nats",
    "order-2 n-gram": "ngram2_nats",
}
"""Simple predictors of the same held-out sequences: name to field of the manifest's held_out."""

LEARNED_COLUMNS = (
    "phase", "n_runs", "loss_nats", "unigram_nats", "copy_nats", "ngram2_nats", "best", "best_nats", "gain_nats",
    "gain_nats_lo", "gain_nats_hi", "needed_nats", "p_needed", "accuracy", "copy_accuracy", "acceptance", "learned",
)  # fmt: skip


def learned(plan: dict[str, Any], stages: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per (arm, axes) and stage before the text whose held-out loss has simple predictors to beat.

    `gain_nats` = loss of the best simple predictor - loss of the model on held-out rules, paired over seeds, with its
    t interval. `p_needed` is the two-sided p of the gain being `needed_nats`, 5 % of that predictor's loss.
    `learned` is "yes" if the interval lies above it, else "no"; "one run" where there is no interval.
    """
    groups = checked_stages(plan, stages)
    names = ["arm", *axis_columns(plan)]
    rows = [dict(zip([*names, "phase"], key, strict=True)) | _row([stages[d] for d in g]) for key, g in groups.items()]
    return table(rows, [*names, *LEARNED_COLUMNS], plan)


def checked_stages(plan: dict[str, Any], stages: dict[str, dict[str, Any]]) -> dict[tuple[Any, ...], list[str]]:
    """Digests of finished stages before the text that have simple predictors to beat, in the order of seeds, by (arm,
    axes..., phase)."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for point in plan["points"]:
        axes = axes_of(plan, point)
        axes.pop("seed")
        for phase, digest in list(zip(phases(point["chain"]), point["chain"], strict=True))[:-1]:
            held_out = stages.get(digest, {}).get("held_out") or {}
            group = found.setdefault((point["arm"], *axes.values(), phase), [])
            if held_out.get("unigram_nats") is not None and digest not in group:
                group.append(digest)
    return {key: group for key, group in found.items() if group}


def _row(documents: list[dict[str, Any]]) -> dict[str, Any]:
    held_out = [d["held_out"] for d in documents]
    loss = np.array([_number(h, "loss_nats") for h in held_out])
    simple = np.array([[_number(h, field) for field in BASELINES.values()] for h in held_out])
    best = np.nanmin(simple, axis=1)
    gain = t_interval(best - loss)
    needed = LEAST_SHARE * best.mean()
    if not np.isfinite(loss).all():
        verdict = "no"
    elif len(loss) < 2:
        verdict = "one run"
    else:
        verdict = "yes" if gain.low > needed else "no"
    return {
        "n_runs": len(documents),
        "loss_nats": loss.mean(),
        **{field: np.mean([_number(h, field) for h in held_out]) for field in BASELINES.values()},
        "best": list(BASELINES)[int(np.nanargmin(simple.mean(axis=0)))],
        "best_nats": best.mean(),
        "gain_nats": gain.mean,
        "gain_nats_lo": gain.low,
        "gain_nats_hi": gain.high,
        "needed_nats": needed,
        "p_needed": t_p_value(best - loss, needed),
        "accuracy": np.mean([_number(h, "accuracy") for h in held_out]),
        "copy_accuracy": np.mean([_number(h, "copy_accuracy") for h in held_out]),
        "acceptance": np.mean([_number(d, "acceptance") for d in documents]),
        "learned": verdict,
    }


def _number(document: dict[str, Any], name: str) -> float:
    value = document.get(name)
    return float("nan") if value is None else float(value)
