"""Ray Tune: one Tuner whose searcher walks the stage graph. A trial is a small driver that runs one stage."""

import functools
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import ray
import ray.util.state
from ray import tune
from ray.tune.search import Searcher

from harness.cluster import SETTINGS, data, train
from harness.cluster.resources import Resources, allot, check_divides
from harness.outcome import Outcome, needs, standing
from harness.plan import Plan
from harness.space import MODULE_PREFIX
from harness.specs import Stage, Train, digest, parents
from harness.stages import check_budget, open_reader, run_stored
from harness.store import Store

HEAD = {"node:__internal_head__": 0.001}
"""A trial only drives: it sits on the head node and takes no CPU from training."""


class StageSearcher(Searcher):
    """Hands out a stage when everything that it reads is in the store: no waves, no locks, each stage once. It keeps
    no state that the store does not have, so a restart is a re-run."""

    def __init__(self, pending: list[str], needs: Mapping[str, set[str]], outcome: Outcome, store: Store) -> None:
        super().__init__(metric="stage", mode="max")
        self.pending = pending
        self.needs = needs
        self.outcome = outcome
        self.store = store
        self.live: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        self.outcome.block(self.needs)
        self.pending = self.outcome.left(self.pending)
        for address in self.pending:
            if self.needs[address] <= self.outcome.finished and address not in self.live.values():
                self.live[trial_id] = address
                return {"stage": address}
        waiting = [address for address in self.pending if address not in self.live.values()]
        return None if waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        address = self.live.pop(trial_id, None)
        if address is None:
            return
        manifest = self.store.manifest(address)
        if manifest is None:
            self.outcome.failed[address] = "stopped"
        else:
            self.outcome.settle(address, manifest["status"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store says what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def connect(cpus: int | None = None) -> None:
    """Join the cluster of the job that this process belongs to, or start one of this machine."""
    if ray.is_initialized():
        return
    # A failed stage is told in one line at the end; Tune would print its traceback as it goes.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", runtime_env={"env_vars": {name: os.environ[name] for name in SETTINGS}}, **quiet)
    else:
        # The dashboard frees the placement groups of stopped trials; without it their CPUs never come back.
        ray.init(address="local", num_cpus=cpus, include_dashboard=True, **quiet)
    ray.util.state.list_nodes(timeout=30)


def register_spaces() -> None:
    """Let classes of the loaded search spaces travel to workers, which cannot import the file."""
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULE_PREFIX):
            ray.cloudpickle.register_pickle_by_value(module)


def run(plan: Plan, store: Store, resources: Resources, checkpoint_every_s: float) -> Outcome:
    """Run every stage of `plan` that the store lacks."""
    store.check()
    outcome = standing(plan.stages, store)
    pending = outcome.left(by_longest_chain(plan))
    if not pending:
        return outcome
    searcher = StageSearcher(pending, needs(plan.stages), outcome, store)
    register_spaces()
    count = len(pending)
    name = f"{plan.study.name}-{os.getpid()}"
    trial = tune.with_parameters(_trial, stages=plan.stages, store=store, resources=resources, every=checkpoint_every_s)
    results = tune.Tuner(
        tune.with_resources(trial, HEAD),
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=count, max_concurrent_trials=resources.concurrent, reuse_actors=True
        ),
        run_config=tune.RunConfig(name=name, storage_path=str((store.scratch / "tune").resolve()), verbose=0),
    ).fit()
    for result in results:
        if result.error is not None and result.config is not None and result.config["stage"] in outcome.failed:
            outcome.failed[result.config["stage"]] = reason(result.error)
    shutil.rmtree(store.scratch / "tune" / name, ignore_errors=True)
    return outcome


def _trial(
    config: dict[str, Any], stages: dict[str, Stage], store: Store, resources: Resources, every: float
) -> dict[str, Any]:
    """Run one stage, unless another driver on this store was first."""
    stage = stages[config["stage"]]
    address = digest(stage)
    if store.open(address) is None:
        if isinstance(stage, Train):
            check_budget(stage, open_reader(stage, store))
            train.fit(stage, store, resources, every)
        else:
            write = functools.partial(data.tokenise, cpus=resources.generator_cpus)
            run_stored(stage, store, write, executed="ray")
    manifest = store.manifest(address)
    assert manifest is not None
    return {"stage": 1, "status": manifest["status"], "loss_nats": manifest.get("held_out", {}).get("loss_nats")}


def by_longest_chain(plan: Plan) -> list[str]:
    """Stages, those first from which the most FLOPs follow one after another."""
    below = {d: s.flops if isinstance(s, Train) else 0 for d, s in plan.stages.items()}
    for address, stage in reversed(plan.stages.items()):  # children come after their parents in a plan
        for parent in parents(stage).values():
            own = plan.stages[digest(parent)]
            below[digest(parent)] = max(
                below[digest(parent)], below[address] + (own.flops if isinstance(own, Train) else 0)
            )
    return sorted(plan.stages, key=lambda d: -below[d])


def reason(error: BaseException) -> str:
    """What went wrong in one line, without Ray's wrapping."""
    text = str(error)
    if train.StageFailed.__name__ in text:
        return text.split(f"{train.StageFailed.__name__}: ", 1)[-1].splitlines()[0]
    return train.root_message(error)


def admit(plan: Plan, workers: int, concurrent: int | None, generator_gpus: float = 0.0) -> Resources:
    """What every stage gets on the cluster that is connected; raises InputError before anything starts."""
    check_divides(plan.stages.values(), workers)
    return allot(most_resources(), workers, concurrent, generator_gpus)


def most_resources() -> dict[str, float]:
    """What the cluster has or, with an autoscaler, can grow to; an idle cluster may have a head alone."""
    here = ray.cluster_resources()
    # Ray has no public call for it; Ray Train asks in the same way.
    limit = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return {name: max(here.get(name, 0.0), limit.get(name, 0.0)) for name in {*here, *limit}}
