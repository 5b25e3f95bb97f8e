"""Processes that are started ahead: a rank finds one, and nothing that they import asks for GPUs."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

ASKING = """
import torch
asked = []
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, lambda *args, name=name, **kwargs: asked.append(name) or 0)
from harness.cluster import spares
spares.imports()
import sys
assert "harness.llama" in sys.modules and "harness.cluster.train" in sys.modules
print(asked)
"""


def test_what_is_imported_ahead_asks_for_no_gpu() -> None:
    """Else CUDA would keep to the GPUs that the process sees before Ray gives it its own."""
    done = subprocess.run([sys.executable, "-c", ASKING], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_hook_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cluster import spares

    (name,) = spares.environment()
    monkeypatch.setenv(name, "somebody.elses")
    assert spares.environment() == {}


@pytest.fixture
def ray_here() -> Iterator[Any]:
    import ray

    from harness.cluster import sweep

    sweep.connect(2)
    yield ray
    ray.shutdown()


class Rank:
    def started(self) -> float:
        import psutil

        return float(psutil.Process().create_time())

    def asks(self) -> None:
        from harness.cluster import spares

        spares.start()


@pytest.mark.ray
def test_the_next_rank_finds_a_process_that_was_started_ahead(ray_here: Any) -> None:
    import psutil

    from harness.cluster import spares

    def processes() -> set[int]:
        return {p.pid for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::")}

    ranks = ray_here.remote(num_cpus=1, runtime_env={"env_vars": spares.environment()})(Rank)
    first = ranks.remote()
    ray_here.get(first.started.remote())
    before = processes()
    ray_here.get(first.asks.remote())
    while not processes() - before:
        time.sleep(0.1)
    ray_here.kill(first)
    time.sleep(0.5)
    asked = time.time()
    assert ray_here.get(ranks.remote().started.remote()) < asked - 0.5
