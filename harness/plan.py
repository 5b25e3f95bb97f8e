"""The plan of a study: its points, the distinct stages behind them in an order in which they can run, their cost."""

import contextlib
import gc
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import InputError
from harness.reasoning.spec import Evaluate
from harness.reasoning.spec import resolved as resolved_task
from harness.search import Winners
from harness.space import Point, Study
from harness.specs import Stage, State, Train, canonical, differences, digest, parents
from harness.store import Store, create_json, now, write_json
from harness.url import Place, UrlError

POINTS = "points.json"
"""The registered plan of a study."""
SEARCH = "points-search.json"
"""The registered plan of a study's search, beside that of the study."""


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """No search for cycles of garbage meanwhile: a plan of thousands of points makes values that live on and hold no
    cycles, and a quarter of its time would go into looking through them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class Plan:
    """A study worked out: nothing in it depends on where it will run."""

    study: Study
    points: tuple[Point, ...]
    baseline_of: tuple[int | None, ...]
    stages: dict[str, Stage]
    """Distinct stages by digest, parents before children."""
    starts: dict[str, str]
    """The digest of the state that a stage goes on from, by the stage's own digest."""
    winners: Winners | None = None
    """What the study's search found, if it has one."""
    complete: "Plan | None" = None
    """The plan before stages were left out that nothing needs any more; None if none were."""

    @property
    def needs(self) -> dict[str, set[str]]:
        """The digests that must be there before a stage can run, in the order of `stages`."""
        read = {d: {digest(p) for p in parents(stage).values()} for d, stage in self.stages.items()}
        return {d: own | ({self.starts[d]} if d in self.starts else set()) for d, own in read.items()}

    def without(self, done: Iterable[str]) -> "Plan":
        """The plan without states that nothing goes on from any more, when `done` are there."""
        done, used = set(done), set[str]()
        for address in reversed(self.stages):
            if address not in done and (address in used or not isinstance(self.stages[address], State)):
                used |= {self.starts[address]} if address in self.starts else set()
        kept = {d: s for d, s in self.stages.items() if d in used or d in done or not isinstance(s, State)}
        starts = {d: s for d, s in self.starts.items() if d in kept and s in kept}
        return replace(self, stages=kept, starts=starts, complete=self.complete or self)

    def only(self, address: str) -> "Plan":
        """The plan of one stage and what it needs; the points are all there."""
        used, needs = {address}, self.needs
        for d in reversed(self.stages):
            if d in used:
                used |= needs[d]
        kept = {d: s for d, s in self.stages.items() if d in used}
        return replace(self, stages=kept, starts={d: s for d, s in self.starts.items() if d in kept})

    @property
    @without_collector()
    def registered(self) -> dict[str, Any]:
        """What `points.json` says, without the time: the registered plan and its hash."""
        trains = {digest(p.train): p.train for p in self.points}
        trained = {address: _trained(train) for address, train in trains.items()}
        points = [self._point(i, trained) for i in range(len(self.points))]
        search = {} if self.winners is None else {"search": self.winners.registered}
        claims = {"claims": canonical(list(self.study.claims))} if self.study.claims else {}
        said = [points, self.study.sesoi, *search.values(), *claims.values()]
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
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
            **search,
            **claims,
            "points": points,
            "stages": {d: _stage(s) | {"start": self.starts.get(d)} for d, s in self.stages.items()},
        }

    def _point(self, i: int, trained: dict[str, dict[str, Any]]) -> dict[str, Any]:
        point, base = self.points[i], self.baseline_of[i]
        return {
            "arm": point.arm,
            "axes": {k: canonical(v) for k, v in point.axes},
            **trained[digest(point.train)],
            "differs_in": [] if base is None else differences(point.train, self.points[base].train),
            "baseline": base,
            **({"benchmarks": {name: digest(e) for name, e in point.benchmarks}} if self.study.benchmarks else {}),
        }


Revisions = dict[str, dict[str, str]]
"""Commits that were looked up for what left them open (a source, the rows of a task), by its digest."""


@without_collector()
def make(
    study: Study, network: bool = False, revisions: Revisions | None = None, winners: Winners | None = None
) -> Plan:
    """Work `study` out, with the `winners` of its search if it has one; its sources are `resolved`."""
    points = resolved(study.points(winners), network, revisions)
    check_unseen(points)
    baseline_of = study.pairs(points)
    check_arms(study, points, baseline_of)
    return work_out(study, points, baseline_of, winners)


