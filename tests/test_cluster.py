"""The Ray side: same results as in process, whatever is killed, and nothing started that cannot fit."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import plan as plans
from harness import space
from harness.cluster.resources import allot, check_divides
from harness.errors import InputError
from harness.specs import Train, digest
from harness.stages import run_here
from harness.store import Store

TIMES = {"tokens_per_s", "data_wait", "train_s", "wait_s", "wall_s", "device_s"}

STUDY = '''
"""Is a study run by Ray the study run here?"""
from dataclasses import dataclass
from typing import Any, ClassVar
import numpy as np
from ray import tune
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer

TEXT = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)
MODEL = Llama(depth=2, width=16, heads=2, mlp=32, context=32)
EVALUATION = Evaluation(points=4, sequences=4)


@dataclass(frozen=True)
class Counting:
    """A source that lives in this file alone; `broken` makes it fail."""
    version: ClassVar[int] = 1
    stored: ClassVar[bool] = False
    broken: bool = False
    vocab_size: ClassVar[int] = 18
    frame_tokens: ClassVar[None] = None
    token_bytes: ClassVar[None] = None

    def open(self, artifact=None):
        return self

    def epoch(self, context):
        return None

    def sequences(self, seed, index, context):
        if self.broken:
            raise RuntimeError("this source is broken on purpose")
        tokens = (np.asarray(index)[:, None] + np.arange(context + 1)) % 18
        return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)

    def held_out(self, count, context):
        return Counting().sequences(0, np.arange(count) + 10**6, context)


def train(source, steps, seed):
    return Train(Corpus(source, seed, epochs=99), steps * 8 * 32, MODEL, Recipe(lr=3e-3, batch=8), seed, EVALUATION)


def scratch(seed):
    return train(TEXT, {steps}, seed)


def nca(seed):
    return scratch(seed).after(train(NCA(states=2, grid=4, patch=2, band=(0.05, 0.9)), {steps}, seed))


def counting(seed):
    return scratch(seed).after(train(Counting(), {steps}, seed), Transfer(blocks="permuted"))


def broken(seed):
    return scratch(seed).after(train(Counting(broken=True), {steps}, seed))


study = Study("twin", __doc__, scratch, [nca, counting], {{"seed": tune.grid_search([0])}})
partly = Study("partly", __doc__, scratch, [broken], {{"seed": tune.grid_search([1])}})
long = Study("long", __doc__, scratch, [nca], {{"seed": tune.grid_search([2])}})
'''


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from harness.cluster import sweep

    sweep.connect(2)
    yield sweep
    ray.shutdown()


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("space")
    texts = directory / "text"
    texts.mkdir()
    rng = np.random.default_rng(0)
    names = [f"name_{i}" for i in range(40)]
    for i in range(20):
        lines = [f"{rng.choice(names)} = {rng.choice(names)} + {rng.integers(100)}" for _ in range(120)]
        (texts / f"{i}.py").write_text("\n".join(lines))
    path = directory / "spaces.py"
    path.write_text(STUDY.format(text=str(texts), steps=24))
    (directory / "long.py").write_text(STUDY.format(text=str(texts), steps=400))
    return path


def run(sweep: Any, target: str, store: Store, workers: int = 1, every: float = 60.0) -> tuple[plans.Plan, Any]:
    study = space.load(target)
    plan = plans.make(study)
    resources = sweep.admit(plan, workers, None)
    return plan, sweep.run(plan, store, resources, every)


def curve(store: Store, address: str) -> list[dict[str, Any]]:
    attempt = store.open(address)
    assert attempt is not None
    rows = [json.loads(line) for line in (attempt / "curve.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def weights(store: Store, address: str) -> bytes:
    attempt = store.open(address)
    assert attempt is not None
    return (attempt / "weights" / "model.safetensors").read_bytes()


@pytest.mark.ray
def test_ray_and_this_process_give_the_same_curves_bit_for_bit(ray_here: Any, space_file: Path, tmp_path: Path) -> None:
    remote, here = Store(tmp_path / "remote"), Store(tmp_path / "here")
    plan, outcome = run(ray_here, str(space_file), remote)
    assert outcome.computed == set(plan.stages) and not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        mine, theirs = here.manifest(address), remote.manifest(address)
        assert mine is not None and theirs is not None
        assert (theirs["executed"], mine["executed"]) == ("ray", "in_process")
        if isinstance(stage, Train):
            assert curve(remote, address) == curve(here, address)
            assert weights(remote, address) == weights(here, address)
            assert theirs["sequence_hash"] == mine["sequence_hash"]
    _, again = run(ray_here, str(space_file), remote)
    assert again.computed == set()


@pytest.mark.ray
def test_a_failed_stage_blocks_only_what_needs_it(ray_here: Any, space_file: Path, tmp_path: Path) -> None:
    plan, outcome = run(ray_here, f"{space_file}:partly", Store(tmp_path / "store"))
    by_label = {plans.label(s): d for d, s in plan.stages.items()}
    failed = next(d for label, d in by_label.items() if label.startswith("Counting"))
    assert set(outcome.failed) == {failed}
    assert "this source is broken on purpose" in outcome.failed[failed]
    assert outcome.blocked == {digest(p.train) for p in plan.points if p.arm == "broken"}
    assert outcome.computed == set(plan.stages) - {failed} - outcome.blocked


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_worker_goes_on_where_it_was_and_gives_the_same_curve(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    import psutil

    target = f"{space_file.parent / 'long.py'}:long"
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan = plans.make(space.load(target))
    warm = next(
        d for d, s in plan.stages.items() if isinstance(s, Train) and s.init is None and not s.corpus.source.stored
    )
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not killed:
            time.sleep(0.05)
            if not list(store.resume(warm).glob("step-*")) or store.open(warm) is not None:
                continue
            for process in psutil.process_iter(["cmdline"]):
                if any("RayTrainWorker" in part for part in process.info["cmdline"] or []):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    _, outcome = run(ray_here, target, store, every=0.5)
    thread.join()
    assert killed and not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        if isinstance(stage, Train):
            assert curve(store, address) == curve(here, address)
            assert weights(store, address) == weights(here, address)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_every_sequence_once_and_agree_with_one(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan, outcome = run(ray_here, str(space_file), store, workers=2)
    assert not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        if isinstance(stage, Train):
            theirs, mine = store.manifest(address), here.manifest(address)
            assert theirs is not None and mine is not None and theirs["world"] == 2
            assert theirs["sequence_hash"] == mine["sequence_hash"]
            losses = [[row["loss_nats"] for row in curve(s, address)] for s in (store, here)]
            np.testing.assert_allclose(losses[0], losses[1], atol=2e-4)


@given(units=st.sampled_from([1, 2, 4, 6]), first=st.integers(0, 5), steps=st.integers(6, 40), rows=st.integers(1, 3))
def test_the_blocks_of_every_world_size_hold_each_steps_own_sequences(
    units: int, first: int, steps: int, rows: int
) -> None:
    from harness.cluster.data import steps_per_block, unit_rows
    from harness.sources.nca import NCA
    from harness.specs import Corpus, Llama, Recipe

    batch = units * rows
    model = Llama(depth=1, width=4, heads=1, mlp=4, context=8)
    spec = Train(Corpus(NCA(states=2, grid=4)), steps * batch * 8, model, Recipe(lr=1.0, batch=batch))
    per_block = steps_per_block(spec, units)
    chunks = -(-(steps - first) // per_block)
    for world in (w for w in range(1, units + 1) if units % w == 0):
        for step in range(first, steps):
            chunk, k = divmod(step - first, per_block)
            got = []
            for rank in range(world):
                blocks = [b for b in range(chunks * units) if b % world == rank and b // units == chunk]
                got += [i for b in blocks for i in unit_rows(spec, units, first, b)[k * rows : (k + 1) * rows].tolist()]
            assert sorted(got) == list(range(step * batch, (step + 1) * batch))


def test_a_cluster_that_cannot_fit_one_stage_is_refused_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"workers = 3: one stage needs 3 CPU and the cluster has 2"):
        allot({"CPU": 2.0}, workers=3)
    assert allot({"CPU": 2.0}).concurrent == 2
    assert allot({"CPU": 64.0, "GPU": 8.0}, workers=4).concurrent == 2
    assert allot({"CPU": 64.0, "GPU": 8.0}, workers=4, concurrent=1).concurrent == 1
    assert allot({"CPU": 16.0, "memory": 4e9}).concurrent == 2
    shared = allot({"CPU": 16.0, "GPU": 2.0}, generator_gpus=0.25)
    assert shared.footprint == {"CPU": 2.0, "GPU": 1.0} and shared.concurrent == 2
    with pytest.raises(InputError, match=r"^generator_gpus = 0\.25: use 0: the cluster has no GPU$"):
        allot({"CPU": 16.0}, generator_gpus=0.25)
    with pytest.raises(InputError, match=r"^generator_gpus = 1\.0: use a share of a worker's GPU in \[0, 1\)$"):
        allot({"CPU": 16.0, "GPU": 2.0}, generator_gpus=1.0)
    with pytest.raises(InputError, match="needs 4 GPU and the cluster has 1"):
        allot({"CPU": 64.0, "GPU": 1.0}, workers=4)


def test_workers_that_do_not_divide_the_batch_are_refused(space_file: Path) -> None:
    plan = plans.make(space.load(str(space_file)))
    with pytest.raises(InputError, match=r"workers = 3: does not divide Recipe.batch = 8"):
        check_divides(plan.stages.values(), 3)
