"""Ray Data: generator actors that stream sequences to the workers while they train, and text tokenised into shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from harness.automata import engine
from harness.cluster.resources import Resources
from harness.sources import tokenising
from harness.sources.text import Text, parts
from harness.specs import Sequences, Train
from harness.worker import Batch

BLOCK_TOKENS = 2**18
"""About 2 MB a block: smaller ones drown in Ray's fixed cost a block, larger ones delay the first batch."""


def steps_per_block(spec: Train, units: int) -> int:
    """Steps that one block serves."""
    unit_tokens = spec.step_tokens // units
    return max(1, min(spec.steps, round(min(BLOCK_TOKENS, spec.tokens / units / 8) / unit_tokens)))


def unit_rows(spec: Train, units: int, first_step: int, block: int) -> Any:
    """int64 (rows,): sequence numbers of `block`. The rows of a step are cut into `units` equal units; block
    c * units + u holds unit u's rows for the steps of chunk c, counted from `first_step`. Rank r of a world that
    divides `units` gets the units congruent to r, so step s trains sequences [s B, (s + 1) B) at every world size."""
    chunk, unit = divmod(block, units)
    steps = steps_per_block(spec, units)
    rows = spec.recipe.batch // units
    step = first_step + chunk * steps + np.arange(steps, dtype=np.int64)
    return (step[:, None] * spec.recipe.batch + unit * rows + np.arange(rows, dtype=np.int64)).ravel()


class Generate:
    """A generator actor: block number in, the block's sequences out."""

    def __init__(self, spec: Train, units: int, first_step: int) -> None:
        if ray.get_gpu_ids():
            engine.set_device("cuda")
        self.spec, self.units, self.first_step = spec, units, first_step
        self.reader = spec.corpus.source.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (block,) = batch["block"].tolist()
        index = unit_rows(self.spec, self.units, self.first_step, block)
        inputs, targets = self.reader.sequences(self.spec.corpus.seed, index, self.spec.model.context)
        return {"index": index, "inputs": inputs, "targets": targets}


def sequences(spec: Train, first_step: int, resources: Resources) -> ray.data.Dataset:
    """The blocks of `spec` from `first_step` to its end, in order; the last chunk is padded past the end, since Ray
    drops ragged tails."""
    units = resources.workers
    chunks = -(-(spec.steps - first_step) // steps_per_block(spec, units))
    blocks = [{"block": b} for b in range(max(1, chunks) * units)]
    return ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Generate,
        fn_constructor_args=(spec, units, first_step),
        batch_size=None,
        batch_format="numpy",
        num_cpus=resources.generator_cpus,
        num_gpus=resources.generator_gpus,
        compute=ray.data.ActorPoolStrategy(size=resources.generators),
    )


def stream_shard(shard: Any, units: int, rank: int, world: int) -> Any:
    """A worker's stream over its shard: `units / world` blocks at a time, put side by side step by step."""

    def stream(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
        steps = steps_per_block(spec, units)
        rows = spec.recipe.batch // units
        step = first_step
        blocks = iter(shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2))
        while step < spec.steps:
            mine = [next(blocks) for _ in range(units // world)]
            for k in range(min(steps, spec.steps - step)):
                part = [{name: b[name][k * rows : (k + 1) * rows] for name in Batch._fields} for b in mine]
                yield Batch(*(np.concatenate([p[name] for p in part]) for name in Batch._fields))
            step += steps

    return stream


def ordered() -> ray.data.ExecutionOptions:
    """Order is the contract."""
    return ray.data.ExecutionOptions(preserve_order=True)


def configure() -> None:
    """The same for what runs in this process; progress is shown elsewhere."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False


class Encode:
    """An actor that tokenises parts of a text."""

    def __init__(self, source: Text, tokenizer: str) -> None:
        self.source, self.tokenizer = source, tokenizer

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return tokenising.encode(self.source, self.tokenizer, row["part"])


def tokenise(source: Text, directory: Path, cpus: float) -> dict[str, Any]:
    """Tokenise `source` over the cluster, part by part, and pack it in order into `directory`."""
    configure()
    tokenizer = tokenising.train_tokenizer(source)
    rows = [{"part": part} for part in parts(source)]
    encoded = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Encode, fn_constructor_args=(source, tokenizer), num_cpus=cpus, compute=ray.data.ActorPoolStrategy(size=1)
    )
    return tokenising.write(source, tokenizer, encoded.iter_rows(), directory)
