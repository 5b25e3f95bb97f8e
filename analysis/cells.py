"""Who is compared with whom: runs, their pairs by seed, and the cells (arm x axes without the seed) they make up."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import numbers
from analysis.frame import axes_of, axis_columns
from analysis.smoothing import Curve, smooth

SAME_BUDGET = 0.01
"""Text budgets that differ by less than this share count as equal."""
DIVERGED_NATS = 0.5
DIVERGED_EVALUATIONS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """A finished point: its text stage measured, and what was spent before it."""

    stage: str
    tokens: np.ndarray
    loss: np.ndarray
    curve: Curve | None
    """Smoothed; None if the run diverged or has too few evaluations."""
    diverged: bool
    text_tokens: int
    flops_per_token: float
    before_tokens: int
    """Tokens of every stage before the text stage (synthetic, or a warm-up's text)."""
    before_flops: int
    """Training FLOPs of those stages plus what generating their tokens took."""
    schedule: str
    """"wsd", "cosine", or either with ", undecayed" if the stage ends before its schedule does."""
    bits_per_nat: float
    """Bits a byte per nat a token on the held-out text; NaN where it has no bytes."""
    machine: tuple[Any, ...]
    """Hardware and thread count: runs of a pair should agree on them."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A treated run and the baseline run that shares its seed and axes; None where one is not finished."""

    seed: Any
    treated: Run | None
    baseline: Run | None

    @property
    def complete(self) -> bool:
        return self.treated is not None and self.baseline is not None


@dataclass(frozen=True, eq=False)
class Cell:
    """An arm at one setting of the axes, with one pair a seed, planned ones included."""

    arm: str
    axes: dict[str, Any]
    pairs: list[Pair]
    differs_in: str

    @property
    def same_budget(self) -> bool:
        """Whether arm and baseline train on equally much text, give or take the flooring to whole steps. If not, one
        of them is mid-schedule where the other ends, and only the ends can be compared."""
        return all(abs(t.text_tokens / b.text_tokens - 1) < SAME_BUDGET for _, t, b in self.finished())

    def finished(self) -> list[tuple[Any, Run, Run]]:
        """(seed, treated, baseline) of the pairs of which both runs finished."""
        return [(p.seed, p.treated, p.baseline) for p in self.pairs if p.treated and p.baseline]

    def readable(self) -> list[tuple[Any, Curve, Curve]]:
        """(seed, treated curve, baseline curve) of the pairs that an estimate can be read from."""
        return [(s, t.curve, b.curve) for s, t, b in self.finished() if t.curve and b.curve]


def cells(frame: pd.DataFrame, plan: dict[str, Any], stages: dict[str, dict[str, Any]]) -> list[Cell]:
    """The cells of every arm but the baseline, in the plan's order; `stages` are manifests by digest."""
    text = frame[frame["phase"] == "pre-training"]
    curves = {
        stage: (rows["tokens"].to_numpy(float), rows["loss_nats"].to_numpy(float))
        for stage, rows in text.drop_duplicates(["stage", "tokens"]).groupby("stage", sort=False)
    }
    points = plan["points"]
    runs: dict[int, Run | None] = {}

    def run(index: int | None) -> Run | None:
        if index is None:
            return None
        if index not in runs:
            runs[index] = _run(plan, points[index], stages, curves)
        return runs[index]

    found: dict[tuple[Any, ...], Cell] = {}
    for index, point in enumerate(points):
        if point["arm"] == plan["baseline"]:
            continue
        axes = axes_of(plan, point)
        seed = axes.pop("seed")
        key = (point["arm"], *axes.values())
        cell = found.setdefault(key, Cell(point["arm"], axes, [], "; ".join(point["differs_in"])))
        cell.pairs.append(Pair(seed, run(index), run(point["baseline"])))
    return list(found.values())


def label(arm: str, axes: dict[str, Any], plan: dict[str, Any]) -> str:
    """The arm and those axes that take more than one value in the study: "nca, band 0.2-0.3"."""
    varying = {axis for axis in axis_columns(plan) if len({str(axes_of(plan, p)[axis]) for p in plan["points"]}) > 1}
    shown = [f"{k} {_short(v)}" for k, v in axes.items() if v is not None and k in varying]
    return ", ".join([arm, *shown])


def _short(value: Any) -> str:
    """3686400 reads better as 3.69M; the tables keep the number."""
    return (
        numbers.tokens(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000
        else str(value)
    )


def diverged(loss: np.ndarray) -> bool:
    """Whether a run's losses (n,), from the one before training on, say that it diverged: one is not finite, the
    last is above the first, or three in a row lie half a nat above the lowest before them."""
    loss = np.asarray(loss, float)
    if not np.isfinite(loss).all() or loss[-1] > loss[0]:
        return True
    high = loss > np.minimum.accumulate(loss) + DIVERGED_NATS
    streak = np.convolve(high, np.ones(DIVERGED_EVALUATIONS), "valid")
    return bool((streak == DIVERGED_EVALUATIONS).any()) if len(high) >= DIVERGED_EVALUATIONS else False


def _run(
    plan: dict[str, Any],
    point: dict[str, Any],
    stages: dict[str, dict[str, Any]],
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
) -> Run | None:
    digest = point["stage"]
    reached = [stages[d] for d in point["chain"] if d in stages]
    bad = any(document["status"] == "diverged" for document in reached)
    if digest not in curves and not bad:
        return None
    # A first stage that diverged leaves a run without a text stage: it is counted, and read as diverged.
    tokens, loss = curves.get(digest, (np.empty(0), np.empty(0)))
    bad = bad or diverged(loss)
    last = reached[-1]
    recipe = last["spec"]["recipe"] if digest in stages else {"schedule": plan["schedule"]}
    horizon = recipe.get("horizon")
    undecayed = horizon is not None and horizon > point["tokens"][-1]
    bits = None if bad else last["held_out"].get("loss_bits_per_byte")
    before = [stages[d] for d in point["chain"][:-1] if d in stages]
    return Run(
        stage=digest,
        tokens=tokens,
        loss=loss,
        curve=None if bad else smooth(tokens, loss),
        diverged=bad,
        text_tokens=point["tokens"][-1],
        flops_per_token=point["flops"][-1] / point["tokens"][-1],
        before_tokens=sum(point["tokens"][:-1]),
        before_flops=sum(point["flops"][:-1]) + sum(d.get("generation_flops", 0) for d in before),
        schedule=recipe["schedule"] + (", undecayed" if undecayed else ""),
        bits_per_nat=bits / last["held_out"]["loss_nats"] if bits else float("nan"),
        machine=(last["hardware"].get("cpu"), last["hardware"].get("gpu"), last["threads"]),
    )
