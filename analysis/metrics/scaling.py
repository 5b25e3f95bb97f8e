"""A scaling law of the runs from scratch, and how many times its tokens an arm's are worth by that law.

L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann, J. et al., 2022, "Training compute-optimal large language models", arXiv
2203.15556, approach 3), fitted as in Besiroglu, T. et al. (2024), "Chinchilla scaling: a replication attempt", arXiv
2404.10102: the sum of Huber losses of ln loss, the terms as log-sum-exp, many starts. Losses are in nats per token, N
counts parameters and D tokens. This is secondary: a law that is wrong in shape is wrong by more than its interval says.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize, nnls

from analysis.cells import Cell, Run
from analysis.metrics.intervals import LEVEL, Interval, bounds, t_interval
from analysis.metrics.seeds import joined
from analysis.metrics.speedup import exp

LEAST_SIZES = 3
LEAST_ENDPOINTS = 4
BOOTSTRAP = 1000
DELTA = 1e-3
"""Residual of ln loss at which Huber's loss turns from square to linear."""
EXPONENTS = (0.1, 0.2, 0.35, 0.6, 1.0)
"""Where the search for alpha and for beta may start, in every pair; E, A and B follow by least squares."""
STARTS = 8
"""Pairs that it does start from: those whose least squares fit best."""
NOTHING = Interval(math.nan, math.nan, math.nan)
NAMES = ("E", "A", "B", "alpha", "beta")


class HeldOut(NamedTuple):
    """How the law fitted to smaller models predicts the largest: measured less predicted loss, nats."""

    params: float
    error: float
    """Mean over its endpoints."""
    rms: float
    endpoints: int


