"""Cells side by side: a matrix of seeds x cells, so that what is compared across cells is compared seed by seed."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from analysis.cells import Cell, Facet, Run, groups
from analysis.metrics.speedup import exp, gap, ln_speedup_at, net_speedup, read_pair


class Block(NamedTuple):
    """A value per seed and cell."""

    cells: list[Cell]
    """Those of which any pair can be read."""
    seeds: list[Any]
    """Those that every one of `cells` has."""
    values: np.ndarray
    """(seeds, cells), finite."""
    left_out: int
    """Seeds that some of `cells` have, but not all."""


def loss_gap(treated: Run, baseline: Run) -> float:
    """Loss of the baseline minus that of the treated run (nats), each at its own end; NaN where one has no curve."""
    return gap(baseline.curve, treated.curve) if treated.curve and baseline.curve else float("nan")


def ln_speedup(treated: Run, baseline: Run) -> float:
    """Signed ln of the pair's speedup; NaN where one has no curve."""
    return read_pair(baseline.curve, treated.curve).ln_speedup if treated.curve and baseline.curve else float("nan")


def ln_speedup_above(treated: Run, baseline: Run, nats: float) -> float:
    """ln of the pair's speedup at a loss `nats` above the baseline's final one, or at the treated run's own end where
    that lies higher; NaN where one has no curve."""
    if not treated.curve or not baseline.curve:
        return float("nan")
    b, t = baseline.curve, treated.curve
    return ln_speedup_at(b, t, max(b.final + nats, t.final))


def ln_net_tokens(treated: Run, baseline: Run) -> float:
    """ln of the pair's speedup net of the tokens before the text; NaN where one has no curve."""
    return math.log(net_speedup(exp(ln_speedup(treated, baseline)), baseline.text_tokens, treated.before_tokens))


def ln_net_flops(treated: Run, baseline: Run) -> float:
    """ln of the pair's speedup net of the FLOPs before the text; NaN where one has no curve."""
    cost = baseline.text_tokens * baseline.flops_per_token
    ratio = treated.flops_per_token / baseline.flops_per_token
    return math.log(net_speedup(exp(ln_speedup(treated, baseline)), cost, treated.before_flops, ratio))


def block(cells: Iterable[Cell], value: Callable[[Run, Run], float] = loss_gap) -> Block:
    """The values of (treated, baseline) pairs whose curves can be compared, of every seed that all cells share."""
    kept: list[Cell] = []
    columns: list[dict[Any, float]] = []
    for cell in cells:
        pairs = [] if cell.unlike else [(s, t, b) for s, t, b in cell.finished() if t.curve and b.curve]
        column = {seed: value(t, b) for seed, t, b in pairs}
        column = {seed: v for seed, v in column.items() if np.isfinite(v)}
        if column:
            kept.append(cell)
            columns.append(column)
    known = dict.fromkeys(seed for column in columns for seed in column)
    seeds = [seed for seed in known if all(seed in column for column in columns)]
    values = np.array([[column[seed] for column in columns] for seed in seeds]).reshape(len(seeds), len(columns))
    return Block(kept, seeds, values, len(known) - len(seeds))


def complete(values: np.ndarray) -> np.ndarray:
    """Which seeds of `values` (seeds, ...) have every value, as a mask (seeds,)."""
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))


def joined(cells: Iterable[Cell], *along: Facet) -> list[tuple[str, list[Cell]]]:
    """Cells that agree on every axis but those that move any of `along`: what `groups` along one of them or along
    another puts together, in the order of `cells`, with what their groups' names have in common."""
    members = list(cells)
    found = [group for facet in along for group in groups(members, facet)]
    sets: list[tuple[str, list[Cell]]] = []
    for indices in linked([{id(cell) for cell in group} for _, group in found]):
        inside = {id(cell) for i in indices for cell in found[i][1]}
        names = [found[i][0].split(", ") for i in indices]
        common = ", ".join(part for part in names[0] if all(part in name for name in names))
        sets.append((common, [cell for cell in members if id(cell) in inside]))
    return sets


def linked(keys: Sequence[set[Any]]) -> list[list[int]]:
    """Partition of 0, 1, ..., n - 1 such that those whose `keys` overlap are together, directly or over others."""
    sets: list[tuple[set[Any], list[int]]] = []
    for i, own in enumerate(keys):
        touching = [s for s in sets if s[0] & own]
        sets = [s for s in sets if not s[0] & own]
        sets.append((own.union(*(s[0] for s in touching)), sorted([i, *(j for s in touching for j in s[1])])))
    return sorted(indices for _, indices in sets)
