"""How the loss gap of an arm depends on what came before the text: on its complexity, and on model size x budget.

Every fit is made seed by seed, because the seed is the only unit of replication; intervals are over seeds. Losses are
in nats per token, tokens are counted, logarithms are natural.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.cells import Cell, Run
from analysis.metrics.fieller import Ratio, vertex
from analysis.metrics.intervals import Interval, bounds, t_interval
from analysis.metrics.seeds import block, complete, joined, ln_net_flops, loss_gap
from analysis.metrics.speedup import exp

LEAST_BANDS = 5
SAME_BAND = 0.005
"""Measured gzip ratios that differ by less are of one band: data of one band measure a little differently."""
LEAST_SIZES = 2
LEAST_BUDGETS = 3
SAME_LEVEL = 0.01
"""Sizes or budgets whose logarithms differ by less count as one: budgets are floored to whole steps."""
NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Response:
    """A parabola of the loss gap in complexity, one a seed, and whether its optimum can be located."""

    arm: str
    group: str
    x: np.ndarray
    """(k,) measured gzip ratio of the first stage's data, ascending."""
    y: np.ndarray
    """(seeds, k) loss gap, nats."""
    coefficients: np.ndarray
    """(seeds, 3) of c + b x + a x^2; a is 0 where fewer than five bands allow a line alone, all NaN below two."""
    slope: Interval
    """Of the line through all bands, nats per unit of x."""
    curvature: Interval
    """a, nats per unit of x squared."""
    optimum: Interval
    """-b / 2a with Fieller's interval; infinite bounds where a may be zero."""
    located: bool
    """Whether there is an interior optimum: the curvature is surely negative, and the optimum surely within x."""
    reason: str
    """Why it is not located; "" where it is."""
    left_out: int
    """Seeds that some band lacks."""

    def at(self, x: np.ndarray) -> np.ndarray:
        """The fitted loss gap (seeds, ...) at complexity `x` (...)."""
        x = np.asarray(x, float)
        return np.tensordot(self.coefficients, np.stack([np.ones_like(x), x, x**2]), axes=1)


