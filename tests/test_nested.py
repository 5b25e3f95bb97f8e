"""Budgets that begin alike share their beginning: what they cost, and that nothing of it shows in a result."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import cost, stages
from harness import plan as plans
from harness.schedule import lr_at
from harness.specs import Evaluation, Recipe, Sequences, State, Train, digest
from harness.store import Store
from harness.worker import Options, Worker, read_here
from tests.runs import KilledError
from tests.test_loop import assert_equal_runs, curve, same_weights

STEP = 8 * 32


def budgets(base: Train, schedule: Any, *steps: int, horizon: int | None = None) -> list[Train]:
    recipe = replace(base.recipe, schedule=schedule, warmup=2 * STEP, horizon=horizon)
    return [replace(base, tokens=n * STEP, recipe=recipe, evaluation=Evaluation(points=16, sequences=8)) for n in steps]


def worked_out(trains: list[Train]) -> tuple[dict[str, Any], dict[str, str]]:
    """The stages in the order in which they run, and the states that they go on from."""
    all_stages = plans.distinct_stages(trains)
    starts = plans.shared_states(all_stages.values())
    return plans.in_order(all_stages, starts), plans.addresses(starts)


def run_all(trains: list[Train], store: Store) -> dict[str, str]:
    ordered, starts = worked_out(trains)
    for stage in ordered.values():
        stages.run_here(stage, store, Worker(options=Options(starts=starts)))
    return starts


@pytest.fixture
def places(tmp_path: Path) -> Callable[[str], Store]:
    return lambda name: Store(tmp_path / name)


@pytest.mark.parametrize("kind", ["wsd", "constant", "cosine"])
def test_a_budget_that_goes_on_from_a_state_is_bit_equal_to_one_that_was_never_stopped(
    generated: Train, places: Callable[[str], Store], kind: str
) -> None:
    horizon = 30 * STEP if kind == "cosine" else None
    trains = budgets(generated, kind, 10, 14, 20, horizon=horizon)
    starts = run_all(trains, places("nested"))
    assert set(starts) >= {digest(t) for t in trains[1:]}
    for train in trains:
        stages.run_here(train, places("direct"))
        assert_equal_runs(train, places("direct"), places("nested"))
        nested, direct = (places(name).manifest(digest(train)) for name in ("nested", "direct"))
        assert nested is not None and direct is not None
        assert (nested["start"], direct["start"]) == (starts.get(digest(train)), None)


def test_budgets_on_text_after_a_first_stage_share_too(
    generated: Train, reading: Train, places: Callable[[str], Store]
) -> None:
    trains = [t.after(generated) for t in budgets(reading, "wsd", 10, 15)]
    ordered, starts = worked_out(trains)
    assert sum(isinstance(stage, State) for stage in ordered.values()) == 1
    for place in ("nested", "direct"):
        for stage in ordered.values():
            if place == "nested" or not isinstance(stage, State):
                stages.run_here(
                    stage, places(place), Worker(options=Options(starts=starts if place == "nested" else {}))
                )
    for train in trains:
        assert_equal_runs(train, places("direct"), places("nested"))


def test_a_state_that_is_killed_and_a_branch_that_is_killed_go_on(
    generated: Train, places: Callable[[str], Store]
) -> None:
    trains = budgets(generated, "wsd", 10, 20)
    ordered, starts = worked_out(trains)

    def killed_once(steps: set[int]) -> Any:
        def stream(spec: Train, reader: Sequences, first_step: int) -> Any:
            for step, batch in enumerate(read_here()(spec, reader, first_step), first_step):
                if step in steps:
                    steps.remove(step)
                    raise KilledError
                yield batch

        return stream

    for stage in ordered.values():
        once = killed_once({4, 9, 18})
        while places("nested").open(digest(stage)) is None:
            options = Options(checkpoint_every_s=0, starts=starts)
            try:
                stages.run_here(stage, places("nested"), Worker(options=options, stream=once))
            except KilledError:
                continue
    for train in trains:
        stages.run_here(train, places("direct"))
        assert_equal_runs(train, places("direct"), places("nested"))


def test_no_address_depends_on_which_other_budgets_there_are(generated: Train) -> None:
    short, middle, long = budgets(generated, "wsd", 10, 15, 20)
    _, two = worked_out([short, long])
    ordered, three = worked_out([short, middle, long])
    assert two[digest(short)] == three[digest(short)]
    assert {digest(t) for t in (short, middle, long)} <= set(ordered)
    assert worked_out([long])[1] == {}


def test_what_begins_otherwise_shares_nothing(generated: Train) -> None:
    (one,) = budgets(generated, "wsd", 10)
    for other in (
        replace(one, tokens=20 * STEP, seed=9),
        replace(one, tokens=20 * STEP, recipe=replace(one.recipe, lr=1e-3)),
        replace(one, tokens=20 * STEP, recipe=replace(one.recipe, warmup=STEP)),
        replace(one, tokens=20 * STEP, recipe=replace(one.recipe, schedule="cosine")),
        replace(one, tokens=20 * STEP, evaluation=Evaluation(points=8, sequences=8)),
    ):
        assert worked_out([one, other])[1] == {}
    constant = replace(one, tokens=30 * STEP, recipe=replace(one.recipe, schedule="constant"))
    assert len(worked_out([one, constant])[1]) == 2  # wsd is constant until it decays


def test_five_endpoints_cost_less_than_one_and_a_half_of_the_longest(generated: Train) -> None:
    trains = budgets(generated, "wsd", 300, 450, 600, 800, 1000)
    ordered, starts = worked_out(trains)
    by_digest = {d: ordered[s] for d, s in starts.items()}
    assert cost.cost(ordered.values(), by_digest).tokens <= 1.45 * trains[-1].tokens
    synthetic = budgets(generated, "cosine", 82, 164, 328, 656, 1312, horizon=2000 * STEP)
    ordered, starts = worked_out(synthetic)
    by_digest = {d: ordered[s] for d, s in starts.items()}
    assert cost.cost(ordered.values(), by_digest).tokens == synthetic[-1].tokens


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(3, 400), min_size=2, max_size=6, unique=True),
    schedule=st.sampled_from(["wsd", "constant", "cosine"]),
    decay=st.floats(0.05, 0.9),
    warmup=st.integers(0, 60),
)
def test_every_state_is_the_beginning_of_what_goes_on_from_it(
    generated: Train, steps: list[int], schedule: Any, decay: float, warmup: int
) -> None:
    horizon = 500 * STEP if schedule == "cosine" else None
    recipe = Recipe(lr=1e-2, batch=8, schedule=schedule, decay=decay, warmup=warmup * STEP, horizon=horizon)
    trains = [replace(generated, tokens=n * STEP, recipe=recipe) for n in steps]
    ordered, starts = worked_out(trains)
    order = list(ordered)
    for address, start in starts.items():
        stage, state = ordered[address], ordered[start]
        assert order.index(start) < order.index(address)
        assert state.steps <= stage.steps
        assert [lr_at(stage, s) for s in range(state.steps)] == [lr_at(state, s) for s in range(state.steps)]
        measured = set(state.evaluation_steps)
        assert {s for s in stage.evaluation_steps if s <= state.steps} <= measured | {stage.steps}
        if stage.steps == state.steps:
            assert stage.steps in measured


def test_states_that_nothing_needs_any_more_are_not_computed(
    generated: Train, places: Callable[[str], Store], tmp_path: Path
) -> None:
    trains = budgets(generated, "wsd", 10, 15, 20)
    ordered, starts = worked_out(trains)
    plan: Any = plans.Plan(None, (), (), ordered, starts)  # type: ignore[arg-type]
    states = [d for d, s in ordered.items() if isinstance(s, State)]
    assert len(states) == 2
    assert set(plan.without([]).stages) == set(ordered)
    done = {digest(trains[0])}
    assert set(plan.without(done).stages) == set(ordered)  # the second state goes on from the first
    done |= {states[1]}
    assert set(plan.without(done).stages) == set(ordered) - {states[0]}
    assert set(plan.without({digest(t) for t in trains}).stages) == {digest(t) for t in trains}


def test_a_state_is_published_whole(generated: Train, store: Store) -> None:
    state = budgets(generated, "wsd", 10)[0].state_at(6)
    manifest = stages.run_here(state, store)
    attempt = store.open(digest(state))
    assert attempt is not None and manifest["kind"] == "State" and manifest["status"] == "finished"
    assert not (attempt / "weights").exists()
    assert json.loads((attempt / "state" / "step-000000006" / "state.json").read_text())["stage"] == digest(state)
    assert store.damage(digest(state)) == []
    assert [row["step"] for row in curve(state, store)] == state.evaluation_steps


def test_weights_of_a_constant_run_are_those_of_its_state(generated: Train, store: Store) -> None:
    short, long = budgets(generated, "constant", 6, 12)
    starts = run_all([short, long], store)
    weights = stages.read_weights(store, digest(short))
    direct = Store(store.root.with_name("direct"))
    stages.run_here(short, direct)
    assert same_weights(weights, stages.read_weights(direct, digest(short)))
    assert starts[digest(short)] == digest(short.state_at(6))
