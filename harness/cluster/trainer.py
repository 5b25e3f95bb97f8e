"""Ray Train's trainer, less the processes that every stage would wait for anew."""

import asyncio
import functools
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from harness.cluster import spares


class Ranks(WorkerGroup):
    """Workers that are ended, and their CPUs freed, where their start fails: Ray leaves some of those to the end of the
    controller's process, and this one goes on."""

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            if self.has_started():
                self.shutdown()
            raise


class Controller(TrainController):
    worker_group_cls = Ranks


class Cleaner(PlacementGroupCleanerCallback):
    """The process that frees the CPUs of the ranks of a controller that died: one for all stages of this process, at
    whose end it ends too, where Ray has one a stage."""

    def after_controller_start(self, train_run_context: Any) -> None:
        if self._cleaner is None:
            super().after_controller_start(train_run_context)

    def _stop_cleaner(self) -> None:
        pass


cleaner = functools.cache(Cleaner)


class Helpers(WorkerGroupCallback):
    """Has processes ready for what the next stage starts on this machine: what its ranks meet at, and three of Ray
    Data where this one has needed them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        spares.start(self.count)


class Trainer(TorchTrainer):
    """A trainer whose controller runs in this process, the trial's. Ray would start an actor for it: one more process
    that imports everything before a worker can start."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        kept = [c for c in made if not isinstance(c, PlacementGroupCleanerCallback)]
        if not self.datasets:
            kept = [c for c in kept if not isinstance(c, DatasetsCallback)]
        return [cleaner(), *kept, Helpers(4 if self.datasets else 1)]

    def _initialize_and_run_controller(self, **settings: Any) -> ray.train.Result:
        controller = Controller(**settings)
        asyncio.run(controller.run())
        return controller.get_result()
