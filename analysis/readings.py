"""What a test reads of cells: the effect of one, or a value per seed of several, at the cells that a measure needs."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from analysis.cells import Cell, Run
from analysis.metrics.endpoints import at_longest, endpoints
from analysis.metrics.intervals import Interval, t_interval, t_p_value
from analysis.metrics.seeds import block, ln_net_flops, ln_net_tokens, ln_speedup, ln_speedup_above, loss_gap
from analysis.metrics.speedup import NEAR_TARGETS, headline, speedup_p_values


class Effect(NamedTuple):
    """An effect of a cell: its mean with its interval (ln of a ratio, or nats), and the p value of any null."""

    interval: Interval
    p: Callable[[float], float]
    n: int


VALUES: Mapping[str, Callable[[Run, Run], float]] = {
    "gap": loss_gap,
    "speedup": ln_speedup,
    "net_speedup_tokens": ln_net_tokens,
    "net_speedup_flops": ln_net_flops,
    "speedup_5_mnats_up": partial(ln_speedup_above, nats=NEAR_TARGETS[0]),
    "speedup_20_mnats_up": partial(ln_speedup_above, nats=NEAR_TARGETS[1]),
}
"""A measure of a treated run against its baseline: nats, or ln of a ratio."""


def effect(cell: Cell, measure: str) -> Effect | None:
    """The effect of a cell; None where no pair can be read, or its text budgets differ where that matters."""
    runs = [(t, b) for _, t, b in cell.finished() if t.curve and b.curve and not cell.unlike]
    if not runs or not cell.same_budget:
        return None
    baselines, treated = [b.curve for _, b in runs if b.curve], [t.curve for t, _ in runs if t.curve]
    if measure not in ("gap", "speedup"):
        values = np.array([VALUES[measure](t, b) for t, b in runs])
        return Effect(t_interval(values), lambda null: t_p_value(values, null), len(values))
    found = headline(baselines, treated, 0.0)
    if measure == "gap":
        gaps = np.array([b.final - t.final for b, t in zip(baselines, treated, strict=True)])
        return Effect(found.gap, lambda null: t_p_value(gaps, null), len(runs))

    def p(null: float) -> float:
        return float(speedup_p_values(baselines, treated, [null])[0]) if len(runs) > 1 else math.nan

    return Effect(found.ln_speedup, p, len(runs))


def by_seed(cells: Sequence[Cell], measure: str) -> tuple[list[Any], np.ndarray]:
    """Seeds that every cell can be read for, and the measure (ln of a ratio, or nats) of each (seeds, cells)."""
    found = block(cells, VALUES[measure])
    return (found.seeds, found.values) if len(found.cells) == len(cells) else ([], np.empty((0, len(cells))))


def readable(cells: list[Cell], measure: str) -> list[Cell]:
    """The cells that a measure is read at: of several text budgets the longest, for speedups across decayed ends."""
    if measure == "gap":
        return at_longest(cells)
    across = endpoints(cells)
    covered = {run.stage for cell in across for _, run, _ in cell.finished()}
    return across + [c for c in at_longest(cells) if not any(run.stage in covered for _, run, _ in c.finished())]


def chosen(cells: list[Cell], choose: Mapping[str, Any] | None) -> tuple[list[Cell], str]:
    """Of cells that differ along an axis the one that is best on the seeds to choose by, with its other seeds."""
    if choose is None:
        return cells, ""
    by = {str(seed) for seed in choose["seeds"]}
    found = []
    for _, members in fixed(cells, (choose["axis"],), lambda cell: cell.arm):

        def score(cell: Cell) -> float:
            gaps = [b.final - t.final for seed, t, b in cell.readable() if str(seed) in by]
            return float(np.mean(gaps)) if gaps else -math.inf

        best = max(members, key=score)
        if math.isfinite(score(best)):
            found.append(replace(best, pairs=[p for p in best.pairs if str(p.seed) not in by]))
        else:
            found.append(replace(best, pairs=[]))
    return found, f", {choose['axis']} chosen on seeds {', '.join(sorted(by))}"


def along(cells: list[Cell], axis: str, label: Callable[[Cell], str]) -> Iterable[tuple[str, list[Cell]]]:
    for name, members in fixed(cells, (axis,), label):
        yield name, sorted(members, key=lambda c: _position(c, axis))


def fixed(cells: list[Cell], axes: Sequence[str], label: Callable[[Cell], str]) -> Iterable[tuple[str, list[Cell]]]:
    """Cells that agree on every axis but `axes`, with a name."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(str(v) for a, v in cell.axes.items() if a not in axes), []).append(cell)
    for members in found.values():
        first = members[0]
        yield label(replace(first, axes={a: None if a in axes else v for a, v in first.axes.items()})), members


def positions(cells: Sequence[Cell], axis: str) -> np.ndarray:
    """Where cells lie along an axis: ln of the model's parameters if it moves them, of its value if that is a number,
    else the measured complexity."""
    if len({cell.params for cell in cells}) > 1:
        return np.array([math.log(cell.params) for cell in cells])
    return np.array([_position(cell, axis) for cell in cells])


def _position(cell: Cell, axis: str) -> float:
    value = cell.axes[axis]
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return math.log(value) if number else cell.complexity
