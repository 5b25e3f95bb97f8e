"""From what a cluster has to what a stage gets: one function for a laptop, a GPU box and a cluster."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.errors import InputError, require
from harness.specs import Stage, Train

STAGE_BYTES = 1.5e9
"""Memory that the processes of one running stage take beside its model: measured 1.2 GB, and a margin."""


@dataclass(frozen=True)
class Resources:
    """What each stage gets, and how many run at once."""

    workers: int
    per_worker: dict[str, float]
    generators: int
    generator_cpus: float
    """0 where training takes the CPUs: a share of its own could starve and hang the stage (Ray waits in silence)."""
    concurrent: int
    generator_gpus: float = 0.0

    @property
    def footprint(self) -> dict[str, float]:
        """Everything that one running stage holds."""
        held = {name: amount * self.workers for name, amount in self.per_worker.items()}
        for name, amount in (("CPU", self.generator_cpus), ("GPU", self.generator_gpus)):
            held[name] = held.get(name, 0.0) + self.generators * amount
        return held


def allot(
    cluster: Mapping[str, float], workers: int = 1, concurrent: int | None = None, generator_gpus: float = 0.0
) -> Resources:
    """Resources for stages of `workers` workers on a cluster that has (or can grow to) `cluster`.

    A generator can have a share, `generator_gpus`, of the GPU of a worker. Raises InputError, with the numbers, where
    not even one stage fits.
    """
    gpus = cluster.get("GPU", 0.0) > 0
    way_out = "use a share of a worker's GPU in [0, 1)" if gpus else "use 0: the cluster has no GPU"
    require(0 <= generator_gpus < (1 if gpus else 1e-9), "generator_gpus", generator_gpus, way_out)
    per_worker = {"CPU": 1.0, "GPU": 1.0 - generator_gpus} if gpus else {"CPU": 1.0}
    stage = Resources(workers, per_worker, workers if gpus else 1, 1.0 if gpus else 0.0, 1, generator_gpus)
    fit = max(1.0, cluster.get("memory", math.inf) / STAGE_BYTES)
    for name, need in stage.footprint.items():
        if need > 0:
            have = cluster.get(name, 0.0)
            if have < need:
                raise InputError(
                    f"workers = {workers}: one stage needs {need:g} {name} and the cluster has {have:g}; "
                    f"ask for fewer --workers or a larger cluster"
                )
            fit = min(fit, math.floor(have / need + 1e-9))
    return replace(stage, concurrent=int(min(fit, concurrent or fit)))


def check_divides(stages: Iterable[Stage], workers: int) -> None:
    """Raise InputError where a stage's batch cannot be cut into equal shares for `workers` workers."""
    for stage in stages:
        if isinstance(stage, Train) and stage.recipe.batch % workers:
            raise InputError(
                f"workers = {workers}: does not divide Recipe.batch = {stage.recipe.batch}; choose a number that does"
            )
