"""What a result was made with: commit, versions, hardware."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "numba", "ray")


@functools.cache
def commit() -> str | None:
    """The checked-out commit of this project, with '+' if the tree has changes. Outside a checkout, as on a cluster
    that got a copy, $NCA_COMMIT, else None."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return os.environ.get("NCA_COMMIT")
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result can depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def cpu() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware(device: str) -> dict[str, Any]:
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    return {"cpu": cpu(), "gpu": gpu}
