"""What a trial tells Ray Tune, for schedulers and callbacks: every row of its stage's curve as it comes, and the last
one when the stage is published."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import ray.train
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from harness.specs import Train, digest
from harness.store import Store
from harness.tracking import flat


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as Tune wants it: numbers, and a loss in every one; a stage that diverged has an infinite one."""
    return {"loss_nats": math.inf, **flat(row)}


class Rows(TuneReportCallback):
    """Ray Train's controller hands rank 0's rows on to the trial. The last one is left to the trial: a scheduler that
    stopped it there would stop a stage that has still to be published."""

    def __init__(self, spec: Train) -> None:
        super().__init__()
        self.tokens = spec.tokens

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint | None
    ) -> None:
        if metrics[0]["tokens"] < self.tokens:
            super().after_report(run_context, [told(metrics[0])], None)


def reporter(spec: Train) -> Callable[[dict[str, Any]], None]:
    """The same for a stage that runs in the trial itself."""

    def report(row: dict[str, Any]) -> None:
        if row["tokens"] < spec.tokens:
            tune.report(told(row))

    return report


def rows(spec: Train, store: Store) -> list[dict[str, Any]]:
    """What a published stage would have told."""
    curve = store.read(digest(spec), "curve.jsonl")
    assert curve is not None
    return [told(json.loads(line)) for line in curve.splitlines()]
