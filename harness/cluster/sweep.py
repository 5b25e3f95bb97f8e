"""Ray Tune: one Tuner whose searcher walks the stage graph. A trial is a small driver that runs one stage."""

import copy
import os
import secrets
import shutil
import sys
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from harness import failure
from harness.cluster import nodes, trial
from harness.cluster.resources import Allotment
from harness.cluster.schedulers import KeepStarting, ending, without_meter
from harness.cost import cost
from harness.limits import Limit, Meter
from harness.outcome import Outcome, standing
from harness.plan import Plan, label
from harness.space import MODULE_PREFIX
from harness.store import Store
from harness.url import UrlError
from harness.worker import Options

RESTARTS = 100
"""Of a trial whose machine went; harness.cluster.starts ends those that do not get further."""


class StageSearcher(Searcher):
    """Hands out a stage when everything that it reads is in the store and there is room for it: no waves, no locks,
    each stage once. It keeps no state that the store does not have, so a restart is a re-run.

    The first of the ready is waited for even where a smaller one would fit: else a large one might never start."""

    def __init__(
        self, plan: Plan, pending: list[str], outcome: Outcome, store: Store, allotment: Allotment, meter: Meter
    ) -> None:
        super().__init__()
        self.pending = pending
        self.needs = plan.needs
        self.labels = {address: label(plan.stages[address]) for address in pending}
        self.allotment = allotment
        self.outcome = outcome
        self.store = store
        self.meter = meter
        self.live: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        if self.meter.reached:
            return Searcher.FINISHED
        self.outcome.block(self.needs)
        self.pending = self.outcome.left(self.pending)
        live = self.live.values()
        waiting = [address for address in self.pending if address not in live]
        ready = next((address for address in waiting if self.needs[address] <= self.outcome.finished), None)
        if ready is not None and self.allotment.fits(live, ready):
            if self.allotment.of[ready].shares:
                among = sum(self.needs[address] <= self.outcome.finished for address in waiting)
                self.allotment = self.allotment.sharing(live, ready, among)
            self.live[trial_id] = ready
            given = self.allotment.of[ready]
            self.meter.begins(ready, given.workers, given.gpu_share)
            return {"stage": ready, "label": self.labels[ready], "workers": given.workers}
        return None if waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        address, told = self.live.pop(trial_id, None), result or {}
        if address is None:
            return
        if (status := told["status"] if told.get("stage") == 1 else self._status(address)) is not None:
            self.outcome.settle(address, status)
        elif error or "failed" in told:
            self.outcome.failed[address] = told.get("failed", "stopped")
        self.meter.ends(address)

    def _status(self, address: str) -> str | None:
        """Of a stage that another driver may have published meanwhile."""
        try:
            manifest = self.store.manifest(address)
        except UrlError:  # the store is away; the stage is handed out again, and finds itself if it is there
            return None
        return None if manifest is None else manifest["status"]

    def __getstate__(self) -> dict[str, Any]:
        return without_meter(self)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store says what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def register_spaces() -> None:
    """Let classes of the loaded search spaces travel to workers, which cannot import the file."""
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULE_PREFIX):
            ray.cloudpickle.register_pickle_by_value(module)


def run(plan: Plan, store: Store, allotment: Allotment, options: Options, meter: Meter | None = None) -> Outcome:
    """Run every stage of `plan` that the store lacks, until the limit of `meter`, if there is one, is reached."""
    store.check()
    meter = meter or Meter(Limit(), store, store.scratch / "stop")
    outcome = standing(plan.needs, store)
    pending = outcome.left(by_longest_chain(plan))
    if not pending:
        return outcome
    nodes.check(store)
    searcher = StageSearcher(plan, pending, outcome, store, allotment, meter)
    register_spaces()
    count = len(pending)
    name = f"{plan.study.name}-{os.getpid()}"
    one = tune.with_parameters(
        trial.run,
        stages=plan.stages,
        store=store,
        of=allotment.of,
        options=options,
        run_id=secrets.token_hex(4),
        tell=bool(plan.study.callbacks),
    )
    results = tune.Tuner(
        tune.with_resources(one, lambda config: trial.resources(allotment.of[config["stage"]])),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=ending(KeepStarting(), meter),
            num_samples=-1,  # until the searcher has no more
            max_concurrent_trials=count,  # the searcher knows how many fit; else Tune starts one at a time
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(store.runs.resolve()),
            verbose=0,
            callbacks=copy.deepcopy(list(plan.study.callbacks)),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
        ),
    ).fit()
    for result in results:
        if result.error is not None and result.config is not None and result.config["stage"] in outcome.failed:
            outcome.failed[result.config["stage"]] = failure.root_message(result.error)
    shutil.rmtree(store.runs / name, ignore_errors=True)
    return outcome


def by_longest_chain(plan: Plan) -> list[str]:
    """Stages, those first from which the most FLOPs follow one after another."""
    starts = {d: plan.stages[s] for d, s in plan.starts.items()}
    own = {address: cost([stage], starts).flops for address, stage in plan.stages.items()}
    below = dict(own)
    for address, needed in reversed(plan.needs.items()):  # children come after their parents in a plan
        for parent in needed:
            below[parent] = max(below[parent], below[address] + own[parent])
    return sorted(plan.stages, key=lambda d: -below[d])