def work_out(
    study: Study, points: Sequence[Point], baseline_of: Sequence[int | None], winners: Winners | None = None
) -> Plan:
    """The plan of resolved `points`."""
    trains, asked = [p.train for p in points], [stage for p in points for _, stage in p.benchmarks]
    stages = distinct_stages([*trains, *asked])
    starts = shared_states(stages.values())
    return Plan(study, tuple(points), tuple(baseline_of), in_order(stages, starts), addresses(starts), winners)


def resolved(points: Iterable[Point], network: bool = False, revisions: Revisions | None = None) -> list[Point]:
    """`points` with sources and tasks that are identified. What lies locally is identified by its content; a hub
    revision that is left open is taken from `revisions` or, with `network`, looked up and added to them."""
    known: dict[Any, Any] = {}
    trains: dict[Any, Train] = {}
    revisions = {} if revisions is None else revisions

    def located(source: Any) -> Any:
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
        # Thousands of points may be one training. Two texts in unlike places have equal digests before their content is
        # known, so what is stored is told apart by its value.
        stored = (each.corpus.source for each in train.chain() if each.corpus.source.stored)
        key = digest(train), *stored
        if key not in trains:
            trains[key] = identified(train)
        return trains[key]

    def identified(train: Train) -> Train:
        source = train.corpus.source
        if source.stored:  # of another, its settings are all of its identity
            source = located(source)
        init = None if train.init is None else resolve(train.init)
        if source is train.corpus.source and init is train.init:
            return train
        return replace(train, corpus=replace(train.corpus, source=source), init=init)

    def asked(stage: Evaluate, train: Train) -> Evaluate:
        return replace(stage, train=train, task=resolved_task(stage.task, located))

    found = []
    for point in points:
        train = resolve(point.train)
        benchmarks = tuple((name, asked(stage, train)) for name, stage in point.benchmarks)
        found.append(replace(point, train=train, benchmarks=benchmarks))
    return found


def check_unseen(points: Iterable[Point]) -> None:
    """Raise InputError where a point is asked what it was tuned on."""
    for point in points:
        for name, stage in point.benchmarks:
            try:
                stage.check_unseen()
            except InputError as e:
                raise InputError(f"{point.label()}: benchmark {name}: {e}") from e


def equal_points(points: Iterable[Point]) -> list[tuple[Point, Point]]:
    """Points that are the same training as one before them, each with the first such."""
    first: dict[str, Point] = {}
    same = [(point, first.setdefault(digest(point.train), point)) for point in points]
    return [(point, other) for point, other in same if point is not other]


def check_arms(study: Study, points: Sequence[Point], baseline_of: Sequence[int | None]) -> None:
    """Raise InputError where an arm is its baseline at every setting, or two arms are each other. Points that coincide
    here and there are left: a grid may hold another arm's setting, and the plan says so."""
    trained: dict[str, set[tuple[str, str]]] = {arm.__name__: set() for arm in study.all_arms}
    differing = {study.baseline.__name__}
    for point, base in zip(points, baseline_of, strict=True):
        trained[point.arm].add((repr(sorted((k, repr(v)) for k, v in point.axes)), digest(point.train)))
        if base is not None and digest(points[base].train) != digest(point.train):
            differing.add(point.arm)
    names = list(trained)
    twins = [[names[0], arm] for arm in names if arm not in differing]
    twins += [[one, other] for i, one in enumerate(names) for other in names[i + 1 :] if trained[one] == trained[other]]
    if twins:
        raise InputError(
            f"Study.arms = {twins[0]!r}: both are the same training at every setting; let them differ, or leave one out"
        )


