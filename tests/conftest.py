"""What the tests of the harness share: a small text, and stages that train in a fraction of a second."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy, torch and numba are first imported
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train
from harness.store import Store
from tests.object_store import Buckets

settings.register_profile("untimed", deadline=None)  # the machine may be busy
settings.load_profile("untimed")

WORDS = ("alpha", "beta", "gamma", "delta", "naïve", "日本", "def f(x):", "return x", "0.5")


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """Forty small documents of a few words, a fifth of them held out: about 4000 training tokens."""
    root = tmp_path_factory.mktemp("corpus")
    for i in range(40):
        words = random.Random(i).choices(WORDS, k=80)
        (root / f"{i:02d}.txt").write_text(" ".join(words) + "\n", "utf-8")
    return Text.local(root, tokenizer=BPE(300), held_out=0.2)


@pytest.fixture(scope="session")
def automata() -> NCA:
    """Frames of 6 tokens, a vocabulary of 18."""
    return NCA(states=2, grid=4, patch=2)


@pytest.fixture(scope="session")
def llama() -> Llama:
    return Llama(depth=2, width=16, heads=2, mlp=24, context=32, init_std=0.1, embed_std=0.1)


@pytest.fixture(scope="session")
def generated(automata: NCA, llama: Llama) -> Train:
    """Twelve steps of 8 sequences on automata."""
    recipe = Recipe(lr=1e-2, batch=8, warmup=512, weight_decay=0.1, final_lr=0.1)
    return Train(Corpus(automata, 3), 12 * 8 * 32, llama, recipe, seed=5, evaluation=Evaluation(points=4, sequences=16))


@pytest.fixture(scope="session")
def reading(text: Text, generated: Train) -> Train:
    """The same on text."""
    return replace(generated, corpus=Corpus(text.resolved(), 3))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def buckets() -> Iterator[Buckets]:
    """An S3 server on this machine."""
    with Buckets() as server:
        yield server


@pytest.fixture
def bucket(buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Buckets:
    """The same, as the standard variables tell clients, with a cache of copies of this test's own."""
    for name, value in buckets.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NCA_CACHE", str(tmp_path / "cache"))
    return buckets


@pytest.fixture
def remote(bucket: Buckets) -> Store:
    """A store in it."""
    return Store(bucket.place())
