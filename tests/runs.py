"""What tests ask of the runs of stages: what they left behind, that they end as a killed process does, that they are
short."""

import contextlib
import functools
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from harness.curve import CLOCKS
from harness.sources.text import Text
from harness.space import Arm, Study
from harness.specs import Evaluation, Sequences, Train
from harness.store import Store
from harness.worker import Batch, Stream

DOCUMENTS = 60
"""Of a text of a reduced study."""


def curve(store: Store, digest: str) -> list[dict[str, Any]]:
    """The rows of a stage, without what clocks say."""
    attempt = store.open(digest)
    assert attempt is not None, f"stage {digest} is not done"
    rows = [json.loads(line) for line in (attempt / "curve.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


@contextlib.contextmanager
def interruptible(command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """A process that heeds Ctrl-C, and is gone in the end: tests begun in the background ignore it, and would pass that
    on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        try:
            yield process
        finally:
            process.kill()


class KilledError(Exception):
    """As if the process were no more."""


def killed_at(step: int | None, stream: Stream) -> Stream:
    """`stream`, but that it ends as a killed process does when `step` asks for its batch."""

    def killed(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
        for i, batch in enumerate(stream(spec, reader, first_step), first_step):
            if i == step:
                raise KilledError
            yield batch

    return killed


def reduced(study: Study, by: int, seeds: int) -> Study:
    """`study` with budgets and warmups divided by `by` (a stage has one step at least), its first `seeds` seeds, local
    text of fewer documents, and little evaluation: every stage of it runs in a second or so."""

    def less(train: Train) -> Train:
        recipe, source = train.recipe, train.corpus.source
        horizon = None if recipe.horizon is None else max(train.step_tokens, recipe.horizon // by)
        if isinstance(source, Text):
            source = replace(source, documents=DOCUMENTS, held_out=0.2)
        return replace(
            train,
            corpus=replace(train.corpus, source=source),
            tokens=max(train.step_tokens, train.tokens // by),
            recipe=replace(recipe, warmup=recipe.warmup // by, horizon=horizon),
            evaluation=Evaluation(points=8, sequences=8),
            init=None if train.init is None else less(train.init),
        )

    def shrunk(arm: Arm) -> Arm:
        @functools.wraps(arm)
        def made(**axes: Any) -> Train:
            return less(arm(**axes))

        return made

    over = dict(study.over)
    over["seed"] = {"grid_search": over["seed"]["grid_search"][:seeds]}
    return replace(study, baseline=shrunk(study.baseline), arms=[shrunk(arm) for arm in study.arms], over=over)
