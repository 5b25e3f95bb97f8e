"""Curves of loss against the logarithm of tokens: smoothing, and where they first cross a loss."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

BANDWIDTH = 0.55
"""Half-width of the LOESS window in ln tokens."""
LEAST = 6
"""Evaluations that a window holds at least; it is widened until it does."""
LEAST_ENDPOINTS = 4
"""Decayed endpoints that a quadratic takes at least: one more than it has coefficients."""
FINE = 512
"""Points of the grid, even in ln tokens, on which a smoothed curve is kept."""


@lru_cache(maxsize=256)
def _operator(x: tuple[float, ...], fine: int) -> tuple[np.ndarray, np.ndarray]:
    """An even grid (fine,) over the range of `x` (n,), and the matrix (fine, n) that takes values at `x` to the curve
    there. Runs of a study share their evaluation points, so that both are computed once for all of them."""
    points = np.array(x)
    at = np.linspace(points[0], points[-1], fine)
    distance = np.abs(at[:, None] - points)
    width = np.maximum(BANDWIDTH, np.sort(distance, axis=1)[:, LEAST - 1] * (1 + 1e-4))
    weight = np.clip(1 - (distance / width[:, None]) ** 3, 0, None) ** 3
    offset = points - at[:, None]
    design = np.stack([np.ones_like(offset), offset, offset**2], axis=2)
    weighted = design * weight[:, :, None]
    # The ridge only keeps a window whose weights all but vanish solvable; it moves no estimate visibly.
    normal = np.einsum("mni,mnj->mij", weighted, design) + 1e-10 * np.eye(3)
    return at, np.asarray(np.linalg.solve(normal, weighted.transpose(0, 2, 1))[:, 0])


def loess(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Local quadratic regression of y (n,) on ascending x (n,) with tricube weights; n at least LEAST. Returns an even
    grid (FINE,) over the range of x and the curve (FINE,) there.

    Cleveland, W. S. (1979), "Robust locally weighted regression and smoothing scatterplots", without the robustness
    iterations: noise of an evaluation is close to normal.
    """
    at, operator = _operator(tuple(x.tolist()), FINE)
    return at, operator @ y


@dataclass(frozen=True, eq=False)
class Curve:
    """A smoothed validation curve: `x` ln tokens, ascending and even, and `loss` in nats there."""

    x: np.ndarray
    loss: np.ndarray

    @cached_property
    def end(self) -> float:
        """ln tokens of the last evaluation."""
        return float(self.x[-1])

    @cached_property
    def final(self) -> float:
        """Smoothed loss (nats) at the last evaluation."""
        return float(self.loss[-1])

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """Loss (nats) at ln tokens `x`; NaN outside the measured range (give or take rounding)."""
        tolerance = 1e-9
        inside = (np.asarray(x) >= self.x[0] - tolerance) & (np.asarray(x) <= self.x[-1] + tolerance)
        return np.where(inside, np.interp(x, self.x, self.loss), np.nan)

    def first_crossing(self, target: float) -> tuple[float, bool]:
        """ln tokens at which the loss first is at or below `target`, and whether it already was at the first
        evaluation (then the crossing lies before it, unseen). (NaN, False) if never."""
        below = self.loss <= target
        if not below.any():
            return float("nan"), False
        i = int(below.argmax())
        if i == 0:
            return float(self.x[0]), True
        share = (self.loss[i - 1] - target) / (self.loss[i - 1] - self.loss[i])
        return float(self.x[i - 1] + share * (self.x[i] - self.x[i - 1])), False


def smooth(tokens: np.ndarray, loss: np.ndarray) -> Curve | None:
    """The smoothed curve of evaluations at `tokens` (n,) with `loss` nats (n,).

    The evaluation before the first step has no logarithm and is left out; evaluations at equal tokens are averaged;
    None if fewer than LEAST finite ones remain.
    """
    x, y = _distinct(tokens, loss)
    return Curve(*loess(x, y)) if len(x) >= LEAST else None


def quadratic(tokens: np.ndarray, loss: np.ndarray) -> Curve | None:
    """The curve through decayed endpoints: least squares of `loss` nats (n,) on a quadratic in ln `tokens` (n,), on the
    same even grid (FINE,) as a smoothed one.

    Endpoints of equal budgets are averaged; None if fewer than LEAST_ENDPOINTS distinct ones with a finite loss remain.
    """
    x, y = _distinct(tokens, loss)
    if len(x) < LEAST_ENDPOINTS:
        return None
    at, operator = _quadratic_operator(tuple(x.tolist()), FINE)
    return Curve(at, operator @ y)


@lru_cache(maxsize=256)
def _quadratic_operator(x: tuple[float, ...], fine: int) -> tuple[np.ndarray, np.ndarray]:
    """As `_operator`, for one quadratic through all values."""
    at = np.linspace(x[0], x[-1], fine)
    centre = np.mean(x)  # so that the columns of the design are far from parallel
    return at, np.vander(at - centre, 3) @ np.linalg.pinv(np.vander(np.array(x) - centre, 3))


def _distinct(tokens: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln of the distinct `tokens` above 0 with a finite loss, ascending, and the mean loss at each."""
    tokens, loss = np.asarray(tokens, float), np.asarray(loss, float)
    keep = (tokens > 0) & np.isfinite(loss)
    if keep.all() and (tokens[1:] > tokens[:-1]).all():  # as most curves are
        return np.log(tokens), loss
    distinct, inverse = np.unique(tokens[keep], return_inverse=True)
    return np.log(distinct), np.bincount(inverse, loss[keep]) / np.bincount(inverse)
