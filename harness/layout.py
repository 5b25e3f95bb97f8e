"""How a stage is laid out over its ranks and their memory: arithmetic, before anything is allocated.

None of it changes a result beyond rounding, so none of it is in a spec."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness import device as devices
from harness.errors import InputError
from harness.specs import Train

Sharding = Literal["ddp", "hsdp", "fsdp"]
SHARDINGS: tuple[Sharding, ...] = ("ddp", "hsdp", "fsdp")
"""From the fewest bytes over the network to the most: a copy on every rank; sharded within a node and copied between
nodes; sharded over all ranks."""
USABLE = {"cuda": 0.88, "cpu": 0.6}
"""Share of a device's memory that a stage plans with: allocators fragment, and a CPU has other tenants."""
STATE_BYTES = 16
"""A parameter in float32 with its gradient and AdamW's two moments."""
LOGIT_ROWS = {"cpu": 512, "cuda": 4096}
"""Rows of logits that exist at once: with fewer, adding up the head's gradient costs more than its products."""
BUSY_TOKENS = 4096
"""Tokens a forward pass that keep a large GPU busy; fewer are taken only where no layout has room for them."""


@dataclass(frozen=True)
class Layout:
    """What is None is found from the device (`choose`); what is not, the user has asked for."""

    sharding: Sharding | None = None
    micro_batch: int | None = None
    """Sequences a forward pass."""
    recompute: bool | None = None
    """Activation checkpointing: keep what enters a block, compute its inside again in the backward pass."""
    compile: bool | None = None
    """torch.compile of every block: on GPUs, unless said otherwise; on a CPU it warms up longer than it saves."""


@dataclass(frozen=True)
class Place:
    """Where a rank runs: what `choose` has to know of the machine."""

    device: Literal["cpu", "cuda"]
    memory: float
    """Bytes that the rank can have."""
    world: int = 1
    local_world: int = 1
    """Ranks on this node."""


def here(device: str, world: int, local_world: int, share: float = 1.0) -> Place:
    """The place of this process: a `share` of a GPU's whole memory, or of the machine's what falls to every rank on it.

    It is what the hardware has and not what is free now, so that a run that goes on finds the same layout.
    """
    if devices.kind(device) == "cuda":
        import torch

        whole = float(torch.cuda.get_device_properties(device).total_memory)
        return Place("cuda", share * whole, world, local_world)
    return Place("cpu", machine_memory() / local_world, world, local_world)


def common(places: list[Place]) -> Place:
    """What holds for every rank of `places`, so that all choose alike: the least memory, and no sharing of nodes where
    they have different numbers of ranks."""
    equal = len({place.local_world for place in places}) == 1
    least = min(places, key=lambda place: place.memory)
    return least if equal else replace(least, local_world=1)