def response(x: np.ndarray, y: np.ndarray, arm: str = "", group: str = "") -> Response:
    """The response of loss gaps `y` (seeds, k) to complexity `x` (k,). Bands without a complexity are dropped, and
    seeds that lack a band are left out."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    order = np.argsort(x, kind="stable")[: int(np.isfinite(x).sum())]
    x, y = x[order], y[:, order]
    kept = complete(y)
    left_out, y = int((~kept).sum()), y[kept]
    bands = _distinct(x, SAME_BAND)
    coefficients = np.full((len(y), 3), np.nan)
    slope = curvature = NOTHING
    found = Ratio(NOTHING, False)
    if bands > 1:
        line = _fit([np.ones_like(x), x], y)
        slope = t_interval(line[:, 1])
        coefficients = np.column_stack([line, np.zeros(len(y))])
    if bands >= LEAST_BANDS:
        coefficients = _fit([np.ones_like(x), x, x**2], y)
        curvature = t_interval(coefficients[:, 2])
        found = vertex(coefficients[:, 2], coefficients[:, 1])
    if bands < LEAST_BANDS:
        reason = f"{_count(bands, 'band')}, {LEAST_BANDS} needed"
    else:
        reason = _unlocated(len(y), curvature, found, x, "bands")
    return Response(
        arm, group, x, y, coefficients, slope, curvature, found.interval, reason == "", reason, left_out
    )  # fmt: skip


def responses(cells: Iterable[Cell]) -> list[Response]:
    """The response of every set of cells that differ in complexity alone."""
    found = []
    for group, members in joined(cells, "complexity"):
        values = block(members)
        if values.cells:
            fitted = response(np.array([c.complexity for c in values.cells]), values.values, members[0].arm, group)
            found.append(replace(fitted, left_out=fitted.left_out + values.left_out))
    return found


RESPONSE_COLUMNS = (
    "arm", "group", "n_bands", "n_pairs", "n_left_out", "x_opt", "x_opt_lo", "x_opt_hi", "curvature_nats",
    "curvature_nats_lo", "curvature_nats_hi", "slope_nats", "slope_nats_lo", "slope_nats_hi", "located", "reason",
)  # fmt: skip


def response_table(responses: Iterable[Response]) -> pd.DataFrame:
    """One row per response, with RESPONSE_COLUMNS; `n_pairs` counts seeds, curvature and slope are per unit of x (and
    unit squared)."""
    rows = [
        {
            "arm": r.arm,
            "group": r.group,
            "n_bands": _distinct(r.x, SAME_BAND),
            "n_pairs": len(r.y),
            "n_left_out": r.left_out,
            **bounds("x_opt", r.optimum),
            **bounds("curvature_nats", r.curvature),
            **bounds("slope_nats", r.slope),
            "located": r.located,
            "reason": r.reason,
        }
        for r in responses
    ]
    return pd.DataFrame(rows, columns=list(RESPONSE_COLUMNS))


class Optimum(NamedTuple):
    """The budget that serves a size best: synthetic tokens with Fieller's interval, and whether it is located."""

    ln_params: float
    tokens: Interval
    located: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Surface:
    """A quadratic surface over ln size and ln budget with their interaction, one a seed."""

    arm: str
    group: str
    measure: str
    """What y is, with its unit."""
    ln_params: np.ndarray
    """(k,)"""
    ln_syn_tokens: np.ndarray
    """(k,)"""
    y: np.ndarray
    """(seeds, k)"""
    centre: tuple[float, float]
    """Means of ln_params and ln_syn_tokens; the coefficients are about it."""
    coefficients: np.ndarray
    """(seeds, 6) of 1, n, s, s^2, n s, n^2, where n and s are ln size and ln budget less their means. The last is 0
    where two sizes cannot show it; all are NaN where nothing could be fitted."""
    curvature: Interval
    """Of s^2, in units of y per squared ln token."""
    optima: list[Optimum]
    """One a size, ascending."""
    reason: str
    """What is lacking for a fit; "" where there is one."""
    left_out: int
    """Seeds that some cell lacks."""

    def at(self, ln_params: np.ndarray, ln_syn_tokens: np.ndarray) -> np.ndarray:
        """The fitted values (seeds, ...) at points of one shape (...)."""
        columns = _terms(ln_params - self.centre[0], ln_syn_tokens - self.centre[1])
        return np.tensordot(self.coefficients, columns, axes=1)

    def grid(self, points: int = 33) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ln size (points,), ln budget (points,) and the mean fitted value (size, budget) over the measured range."""
        n = np.linspace(self.ln_params.min(), self.ln_params.max(), points)
        s = np.linspace(self.ln_syn_tokens.min(), self.ln_syn_tokens.max(), points)
        fitted = self.at(*np.meshgrid(n, s, indexing="ij"))
        return n, s, fitted.mean(axis=0) if len(fitted) else np.full((points, points), np.nan)


def surface(
    params: np.ndarray,
    syn_tokens: np.ndarray,
    y: np.ndarray,
    arm: str = "",
    group: str = "",
    measure: str = "loss gap, nats",
) -> Surface:
    """The surface of `y` (seeds, k) over sizes `params` (k,) and budgets `syn_tokens` (k,), both positive.

    A fit takes two sizes and three budgets, and cells enough to tell the terms apart. The optimum of a size is located
    by the rule of the complexity response, within the budgets that this size was given.
    """
    n, s = np.log(np.asarray(params, float)), np.log(np.asarray(syn_tokens, float))
    y = np.asarray(y, float)
    kept = complete(y)
    left_out, y = int((~kept).sum()), y[kept]
    centre = (float(n.mean()), float(s.mean())) if len(n) else (0.0, 0.0)
    sizes, budgets = _distinct(n), _distinct(s)
    terms = 6 if sizes > 2 else 5
    columns = _terms(n - centre[0], s - centre[1])[:terms]
    coefficients = np.full((len(y), 6), np.nan)
    curvature, reason = NOTHING, ""
    optima: list[Optimum] = []
    if sizes < LEAST_SIZES or budgets < LEAST_BUDGETS:
        reason = f"{_count(sizes, 'size')} x {_count(budgets, 'budget')}, {LEAST_SIZES} x {LEAST_BUDGETS} needed"
    elif np.linalg.matrix_rank(columns) < terms:
        reason = f"{len(n)} cells do not tell {terms} terms apart"
    else:
        coefficients = np.pad(_fit(list(columns), y), ((0, 0), (0, 6 - terms)))
        curvature = t_interval(coefficients[:, 3])
        for size in _levels(n):
            at = np.abs(n - size) < SAME_LEVEL
            # Along s at a given n the surface is a parabola: its linear coefficient holds the interaction.
            linear = coefficients[:, 2] + coefficients[:, 4] * (size - centre[0])
            found = vertex(coefficients[:, 3], linear)
            why = _unlocated(len(y), curvature, found, s[at] - centre[1], "budgets")
            tokens = Interval(*(exp(v + centre[1]) for v in found.interval))
            optima.append(Optimum(size, tokens, why == "", why))
    return Surface(arm, group, measure, n, s, y, centre, coefficients, curvature, optima, reason, left_out)


def surfaces(cells: Iterable[Cell]) -> list[Surface]:
    """Two surfaces for every set of cells that differ in size and budget alone: of the loss gap, and of the ln speedup
    net of FLOPs, which is read only where arm and baseline have one text budget. A budget of zero has no logarithm and
    is dropped."""
    found = []
    measures: list[tuple[str, Callable[[Run, Run], float]]] = [
        ("loss gap, nats", loss_gap),
        ("ln speedup net of FLOPs", ln_net_flops),
    ]
    for group, members in joined(cells, "params", "syn_tokens"):
        for measure, value in measures:
            fit = [c for c in members if c.syn_tokens > 0 and (value is loss_gap or c.same_budget)]
            values = block(fit, value)
            if values.cells:
                params = np.array([c.params for c in values.cells])
                tokens = np.array([c.syn_tokens for c in values.cells])
                fitted = surface(params, tokens, values.values, members[0].arm, group, measure)
                found.append(replace(fitted, left_out=fitted.left_out + values.left_out))
    return found


SURFACE_COLUMNS = (
    "arm", "group", "measure", "n_sizes", "n_budgets", "n_pairs", "n_left_out", "params", "syn_tokens_opt",
    "syn_tokens_opt_lo", "syn_tokens_opt_hi", "curvature", "curvature_lo", "curvature_hi", "located", "reason",
)  # fmt: skip


def surface_table(surfaces: Iterable[Surface]) -> pd.DataFrame:
    """One row per surface and size, with SURFACE_COLUMNS; one row without a size where there is no fit. `n_pairs`
    counts seeds, `curvature` is that of ln budget in the unit of `measure`."""
    rows = []
    for s in surfaces:
        for optimum in s.optima or [Optimum(math.nan, NOTHING, False, s.reason)]:
            rows.append(
                {
                    "arm": s.arm,
                    "group": s.group,
                    "measure": s.measure,
                    "n_sizes": _distinct(s.ln_params),
                    "n_budgets": _distinct(s.ln_syn_tokens),
                    "n_pairs": len(s.y),
                    "n_left_out": s.left_out,
                    "params": math.exp(optimum.ln_params),
                    **bounds("syn_tokens_opt", optimum.tokens),
                    **bounds("curvature", s.curvature),
                    "located": optimum.located,
                    "reason": optimum.reason,
                }
            )
    return pd.DataFrame(rows, columns=list(SURFACE_COLUMNS))


def _fit(columns: Sequence[np.ndarray] | np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares coefficients (seeds, p) of `y` (seeds, k) on p columns (k,)."""
    return y @ np.linalg.pinv(np.stack(list(columns), axis=1)).T


def _terms(n: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(n), n, s, s**2, n * s, n**2])


def _unlocated(seeds: int, curvature: Interval, optimum: Ratio, x: np.ndarray, what: str) -> str:
    """Why an optimum over points `x` is not located, "" if it is."""
    if seeds < 2:
        return f"{_count(seeds, 'seed')}, 2 needed for an interval"
    if curvature.low > 0:
        return "the curvature is positive: what is best lies at an end"
    if not curvature.high < 0:
        return "the curvature may be zero"
    if not optimum.bounded:
        return "the interval of the optimum has no bounds"
    if not x.min() < optimum.interval.low <= optimum.interval.high < x.max():
        return f"the interval of the optimum reaches beyond the {what}"
    return ""


def _levels(x: np.ndarray, apart: float = SAME_LEVEL) -> list[float]:
    """Distinct values, ascending; one that is less than `apart` above the value before it is not distinct."""
    values = np.unique(x[np.isfinite(x)])
    return [float(v) for v in values[np.diff(values, prepend=-np.inf) >= apart]]


def _distinct(x: np.ndarray, apart: float = SAME_LEVEL) -> int:
    return len(_levels(x, apart))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
