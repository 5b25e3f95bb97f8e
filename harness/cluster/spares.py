"""Processes that wait on a machine for what the next stage starts there. Those of ranks have imported everything: to
start Python and to import Ray, torch and transformers takes longer than all else between two stages."""

import contextlib
import os
import sysconfig
from pathlib import Path

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR
from ray._private.utils import get_runtime_env_info
from ray.core.generated.common_pb2 import PYTHON
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub

KEPT_S = 600
"""How long a process waits for work: a stage that took longer does not notice that the next one starts without."""


def imports() -> None:
    """Import what a rank needs, and touch no GPU: which of them are the rank's, its process is told later."""
    with contextlib.suppress(Exception):  # the rank imports it too, and says what is wrong
        import harness.cluster.train
        import harness.llama  # noqa: F401


def environment() -> dict[str, str]:
    """Variables of the ranks' runtime environment: their processes begin with `imports`, of the harness that this one
    runs, unless the user's job has a worker_process_setup_hook, of which Ray runs one."""
    if WORKER_PROCESS_SETUP_HOOK_ENV_VAR in os.environ:
        return {}
    env = {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.{imports.__name__}"}
    root = str(Path(__file__).parents[2])
    if root != sysconfig.get_path("purelib"):  # a process learns its job's own path only with its first work
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return env


def start(count: int = 1) -> None:
    """Ask the machine of this process for `count` more like it, of its job and its runtime environment. Ray gives an
    actor a process that waits, if it has one of the actor's kind. What asks for as many as it was given itself leaves
    hardly more behind than ever ran at once."""
    with contextlib.suppress(Exception):  # else the next stage waits a little longer
        context = ray.get_runtime_context()
        node = next(n for n in ray.nodes() if n["NodeID"] == context.get_node_id())
        env = get_runtime_env_info(context.runtime_env)
        env.serialized_runtime_env = context.get_runtime_env_string()  # to the letter: Ray compares its hash
        request = PrestartWorkersRequest(
            language=PYTHON,
            job_id=bytes.fromhex(context.get_job_id()),
            runtime_env_info=env,
            keep_alive_duration_secs=KEPT_S,
            num_workers=count,
        )
        with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
            NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=5)
