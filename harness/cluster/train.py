"""Ray Train: the loop on the ranks of a TorchTrainer."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ray.data
import ray.exceptions
import ray.train
import ray.train.collective
import torch
from ray.train.torch import TorchConfig
from torch.distributed.checkpoint.api import CheckpointException

from harness import failure, stages
from harness.asking import asking
from harness.cluster import START_TIMEOUT, data, failures, spares, starts
from harness.cluster.resources import Resources
from harness.cluster.trainer import Trainer
from harness.errors import InputError
from harness.specs import Train, digest
from harness.store import Store
from harness.worker import Batch, Options, Stopped, Worker, read_here

SHARD = "sequences"

ERRORS = (Exception, CheckpointException)
"""What a stage can raise; the second is a BaseException."""

RESIZE_S = 60
"""How often a stage with fewer workers than it may have looks for more; to take them costs the steps that no checkpoint
holds."""
OFTEN, BETWEEN_S = 6, 5.0
"""How often, and with how much time in between, it is asked whether others compute."""


class Patience(NamedTuple):
    """How long the workers of a stage wait for machines while nothing else computes; see others_compute."""

    timeout_s: int
    """What one start waits."""
    failed_starts: int
    """Starts that may fail while a stage runs; one more ends the trainer."""


FIXED = Patience(1800, 3)
"""Only an autoscaler makes workers wait that fit the cluster, or a lost machine; a GPU node takes minutes to come."""
ELASTIC = Patience(20, 90)
"""After a loss Ray may try as many workers as before, since it looks at the cluster every 20 s only, and fewer when it
waited for those in vain. In all half an hour."""
TIMEOUT_GIVEN = START_TIMEOUT in os.environ
"""By the user."""


def fit(spec: Train, store: Store, of: Resources, options: Options, attempt: Callable[[], str | None]) -> None:
    """Run one training stage, which gets `of` the cluster, by `attempt`, which says why it gave up, if it did. The
    state on disk says what is left to do: a stage that was interrupted goes on from its newest checkpoint, whether a
    worker, this driver or the whole cluster was lost. Where another driver on the store begins the stage too, it goes
    on there, and this one waits. A stage that was told to stop is left as it is.

    Raises StageFailed where it fails in the same way however often it is tried: see `_rank`.
    """
    while True:
        said = _fit(spec, store, of, options, attempt)
        if said == failures.STOPPED or store.appears(digest(spec)):
            return
        if said is not None and said.startswith(failures.UNSEEN):
            raise failures.unseen(store, f"the machine of {said}")
        if said != failures.REPLACED:
            notes = [note.read_text() for note in failures.notes_of(spec, store)][:1]
            raise failures.StageFailed("\n".join([said, *notes] if said else notes) or failures.NOTHING)
        while not store.has(digest(spec)) and not starts.abandoned(store.resume(digest(spec))):
            if options.stopping:
                return
            time.sleep(2)


def workers(
    spec: Train, store: Store, resources: Resources, options: Options, run: str, callbacks: Sequence[Any] = ()
) -> str | None:
    """Run a stage on the workers of a trainer, with Ray Train's `callbacks`."""
    why: str | None = _trainer(spec, store, resources, options, run, callbacks).fit().return_value
    return why


def _fit(spec: Train, store: Store, of: Resources, options: Options, fit: Callable[[], str | None]) -> str | None:
    """What `fit` returns. It is called again when it ends without a failure of the workers: a machine that is lost
    while workers are being started ends the whole trainer. Raises StageFailed where that leads no further; but machines
    are waited for while others compute, however long."""
    step, tries = -1, 0
    while True:
        before, step = step, stages.committed_step(spec, store)
        tries = tries + 1 if step == before else 1
        try:
            return fit()
        except (ray.train.ControllerError, ray.exceptions.RayActorError) as e:
            if options.stopping:
                return failures.STOPPED
            waited = failures.waited_in_vain(e)
            if waited and others_compute(of):
                step, tries = -1, 0
                continue
            stuck = stages.committed_step(spec, store) == step
            if stuck and (waited or tries == starts.LIMIT):
                raise failures.StageFailed(
                    f"its workers could not be started at step {step}: {failure.root_message(e)}"
                ) from e
        time.sleep(1)  # if this driver is dead, this process is about to be


