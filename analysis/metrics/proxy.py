"""Does a small model, or the first part of a run, say which arm is best? And could it, given the noise of seeds?

Values are loss gaps in nats per token, higher is better. Arms are compared by their means over seeds.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis import numbers
from analysis.cells import Cell, Run
from analysis.metrics.seeds import block, complete, joined, linked

SHARES = (0.25, 0.5)
"""Shares of the text budget at which a run is read early."""
SPLITS = 2000
"""Splits of seeds into halves that are looked at; up to twelve seeds these are all there are."""


class Ceiling(NamedTuple):
    """How well means over the seeds at hand are known, from how well halves of the seeds agree."""

    split_half: float
    """Pairwise decision accuracy between the means of two halves of the seeds, over all splits."""
    reliability: float
    """Share of the variance of the arms' means that is not noise, 0 to 1."""
    accuracy: float
    """Pairwise accuracy between these means and the true effects: what a perfect proxy without noise would reach."""


@dataclass(frozen=True, eq=False)
class EarlySignal:
    """A cheap reading of some arms beside the dear one, and how far the first decides as the second does."""

    group: str
    early: str
    late: str
    arms: list[str]
    small: np.ndarray
    """(seeds, arms) nats, read early."""
    large: np.ndarray
    """(seeds', arms) nats, read late."""
    spearman: float
    kendall: float
    """tau-b"""
    accuracy: float
    """Share of pairs of arms that both readings order alike."""
    regret: float
    """What the arm that is best early loses late to the one that is best then, nats."""
    small_ceiling: Ceiling
    large_ceiling: Ceiling
    ceiling: float
    """Accuracy of a perfect proxy with the noise of both readings."""
    reason: str
    """Why there is nothing to say; "" where there is."""
    left_out: int
    """Seeds that some arm lacks, early or late."""


def early_signal(
    small: np.ndarray,
    large: np.ndarray,
    arms: list[str] | None = None,
    group: str = "",
    early: str = "",
    late: str = "",
) -> EarlySignal:
    """How values `small` (seeds, arms) order the arms compared with `large` (seeds', arms). Seeds that lack an arm are
    left out. NaN throughout below two arms or without a seed; a correlation with arms that are all alike is NaN."""
    small, large = np.asarray(small, float), np.asarray(large, float)
    kept = complete(small), complete(large)
    left_out = int((~kept[0]).sum() + (~kept[1]).sum())
    small, large = small[kept[0]], large[kept[1]]
    n = small.shape[1]
    reason = ""
    if n < 2:
        reason = f"{n} arm{'' if n == 1 else 's'}, 2 needed"
    elif not len(small) or not len(large):
        reason = "no seed that every arm has"
    spearman = kendall = accuracy = regret = math.nan
    if not reason:
        a, b = small.mean(axis=0), large.mean(axis=0)
        accuracy, regret = decision_accuracy(a, b), top_regret(a, b)
        if np.ptp(a) > 0 and np.ptp(b) > 0:
            spearman, kendall = float(stats.spearmanr(a, b).statistic), float(stats.kendalltau(a, b).statistic)
    ceilings = noise_ceiling(small), noise_ceiling(large)
    both = accuracy_of(math.sqrt(ceilings[0].reliability * ceilings[1].reliability))
    names = [str(i) for i in range(n)] if arms is None else arms
    return EarlySignal(
        group, early, late, names, small, large, spearman, kendall, accuracy, regret, *ceilings, both, reason, left_out
    )


def decision_accuracy(small: np.ndarray, large: np.ndarray) -> float:
    """Share of pairs of arms that values `small` (..., arms) and `large` (..., arms) order alike, over all leading
    axes. A pair that is equal in `small` counts half; one that is equal in `large` has no right answer and does not
    count. NaN without a pair that does.

    Magnusson, I. et al. (2025), "DataDecide", arXiv 2504.11393.
    """
    i, j = np.triu_indices(np.shape(small)[-1], 1)
    alike = np.sign(small[..., i] - small[..., j]) * np.sign(large[..., i] - large[..., j])
    counts = large[..., i] != large[..., j]
    return float(0.5 + 0.5 * alike[counts].mean()) if counts.any() else math.nan


def top_regret(small: np.ndarray, large: np.ndarray) -> float:
    """Best of `large` (arms,) less what it is for the arm that is best in `small` (arms,), nats; the mean of those
    where several are."""
    return float(large.max() - large[small == small.max()].mean())


def accuracy_of(correlation: float) -> float:
    """Share of pairs that normal variables with this correlation order alike, 1/2 + asin(r) / pi (Sheppard, 1899)."""
    return 0.5 + math.asin(min(max(correlation, -1.0), 1.0)) / math.pi


def noise_ceiling(values: np.ndarray) -> Ceiling:
    """What the noise of seeds leaves to be known of the arms' order, from `values` (seeds, arms). NaN below two seeds
    or arms, or where all arms are alike.

    Halves are of equal size, an odd seed being left out in turn. Their accuracy is turned into a correlation as of
    normal variables, and stepped up from half the seeds to all by the Spearman-Brown formula (Spearman 1910; Brown
    1910), so that it holds as far as effects and noise are near normal.
    """
    seeds, arms = values.shape
    if seeds < 2 or arms < 2:
        return Ceiling(math.nan, math.nan, math.nan)
    first, second = _halves(seeds)
    agreement = decision_accuracy(values[first].mean(axis=1), values[second].mean(axis=1))
    if math.isnan(agreement):
        return Ceiling(math.nan, math.nan, math.nan)
    half = seeds // 2
    of_half = max(math.sin(math.pi * (agreement - 0.5)), 0.0)
    of_one = of_half / (half - (half - 1) * of_half)
    reliability = seeds * of_one / (1 + (seeds - 1) * of_one)
    return Ceiling(agreement, reliability, accuracy_of(math.sqrt(reliability)))


