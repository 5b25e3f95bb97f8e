"""Decayed endpoints: where an arm was trained to several text budgets, each to the end of its own schedule, the curve
through those ends is free of the schedule; one run's own curve is not."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from analysis.cells import Cell, Pair, Run, groups
from analysis.metrics.smoothing import quadratic


def endpoints(cells: Iterable[Cell]) -> list[Cell]:
    """A cell for every arm and setting of the axes that has enough text budgets, at the longest of them, with the
    quadratic through the ends in place of each run's smoothed curve. Seeds that lack a budget have no curve."""
    found = []
    for _, members in groups(cells, "text_tokens"):
        if not all(cell.same_budget and _decayed(cell) for cell in members):
            continue
        last = members[-1]
        by_seed = [{seed: (t, b) for seed, t, b in cell.finished()} for cell in members]
        pairs = []
        for pair in last.pairs:
            runs = [of.get(pair.seed) for of in by_seed]
            there = [pair_runs for pair_runs in runs if pair_runs is not None]
            if len(there) < len(members):
                pairs.append(Pair(pair.seed, None, None))
            else:
                pairs.append(Pair(pair.seed, _through([t for t, _ in there]), _through([b for _, b in there])))
        if any(p.treated is not None and p.treated.curve is not None for p in pairs):
            axes = {a: v for a, v in last.axes.items() if all(c.axes[a] == v for c in members)}
            found.append(replace(last, axes=dict.fromkeys(last.axes) | axes, pairs=pairs, horizons=len(members)))
    return found


def at_longest(cells: Iterable[Cell]) -> list[Cell]:
    """The same cells without those that have a longer text budget beside them."""
    cells = list(cells)
    shorter = {id(cell) for _, members in groups(cells, "text_tokens") for cell in members[:-1]}
    return [cell for cell in cells if id(cell) not in shorter]


def _decayed(cell: Cell) -> bool:
    return all(run.decayed for _, t, b in cell.finished() for run in (t, b))


def _through(runs: list[Run]) -> Run:
    """One run for those of all budgets: the longest, with the curve through the ends of all."""
    longest = runs[-1]
    bad = any(run.diverged for run in runs)
    tokens = np.array([run.text_tokens for run in runs], float)
    loss = np.array([run.loss[-1] if len(run.loss) else np.nan for run in runs])
    return replace(longest, tokens=tokens, loss=loss, diverged=bad, curve=None if bad else quadratic(tokens, loss))
