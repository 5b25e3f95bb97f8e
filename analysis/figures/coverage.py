"""A map of what is known: which pair of a study is finished, and which of them an estimate can be read from."""

from collections.abc import Sequence
from typing import NamedTuple

from analysis.cells import Cell, Pair
from analysis.figures.panels import ranked
from analysis.figures.style import COLOURS, INK, ROWS, SIZE, drawing, more, row_labels
from analysis.metrics.speedup import read_pair
from analysis.results import Results

SEEDS = 24
"""Columns of the map."""


class State(NamedTuple):
    """How a pair is drawn: what it is, the fill and edge of its square, and a letter that says the same without
    colour."""

    name: str
    fill: str
    edge: str
    letter: str


FINISHED = State("read", COLOURS[0], COLOURS[0], "")
REVERSE = State("arm never reached the target", "#CFE2EF", COLOURS[0], "r")
CENSORED = State("a bound: crossed before the first evaluation", "#FBE3B8", COLOURS[4], "<")
DIVERGED = State("diverged", COLOURS[1], COLOURS[1], "d")
UNREAD = State("finished, not comparable", "#E4E4E0", "#8A8A8A", "-")
MISSING = State("not finished", "white", "#B8B8B4", "")
STATES = (FINISHED, REVERSE, CENSORED, DIVERGED, UNREAD, MISSING)


def status_map(results: Results, first: Sequence[int] = ()) -> str | None:
    """A square a pair, cells by seeds: read, read in reverse, a bound, diverged, not comparable, or not finished; after
    the cells of `first` those with a pair that is not simply read. None for a study without cells."""
    order = ranked(results, first)
    plain = {i for i in order if all(pair_state(results.cells[i], p) == FINISHED for p in results.cells[i].pairs)}
    order.sort(key=lambda i: (i not in first, i in plain))
    seeds = list(dict.fromkeys(str(p.seed) for i in order for p in results.cells[i].pairs))
    if not order or not seeds:
        return None
    rows, columns = order[:ROWS], seeds[:SEEDS]
    with drawing((SIZE[0], 0.8 + 0.33 * len(rows))) as d:
        placed: dict[State, list[tuple[int, int, str]]] = {state: [] for state in STATES}
        for y, i in enumerate(rows):
            for pair in results.cells[i].pairs:
                if str(pair.seed) in columns:
                    state = pair_state(results.cells[i], pair)
                    tip = f"{results.labels[i]}\nseed {pair.seed}: {state.name}"
                    placed[state].append((columns.index(str(pair.seed)), y, tip))
        for state, squares in placed.items():
            if squares:
                x, y_ = [x for x, _, _ in squares], [y for _, y, _ in squares]
                d.points(
                    d.axes, x, y_, state.name, [tip for _, _, tip in squares], marker="s", ms=11, mfc=state.fill,
                    mec=state.edge, mew=1,
                )  # fmt: skip
                letter = f"{state.name} ({state.letter})" if state.letter else state.name
                d.axes.plot([], [], ls="none", marker="s", ms=8, mfc=state.fill, mec=state.edge, label=letter)
                ink = "white" if state in (FINISHED, DIVERGED) else INK
                for at, y, _ in squares if state.letter else []:
                    d.axes.text(at, y, state.letter, ha="center", va="center_baseline", fontsize=7.5, color=ink)
        d.axes.set_xticks(range(len(columns)), columns)
        d.axes.set_xlim(-0.7, max(len(columns) - 0.3, 7))
        row_labels(d.axes, [results.labels[i] for i in rows])
        d.axes.tick_params(length=0, labelcolor=INK)
        d.axes.grid(visible=False)
        d.axes.spines[["left", "bottom"]].set_visible(False)
        d.axes.set_xlabel("seed", loc="left")
        d.legend(d.axes)
        left = (more(len(order) - ROWS, "cells"), more(len(seeds) - SEEDS, "seeds"))
        d.note("; ".join(filter(None, left)))
        counts = ", ".join(f"{len(s)} {state.name}" for state, s in placed.items() if s)
        return d.svg(f"Pairs of the study: {counts}")


def pair_state(cell: Cell, pair: Pair) -> State:
    """What can be read from a pair of a cell."""
    if pair.treated is None or pair.baseline is None:
        return MISSING
    if pair.treated.diverged or pair.baseline.diverged:
        return DIVERGED
    if cell.unlike or not cell.same_budget or pair.treated.curve is None or pair.baseline.curve is None:
        return UNREAD
    reading = read_pair(pair.baseline.curve, pair.treated.curve)
    if reading.left_censored:
        return CENSORED
    return REVERSE if reading.direction == "reverse" else FINISHED
