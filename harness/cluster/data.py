"""Ray Data: generator actors that stream sequences to the workers while they train, and text tokenised into shards."""

import itertools
import math
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray.data

from harness.automata import engine
from harness.cluster.resources import Resources
from harness.copies import tried
from harness.progress import Count
from harness.sources import tokenising
from harness.sources.checking import checked
from harness.sources.text import Text, parts
from harness.specs import Sequences, Train
from harness.url import Place
from harness.worker import Batch, Stopped, Stream

BLOCK_TOKENS = 2**18
"""About 2 MB a block: smaller ones drown in Ray's fixed cost a block, larger ones delay the first batch."""
ASKED_S = 1.0
"""How often it is asked, while a part is encoded, whether to stop."""
LOST_S = 900.0
"""In which an actor that encodes has put its block away, unless its machine went."""

Row = TypeVar("Row")


def steps_per_block(spec: Train, units: int) -> int:
    """Steps that one block serves."""
    unit_tokens = spec.step_tokens // units
    return max(1, min(spec.steps, round(min(BLOCK_TOKENS, spec.tokens / units / 8) / unit_tokens)))


def unit_rows(spec: Train, units: int, first_step: int, block: int) -> Any:
    """int64 (rows,): sequence numbers of `block`. The rows of a step are cut into `units` equal units; block
    c * units + u holds unit u's rows for the steps of chunk c, counted from `first_step`. Blocks go round the ranks,
    so rank r gets the blocks congruent to r, and step s trains sequences [s B, (s + 1) B) at every world size."""
    chunk, unit = divmod(block, units)
    steps = steps_per_block(spec, units)
    rows = spec.recipe.batch // units
    step = first_step + chunk * steps + np.arange(steps, dtype=np.int64)
    return (step[:, None] * spec.recipe.batch + unit * rows + np.arange(rows, dtype=np.int64)).ravel()


class Generate:
    """A generator actor: block number in, the block's sequences out."""

    def __init__(self, spec: Train, units: int, first_step: int) -> None:
        if ray.is_initialized() and ray.get_gpu_ids():  # asking alone would start Ray
            engine.set_device("cuda")
        self.spec, self.units, self.first_step = spec, units, first_step
        self.reader = spec.corpus.source.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (block,) = batch["block"].tolist()
        index = unit_rows(self.spec, self.units, self.first_step, block)
        # Padding has the rows of a block, so that the blocks go on round the ranks, and nobody reads it.
        needed = index < self.spec.steps * self.spec.recipe.batch
        inputs, targets = np.zeros((2, len(index), self.spec.model.context), np.int32)
        if needed.any():
            drawn = self.reader.sequences(self.spec.corpus.seed, index[needed], self.spec.model.context)
            inputs[needed], targets[needed] = checked(
                self.spec.corpus.source, drawn, int(needed.sum()), self.spec.model.context
            )
        return {"index": index, "inputs": inputs, "targets": targets}


