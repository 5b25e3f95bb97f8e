"""What a cluster can grow to. Ray's open autoscaler tells no driver, so it is read where the autoscaler reads it."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.errors import require

GROWS_TO = "NCA_GROWS_TO"
"""Says it, as CPU=64,GPU=8, where the autoscaler's file is out of reach (KubeRay) or does not know (own machines)."""


def largest(config: Mapping[str, Any]) -> dict[str, float]:
    """The most of every resource that a cluster of Ray's `config`, defaults filled in, has when it has grown; the
    head's own too."""
    types, head = config["available_node_types"], config["head_node_type"]
    total: dict[str, float] = {}
    for name in sorted({resource for kind in types.values() for resource in kind.get("resources") or {}}):
        per_node = [
            (kind["resources"].get(name, 0), kind.get("max_workers", config["max_workers"]))
            for key, kind in types.items()
            if key != head and kind.get("resources")
        ]
        left, amount = config["max_workers"], float((types[head].get("resources") or {}).get(name, 0))
        for each, count in sorted(per_node, reverse=True):  # the nodes that have most of it come first
            amount += each * min(count, left)
            left -= min(count, left)
        total[name] = amount
    return total


def told() -> dict[str, float]:
    """What the environment says that the cluster grows to. Raises InputError where that cannot be read."""
    text = os.environ.get(GROWS_TO, "").strip()
    if not text:
        return {}
    return parse(text)


def parse(text: str) -> dict[str, float]:
    """CPU=64,GPU=8 as a mapping. Raises InputError."""
    parts = [re.fullmatch(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*", part) for part in text.split(",")]
    require(all(parts), GROWS_TO, text, "write resources and amounts as CPU=64,GPU=8")
    return {part[1]: float(part[2]) for part in parts if part}


def of_autoscaler(gcs_address: str) -> dict[str, float]:
    """What the autoscaler of the cluster at `gcs_address` may start, if it runs on this machine; else nothing."""
    for command in commands():
        options = dict(part[2:].split("=", 1) for part in command if part.startswith("--") and "=" in part)
        ours = any(part.endswith("monitor.py") for part in command) and options.get("gcs-address") == gcs_address
        if ours and "autoscaling-config" in options:
            with contextlib.suppress(OSError):  # of another user
                return largest(yaml.safe_load(Path(options["autoscaling-config"]).expanduser().read_text()))
    return {}


def commands() -> Iterator[list[str]]:
    """The command lines of this machine's processes."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is not ours to see
            continue
