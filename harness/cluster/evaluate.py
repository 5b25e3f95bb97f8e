"""Evaluations on Ray: the shards of the problems are dealt out to actors, each of which has the model."""

import functools
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import ray
import ray.exceptions

from harness.asking import asking
from harness.cluster import failures, starts
from harness.cluster.resources import Resources
from harness.reasoning.run import Executor, evaluate
from harness.reasoning.shards import Answerer, Shard
from harness.reasoning.spec import Evaluate, Means
from harness.store import Store
from harness.worker import Options

TICK_S = 1.0
"""How often it is looked whether the stage is to stop."""


def run(stage: Evaluate, store: Store, of: Resources, options: Options) -> None:
    """Run an evaluation.

    Raises StageFailed where its workers die again and again; Stopped."""
    gpu = of.per_worker.get("GPU", 0.0) > 0
    means = options.means._replace(device="cuda:0" if gpu else "cpu", threads=None if gpu else 1)
    by = Executor("trial") if of.in_trial else Executor("ray", functools.partial(answer, of), of.workers)
    evaluate(stage, store, means, by=by, stop=asking(store, lambda: options.stopping))


class Examinee:
    """An actor that answers shards. Its model is loaded with the first, so that what is wrong with it is told."""

    def __init__(self, stage: Evaluate, store: Store, means: Means) -> None:
        self.open = functools.cache(lambda: Answerer(stage, store, means))
        self.store = store

    def answer(self, shard: Shard) -> int:
        """The number of problems that were answered."""
        if not self.store.exists():
            raise failures.unseen(self.store, f"the machine {ray.util.get_node_ip_address()}")
        return sum(self.open().answer(shard))


def answer(
    of: Resources, stage: Evaluate, left: Sequence[Shard], store: Store, means: Means
) -> Generator[int, None, None]:
    """Answers the shards that are `left` on `of.workers` actors at once: see `harness.reasoning.run.Answer`. A shard
    whose actor died, or whose machine went, is given to another.

    Raises StageFailed where as many as starts.LIMIT died on one shard."""
    held = {"num_cpus": of.per_worker.get("CPU", 0.0), "num_gpus": of.per_worker.get("GPU", 0.0)}
    # Over all machines, and not within what the trial holds.
    actor = ray.remote(scheduling_strategy="SPREAD", **held)(Examinee)
    waiting, deaths = list(left), Counter[int]()
    idle: list[Any] = []
    running: dict[Any, tuple[Any, Shard]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < of.workers:
                worker = idle.pop() if idle else actor.remote(stage, store, means)
                shard = waiting.pop(0)
                running[worker.answer.remote(shard)] = (worker, shard)
            for done in ray.wait(list(running), timeout=TICK_S)[0]:
                worker, shard = running.pop(done)
                try:
                    count = ray.get(done)
                except ray.exceptions.RayTaskError as e:
                    raise e.cause from e
                except ray.exceptions.RayError as e:
                    deaths[shard.number] += 1
                    if deaths[shard.number] == starts.LIMIT:
                        why = f"its workers died {starts.LIMIT} times at shard {shard.number}"
                        raise failures.StageFailed(f"{why} (out of memory? see the Ray logs)") from e
                    waiting.insert(0, shard)
                else:
                    idle.append(worker)
                    yield count
            yield 0
    finally:
        for worker in (*idle, *(worker for worker, _ in running.values())):
            ray.kill(worker)
