"""A study as a job of a cluster that runs already."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import plan as plans
from harness import space
from harness.store import Store
from tests.chaos import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SPACE = '''
"""Does it run wherever it is sent?"""
from ray import tune
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)


def train(source, steps, seed):
    recipe = Recipe(lr=1e-2, batch=6)
    return Train(Corpus(source, seed, epochs=99), steps * 6 * 32, MODEL, recipe, seed, Evaluation(4, 8))


def scratch(seed):
    return train(Text.local({text!r}, tokenizer=BPE(300), held_out=0.2), 100, seed)


def nca(seed):
    return scratch(seed).after(train(NCA(states=2, grid=4, patch=2), 100, seed))


study = Study("sent", __doc__, scratch, [nca], {{"seed": tune.grid_search([0])}})
'''


@pytest.fixture
def study(tmp_path: Path) -> Path:
    text = tmp_path / "text"
    text.mkdir()
    for i in range(20):
        (text / f"{i}.txt").write_text("\n".join(f"{k} times {i} is {k * i}" for k in range(100)))
    file = tmp_path / "sent.py"
    file.write_text(SPACE.format(text=str(text)))
    return file


@contextlib.contextmanager
def one_machine() -> Iterator[Any]:
    """Two on this machine would share one copy of what a job brings, and each replaces it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_a_job_brings_its_code_and_runs_the_study(study: Path, tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    for package in ("harness", "analysis"):
        shutil.copytree(ROOT / package, brought / package, ignore=shutil.ignore_patterns("__pycache__"))
    mine = 'import harness\nassert "working_dir_files" in harness.__file__, harness.__file__\n'
    (brought / "sent.py").write_text(study.read_text() + mine)
    store = tmp_path / "store"
    environment = yaml.safe_load((ROOT / "clusters" / "runtime-env.yaml").read_text())
    excludes = json.dumps({"excludes": environment["excludes"]})
    with one_machine() as cluster:
        address = f"http://{cluster.webui_url}"
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address]
        submit += ["--working-dir", str(brought), "--runtime-env-json", excludes, "--"]
        submit += [sys.executable, "-m", "harness", "run", "sent.py", "--store", str(store)]
        said = [subprocess.run(submit, capture_output=True, text=True, check=False) for _ in range(2)]
    first, again = said
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-1000:]
    assert "4 stages computed" in first.stdout
    assert again.returncode == 0 and "nothing to compute: all 4 stages" in again.stdout
    plan = plans.make(space.load(str(study)))
    assert all((manifest := Store(store).manifest(d)) and manifest["status"] == "finished" for d in plan.stages)
    assert list((store / "studies" / "sent").glob("*report*"))
