"""Ray Tune where it belongs: searches of hyperparameters that stop what does badly, or learn what to try. One Tuner for
every arm and setting, so that trials are held against those of their own arm alone."""

import copy
import functools
import math
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from harness import failure, winners
from harness import plan as plans
from harness.cluster import sweep, telling, trial
from harness.cluster.resources import Allotment, Resources
from harness.cluster.schedulers import ending
from harness.errors import InputError, require
from harness.limits import Meter
from harness.outcome import Outcome
from harness.plan import Plan, Revisions
from harness.search import Cell, Search
from harness.space import Study, Trial
from harness.specs import Stage, digest
from harness.store import Store
from harness.winners import Told, Tuning
from harness.worker import Options

STOPS = (AsyncHyperBandScheduler, MedianStoppingRule)
"""Schedulers that stop trials: others change what a trial is."""

Find = Callable[[dict[str, Any]], Trial]
"""From what Tune hands to a trial to the trial of the search."""


def check(search: Search) -> None:
    """Raise InputError for what would not search as it says."""
    name = type(search.scheduler).__name__
    fits = search.scheduler is None or isinstance(search.scheduler, STOPS)
    require(fits, "Search.scheduler", name, "use one that only stops trials: ASHAScheduler, MedianStoppingRule")
    for field, value in (("search_alg", search.search_alg), ("scheduler", search.scheduler)):
        metric = getattr(value, "_metric", None)
        require(metric is None, f"Search.{field} metric", metric, "leave metric and mode out: loss_nats is minimised")


def run(
    tuning: Tuning, store: Store, allotment: Allotment, options: Options, revisions: Revisions, meter: Meter
) -> tuple[list[tuple[Trial, Told]], Outcome]:
    """What became of every trial, and of the stages that they share, which run first and are never cut. Where one of
    those failed (other than by diverging, which its trials pay for) there are no trials."""
    shared = _shared(tuning)
    outcome = sweep.run(shared, store, allotment, options, meter)
    results: list[tuple[Trial, Told]] = []
    if all(store.manifest(address) is not None for address in outcome.failed):
        for cell, trials in tuning.cells.items():
            if not meter.reached:
                results += _search(tuning, cell, trials, store, allotment, options, revisions, meter)
    return results, outcome


def _shared(tuning: Tuning) -> Plan:
    """What is known before any trial: with a `search_alg`, what all trials of a cell have in common; else everything
    but the last stage of every trial."""
    known: dict[str, Stage] = {}
    last = {digest(t.point.train) for t in tuning.trials}
    for trials in tuning.cells.values():
        each = [plans.distinct_stages([t.point.train]) for t in trials]
        for address, stage in (item for one in each for item in one.items()):
            common = tuning.search.search_alg is None or all(address in one for one in each)
            if common and address not in last:
                known[address] = stage
    return replace(tuning.plan, stages=known, starts={})


def _search(
    tuning: Tuning,
    cell: Cell,
    trials: Sequence[Trial],
    store: Store,
    allotment: Allotment,
    options: Options,
    revisions: Revisions,
    meter: Meter,
) -> list[tuple[Trial, Told]]:
    """The search of one cell."""
    search = tuning.search
    if search.search_alg is None:
        find: Find = functools.partial(_numbered, tuple(trials))
        space: dict[str, Any] = {"number": tune.grid_search(list(range(len(trials))))}
    else:
        find = functools.partial(_suggested, _light(tuning.study), cell, search.seeds[0], revisions)
        space = dict(search.over)
    sweep.register_spaces()
    address = digest(trials[0].point.train)
    name = f"{tuning.plan.study.name}-{os.getpid()}-{secrets.token_hex(2)}"
    one = tune.with_parameters(
        _trial, find=find, store=store, of=allotment.of[address], options=options, run_id=secrets.token_hex(4)
    )
    results = tune.Tuner(
        tune.with_resources(one, trial.resources(allotment.of[address])),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="loss_nats",
            mode="min",
            search_alg=copy.deepcopy(search.search_alg),
            scheduler=ending(search.scheduler, meter),
            num_samples=1 if search.search_alg is None else len(trials),
            max_concurrent_trials=max(1, allotment.at_once([address] * len(trials))),
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(store.runs.resolve()),
            verbose=0,
            callbacks=[_Metered(meter, find, allotment.of[address]), *copy.deepcopy(list(tuning.study.callbacks))],
            failure_config=tune.FailureConfig(max_failures=sweep.RESTARTS),
        ),
    ).fit()
    # The result of a trial that told nothing does not say which one it was.
    ended = [(find(t.config), result) for t, result in zip(results._experiment_analysis.trials, results, strict=True)]
    shutil.rmtree(store.runs / name, ignore_errors=True)
    return [(tried, _told(tried, result, store)) for tried, result in ended]


class _Metered(tune.Callback):
    """Counts the time of trials."""

    def __init__(self, meter: Meter, find: Find, of: Resources) -> None:
        self.meter, self.find, self.of = meter, find, of

    def __getstate__(self) -> dict[str, Any]:
        """For the file that Tune writes and nobody reads: a meter has a thread."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.meter.begins(self._stage(trial), self.of.workers, self.of.gpu_share)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.meter.ends(self._stage(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.meter.ends(self._stage(trial))

    def _stage(self, trial: Any) -> str:
        try:
            return digest(self.find(trial.config).point.train)
        except InputError:
            return str(trial.trial_id)


def _numbered(trials: Sequence[Trial], config: dict[str, Any]) -> Trial:
    return trials[config["number"]]


def _suggested(study: Study, cell: Cell, seed: int, revisions: Revisions, config: dict[str, Any]) -> Trial:
    assert study.search is not None
    tried = study.trial(cell, {name: config[name] for name in study.search.over}, seed)
    (point,) = plans.resolved([tried.point], revisions=revisions)
    return replace(tried, point=point)


def _light(study: Study) -> Study:
    """`study` without what need not, or cannot, travel."""
    assert study.search is not None
    return replace(study, callbacks=(), search=replace(study.search, trials=1, search_alg=None, scheduler=None))


def _trial(
    config: dict[str, Any], find: Find, store: Store, of: Resources, options: Options, run_id: str
) -> dict[str, Any]:
    """Run what the store lacks of a trial; the last stage tells its curve. One that is done tells it all the same: the
    others are held against it."""
    try:
        train = find(config).point.train
    except InputError as e:  # Tune would try it again
        return {"tokens": 0, "loss_nats": math.inf, "failed": str(e)}
    stages = plans.distinct_stages([train])
    address = digest(train)
    if store.has(address):
        for row in telling.rows(train, store)[:-1]:
            tune.report(row)
    for each in stages:
        everywhere = dict.fromkeys(stages, of)
        found = trial.run({"stage": each}, stages, store, everywhere, options, run_id, tell=each == address)
        if found.get("status") != "finished":
            return {"tokens": 0, **found, "loss_nats": math.inf}
    return found


def _told(tried: Trial, result: Any, store: Store) -> Told:
    """What became of a trial: what the store says, else what it told before it was stopped."""
    known = winners.stored(tried, store)
    if known is not None:
        return known
    metrics = result.metrics or {}
    if result.error is not None or "failed" in metrics:
        why = metrics.get("failed") or failure.root_message(result.error)
        return Told("failed", why=why)
    loss = metrics.get("loss_nats", math.inf)
    if not math.isfinite(loss):
        return Told("diverged", None, metrics.get("tokens"))
    return Told("finished" if metrics.get("status") == "finished" else "cut", loss, metrics["tokens"])
