"""From what a cluster has to what a stage gets: one function for a laptop, a GPU box and a cluster."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import InputError, require
from harness.reasoning.spec import Evaluate
from harness.specs import Stage, Train

STAGE_BYTES = 1.5e9
"""Memory that the processes of one running stage take beside its model: measured 1.2 GB, and a margin."""


@dataclass(frozen=True)
class Workers:
    """How many workers a stage gets, from a number of parameters on: what `--workers` says."""

    most: int = 1
    fewest: int = 1
    """With how few it goes on when machines are lost."""
    per_gpu: int = 1
    """Stages of one worker that share a GPU."""
    params: float = 0.0


@dataclass(frozen=True)
class Resources:
    """What one stage gets."""

    workers: int
    """At most."""
    min_workers: int
    """With how few it goes on when machines are lost."""
    per_worker: dict[str, float]
    generators: int
    generator_cpus: float
    """0 where training takes the CPUs: a share of its own could starve and hang the stage (Ray waits in silence)."""
    generator_gpus: float = 0.0
    gpu_share: float = 1.0
    """Of a worker's GPU; the rest is other stages'."""
    in_trial: bool = False
    """Whether it runs, and generates, in the process of its trial."""
    shares: bool = False
    """Whether it takes of what is free when it begins, from its fewest workers to its most, and keeps that."""

    @property
    def elastic(self) -> bool:
        return self.min_workers < self.workers

    def generators_for(self, workers: int) -> int:
        """Generators that a stage has room for when it runs on `workers`."""
        return min(self.generators, workers)

    def footprint(self, workers: int) -> dict[str, float]:
        """Everything that one running stage of `workers` workers holds."""
        held = {name: amount * workers for name, amount in self.per_worker.items()}
        for name, amount in (("CPU", self.generator_cpus), ("GPU", self.generator_gpus)):
            held[name] = held.get(name, 0.0) + self.generators_for(workers) * amount
        return {name: amount for name, amount in held.items() if amount > 0}


@dataclass(frozen=True)
class Allotment:
    """What every stage of a plan gets, and how many run at once."""

    of: Mapping[str, Resources]
    """By digest."""
    cluster: Mapping[str, float]
    """What the cluster has, or can grow to."""
    concurrent: float
    """Stages at once, at most."""

    def fits(self, live: Collection[str], address: str) -> bool:
        """Whether the stage can start beside those that are `live`: they are counted with all their workers, and it
        with its fewest."""
        of = self.of[address]
        return self._fits(live, of.footprint(of.min_workers)) and len(live) + 1 <= self.concurrent

    def sharing(self, live: Collection[str], address: str, among: int) -> "Allotment":
        """The same, with an equal part for the stage, which fits, of what is free beside those that are `live`, as if
        `among` stages like it were to begin now."""
        of = self.of[address]
        together = min(among, self.concurrent - len(live))
        workers = of.min_workers
        while workers < of.workers and self._fits(live, of.footprint(math.ceil((workers + 1) * together))):
            workers += 1
        return replace(self, of={**self.of, address: replace(of, workers=workers)})

    def _fits(self, live: Collection[str], more: Mapping[str, float]) -> bool:
        held = [self.of[d].footprint(self.of[d].workers) for d in live]
        return all(
            need + sum(each.get(name, 0.0) for each in held) <= self.cluster.get(name, 0.0) + 1e-9
            for name, need in more.items()
        )

    def at_once(self, addresses: Iterable[str]) -> int:
        """How many of these stages, taken in their order, run at once; a stage that comes twice counts twice."""
        live: list[str] = []
        for address in addresses:
            if self.fits(live, address):
                live.append(address)
        return len(live)


def allot(
    cluster: Mapping[str, float],
    stages: Mapping[str, Stage],
    asked: Sequence[Workers] = (Workers(),),
    concurrent: int | None = None,
    generator_gpus: float = 0.0,
    in_trial: bool = False,
) -> Allotment:
    """Resources for `stages` on a cluster that has (or can grow to) `cluster`. A stage gets what the last entry of
    `asked` says whose `params` it has; with `in_trial`, stages of one worker run in the process of their trial.

    Evaluations share what is free, a shard of their problems on a worker like those of the stage that is asked.

    As many stages run at once as fit. Raises InputError, with the numbers, where a stage does not fit alone or its
    batch cannot be cut into equal shares for its workers.
    """
    of = {}
    for address, stage in stages.items():
        if isinstance(stage, Train):
            workers = _asked_for(stage, asked)
            _check_divides(stage, workers.most)
            of[address] = resources(cluster, workers, generator_gpus, in_trial and workers.most == 1)
        elif isinstance(stage, Evaluate) and isinstance(stage.train, Train):
            of[address] = sharing(cluster, _asked_for(stage.train, asked), in_trial)
        else:
            of[address] = resources(cluster, Workers())
    beside = math.inf if in_trial else max(1.0, cluster.get("memory", math.inf) / STAGE_BYTES)
    return Allotment(of, cluster, min(beside, concurrent or math.inf))


def resources(
    cluster: Mapping[str, float], asked: Workers, generator_gpus: float = 0.0, in_trial: bool = False
) -> Resources:
    """What a stage of `asked` workers gets. A generator can have a share, `generator_gpus`, of the GPU of a worker.
    Raises InputError, with the numbers, where not even the fewest workers fit the cluster."""
    gpus = cluster.get("GPU", 0.0) > 0
    way_out = "use a share of a worker's GPU in [0, 1)" if gpus else "use 0: the cluster has no GPU"
    require(0 <= generator_gpus < (1 if gpus else 1e-9), "generator_gpus", generator_gpus, way_out)
    require(gpus or asked.per_gpu == 1, "workers", f"1/{asked.per_gpu}", "use whole workers: the cluster has no GPU")
    share = 1 / asked.per_gpu
    # Stages that share a GPU share what else there is of it, so that CPUs do not forbid what a GPU has room for.
    per_worker = {"CPU": share, "GPU": share * (1.0 - generator_gpus)} if gpus else {"CPU": 1.0}
    streams = gpus and not in_trial
    stage = Resources(
        workers=asked.most,
        min_workers=asked.fewest,
        per_worker=per_worker,
        generators=asked.most if gpus else 1,
        generator_cpus=share if streams else 0.0,
        generator_gpus=share * generator_gpus,
        gpu_share=share,
        in_trial=in_trial,
    )
    for name, need in stage.footprint(asked.fewest).items():
        have = cluster.get(name, 0.0)
        if have < need:
            wanted = f"{asked.fewest}:{asked.most}" if stage.elastic else asked.most
            raise InputError(
                f"workers = {wanted}: one stage needs {need:g} {name} and the cluster has {have:g}; "
                f"ask for fewer --workers or a larger cluster"
            )
    return stage


def sharing(cluster: Mapping[str, float], asked: Workers, in_trial: bool = False) -> Resources:
    """What a stage gets whose work is cut into shards, one to each of any number of workers like those of `asked`: one
    worker, and as many as there is room for; with `in_trial` the process of its trial alone."""
    one = replace(resources(cluster, Workers(per_gpu=asked.per_gpu), in_trial=in_trial), generators=0)
    if in_trial:
        return one
    most = min(int(cluster.get(name, 0.0) / amount + 1e-9) for name, amount in one.footprint(1).items())
    return replace(one, workers=most, shares=True)


def _asked_for(stage: Train, asked: Sequence[Workers]) -> Workers:
    """What the last entry of `asked` says whose parameters `stage` has."""
    params = stage.model.params(stage.io_width)
    return [w for w in asked if w.params <= params][-1]


def _check_divides(stage: Train, workers: int) -> None:
    """Raise InputError where the batch cannot be cut into equal shares."""
    if stage.recipe.batch % workers:
        raise InputError(
            f"workers = {workers}: does not divide Recipe.batch = {stage.recipe.batch}; choose a number that does"
        )
