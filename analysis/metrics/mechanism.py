"""What kind of head start an arm has: does its speedup grow with the text budget, stay, or fade?

Three pictures of a treated curve, each drawn with the baseline's own curve L_b and one parameter: a multiplier,
L_b(S D), whose speedup stays; an offset, L_b(D + D_T), whose speedup fades as text is added (Hernandez et al., 2021,
"Scaling laws for transfer"); and a vertical shift, L_b(D) - dE, whose speedup grows where the baseline flattens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from analysis.cells import Cell
from analysis.metrics.smoothing import Curve

KINDS = ("multiplier", "offset", "vertical")
START = 0.1
"""Share of the baseline's budget from which curves are compared: before it the learning rate still warms up."""
LEAST_POINTS = 4
"""Evaluations inside the compared range below which three pictures cannot be told apart."""
CLEAR = 2.0
"""A picture whose AIC is higher by less than this explains the data as well (Burnham and Anderson, 2002)."""
NOISE_FLOOR = 1e-4
"""Nats: pictures that miss by less than this are equally exact."""
UNDECIDED = "undecided"


@dataclass(frozen=True, eq=False)
class Mechanism:
    """Three pictures of one treated curve, by kind, compared at the same evaluations (m,)."""

    tokens: np.ndarray
    """Tokens of the compared evaluations (m,)."""
    residuals: dict[str, np.ndarray]
    """Treated loss minus that of the picture (m,), nats."""
    parameter: dict[str, float]
    """Multiplier: S, a ratio. Offset: D_T, tokens. Vertical: dE, nats; above 1 or 0 the treated arm is ahead."""
    rms_nats: dict[str, float]
    aic: dict[str, float]
    """Akaike's criterion m ln rms^2 + 2 k with k = 2, the parameter and the noise. Evaluations of one run are not
    independent, so that differences describe and do not test."""
    daic: dict[str, float]
    """AIC less that of the picture that fits best."""
    best: str
    """The kind with the lowest AIC; "undecided" where another, or no effect at all, is within CLEAR of it."""


def triage(
    baselines: Sequence[Curve], treated: Sequence[tuple[np.ndarray, np.ndarray]], start: float = START
) -> Mechanism | None:
    """Fits the three pictures to `treated`, (tokens (n,), loss (n,)) of every run, by least squares in nats.

    Several runs are averaged, and so are several baselines. The baseline is never extrapolated: compared are the
    evaluations from `start` of its budget on up to the last before the treated loss falls below the baseline's final
    one, for only there do all three pictures say something. None if fewer than LEAST_POINTS are left.
    """
    baseline = _mean_curve(baselines)
    tokens, loss = _mean_evaluations(treated)
    keep = _comparable(baseline, tokens, loss, start)
    tokens, loss = tokens[keep], loss[keep]
    if len(tokens) < LEAST_POINTS:
        return None
    x, first, end = np.log(tokens), math.exp(baseline.x[0]), math.exp(baseline.end)

    def picture(at: np.ndarray) -> np.ndarray:
        return np.interp(at, baseline.x, baseline.loss)

    def multiplied(ln_s: np.ndarray | float) -> np.ndarray:
        return loss - picture(x + ln_s)

    def offset(more: np.ndarray | float) -> np.ndarray:
        return loss - picture(np.log(np.maximum(tokens + more, first)))

    ln_s = _least_squares(multiplied, baseline.x[0] - x[0], baseline.end - x[-1])
    more = _least_squares(offset, first - tokens[0], end - tokens[-1])
    shift = float((picture(x) - loss).mean())
    residuals = dict(zip(KINDS, (multiplied(ln_s), offset(more), loss - picture(x) + shift), strict=True))
    rms = {kind: math.sqrt(float((r**2).mean())) for kind, r in residuals.items()}
    aic = {kind: 2 * len(x) * math.log(max(value, NOISE_FLOOR)) + 4 for kind, value in rms.items()}
    nothing = 2 * len(x) * math.log(max(math.sqrt(float(((loss - picture(x)) ** 2).mean())), NOISE_FLOOR)) + 2
    first_kind, second = sorted(KINDS, key=lambda kind: aic[kind])[:2]
    clear = min(aic[second], nothing) - aic[first_kind] >= CLEAR
    return Mechanism(
        tokens=tokens,
        residuals=residuals,
        parameter=dict(zip(KINDS, (math.exp(ln_s), more, shift), strict=True)),
        rms_nats=rms,
        aic=aic,
        daic={kind: value - aic[first_kind] for kind, value in aic.items()},
        best=first_kind if clear else UNDECIDED,
    )


