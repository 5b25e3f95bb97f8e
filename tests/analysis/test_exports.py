"""Every table as data: what stands in it, that it survives a round trip, and what a study cost beside its promise."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import DataError, Results, export
from analysis.exports import LONG
from analysis.trials import domain, trials

from .simulated import BANDS, simulate
from .synthetic_store import GRID, Store, law

COMMITTED = Path(__file__).parents[2] / "results" / "crossover"
TEXT = 1_000_000
LOSS = law(np.round(GRID * TEXT))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated")
    return simulate(root, arms=("nca", "copy"), bands=BANDS[:2], sizes=["small"], seeds=4, evaluations=12)


@pytest.fixture(scope="module")
def exported(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(simulated, "simulated", tmp_path_factory.mktemp("export"))


def test_an_export_has_every_table_twice_and_gives_them_again(simulated: Path, exported: Path) -> None:
    stored, read = Results.from_store(simulated, "simulated").tables(), Results.from_export(exported).tables()
    assert list(stored) == list(read)
    assert {"frame", "trials", "evals", "pairs", "effects", "learned", "missing", "cost"} <= set(stored)
    for name, table in stored.items():
        pd.testing.assert_frame_equal(table, read[name])
        csv = pd.read_csv(exported / (f"{name}.csv.gz" if name in LONG else f"{name}.csv"))
        assert list(csv.columns) == list(table.columns) and len(csv) == len(table)
        assert (exported / f"{name}.parquet").is_file() == bool(len(table))
        if len(table):
            parquet = pd.read_parquet(exported / f"{name}.parquet")
            assert list(parquet.columns) == list(table.columns) and len(parquet) == len(table)
            for column in table.select_dtypes("number"):
                np.testing.assert_array_equal(parquet[column].to_numpy(float), table[column].to_numpy(float))


def test_an_export_committed_before_still_gives_its_tables() -> None:
    results = Results.from_export(COMMITTED)
    effects = ("n_pairs", "target_loss_nats", "dloss_nats", "speedup", "net_speedup_tokens")
    for name, columns in (("pairs", None), ("learned", None), ("effects", effects)):
        published, table = pd.read_csv(COMMITTED / f"{name}.csv"), results.tables()[name]
        for column in columns or published.select_dtypes("number"):
            if column in table.select_dtypes("number"):
                np.testing.assert_allclose(published[column], table[column].astype(float), rtol=1e-9)
    assert len(results.trials) == len(results.stages) and results.cost["stages_finished"].sum() == len(results.stages)


def test_an_export_of_nothing_finished_can_be_read(store: Store, tmp_path: Path) -> None:
    store.point("scratch", {"seed": 0}, [store.train("a", TEXT, [], done=False)])
    root = store.register("s", ["seed"])
    read = Results.from_export(export(root, "s", tmp_path / "e"))
    for name, table in Results.from_store(root, "s").tables().items():
        pd.testing.assert_frame_equal(table, read.tables()[name])
    assert read.trials["status"].tolist() == ["missing"]


def test_two_exports_of_a_store_are_the_same_bytes(simulated: Path, exported: Path, tmp_path: Path) -> None:
    again = export(simulated, "simulated", tmp_path)
    for path in exported.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_mixed_axis_values_are_text_in_parquet(store: Store, tmp_path: Path) -> None:
    for i, value in enumerate([2, "a", None, True]):
        store.point("scratch", {"knob": value, "seed": 0}, [store.train(f"{i}", TEXT, LOSS)])
    out = export(store.register("s", ["knob", "seed"]), "s", tmp_path / "e")
    assert pd.read_parquet(out / "trials.parquet")["knob"].tolist()[:2] == ["2", "a"]
    assert pd.read_parquet(out / "frame.parquet")["knob"].isna().sum() == len(GRID) + 1


def test_trials_say_what_a_stage_is_and_what_came_before_it(simulated: Path) -> None:
    found = Results.from_store(simulated, "simulated").trials.set_index("trial_id")
    assert found.index.is_unique and len(found) == 4 + 2 * 4 * 3 + 1
    text = found[(found["phase"] == "pre-training") & (found["arm"] == "nca")]
    assert len(text) == 8 and set(text["band"]) == {"0.2-0.3", "0.3-0.4"} and set(text["seed"]) == {0, 1, 2, 3}
    warm = found.loc[text["parent_id"]]
    assert set(warm["arm"]) == {"nca; copy"} and set(warm["domain"]) == {"NCA"} and not warm["text_tokens_max"].any()
    assert (text["syn_tokens"].to_numpy() == warm["tokens"].to_numpy()).all()
    own = text["flops"] + text["gen_flops"]
    assert (text["flops_total"].to_numpy() == (own.to_numpy() + warm["flops_total"].to_numpy())).all()
    assert set(text["schedule"]) == {"wsd"} and set(text["peak_lr"]) == {0.006} and set(text["decay_frac"]) == {0.2}
    assert found["kind"].value_counts().to_dict() == {"Train": 28, "Text": 1}
    assert (found["spec_hash"] == found.index).all() and set(found["device"]) == {"a cpu"}


def test_trials_that_points_share_or_lack(store: Store) -> None:
    warm = store.train("warm", 1000, GRID)
    first = store.train("b", TEXT, LOSS * np.nan, init=warm, status="diverged")
    store.point("scratch", {"domain": "web", "seed": 0}, [store.train("a", TEXT, LOSS)])
    store.point("nca", {"domain": "web", "depth": 6, "seed": 0}, [warm, first], 0)
    later = store.train("c", TEXT, [], init=warm, done=False)
    store.point("nca", {"domain": "code", "depth": 6, "seed": 0}, [warm, later], 0)
    found = Results.from_store(store.register("s", ["domain", "depth", "seed"]), "s").trials.set_index("trial_id")
    assert found.loc[warm, "domain_axis"] is None and found.loc[warm, "depth"] == 6
    assert found.loc[first, "stop_reason"] == "diverged" and found.loc[later, "status"] == "missing"
    assert found.loc[later, "flops_total"] == found.loc[warm, "flops_total"] + 1000 * TEXT
    assert math.isnan(found.loc[later, "wall_s"])


def test_an_evaluation_is_decayed_at_the_end_of_a_schedule_alone(store: Store) -> None:
    cases = {"ends": ("wsd", None), "stops": ("cosine", 2 * TEXT), "never": ("constant", None)}
    for seed, (name, (schedule, horizon)) in enumerate(cases.items()):
        digest = store.train(name, TEXT, LOSS, schedule=schedule, horizon=horizon)
        store.point("scratch", {"seed": seed}, [digest])
    results = Results.from_store(store.register("s", ["seed"]), "s")
    decayed = results.evals[results.evals["is_decayed"]]
    assert decayed["text_tokens"].tolist() == [TEXT]
    assert results.stages[decayed["trial_id"].iloc[0]]["spec"]["recipe"]["schedule"] == "wsd"
    assert len(results.evals) == 3 * (len(GRID) + 1)


def test_cost_counts_a_stage_once_beside_its_promise(simulated: Path) -> None:
    results = Results.from_store(simulated, "simulated")
    cost = results.cost
    assert cost["stages"].sum() == len(results.stages)
    row = cost.set_index(["phase", "arm"]).loc[("pre-pre-training", "nca; copy")]
    assert row["stages"] == row["promised_stages"] == 8
    assert row["device_s"] == pytest.approx(8 * 32) and row["promised_device_s"] == pytest.approx(8 * 36)
    assert row["spent_of_promised_device_s"] == pytest.approx(8 * 32)
    assert row["spent_money"] == pytest.approx(2 * 8 * 32 / 3600)
    assert row["gen_flops"] == sum(d["generation_flops"] for d in results.stages.values() if d["kind"] == "Train")
    assert math.isnan(cost.set_index("kind").loc["Text", "promised_device_s"])


def test_a_stage_that_went_on_from_a_state_costs_what_it_added() -> None:
    clocks = {"setup_s": 1.0, "train_s": 100.0, "evaluate_s": 10.0}
    base = {"kind": "Train", "status": "finished", "tokens": 10, "flops": 10, "world": 2, "wall_s": 5.0, **clocks}
    state = base | {"kind": "State"}
    after = base | {"train_s": 150.0, "start": "s"}
    point = {"arm": "scratch", "axes": {"seed": 0}, "stage": "a", "chain": ["a"], "tokens": [10], "flops": [10]}
    plan = {"axes": ["seed"], "points": [point]}
    seconds = trials(plan, {"s": state, "a": after}).set_index("trial_id")["device_s"]
    assert seconds["s"] == 2 * 111 and seconds["a"] == 2 * (161 - 110)
    assert trials(plan, {"a": after}).set_index("trial_id")["device_s"]["a"] == 2 * 5


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"type": "Text", "dataset": "roneneldan/TinyStories", "config": None}, "roneneldan/TinyStories"),
        ({"type": "Text", "dataset": "wikitext", "config": "small"}, "wikitext/small"),
        ({"type": "Text", "dataset": ".", "content": "0123456789"}, "Text 01234567"),
        ({"type": "NCA", "band": [0.2, 0.3]}, "NCA"),
        ({}, ""),
    ],
)
def test_what_a_source_is_called(source: dict[str, object], name: str) -> None:
    assert domain(source) == name


def test_a_directory_that_cannot_be_written_is_named(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/e: cannot be written"):
        export(demo, "demo", tmp_path / "file" / "e")


def test_a_promise_that_is_damaged_counts_as_none(store: Store) -> None:
    store.point("scratch", {"seed": 0}, [store.train("a", TEXT, LOSS)])
    root = store.register("s", ["seed"])
    path = root / "studies" / "s" / "points.json"
    plain = json.loads(path.read_text())
    for promise in (None, {}, {"stages": 3}):
        path.write_text(json.dumps(plain | {"promise": promise}))
        cost = Results.from_store(root, "s").cost
        assert cost["promised_stages"].tolist() == [0] and cost["promised_device_s"].isna().all()
