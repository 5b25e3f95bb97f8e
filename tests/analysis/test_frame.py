"""The frame: its key, what counts in it, and one clear line for every kind of damage."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import DataError, Results, load, manifests, missing
from analysis.frame import MEASURES, axis_value, spent_flops
from analysis.stored import parse

from .simulated import BANDS, peak, simulate
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


def without_checksums(stage: Path) -> None:
    (stage / "DONE").write_text(json.dumps({"attempt": "attempt-1", "files": {}}))


def test_a_damaged_line_among_many_curves_is_found(tmp_path: Path) -> None:
    root = simulate(tmp_path, bands=BANDS[:2], sizes=["small"], evaluations=8)
    stages = sorted(p for p in (root / "stages").iterdir() if list(p.glob("*/curve.jsonl")))
    [curve] = stages[3].glob("*/curve.jsonl")
    lines = curve.read_text().splitlines()
    done = json.loads((stages[3] / "DONE").read_text())
    (stages[3] / "DONE").write_text(json.dumps(done | {"files": {}}))
    for damage, says in (
        (lines[2][:40], "is not JSON"),
        ('{"step": 1, "loss_nats": 2.0}', "lacks tokens"),
        ('{"step": 1, "tokens": 2.5, "loss_nats": 2.0}', "tokens is 2.5"),
        ('{"step": 1, "tokens": 4, "loss_nats": "2.0"}', "loss_nats is '2.0'"),
        (f"{lines[2]}{lines[3]}", "is not JSON"),
        (lines[1], "do not ascend"),
    ):
        curve.write_text("\n".join([*lines[:2], damage, *lines[3:]]))
        with pytest.raises(DataError, match=says) as raised:
            load(root, "simulated")
        assert str(curve) in str(raised.value) and "\n" not in str(raised.value)


def test_curves_parsed_together_are_those_parsed_line_by_line(tmp_path: Path) -> None:
    root = simulate(tmp_path, bands=BANDS[:2], sizes=["small"], seeds=2, evaluations=8)
    frame = load(root, "simulated")
    for stage, rows in frame.groupby("stage"):
        [curve] = (root / "stages" / str(stage)).glob("*/curve.jsonl")
        said = [json.loads(line) for line in curve.read_text().splitlines()]
        for name in ("step", "tokens", "loss_nats", "grad_norm", "induction_nats"):
            expected = np.array([np.nan if row[name] is None else row[name] for row in said], float)
            np.testing.assert_array_equal(rows[name].to_numpy(float), expected)


def test_blank_lines_unknown_fields_and_nan_are_read(store: Store) -> None:
    root, stage = one_stage(store)
    without_checksums(stage)
    last = f'{{"step": 2, "tokens": {TEXT}, "loss_nats": NaN}}'
    first = '{"step": 0, "tokens": 0, "loss_nats": 8, "new": {"a": [1]}, "accuracy": null}'
    (stage / "attempt-1" / "curve.jsonl").write_text(
        f'{first}\n\n{{"step": 1, "tokens": 5, "loss_nats": 7.0, "accuracy": 0.5}}\n{last}\n'
    )
    frame = load(root, "s")
    assert frame["tokens"].tolist() == [0, 5, TEXT] and frame["loss_nats"].tolist()[:2] == [8.0, 7.0]
    assert math.isnan(frame["loss_nats"].iloc[-1]) and frame["accuracy"].isna().tolist() == [True, False, True]


def test_a_curve_that_ends_before_its_run_did_is_damaged(store: Store) -> None:
    root, stage = one_stage(store)
    without_checksums(stage)
    curve = stage / "attempt-1" / "curve.jsonl"
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(DataError, match=rf"curve.jsonl: ends at \d+ of {TEXT} tokens"):
        load(root, "s")


def test_a_curve_with_a_gap_is_read_across_it(store: Store) -> None:
    text = 1_000_000
    at = np.round(GRID * text)
    kept = (GRID < 0.3) | (GRID > 0.5)
    for seed in range(4):
        base = store.point("scratch", {"seed": seed}, [store.train(f"a{seed}", text, law(at) + 0.01 * seed)])
        nca = store.train(f"b{seed}", text, law(at * 1.5)[kept] + 0.01 * seed, at=at[kept])
        store.point("nca", {"seed": seed}, [nca], base)
    [effect] = Results.from_store(store.register("s", ["seed"]), "s").effects.to_dict("records")
    assert effect["n_pairs"] == 4 and effect["speedup"] == pytest.approx(1.5, rel=0.02)


def test_too_few_evaluations_and_one_seed_and_no_baseline_carry_no_verdict(store: Store) -> None:
    text = 1_000_000
    at = np.round(GRID * text)
    base = store.point("scratch", {"seed": 0}, [store.train("a", text, law(at))])
    store.point("few", {"seed": 0}, [store.train("few", text, [3, 2.9], at=[text // 2, text])], base)
    store.point("one", {"seed": 0}, [store.train("one", text, law(at * 1.5))], base)
    never = store.point("scratch", {"seed": 1}, [store.train("c", text, [], done=False)])
    store.point("alone", {"seed": 1}, [store.train("alone", text, law(at))], never)
    results = Results.from_store(store.register("s", ["seed"]), "s")
    verdicts = dict(zip(results.effects["arm"], results.verdicts["verdict"], strict=True))
    assert verdicts == {
        "few": "no verdict (0 pairs, 4 needed)",
        "one": "no verdict (1 pair, 4 needed)",
        "alone": "no verdict (0 pairs, 4 needed)",
    }
    one = results.effects.set_index("arm").loc["one"]
    assert one["speedup"] == pytest.approx(1.5, rel=0.02) and math.isnan(one["speedup_lo"])
    assert results.missing["arm"].tolist() == ["scratch"]


def test_flops_of_a_diverged_run_are_those_up_to_its_end() -> None:
    document = {"status": "diverged", "tokens": 100, "flops": 1000, "generation_flops": 50, "spec": {"tokens": 1000}}
    assert spent_flops(document) == (100, 5)
    assert spent_flops(document | {"status": "finished"}) == (1000, 50)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"points": {}}, "points is no list"),
        ({"stages": []}, "stages is no dict"),
        ({"points": [{"arm": "scratch"}]}, "point 0 has no usable axes, stage, chain"),
        ({"points": [7]}, "point 0 has no usable arm"),
        ({"hash": None, "arms": 3}, "arms is no list"),
    ],
)
def test_a_plan_that_is_no_plan_is_named(store: Store, change: dict[str, object], says: str) -> None:
    root, _ = one_stage(store)
    path = root / "studies" / "s" / "points.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=says) as raised:
        load(root, "s")
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b'{"study": "s"', b"\xff\xfe", b"[1]", b"[" * 100_000])
def test_a_plan_that_is_unreadable_is_named(store: Store, content: bytes) -> None:
    root, _ = one_stage(store)
    (root / "studies" / "s" / "points.json").write_bytes(content)
    with pytest.raises(DataError, match=r"points\.json: "):
        Results.from_store(root, "s")


@pytest.mark.parametrize("field", [{"baseline": 5}, {"baseline": "scratch"}, {"chain": []}, {"tokens": []}])
def test_a_point_that_leads_nowhere_is_named(store: Store, field: dict[str, object]) -> None:
    root, _ = one_stage(store)
    path = root / "studies" / "s" / "points.json"
    plan = json.loads(path.read_text())
    plan["points"][0] |= field
    path.write_text(json.dumps(plan))
    with pytest.raises(DataError, match="point 0 has no usable"):
        load(root, "s")


def test_a_manifest_without_what_every_table_needs_is_named(store: Store) -> None:
    root, stage = one_stage(store)
    without_checksums(stage)
    path = stage / "attempt-1" / "manifest.json"
    document = json.loads(path.read_text())
    for name in ("tokens", "spec", "hardware"):
        path.write_text(json.dumps({k: v for k, v in document.items() if k != name}))
        with pytest.raises(DataError, match=rf"manifest.json: lacks {name}"):
            load(root, "s")


def test_a_file_that_cannot_be_opened_is_named(store: Store) -> None:
    root, stage = one_stage(store)
    (stage / "attempt-1" / "curve.jsonl").unlink()
    (stage / "attempt-1" / "curve.jsonl").mkdir()
    with pytest.raises(DataError, match=r"curve.jsonl: cannot be read \(Is a directory\)"):
        load(root, "s")


def test_numbers_beyond_64_bits_stay_exact(store: Store) -> None:
    flops = 3 * 10**20
    digest = store.train("large", TEXT, LOSS, flops=flops)
    store.point("scratch", {"seed": 0}, [digest])
    frame = load(store.register("s", ["seed"]), "s")
    assert frame["flops_total"].iloc[-1] == flops


def test_a_large_study_has_the_effects_it_was_made_with(tmp_path: Path) -> None:
    root = simulate(tmp_path, arms=("nca", "copy"), bands=BANDS[1:3], sizes=["small", "large"], evaluations=24)
    results = Results.from_store(root, "simulated")
    assert len(results.effects) == 8 and results.missing.empty
    for _, effect in results.effects.iterrows():
        low, _, high = effect["band"].partition("-")
        true = peak((float(low), float(high)), effect["size"], effect["budget"])
        assert effect["speedup"] == pytest.approx(true, rel=0.04)
    again = simulate(tmp_path / "again", arms=("nca", "copy"), bands=BANDS[1:3], sizes=["small", "large"],
                     evaluations=24)  # fmt: skip
    pd.testing.assert_frame_equal(results.frame, load(again, "simulated"))


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


@pytest.mark.parametrize("name", ["flops", "generation_flops"])
def test_flops_beyond_64_bits_stay_whole(name: str) -> None:
    assert parse("x", b'{"%s": 123456789012345678901, "nan": NaN}' % name.encode())[name] == 123456789012345678901
    assert parse("x", b'{"%s": 123456789012345678901}' % name.encode())[name] == 123456789012345678901
    points = parse("x", b'{"points": [{"flops": [1, 123456789012345678901]}, {"flops": 2}, 3]}')["points"]
    assert points[0]["flops"] == [1, 123456789012345678901]
