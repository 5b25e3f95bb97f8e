"""The search of a study worked out, and its winners: `<store>/searches/<hash>/winners.json` holds every trial."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from harness import plan as plans
from harness.axes import at_edge
from harness.errors import InputError
from harness.outcome import Outcome
from harness.plan import Plan, Revisions
from harness.search import Cell, Search, Winners
from harness.space import Study, Trial
from harness.specs import canonical, canonical_json, digest
from harness.store import Store, create_json, now
from harness.url import Place, UrlError

FORMAT = 1


@dataclass(frozen=True)
class Tuning:
    """The search of a study, worked out: nothing in it depends on where it will run."""

    study: Study
    search: Search
    trials: tuple[Trial, ...]
    """With a `search_alg`, which settles as it goes what is tried: as many trials of the same cost."""
    plan: Plan
    """Of all trials' stages."""

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of what is tried, by digests of stages, and of how it is chosen."""
        search = self.search
        identity = {
            "format": FORMAT,
            "trials": [[canonical(t.cell), t.setting, t.seed, digest(t.point.train)] for t in self.trials],
            "over": described(search.over),
            "search_alg": described(search.search_alg),
            "scheduler": described(search.scheduler),
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    @property
    def cells(self) -> dict[Cell, list[Trial]]:
        """The trials of every cell."""
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(canonical_json(trial.cell), []).append(trial)
        return {trials[0].cell: trials for trials in found.values()}


class Told(NamedTuple):
    """What became of a trial."""

    status: Literal["finished", "diverged", "cut", "failed"]
    """`cut`: stopped by the scheduler."""
    loss_nats: float | None = None
    """Held out, at the end of the last stage or where it was cut."""
    tokens: int | None = None
    """Of the last stage, when that loss was measured."""
    why: str | None = None
    """It failed."""


def work_out(study: Study, network: bool = False, revisions: Revisions | None = None) -> Tuning | None:
    """The search of `study`, if it has one."""
    if study.search is None:
        return None
    trials = study.trials()
    points = plans.resolved((trial.point for trial in trials), network, revisions)
    plan = plans.work_out(replace(study, name=f"{study.name}-search"), points, [None] * len(points))
    told = tuple(replace(trial, point=point) for trial, point in zip(trials, points, strict=True))
    return Tuning(study, study.search, told, plan)


def described(value: Any, depth: int = 8) -> Any:
    """A Tune object (search space, searcher, scheduler) that has done nothing yet, as plain data: its class and
    settings, to a `depth` that ends where objects know each other."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, list | tuple):
        return [described(v, depth - 1) for v in value]
    if isinstance(value, set | frozenset):
        return sorted((described(v, depth - 1) for v in value), key=canonical_json)
    if isinstance(value, Mapping):
        return {str(k): described(v, depth - 1) for k, v in value.items()}
    name = getattr(value, "__qualname__", None)
    if name is not None:  # a function or a class
        return f"{value.__module__}.{name}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth < 1:
        return kind
    return {"class": kind, **{k: described(v, depth - 1) for k, v in sorted(getattr(value, "__dict__", {}).items())}}


def stored(trial: Trial, store: Store) -> Told | None:
    """What the store says of a trial; None if it is not done."""
    told = None
    for stage in trial.point.train.chain():
        manifest = store.manifest(digest(stage))
        told = None
        if manifest is not None and manifest["status"] != "finished":
            return Told("diverged")
        if manifest is not None:
            told = Told("finished", manifest["held_out"]["loss_nats"], manifest["tokens"])
    return told


def gather(tuning: Tuning, store: Store, outcome: Outcome) -> list[tuple[Trial, Told]]:
    """What became of every trial of a plain search that ran as stages of a plan."""
    results = []
    for trial in tuning.trials:
        stages = (digest(stage) for stage in reversed(list(trial.point.train.chain())))
        why = next(
            (outcome.failed[address] for address in stages if address in outcome.failed), "a stage it needs failed"
        )
        results.append((trial, stored(trial, store) or Told("failed", why=why)))
    return results


def address(tuning: Tuning, store: Store) -> Place:
    return store.search(tuning.hash) / "winners.json"


def register(tuning: Tuning, store: Store, revisions: Revisions, promise: dict[str, Any] | None = None) -> None:
    """Write the search down, as a plan, before anything of it runs, with what it was promised to cost; one that goes on
    keeps the promise that it has."""
    data = tuning.plan.registered | {
        "hash": tuning.hash,
        "registered": now(),
        "revisions": revisions,
        "promise": promise,
    }
    plans.write_down(store.study(tuning.study.name) / plans.SEARCH, data)


