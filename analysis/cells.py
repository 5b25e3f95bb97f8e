"""Who is compared with whom: runs, their pairs by seed, and the cells (arm x axes without the seed) they make up."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import numbers
from analysis.frame import axes_of, axis_column, axis_columns
from analysis.metrics.smoothing import Curve, smooth
from analysis.trials import domain

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
    """"wsd", "cosine" or "constant", with ", undecayed" if the stage ends before its schedule does."""
    bits_per_nat: float
    """Bits a byte per nat a token on the held-out text; NaN where it has no bytes."""
    machine: tuple[Any, ...]
    """Hardware and thread count: runs of a pair should agree on them."""
    domain: str
    """Name of the text."""
    tokenizer: str
    """Digest of what turns the text into tokens."""
    validation: str
    """Digest of the held-out sequences: losses on unlike ones do not compare."""
    params: int
    """Parameters of the body, without embeddings and head."""
    complexity: float
    """Mean gzip ratio of what the first stage was trained on, as measured; NaN where it was not."""
    bits_per_byte: float
    """Held-out bits a byte at the end; NaN where the text has no bytes."""
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Manifests of its finished evaluations by benchmark."""

    @property
    def decayed(self) -> bool:
        """Whether it ends with its learning rate decayed, so that its end compares with those of other budgets."""
        return not {"undecayed", "constant"} & {*self.schedule.split(", ")}


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
    horizons: int = 1
    """Text budgets, each trained to the end of its schedule, that its curves lie across; 1 for curves of one run."""
    benchmarks: list[str] = field(default_factory=list)
    """Names of what its runs are, or are to be, evaluated on."""

    @property
    def unlike(self) -> str:
        """Why losses of the two sides cannot be compared: "tokenizers", "validation sets", or ""."""
        both = [(t, b) for _, t, b in self.finished()]
        if any(t.tokenizer != b.tokenizer for t, b in both):
            return "tokenizers"
        return "validation sets" if any(t.validation != b.validation for t, b in both) else ""

    @property
    def sets(self) -> str:
        """Digests of what the two sides are measured with: held-out sequences, or tokenizers where those differ."""
        kind = "tokenizer" if self.unlike == "tokenizers" else "validation"
        both = {getattr(run, kind) for _, t, b in self.finished() for run in (t, b)}
        return " / ".join(sorted(both))

    @property
    def domain(self) -> str:
        """Name of the text that the arm is trained on; "" while no pair is finished."""
        return next((t.domain for _, t, _ in self.finished()), "")

    @property
    def params(self) -> float:
        """Parameters of the body; NaN while no pair is finished."""
        return self._mean(lambda run: run.params)

    @property
    def complexity(self) -> float:
        """Measured gzip ratio of the first stage's data; NaN where there is none."""
        return self._mean(lambda run: run.complexity)

    @property
    def syn_tokens(self) -> float:
        """Tokens of the stages before the text; NaN while no pair is finished."""
        return self._mean(lambda run: run.before_tokens)

    @property
    def text_tokens(self) -> float:
        """Text tokens of the arm; NaN while no pair is finished."""
        return self._mean(lambda run: run.text_tokens)

    def _mean(self, facet: Callable[[Run], float]) -> float:
        values = [facet(t) for _, t, _ in self.finished()]
        return sum(values) / len(values) if values else math.nan

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
        if self.unlike:
            return []
        return [(s, t.curve, b.curve) for s, t, b in self.finished() if t.curve and b.curve]


def cells(
    frame: pd.DataFrame, plan: dict[str, Any], stages: dict[str, dict[str, Any]], against: str | None = None
) -> list[Cell]:
    """The cells of every arm but `against`, in the plan's order; `stages` are manifests by digest.

    `against` is an arm, the study's baseline unless given. A pair is two points that agree on every axis that both
    arms name, the seed among them; axes that only `against` names make a cell each.
    """
    text = frame[frame["phase"] == "pre-training"]
    curves = {
        stage: (rows["tokens"].to_numpy(float), rows["loss_nats"].to_numpy(float))
        for stage, rows in text.drop_duplicates(["stage", "tokens"]).groupby("stage", sort=False)
    }
    points = plan["points"]
    other = plan["baseline"] if against is None else against
    partners = _partners(points, other)
    runs: dict[int, Run | None] = {}

    def run(index: int | None) -> Run | None:
        if index is None:
            return None
        if index not in runs:
            runs[index] = _run(plan, points[index], stages, curves)
        return runs[index]

    found: dict[tuple[Any, ...], Cell] = {}
    for index, point in enumerate(points):
        if point["arm"] == other:
            continue
        for partner in partners(index):
            both = {**points[partner]["axes"], **point["axes"]} if partner is not None else point["axes"]
            axes = axes_of(plan, {"axes": both})
            seed = axes.pop("seed")
            key = (point["arm"], *axes.values())
            differs = point["differs_in"] if against is None else []
            cell = found.setdefault(key, Cell(point["arm"], axes, [], "; ".join(differs)))
            cell.benchmarks.extend(b for b in sorted(point.get("benchmarks") or {}) if b not in cell.benchmarks)
            cell.pairs.append(Pair(seed, run(index), run(partner)))
    return list(found.values())


