"""Resume checkpoints: a directory a step, complete when it has its name, the newest two kept. Tensors and JSON only."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store import sha256, write_json

if TYPE_CHECKING:
    import torch

KEPT = 2


def save(directory: Path, step: int, tensors: "dict[str, torch.Tensor]", state: dict[str, Any]) -> None:
    """Write the checkpoint of `step` under a name of its own, then give it its place."""
    from safetensors.torch import save_file

    part = directory / f".part-{secrets.token_hex(4)}"
    part.mkdir(parents=True)
    save_file(tensors, part / "tensors.safetensors")
    with open(part / "tensors.safetensors", "rb") as f:
        os.fsync(f.fileno())
    write_json(part / "state.json", {**state, "step": step, "sha256": sha256(part / "tensors.safetensors")})
    place = directory / f"step-{step:09d}"
    shutil.rmtree(place, ignore_errors=True)
    os.replace(part, place)
    for old in list(newest_first(directory))[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def newest_first(directory: Path) -> Iterator[Path]:
    yield from sorted(directory.glob("step-*"), reverse=True)


def newest_state(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, with its state; damaged ones are passed over."""
    for place in newest_first(directory):
        try:
            state = json.loads((place / "state.json").read_text())
            if sha256(place / "tensors.safetensors") == state["sha256"]:
                return place, state
        except (OSError, ValueError, KeyError):
            continue
    return None


def committed_step(directory: Path) -> int:
    """The step from which a stage goes on: 0 without a checkpoint."""
    found = newest_state(directory)
    return int(found[1]["step"]) if found else 0


def load_tensors(place: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return load_file(place / "tensors.safetensors")
