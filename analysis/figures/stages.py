"""What came before the text: whether it was learned in context, and what its automata look like."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np

from analysis.cells import labeller
from analysis.figures.panels import ranked
from analysis.figures.style import CELLS, COLOURS, INK, LINES, MARKERS, PANELS, colour, drawing, more
from analysis.frame import DataError, attempt, axis_columns
from analysis.metrics.learned import BASELINES, LEAST_SHARE, checked_stages
from analysis.metrics.speedup import gap
from analysis.results import Results

STATES = ("#E9E5DB", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#333333",
          "#8C564B", "#7F7F7F", "#BCBD22", "#17BECF", "#9467BD", "#AEC7E8")  # fmt: skip
"""Colours of automaton states 0, 1, ...; the paper's largest alphabet has 15."""


def learned_check(results: Results) -> list[str]:
    """Held-out loss of a first stage by frame (its context grows to the right) above the simple predictors' losses
    as lines, an SVG for every distinct set of stages."""
    found = []
    for name, digests in first_stages(results):
        held_out = [results.stages[d]["held_out"] for d in digests]
        by_frame = [h["loss_by_frame"] for h in held_out if h.get("loss_by_frame")]
        if by_frame:
            found.append((name, held_out, np.array([[np.nan if v is None else v for v in r] for r in by_frame], float)))
    drawn: list[str] = []
    for number, (name, held_out, losses) in enumerate(found[:PANELS]):
        with drawing() as d:
            frames = np.arange(1, losses.shape[1] + 1)
            for n, row in enumerate(losses):
                d.line(d.axes, frames, row, "model", f"run {n + 1}", color=COLOURS[0], lw=0.6, alpha=0.45)
            measured = ~np.isnan(losses).all(axis=0)
            mean, said = np.nanmean(losses[:, measured], axis=0), f"model\nmean of {len(losses)} runs"
            d.line(d.axes, frames[measured], mean, "model", said, color=COLOURS[0], lw=2, label="model")
            for (simple, field), style in zip(BASELINES.items(), (":", "--", "-."), strict=True):
                values = [h[field] for h in held_out if h.get(field) is not None]
                if values:
                    ends = [frames[0], frames[-1]]
                    at = [np.mean(values)] * 2
                    d.line(d.axes, ends, at, simple, simple, color=INK, lw=1.1, ls=style, label=simple)
            d.axes.set_xlabel("frame of the sequence")
            d.axes.set_ylabel("held-out loss, nats per token")
            d.title(name)
            d.axes.set_ylim(bottom=0)
            d.readout(d.axes, "number", "nats")
            d.legend(d.axes)
            d.note(more(len(found) - PANELS, "sets of stages") if number == PANELS - 1 else "")
            drawn.append(d.svg(f"Held-out loss of the first stage by frame, {name}"))
    return drawn


