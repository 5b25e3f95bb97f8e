"""What the training loop needs of the process that it runs in. A plain value: Ray's side fills it differently."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.specs import Sequences, Train


class Batch(NamedTuple):
    """One rank's share of one optimizer step."""

    index: Any
    """int64 (rows,): the numbers of the sequences."""
    inputs: Any
    """int32 (rows, context)."""
    targets: Any
    """int32 (rows, context), -100 where not supervised."""


Stream = Callable[[Train, Sequences, int], Iterator[Batch]]
"""(spec, reader, first step) -> one batch a step, to the last step of the stage."""


def read_here(rank: int = 0, world: int = 1) -> Stream:
    """A stream that reads or generates every batch in this process, when it is asked for."""

    def stream(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
        rows = spec.recipe.batch // world
        for step in range(first_step, spec.steps):
            index = np.arange(rows, dtype=np.int64) + step * spec.recipe.batch + rank * rows
            yield Batch(index, *reader.sequences(spec.corpus.seed, index, spec.model.context))

    return stream


@dataclass(frozen=True)
class Worker:
    """One process of a stage: where and how it runs, none of which may change what comes out."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    threads: int = 1
    micro_batch: int | None = None
    """Sequences a forward pass; None = all of the rank's."""
    checkpoint_every_s: float = 30.0
    executed: str = "in_process"
    stream: Stream = field(default_factory=read_here)
    report: Callable[[dict[str, Any]], None] = lambda row: None
    """Called on every rank with every row of the curve."""
