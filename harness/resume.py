"""Resume checkpoints: a directory a step, complete when it has its name, the newest two kept; safetensors and JSON.

Every rank writes its own shards (torch.distributed.checkpoint, as safetensors), in the background, and any number of
ranks can read them.

The reader of torch opens files alone, and an object store has no rename. There every rank uploads its shards, a
checkpoint is complete when it has its state.json, and it is fetched to be read."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import copies
from harness.copies import describe, is_as_described
from harness.device import synchronise
from harness.errors import require
from harness.store import write_json
from harness.url import Place, Url, UrlError

if TYPE_CHECKING:
    import torch

KEPT = 2


class Saver:
    """Writes the checkpoints of one stage, one at a time, while training goes on. Every rank calls its own alike.

    A checkpoint that cannot be written (a full disk) is given up and told in `failure`; those before it stay."""

    def __init__(self, address: str, rank: int, world: int, device: str, copies_of: Path | None = None) -> None:
        """`address` is the digest of the stage, which its checkpoints carry; `copies_of` is where this machine has
        those of an object store while the stage runs."""
        import torch.distributed as dist
        from torch.distributed.checkpoint._state_dict_stager import StateDictStager

        self.address, self.rank, self.world = address, rank, world
        # Its own group: what it sends in the background must not meet what training sends.
        self.group = dist.new_group(backend="gloo")
        self.device = device
        # What is inside torch's DefaultStager, which itself can be used only once in torch 2.11 and 2.12.
        self.stager = StateDictStager(pin_memory=device == "cuda", share_memory=False)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None
        self.failure: str | None = None
        self.copies = copies_of

    def save(self, directory: Place, step: int, tensors: "dict[str, torch.Tensor]", state: dict[str, Any]) -> None:
        """Begin the checkpoint of `step` in `directory`: copies `tensors` (whole or sharded), then returns. `state` is
        plain JSON data, of which rank 0's is kept."""
        import torch.distributed as dist

        self.wait()
        token = [secrets.token_hex(4)]
        dist.broadcast_object_list(token, src=0, group=self.group)
        staged = self.stager.stage(tensors, non_blocking=self.stager.pin_memory)
        synchronise(self.device)
        state = json.loads(json.dumps({**state, "step": step, "stage": self.address}))
        self.pending = self.executor.submit(self._write, directory, token[0], step, staged, state)

    def wait(self) -> None:
        """Return when the checkpoint that was begun is complete, or given up."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def close(self) -> None:
        """Wait, and give everything back."""
        self.wait()
        if self.copies is not None:
            shutil.rmtree(self.copies, ignore_errors=True)
        self.executor.shutdown()
        self.stager.close()

    def _write(self, directory: Place, token: str, step: int, staged: Any, state: dict[str, Any]) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        failure: str | None = None
        part = (directory if isinstance(directory, Path) else local(directory)) / f".part-{token}"
        place = directory / (f"step-{step:09d}" if isinstance(directory, Path) else f"step-{step:09d}-{token}")
        try:
            part.mkdir(parents=True, exist_ok=True)
            writer = dcp.HuggingFaceStorageWriter(str(part), save_distributed=True)
            dcp.save(staged, storage_writer=writer, process_group=self.group)
            files = {p.name: p for p in part.glob(f"shard-{self.rank + 1:05d}-*")}
            own = {name: describe(p) for name, p in files.items()}
            if isinstance(place, Url):
                copies.upload(files, place)
        # Whatever it is, training goes on without this checkpoint; that of torch is not even an Exception.
        except (Exception, dcp.api.CheckpointException) as e:  # noqa: BLE001
            own, failure = {}, root_cause(e)
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, (own, failure), group=self.group)
        failures = [f for _, f in everyone if f is not None]
        if not failures and self.rank == 0:
            try:
                state = {**state, "files": {name: what for own, _ in everyone for name, what in own.items()}}
                if isinstance(place, Url):
                    copies.tried(lambda: write_json(place / "state.json", state))
                    clear(place.parent, place.name)
                else:
                    write_json(part / "state.json", state)
                    commit(part, place)
            except OSError as e:
                failures = [root_cause(e)]
        if isinstance(place, Url) or (failures and self.rank == 0):
            shutil.rmtree(part, ignore_errors=True)
        self.failure = f"no checkpoint at step {step}: {failures[0]}" if failures else None


def commit(part: Path, place: Path) -> None:
    """Give the checkpoint in `part` its name, and keep the newest."""
    directory = part.parent
    if place.exists():  # it was damaged, or another driver's worker was here
        os.replace(place, directory / f"replaced-{place.name}-{secrets.token_hex(4)}")
    os.replace(part, place)
    for old in [*list(newest_first(directory))[KEPT:], *directory.glob(".part-*")]:
        copies.remove(old)


def clear(directory: Url, newest: str) -> None:
    """Keep the newest checkpoints of an object store, and what is being uploaded for steps after `newest`."""
    whole = {place.name for place in newest_first(directory)}
    for old in sorted(whole, reverse=True)[KEPT:]:
        (directory / old).rmtree(first="state.json")
    for begun in directory.glob("step-*"):
        if begun.name not in whole and begun.name < newest:
            begun.rmtree()


def local(place: Url) -> Path:
    """Where this machine has what belongs to the checkpoints at `place`."""
    return copies.cache(place.parent) / place.name


def root_cause(error: BaseException) -> str:
    """The error that began it, in one line; torch.distributed.checkpoint wraps it, by rank."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    return f"{type(error).__name__}: {error}".splitlines()[0]


