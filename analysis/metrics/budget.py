"""What one more token before the text is worth: the marginal rate of substitution, and effective data transferred.

Losses are in nats per token, tokens are counted. The seed is the only unit of replication.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from analysis.cells import SAME_BUDGET, Cell, Run
from analysis.metrics.intervals import t_interval
from analysis.metrics.seeds import block, joined
from analysis.metrics.smoothing import Curve
from analysis.metrics.speedup import read_pair

FIT_FROM = 0.1
"""Share of a run's tokens from which on a power law is fitted to its curve: the start follows none."""
EXPONENTS = (0.01, 3.0)


def mrs_marginal(tokens: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """Text tokens that a further token before the text saves, (seeds, k - 1), from the text tokens (seeds, k) that a
    run needs for the baseline's final loss after `budgets` (k,) ascending tokens: -(T(B') - T(B)) / (B' - B). NaN
    between equal budgets."""
    step = np.diff(np.asarray(budgets, float))
    return -np.diff(np.asarray(tokens, float), axis=1) / np.where(step > 0, step, np.nan)


def tokens_needed(treated: Run, baseline: Run) -> float:
    """Text tokens that the treated run needs for the baseline's final loss, by the headline's signed speedup: where it
    never comes so low, its text times how many times as fast the baseline reached its final loss."""
    if not treated.curve or not baseline.curve:
        return math.nan
    return baseline.text_tokens * math.exp(-read_pair(baseline.curve, treated.curve).ln_speedup)


MRS_COLUMNS = (
    "arm", "group", "syn_tokens_from", "syn_tokens_to", "mrs", "mrs_lo", "mrs_hi", "n_pairs", "n_left_out",
    "n_not_reached", "n_left_censored",
)  # fmt: skip


def mrs_table(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row per two neighbouring budgets of cells that differ in tokens before the text alone, with MRS_COLUMNS. The
    first step is from no such tokens, where the baseline's own text is what is needed.

    `n_pairs` counts seeds, `n_left_out` seeds that some budget lacks. Of the seeds of a row `n_not_reached` have a
    budget at which the baseline's final loss is never reached, `n_left_censored` one at which it already was at the
    first evaluation. Cells without the baseline's text budget are not read.
    """
    rows: list[dict[str, Any]] = []
    for group, members in joined(cells, "syn_tokens"):
        fit = sorted((c for c in members if c.same_budget), key=lambda c: c.syn_tokens)
        found = block(fit, tokens_needed)
        if not found.cells or not found.seeds:
            continue
        budgets = np.array([c.syn_tokens for c in found.cells])
        tokens, reverse, censored = found.values, *_flags(found.cells, found.seeds)
        if budgets[0] > 0:
            text = {s: float(b.text_tokens) for s, _, b in found.cells[0].finished()}
            budgets = np.r_[0.0, budgets]
            tokens = np.column_stack([[text[s] for s in found.seeds], tokens])
            reverse, censored = (np.pad(f, ((0, 0), (1, 0))) for f in (reverse, censored))
        for k, values in enumerate(mrs_marginal(tokens, budgets).T):
            mean, low, high = t_interval(values)
            rows.append(
                {
                    "arm": members[0].arm,
                    "group": group,
                    "syn_tokens_from": budgets[k],
                    "syn_tokens_to": budgets[k + 1],
                    "mrs": mean,
                    "mrs_lo": low,
                    "mrs_hi": high,
                    "n_pairs": len(values),
                    "n_left_out": found.left_out,
                    "n_not_reached": int(reverse[:, k : k + 2].any(axis=1).sum()),
                    "n_left_censored": int(censored[:, k : k + 2].any(axis=1).sum()),
                }
            )
    return pd.DataFrame(rows, columns=list(MRS_COLUMNS))


class PowerLaw(NamedTuple):
    """loss = floor + scale * (tokens / end)^-exponent, with `end` the tokens of the run that it was fitted to."""

    floor: float
    scale: float
    exponent: float
    end: float

    def tokens(self, loss: float) -> float:
        """Tokens at which the law has `loss` nats; infinite at or below its floor."""
        if not loss > self.floor:
            return math.inf
        ln = math.log(self.end) - math.log((loss - self.floor) / self.scale) / self.exponent
        return math.exp(ln) if ln < 700 else math.inf


def power_law(curve: Curve) -> PowerLaw | None:
    """The least-squares power law above a floor of a smoothed curve, from a tenth of its tokens on; None where the loss
    does not fall."""
    late = curve.x >= curve.end + math.log(FIT_FROM)
    u, loss = curve.x[late] - curve.end, curve.loss[late]
    if not np.isfinite(loss).all() or len(loss) < 3:
        return None

    def linear(exponent: float) -> tuple[float, float, float]:
        """Floor, scale and sum of squares at an exponent: the rest of the law is linear."""
        basis = np.exp(-exponent * u)
        centred = basis - basis.mean()
        scale = float(centred @ loss / (centred @ centred))
        floor = max(float(loss.mean() - scale * basis.mean()), 0.0)
        if floor == 0:
            scale = float(basis @ loss / (basis @ basis))
        return floor, scale, float(((loss - floor - scale * basis) ** 2).sum())

    grid = np.geomspace(*EXPONENTS, 40)
    best = int(np.argmin([linear(b)[2] for b in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    exponent = float(
        minimize_scalar(lambda b: linear(b)[2], bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    )
    floor, scale, _ = linear(exponent)
    return PowerLaw(floor, scale, exponent, math.exp(curve.end)) if scale > 0 else None


class Transferred(NamedTuple):
    """Text tokens that what came before the text was worth, and whether that lies beyond the baseline's data."""

    tokens: float
    extrapolated: bool


def data_transferred(baseline_longer: Curve, treated: Curve) -> Transferred:
    """Effective data transferred, D_T = T_b(L_t(D)) - D: the text that a run from scratch needs for the treated run's
    final loss, less the text D that this had.

    Hernandez, D. et al. (2021), "Scaling laws for transfer", arXiv 2102.01293. Where the baseline, which may have been
    trained for longer, never comes so low, its power law is read instead and `extrapolated` is True: infinite if that
    has its floor above, NaN without one. NaN if the baseline was that low at its first evaluation, unseen.
    """
    text = math.exp(treated.end)
    crossing, censored = baseline_longer.first_crossing(treated.final)
    if censored or not math.isfinite(treated.final):
        return Transferred(math.nan, False)
    if not math.isnan(crossing):
        return Transferred(math.exp(crossing) - text, False)
    law = power_law(baseline_longer)
    return Transferred(law.tokens(treated.final) - text if law else math.nan, True)


TRANSFER_COLUMNS = (
    "arm", "label", "d_t_tokens", "d_t_tokens_lo", "d_t_tokens_hi", "d_t_extrapolated", "n_pairs", "n_extrapolated",
    "n_unread", "baseline_text_tokens",
)  # fmt: skip


def transfer_table(cells: Iterable[Cell], labels: Iterable[str]) -> pd.DataFrame:
    """One row per cell that had tokens before its text, with TRANSFER_COLUMNS; `labels` name the cells.

    The baseline of a pair is the longest run without tokens before its text that is compared with the same baseline
    run, or that run itself. `d_t_extrapolated` if any seed's is: then it is no ground for a verdict. `n_unread` seeds
    have no finite value and are in no mean.
    """
    members = list(cells)
    longer: dict[str, Run] = {}
    for cell in members:
        for _, run, baseline in cell.finished():
            best = longer.get(baseline.stage, baseline)
            if run.before_tokens == 0 and run.curve and run.text_tokens > best.text_tokens * (1 + SAME_BUDGET):
                longer[baseline.stage] = run
    rows = []
    for cell, name in zip(members, labels, strict=True):
        read, texts = [], []
        for _, treated, baseline in [] if cell.unlike else cell.finished():
            scratch = longer.get(baseline.stage, baseline)
            if treated.before_tokens and treated.curve and scratch.curve:
                read.append(data_transferred(scratch.curve, treated.curve))
                texts.append(scratch.text_tokens)
        if not read:
            continue
        finite = [r for r in read if math.isfinite(r.tokens)]
        mean, low, high = t_interval([r.tokens for r in finite])
        rows.append(
            {
                "arm": cell.arm,
                "label": name,
                "d_t_tokens": mean,
                "d_t_tokens_lo": low,
                "d_t_tokens_hi": high,
                "d_t_extrapolated": any(r.extrapolated for r in read),
                "n_pairs": len(finite),
                "n_extrapolated": sum(r.extrapolated for r in read),
                "n_unread": len(read) - len(finite),
                "baseline_text_tokens": float(np.mean(texts)),
            }
        )
    return pd.DataFrame(rows, columns=list(TRANSFER_COLUMNS))


def _flags(cells: list[Cell], seeds: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Whether the reading of a seed and cell is in reverse, and whether it is left-censored; both (seeds, cells)."""
    readings = [{s: read_pair(b, t) for s, t, b in cell.readable()} for cell in cells]
    reverse = [[r[s].direction == "reverse" for r in readings] for s in seeds]
    return np.array(reverse), np.array([[r[s].left_censored for r in readings] for s in seeds])
