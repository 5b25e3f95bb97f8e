"""How a model is spread over the ranks of a stage: DDP, FSDP2 or HSDP; the only file with a device mesh.

Parameters, gradients and moments are float32 everywhere and products follow the recipe's precision by autocast, sharded
or not: FSDP's own mixed precision would round norms and residuals too, and a result would depend on where it ran."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from harness import model
from harness.layout import Layout, Place

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def process_group(world: int) -> Iterator[None]:
    """The default group of torch.distributed: the one that is there, or for one rank alone a group of its own."""
    import torch.distributed as dist

    if dist.is_initialized() or world > 1:
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(net: Any, layout: Layout, place: Place) -> None:
    """Lay out `net`, built on "meta", in place: activation checkpointing, compilation and FSDP's sharding of every
    block. Parameters keep their names."""
    if layout.recompute:
        model.recompute(net)
    if layout.compile:
        for block in net.model.layers:
            block.compile()
    if layout.sharding == "ddp":
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if layout.sharding == "hsdp":
        nodes = place.world // place.local_world
        mesh = init_device_mesh(place.device, (nodes, place.local_world), mesh_dim_names=("nodes", "ranks"))
    else:
        mesh = init_device_mesh(place.device, (place.world,), mesh_dim_names=("ranks",))
    for block in net.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def replicate(net: Any, layout: Layout, place: Place) -> Any:
    """`net`, filled, so that every rank's gradients become the mean over ranks."""
    if layout.sharding != "ddp" or place.world == 1:
        return net
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(net, gradient_as_bucket_view=True)


def accumulate(ranked: Any) -> Any:
    """The context of a backward pass whose gradients are summed here before they are averaged over the ranks. FSDP
    averages every pass: it would have to keep whole gradients."""
    return ranked.no_sync() if hasattr(ranked, "no_sync") else contextlib.nullcontext()


def reshard(net: Any) -> None:
    """Give back what FSDP keeps whole after a forward pass that no backward pass follows."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(net, FSDPModule):
        net.reshard()


def fill(parameter: "torch.Tensor", full: "torch.Tensor") -> None:
    """Give `parameter` this rank's part of `full`."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        if isinstance(parameter, DTensor):
            full = full.to(parameter.device)
            # Every rank has the values: none waits for another to send them.
            full = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.copy_(full)


def whole(parameter: "torch.Tensor") -> "torch.Tensor":
    """`parameter` in one piece on the CPU; every rank takes part and gets it."""
    from torch.distributed.tensor import DTensor

    full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return full.detach().cpu().contiguous()


def clip(net: Any, most: float) -> float:
    """Scale the gradients of `net` down to the norm `most`; returns the norm that they had, over all ranks."""
    import torch
    from torch.distributed.tensor import DTensor

    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), most)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def total(values: Iterable[float], world: int, device: str) -> "list[float]":
    """Each of `values` summed over the ranks."""
    return sum_over_ranks(list(values), world, device, "float64").tolist()


def total_words(word: int, world: int, device: str) -> int:
    """A 64-bit word summed over the ranks, modulo 2**64."""
    signed = word - 2**64 if word >= 2**63 else word
    return int(sum_over_ranks([signed], world, device, "int64")[0]) % 2**64


def sum_over_ranks(values: list[Any], world: int, device: str, dtype: str) -> "torch.Tensor":
    import torch

    tensor = torch.tensor(values, dtype=getattr(torch, dtype), device=device)
    if world > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def of_rank_0(value: Any, world: int) -> Any:
    """What rank 0 passed, on every rank; a plain value."""
    import torch.distributed as dist

    if world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def of_all_ranks(value: Any, world: int) -> list[Any]:
    """What every rank passed, by rank; plain values."""
    import torch.distributed as dist

    everyone: list[Any] = [value] * world
    if world > 1:
        dist.all_gather_object(everyone, value)
    return everyone