@dataclass(frozen=True, eq=False)
class ScalingFit:
    """A fitted law, with what the bootstrap of runs makes of it."""

    values: np.ndarray
    """(5,) in the order of NAMES."""
    bootstrap: np.ndarray
    """(replicates, 5); none where there are fewer than two runs a size."""
    sizes: int
    runs: int
    endpoints: int
    rms: float
    """Of measured less fitted loss, nats."""
    held_out: HeldOut | None
    """None where the sizes without the largest do not suffice for a law."""

    def interval(self, name: str) -> Interval:
        """A parameter by its name with the 95 % percentile interval over the bootstrap."""
        i = NAMES.index(name)
        return _percentiles(float(self.values[i]), self.bootstrap[:, i])

    def loss(self, params: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        """Loss (nats) at params and tokens of one shape."""
        e, a, b, alpha, beta = self.values
        return np.asarray(e + a * np.asarray(params, float) ** -alpha + b * np.asarray(tokens, float) ** -beta)

    def multiplier(
        self, params: np.ndarray | float, tokens: np.ndarray | float, loss: np.ndarray | float
    ) -> np.ndarray:
        """How many times its `tokens` a run of that loss would have needed by the law, in one shape: infinite where no
        amount of tokens would have sufficed."""
        return data_multiplier(self.values, params, tokens, loss)


def data_multiplier(
    values: np.ndarray, params: np.ndarray | float, tokens: np.ndarray | float, loss: np.ndarray | float
) -> np.ndarray:
    """((loss - E - A params^-alpha) / B)^(-1/beta) / tokens of laws `values` (..., 5) in the order of NAMES; infinite
    where the loss is at or below what the law has for endless tokens. Shapes broadcast."""
    e, a, b, alpha, beta = np.moveaxis(np.asarray(values, float), -1, 0)
    above = np.asarray(loss, float) - e - a * np.asarray(params, float) ** -alpha
    with np.errstate(divide="ignore", over="ignore"):
        needed = np.where(above > 0, np.where(above > 0, above / b, 1.0) ** (-1 / beta), np.inf)
    return np.where(np.isnan(above), np.nan, needed / np.asarray(tokens, float))


def lacking(params: np.ndarray, tokens: np.ndarray) -> str:
    """What endpoints (n,), (n,) lack for a law; "" for nothing."""
    enough = sum(len(np.unique(tokens[params == size])) >= LEAST_ENDPOINTS for size in np.unique(params))
    if enough >= LEAST_SIZES:
        return ""
    sizes = f"{enough} size{'' if enough == 1 else 's'}"
    return f"{sizes} with {LEAST_ENDPOINTS} decayed endpoints or more, {LEAST_SIZES} needed"


def fit_law(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    runs: Sequence[Hashable] | None = None,
    bootstrap: int = BOOTSTRAP,
) -> ScalingFit | None:
    """The law of endpoints (n,), or None where these do not suffice for one (see `lacking`).

    `runs` (n,) says which endpoints belong together: the bootstrap draws runs, with all of their endpoints. Without it
    every endpoint is a run. Endpoints that are not finite and positive are left out.
    """
    kept = _usable(params, tokens, loss)
    data = _Data(np.asarray(params, float)[kept], np.asarray(tokens, float)[kept], np.asarray(loss, float)[kept])
    if lacking(data.params, data.tokens):
        return None
    of = _numbered(range(len(kept)) if runs is None else runs, kept)
    theta = _fit(data)
    sizes, drawn = len(np.unique(data.params)), int(of.max()) + 1
    replicates = np.empty((0, 5))
    if drawn >= 2 * sizes and bootstrap:
        weights = _weights(of, data.params, bootstrap)
        replicates = data.law(_refine(np.tile(theta, (bootstrap, 1)), weights, data))
    fitted = np.exp(_terms(theta[None], data)[0][0])
    rms = float(np.sqrt(((data.loss - fitted) ** 2).mean()))
    return ScalingFit(data.law(theta[None])[0], replicates, sizes, drawn, len(data.loss), rms, _held_out(data))


def arm_factor(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    treated: np.ndarray,
    runs: Sequence[Hashable] | None = None,
    bootstrap: int = BOOTSTRAP,
) -> Interval:
    """The one factor by which a `treated` (n,) run's tokens count, in a joint law with shared exponents: a cross-check
    of the multipliers, which are read endpoint by endpoint. Percentile interval over the bootstrap of runs; NaN where
    the runs that are not treated do not suffice for a law, or none is treated."""
    kept = _usable(params, tokens, loss)
    z = np.asarray(treated, bool)[kept]
    data = _Data(params[kept], tokens[kept], loss[kept], z.astype(float))
    if lacking(data.params[~z], data.tokens[~z]) or not z.any():
        return NOTHING
    of = _numbered(range(len(kept)) if runs is None else runs, kept)
    theta = _fit(data)
    replicates = np.empty(0)
    if of.max() + 1 >= 2 * len(np.unique(data.params)) and bootstrap:
        weights = _weights(of, data.params * np.where(z, -1, 1), bootstrap)
        replicates = np.exp(np.clip(_refine(np.tile(theta, (bootstrap, 1)), weights, data)[:, 5], -700, 700))
    return _percentiles(exp(float(theta[5])), replicates)


class Multiplier(NamedTuple):
    """What an arm's text tokens are worth at one endpoint."""

    params: float
    text_tokens: float
    value: Interval
    """Geometric mean over seeds with its t interval, the law taken as given."""
    law: Interval
    """The same with the percentile interval over the bootstrap of the law, the seeds taken as given."""
    seeds: int
    beyond: int
    """Seeds with a loss that the law reaches with no amount of tokens: they are in no mean."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """An arm at every size and text budget, converted by the law of its baseline."""

    arm: str
    group: str
    fit: ScalingFit | None
    factor: Interval
    multipliers: list[Multiplier]
    reason: str
    """Why there is no law; "" where there is one."""


def scalings(cells: Iterable[Cell], bootstrap: int = BOOTSTRAP) -> list[Scaling]:
    """The conversion of every set of cells that differ in size and text budget alone. Endpoints are the smoothed final
    losses of runs whose schedule ended; those of one seed and size are drawn together, because they may be branches of
    one trunk."""
    laws: dict[frozenset[str], ScalingFit | None] = {}
    found = []
    for group, members in joined(cells, "params", "text_tokens"):
        ends = [(c, s, t, b) for c in members if not c.unlike for s, t, b in c.finished()]
        base = {b.stage: (b, s) for _, s, _, b in ends if _decayed(b)}
        arm = [(c, s, t) for c, s, t, _ in ends if _decayed(t)]
        rows = _rows([(b, ("baseline", b.params, s)) for b, s in base.values()])
        key = frozenset(base)
        if key not in laws:
            laws[key] = fit_law(*rows[:3], rows[3], bootstrap)
        law = laws[key]
        factor, multipliers = NOTHING, []
        if law:
            both = _rows(
                [(b, ("baseline", b.params, s)) for b, s in base.values()]
                + [(t, ("arm", t.params, s)) for _, s, t in arm]
            )
            treated = np.arange(len(both[3])) >= len(base)
            factor = arm_factor(*both[:3], treated, both[3], bootstrap)
            ends_of = [[t for c, _, t in arm if c is member] for member in members]
            multipliers = [_multiplier(law, runs) for runs in ends_of if runs]
        reason = "" if law else lacking(rows[0], rows[1])
        found.append(Scaling(members[0].arm, group, law, factor, multipliers, reason))
    return found


SCALING_COLUMNS = (
    "arm", "group", "n_sizes", "n_runs", "n_endpoints", "e_nats", "e_nats_lo", "e_nats_hi", "a", "a_lo", "a_hi",
    "b", "b_lo", "b_hi", "alpha", "alpha_lo", "alpha_hi", "beta", "beta_lo", "beta_hi", "rms_nats",
    "held_out_params", "held_out_error_nats", "held_out_rms_nats", "arm_factor", "arm_factor_lo", "arm_factor_hi",
    "reason",
)  # fmt: skip


def scaling_table(scalings: Iterable[Scaling]) -> pd.DataFrame:
    """One row per arm with SCALING_COLUMNS: the law of its baseline, its error at the largest size when fitted without
    that, and the factor on tokens of a joint law with the arm. NaN with the reason where there is no law."""
    rows: list[dict[str, Any]] = []
    for s in scalings:
        row: dict[str, Any] = {"arm": s.arm, "group": s.group, "reason": s.reason, **bounds("arm_factor", s.factor)}
        row |= {"n_sizes": 0, "n_runs": 0, "n_endpoints": 0}
        if s.fit:
            row |= {"n_sizes": s.fit.sizes, "n_runs": s.fit.runs, "n_endpoints": s.fit.endpoints}
            row["rms_nats"] = s.fit.rms
            for name in NAMES:
                row |= bounds("e_nats" if name == "E" else name.lower(), s.fit.interval(name))
            if s.fit.held_out:
                held = s.fit.held_out
                row |= {"held_out_params": held.params, "held_out_error_nats": held.error}
                row["held_out_rms_nats"] = held.rms
        rows.append(row)
    return pd.DataFrame(rows, columns=list(SCALING_COLUMNS))


MULTIPLIER_COLUMNS = (
    "arm", "group", "params", "text_tokens", "multiplier", "multiplier_lo", "multiplier_hi", "multiplier_law_lo",
    "multiplier_law_hi", "n_pairs", "n_beyond",
)  # fmt: skip


def multiplier_table(scalings: Iterable[Scaling]) -> pd.DataFrame:
    """One row per endpoint of an arm, with MULTIPLIER_COLUMNS: how many times its text tokens the baseline's law asks
    for the same loss, with the t interval over seeds and, `_law_lo` and `_law_hi`, the bootstrap's of the law."""
    rows = [
        {
            "arm": s.arm,
            "group": s.group,
            "params": m.params,
            "text_tokens": m.text_tokens,
            **bounds("multiplier", m.value),
            "multiplier_law_lo": m.law.low,
            "multiplier_law_hi": m.law.high,
            "n_pairs": m.seeds,
            "n_beyond": m.beyond,
        }
        for s in scalings
        for m in s.multipliers
    ]
    return pd.DataFrame(rows, columns=list(MULTIPLIER_COLUMNS))


class _Data:
    """Endpoints in the coordinates of the fit: logarithms about their means, which keeps the problem well scaled."""

    def __init__(
        self, params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, treated: np.ndarray | None = None
    ) -> None:
        self.params, self.tokens, self.loss, self.treated = params, tokens, loss, treated
        ln_params, ln_tokens = np.log(params), np.log(tokens)
        self.centre = (float(ln_params.mean()), float(ln_tokens.mean())) if len(loss) else (0.0, 0.0)
        self.n, self.d, self.ln_loss = ln_params - self.centre[0], ln_tokens - self.centre[1], np.log(loss)

    def law(self, theta: np.ndarray) -> np.ndarray:
        """Laws (..., 5) in the order of NAMES from theta (..., 5 or 6)."""
        e, a, b, alpha, beta = np.moveaxis(theta[..., :5], -1, 0)
        ln = np.stack([e, a + alpha * self.centre[0], b + beta * self.centre[1]], axis=-1)
        return np.concatenate([np.exp(np.clip(ln, -700, 700)), theta[..., 3:5]], axis=-1)


def _terms(theta: np.ndarray, data: _Data) -> tuple[np.ndarray, np.ndarray]:
    """ln of the fitted loss (r, n), and its derivatives (r, n, p), for theta (r, p): ln of E, of A and of B (at the
    mean size and tokens), alpha, beta, and for p = 6 ln of the factor on treated tokens."""
    e, a, b, alpha, beta = (theta[:, i, None] for i in range(5))
    d = data.d + (theta[:, 5, None] * data.treated if data.treated is not None else 0.0)
    terms = np.stack(np.broadcast_arrays(e + 0 * data.n, a - alpha * data.n, b - beta * d))
    top = terms.max(axis=0)
    shares = np.exp(terms - top)
    total = shares.sum(axis=0)
    p = shares / total
    columns = [p[0], p[1], p[2], -p[1] * data.n, -p[2] * d]
    if data.treated is not None:
        columns.append(-p[2] * beta * data.treated)
    return top + np.log(total), np.stack(columns, axis=-1)


def _huber(residual: np.ndarray) -> np.ndarray:
    """Huber's loss in units of DELTA squared, which leaves the minimum where it is and keeps tolerances meaningful."""
    r = np.abs(residual) / DELTA
    return np.where(r <= 1, r**2 / 2, r - 0.5)


def _fit(data: _Data) -> np.ndarray:
    """theta (p,) with the smallest sum of Huber losses over all starts."""

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        fitted, derivatives = _terms(theta[None], data)
        residual = fitted[0] - data.ln_loss
        slope = np.clip(residual / DELTA, -1, 1) / DELTA
        return float(_huber(residual).sum()), slope @ derivatives[0]

    ends = [
        minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8})
        for start in _starts(data)
    ]
    best = min(ends, key=lambda end: end.fun).x
    return np.asarray(_refine(best[None], np.ones((1, len(data.loss))), data)[0])


