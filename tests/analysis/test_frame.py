"""The frame: its key, what counts in it, and one clear line for every kind of damage."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import DataError, load, manifests, missing
from analysis.frame import MEASURES, axis_value

from .synthetic_store import GRID, Store, law

TEXT = 100_000
LOSS = law(np.round(GRID * TEXT))


def test_the_key_is_unique_and_the_columns_are_the_schema(demo: Path) -> None:
    frame = load(demo, "demo")
    key = ["study", "arm", "band", "seed", "phase", "tokens"]
    assert list(frame.columns) == ["study", "arm", "band", "seed", "phase", *MEASURES]
    assert not frame.duplicated(key).any()
    assert set(frame["band"].dropna()) == {"0.2-0.3", "0.3-0.4"}
    assert set(frame["phase"]) == {"pre-training", "pre-pre-training"}
    assert set(frame["arm"]) == {"scratch", "nca", "scratch_longer"}


def test_totals_include_every_stage_before_and_its_generation(store: Store) -> None:
    first = store.train("first", 1000, LOSS, flops=10_000, generation_flops=500, at=np.arange(1, len(GRID) + 1) * 10)
    second = store.train("second", 2000, LOSS, flops=20_000, init=first, at=np.arange(1, len(GRID) + 1) * 10)
    third = store.train("third", TEXT, LOSS, flops=7 * TEXT, init=second)
    store.point("scratch", {"seed": 0}, [first, second, third])
    frame = load(store.register("s", ["seed"]), "s")
    assert list(dict.fromkeys(frame["phase"])) == ["pre-pre-training 1", "pre-pre-training 2", "pre-training"]
    last = frame.iloc[-1]
    assert last["tokens"] == TEXT and last["tokens_total"] == TEXT + 3000
    assert last["flops_total"] == 7 * TEXT + 30_000 + 500
    assert frame[frame["phase"] == "pre-pre-training 1"]["flops_total"].iloc[0] == 0


def test_axis_names_that_collide_and_arms_that_lack_an_axis(store: Store) -> None:
    digest = store.train("a", TEXT, LOSS)
    store.point("scratch", {"tokens": TEXT, "seed": 0}, [digest])
    other = store.train("b", TEXT, LOSS)
    store.point("nca", {"tokens": TEXT, "depth": 6, "seed": 0}, [other], 0)
    frame = load(store.register("s", ["tokens", "depth", "seed"]), "s")
    assert set(frame["tokens_axis"]) == {TEXT}
    assert frame.loc[frame["arm"] == "nca", "depth"].tolist()[0] == 6
    assert frame.loc[frame["arm"] == "scratch", "depth"].isna().all()


@pytest.mark.parametrize(
    ("value", "shown"),
    [([0.2, 0.3], "0.2-0.3"), (6, 6), ("code", "code"), (None, None), (True, True), (["a", [1, 2]], "a, 1-2")],
)
def test_axis_values_read_well(value: object, shown: object) -> None:
    assert axis_value(value) == shown


def test_an_unfinished_point_is_missing_not_half_there(store: Store) -> None:
    warm = store.train("warm", TEXT, LOSS)
    waiting = store.train("nca", TEXT, [], init=warm, done=False)
    store.point("scratch", {"seed": 0}, [store.train("scratch", TEXT, LOSS)])
    store.point("nca", {"seed": 0}, [warm, waiting], 0)
    root = store.register("s", ["seed"])
    assert set(load(root, "s")["arm"]) == {"scratch"}
    [row] = missing(root, "s").to_dict("records")
    assert (row["arm"], row["seed"], row["stage"], row["label"]) == ("nca", 0, waiting, "nca")
    assert set(manifests(root, "s")) == set(store.stages) - {waiting}


def test_an_attempt_that_done_does_not_name_is_ignored(store: Store) -> None:
    digest = store.train("scratch", TEXT, LOSS)
    store.point("scratch", {"seed": 0}, [digest])
    root = store.register("s", ["seed"])
    (root / "stages" / digest / "attempt-2").mkdir()
    (root / "stages" / digest / "attempt-2" / "curve.jsonl").write_text("{")
    assert len(load(root, "s")) == len(GRID) + 1


def test_a_null_loss_is_nan(store: Store) -> None:
    store.point("scratch", {"seed": 0}, [store.train("a", TEXT, np.where(GRID > 0.5, np.nan, LOSS), status="diverged")])
    frame = load(store.register("s", ["seed"]), "s")
    assert math.isnan(frame["loss_nats"].iloc[-1]) and frame["loss_nats"].dtype == float
    assert set(frame["status"]) == {"diverged"}


def one_stage(store: Store) -> tuple[Path, Path]:
    digest = store.train("scratch", TEXT, LOSS)
    store.point("scratch", {"seed": 0}, [digest])
    return store.register("s", ["seed"]), store.root / "stages" / digest


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("DONE", "{", "DONE: is not JSON"),
        ("DONE", "[]", "holds a list"),
        ("DONE", '{"attempt": "other", "files": {}}', "not there"),
        ("DONE", '{"attempt": "attempt-1"}', "lacks files"),
        ("attempt-1/manifest.json", "{}", "manifest.json: differs from the checksum"),
        ("attempt-1/curve.jsonl", "", "curve.jsonl: differs from the checksum"),
        ("attempt-1/curve.jsonl", None, "DONE without it"),
        ("attempt-1/manifest.json", None, "DONE without it"),
    ],
)
def test_damage_is_named_in_one_line(store: Store, file: str, content: str | None, says: str) -> None:
    root, stage = one_stage(store)
    if content is None:
        (stage / file).unlink()
    else:
        (stage / file).write_text(content)
    with pytest.raises(DataError, match=says) as raised:
        load(root, "s")
    assert "\n" not in str(raised.value) and stage.name in str(raised.value)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"step": 0, "tokens": 0, "loss_nats": 8.0}', '{"step": 1, "tok'], "is not JSON"),
        (['{"step": 0, "tokens": 0}'], "lacks loss_nats"),
        (['{"step": 0, "tokens": 5, "loss_nats": 8.0}', '{"step": 1, "tokens": 5, "loss_nats": 7.0}'], "not ascend"),
        ([], "no evaluation"),
    ],
)
def test_a_curve_without_checksum_is_still_checked(store: Store, lines: list[str], says: str) -> None:
    root, stage = one_stage(store)
    (stage / "DONE").write_text(json.dumps({"attempt": "attempt-1", "files": {}}))
    (stage / "attempt-1" / "curve.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=says):
        load(root, "s")


def test_an_unknown_study_lists_the_known(demo: Path) -> None:
    with pytest.raises(DataError, match="no such study; this store has demo"):
        load(demo, "dmeo")


def test_two_points_with_one_key_are_refused(store: Store) -> None:
    digest = store.train("scratch", TEXT, LOSS)
    store.point("scratch", {"seed": 0}, [digest])
    store.point("scratch", {"seed": 0}, [digest])
    with pytest.raises(DataError, match="two rows"):
        load(store.register("s", ["seed"]), "s")


def test_a_later_format_is_refused(store: Store) -> None:
    root, _ = one_stage(store)
    path = root / "studies" / "s" / "points.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(DataError, match="format 2"):
        load(root, "s")


def test_a_study_of_nothing_finished_is_an_empty_frame(store: Store) -> None:
    store.point("scratch", {"seed": 0}, [store.train("scratch", TEXT, [], done=False)])
    frame = load(store.register("s", ["seed"]), "s")
    assert isinstance(frame, pd.DataFrame) and frame.empty and "loss_nats" in frame
