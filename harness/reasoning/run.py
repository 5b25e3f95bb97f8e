"""From an `Evaluate` to its artifact in the store: `samples.jsonl`, a line a problem, and scores in the manifest.

The same on Ray's workers and in this process; only who answers the shards of the problems differs. Shards that are done
lie in the store's resume directory, so that a run that was cut off goes on with the others.
"""

import contextlib
import datetime
import json
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from harness.errors import require
from harness.progress import Count, Teller, counting
from harness.reasoning import lm_eval_engine, seen
from harness.reasoning.shards import Shard, answer_here, cut, kept
from harness.reasoning.spec import Asking, Evaluate, Means
from harness.specs import canonical, digest, parents
from harness.stages import header
from harness.store import Store, write_json
from harness.worker import Stopped

SAMPLES = "samples.jsonl"
STUDY = "evaluations"
"""The name under which evaluations that belong to no study are registered."""

Answer = Callable[[Evaluate, Sequence[Shard], Store, Means], Generator[int, None, None]]
"""Answers the shards that are left and keeps them, one by one, in the stage's resume directory. Now and then it gives
the number of problems that were answered since it last did, which may be 0."""


class Executor(NamedTuple):
    """Who answers."""

    name: str = "in_process"
    answer: Answer = answer_here
    world: int = 1
    """Processes at once."""


def evaluate(
    stage: Evaluate,
    store: Store,
    means: Means | None = None,
    progress: Count = lambda done, of: None,
    by: Executor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run `stage`, whose training stage is in `store`, and publish it. Returns the manifest, also of one that is there.

    Calls `progress(problems done, problems)`. Raises InputError where `check` does, where data or stage are missing or
    damaged, and where the stage was tuned on all of the problems; Stopped when `stop` says so."""
    means, by = means or Means(), by or Executor()
    if (found := store.manifest(digest(stage))) is not None:
        return found
    check(stage, means)
    stage = stage.resolved()
    address, started, clock = digest(stage), datetime.datetime.now(datetime.UTC), time.perf_counter()
    if (found := store.manifest(address)) is not None:
        return found
    stage.check_unseen()
    problems = stage.task.read(stage.shots, stage.seed)
    require(bool(problems), "task", type(stage.task).__name__, "its rows hold no problem; name others")
    tuned_on = seen.count(stage, problems, store)
    shards, place, attempt = cut(problems), store.resume(address), store.begin(address)
    done = kept(place, shards)
    with counting(Teller(place, attempt), by.world) as count:

        def tell(answered: int) -> None:
            count(answered, len(problems))
            progress(answered, len(problems))

        while left := [shard for shard in shards if shard.number not in done]:
            if (found := store.manifest(address)) is not None:  # another driver was first, and cleared up
                shutil.rmtree(attempt, ignore_errors=True)
                return found
            tell(so_far := sum(len(answered.records) for answered in done.values()))
            with contextlib.closing(by.answer(stage, left, store, means)) as more:
                for some in more:
                    tell(so_far := so_far + some)
                    if stop():
                        raise Stopped
            done = kept(place, shards)
        tell(len(problems))
    answered = [done[shard.number] for shard in shards]
    records = [record for each in answered for record in each.records]
    scores = (lm_eval_engine if stage.engine == "lm-eval" else stage.task).scores(records, stage)
    with open(attempt / SAMPLES, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(record, allow_nan=False) + "\n" for record in records)
    manifest = {
        **header(stage, started),
        "status": "finished",
        "parents": {role: digest(of) for role, of in parents(stage).items()},
        "executed": {"engine": stage.engine, "version": answered[0].version, "on": by.name},
        "hardware": answered[0].hardware,
        "world": by.world,
        "isolation": means.isolation if stage.task.runs_code else None,
        "problems": len(problems),
        "tuned_on": tuned_on,
        "scores": scores,
        "wall_s": time.perf_counter() - clock,
    }
    write_json(attempt / "manifest.json", manifest)
    store.publish(address, attempt)
    return manifest


def check(asked: Asking, means: Means) -> None:
    """Raise InputError where the task would run generated code and that was not allowed, and where the engine is
    missing or does not do what is asked."""
    way_out = "its answers are code that would be run; allow it with allow_code=True (--run-generated-code)"
    require(means.allow_code or not asked.task.runs_code, "task", type(asked.task).__name__, way_out)
    if asked.engine == "lm-eval":
        lm_eval_engine.check(asked)


def register(stage: Evaluate, store: Store) -> None:
    """Write down that an evaluation that belongs to no study, and its training stage, are wanted, so that gc keeps
    them."""
    directory = store.study(STUDY)
    directory.mkdir(parents=True, exist_ok=True)
    stages = {
        digest(stage): {"kind": "Evaluate", "start": None, "spec": canonical(stage)},
        digest(stage.train): {"kind": "Train", "start": None},
    }
    write_json(directory / f"points-{digest(stage)[:12]}.json", {"format": 1, "study": STUDY, "stages": stages})