def _starts(data: _Data) -> list[np.ndarray]:
    least = 1e-3 * float(data.loss.min())
    found = []
    for alpha, beta in itertools.product(EXPONENTS, EXPONENTS):
        design = np.stack([np.ones_like(data.n), np.exp(-alpha * data.n), np.exp(-beta * data.d)], axis=1)
        linear, error = nnls(design, data.loss)
        factor = [] if data.treated is None else [0.0]
        found.append((error, np.r_[np.log(np.maximum(linear, least)), alpha, beta, factor]))
    return [start for _, start in sorted(found, key=lambda f: f[0])[:STARTS]]


def _refine(theta: np.ndarray, weights: np.ndarray, data: _Data, steps: int = 300) -> np.ndarray:
    """theta (r, p) after Levenberg-Marquardt steps on the weighted (r, n) sums of Huber losses, all replicates at once.

    Each step solves the weighted least squares that bounds Huber's loss from above and touches it here (iteratively
    reweighted, Huber 1981), and is taken only if it lowers the sum.
    """
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    value = (weights * _huber(_terms(theta, data)[0] - data.ln_loss)).sum(axis=1)
    active = np.arange(len(theta))
    for _ in range(steps):
        fitted, derivatives = _terms(theta[active], data)
        residual = fitted - data.ln_loss
        w = weights[active] / np.maximum(np.abs(residual), DELTA)
        weighted = derivatives * w[:, :, None]
        normal = np.matmul(weighted.transpose(0, 2, 1), derivatives)
        slope = np.matmul(weighted.transpose(0, 2, 1), residual[:, :, None])
        diagonal = np.einsum("rii->ri", normal)
        diagonal += damping[active, None] * diagonal + 1e-12
        new = theta[active] - np.linalg.solve(normal, slope)[:, :, 0]
        reached = (weights[active] * _huber(_terms(new, data)[0] - data.ln_loss)).sum(axis=1)
        better = reached < value[active]
        done = np.where(better, value[active] - reached <= 1e-10 * value[active], damping[active] > 1e6)
        theta[active[better]], value[active[better]] = new[better], reached[better]
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 5.0), 1e-9, 1e9)
        active = active[~done]
        if not len(active):
            break
    return theta


