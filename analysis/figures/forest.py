"""The forest of speedups, the answer of a study in one picture."""

import math
from collections.abc import Sequence
from typing import Any

from analysis import numbers
from analysis.figures.panels import local_names, ranked
from analysis.figures.style import COLOURS, INK, ROWS, SIZE, SOFT, Drawing, drawing, more, row_labels, shorten
from analysis.metrics.speedup import read_pair
from analysis.results import Results

KINDS = (("speedup", "gross", -0.16), ("net_speedup_tokens", "net of tokens before", 0.18))
FINE = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2)
MIDDLE = (0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 2.5, 3, 4)
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def speedup_forest(results: Results, first: Sequence[int] = ()) -> str | None:
    """Speedup of every cell with its 95 % interval, gross (filled, with a stroke a pair) and net of the tokens before
    (open), a row a cell and, if there are several, in groups by domain. None if no cell with the baseline's text
    budget can be read."""
    effects = results.effects
    readable = [
        i
        for i in ranked(results, first)
        if effects["gap_kind"][i] == "shared budget" and math.isfinite(effects["speedup"][i])
    ]
    if not readable:
        return None
    rows = _rows(results, readable[:ROWS])
    low, high = _limits(results, readable[:ROWS])
    with drawing((SIZE[0], 0.9 + (0.42 if len(rows) <= 12 else 0.35) * len(rows))) as d:
        axes = d.axes
        axes.axvline(1, color=INK, lw=1)
        axes.axvline(results.plan.get("sesoi", 1.05), color="#999999", lw=1, ls=":")
        seen = False
        for y, (_, i) in enumerate(rows):
            if i is not None:
                _row(d, results, i, y, (low, high), named=not seen)
                seen = True
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        candidates = FINE if high / low < 2.2 else MIDDLE if high / low < 4 else TICKS
        ticks = [t for t in candidates if low <= t <= high]
        axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
        axes.minorticks_off()
        row_labels(axes, [text for text, _ in rows])
        for text, (_, i) in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_fontweight("normal" if i is not None else "bold")
        axes.set_xlabel(f"text that {results.plan['baseline']} needs / text that the arm needs")
        d.legend(axes)
        d.note(more(len(readable) - ROWS, "cells"))
        said = [f"{results.labels[i]} {numbers.times(effects['speedup'][i])}" for i in readable[:ROWS]]
        return d.svg(f"Speedup with 95 % intervals: {', '.join(said)}")


def _rows(results: Results, shown: list[int]) -> list[tuple[str, int | None]]:
    """(text, cell) of every row; a row without a cell is the head of a group."""
    domains = list(dict.fromkeys(results.cells[i].domain for i in shown))
    if len(domains) < 2:
        return [(results.labels[i], i) for i in shown]
    rows: list[tuple[str, int | None]] = []
    for domain in domains:
        members = [i for i in shown if results.cells[i].domain == domain]
        _, names = local_names(results, members)
        rows.append((shorten(domain, 24), None))
        rows += [(name, i) for i, name in zip(members, names, strict=True)]
    return rows


def _row(d: Drawing, results: Results, i: int, y: int, limits: tuple[float, float], named: bool) -> None:
    name, effect = results.labels[i], results.effects.iloc[i]
    for column, kind, dy in KINDS:
        value, low, high = (float(effect[f"{column}{end}"]) for end in ("", "_lo", "_hi"))
        if not math.isfinite(value):
            continue
        if not math.isnan(low):
            ends = [max(low, limits[0] / 2), min(high, limits[1] * 2)]
            d.mark(d.axes.plot(ends, [y + dy] * 2, color=COLOURS[0], lw=1.6)[0], name)
        tip = f"{name}\n{kind}: {numbers.times(value)} {numbers.between(low, high)}\n{effect['n_pairs']} pairs"
        d.points(
            d.axes, value, y + dy, name, [tip], ms=6, mec=COLOURS[0], mew=1.4,
            mfc=COLOURS[0] if column == "speedup" else "white", label=kind if named else None, zorder=3,
        )  # fmt: skip
    pairs = [(seed, math.exp(read_pair(b, t).ln_speedup)) for seed, t, b in results.cells[i].readable()]
    tips = [f"{name}\nseed {seed}: {numbers.times(value)}" for seed, value in pairs]
    label = "each pair" if named else None
    style: dict[str, Any] = {"marker": "|", "ms": 7, "color": SOFT, "mew": 0.9, "label": label}
    d.points(d.axes, [value for _, value in pairs], [y + 2.4 * KINDS[0][2]] * len(pairs), name, tips, **style)


def _limits(results: Results, shown: list[int]) -> tuple[float, float]:
    effects = results.effects.iloc[shown]
    values = [float(v) for column, _, _ in KINDS for v in effects[column] if 0 < v < math.inf]
    low, high = max(0.01, min(0.8, *values) / 1.15), min(100.0, max(1.25, *values) * 1.15)
    ends = [float(v) for column, _, _ in KINDS for end in ("_lo", "_hi") for v in effects[f"{column}{end}"]]
    inside = [v for v in ends if low / 1.3 < v < high * 1.3]  # a wider interval runs out of the picture
    return min([low, *(v / 1.05 for v in inside)]), max([high, *(v * 1.05 for v in inside)])