def blocks_of(spec: Train, units: int, first_step: int, vary: bool) -> int:
    """Blocks of `spec` from `first_step` to its end. Ray drops what does not go round the ranks evenly, so the last
    chunk is padded past the end, and where the number of ranks can `vary` below `units`, more blocks follow it."""
    chunks = max(1, -(-(spec.steps - first_step) // steps_per_block(spec, units)))
    return chunks * units + (units - 1 if vary else 0)


def sequences(spec: Train, first_step: int, resources: Resources) -> ray.data.Dataset:
    """The blocks of `spec` from `first_step` to its end, in order."""
    units = resources.workers
    blocks = [{"block": b} for b in range(blocks_of(spec, units, first_step, resources.elastic))]
    return ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        Generate,
        fn_constructor_args=(spec, units, first_step),
        batch_size=None,
        batch_format="numpy",
        num_cpus=resources.generator_cpus,
        num_gpus=resources.generator_gpus,
        compute=ray.data.ActorPoolStrategy(
            min_size=resources.generators_for(resources.min_workers), max_size=resources.generators
        ),
    )


def stream_shard(open_shard: Callable[[], Any], units: int, rank: int, world: int) -> Stream:
    """A worker's stream over its shard: its blocks of a chunk at a time, put side by side step by step. The first one
    is asked for at once, in a thread, so that generators start while the worker still builds its model."""
    pool = ThreadPoolExecutor(1)
    started = pool.submit(_start, open_shard)
    pool.shutdown(wait=False)

    def stream(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
        steps = steps_per_block(spec, units)
        rows = spec.recipe.batch // units
        blocks = started.result()
        for chunk, step in enumerate(range(first_step, spec.steps, steps)):
            mine = [next(blocks) for _ in own_units(chunk, units, rank, world)]
            for k in range(min(steps, spec.steps - step)):
                part = [{name: b[name][k * rows : (k + 1) * rows] for name in Batch._fields} for b in mine]
                yield Batch(*(np.concatenate([p[name] for p in part]) for name in Batch._fields))

    return stream


def _start(open_shard: Callable[[], Any]) -> Iterator[dict[str, Any]]:
    """The blocks of a shard, the first of which is there."""
    blocks = iter(open_shard().iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2))
    return itertools.chain([next(blocks)], blocks)


def own_units(chunk: int, units: int, rank: int, world: int) -> range:
    """The units of `chunk` that `rank` gets: where `world` does not divide them, others in the next chunk."""
    return range((rank - chunk * units) % world, units, world)


def ordered() -> ray.data.ExecutionOptions:
    """Order is the contract."""
    return ray.data.ExecutionOptions(preserve_order=True)


def configure() -> None:
    """The same for what runs in this process; progress is shown elsewhere."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False


class Encode:
    """An actor that tokenises parts of a text, with all cores of its machine. It makes the file `begun`."""

    def __init__(self, source: Text, tokenizer: str, work: Place, stop: Callable[[], bool], begun: Place) -> None:
        self.source, self.tokenizer, self.work, self.stop = source, tokenizer, work, stop
        tried(lambda: begun.write_bytes(b""))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return vars(tokenising.encode_missing(self.source, self.tokenizer, row["part"], self.work, self.stop))


def tokenise(
    source: Text,
    directory: Path,
    progress: Count = lambda done, of: None,
    *,
    cpus: float,
    work: Place,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Tokenise `source` over the cluster, part by part on every machine, and pack it in order into `directory`; calls
    `progress(parts done, parts)`. Blocks lie in `work`, which all machines see; tokens do not go through Ray. An actor
    holds `cpus`. Raises Stopped when `stop`, asked on every machine, says to stop."""
    configure()
    tokenizer = tokenising.kept_tokenizer(source, work)
    begun = work / f"begun-{secrets.token_hex(4)}"
    rows = [{"part": part} for part in parts(source)]
    encoded = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Encode,
        fn_constructor_args=(source, tokenizer, work, stop, begun),
        num_cpus=cpus,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(machines(), len(rows))),
    )

    found = until_stopped(iter(encoded.iter_rows()), stop, lambda: tried(begun.exists))
    of_parts = (tokenising.kept(tokenising.Encoded(**row), work) for row in found)
    return tokenising.write(source, tokenizer, tokenising.in_turn(of_parts, len(rows), progress, stop), directory)


def until_stopped(rows: Iterator[Row], stop: Callable[[], bool], begun: Callable[[], bool]) -> Iterator[Row]:
    """`rows`. Raises Stopped where `stop` says to stop and no actor has `begun`: one that has puts its block away and
    answers, however long it reads, but to wait for a machine may take hours; after LOST_S one that had begun does."""
    pool = ThreadPoolExecutor(1)
    told = math.inf
    try:
        while True:
            coming = pool.submit(next, rows, None)
            while not wait([coming], timeout=ASKED_S).done:
                told = min(told, time.monotonic()) if stop() else math.inf
                if told < math.inf and (not begun() or time.monotonic() - told > LOST_S):
                    raise Stopped("stopped while it waited for a machine")
            if (row := coming.result()) is None:
                return
            yield row
    finally:
        pool.shutdown(wait=False)


def machines() -> int:
    """How many machines of the cluster compute, at least 1."""
    return max(1, sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0))
