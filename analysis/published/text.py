"""The comparison of published curves as a table for a terminal, and as JSON."""

import json
import math
import textwrap
from dataclasses import fields
from typing import Any

import numpy as np

from analysis import numbers
from analysis.metrics.mechanism import Mechanism
from analysis.published.compare import Published
from analysis.verdict_table import WIDTH

HEADER = ("arm", "pairs", "S at L*", "+0.005", "+0.02", "net", "ppl", "gap", "gap after 20 %", "AUC", "verdict")


def text(found: Published) -> str:
    """The comparison for a terminal, at most 120 columns wide: a table, then a reason and remarks for every arm."""
    rows = [list(HEADER)]
    for c in found.arms:
        after = _sized(c.gap_after_20_pct_nats, "+.4f")
        if math.isfinite(c.gap_after_20_pct_sd_nats):
            after += f" ± {_sized(c.gap_after_20_pct_sd_nats, '.4f')}"
        speedups = (c.speedup, c.speedup_5_mnats_up, c.speedup_20_mnats_up, c.net_speedup_tokens)
        shown = [numbers.times(s) for s in speedups]
        if c.left_censored:
            shown[0] = f"{'>' if c.speedup > 1 else '<'} {shown[0].removeprefix('> ')}"
        change = _sized(c.perplexity_change_pct, "+.1f", " %")
        gaps = [change, _sized(c.loss_gap_nats, "+.3f"), after, _sized(c.auc_gain_nats, "+.3f")]
        rows.append([c.arm, str(c.n_pairs), *shown, *gaps, c.verdict])
    width = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    width[0] = min(width[0], max(WIDTH - sum(width[1:]) - 2 * (len(width) - 1), 4))
    lines = []
    for name, *others in rows:
        cut = name if len(name) <= width[0] else name[: width[0] - 1] + "…"
        lines.append("  ".join(cell.ljust(w) for cell, w in zip([cut, *others], width, strict=True)).rstrip())
    lines.insert(1, "-" * min(sum(width) + 2 * (len(width) - 1), WIDTH))
    legend = (
        f"S: tokens of {found.baseline} over tokens of the arm to the same loss. L*: {found.baseline}'s final loss."
    )
    legend += " +0.005, +0.02: nats above it. net: with synthetic tokens. gap, AUC: nats, above 0 the arm is lower."
    said = [f"{c.arm}: {s.removeprefix(c.arm + ' ')}." for c in found.arms for s in (c.reason, *c.remarks)]
    notes = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in (legend, *said, *found.remarks)]
    return "\n".join([*lines, "", *notes])


def _sized(value: float, digits: str, unit: str = "") -> str:
    """A number that takes no more room than its column has, however absurd the losses are."""
    if not math.isfinite(value):
        return numbers.NONE
    return f"{value:{digits if abs(value) < 1000 else '+.0e'}}{unit}"


def document(found: Published) -> str:
    """The comparison as JSON; null is unknown, and an infinite bound is null as well."""
    arms = [{f.name: _plain(getattr(c, f.name)) for f in fields(c)} for c in found.arms]
    return json.dumps({"baseline": found.baseline, "arms": arms, "remarks": list(found.remarks)}, indent=1)


def _plain(value: Any) -> Any:
    if isinstance(value, Mechanism):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