def _weights(of: np.ndarray, sizes: np.ndarray, replicates: int) -> np.ndarray:
    """How often each endpoint (n,) is in each replicate, (replicates, n): `of` numbers its run, runs are drawn with
    replacement, and a draw that lacks all runs of more sizes than a law can spare is drawn again."""
    rng, runs = np.random.default_rng(0), int(of.max()) + 1
    groups = [np.unique(of[sizes == size]) for size in np.unique(sizes)]
    least = min(len(groups), LEAST_SIZES)
    counts = np.empty((0, runs))
    while len(counts) < replicates:
        drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=replicates).astype(float)
        kept = sum((drawn[:, group] > 0).any(axis=1).astype(int) for group in groups) >= least
        counts = np.concatenate([counts, drawn[kept]])
    return counts[:replicates][:, of]


def _held_out(data: _Data) -> HeldOut | None:
    largest = data.params.max()
    rest, held = data.params < largest, data.params == largest
    if lacking(data.params[rest], data.tokens[rest]):
        return None
    small = _Data(data.params[rest], data.tokens[rest], data.loss[rest])
    e, a, b, alpha, beta = small.law(_fit(small)[None])[0]
    errors = data.loss[held] - e - a * largest**-alpha - b * data.tokens[held] ** -beta
    return HeldOut(float(largest), float(errors.mean()), float(np.sqrt((errors**2).mean())), int(held.sum()))