def others_compute(of: Resources) -> bool:
    """Whether the cluster has what a worker needs, and some of it is in use, so that it may become free. Asked more
    than once, since others are between two stages now and then."""
    needed = {kind: of.per_worker[kind] for kind in ("CPU", "GPU") if of.per_worker.get(kind, 0.0) > 0}
    for _ in range(OFTEN):
        there, free = ray.cluster_resources(), ray.available_resources()
        has_all = all(there.get(kind, 0.0) >= amount for kind, amount in needed.items())
        if has_all and any(free.get(kind, 0.0) < there[kind] for kind in needed):
            return True
        time.sleep(BETWEEN_S)
    return False


def _trainer(
    spec: Train, store: Store, resources: Resources, options: Options, run: str, callbacks: Sequence[Any]
) -> Trainer:
    datasets: dict[str, Any] = {}
    if not spec.corpus.source.stored:
        # A callable is evaluated whenever the workers (re)start, so the data begins where the checkpoint ends.
        datasets[SHARD] = functools.partial(_sequences, spec, store, resources, options)
    gpus = resources.per_worker.get("GPU", 0) > 0
    workers = (resources.min_workers, resources.workers) if resources.elastic else resources.workers
    patience = ELASTIC if resources.elastic else FIXED
    if not TIMEOUT_GIVEN:  # Ray reads it from the environment of the controller, which runs in this process
        os.environ[START_TIMEOUT] = str(patience.timeout_s)
    return Trainer(
        functools.partial(_rank, spec, store, resources, options, run),
        stopping=lambda: options.stopping,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus,
            resources_per_worker=resources.per_worker,
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        datasets=datasets,
        # Blocks go round the ranks in order only if none is given to a rank for lying near it.
        dataset_config=ray.train.DataConfig(execution_options=data.ordered(), enable_shard_locality=False),
        run_config=ray.train.RunConfig(
            name=digest(spec),
            storage_path=str(store.runs.resolve()),
            callbacks=list(callbacks),
            worker_runtime_env={"env_vars": spares.environment()},
            # How often workers die or are taken away does not matter, only whether they get further in between.
            failure_config=ray.train.FailureConfig(
                max_failures=-1, max_preemption_failures=-1, controller_failure_limit=patience.failed_starts
            ),
        ),
    )


def _sequences(spec: Train, store: Store, resources: Resources, options: Options) -> ray.data.Dataset:
    data.configure()
    first_step = stages.first_step(spec, store, options)
    return data.sequences(spec, first_step, resources)


def _rank(spec: Train, store: Store, resources: Resources, options: Options, run: str) -> str | None:
    """One rank. Ray starts the ranks again, without limit, when a process dies or raises. What will come again however
    often it is tried ends the stage instead: an input error, the same error twice without a step committed in between,
    or starts.LIMIT deaths without one. Returns why, unless it is written down."""
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if blind := _blind(store, world):
        return f"{failures.UNSEEN}{blind[0]}"
    # Rank 0 decides for all: a rank that ended alone would leave the others waiting for it.
    begun = begin(spec, store, options, run, world) if rank == 0 else None
    token, why = ray.train.collective.broadcast_from_rank_zero(begun)
    if token is None:
        return why
    try:
        _train(spec, store, resources, options, token)
    except failures.Replaced:
        return failures.REPLACED
    except Stopped:
        return failures.STOPPED
    except ERRORS as e:
        again = failures.write_note(spec, store, rank, e, stages.committed_step(spec, store))
        if world == 1 and (isinstance(e, InputError) or again):
            return None
        raise
    return None