def distinct_stages(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Every one of `stages` and what they need, once, parents first; of equal ones the first."""
    found: dict[str, Stage] = {}
    for stage in stages:
        found.setdefault(digest(stage), stage)
    return in_order(found, {})


Starts = dict[str, State]
"""The state that a stage goes on from, by the digest of the stage."""


def addresses(starts: Starts) -> dict[str, str]:
    return {address: digest(state) for address, state in starts.items()}


def in_order(stages: dict[str, Stage], starts: Starts) -> dict[str, Stage]:
    """`stages` and all that they need, each once, what is needed first."""
    found: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        address = digest(stage)
        if address not in found:
            for parent in parents(stage).values():
                add(parent)
            if address in starts:
                add(starts[address])
            found[address] = stage

    for stage in stages.values():
        add(stage)
    return found


def shared_states(stages: Iterable[Stage]) -> Starts:
    """Where stages of several budgets begin alike, they go on from states of one training run: each from the state at
    the end of what it shares, and that state from the one before it. A state that one stage alone would use is none."""
    groups: dict[str, dict[int, list[Train]]] = {}
    for stage in stages:
        if isinstance(stage, Train) and stage.shared_steps:
            groups.setdefault(stage.beginning, {}).setdefault(stage.shared_steps, []).append(stage)
    starts: Starts = {}
    for group in groups.values():
        before: State | None = None
        ends = sorted(group)
        for end in ends:
            alone = end == ends[-1] and len(group[end]) == 1
            state = before if alone else group[end][0].state_at(end)
            for train in group[end]:
                if state is not None:
                    starts[digest(train)] = state
            if not alone and state is not None and before is not None:
                starts[digest(state)] = before
            before = state
    return starts


def unresolved(plan: Plan) -> dict[str, Stage]:
    """Sources and evaluations with a revision that is still open, by digest."""
    return {d: s for d, s in plan.stages.items() if not isinstance(s, Train) and s.unresolved}


def register(plan: Plan, store: Store, revisions: Revisions, promise: dict[str, Any] | None = None) -> None:
    """Write the plan down before anything of it runs, with what it was promised to cost. A plan of the same name that
    says something else is kept beside it, each time that it is replaced; one that says the same keeps the promise that
    it has."""
    data = plan.registered | {"registered": now(), "revisions": revisions, "promise": promise}
    write_down(store.study(plan.study.name) / POINTS, data, keep)


def write_down(place: Place, data: dict[str, Any], keep: Callable[[Place, dict[str, Any]], None] | None = None) -> None:
    """Write a registration. One of the same hash stays, with the promise that it has; any other is for `keep` first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        old = json.loads(place.read_text())
        if old["hash"] == data["hash"]:
            if data["promise"] is not None and old.get("promise") is None:
                write_json(place, old | {"promise": data["promise"]})
            return
        if keep is not None:
            keep(place.parent, old)
    write_json(place, data)


def keep(directory: Place, old: dict[str, Any]) -> None:
    """Keep a plan that is replaced under its hash; and under its time too, where one of this hash was kept before: a
    study may be changed to and fro, and each registration is part of the record."""
    name, at = f"points-{old['hash'][:12]}", re.sub(r"\D", "", str(old["registered"])[:19])
    kept = directory / f"{name}.json"
    if not create_json(kept, old) and json.loads(kept.read_text()) != old:
        create_json(directory / f"{name}-{at}.json", old)


def registered_revisions(study: Study, store: Store) -> Revisions:
    """Hub revisions that earlier registrations of `study` and of its search wrote down."""
    found: Revisions = {}
    for name in (SEARCH, POINTS):
        try:
            found |= json.loads((store.study(study.name) / name).read_text())["revisions"]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except UrlError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise InputError(f"{store.study(study.name) / name}: not readable ({e}); remove it to register anew") from e
    return found


def _trained(train: Train) -> dict[str, Any]:
    chain = list(train.chain())
    return {
        "stage": digest(train),
        "chain": [digest(t) for t in chain],
        "tokens": [t.tokens for t in chain],
        "flops": [t.flops for t in chain],
    }


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
    if isinstance(stage, Evaluate) and isinstance(stage.train, Train):
        return f"{stage.name} of {label(stage.train)}"
    if not isinstance(stage, Train):
        return f"{type(stage).__name__.lower()}"
    source = type(stage.corpus.source).__name__
    state = ", state" if isinstance(stage, State) else ""
    return f"{source} {si(stage.tokens)} seed {stage.seed}{_after(stage)}{state}"


def _after(stage: Train) -> str:
    if stage.init is None or stage.transfer is None:
        return ""
    blocks = "" if stage.transfer.blocks == "trained" else f"{stage.transfer.blocks} "
    anew = ", ".join(entry for entry in stage.transfer.reinit if entry != "embeddings")
    without = f" without {anew}" if anew else ""
    return f" after {blocks}{type(stage.init.corpus.source).__name__}{without}{_after(stage.init)}"


def si(value: float) -> str:
    """1234567 -> '1.23M'."""
    for unit, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
