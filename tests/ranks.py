"""Several ranks of a stage as processes of this machine, on gloo, without Ray. A module of its own, so that processes
that are spawned can import it."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.multiprocessing.spawn import spawn

from harness import stages
from harness.specs import Train
from harness.store import Store
from harness.worker import Options, Worker, read_here
from tests.runs import KilledError, killed_at


@dataclass(frozen=True)
class Job:
    """A stage to run, and how."""

    spec: Train
    root: Path
    options: Options = field(default_factory=Options)
    units: int | None = None
    stop: int | None = None
    """The step at whose batch all ranks end, as if they were killed together."""


def run(jobs: list[Job], world: int, local_world: int | None = None) -> None:
    """Run `jobs` one after another on `world` ranks, `local_world` to a machine."""
    meeting = jobs[0].root.parent / f"rendezvous-{world}-{len(list(jobs[0].root.parent.glob('rendezvous-*')))}"
    for job in jobs:
        job.root.mkdir(parents=True, exist_ok=True)
    spawn(_rank, (world, local_world or world, jobs, meeting, sys.path), nprocs=world)


def _rank(number: int, world: int, local_world: int, jobs: list[Job], meeting: Path, path: list[str]) -> None:
    sys.path[:] = path
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=world)
    for job in jobs:
        stream = killed_at(job.stop, read_here(number, world, job.units))
        worker = Worker(number, world, local_world, job.units, stream=stream, options=job.options)
        try:
            stages.run_train(job.spec, Store(job.root), worker)
        except KilledError:
            continue
    torch.distributed.destroy_process_group()
