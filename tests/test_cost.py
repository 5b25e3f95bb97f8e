"""What a study costs: savings by cause, hours at a rate that says where it is from, promises against what was spent."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from harness import cost, promise, rates
from harness.commands.plan import describe
from harness.errors import InputError
from harness.plan import Plan, equal_points, make, register
from harness.rates import Rate, Rates
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study, load
from harness.specs import Corpus, Llama, Recipe, State, Train, digest
from harness.store import Store, write_json

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
WEB = Text("some/dataset", revision="0" * 40, tokenizer=BPE(300))
STEP = 8 * 32
TEXT, WARM = 100 * STEP, 40 * STEP
GRID = Path(__file__).resolve().parent.parent / "search_spaces" / "grid.py"


def recipe(schedule: Any = "cosine") -> Recipe:
    return Recipe(lr=1e-3, batch=8, schedule=schedule)


def scratch(seed: int) -> Train:
    return Train(Corpus(WEB), TEXT, MODEL, recipe(), seed)


def warm(seed: int) -> Train:
    return Train(Corpus(NCA(grid=8), seed), WARM, MODEL, recipe(), seed)


def nca(seed: int) -> Train:
    return scratch(seed).after(warm(seed))


def other(seed: int) -> Train:
    return replace(scratch(seed), recipe=replace(recipe(), lr=2e-3)).after(warm(seed))


def study(arms: list[Any], baseline: Any = scratch, **over: list[Any]) -> Study:
    return Study("s", "What?", baseline, arms, {k: tune.grid_search(v) for k, v in (over or {"seed": [0, 1]}).items()})


def saved(plan: Plan) -> dict[str, int]:
    """Tokens saved, by cause."""
    steps = cost.sharing(plan)
    return {cause: before[1].tokens - after.tokens for before, (cause, after) in itertools.pairwise(steps)}


# ---- what sharing saves


def test_two_arms_share_their_baseline_and_their_first_stage() -> None:
    plan = make(study([nca, other]))
    assert saved(plan) == {"shared baseline": 2 * TEXT, "shared upstream": 2 * WARM, "nested budgets": 0}


def test_budgets_share_what_they_have_in_common() -> None:
    def budget(text: float, seed: int) -> Train:
        return Train(Corpus(WEB), int(text * TEXT), MODEL, recipe("wsd"), seed)

    plan = make(study([], budget, text=[0.5, 1.0], seed=[0]))
    # alike up to the decay of the shorter, at 40 steps of 50
    assert saved(plan) == {"shared baseline": 0, "shared upstream": 0, "nested budgets": 40 * STEP}


def test_causes_add_up_to_what_the_whole_saves() -> None:
    plan = make(load(str(GRID.parent / "reinit.py")))
    steps = cost.sharing(plan)
    assert steps[0][1] == cost.alone(plan)
    assert steps[-1][1] == cost.cost_of(plan, plan.stages)
    flops = [step.flops for _, step in steps]
    assert flops == sorted(flops, reverse=True)


def test_what_sharing_saves_does_not_change_as_the_study_is_computed() -> None:
    def budget(text: float, seed: int) -> Train:
        return Train(Corpus(WEB), int(text * TEXT), MODEL, recipe("constant"), seed)

    plan = make(study([], budget, text=[0.5, 0.75, 1.0], seed=[0]))
    done = {d for d, s in plan.stages.items() if not isinstance(s, State)}
    pruned = plan.without(done)
    assert len(pruned.stages) < len(plan.stages)
    assert cost.sharing(pruned) == cost.sharing(plan)

    def shown(plan: Plan, done: Any) -> list[str]:
        lines = describe(plan, done, Rates()).splitlines()
        return [line for line in lines if line.split(maxsplit=1)[:1] in (["tokens"], ["FLOPs"], ["time"], ["storage"])]

    assert shown(pruned, done) == shown(plan, set())
    assert "left    0 tokens, 0 FLOPs" in describe(pruned, done, Rates())
    assert "in the longest" not in describe(pruned, done | {digest(WEB)}, Rates())


def test_a_baseline_point_of_no_arm_is_counted_once() -> None:
    def arm(seed: int) -> Train:
        return nca(seed)

    plan = make(study([arm], lambda_named("base", scratch)))
    assert cost.sharing(plan)[0][1].tokens == 2 * (TEXT + WARM + TEXT)
    alone = make(study([]))
    assert cost.alone(alone).tokens == 2 * TEXT


def lambda_named(name: str, arm: Any) -> Any:
    def named(seed: int) -> Train:
        return arm(seed)

    named.__name__ = name
    return named


@pytest.fixture(scope="module")
def grid() -> Plan:
    """The full grid planned."""
    return make(load(str(GRID)))


def test_the_full_grid_costs_a_quarter_of_its_cells(grid: Plan) -> None:
    assert "5040" in describe(grid, set(), Rates())
    (_, alone), *steps = cost.sharing(grid)
    left = {cause: step.flops / alone.flops for cause, step in steps}
    assert left == pytest.approx({"shared baseline": 0.53, "shared upstream": 0.52, "nested budgets": 0.24}, abs=0.006)
    assert left["nested budgets"] <= 0.25
    assert len([p for p in grid.points if p.arm == "nca"]) == 5 * 5 * 4 * 3 * 4 * 4


# ---- rates


def manifest(stage: Train, seconds: float, **more: Any) -> dict[str, Any]:
    """As a stage that trained for so long, on one device."""
    fields: dict[str, Any] = {"kind": type(stage).__name__, "status": "finished", "flops": stage.flops, "world": 1}
    fields |= {"params_body": stage.model.body_params, "spec": {"recipe": {"precision": stage.recipe.precision}}}
    fields |= {"train_s": seconds, "wait_s": 0.0, "checkpoint_s": 0.0, "wall_s": seconds + 3.0, "start": None}
    return fields | {"hardware": {"cpu": "some CPU", "gpu": None}, "started": "2026-01-01T00:00:00+00:00"} | more


def test_a_rate_is_what_stages_of_the_store_reached() -> None:
    stage = scratch(0)
    found = rates.measured([manifest(stage, 10.0), manifest(stage, 20.0, world=2)])
    assert found.of(stage).flops_per_s == pytest.approx(2 * stage.flops / 50.0)
    assert found.of(stage).overhead_s == pytest.approx((3 + 6) / 2)
    assert "measured on 2 stages of this store (some CPU)" in found.said([stage])


def test_the_nearest_size_counts_and_one_far_away_does_not() -> None:
    small, large = scratch(0), replace(scratch(0), model=replace(MODEL, depth=3))
    between, huge = replace(small, model=replace(MODEL, depth=4)), replace(small, model=replace(MODEL, width=512))
    found = rates.measured([manifest(small, 1.0), manifest(large, 1.0)])
    assert found.of(between) == found.of(large) != found.of(small)
    assert found.of(huge) == Rate(rates.ASSUMED_TFLOPS * 1e12)
    said = found.said([between, huge])
    assert "measured on 2 stages" in said and "for 1 stages of other sizes 400 TFLOP/s" in said
    assert found.of(replace(small, recipe=replace(small.recipe, precision="bf16"))) == found.of(huge)


def test_stages_on_other_hardware_than_the_newest_do_not_count() -> None:
    stage, gpu = scratch(0), {"cpu": "some CPU", "gpu": "some GPU"}
    later = manifest(stage, 1.0, hardware=gpu, started="2026-02-01T00:00:00+00:00")
    found = rates.measured([manifest(stage, 100.0), later])
    assert (found.hardware, found.count) == ("some GPU", 1)
    assert found.of(stage).flops_per_s == pytest.approx(stage.flops)


@pytest.mark.parametrize("damage", [{"status": "diverged"}, {"train_s": None}, {"flops": 0}, {"spec": {}}])
def test_what_tells_no_rate_is_passed_over(damage: dict[str, Any]) -> None:
    assert rates.measured([manifest(scratch(0), 1.0, **damage)]) == Rates()


def test_a_given_rate_comes_before_all_and_hours_add_up() -> None:
    plan = make(study([nca]))
    found = rates.given(1e-6)  # a million FLOP/s
    hours = found.hours(plan.stages, plan.starts)
    seconds = sum(s.flops for s in plan.stages.values() if isinstance(s, Train)) / 1e6 + len(hours) * rates.OVERHEAD_S
    assert sum(hours.values()) == pytest.approx(seconds / 3600)
    assert len(hours) == 6  # the text is no training
    assert "that were given" in found.said(plan.stages.values())


def test_the_longest_chain_is_through_the_stages_that_take_longest() -> None:
    plan = make(study([nca]))
    total, chain = cost.longest_chain(plan, {d: 2.0 if "NCA" in str(s) else 1.0 for d, s in plan.stages.items()})
    ends = [plan.stages[d] for d in chain]
    assert isinstance(ends[0], Train) and ends[-1].init == ends[0]
    assert total == 4.0  # after NCA: 2 + 2


def test_storage_counts_states_and_the_checkpoints_of_a_stage() -> None:
    stage = replace(scratch(0), recipe=recipe("constant"))
    found = cost.storage([stage, stage.state_at(3)])
    weights = cost.weight_bytes(stage)
    assert (found.weights, found.states, found.checkpoints) == (weights, 3 * weights, 9 * weights)
    assert found.peak == 13 * weights


def test_money_is_told_only_where_there_is_a_price() -> None:
    plan = make(study([nca]))
    assert "money" not in describe(plan, set(), Rates())
    assert "at 2.5 a device-hour" in describe(plan, set(), Rates(), 2.5)


# ---- the promise


def publish(store: Store, address: str, content: dict[str, Any]) -> None:
    attempt = store.begin(address)
    write_json(attempt / "manifest.json", content)
    assert store.publish(address, attempt)


def told(store: Store) -> list[str]:
    return promise.promised_and_spent(store.study("s") / "points.json", store)


def test_promised_and_spent_are_compared_over_the_stages_that_are_there(store: Store) -> None:
    plan = make(study([], seed=[0, 1]))
    speed = Rates(given=Rate(scratch(0).flops / 3600, overhead_s=0.0))  # an hour a stage
    first, second = (digest(p.train) for p in plan.points)
    register(plan, store, {}, promise.make(plan, set(), speed, 2.0))
    publish(store, first, manifest(scratch(0), 1.0, wall_s=3600 * 1.5))
    lines = told(store)
    assert lines[0].startswith("promised  2.0 device-hours for 2 training stages at")
    assert (
        lines[1] == "spent     1.5 device-hours on 1 of them, which were promised 1.0 device-hours: 1.50 times the "
        "promise"
    )
    assert lines[2] == "money     3.00 spent of 4.00, at 2 a device-hour"
    publish(store, second, manifest(scratch(1), 1.0, wall_s=1800.0, world=2))
    assert "spent     2.5 device-hours on 2 of them" in told(store)[1]


def test_what_was_in_the_store_is_neither_promised_nor_spent(store: Store) -> None:
    plan = make(study([], seed=[0, 1]))
    found = digest(plan.points[0].train)
    publish(store, found, manifest(scratch(0), 1.0, wall_s=1e6))
    register(plan, store, {}, promise.make(plan, {found}, Rates(), None))
    lines = told(store)
    assert len(lines) == 2
    assert "for 1 training stages" in lines[0] and lines[0].endswith("1 more were in the store")
    assert lines[1] == "spent     0 device-seconds on 0 of them"


def test_a_restart_and_a_shared_state_are_counted_right() -> None:
    clocks = {"setup_s": 1.0, "train_s": 50.0, "wait_s": 4.0, "first_batch_s": 2.0, "evaluate_s": 3.0}
    whole = manifest(scratch(0), 0.0, **clocks, wall_s=70.0)
    restarted = whole | {"wall_s": 20.0}  # its last start alone
    from_state = whole | {"start": "a" * 64, "wall_s": 20.0}
    state = {"train_s": 45.0, "setup_s": 9.0}
    assert promise.device_hours(whole, None) == pytest.approx(70 / 3600)
    assert promise.device_hours(restarted, None) == pytest.approx(60 / 3600)
    assert promise.device_hours(from_state, state) == pytest.approx(20 / 3600)  # of 60 the state's 45 are not its own
    assert promise.device_hours(from_state, None) == pytest.approx(20 / 3600)


def test_a_promise_is_no_part_of_the_hash_and_an_old_plan_gets_one(store: Store) -> None:
    plan = make(study([nca]))
    register(plan, store, {})
    assert told(store) == []
    register(plan, store, {}, promise.make(plan, set(), Rates(), None))
    assert len(told(store)) == 2
    assert [p.name for p in Path(store.study("s")).iterdir()] == ["points.json"]  # the same plan


# ---- arms that are one


def test_an_arm_that_is_its_baseline_everywhere_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Study\.arms = \['scratch', 'again'\]: both are the same training at every"):
        make(study([nca, lambda_named("again", scratch)]))


def test_two_arms_that_are_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"^Study\.arms = \['nca', 'again'\]: both are the same training at every"):
        make(study([nca, lambda_named("again", nca)]))


def test_an_arm_is_its_baseline_over_an_axis_that_the_baseline_does_not_name() -> None:
    def banded(band: int, seed: int) -> Train:
        return scratch(seed)

    with pytest.raises(InputError, match=r"^Study\.arms = \['scratch', 'banded'\]"):
        make(study([banded], band=[1, 2], seed=[0]))


def test_points_that_coincide_are_told() -> None:
    def faster(lr: float, seed: int) -> Train:
        return replace(scratch(seed), recipe=replace(recipe(), lr=lr))

    plan = make(study([faster], lr=[1e-3, 2e-3], seed=[0]))
    assert [(p.label(), o.label()) for p, o in equal_points(plan.points)] == [
        ("faster lr=0.001 seed=0", "scratch seed=0")
    ]
    out = describe(plan, set(), Rates())
    assert (
        "equal   1 of the points is the same training as another, such as faster lr=0.001 seed=0 as scratch seed=0"
        in out
    )
    assert saved(plan) == {"shared baseline": TEXT, "equal points": TEXT, "shared upstream": 0, "nested budgets": 0}


def test_a_space_without_points_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Study\.over = .*: yields no points"):
        make(study([nca], seed=[]))