def _decayed(run: Run) -> bool:
    return run.curve is not None and run.decayed


def _rows(runs: list[tuple[Run, Hashable]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Hashable]]:
    """Sizes, tokens and final losses (n,) of runs with curves, and what they are drawn with."""
    found = [(r.params, r.text_tokens, r.curve.final) for r, _ in runs if r.curve]
    params, tokens, loss = np.array(found, float).reshape(-1, 3).T
    return params, tokens, loss, [key for r, key in runs if r.curve]


def _multiplier(law: ScalingFit, runs: list[Run]) -> Multiplier:
    params, tokens, loss, _ = _rows([(r, 0) for r in runs])
    values = law.multiplier(params, tokens, loss)
    finite = np.isfinite(values)
    params, tokens, loss = params[finite], tokens[finite], loss[finite]
    ln = t_interval(np.log(values[finite]))
    value = Interval(*(exp(v) for v in ln))
    with np.errstate(divide="ignore"):
        spread = np.log(data_multiplier(law.bootstrap[:, None], params, tokens, loss)).mean(axis=1) if len(loss) else []
    of_law = _percentiles(value.mean, np.exp(np.minimum(spread, 700.0)) if len(loss) else np.empty(0))
    return Multiplier(
        runs[0].params, float(np.mean([r.text_tokens for r in runs])), value, of_law, len(loss), int((~finite).sum())
    )


def _percentiles(estimate: float, values: np.ndarray) -> Interval:
    """An estimate with the 95 % percentile interval of bootstrap `values` (n,); NaN bounds for none."""
    if not len(values):
        return Interval(estimate, math.nan, math.nan)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))


def _usable(*columns: np.ndarray) -> np.ndarray:
    """Which endpoints (n,) have finite, positive values throughout."""
    rows = np.stack([np.asarray(c, float) for c in columns])
    return np.asarray((np.isfinite(rows) & (rows > 0)).all(axis=0))


def _numbered(names: Iterable[Hashable], kept: np.ndarray) -> np.ndarray:
    """A number for each kept name, equal where names are equal."""
    numbers: dict[Hashable, int] = {}
    found = [numbers.setdefault(name, len(numbers)) for name, keep in zip(names, kept, strict=True) if keep]
    return np.array(found, int)
