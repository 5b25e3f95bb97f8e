"""A plan that is changed after results were there is told; one changed before is a change, no deviation."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.deviations import deviations, earlier_plans
from analysis.frame import DataError, manifests, read_plan

from .synthetic_store import GRID, Store, law


def study(root: Path, seeds: list[int], arms: list[str], sesoi: float = 1.05) -> Store:
    store = Store(root)
    for seed in seeds:
        for arm in arms:
            digest = store.train(f"{arm} {seed}", 1_000_000, law(GRID * 1e6))
            store.point(arm, {"seed": seed}, [digest])
    store.register("demo", ["seed"])
    path = root / "studies" / "demo" / "points.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sesoi": sesoi}))
    return store


def registered(root: Path, when: str, **changed: Any) -> None:
    """Give the present plan a time, and keep it as an earlier one."""
    path = root / "studies" / "demo" / "points.json"
    plan = json.loads(path.read_text()) | {"registered": when} | changed
    path.write_text(json.dumps(plan))
    (path.parent / f"points-{changed.get('hash', 'a' * 12)}.json").write_text(json.dumps(plan))


BEFORE, AFTER = "2026-01-01T00:00:00+00:00", "2026-01-03T00:00:00+00:00"
"""The stages of a synthetic store run on the second of January."""


def read(root: Path) -> Any:
    plan = read_plan(root, "demo")
    return deviations(plan, earlier_plans(root, "demo", plan), manifests(root, "demo"))


def test_seeds_and_arms_added_after_results_are_deviations(tmp_path: Path) -> None:
    study(tmp_path / "first", [0, 1], ["scratch", "nca"])
    registered(tmp_path / "first", BEFORE)
    kept = (tmp_path / "first" / "studies" / "demo" / f"points-{'a' * 12}.json").read_text()
    study(tmp_path / "second", [0, 1, 2], ["scratch", "nca", "permuted"], sesoi=1.1)
    path = tmp_path / "second" / "studies" / "demo" / "points.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"registered": AFTER}))
    (path.parent / f"points-{'a' * 12}.json").write_text(kept)
    found = read(tmp_path / "second")
    assert list(found["change"]) == ["arms added", "seeds added", "smallest effect of interest"]
    assert list(found["what"]) == ["permuted", "2", "from 1.05 to 1.1"]
    assert found["deviation"].all() and (found["results_seen"] == 4).all()


def test_a_change_before_the_first_result_is_no_deviation(tmp_path: Path) -> None:
    study(tmp_path, [0, 1], ["scratch", "nca"])
    registered(tmp_path, BEFORE)
    path = tmp_path / "studies" / "demo" / "points.json"
    later = json.loads(path.read_text()) | {"registered": "2026-01-01T12:00:00+00:00"}
    later["points"] = [p for p in later["points"] if p["arm"] == "scratch"]
    path.write_text(json.dumps(later))
    found = read(tmp_path)
    assert list(found["change"]) == ["arms removed"] and not found["deviation"].any()


def test_claims_changed_after_results_are_deviations(tmp_path: Path) -> None:
    study(tmp_path, [0], ["scratch"])
    claim = {"id": "C2", "text": "?", "tests": [], "family": "F1", "needs": "any"}
    registered(tmp_path, BEFORE, claims=[claim])
    path = tmp_path / "studies" / "demo" / "points.json"
    changed = [claim | {"family": ""}, claim | {"id": "C1"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"registered": AFTER, "claims": changed}))
    found = read(tmp_path)
    assert list(found["change"]) == ["claims added", "claims changed"] and list(found["what"]) == ["C1", "C2"]


def test_stages_that_were_there_before_the_study_are_told(tmp_path: Path) -> None:
    study(tmp_path, [0, 1], ["scratch", "nca"])
    path = tmp_path / "studies" / "demo" / "points.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"registered": AFTER}))
    found = read(tmp_path)
    assert list(found["what"]) == ["4 of 4 points (scratch, nca)"] and not found["deviation"].any()


def test_a_study_that_kept_its_plan_has_none(tmp_path: Path) -> None:
    study(tmp_path, [0, 1], ["scratch", "nca"])
    assert read(tmp_path).empty


def test_an_earlier_plan_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    study(tmp_path, [0], ["scratch"])
    (tmp_path / "studies" / "demo" / f"points-{'b' * 12}.json").write_text('{"points": [')
    (tmp_path / "studies" / "demo" / "points-search.json").write_text("not a plan of the study")
    with pytest.raises(DataError, match="an earlier plan that cannot be read"):
        read(tmp_path)
