"""A study on a cluster that has no machines until a stage wants them. Ray's autoscaler is a real one; the machines that
its fake provider starts are raylets of this one."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import plan as plans
from harness import space
from harness.cluster import growth
from harness.store import Store
from tests.chaos import Driver, differences, kill, tree
from tests.test_faults import twin

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

SPACE = '''
"""Does it run where there is nothing yet?"""
from ray import tune
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)


def scratch(seed):
    source = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)
    recipe = Recipe(lr=1e-2, batch=6)
    return Train(Corpus(source, seed, epochs=99), 40 * 6 * 32, MODEL, recipe, seed, Evaluation(4, 8))


study = Study("growing", __doc__, scratch, [], {{"seed": tune.grid_search([0])}})
'''

CLUSTER = """
cluster_name: growing
max_workers: 3
upscaling_speed: 1.0
idle_timeout_minutes: 0.1

# By Ray's own name for this provider, fake_multinode, autoscaler v2 ends at once: Ray's wheel lacks a file of it.
# Without the address, machines look for their head at Ray's default port, and the autoscaler waits for them.
provider:
  type: external
  module: ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider
  head_node_id: {head}
  gcs_address: {address}
  launch_multiple: true

available_node_types:
  ray.head.default: {{resources: {{CPU: 0}}, node_config: {{}}, max_workers: 0}}
  cpu: {{resources: {{CPU: 1, object_store_memory: 100000000}}, node_config: {{}}, max_workers: 3}}
head_node_type: ray.head.default

# What Ray fills in for its own providers.
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
cluster_synced_files: []
"""

HEAD = "f" * 51 + "00000"
"""Of the form of a node's id; the fake provider counts on from it."""


@pytest.fixture
def study(tmp_path: Path) -> str:
    text = tmp_path / "text"
    text.mkdir()
    for i in range(20):
        (text / f"{i}.txt").write_text("\n".join(f"{k} times {i} is {k * i}" for k in range(100)))
    file = tmp_path / "growing.py"
    file.write_text(SPACE.format(text=str(text)))
    return str(file)


class Growing:
    """A head that only drives, and an autoscaler that starts up to three machines of one CPU."""

    def __init__(self, file: Path) -> None:
        import ray
        from ray.cluster_utils import Cluster

        with socket.create_server(("", 0)) as listener:
            port = listener.getsockname()[1]
        address = f"{ray.util.get_node_ip_address()}:{port}"
        file.write_text(CLUSTER.format(head=HEAD, address=address))
        self.cluster = Cluster(
            True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": True,
                "gcs_server_port": port,
                "autoscaling_config": str(file),
                "env_vars": {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_CLOUD_INSTANCE_ID": HEAD},
            },
        )

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def machines(self) -> int:
        """How many there are beside the head; every one has a raylet."""
        return sum(p.name() == "raylet" for p in psutil.Process().children(recursive=True)) - 1

    def shutdown(self) -> None:
        """The autoscaler goes first, and what it started: told to end, a machine waits half a minute for its head."""
        (monitor,) = self.cluster.head_node.all_processes["monitor"]
        for process in tree(psutil.Process(monitor.process.pid)):
            kill(process)
        self.cluster.shutdown()


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Growing]:
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    monkeypatch.setenv("RAY_enable_autoscaler_v2", "1")  # the default of `ray up` and KubeRay
    cluster = Growing(tmp_path / "growing.json")
    yield cluster
    cluster.shutdown()


def test_machines_come_when_a_stage_wants_them_and_go_when_none_does(
    growing: Growing, study: str, tmp_path: Path
) -> None:
    assert growth.of_autoscaler(growing.address) == {"CPU": 3, "object_store_memory": 3e8}
    assert growing.machines() == 0
    store, plan = Store(tmp_path / "store"), plans.make(space.load(study))
    most = 0
    with Driver(study, store, growing.address, tmp_path / "driver.log", "--workers", "2") as driver:
        while driver.ended() is None:
            most = max(most, growing.machines())
            time.sleep(1)
        assert driver.ended() == 0, driver.log.read_text()[-3000:]
    assert most == 2
    assert differences(plan, store, twin(plan, tmp_path / "twin", world=2)) == []
    while growing.machines():
        time.sleep(1)