def _partners(points: list[dict[str, Any]], against: str) -> Callable[[int], list[int | None]]:
    """For the number of a point those of `against` that agree with it on the axes that both name; [None] for none."""
    others = [(i, p["axes"]) for i, p in enumerate(points) if p["arm"] == against]
    tables: dict[tuple[str, ...], dict[str, list[int | None]]] = {}

    def find(index: int) -> list[int | None]:
        axes = points[index]["axes"]
        shared = tuple(sorted(set(axes) & set(others[0][1]))) if others else ()
        if shared not in tables:
            tables[shared] = {}
            for i, their in others:
                tables[shared].setdefault(_canonical([their[a] for a in shared]), []).append(i)
        return tables[shared].get(_canonical([axes[a] for a in shared]), [None])

    return find


Facet = Literal["domain", "params", "complexity", "syn_tokens", "text_tokens"]
"""A measured property of cells that an axis of a study may move, whatever the axis is called."""


def groups(cells: Iterable[Cell], along: Facet) -> list[tuple[str, list[Cell]]]:
    """Cells of an arm that agree on every axis but those that move `along`, in its order, each with what the group is
    called. Only groups with at least two distinct values; other facets but `domain` may move with those axes."""
    by_arm: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.finished() and getattr(cell, along) == getattr(cell, along):  # not NaN
            by_arm.setdefault(cell.arm, []).append(cell)
    found = []
    for arm, members in by_arm.items():
        moving = _moving(members, along)
        sets: dict[str, list[Cell]] = {}
        for cell in members:
            fixed = {a: v for a, v in cell.axes.items() if a not in moving}
            key = _canonical([fixed, "" if along == "domain" else cell.domain])
            sets.setdefault(key, []).append(cell)
        varying = [a for a in members[0].axes if a not in moving and len({str(c.axes[a]) for c in members}) > 1]
        for group in sets.values():
            if len({_place(cell, along) for cell in group}) > 1:
                named = [f"{a} {_short(group[0].axes[a])}" for a in varying if group[0].axes[a] is not None]
                found.append((", ".join([arm, *named]), sorted(group, key=lambda c: getattr(c, along))))
    return found


def _place(cell: Cell, along: Facet) -> Any:
    """Where a cell lies along a facet. A measured complexity counts to two decimals: below that it is the sample of
    rules that differs, not the band."""
    return round(cell.complexity, 2) if along == "complexity" else getattr(cell, along)


def _moving(cells: list[Cell], along: Facet) -> set[str]:
    """Axes of which a change alone changes the facet."""
    moving = set()
    for axis in cells[0].axes:
        values: dict[str, set[Any]] = {}
        for cell in cells:
            rest = _canonical({a: v for a, v in cell.axes.items() if a != axis})
            values.setdefault(rest, set()).add(_place(cell, along))
        if any(len(v) > 1 for v in values.values()):
            moving.add(axis)
    return moving


def label(arm: str, axes: dict[str, Any], plan: dict[str, Any]) -> str:
    """The arm and those axes that take more than one value in the study: "nca, band 0.2-0.3"."""
    return labeller(plan)(arm, axes)


def labeller(plan: dict[str, Any]) -> Callable[[str, dict[str, Any]], str]:
    """`label` for many cells of one study."""
    names = {axis_column(axis): axis for axis in plan["axes"]}
    values: dict[str, set[str]] = {}
    for point in plan["points"]:
        for axis, value in axes_of(plan, point).items():
            values.setdefault(axis, set()).add(str(value))
    varying = {axis for axis in axis_columns(plan) if len(values.get(axis, ())) > 1}

    def name(arm: str, axes: dict[str, Any]) -> str:
        shown = [f"{names.get(k, k)} {_short(v)}" for k, v in axes.items() if v is not None and k in varying]
        return ", ".join([arm, *shown])

    return name


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
    spec = last["spec"]
    source = (spec.get("corpus") or {}).get("source") or {}
    scores = [d["complexity"] for d in before if d.get("complexity") is not None]
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
        domain=domain(source),
        tokenizer=_digest(source.get("tokenizer")),
        validation=_digest([source, _windows(spec)]),
        params=int(last.get("params_body", last.get("params", 0))),
        complexity=scores[0] if scores else math.nan,
        bits_per_byte=bits or math.nan,
        benchmarks={name: stages[d] for name, d in (point.get("benchmarks") or {}).items() if d in stages},
    )


def _windows(spec: dict[str, Any]) -> list[Any]:
    """What decides which held-out sequences a stage is measured on, beside its source."""
    evaluation = spec.get("evaluation") or {}
    return [evaluation.get("sequences"), evaluation.get("skip"), (spec.get("model") or {}).get("context")]


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:12]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
