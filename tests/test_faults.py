"""Machines that are announced to go, and machines that go: a study loses time and nothing else."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import plan as plans
from harness import resume, space
from harness.cluster import starts
from harness.specs import Train
from harness.stages import run_here
from harness.store import Store
from tests import ranks
from tests.chaos import Driver, Machines, differences, progress, sequence_hash
from tests.runs import curve

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SPACE = '''
"""Does a lost machine change anything?"""
from ray import tune
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=2, width=32, heads=2, mlp=64, context=64)


def train(source, steps, seed):
    recipe = Recipe(lr=5e-4, batch=16)
    measured = Evaluation(points=4, sequences=8)
    return Train(Corpus(source, seed, epochs=99), steps * 16 * 64, MODEL, recipe, seed, measured)


def scratch(seed):
    return train(Text.local({text!r}, tokenizer=BPE(300), held_out=0.2), 16, seed)


def nca(seed):
    return scratch(seed).after(train(NCA(states=2, grid=4, patch=2), 4000, seed))


study = Study("losses", __doc__, scratch, [nca], {{"seed": tune.grid_search([0])}})
'''


@pytest.fixture
def target(tmp_path: Path) -> str:
    text = tmp_path / "text"
    text.mkdir()
    for i in range(20):
        (text / f"{i}.txt").write_text("\n".join(f"{k} times {i} is {k * i}" for k in range(100)))
    (tmp_path / "space.py").write_text(SPACE.format(text=str(text)))
    return str(tmp_path / "space.py")


def wait(what: str, holds: Callable[[], Any], driver: Driver, within_s: float = 240) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert driver.ended() is None, f"the driver ended before {what}: {driver.log.read_text()[-2000:]}"
        assert time.monotonic() < deadline, f"{what} did not come: {driver.log.read_text()[-2000:]}"
        time.sleep(0.05)


def long_stage(plan: plans.Plan) -> str:
    return max(plan.stages, key=lambda d: stage.tokens if isinstance(stage := plan.stages[d], Train) else 0)


def twin(plan: plans.Plan, root: Path, world: int) -> Store:
    """What `world` processes of this machine make of the study without Ray."""
    store = Store(root)
    for stage in plan.stages.values():
        if isinstance(stage, Train) and world > 1:
            ranks.run([ranks.Job(stage, root)], world)
        else:
            run_here(stage, store)
    return store


def losses(store: Store, address: str) -> list[float]:
    return [row["loss_nats"] for row in curve(store, address)]


def test_a_machine_that_is_announced_to_go_costs_no_step(target: str, tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "store"), plans.make(space.load(target))
    warm = long_stage(plan)
    options = ("--workers", "2", "--checkpoint-every", "600")
    with Machines(2) as machines, Driver(target, store, machines.address, tmp_path / "log", *options) as driver:
        wait("a few steps", lambda: progress(store, warm).step > 50, driver)
        assert resume.newest(store.resume(warm)).step == 0
        machine = machines.up[1]
        machines.drain(machine, within_s=60)
        wait("a checkpoint", lambda: resume.newest(store.resume(warm)).step > 0, driver, within_s=60)
        before, saved = progress(store, warm), resume.newest(store.resume(warm)).step
        machines.take(machine)
        machines.join()
        wait("another start", lambda: progress(store, warm).attempts > before.attempts, driver)
        start = starts.last(store.resume(warm))
        assert start is not None and (start.step, start.world) == (saved, 2)
        assert driver.wait(300) == 0
    manifest = store.manifest(warm)
    assert manifest is not None and manifest["world"] == 2
    assert differences(plan, store, twin(plan, tmp_path / "twin", world=2)) == []


def test_a_stage_goes_on_with_the_machines_that_are_left(target: str, tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "store"), plans.make(space.load(target))
    warm = long_stage(plan)
    options = ("--workers", "1:2", "--checkpoint-every", "1")
    with Machines(2) as machines, Driver(target, store, machines.address, tmp_path / "log", *options) as driver:
        wait("a checkpoint", lambda: resume.newest(store.resume(warm)).step > 0, driver)
        start = starts.last(store.resume(warm))
        assert start is not None and start.world == 2
        machines.take(machines.up[1])
        assert driver.wait(400) == 0
    manifest = store.manifest(warm)
    assert manifest is not None and manifest["world"] == 1
    alone = twin(plan, tmp_path / "twin", world=1)
    for address in (d for d, stage in plan.stages.items() if isinstance(stage, Train)):
        assert sequence_hash(store, address) == sequence_hash(alone, address)
        np.testing.assert_allclose(losses(store, address), losses(alone, address), atol=5e-3)
