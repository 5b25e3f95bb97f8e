"""Which trial Tune starts next, and which it ends when the run is to stop."""

import copy
import time
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from harness.limits import Meter

START_S = 30
"""Longer than a process takes to start."""


class KeepStarting(FIFOScheduler):
    """Tune's own moves a trial whose process is starting into one that becomes free, and ends the new process: stages
    that take less than such a start would all run one after another. This one names only trials that wait for longer,
    so for a machine; else Tune gives what is free to a trial without a process, and to one whose process is starting if
    there is no other."""

    def __init__(self) -> None:
        super().__init__()
        self.added: dict[str, float] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.added[trial.trial_id] = time.monotonic()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        before = time.monotonic() - START_S
        pending = (trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING)
        return next((trial for trial in pending if self.added[trial.trial_id] < before), None)


class Ending(TrialScheduler):
    """What `ending` adds to a scheduler."""

    meter: Meter
    began: set[str]
    """Trials that have run, by their ids."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        trials = tune_controller.get_trials()
        self.began |= {trial.trial_id for trial in trials if trial.status == Trial.RUNNING}
        if not self.meter.reached:
            return super().choose_trial_to_run(tune_controller)
        for trial in trials:
            if trial.status not in (Trial.PENDING, Trial.PAUSED):
                continue
            if trial.trial_id in self.began:
                tune_controller.stop_trial(trial)
                continue
            # The same but for callbacks: loggers know only trials that began.
            trial.init_local_path()  # whoever reads results asks for it
            tune_controller.search_alg.on_trial_complete(trial.trial_id)
            tune_controller._tune_controller._schedule_trial_stop(trial)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return without_meter(self)


def ending(scheduler: TrialScheduler | None, meter: Meter) -> TrialScheduler:
    """A copy of `scheduler`, Tune's own if there is none, under which trials that wait, for a process or a machine, end
    when the run is to stop."""
    own = copy.deepcopy(scheduler) if scheduler is not None else FIFOScheduler()
    own.__class__ = type(type(own).__name__, (Ending, type(own)), {})
    own.meter, own.began = meter, set()
    return own


def without_meter(of: object) -> dict[str, Any]:
    """The state of what has one, for the file that Tune writes and nobody reads: a meter has a thread."""
    return {name: value for name, value in vars(of).items() if name != "meter"}
