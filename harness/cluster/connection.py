"""How this process joins Ray, or starts it on this machine, and what there is of it."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import ray
import ray.util.state

from harness.cluster import SETTINGS, START_TIMEOUT, STORE_SETTINGS, growth

STARTS_A_CPU = 4
"""Processes that Ray may start at once."""


def connect(cpus: int | None = None) -> str | None:
    """Join the cluster of the job that this process belongs to, or start one of this machine. Returns the address of
    Ray's dashboard, unless Ray runs already."""
    if ray.is_initialized():
        return None
    # A failed stage is told in one line at the end; Tune would print its traceback as it goes.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        passed = (*SETTINGS, *STORE_SETTINGS, START_TIMEOUT, "WANDB_DIR", "WANDB_MODE")
        env = {name: os.environ[name] for name in passed if name in os.environ}
        context = ray.init(address="auto", runtime_env={"env_vars": env}, **quiet)
    else:
        own = {
            # Nobody takes this machine away, and the process that would look for it delays every start.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
            # A stage has some six processes, most of which wait: Ray starts no more than one a CPU at once, and warns.
            "RAY_worker_maximum_startup_concurrency": str(STARTS_A_CPU * (cpus or os.cpu_count() or 1)),
            # For processes that are started ahead (harness.cluster.spares); the others import it themselves.
            "RAY_preload_python_modules": "ray.train",
        }
        # The dashboard frees the placement groups of stopped trials; without it their CPUs never come back.
        with _environment(own):
            context = ray.init(address="local", num_cpus=cpus, include_dashboard=True, **quiet)
    # Asked of this instance, by its address: the machine may run others.
    ray.util.state.list_nodes(address=ray.get_runtime_context().gcs_address, timeout=30)
    return context.dashboard_url or None


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment with `variables`, but for what the user has set: for processes that are started meanwhile."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def most_resources() -> dict[str, float]:
    """What the cluster has or, with an autoscaler, can grow to; an idle cluster may have a head alone."""
    here = ray.cluster_resources()
    limit = growth.told() or growth.of_autoscaler(ray.get_runtime_context().gcs_address)
    return {name: max(here.get(name, 0.0), limit.get(name, 0.0)) for name in {*here, *limit}}