def newest_first(directory: Place) -> Iterator[Place]:
    """The checkpoints that have their name."""
    if isinstance(directory, Path):
        yield from sorted(directory.glob("step-*"), reverse=True)
        return
    for name in sorted(directory.find(), reverse=True):
        step, _, file = name.partition("/")
        if step.startswith("step-") and file == "state.json":
            yield directory / step


def step_of(name: str) -> int:
    """The step of a checkpoint by its name, or by that of a file in it."""
    return int(name.partition("/")[0].split("-")[1])


class Found(NamedTuple):
    """The newest checkpoint that is whole, and what was wrong with newer ones."""

    place: Place | None
    state: dict[str, Any]
    damaged: list[str]

    @property
    def step(self) -> int:
        """The step from which a stage goes on: 0 without a checkpoint."""
        return int(self.state.get("step", 0))


def newest(directory: Place, address: str | None = None, read: bool = False) -> Found:
    """The newest checkpoint in `directory` whose every byte is as it was written; in an object store, whose files have
    their sizes, and are as they were written where they are to be `read`: then they are fetched. Raises InputError for
    one of another stage than `address`, if that is given."""
    damaged: list[str] = []
    for place in newest_first(directory):
        try:
            state = json.loads((place / "state.json").read_text())
            wrong = differing(place, state["files"], read)
        except UrlError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            wrong = ["state.json"]
        if wrong:
            damaged.append(f"checkpoint {place.name} is damaged ({wrong[0]}) and was passed over")
            continue
        require(
            address is None or state.get("stage") == address,
            "checkpoint",
            str(place),
            f"is of stage {state.get('stage')}, not of {address}; remove it to train from the start",
        )
        return Found(place, state, damaged)
    return Found(None, {}, damaged)


def differing(place: Place, files: dict[str, Any], read: bool) -> list[str]:
    """Names of the files at `place` that are not as described."""
    if isinstance(place, Path):
        return [name for name, what in files.items() if not is_as_described(place / name, what)]
    there = place.find()
    wrong = [name for name, what in files.items() if name not in there or there[name].st_size != what["bytes"]]
    if wrong or not read:
        return wrong
    try:
        fetched(place, files)
    except copies.DifferingError as e:
        (place / "state.json").unlink()  # so that it is none for the other processes either
        return [e.name]
    return []


def fetched(place: Place, files: dict[str, Any] | None = None) -> Path:
    """The checkpoint at `place` on this machine, its shards alone."""
    if isinstance(place, Path):
        return place
    if files is None:
        files = json.loads((place / "state.json").read_text())["files"]
    return copies.fetch(place, files, local(place.parent) / place.name)


def copy_newest(directory: Place, address: str, to: Path) -> None:
    """Copy the newest checkpoint, whole, to the directory `to`."""
    found = newest(directory, address, read=True)
    assert found.place is not None
    shutil.copytree(fetched(found.place), to / found.place.name)
    write_json(to / found.place.name / "state.json", found.state)


def newest_or(directory: Place, address: str, start: tuple[Path, str] | None, read: bool = False) -> Found:
    """`newest`, or where there is none the checkpoint at `start`, a directory and the stage that it is of."""
    found = newest(directory, address, read)
    if found.place is not None or start is None:
        return found
    other = newest(*start)
    return other._replace(damaged=[*found.damaged, *other.damaged])


def load(place: Place, tensors: "dict[str, torch.Tensor]") -> None:
    """Fill `tensors`, whole or sharded over any number of ranks, with those of the checkpoint at `place`."""
    import torch.distributed.checkpoint as dcp

    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(fetched(place))))