def learned_gain(results: Results, first: Sequence[int] = ()) -> str | None:
    """What a first stage learned against what it was worth, a point a pair: its gain over the best simple predictor,
    in % of that predictor's loss (the check needs 5), against the loss gap at the end of the text. None where no pair
    has both."""
    gains: dict[str, tuple[float, float]] = {}
    for point in results.plan["points"]:
        for digest in point["chain"][:-1]:
            held_out = results.stages.get(digest, {}).get("held_out") or {}
            simple = [held_out[field] for field in BASELINES.values() if held_out.get(field) is not None]
            if simple and held_out.get("loss_nats") is not None and math.isfinite(held_out["loss_nats"]):
                gains[point["stage"]] = (min(simple) - held_out["loss_nats"], min(simple))
    arms: dict[str, list[tuple[str, list[tuple[str, float, float, float]]]]] = {}
    for i in ranked(results, first):
        cell = results.cells[i]
        rows = [
            (str(seed), *gains[t.stage], gap(b.curve, t.curve))
            for seed, t, b in cell.finished()
            if t.stage in gains and t.curve and b.curve
        ]
        if rows:
            arms.setdefault(cell.arm, []).append((results.labels[i], rows))
    if not arms:
        return None
    with drawing() as d:
        d.axes.axhline(0, color=INK, lw=1)
        d.axes.axvline(100 * LEAST_SHARE, color="#777777", lw=1, ls=":", label=f"{100 * LEAST_SHARE:g} % needed")
        for i, (arm, cells) in enumerate(list(arms.items())[:LINES]):
            shown = [(name, *row) for name, rows in cells[:CELLS] for row in rows]
            x, y = [100 * gained / best for _, _, gained, best, _ in shown], [row[-1] for row in shown]
            tips = [
                f"{name}\nseed {seed}\ngain {gained:+.3f} nats, {100 * gained / best:.1f} %\nloss gap {value:+.4f} nats"
                for name, seed, gained, best, value in shown
            ]
            style = {"color": colour(i), "ms": 5, "marker": MARKERS[i % len(MARKERS)], "alpha": 0.75, "mew": 0}
            d.points(d.axes, x, y, arm, tips, label=arm, **style)
        d.axes.set_xlim(left=min(0, d.axes.get_xlim()[0]))
        d.axes.set_xlabel("gain of the first stage over the best predictor, %")
        d.axes.set_ylabel(f"loss of {results.plan['baseline']} minus arm, nats")
        d.legend(d.axes)
        left = sum(max(len(cells) - CELLS, 0) for cells in arms.values())
        d.note("; ".join(filter(None, (more(len(arms) - LINES, "arms"), more(left, "cells")))))
        return d.svg("Gain of the first stage over simple predictors against the loss gap of the pair")


def automata(results: Results, rules: int = 4, times: int = 10) -> list[tuple[str, list[tuple[float, str]]]]:
    """Pictures of the automata that were trained on: (name, [(gzip ratio, PNG data URI)]), a strip a rule with time
    from left to right, of at most PANELS sets of stages; empty for results without a store. Raises DataError where
    frames.npz is damaged."""
    found: list[tuple[str, list[tuple[float, str]]]] = []
    for name, digests in first_stages(results):
        directory = attempt(results.store, digests[0]) if results.store else None
        path = directory / "frames.npz" if directory else None
        if path is None or not path.is_file() or len(found) == PANELS:
            continue
        try:
            with np.load(path, allow_pickle=False) as stored:
                frames, scores = stored["frames"], stored["scores"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete the stage's DONE and run it again") from None
        strips = [(float(s), _strip(f[:times])) for f, s in zip(frames[:rules], scores[:rules], strict=True)]
        found.append((name, strips))
    return found


def first_stages(results: Results) -> list[tuple[str, list[str]]]:
    """Distinct sets of finished stages before the text that have simple predictors to beat, digests in the order of
    seeds, each with the labels of the cells that start from it (an arm and its control may share one)."""
    found: dict[tuple[str, ...], list[str]] = {}
    name = labeller(results.plan)
    for (arm, *values, _phase), digests in checked_stages(results.plan, results.stages).items():
        axes = dict(zip(axis_columns(results.plan), values, strict=True))
        found.setdefault(tuple(digests), []).append(name(arm, axes))
    return [("; ".join(names), list(digests)) for digests, names in found.items()]


def _strip(frames: np.ndarray) -> str:
    """A PNG data URI of frames (time, grid, grid), side by side with a gap of one cell."""
    from matplotlib import image
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(STATES[i % len(STATES)]) for i in range(int(frames.max(initial=0)) + 1)])
    times, height, width = frames.shape
    picture = np.ones((height, times * (width + 1) - 1, 3))
    for i, frame in enumerate(frames):
        picture[:, i * (width + 1) : i * (width + 1) + width] = palette[frame]
    buffer = io.BytesIO()
    image.imsave(buffer, picture, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