def machine_memory() -> float:
    """Bytes of memory of this machine, or of the control group that holds this process if that has less."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        limit = "max"
    return float(whole if limit == "max" else min(whole, int(limit)))


def choose(spec: Train, asked: Layout, place: Place, rows: int) -> Layout:
    """The layout of `spec` on ranks that train at most `rows` sequences a step: the first, from fast to thrifty, that
    has room for BUSY_TOKENS, or else for one sequence.

    Raises InputError, with the numbers, where no layout that was not ruled out has room for one sequence.
    """
    busy = min(rows, asked.micro_batch or math.ceil(BUSY_TOKENS / spec.model.context))
    candidates = list(_candidates(asked, place))
    room = [_room(spec, layout, place) for layout in candidates]
    enough = [i for i, n in enumerate(room) if n >= busy] or ([] if asked.micro_batch else _best(room))
    if not enough:
        per_sequence = asked.micro_batch or 1
        needs = [state_bytes(spec, c, place) + per_sequence * activation_bytes(spec, c) for c in candidates]
        need, best = min(zip(needs, candidates, strict=True), key=lambda pair: pair[0])
        what = f"{asked.micro_batch} sequences" if asked.micro_batch else "even one sequence"
        raise InputError(
            f"memory = {place.memory / 2**30:.2f} GiB: a rank needs {need / USABLE[place.device] / 2**30:.2f} GiB for "
            f"{what} of {spec.model.context} tokens ({_words(best)}, {place.world} workers); use more workers"
            f"{', a smaller micro-batch' if asked.micro_batch else ''} or a smaller model"
        )
    chosen = candidates[enough[0]]
    if asked.micro_batch is None:
        chosen = replace(chosen, micro_batch=even(rows, room[enough[0]]))
    return replace(chosen, compile=place.device == "cuda" if asked.compile is None else asked.compile)


def even(rows: int, room: int) -> int:
    """The size of micro-batches of `rows` sequences, at most `room`: one that divides them if it is not much smaller
    (equal shapes are compiled once), else one that takes as few passes as can be."""
    size = next(n for n in range(min(rows, room), 0, -1) if rows % n == 0)
    return size if 2 * size > min(rows, room) else math.ceil(rows / math.ceil(rows / room))


def _best(room: list[int]) -> list[int]:
    """The layouts with room for one sequence, the roomiest first."""
    return sorted((i for i, n in enumerate(room) if n >= 1), key=lambda i: -room[i])


def _candidates(asked: Layout, place: Place) -> Iterator[Layout]:
    """Layouts that fit what was asked and the place, from fast to thrifty."""
    several_nodes = 1 < place.local_world < place.world
    useful = {"ddp": True, "hsdp": several_nodes, "fsdp": place.world > 1}
    for recompute in (False, True) if asked.recompute is None else (asked.recompute,):
        for sharding in SHARDINGS:
            if sharding == asked.sharding or (asked.sharding is None and useful[sharding]):
                yield replace(asked, sharding=sharding, recompute=recompute)


def _room(spec: Train, layout: Layout, place: Place) -> int:
    """Sequences that one forward and backward pass has room for."""
    left = USABLE[place.device] * place.memory - state_bytes(spec, layout, place)
    return max(0, int(left // activation_bytes(spec, layout)))


def _words(layout: Layout) -> str:
    return f"{layout.sharding}{' with activations computed again' if layout.recompute else ''}"


def ways(layout: Layout, place: Place) -> int:
    """Ranks that share one copy of the parameters."""
    return {"ddp": 1, "hsdp": place.local_world, "fsdp": place.world}[layout.sharding or "ddp"]


def state_bytes(spec: Train, layout: Layout, place: Place) -> float:
    """Bytes of parameters, gradients and moments on a rank, with what is there at once beside the shards: two blocks
    and the embeddings whole, with gradients; the bfloat16 copies that autocast keeps; and what the loss works in:
    logits, the head in the type of its products and its gradient."""
    model = spec.model
    params = model.params(spec.io_width)
    shared = ways(layout, place)
    half = 2 if spec.recipe.precision == "bf16" else 0
    loss = spec.io_width * (LOGIT_ROWS[place.device] * (4 + half) + model.width * (4 + (half or 4)))
    if shared == 1:
        return params * (STATE_BYTES + half) + loss
    block = (model.body_params - model.width) / model.depth
    whole = 2 * block + (params - model.body_params)
    return params * STATE_BYTES / shared + whole * (8 + half) + loss


def activation_bytes(spec: Train, layout: Layout) -> float:
    """Bytes that one sequence's forward pass keeps for its backward pass, with the loss.

    Counted from what transformers' Llama saves for a token in a block, in values: RMSNorm 3 of the width each, of two;
    queries, keys, values, the attention's output and its transpose 5; SwiGLU 4 of its inner width. Under autocast the
    inputs of products are bfloat16 and the rest float32 (a test holds both against what autograd saves). With
    `recompute` a block keeps its input, and one block at a time has its inside.
    """
    model, half = spec.model, spec.recipe.precision == "bf16"
    operand = 2 if half else 4
    inside = 2 * (8 + operand) * model.width + 5 * operand * model.width + 4 * operand * model.mlp
    inside += 4 * model.heads  # log-sum-exp of the attention
    blocks = (4 * model.width * model.depth + inside) if layout.recompute else inside * model.depth
    head = (8 + operand + 2 * 4 + operand) * model.width  # final norm; gradient of the hidden states
    return float(model.context * (blocks + head))
