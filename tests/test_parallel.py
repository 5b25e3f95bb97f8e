"""A stage spread over ranks computes what one process does, however it is spread, and goes on over any number."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import stages
from harness.layout import Layout
from harness.specs import Llama, Train, digest
from harness.store import Store
from harness.worker import Options
from tests import ranks
from tests.ranks import Job
from tests.test_loop import assert_close, curve, run

LAYOUTS = {
    "ddp": Layout("ddp"),
    "ddp in micro-batches": Layout("ddp", micro_batch=3),
    "fsdp": Layout("fsdp"),
    "fsdp in micro-batches": Layout("fsdp", micro_batch=1),
    "fsdp with recomputation": Layout("fsdp", recompute=True),
}


@pytest.fixture
def places(tmp_path: Path) -> Callable[[str], Store]:
    return lambda name: Store(tmp_path / name)


@pytest.fixture
def odd(generated: Train) -> Train:
    """Nothing in it divides by two but the heads: shards are uneven, or empty."""
    model = Llama(depth=3, width=12, heads=2, mlp=17, context=32, tied=False, init_std=0.1, embed_std=0.1, io_width=19)
    return replace(generated, model=model)


def assert_same_result(one: Store, other: Store, spec: Train, world: int, tolerance: float = 1e-5) -> None:
    assert_close(curve(spec, other), curve(spec, one), tolerance)
    alone, shared = one.manifest(digest(spec)), other.manifest(digest(spec))
    assert alone is not None and shared is not None
    assert (shared["world"], shared["sequence_hash"]) == (world, alone["sequence_hash"])
    assert shared["scales"] == alone["scales"]
    weights = [stages.read_weights(store, digest(spec)) for store in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        # Processors round products of bfloat16 differently, and Adam makes steps of what is left of small gradients.
        assert torch.allclose(weights[0][name], weights[1][name], atol=max(1e-3, tolerance / 10)), name


def test_two_ranks_compute_what_one_does_however_they_share_it(generated: Train, places: Any) -> None:
    run(generated, places("one"))
    jobs = [Job(generated, places(name).root, Options(layout)) for name, layout in LAYOUTS.items()]
    ranks.run(jobs, world=2)
    for name, layout in LAYOUTS.items():
        assert_same_result(places("one"), places(name), generated, world=2)
        manifest = places(name).manifest(digest(generated))
        assert manifest["layout"]["sharding"] == layout.sharding


@pytest.mark.slow
def test_a_run_goes_on_over_another_number_of_ranks_and_under_another_sharding(odd: Train, places: Any) -> None:
    often = Options(Layout("fsdp"), checkpoint_every_s=0)
    run(odd, places("whole"))
    ranks.run([Job(odd, places("grows").root, Options(checkpoint_every_s=0), stop=5)], world=1)
    assert stages.committed_step(odd, places("grows")) == 5
    ranks.run(
        [
            Job(odd, places("grows").root, often, stop=9),
            Job(odd, places("grows").root, Options(Layout("ddp"))),
            Job(odd, places("shrinks").root, often, stop=5),
        ],
        world=2,
    )
    assert stages.committed_step(odd, places("shrinks")) == 5
    run(odd, places("shrinks"))
    assert_same_result(places("whole"), places("grows"), odd, world=2)
    assert_same_result(places("whole"), places("shrinks"), odd, world=1)


def test_a_killed_sharded_run_goes_on_bit_for_bit(odd: Train, places: Any) -> None:
    often = Options(Layout("fsdp"), checkpoint_every_s=0)
    killed = [Job(odd, places("killed").root, often, stop=step) for step in (0, 4, 5)]
    ranks.run([Job(odd, places("whole").root, often), *killed, Job(odd, places("killed").root, often)], world=2)
    assert curve(odd, places("killed")) == curve(odd, places("whole"))
    whole, resumed = (stages.read_weights(places(name), digest(odd)) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_ranks_with_unequal_shares_compute_what_one_does(generated: Train, places: Any) -> None:
    run(generated, places("one"))
    shardings = (Layout("ddp"), Layout("fsdp", micro_batch=2))
    ranks.run([Job(generated, places(str(x.sharding)).root, Options(x), units=4) for x in shardings], world=3)
    for layout in shardings:
        assert_same_result(places("one"), places(str(layout.sharding)), generated, world=3)


@pytest.mark.slow
def test_four_ranks_on_two_machines_shard_within_them_and_copy_between_them(generated: Train, places: Any) -> None:
    spec = replace(generated, recipe=replace(generated.recipe, precision="bf16"))
    run(spec, places("one"))
    ranks.run([Job(spec, places("four").root, Options(Layout("hsdp")))], world=4, local_world=2)
    assert_same_result(places("one"), places("four"), spec, world=4, tolerance=2e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch.compile warns of itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_compute_what_others_do(generated: Train, places: Any) -> None:
    run(generated, places("one"))
    run(generated, places("compiled"), options=Options(Layout(compile=True)))
    assert_same_result(places("one"), places("compiled"), generated, world=1, tolerance=1e-4)
    manifest = places("compiled").manifest(digest(generated))
    assert manifest["layout"]["compile"] is True
    ranks.run([Job(generated, places("both").root, Options(Layout("fsdp", recompute=True, compile=True)))], world=2)
    assert_same_result(places("one"), places("both"), generated, world=2, tolerance=1e-4)