def _blind(store: Store, world: int) -> list[int]:
    """The ranks that do not see the store."""
    blind = torch.zeros(world, device=ray.train.torch.get_device())
    blind[ray.train.get_context().get_world_rank()] = not store.exists()
    if world > 1:
        torch.distributed.all_reduce(blind)
    return blind.nonzero().flatten().tolist()


def begin(spec: Train, store: Store, options: Options, run: str, world: int) -> tuple[str | None, str | None]:
    """Count this start of the workers. Returns its token; or None, and why the stage is given up or stops, unless it is
    done."""
    if store.has(digest(spec)):
        return None, None
    if options.stopping:
        return None, failures.STOPPED
    before = starts.last(store.resume(digest(spec)))
    if before is None or before.run != run:
        for old in failures.notes_of(spec, store):
            old.unlink(missing_ok=True)
    notes = [note.read_text() for note in failures.notes_of(spec, store)]
    for note in notes:
        if failure.of_input(note):
            return None, note.splitlines()[0]
    start = starts.begin(store.resume(digest(spec)), run, stages.committed_step(spec, store), world)
    if not start.one_too_many:
        return start.token, None
    why = f"its workers died {starts.LIMIT} times at step {start.step} without a checkpoint in between"
    errors = [lines[0] for note in notes if (lines := note.splitlines())[1:2] == [failures.at(start.step)]]
    return None, f"{why} ({errors[0] if errors else 'out of memory? see the Ray logs'})"


def _train(spec: Train, store: Store, resources: Resources, options: Options, token: str) -> None:
    context = ray.train.get_context()
    rank, world, units = context.get_world_rank(), context.get_world_size(), resources.workers
    stream = read_here(rank, world, units)
    if not spec.corpus.source.stored:
        stream = data.stream_shard(functools.partial(ray.train.get_dataset_shard, SHARD), units, rank, world)
    stopping = asking(store, lambda: options.stopping)

    def begun(*asked: Any) -> Iterator[Batch]:
        spares.start()  # not before this stage has measured the machine
        return stream(*asked)

    worker = Worker(
        rank=rank,
        world=world,
        local_world=context.get_local_world_size(),
        units=units,
        device=str(ray.train.torch.get_device()),
        memory_share=resources.gpu_share,
        threads=threads(gpu=torch.cuda.is_available()),
        options=options,
        executed="ray",
        stream=begun,
        report=lambda row: ray.train.report({k: v for k, v in row.items() if v is not None}),
        notice=_notice(spec, store, token),
        stop=lambda: ray.train.collective.broadcast_from_rank_zero(stopping() if rank == 0 else None),
    )
    stages.run_train(spec, store, worker)


def replaced(spec: Train, store: Store, token: str) -> Callable[[], bool]:
    """Whether the stage is done, or has begun elsewhere since `token`."""
    return asking(store, lambda: store.has(digest(spec)) or starts.replaced(store.resume(digest(spec)), token))


def threads(gpu: bool) -> int:
    """Of a worker: on a GPU as many as Ray gives it CPUs, or as the user said (not as many as torch has, which may have
    been imported before that); else one, of which a CPU's rounding depends."""
    return int(os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]) if gpu else 1


def _notice(spec: Train, store: Store, token: str) -> Callable[[], bool]:
    """Worker.notice, from what the provider of the machines told Ray: rank 0's news, on every rank. It raises Replaced,
    on every rank, when these workers no longer count."""
    told: Any = None
    rank = ray.train.get_context().get_world_rank()
    asked = replaced(spec, store, token)

    def notice() -> bool:
        nonlocal told
        if ray.train.collective.broadcast_from_rank_zero(asked() if rank == 0 else None):
            raise failures.Replaced(failures.REPLACED)
        before, told = told, ray.train.get_preemption_info()
        return told is not None and told != before

    return notice
