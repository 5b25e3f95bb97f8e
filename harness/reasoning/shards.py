"""The problems of an evaluation in shards, each answered by one process and kept in a file of its own.

How problems are cut, and which of them are side by side in the model, depends on the problems alone: whoever answers
them, and however often that is cut off, the records are the same.
"""

import json
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import environment
from harness.copies import tried
from harness.errors import require
from harness.export import export
from harness.reasoning import lm_eval_engine
from harness.reasoning.lm import load
from harness.reasoning.spec import Evaluate, Means, Problem
from harness.specs import Train, digest
from harness.store import Store, write_json
from harness.url import Place, Url, read_many

PROBLEMS = 32
"""Of a shard: what a kill costs at most, and more than loading a model does."""

Records = list[dict[str, Any]]
"""What the model made of problems, in their order."""


class Shard(NamedTuple):
    """Some problems, and which they are."""

    number: int
    problems: list[Problem]

    @property
    def file(self) -> str:
        return f"samples-{self.number:05d}.json"


class Answered(NamedTuple):
    """A shard that is done."""

    records: Records
    hardware: dict[str, Any]
    version: str | None
    """Of the engine, where that is not this package."""


def cut(problems: Sequence[Problem], size: int = PROBLEMS) -> list[Shard]:
    """`problems` in shards of `size`, in their order."""
    return [Shard(i, list(problems[low : low + size])) for i, low in enumerate(range(0, len(problems), size))]


def keep(place: Place, shard: Shard, answered: Answered) -> None:
    """Write a shard down in the resume directory `place`, whole or not at all."""
    place.mkdir(parents=True, exist_ok=True)
    tried(lambda: write_json(place / shard.file, answered._asdict()))


def kept(place: Place, shards: Sequence[Shard]) -> dict[int, Answered]:
    """The shards that are done, by number. What is no file of these problems is none of them."""
    files = {shard.number: place / shard.file for shard in shards}
    if isinstance(place, Url):
        content = read_many(file for file in files.values() if isinstance(file, Url))
        texts = {number: content.get(file) for number, file in files.items() if isinstance(file, Url)}
    else:
        texts = {number: _read(Path(str(file))) for number, file in files.items()}
    found = {}
    for shard in shards:
        answered = _parsed(texts[shard.number])
        if answered is not None and [r["problem"] for r in answered.records] == [p.name for p in shard.problems]:
            found[shard.number] = answered
    return found


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(content: bytes | None) -> Answered | None:
    try:
        return None if content is None else Answered(**json.loads(content))
    except (ValueError, TypeError):
        return None


class Answerer:
    """Answers shards of a stage, with its model loaded once. Raises InputError as `harness.reasoning.run.evaluate`."""

    def __init__(self, stage: Evaluate, store: Store, means: Means) -> None:
        import torch

        self.stage, self.store, self.means = stage, store, means
        if means.threads is not None:
            torch.set_num_threads(means.threads)
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory) / "model"
            export(digest(stage.train), place, store)
            lm_eval = stage.engine == "lm-eval"
            self.version = lm_eval_engine.version() if lm_eval else None
            self.batches = (lm_eval_engine.batches if lm_eval else _batches)(stage, place, means)

    def answer(self, shard: Shard) -> Iterator[int]:
        """Answers a shard and keeps it; gives the number of problems whenever some are done."""
        records: Records = []
        for batch in self.batches(shard.problems):
            records += batch
            yield len(batch)
        names = [record.get("problem") for record in records]
        way_out = f"{type(self.stage.task).__name__}.answer gave these; give a record a problem, in their order"
        require(names == [p.name for p in shard.problems], "problem", names[:3], way_out)
        answered = Answered(records, environment.hardware(self.means.device), self.version)
        keep(self.store.resume(digest(self.stage)), shard, answered)


def _batches(stage: Evaluate, model: Path, means: Means) -> Callable[[Sequence[Problem]], Iterator[Records]]:
    """Loads the exported `model`, which then answers problems, as many at a time as fit side by side."""
    lm = load(model, means.device, _precision(stage))
    together = max(1, means.rows // stage.samples)

    def batches(problems: Sequence[Problem]) -> Iterator[Records]:
        for low in range(0, len(problems), together):
            yield stage.task.answer(lm, problems[low : low + together], stage, means)

    return batches


def _precision(stage: Evaluate) -> str:
    """What the stage computed in as it was trained."""
    return stage.train.recipe.precision if isinstance(stage.train, Train) else stage.train["recipe"]["precision"]


def answer_here(stage: Evaluate, left: Sequence[Shard], store: Store, means: Means) -> Generator[int, None, None]:
    """Answers the shards that are `left` in this process, one after another."""
    answerer = Answerer(stage, store, means)
    for shard in left:
        yield from answerer.answer(shard)
