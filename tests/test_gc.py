"""gc: what no registered study needs goes, and nothing else, whoever is killed meanwhile."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from harness import garbage, stages
from harness.__main__ import main
from harness.errors import InputError
from harness.plan import Plan, make, register
from harness.space import Study
from harness.specs import Recipe, State, Train
from harness.store import Store, write_json

OLD = time.time() - 2 * garbage.QUIET_S


@pytest.fixture
def plan(generated: Train) -> Plan:
    """Three budgets of one run: three stages, and the states that they share."""
    recipe = Recipe(lr=1e-2, batch=8, schedule="constant")

    def budget(steps: int) -> Train:
        return replace(generated, recipe=recipe, tokens=steps * 256)

    return make(Study("nested", "?", budget, [], {"steps": tune.grid_search([4, 8, 12])}))


def publish(store: Store, address: str, size: int = 100) -> Path:
    attempt = store.begin(address)
    write_json(attempt / "manifest.json", {"kind": "Train", "status": "finished"})
    (attempt / "weights").mkdir()
    (attempt / "weights" / "model.safetensors").write_bytes(b"w" * size)
    assert store.publish(address, attempt)
    return attempt


def aged(place: Path, to: float = OLD) -> Path:
    for each in (*place.rglob("*"), place):
        os.utime(each, (to, to))
    return place


def checkpoint(store: Store, address: str) -> Path:
    place = Path(store.resume(address))
    place.mkdir(parents=True)
    (place / "live.json").write_text("{}")
    return place


def why(store: Store) -> dict[str, list[str]]:
    """What can go: digests by reason."""
    found: dict[str, list[str]] = {}
    for each in garbage.survey(store).garbage:
        found.setdefault(each.why, []).append(each.holding.digest)
    return found


def removed(store: Store) -> int:
    return garbage.remove(garbage.survey(store).garbage, store)


def files(store: Store) -> set[str]:
    return {str(p.relative_to(Path(store.root.parent))) for p in Path(store.root.parent).rglob("*") if p.is_file()}


NOBODY = "f" * 64


def test_an_empty_store_has_none(store: Store) -> None:
    assert garbage.survey(store) == garbage.Survey(0, 0, 0, ())


def test_a_stage_of_no_registered_study_goes_and_one_of_an_earlier_plan_stays(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    publish(store, NOBODY)
    assert why(store) == {}  # a search may be on its way to it
    aged(Path(store.stage(NOBODY)))
    kept = [publish(store, d) for d, s in plan.stages.items() if not isinstance(s, State)]
    fewer = make(replace(plan.study, over={"steps": tune.grid_search([4])}))
    register(fewer, store, {})  # the earlier plan lies beside it, under its hash
    assert len(store.registrations()) == 2
    assert why(store) == {garbage.UNNEEDED: [NOBODY]}
    assert removed(store) > 100
    assert not store.stage(NOBODY).exists()
    assert all(attempt.is_dir() for attempt in kept)
    assert why(store) == {}


def test_what_is_registered_meanwhile_stays(store: Store, plan: Plan) -> None:
    address = next(d for d, s in plan.stages.items() if not isinstance(s, State))
    publish(store, address)
    found = garbage.survey(store, quiet_s=-60.0).garbage
    assert found
    register(plan, store, {})
    assert garbage.remove(found, store) == 0
    assert store.done([address]) == {address}


def test_states_go_when_nothing_unfinished_goes_on_from_them(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    states = [d for d, s in plan.stages.items() if isinstance(s, State)]
    budgets = [d for d, s in plan.stages.items() if not isinstance(s, State)]
    assert len(states) == 2
    for address in (*states, *budgets[:1]):
        publish(store, address)
    assert why(store) == {garbage.STATES: states[:1]}  # the other two go on from the second
    publish(store, budgets[1])
    assert why(store) == {garbage.STATES: states[:1]}
    publish(store, budgets[2])
    assert sorted(why(store)[garbage.STATES]) == sorted(states)
    removed(store)
    assert store.done(plan.stages) == set(budgets)


def test_a_state_behind_one_that_is_not_there_is_in_use(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    first, second = (d for d, s in plan.stages.items() if isinstance(s, State))
    assert plan.starts[second] == first
    publish(store, first)
    assert why(store) == {}
    publish(store, second)
    budget = next(d for d, s in plan.starts.items() if s == first and d != second)
    publish(store, budget)
    assert why(store) == {garbage.STATES: [first]}


def test_a_plan_that_does_not_say_where_stages_begin_keeps_its_states(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    place = store.study("nested") / "points.json"
    data = json.loads(place.read_text())
    for stage in data["stages"].values():
        del stage["start"]
    write_json(place, data)
    *budgets, last = (d for d, s in plan.stages.items() if not isinstance(s, State))
    for address in (*budgets, *(d for d, s in plan.stages.items() if isinstance(s, State))):
        publish(store, address)
    assert why(store) == {}
    publish(store, last)
    assert len(why(store)[garbage.STATES]) == 2


def test_attempts_go_when_nobody_has_written_for_a_day(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    begun, done = (d for d, s in list(plan.stages.items())[:2])
    first, lost = store.begin(begun), store.begin(done)
    published = publish(store, done)
    assert garbage.ATTEMPTS not in why(store)
    aged(first), aged(lost), aged(published)
    assert sorted(why(store)[garbage.ATTEMPTS]) == sorted([begun, done])
    live = checkpoint(store, begun)  # its workers are at it: they write here, and the attempt at an evaluation
    assert why(store)[garbage.ATTEMPTS] == [done]
    aged(live)
    removed(store)
    assert not first.exists() and not lost.exists()
    assert store.counts(done) == published.name
    assert live.exists()  # it is needed, and goes on from there


def test_checkpoints_go_where_their_stage_is_done_or_unneeded(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    waiting, done = list(plan.stages)[:2]
    publish(store, done)
    places = {d: aged(checkpoint(store, d)) for d in (waiting, done, NOBODY)}
    assert sorted(why(store)[garbage.CHECKPOINTS]) == sorted([done, NOBODY])
    (places[NOBODY] / "live.json").write_text("{}")  # someone trains it
    assert why(store)[garbage.CHECKPOINTS] == [done]
    removed(store)
    assert sorted(p for p in places.values() if p.exists()) == sorted([places[waiting], places[NOBODY]])


def test_what_was_set_aside_goes(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    address = next(iter(plan.stages))
    publish(store, address)
    store.set_aside(address)
    assert why(store) == {garbage.DAMAGED: [address]}
    removed(store)
    assert why(store) == {} and not list(Path(store.root / "damaged").iterdir())


def test_what_a_run_left_for_itself_goes_when_it_is_old(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    old, young = (store.runs / name for name in ("nested-1", "nested-2"))
    for place in (old, young):
        (place / "trial").mkdir(parents=True)
        (place / "trial" / "result.json").write_text("{}")
    aged(old)
    running = checkpoint(store, next(iter(plan.stages)))
    assert why(store) == {}  # some run lasts, and it may be that one
    aged(running)
    assert why(store) == {garbage.RUNS: ["nested-1"]}
    removed(store)
    assert not old.exists() and young.exists()


def test_a_stage_that_is_being_removed_is_never_half(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, NOBODY)

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            garbage.remove(garbage.survey(store, quiet_s=-60.0).garbage, store)
    assert store.counts(NOBODY) is None  # absent, though its files are there
    assert why(store) == {}  # until a day is over
    aged(Path(store.stage(NOBODY)))
    assert why(store) == {garbage.ATTEMPTS: [NOBODY]}


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"stages": 1}'])
def test_a_plan_that_cannot_be_read_stops_it(store: Store, plan: Plan, content: str) -> None:
    register(plan, store, {})
    publish(store, NOBODY)
    (store.study("nested") / "points.json").write_text(content)
    with pytest.raises(InputError, match=r"points\.json: not readable .*; remove it if nothing") as refused:
        garbage.survey(store)
    assert "\n" not in str(refused.value)
    assert store.done([NOBODY])


def test_the_command_shows_and_removes(
    store: Store, plan: Plan, generated: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    register(plan, store, {})
    publish(store, NOBODY, size=5000)
    aged(Path(store.stage(NOBODY)))
    stages.run_here(plan.points[0].train, store)
    before = files(store)
    arguments = ["gc", "--store", str(store.root)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "1 registered plans have 5 stages" in out
    assert f"       1    5.04kB  {garbage.UNNEEDED}\n" in out
    assert "nothing was removed" in out
    assert files(store) == before
    assert main([*arguments, "--remove"]) == 0
    assert "removed" in capsys.readouterr().out
    assert {name for name in before - files(store) if NOBODY not in name} == set()
    assert not store.stage(NOBODY).exists()
    assert main(arguments) == 0
    assert "nothing can go" in capsys.readouterr().out


def test_a_study_goes_on_after_its_states_were_removed(store: Store, plan: Plan) -> None:
    register(plan, store, {})
    for address, stage in plan.stages.items():
        if address != list(plan.stages)[-1]:
            stages.run_here(stage, store)
    removed(store)
    rest = plan.without(store.done(plan.stages))
    assert [d for d in rest.stages if d not in store.done(rest.stages)] == [list(plan.stages)[-1]]
    assert rest.needs[list(plan.stages)[-1]] <= store.done(rest.stages)
