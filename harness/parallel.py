"""How a model is spread over the ranks of a stage; the only file that knows."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def spread(model: Any, world: int) -> Any:
    """`model` so that every rank's gradients become the mean over ranks: itself on one, DistributedDataParallel on
    several."""
    if world == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def plain(model: Any) -> Any:
    """The model inside: its parameters carry the names that the store knows."""
    return getattr(model, "module", model)


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
