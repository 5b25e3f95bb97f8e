"""Processes that are started ahead import what a rank needs, and nothing of it asks for GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import harness

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


def test_ranks_run_this_harness_whichever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cluster import spares

    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    first, second = spares.environment()["PYTHONPATH"].split(os.pathsep)
    assert Path(first) == Path(harness.__file__).parents[1] and second == "elsewhere"


def test_a_hook_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cluster import spares

    (name,) = spares.environment().keys() - {"PYTHONPATH"}
    monkeypatch.setenv(name, "somebody.elses")
    assert spares.environment() == {}
