"""Ray Train: the loop on the ranks of a TorchTrainer."""

import functools
import re
import traceback
from pathlib import Path
from typing import Any

import ray.data
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from harness import stages
from harness.cluster import data
from harness.cluster.resources import Resources
from harness.errors import InputError
from harness.specs import Train, digest
from harness.store import Store
from harness.worker import Worker, read_here

SHARD = "sequences"


def fit(spec: Train, store: Store, resources: Resources, checkpoint_every_s: float) -> None:
    """Run one training stage. The state on disk says what is left to do: a stage that was interrupted goes on from its
    newest checkpoint, whether a worker, this driver or the whole cluster was lost."""
    units = resources.workers
    datasets: dict[str, Any] = {}
    if not spec.corpus.source.stored:
        # A callable is evaluated whenever the workers (re)start, so the data begins where the checkpoint ends.
        datasets[SHARD] = functools.partial(_sequences, spec, store, resources)
    gpus = resources.per_worker.get("GPU", 0) > 0
    TorchTrainer(
        functools.partial(_rank, spec, store, units, checkpoint_every_s),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu=gpus, resources_per_worker=resources.per_worker
        ),
        datasets=datasets,
        # Blocks go round the ranks in order only if none is given to a rank for lying near it.
        dataset_config=ray.train.DataConfig(execution_options=data.ordered(), enable_shard_locality=False),
        run_config=ray.train.RunConfig(
            name=digest(spec),
            storage_path=str((store.scratch / "train").resolve()),
            failure_config=ray.train.FailureConfig(max_failures=3, controller_failure_limit=3),
        ),
    ).fit()
    if not store.appears(digest(spec)):
        notes = _errors(spec, store)
        raise StageFailed(notes[0].read_text() if notes else "its workers ended and left nothing in the store")


class StageFailed(RuntimeError):
    """A stage that fails in the same way however often it is tried; the text is the traceback."""


def _errors(spec: Train, store: Store) -> list[Path]:
    return sorted(store.resume(digest(spec)).glob("error-*.txt"))


def _sequences(spec: Train, store: Store, resources: Resources) -> ray.data.Dataset:
    data.configure()
    first_step = stages.committed_step(spec, store)
    return data.sequences(spec, first_step, resources)


def _rank(spec: Train, store: Store, units: int, checkpoint_every_s: float) -> None:
    """One rank. Ray starts the ranks again when a process dies or raises. An error that comes again without a step
    committed in between will always come: it is written down and ends the stage instead."""
    if store.open(digest(spec)) is not None:
        return
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    note = store.resume(digest(spec)) / f"error-{rank}.txt"
    try:
        _train(spec, store, units, checkpoint_every_s)
    except Exception as e:
        text = f"{root_message(e)}\nat committed step {stages.committed_step(spec, store)}\n{traceback.format_exc()}"
        known = note.read_text().splitlines()[:2] if note.exists() else []
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(text)
        # Ranks that see the same thing end together; a rank that ended alone would leave the others waiting for it.
        if isinstance(e, InputError) or (world == 1 and text.splitlines()[:2] == known):
            return
        raise


def root_message(error: BaseException) -> str:
    """The first error of the chain, in one line; Ray's wrappers carry what happened elsewhere as text."""
    text = "".join(traceback.format_exception(error))
    named = [line for line in text.splitlines() if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b.*:", line)]
    own = [line for line in named if not line.startswith(("ray.", "RayTaskError"))]
    return (own or named or [type(error).__name__])[0]


def _train(spec: Train, store: Store, units: int, checkpoint_every_s: float) -> None:
    import torch

    if not store.exists():
        node = ray.get_runtime_context().get_node_id()[:12]
        raise InputError(
            f"store = {str(store.root)!r}: node {node} does not see it; use a directory that all nodes mount"
        )

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    stream = read_here(rank, world)
    if not spec.corpus.source.stored:
        stream = data.stream_shard(ray.train.get_dataset_shard(SHARD), units, rank, world)
    worker = Worker(
        rank=rank,
        world=world,
        device=str(ray.train.torch.get_device()),
        threads=1 if not torch.cuda.is_available() else torch.get_num_threads(),
        checkpoint_every_s=checkpoint_every_s,
        executed="ray",
        stream=stream,
        report=lambda row: ray.train.report({k: v for k, v in row.items() if v is not None}),
    )
    stages.run_train(spec, store, worker)
