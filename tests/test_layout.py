"""The arithmetic of layouts, and that it counts what autograd keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness import layout, model
from harness.errors import InputError
from harness.layout import Layout, Place
from harness.sources.nca import NCA
from harness.specs import Corpus, Llama, Recipe, Train

GIB = 2**30
PAPER = Train(Corpus(NCA()), 2**30, Llama(), Recipe(lr=1e-4, batch=512, precision="bf16"))
"""The paper's 1.6B-parameter model."""


def gpus(world: int, local: int | None = None, gib: float = 80) -> Place:
    return Place("cuda", gib * GIB, world, local or world)


def chosen(place: Place, spec: Train = PAPER, **asked: Any) -> Layout:
    return layout.choose(spec, Layout(**asked), place, spec.recipe.batch // place.world)


def test_a_model_that_fits_is_copied_and_one_that_does_not_is_sharded() -> None:
    small = replace(PAPER, model=Llama(width=1024, heads=16, mlp=4096))
    assert chosen(gpus(8), small).sharding == "ddp"
    assert chosen(gpus(1)).sharding == "ddp"
    assert chosen(gpus(8, gib=24)).sharding == "fsdp"
    assert chosen(gpus(16, 8, gib=24)).sharding == "hsdp"
    assert chosen(gpus(16, 8, gib=6)).sharding == "fsdp"
    assert chosen(gpus(8), small, sharding="fsdp").sharding == "fsdp"


def test_micro_batches_fill_the_memory_and_are_even() -> None:
    found = chosen(gpus(8))
    assert found.micro_batch is not None and 64 % found.micro_batch == 0
    more = chosen(Place("cuda", 1000 * GIB, 8, 8))
    assert more.micro_batch == 64
    assert chosen(gpus(8), micro_batch=3).micro_batch == 3
    assert layout.choose(PAPER, Layout(), gpus(1, gib=90), 7).micro_batch in (1, 2, 4, 7)


def test_activations_are_computed_again_only_where_memory_asks_for_it() -> None:
    assert chosen(gpus(8)).recompute is False
    tight = chosen(gpus(8, gib=13))
    assert tight.recompute is True
    assert chosen(gpus(8), recompute=True).recompute is True
    with pytest.raises(InputError):
        chosen(gpus(8, gib=6), recompute=False)


def test_blocks_are_compiled_on_gpus_unless_told() -> None:
    assert chosen(gpus(8)).compile is True
    assert chosen(gpus(8), compile=False).compile is False
    small = replace(PAPER, model=Llama(depth=1, width=64, heads=1, mlp=64))
    assert chosen(Place("cpu", 8 * GIB), small).compile is False


def test_too_little_memory_for_one_sequence_is_told_with_the_numbers() -> None:
    with pytest.raises(InputError) as refused:
        chosen(gpus(2, gib=4))
    assert str(refused.value).startswith("memory = 4.00 GiB: a rank needs ")
    assert "for even one sequence of 1024 tokens (fsdp with activations computed again, 2 workers)" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"for 64 sequences of 1024 tokens .* a smaller micro-batch or"):
        chosen(gpus(8, gib=20), micro_batch=64, recompute=False)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("width", "mlp", "depth"), [(64, 96, 4), (128, 512, 2)])
def test_activations_are_what_autograd_keeps(precision: Any, recompute: bool, width: int, mlp: int, depth: int) -> None:
    shape = Llama(depth=depth, width=width, heads=4, mlp=mlp, context=64)
    spec = Train(Corpus(NCA(states=2, grid=4)), 2**16, shape, Recipe(lr=1e-3, batch=8, precision=precision))
    net = model.build(shape, spec.io_width).train()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.02)
    if recompute:
        model.recompute(net)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    tokens = torch.randint(18, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model.summed_nats(net, tokens, tokens.roll(-1, 1), precision)
    weights_in_half = 2 * spec.model.body_params if precision == "bf16" and not recompute else 0
    measured = (sum(kept.values()) - weights_in_half) / 4
    planned = layout.activation_bytes(spec, Layout(recompute=recompute))
    inside = layout.activation_bytes(spec, Layout(recompute=False)) / depth if recompute else 0
    assert 0.85 * measured <= planned <= 1.5 * measured + inside


def test_ranks_on_unlike_machines_choose_alike() -> None:
    places = [gpus(3, 2), gpus(3, 2), gpus(3, 1, gib=40)]
    place = layout.common(places)
    assert (place.memory, place.world, place.local_world) == (40 * GIB, 3, 1)
    assert (
        layout.choose(PAPER, Layout(), layout.common([gpus(3, 2, gib=24)] * 2 + [gpus(3, 1, gib=24)]), 171).sharding
        == "fsdp"
    )
    assert layout.common([gpus(4, 2)] * 4) == gpus(4, 2)


def test_the_memory_of_this_machine_is_shared_by_its_ranks() -> None:
    one, four = layout.here("cpu", 1, 1), layout.here("cpu", 8, 4)
    assert one.memory == 4 * four.memory > GIB / 2
    assert (four.world, four.local_world) == (8, 4)