MECHANISM_COLUMNS = (
    "label", "arm", "n_pairs", "n_evaluations", "speedup_multiplier", "offset_tokens", "shift_nats",
    *(f"rms_nats_{kind}" for kind in KINDS), *(f"daic_{kind}" for kind in KINDS), "best",
)  # fmt: skip


def mechanism_table(cells: Sequence[Cell], labels: Sequence[str]) -> pd.DataFrame:
    """One row per cell with readable pairs; `labels` name the cells. Columns MECHANISM_COLUMNS.

    NaN, and `best` "", where the text budgets of arm and baseline differ, so that their schedules differ all the way,
    or too few evaluations can be compared.
    """
    rows: list[dict[str, Any]] = []
    for cell, label in zip(cells, labels, strict=True):
        pairs = [(t, b.curve) for _, t, b in cell.finished() if t.curve and b.curve and not cell.unlike]
        if not pairs:
            continue
        evaluations = [(t.tokens, t.loss) for t, _ in pairs]
        found = triage([curve for _, curve in pairs], evaluations) if cell.same_budget else None
        rows.append({"label": label, "arm": cell.arm, "n_pairs": len(pairs), **_row(found)})
    return pd.DataFrame(rows, columns=list(MECHANISM_COLUMNS))


def _row(found: Mechanism | None) -> dict[str, Any]:
    if found is None:
        return {"n_evaluations": 0, "best": ""}
    return {
        "n_evaluations": len(found.tokens),
        "speedup_multiplier": found.parameter["multiplier"],
        "offset_tokens": found.parameter["offset"],
        "shift_nats": found.parameter["vertical"],
        **{f"rms_nats_{kind}": found.rms_nats[kind] for kind in KINDS},
        **{f"daic_{kind}": found.daic[kind] for kind in KINDS},
        "best": found.best,
    }


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of curves where all of them are known."""
    low, high = max(c.x[0] for c in curves), min(c.x[-1] for c in curves)
    x = np.unique(np.concatenate([c.x for c in curves]))
    x = x[(x >= low) & (x <= high)]
    return Curve(x, np.mean([np.interp(x, c.x, c.loss) for c in curves], axis=0))


def _mean_evaluations(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (n,) and mean loss (n,) of runs at the first one's evaluations, where all were measured. Runs of a study
    share their evaluation points, so that nothing is interpolated there."""
    cleaned = []
    for tokens, loss in runs:
        tokens, loss = np.asarray(tokens, float), np.asarray(loss, float)
        known = (tokens > 0) & np.isfinite(loss)
        distinct, inverse = np.unique(tokens[known], return_inverse=True)
        cleaned.append((distinct, np.bincount(inverse, loss[known]) / np.bincount(inverse)))
    if not all(len(tokens) for tokens, _ in cleaned):
        return np.empty(0), np.empty(0)
    at = cleaned[0][0]
    at = at[(at >= max(t[0] for t, _ in cleaned)) & (at <= min(t[-1] for t, _ in cleaned))]
    return at, np.mean([np.interp(np.log(at), np.log(t), y) for t, y in cleaned], axis=0)


def _comparable(baseline: Curve, tokens: np.ndarray, loss: np.ndarray, start: float) -> np.ndarray:
    """Which evaluations (n,) all three pictures can be held against. The evaluation at which the treated run passes the
    baseline's final loss ends the range whatever noise lifts later ones, so that no picture's parameter is cut short.
    """
    x = np.log(tokens)
    passed, above = np.flatnonzero(loss < baseline.final), np.flatnonzero(loss > baseline.loss[0])
    index = np.arange(len(loss))
    inside = (index < (passed[0] if len(passed) else len(loss))) & (index > (above[-1] if len(above) else -1))
    return inside & ~np.isnan(baseline.at(x)) & (x >= baseline.end + math.log(start))


def _least_squares(residuals: Callable[[np.ndarray | float], np.ndarray], low: float, high: float) -> float:
    """The parameter in [low, high] with the least sum of squares: the best of an even grid, then refined, because the
    sum can have more than one minimum on a curve of few points."""
    grid = np.linspace(low, high, 257)
    sums = (residuals(grid[:, None]) ** 2).sum(axis=1)
    i = int(sums.argmin())
    left, right = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
    if not left < right:  # a range that rounding alone leaves
        return float(grid[i])
    found = minimize_scalar(
        lambda p: float((residuals(p) ** 2).sum()), bounds=(left, right), method="bounded",
        options={"xatol": 1e-6 * (right - left)},
    )  # fmt: skip
    return float(found.x if found.fun < sums[i] else grid[i])