def conclude(tuning: Tuning, results: Sequence[tuple[Trial, Told]], store: Store) -> dict[str, Any]:
    """Choose the winner of every cell from `results`, and write all of it down. Returns what was written, which may be
    what another driver found first: trials of an adaptive search need not come out alike, and there is one winner.

    Raises InputError where no setting of a cell finished on every seed.
    """
    by_cell: dict[str, list[tuple[Trial, Told]]] = {canonical_json(cell): [] for cell in tuning.cells}
    for trial, told in results:
        by_cell[canonical_json(trial.cell)].append((trial, told))
    search = tuning.search
    record = {
        "format": FORMAT,
        "hash": tuning.hash,
        "study": tuning.study.name,
        "over": described(search.over),
        "seeds": list(search.seeds),
        "trials": max(len(trials) for trials in tuning.cells.values()),
        "tokens": search.tokens,
        "at": canonical(dict(search.at)),
        "search_alg": described(search.search_alg),
        "scheduler": described(search.scheduler),
        "finished": now(),
        "cells": [_choose(cell, by_cell[canonical_json(cell)], search) for cell in tuning.cells],
    }
    place = address(tuning, store)
    place.parent.mkdir(parents=True, exist_ok=True)
    return record if create_json(place, record) else json.loads(place.read_text())


def _choose(cell: Cell, results: Sequence[tuple[Trial, Told]], search: Search) -> dict[str, Any]:
    losses: dict[str, list[float]] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    for trial, told in results:
        key = canonical_json(trial.setting)
        settings.setdefault(key, trial.setting)
        loss = told.loss_nats if told.status == "finished" else None
        losses.setdefault(key, []).append(math.inf if loss is None else loss)
    means = {key: sum(each) / len(each) for key, each in losses.items()}
    best = min(means, key=lambda key: means[key])  # the first of equals
    if means[best] == math.inf:
        became = ", ".join(told.status for _, told in results)
        raise InputError(f"search of {cell.label()}: no setting finished ({became}); search over other values")
    return {
        "arm": cell.arm,
        "axes": {name: canonical(value) for name, value in cell.axes},
        "best": dict(settings[best]),
        "loss_nats": means[best],
        "at_edge": [name for name, value in settings[best].items() if at_edge(search.over[name], value)],
        "trials": [
            {
                "setting": dict(trial.setting),
                "seed": trial.seed,
                "stage": digest(trial.point.train),
                **told._asdict(),
            }
            for trial, told in results
        ],
    }


def read(tuning: Tuning, store: Store) -> dict[str, Any] | None:
    """What was written of this search; None if it has not ended."""
    place = address(tuning, store)
    try:
        return json.loads(place.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UrlError:
        raise
    except (OSError, ValueError) as e:
        raise InputError(f"{place}: not readable ({e}); remove it to search anew") from e


def found(tuning: Tuning, store: Store) -> Winners | None:
    """The winners of a search that has ended."""
    record = read(tuning, store)
    if record is None:
        return None
    cells = list(tuning.cells)  # in the order of the record
    told = zip(cells, record["cells"], strict=True)
    return Winners(
        {canonical_json(cell): each["best"] for cell, each in told},
        {
            **{name: record[name] for name in ("hash", "seeds", "trials", "tokens", "search_alg", "scheduler")},
            "winners": [{name: each[name] for name in ("arm", "axes", "best", "at_edge")} for each in record["cells"]],
        },
    )


def table(record: Mapping[str, Any]) -> str:
    """The winners for people, a line a cell."""
    lines = []
    for cell in record["cells"]:
        name = " ".join([cell["arm"], *(f"{k}={v}" for k, v in cell["axes"].items())])
        best = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in cell["best"].items())
        became = [trial["status"] for trial in cell["trials"]]
        lost = "".join(f", {became.count(s)} {s}" for s in ("cut", "diverged") if s in became)
        edge = f"  ({', '.join(cell['at_edge'])} at the edge: widen)" if cell["at_edge"] else ""
        lines.append(f"  {name:<28} {best:<20} {cell['loss_nats']:.4f} nats of {len(became)} trials{lost}{edge}")
    return "\n".join(lines)
