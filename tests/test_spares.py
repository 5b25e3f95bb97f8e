"""Processes that are started ahead import what a rank needs, and nothing of it asks for GPUs."""

import subprocess
import sys

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
