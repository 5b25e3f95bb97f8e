"""Figures of many arms or cells at once: beside their controls, and as a profile."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from analysis import numbers
from analysis.figures.panels import panels, ranked
from analysis.figures.style import COLOURS, INK, LINES, SIZE, SOFT, colour, dash, drawing, more, row_labels
from analysis.metrics.intervals import t_interval
from analysis.metrics.speedup import gap, read_pair
from analysis.results import Results

LEAST_CELLS = 3
"""Cells below which a share of cells says nothing."""
DRAWS = 400
"""Bootstrap draws of the profile's band."""


def controls(results: Results, control_arms: Collection[str] = (), first: Sequence[int] = ()) -> list[str]:
    """Every arm's loss gap beside that of the controls, an SVG for all that are compared with the same baseline runs:
    a dot a pair, joined from arm to arm where the seed is the same, and the mean with its 95 % interval. Arms named in
    `control_arms` are grey. Empty for fewer than two arms."""
    found, left = panels(results, first)
    drawn: list[str] = []
    for panel in found:
        rows = [
            (
                m.name if m.cell.same_budget else f"{m.name}, own text budget",
                m.cell,
                [(str(s), gap(b, t)) for s, t, b in m.cell.readable()],
            )
            for m in panel.members
        ]
        rows = [row for row in rows if row[2]]
        if len(rows) < 2:
            continue
        with drawing((SIZE[0], 0.9 + 0.38 * len(rows))) as d:
            d.axes.axvline(0, color=INK, lw=1)
            seeds = list(dict.fromkeys(seed for _, _, pairs in rows for seed, _ in pairs))
            for k, seed in enumerate(seeds):
                dy = 0.3 * ((k + 0.5) / len(seeds) - 0.5)
                at = [(dict(pairs).get(seed, math.nan), y + dy) for y, (_, _, pairs) in enumerate(rows)]
                tips = [f"{name}\nseed {seed}\n{x:+.4f} nats" for (name, _, _), (x, _) in zip(rows, at, strict=True)]
                style = {"color": SOFT, "ls": "-", "lw": 0.4, "ms": 3.2, "alpha": 0.55, "mew": 0}
                d.points(d.axes, [x for x, _ in at], [y for _, y in at], f"seed {seed}", tips, **style)
            for y, (name, cell, pairs) in enumerate(rows):
                mean, low, high = t_interval([v for _, v in pairs])
                shade = "#8A8A8A" if cell.arm in control_arms else COLOURS[0]
                if math.isfinite(low):
                    d.axes.plot([low, high], [y, y], color=shade, lw=1.8)
                tip = f"{name}\nmean {mean:+.4f} {numbers.between(low, high, 3, '+')} nats"
                d.points(d.axes, mean, y, name, [tip], color=shade, ms=6.5, mec="white", mew=0.8, zorder=4)
            row_labels(d.axes, [name for name, _, _ in rows])
            d.axes.set_xlabel(f"loss of {results.plan['baseline']} minus arm at the end, nats")
            d.title(panel.title)
            d.note("; ".join(filter(None, (more(panel.hidden, "arms"), more(left * (not drawn), "panels")))))
            drawn.append(d.svg(f"Loss gap of every arm and control: {', '.join(name for name, _, _ in rows)}"))
    return drawn


def performance_profile(results: Results, first: Sequence[int] = ()) -> str | None:
    """The share of cells whose speedup is at least s, by s, a line an arm with LEAST_CELLS cells, else one for all; in
    a band of 95 % of bootstrap draws of the seeds, which all cells share. None for fewer than LEAST_CELLS cells.

    Dolan, E. D. and More, J. J. (2002), "Benchmarking optimization software with performance profiles".
    """
    values: dict[str, list[dict[str, float]]] = {}
    for i in ranked(results, first):
        cell = results.cells[i]
        found = {str(s): read_pair(b, t).ln_speedup for s, t, b in cell.readable()} if cell.same_budget else {}
        if any(math.isfinite(v) for v in found.values()):
            values.setdefault(cell.arm, []).append(found)
    lines = {arm: cells for arm, cells in values.items() if len(cells) >= LEAST_CELLS}
    if not lines and sum(map(len, values.values())) >= LEAST_CELLS:
        lines = {"all arms": [cell for cells in values.values() for cell in cells]}
    if not lines:
        return None
    with drawing() as d:
        d.axes.axvline(1, color=INK, lw=1)
        bands = []
        everything = [float(np.mean(list(c.values()))) for cells in lines.values() for c in cells]
        room = 0.15 * (max(everything) - min(everything)) + 0.02
        at = np.linspace(min([*everything, 0.0]) - room, max([*everything, 0.0]) + room, 160)
        for i, (name, cells) in enumerate(list(lines.items())[:LINES]):
            mean, low, high = _profile(cells, at)
            said = f"{name}\n{len(cells)} cells"
            d.line(d.axes, np.exp(at), 100 * mean, name, said, color=colour(i), lw=2, ls=dash(i), label=name)
            bands.append((np.exp(at), 100 * low, 100 * high, name, colour(i)))
        d.axes.set_ylim(-3, 103)
        for band in bands:
            d.band(d.axes, *band)
        d.axes.set_xlabel("speedup s")
        d.axes.set_ylabel("cells with a speedup of at least s, %")
        d.axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}x")
        d.readout(d.axes, "times", "number")
        d.legend(d.axes)
        d.note(more(len(lines) - LINES, "arms"))
        return d.svg("Share of cells with at least a given speedup")


def _profile(cells: list[dict[str, float]], at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of cells whose mean is at least `at` (m,), and its 2.5 and 97.5 % quantiles over draws of the seeds."""
    seeds = list(dict.fromkeys(seed for cell in cells for seed in cell))
    matrix = np.array([[cell.get(seed, math.nan) for seed in seeds] for cell in cells])
    known = np.isfinite(matrix)
    filled = np.where(known, matrix, 0.0)

    def share(counts: Any) -> np.ndarray:
        """For how often every seed was drawn (draws, seeds): the shares (draws, m)."""
        weight = counts @ known.T
        means = np.where(weight > 0, counts @ filled.T / np.maximum(weight, 1), np.nan)
        return np.asarray((means[:, :, None] >= at).sum(axis=1) / np.maximum((weight > 0).sum(axis=1), 1)[:, None])

    draws = np.random.default_rng(0).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), DRAWS)
    low, high = np.quantile(share(draws), [0.025, 0.975], axis=0)
    return share(np.ones((1, len(seeds))))[0], low, high
