"""The plan of a study: its points, the distinct stages behind them in an order in which they can run, their cost."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import InputError
from harness.space import Point, Study
from harness.specs import Stage, Train, canonical, differences, digest, parents
from harness.store import Store, now, write_json

WEIGHT_BYTES = 4
"""A published weight is a float32."""


@dataclass(frozen=True)
class Plan:
    """A study worked out: nothing in it depends on where it will run."""

    study: Study
    points: tuple[Point, ...]
    baseline_of: tuple[int | None, ...]
    stages: dict[str, Stage]
    """Distinct stages by digest, parents before children."""

    @property
    def registered(self) -> dict[str, Any]:
        """What `points.json` says, without the time: the registered plan and its hash."""
        points = [self._point(i) for i in range(len(self.points))]
        text = json.dumps([points, self.study.sesoi], sort_keys=True, separators=(",", ":"))
        schedules = {p.train.recipe.schedule for p in self.points}
        return {
            "format": 1,
            "study": self.study.name,
            "question": self.study.question.strip(),
            "hash": hashlib.sha256(text.encode()).hexdigest(),
            "baseline": self.study.baseline.__name__,
            "arms": [arm.__name__ for arm in self.study.all_arms],
            "axes": list(self.study.over),
            "sesoi": self.study.sesoi,
            "schedule": schedules.pop() if len(schedules) == 1 else "mixed",
            "points": points,
            "stages": {d: _stage(s) for d, s in self.stages.items()},
        }

    def _point(self, i: int) -> dict[str, Any]:
        point, base = self.points[i], self.baseline_of[i]
        chain = list(point.train.chain())
        return {
            "arm": point.arm,
            "axes": {k: canonical(v) for k, v in point.axes},
            "stage": digest(point.train),
            "chain": [digest(t) for t in chain],
            "tokens": [t.tokens for t in chain],
            "flops": [t.flops for t in chain],
            "differs_in": [] if base is None else differences(point.train, self.points[base].train),
            "baseline": base,
        }


Revisions = dict[str, dict[str, str]]
"""Commits that were looked up for a source that left them open, by the digest of that source."""


def make(study: Study, network: bool = False, revisions: Revisions | None = None) -> Plan:
    """Work `study` out. Local text is identified by its content; a hub revision that the study leaves open is taken
    from `revisions` or, with `network`, looked up and added to them."""
    known: dict[Any, Any] = {}
    revisions = {} if revisions is None else revisions

    def source_of(source: Any) -> Any:
        if not source.stored:
            return source  # its settings are all of its identity
        if source not in known:
            found = source
            if source.unresolved and digest(source) in revisions:
                found = source.with_revisions(revisions[digest(source)])
            found = found.resolved(network)
            if source.unresolved and not found.unresolved:
                revisions[digest(source)] = found.revisions
            known[source] = found
        return known[source]

    def resolve(train: Train) -> Train:
        source = source_of(train.corpus.source)
        init = None if train.init is None else resolve(train.init)
        if source is train.corpus.source and init is train.init:
            return train
        return replace(train, corpus=replace(train.corpus, source=source), init=init)

    points = tuple(replace(p, train=resolve(p.train)) for p in study.points())
    return Plan(study, points, tuple(study.pairs(points)), distinct_stages(p.train for p in points))


def distinct_stages(trains: Iterable[Stage]) -> dict[str, Stage]:
    """Every stage that `trains` need, once, parents first."""
    found: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        address = digest(stage)
        if address not in found:
            for parent in parents(stage).values():
                add(parent)
            found[address] = stage

    for train in trains:
        add(train)
    return found


def unresolved(plan: Plan) -> dict[str, Stage]:
    """Sources whose revision is still open, by digest."""
    return {d: s for d, s in plan.stages.items() if not isinstance(s, Train) and s.unresolved}


def register(plan: Plan, store: Store, revisions: Revisions) -> None:
    """Write the plan down before anything of it runs. A plan of the same name that says something else is kept beside
    it under its hash."""
    directory = store.study(plan.study.name)
    directory.mkdir(parents=True, exist_ok=True)
    place = directory / "points.json"
    data = plan.registered | {"registered": now(), "revisions": revisions}
    if place.exists():
        old = json.loads(place.read_text())
        if old["hash"] == data["hash"]:
            return
        place.rename(directory / f"points-{old['hash'][:12]}.json")
    write_json(place, data)


def registered_revisions(study: Study, store: Store) -> Revisions:
    """Hub revisions that an earlier registration of `study` wrote down."""
    try:
        return json.loads((store.study(study.name) / "points.json").read_text())["revisions"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{store.study(study.name) / 'points.json'}: not readable ({e}); remove it to register anew"
        ) from e


def _stage(stage: Stage) -> dict[str, Any]:
    train = isinstance(stage, Train)
    return {
        "kind": type(stage).__name__,
        "label": label(stage),
        "tokens": stage.tokens if train else 0,
        "flops": stage.flops if train else 0,
        "parents": {role: digest(p) for role, p in parents(stage).items()},
        "spec": canonical(stage),
    }


def label(stage: Stage) -> str:
    """A few words for people."""
    if not isinstance(stage, Train):
        return f"{type(stage).__name__.lower()}"
    source = type(stage.corpus.source).__name__
    after = ""
    if stage.init is not None and stage.transfer is not None:
        blocks = "" if stage.transfer.blocks == "trained" else f"{stage.transfer.blocks} "
        anew = ", ".join(entry for entry in stage.transfer.reinit if entry != "embeddings")
        after = f" after {blocks}{type(stage.init.corpus.source).__name__}" + (f" without {anew}" if anew else "")
    return f"{source} {si(stage.tokens)} seed {stage.seed}{after}"


@dataclass(frozen=True)
class Cost:
    """Tokens, training FLOPs and published bytes."""

    tokens: int
    flops: int
    bytes: int


def cost(stages: Iterable[Stage]) -> Cost:
    """What `stages` cost, each run once; of what they publish the weights are counted."""
    tokens = flops = size = 0
    for stage in stages:
        if isinstance(stage, Train):
            tokens += stage.tokens
            flops += stage.flops
            size += WEIGHT_BYTES * stage.model.params(stage.vocab_size)
    return Cost(tokens, flops, size)


def alone(plan: Plan) -> Cost:
    """What it would cost to run every cell by itself: each arm's point with its whole chain and a baseline of its
    own."""
    cells: list[Stage] = []
    for point, base in zip(plan.points, plan.baseline_of, strict=True):
        if base is not None:
            cells += [*point.train.chain(), *plan.points[base].train.chain()]
    return cost(cells)


def si(value: float) -> str:
    """1234567 -> '1.23M'."""
    for unit, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