def early_signals(cells: Iterable[Cell]) -> list[EarlySignal]:
    """Every early reading of a study: each smaller model against the largest, and each of SHARES of the text budget
    against all of it. Arms, at whatever setting of the axes, are compared where they share baseline runs, those
    with another text budget than their baseline not at all."""
    members = [c for c in cells if block([c]).cells and c.same_budget]
    return [*_by_size(members), *_by_share(members)]


PROXY_COLUMNS = (
    "group", "early", "late", "n_arms", "n_pairs_early", "n_pairs_late", "n_left_out", "rho", "tau", "decision_acc",
    "regret_nats", "ceiling", "ceiling_early", "ceiling_late", "split_half_early", "split_half_late", "reason",
)  # fmt: skip


def proxy_table(signals: Iterable[EarlySignal]) -> pd.DataFrame:
    """One row per early reading, with PROXY_COLUMNS: Spearman's rho, Kendall's tau-b, pairwise decision accuracy, the
    regret of the early choice, and what accuracy noise allows (of both readings, and of each against the truth)."""
    rows = [
        {
            "group": s.group,
            "early": s.early,
            "late": s.late,
            "n_arms": len(s.arms),
            "n_pairs_early": len(s.small),
            "n_pairs_late": len(s.large),
            "n_left_out": s.left_out,
            "rho": s.spearman,
            "tau": s.kendall,
            "decision_acc": s.accuracy,
            "regret_nats": s.regret,
            "ceiling": s.ceiling,
            "ceiling_early": s.small_ceiling.accuracy,
            "ceiling_late": s.large_ceiling.accuracy,
            "split_half_early": s.small_ceiling.split_half,
            "split_half_late": s.large_ceiling.split_half,
            "reason": s.reason,
        }
        for s in signals
    ]
    return pd.DataFrame(rows, columns=list(PROXY_COLUMNS))


def _by_size(cells: list[Cell]) -> list[EarlySignal]:
    treatments = []
    for _, members in joined(cells, "params"):
        by_size = {c.params: c for c in members}
        if len(by_size) == len(members):  # else another axis moves along with size, and a size is no single cell
            treatments.append(by_size)
    found = []
    for indices in linked([_baselines(by_size[max(by_size)]) for by_size in treatments]):
        own = [treatments[i] for i in indices]
        largest = max(own[0])
        for size in sorted({s for by_size in own for s in by_size if s < largest}):
            both = [(b[size], b[largest]) for b in own if size in b]
            both = [(small, large) for small, large in both if block([small]).cells and block([large]).cells]
            if both:
                early, late = block(small for small, _ in both), block(large for _, large in both)
                signal = early_signal(
                    early.values, late.values, _names([large for _, large in both]), _group(cells, late.cells, False),
                    f"{numbers.tokens(size)} parameters", f"{numbers.tokens(largest)} parameters",
                )  # fmt: skip
                found.append(replace(signal, left_out=early.left_out + late.left_out))
    return found


def _by_share(cells: list[Cell]) -> list[EarlySignal]:
    found = []
    for indices in linked([_baselines(c) for c in cells]):
        for share in SHARES:
            early = block((cells[i] for i in indices), _gap_at(share))
            if early.cells:
                late = block(early.cells)
                same = [seed in early.seeds for seed in late.seeds]
                signal = early_signal(
                    early.values, late.values[same], _names(early.cells), _group(cells, early.cells, True),
                    f"{100 * share:.0f} % of the text", "all of the text",
                )  # fmt: skip
                found.append(replace(signal, left_out=early.left_out))
    return found


def _gap_at(share: float) -> Callable[[Run, Run], float]:
    def read(treated: Run, baseline: Run) -> float:
        if not treated.curve or not baseline.curve:
            return math.nan
        x = baseline.curve.end + math.log(share)
        return float(baseline.curve.at(x) - treated.curve.at(x))

    return read


def _baselines(cell: Cell) -> set[str]:
    return {baseline.stage for _, _, baseline in cell.finished()}


def _names(cells: list[Cell]) -> list[str]:
    """Arm and those axes that differ among `cells`."""
    varying = [a for a in cells[0].axes if len({str(c.axes.get(a)) for c in cells}) > 1]
    shown = [[f"{a} {c.axes[a]}" for a in varying if c.axes.get(a) is not None] for c in cells]
    return [", ".join([c.arm, *parts]) for c, parts in zip(cells, shown, strict=True)]


def _group(everything: list[Cell], own: list[Cell], with_size: bool) -> str:
    """What `own` have in common that not all cells have: the text, and the size."""
    parts = [own[0].domain] if len({c.domain for c in everything}) > 1 else []
    if with_size and len({c.params for c in everything}) > 1:
        parts.append(f"{numbers.tokens(own[0].params)} parameters")
    return ", ".join(parts)


def _halves(seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves (splits, seeds // 2) of the seeds for every way to split them, or for SPLITS random ones."""
    half = seeds // 2
    if math.comb(seeds, half) * math.comb(seeds - half, half) // 2 <= SPLITS:
        splits = [
            (first, second)
            for first in itertools.combinations(range(seeds), half)
            for second in itertools.combinations([s for s in range(seeds) if s not in first], half)
            if first < second
        ]
        return np.array([f for f, _ in splits]), np.array([s for _, s in splits])
    order = np.random.default_rng(0).permuted(np.tile(np.arange(seeds), (SPLITS, 1)), axis=1)
    return order[:, :half], order[:, half : 2 * half]
