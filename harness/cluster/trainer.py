"""Ray Train's trainer, less the processes that every stage would wait for anew."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.controller import TrainControllerLoopIterationResult
from ray.train.v2._internal.execution.controller.state import FinishedState, ShuttingDownState
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle

from harness.cluster import failures, spares

ASKED_S = 1.0
"""How often it is asked, while machines are waited for, whether the run is to stop."""


class Awaited(PlacementGroupHandle):
    """Machines that are waited for until the run is to stop."""

    def __init__(self, of: PlacementGroupHandle, stopping: Callable[[], bool]) -> None:
        self.of, self.stopping = of, stopping

    @property
    def placement_group(self) -> Any:
        return self.of.placement_group

    def ready(self) -> Any:
        return self.of.ready()

    def wait(self, timeout_seconds: float = 30) -> bool:
        until = time.monotonic() + timeout_seconds
        while not self.stopping() and (left := until - time.monotonic()) > 0:
            if self.of.wait(min(ASKED_S, left)):
                return True
        return False

    def shutdown(self) -> None:
        self.of.shutdown()


class Ranks(WorkerGroup):
    """Workers whose machines are waited for until the run is to stop; and that are ended, and their CPUs freed, where
    their start fails: Ray leaves some of those to the end of the controller's process, and this one goes on."""

    stopping: Callable[[], bool]

    def _create_placement_group(self, *of: Any) -> PlacementGroupHandle:
        return Awaited(super()._create_placement_group(*of), self.stopping)

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            if self.has_started():
                self.shutdown()
            raise


class Controller(TrainController):
    stopping: Callable[[], bool]

    def _make_and_handle_scaling_decision_for_non_running_worker_group(self, state: Any) -> Any:
        """What is done while no ranks run: when the run is to stop, the end, as if they had said so."""
        if self.stopping():
            self._return_value = failures.STOPPED
            end = ShuttingDownState(next_state=FinishedState())
            return TrainControllerLoopIterationResult(self._get_run_attempt_id(), state, end)
        decided = super()._make_and_handle_scaling_decision_for_non_running_worker_group(state)
        if decided.next_state is state:  # too few machines for the fewest workers; Ray would ask again at once
            time.sleep(ASKED_S)
        return decided


class Cleaner(PlacementGroupCleanerCallback):
    """The process that frees the CPUs of the ranks of a controller that died: one for all stages of this process, at
    whose end it ends too, where Ray has one a stage."""

    def after_controller_start(self, train_run_context: Any) -> None:
        with contextlib.suppress(RayActorError):
            if self._cleaner is not None and ray.get(self._cleaner.start_monitoring.remote()):
                return  # it does already
        super().after_controller_start(train_run_context)

    def _stop_cleaner(self) -> None:
        pass


cleaner = functools.cache(Cleaner)


class Helpers(WorkerGroupCallback):
    """Has processes ready for what the next stage starts beside its controller, once the ranks of this one have
    measured their machine: what ranks meet at, and two of Ray Data where this stage has needed them."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, False

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self.asked = False

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        if not self.asked and any(s.training_report for s in worker_group_status.worker_statuses.values()):
            self.asked = True
            spares.start(self.count)


class Trainer(TorchTrainer):
    """A trainer whose controller runs in this process, the trial's. Ray would start an actor for it: one more process
    that imports everything before a worker can start. It waits for machines until `stopping`; then what it returns
    is failures.STOPPED."""

    def __init__(self, *args: Any, stopping: Callable[[], bool], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stopping = stopping

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        kept = [c for c in made if not isinstance(c, PlacementGroupCleanerCallback)]
        if not self.datasets:
            kept = [c for c in kept if not isinstance(c, DatasetsCallback)]
        return [cleaner(), *kept, Helpers(3 if self.datasets else 1)]

    def _initialize_and_run_controller(self, **settings: Any) -> ray.train.Result:
        class Own(Ranks):
            stopping = staticmethod(self.stopping)

        controller = Controller(**settings)
        controller.worker_group_cls, controller.stopping = Own, self.stopping
        asyncio.run(controller.run())
        return controller.get_result()
