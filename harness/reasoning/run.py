"""From an `Evaluate` to its artifact in the store: `samples.jsonl`, a line a problem, and scores in the manifest.

What is done of it lies in the store's resume directory, a line a problem, so that a run that was cut off goes on with
the next problem.
"""

import datetime
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import environment, resume
from harness.errors import require
from harness.export import chain, export
from harness.reasoning import lm_eval_engine
from harness.reasoning.lm import LM, load
from harness.reasoning.spec import Evaluate, Means, Problem
from harness.specs import canonical, digest, parents
from harness.stages import header
from harness.store import Store, write_json
from harness.url import Place, Url

SAMPLES = "samples.jsonl"
STUDY = "evaluations"
"""The name under which evaluations are registered."""


def evaluate(
    stage: Evaluate,
    store: Store,
    means: Means | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Run `stage`, whose training stage is in `store`, and publish it. Returns the manifest, also of one that is there.

    Calls `progress(problems done, problems)`. Raises InputError where the task would run generated code and that was
    not allowed, where data or stage are missing or damaged, where the stage was tuned on the problems themselves, and
    where its tokens stand for no text."""
    means = means or Means()
    found = store.manifest(digest(stage))
    if found is not None:
        return found
    way_out = "its answers are code that would be run; allow it with allow_code=True (--run-generated-code)"
    require(means.allow_code or not stage.task.runs_code, "task", type(stage.task).__name__, way_out)
    stage = replace(stage, task=stage.task.resolved())
    address, started, clock = digest(stage), datetime.datetime.now(datetime.UTC), time.perf_counter()
    if (found := store.manifest(address)) is not None:
        return found
    check_unseen(stage)
    register(stage, store)
    problems = stage.task.read(stage.shots, stage.seed)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "model"
        export(digest(stage.train), place, store)
        executed: dict[str, Any] = {"engine": stage.engine}
        if stage.engine == "lm-eval":
            records, scores, executed["version"] = lm_eval_engine.evaluate(stage, problems, place, means, device)
        else:
            records = _answers(stage, problems, load(place, device, _precision(stage)), means, store, progress)
            scores = stage.task.scores(records, stage)
    attempt = store.begin(address)
    with open(attempt / SAMPLES, "w", encoding="utf-8") as f:
        f.writelines(_line(record) for record in records)
    manifest = {
        **header(stage, started),
        "status": "finished",
        "parents": {role: digest(of) for role, of in parents(stage).items()},
        "executed": executed,
        "hardware": environment.hardware(device),
        "isolation": means.isolation if stage.task.runs_code else None,
        "problems": len(problems),
        "scores": scores,
        "wall_s": time.perf_counter() - clock,
    }
    write_json(attempt / "manifest.json", manifest)
    store.publish(address, attempt)
    shutil.rmtree(_here(store.resume(address)), ignore_errors=True)
    return manifest


def check_unseen(stage: Evaluate) -> None:
    """Raise InputError where weights of the stage were tuned on the very rows that it is asked."""
    train = stage.train if isinstance(stage.train, dict) else canonical(stage.train)
    asked = canonical(stage.task.asked)
    for each in chain(train):
        source = each["corpus"]["source"]
        seen = source["type"] == "Answers" and source["rows"] == asked
        require(not seen, "task", type(stage.task).__name__, "the stage was tuned on these problems; ask others")


def register(stage: Evaluate, store: Store) -> None:
    """Write down that the evaluation and its training stage are wanted, so that gc keeps them."""
    directory = store.study(STUDY)
    directory.mkdir(parents=True, exist_ok=True)
    stages = {
        digest(stage): {"kind": "Evaluate", "start": None, "spec": canonical(stage)},
        digest(stage.train): {"kind": "Train", "start": None},
    }
    write_json(directory / f"points-{digest(stage)[:12]}.json", {"format": 1, "study": STUDY, "stages": stages})


def _precision(stage: Evaluate) -> str:
    """What the stage computed in as it was trained."""
    recipe = stage.train["recipe"] if isinstance(stage.train, dict) else None
    return recipe["precision"] if recipe is not None else stage.train.recipe.precision  # type: ignore[union-attr]


def _answers(
    stage: Evaluate,
    problems: Sequence[Problem],
    lm: LM,
    means: Means,
    store: Store,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    """What the model made of every problem, in their order; what is done already is read."""
    place = _here(store.resume(digest(stage))) / SAMPLES
    place.parent.mkdir(parents=True, exist_ok=True)
    done = {record["problem"]: record for record in _whole_lines(place)}
    left = [p for p in problems if p.name not in done]
    together = max(1, means.rows // stage.samples)
    with open(place, "a", encoding="utf-8") as f:
        for low in range(0, len(left), together):
            if progress is not None:
                progress(len(done), len(problems))
            for record in stage.task.answer(lm, left[low : low + together], stage, means):
                f.write(_line(record))
                done[record["problem"]] = record
            f.flush()
    if progress is not None:
        progress(len(done), len(problems))
    return [done[p.name] for p in problems]


def _here(resumed: Place) -> Path:
    """The resume directory on this machine: that of an object store is of no use to others."""
    return resume.local(resumed) if isinstance(resumed, Url) else resumed


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _whole_lines(place: Path) -> list[dict[str, Any]]:
    """The records in a file; what a killed process left of its last line is cut off."""
    if not place.exists():
        return []
    content = place.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        place.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]
