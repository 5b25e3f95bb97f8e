"""Who is compared with whom, which cells make a group, and what must not be compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import verdict_table
from analysis.cells import cells, groups
from analysis.metrics.endpoints import at_longest, endpoints
from analysis.results import Results

from .simulated import simulate
from .synthetic_store import GRID, Store, law

TEXT = 1_000_000
SOURCE = {
    "type": "Text",
    "dataset": "org/web",
    "config": None,
    "content": None,
    "tokenizer": {"type": "BPE", "vocab": 512},
}


def respecified(root: Path, digest: str, **changed: Any) -> None:
    """A stage whose spec says something else, as another study or version would have written it."""
    directory = root / "stages" / digest / "attempt-1"
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["spec"] |= changed
    (directory / "manifest.json").write_text(json.dumps(manifest))
    done = json.loads((directory.parent / "DONE").read_text())
    del done["files"]["manifest.json"]
    (directory.parent / "DONE").write_text(json.dumps(done))


def study(root: Path, seeds: int = 4, **of_arm: Any) -> Path:
    """Scratch and an arm 0.05 nats below it, whose stages have `of_arm` in their specs."""
    store, rng = Store(root), np.random.default_rng(2)
    at = np.round(GRID * TEXT)
    spec = {"corpus": {"source": SOURCE}, "evaluation": {"sequences": 32, "points": 14}, "model": {"context": 256}}
    for seed in range(seeds):
        noise = rng.normal(0, 0.003)
        base = store.train(f"scratch {seed}", TEXT, law(at) + noise, schedule="wsd")
        arm = store.train(f"nca {seed}", TEXT, law(at) - 0.05 + noise + rng.normal(0, 0.001), schedule="wsd")
        store.point("nca", {"seed": seed}, [arm], store.point("scratch", {"seed": seed}, [base]))
        respecified(root, base, **spec)
        respecified(root, arm, **(spec | of_arm))
    return store.register("s", ["seed"], "wsd")


def test_equal_validation_sets_compare(tmp_path: Path) -> None:
    evaluation = {"sequences": 32, "points": 28}  # measured more often, on the same sequences
    results = Results.from_store(study(tmp_path, evaluation=evaluation), "s")
    assert results.verdicts["verdict"][0] == "supported" and results.cells[0].domain == "org/web"
    assert results.effects["unlike"][0] == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluation": {"sequences": 64, "points": 14}},
        {"evaluation": {"sequences": 32, "points": 14, "skip": 96}},
        {"corpus": {"source": SOURCE | {"dataset": "org/math"}}},
        {"corpus": {"source": SOURCE | {"held_out": 0.1}}},
        {"model": {"context": 512}},
    ],
)
def test_unlike_validation_sets_are_refused_with_their_digests(tmp_path: Path, changed: dict[str, Any]) -> None:
    results = Results.from_store(study(tmp_path, **changed), "s")
    (verdict,) = results.verdicts.to_dict("records")
    (effect,) = results.effects.to_dict("records")
    assert verdict["verdict"] == "not comparable (validation sets differ)"
    own = {run.validation for _, t, b in results.cells[0].finished() for run in (t, b)}
    assert len(own) == 2 and all(digest in verdict["reason"] for digest in own)
    assert effect["n_pairs"] == 0 and np.isnan(effect["dloss_nats"]) and np.isnan(effect["dloss_bits_per_byte"])
    assert results.pairs[["ln_speedup", "dloss_nats", "auc_gain_nats"]].isna().all(axis=None) and len(results.pairs)
    assert not len(results.mechanisms)
    assert "not comparable" in verdict_table(results)


def test_unlike_tokenizers_compare_in_bits_per_byte_alone(tmp_path: Path) -> None:
    other: dict[str, Any] = {"corpus": {"source": SOURCE | {"tokenizer": {"type": "BPE", "vocab": 1024}}}}
    results = Results.from_store(study(tmp_path, **other), "s")
    (effect,) = results.effects.to_dict("records")
    assert np.isnan(effect["dloss_nats"]) and np.isnan(effect["speedup"])
    assert effect["dloss_bits_per_byte"] == pytest.approx(0.025, abs=0.001)  # the store has half a bit a nat
    (verdict,) = results.verdicts.to_dict("records")
    assert (
        verdict["verdict"] == "not comparable (tokenizers differ)" and "only bits per byte compare" in verdict["reason"]
    )


def test_arms_are_paired_by_the_axes_that_both_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    at = np.round(GRID * TEXT)

    def run(name: str) -> str:
        return store.train(name, TEXT, law(at))

    for seed in (0, 1):
        scratch = store.point("scratch", {"seed": seed}, [run(f"scratch {seed}")])
        for band in ("low", "high"):
            store.point("nca", {"band": band, "seed": seed}, [run(f"nca {band} {seed}")], scratch)
            store.point("shuffled", {"band": band, "seed": seed}, [run(f"shuffled {band} {seed}")], scratch)
        for k in (4, 16):
            store.point("dyck", {"k": k, "seed": seed}, [run(f"dyck {k} {seed}")], scratch)
    results = Results.from_store(store.register("s", ["band", "k", "seed"]), "s")

    def versus(than: str) -> list[tuple[str, dict[str, Any], int]]:
        found = cells(results.frame, results.plan, results.stages, than)
        return [(c.arm, c.axes, len(c.finished())) for c in found if c.arm == "nca"]

    assert versus("shuffled") == [("nca", {"band": b, "k": None}, 2) for b in ("low", "high")]
    assert versus("dyck") == [("nca", {"band": b, "k": k}, 2) for b in ("low", "high") for k in (4, 16)]
    assert versus("scratch") == [("nca", {"band": b, "k": None}, 2) for b in ("low", "high")]
    assert versus("nothing") == [("nca", {"band": b, "k": None}, 0) for b in ("low", "high")]


def test_groups_move_along_one_facet(tmp_path: Path) -> None:
    root = simulate(tmp_path, sizes=("small", "large"), budgets=(100_000, 400_000), seeds=2, evaluations=12)
    found = Results.from_store(root, "simulated").cells
    sizes = {name: [(c.params, c.axes["band"], c.axes["budget"]) for c in of] for name, of in groups(found, "params")}
    assert len(sizes) == 8 and all(a[0] < b[0] and a[1:] == b[1:] for a, b in sizes.values())
    assert set(sizes) == {f"nca, band {c.axes['band']}, budget {budget}" for c in found for budget in ("0.1M", "0.4M")}
    assert len(groups(found, "complexity")) == 4 and all(len(of) == 4 for _, of in groups(found, "complexity"))
    assert [len(of) for _, of in groups(found, "syn_tokens")] == [2] * 8
    assert groups(found, "domain") == groups(found, "text_tokens") == []


def test_endpoints_need_a_schedule_that_ended(tmp_path: Path) -> None:
    for schedule, count in (("wsd", 1), ("wsd, undecayed", 0)):
        store, rng = Store(tmp_path / schedule), np.random.default_rng(0)
        for text in (300_000, 450_000, 600_000, 1_000_000):
            for seed in range(4):
                at, noise = np.round(GRID * text), rng.normal(0, 0.002)
                horizon = 2_000_000 if "undecayed" in schedule else None
                runs = [
                    store.train(f"{arm} {text} {seed}", text, law(at * s) + noise, schedule="wsd", horizon=horizon)
                    for arm, s in (("scratch", 1.0), ("nca", 1.3))
                ]
                axes = {"text": text, "seed": seed}
                store.point("nca", axes, runs[1:], store.point("scratch", axes, runs[:1]))
        results = Results.from_store(store.register("s", ["text", "seed"], "wsd"), "s")
        assert len(endpoints(results.cells)) == count
        assert [c.axes["text"] for c in at_longest(results.cells)] == [1_000_000]
        if count:
            (row,) = results.endpoint_effects.to_dict("records")
            assert row["speedup_lo"] < 1.3 < row["speedup_hi"] and row["n_horizons"] == 4 and row["n_pairs"] == 4
            assert pd.isna(row["text"])


def test_a_seed_that_lacks_a_budget_has_no_endpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in (300_000, 450_000, 600_000, 1_000_000):
        for seed in range(3):
            at, done = np.round(GRID * text), not (seed == 2 and text == 450_000)
            runs = [
                store.train(f"{arm} {text} {seed}", text, law(at), schedule="wsd", done=done)
                for arm in ("scratch", "nca")
            ]
            axes = {"text": text, "seed": seed}
            store.point("nca", axes, runs[1:], store.point("scratch", axes, runs[:1]))
    results = Results.from_store(store.register("s", ["text", "seed"], "wsd"), "s")
    (cell,) = results.endpoint_cells
    assert [pair.complete for pair in cell.pairs] == [True, True, False]
