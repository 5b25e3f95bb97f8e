"""What noise leaves to be seen, against published power figures and data of known spread."""

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.metrics.noise import detectable, noise_table
from analysis.results import Results

from .synthetic_store import GRID, Store, law


@pytest.mark.parametrize(("pairs", "effect"), [(3, 3.26), (4, 2.13), (5, 1.68), (6, 1.43), (8, 1.16)])
def test_detectable_effects(pairs: int, effect: float) -> None:
    assert detectable(pairs) == pytest.approx(effect, abs=0.006)


def test_twelve_tests_need_more() -> None:
    assert detectable(5, alpha=0.05 / 12) == pytest.approx(3.3, abs=0.06)
    assert math.isinf(detectable(1))


def test_the_spread_of_a_study_is_what_went_in(tmp_path: Path) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    tokens, grid = 1_000_000, np.round(GRID * 1e6)
    for seed in range(40):
        shared = rng.normal(0, 0.01)
        base = store.train(f"s {seed}", tokens, law(grid) + shared + rng.normal(0, 0.005, len(grid)))
        own = rng.normal(0, 0.004)
        arm = store.train(f"n {seed}", tokens, law(grid) - 0.05 + shared + own + rng.normal(0, 0.005, len(grid)))
        index = store.point("scratch", {"seed": seed}, [base])
        store.point("nca", {"seed": seed}, [arm], index)
    results = Results.from_store(store.register("s", ["seed"]), "s")
    (row,) = noise_table(results.cells, results.labels).to_dict("records")
    assert row["n_pairs"] == 40 and row["label"] == "nca"
    assert row["seed_sd_baseline_nats"] == pytest.approx(0.011, rel=0.3)
    assert row["pair_sd_nats"] == pytest.approx(math.hypot(0.004, 0.003 * math.sqrt(2)), rel=0.35)
    assert row["evaluation_sd_nats"] == pytest.approx(0.005, rel=0.15) and row["pair_corr"] > 0.6
    assert row["detectable_nats"] == pytest.approx(row["pair_sd_nats"] * detectable(40))


def test_one_pair_says_nothing_about_noise(demo: Path) -> None:
    results = Results.from_store(demo, "demo")
    one = [c.__class__(c.arm, c.axes, c.pairs[:1], c.differs_in) for c in results.cells]
    assert noise_table(one, results.labels).empty
