"""What the training loop needs of the process that it runs in. A plain value: Ray's side fills it differently."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from harness.layout import Layout
from harness.reasoning.spec import Means
from harness.sources.checking import checked
from harness.specs import Sequences, Train
from harness.url import Place


class Batch(NamedTuple):
    """One rank's share of one optimizer step."""

    index: Any
    """int64 (rows,): the numbers of the sequences."""
    inputs: Any
    """int32 (rows, context)."""
    targets: Any
    """int32 (rows, context), -100 where not supervised."""


class Stopped(Exception):
    """A stage that was told to stop: what it did until then is kept, and the same stage goes on from there."""


Stream = Callable[[Train, Sequences, int], Iterator[Batch]]
"""(spec, reader, first step) -> one batch a step, to the last step of the stage."""


def read_here(rank: int = 0, world: int = 1, units: int | None = None) -> Stream:
    """A stream that reads or generates every batch in this process, when it is asked for. A step's sequences are cut
    into `units` equal parts (None: one a rank), and rank r of `world` has those congruent to r."""
    units = units or world

    def stream(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
        rows = spec.recipe.batch // units
        own = (np.arange(rank, units, world)[:, None] * rows + np.arange(rows)).ravel()
        for step in range(first_step, spec.steps):
            index, context = own + step * spec.recipe.batch, spec.model.context
            read = reader.sequences(spec.corpus.seed, index, context)
            yield Batch(index, *checked(spec.corpus.source, read, len(index), context))

    return stream


@dataclass(frozen=True)
class Options:
    """How `run` was told to run stages: the same for all of them, and of no result."""

    layout: Layout = field(default_factory=Layout)
    checkpoint_every_s: float = 30.0
    wandb: str | None = None
    """The Weights & Biases project that curves are mirrored to."""
    wandb_trouble: Place | None = None
    """Where the first stage that cannot be mirrored says why; then no other tries to."""
    arms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The arms of a stage's points, by its digest, for those who are told of curves."""
    study: str = ""
    starts: Mapping[str, str] = field(default_factory=dict)
    """The digest of the `State` that a stage goes on from, by the stage's own digest."""
    means: Means = field(default_factory=Means)
    """Of evaluations."""
    stop: Place | None = None
    """A file that is there when the stages of this run are to stop."""

    @property
    def stopping(self) -> bool:
        """Whether the stages of this run are to stop. Another machine may see it later."""
        try:
            return self.stop is not None and self.stop.exists()
        except OSError:  # the store is away for a while
            return False


@dataclass(frozen=True)
class Worker:
    """One process of a stage: where and how it runs, none of which may change what comes out."""

    rank: int = 0
    world: int = 1
    local_world: int = 1
    """Ranks on this rank's machine."""
    units: int | None = None
    """Equal parts that a step's sequences are cut into, dealt out to the ranks in turn; None = one a rank. Where the
    world does not divide them, ranks have different numbers of rows, and not the same ones in every step."""
    device: str = "cpu"
    memory_share: float = 1.0
    """Of the GPU's memory; the rest is for other stages."""
    threads: int = 1
    options: Options = field(default_factory=Options)
    executed: str = "in_process"
    stream: Stream = field(default_factory=read_here)
    report: Callable[[dict[str, Any]], None] = lambda row: None
    """Called on every rank with every row of the curve."""
    notice: Callable[[], bool] = lambda: False
    """Whether the machine of some rank is about to be taken away: True once for every notice. Called on every rank
    together, and the same on every rank."""
    stop: Callable[[], bool] = lambda: False
    """Whether the stage is to save its state and stop. Called on every rank together, and the same on every rank."""

    def rows(self, batch: int) -> range:
        """Numbers of sequences that a rank can have of a step of `batch`, from the fewest to the most."""
        units = self.units or self.world
        part = batch // units
        return range(units // self.world * part, -(-units // self.world) * part + 1, part)
