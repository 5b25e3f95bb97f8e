"""Plans: each distinct stage once, parents first, a registered hash, and what sharing saves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune

from analysis.deviations import earlier_plans
from harness import cost
from harness import plan as plans
from harness.errors import InputError
from harness.plan import make, register, registered_revisions
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train, Transfer, digest, parents
from harness.store import Store

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
RECIPE = Recipe(lr=1e-3, batch=8)
WEB = Text("some/dataset", revision="0" * 40, tokenizer=BPE(300))


def scratch(seed: int) -> Train:
    return Train(Corpus(WEB), 1024, MODEL, RECIPE, seed)


def warm(seed: int) -> Train:
    return Train(Corpus(NCA(grid=8), seed), 512, MODEL, RECIPE, seed)


def nca(seed: int) -> Train:
    return scratch(seed).after(warm(seed))


def permuted(seed: int) -> Train:
    return scratch(seed).after(warm(seed), Transfer(blocks="permuted"))


def study(seeds: int = 3, arms: list[Any] | None = None, name: str = "s", **more: Any) -> Study:
    axes = {"seed": tune.grid_search(list(range(seeds)))}
    return Study(name, "What?", scratch, [nca, permuted] if arms is None else arms, axes, **more)


# ---- stages


def test_each_distinct_stage_is_planned_once() -> None:
    plan = make(study())
    assert len(plan.points) == 9
    # one text, three runs from scratch, three warm starts that two arms share, and the two arms' three runs each
    assert len(plan.stages) == 1 + 3 + 3 + 6
    assert all(digest(stage) == address for address, stage in plan.stages.items())


@given(seeds=st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_parents_come_before_children_and_nothing_is_left_out(seeds: int) -> None:
    plan = make(study(seeds))
    seen: set[str] = set()
    for address, stage in plan.stages.items():
        assert {digest(p) for p in parents(stage).values()} <= seen
        seen.add(address)
    assert {digest(t) for p in plan.points for t in p.train.chain()} <= seen


def test_a_label_says_what_came_first_and_what_became_of_it() -> None:
    resampled = scratch(2).after(warm(2), Transfer(blocks="resampled"))
    ablated = scratch(2).after(warm(2), Transfer.only("mlp", "norms"))
    labels = [plans.label(stage) for stage in (scratch(2), nca(2), permuted(2), resampled, ablated, WEB)]
    after = ("", " after NCA", " after permuted NCA", " after resampled NCA", " after NCA without attention")
    assert labels == [*(f"Text 1.02k seed 2{what}" for what in after), "text"]


def test_studies_share_the_stages_that_they_have_in_common() -> None:
    first, second = make(study(3)), make(study(5, arms=[nca], name="other"))
    shared = set(first.stages) & set(second.stages)
    assert len(shared) == 1 + 3 + 3 + 3  # text, scratch, warm starts, nca


def test_ten_thousand_points_are_planned() -> None:
    def arm(width: int, lr: float, seed: int) -> Train:
        model = Llama(depth=1, width=width, heads=2, mlp=24, context=32)
        base = Train(Corpus(WEB), 1024, model, replace(RECIPE, lr=lr), seed)
        return base.after(Train(Corpus(NCA(grid=8), seed), 512, model, RECIPE, seed))

    over = {
        "width": tune.grid_search([16 * k for k in range(1, 11)]),
        "lr": tune.grid_search([1e-5 * k for k in range(1, 101)]),
        "seed": tune.grid_search(list(range(10))),
    }
    plan = make(Study("large", "?", arm, [], over))
    assert len(plan.points) == 10_000
    assert len(plan.stages) == 1 + 100 + 10_000  # a warm start serves every learning rate


# ---- cost


def test_cost_counts_each_stage_once_and_alone_counts_every_cell() -> None:
    plan = make(study())
    whole = cost.cost(plan.stages.values())
    assert whole.tokens == 3 * 1024 + 3 * 512 + 6 * 1024
    assert whole.flops == sum(s.flops for s in plan.stages.values() if isinstance(s, Train))
    assert whole.bytes == 4 * (3 * MODEL.params(10_002) + 9 * MODEL.params(300))
    # by itself every cell of the two arms has a baseline and a warm start of its own
    assert cost.alone(plan).tokens == 6 * (1024 + 512 + 1024)
    assert cost.alone(plan).flops > whole.flops


def test_one_arm_of_its_own_saves_nothing() -> None:
    plan = make(study(arms=[nca]))
    assert cost.alone(plan).tokens == cost.cost(plan.stages.values()).tokens


# ---- the registered plan


@pytest.fixture
def places(tmp_path: Path) -> Callable[[str], Store]:
    return lambda name: Store(tmp_path / name)


def test_the_registered_plan_has_what_a_reader_needs(store: Store) -> None:
    register(make(study()), store, {})
    data = json.loads((store.study("s") / "points.json").read_text())
    assert (data["format"], data["study"], data["baseline"], data["axes"]) == (1, "s", "scratch", ["seed"])
    assert data["arms"] == ["scratch", "nca", "permuted"]
    assert data["schedule"] == "cosine"
    assert data["sesoi"] == 1.05
    for point in data["points"]:
        assert point["chain"][-1] == point["stage"]
        assert all(address in data["stages"] for address in point["chain"])
        assert point["tokens"] == [data["stages"][address]["tokens"] for address in point["chain"]]
        assert point["flops"] == [data["stages"][address]["flops"] for address in point["chain"]]
        if point["arm"] == "scratch":
            assert (point["baseline"], point["differs_in"]) == (None, [])
        else:
            base = data["points"][point["baseline"]]
            assert (base["arm"], base["axes"]) == ("scratch", point["axes"])
            assert point["differs_in"] == ["init", "transfer"]
    for stage in data["stages"].values():
        assert set(stage["parents"].values()) <= set(data["stages"])
        assert stage["spec"]["type"] == stage["kind"]


def test_a_study_of_two_schedules_says_so() -> None:
    def wsd(seed: int) -> Train:
        return replace(scratch(seed), recipe=replace(RECIPE, schedule="wsd"))

    assert make(study(arms=[wsd])).registered["schedule"] == "mixed"
    assert make(study(arms=[wsd])).registered["points"][-1]["differs_in"] == ["recipe.schedule"]


def test_the_hash_is_of_what_is_computed_and_judged(text: Text) -> None:
    one = make(study()).registered["hash"]
    assert one == make(study()).registered["hash"] == make(study(name="other")).registered["hash"]
    assert one != make(study(2)).registered["hash"]
    assert one != make(study(arms=[nca])).registered["hash"]
    assert one != make(study(sesoi=1.1)).registered["hash"]


def test_the_hash_does_not_depend_on_where_text_lies(tmp_path: Path) -> None:
    plan = {}
    for place in ("here", "there"):
        root = tmp_path / place
        root.mkdir()
        for i in range(20):
            (root / f"{i}.txt").write_text(f"document {i}")

        def reading(seed: int, root: Path = root) -> Train:
            return replace(scratch(seed), corpus=Corpus(Text.local(root, tokenizer=BPE(300), held_out=0.3)))

        plan[place] = make(Study("s", "?", reading, [], {"seed": 0}))
    assert plan["here"].registered["hash"] == plan["there"].registered["hash"]
    (tmp_path / "there" / "0.txt").write_text("another document")

    def changed(seed: int) -> Train:
        return replace(scratch(seed), corpus=Corpus(Text.local(tmp_path / "there", tokenizer=BPE(300), held_out=0.3)))

    assert make(Study("s", "?", changed, [], {"seed": 0})).registered["hash"] != plan["there"].registered["hash"]


def test_texts_in_unlike_places_are_unlike_stages_of_one_plan(tmp_path: Path) -> None:
    for place in ("one", "other", "same"):
        (tmp_path / place).mkdir()
        for i in range(20):
            (tmp_path / place / f"{i}.txt").write_text(f"document {i} of {place.replace('same', 'one')}")

    def reading(place: str) -> Train:
        return replace(scratch(0), corpus=Corpus(Text.local(tmp_path / place, tokenizer=BPE(300), held_out=0.3)))

    def after(place: str) -> Train:
        return scratch(0).after(reading(place))

    plan = make(Study("s", "?", reading, [after], {"place": tune.grid_search(["one", "other", "same"])}))
    trained = {(p.arm, dict(p.axes)["place"]): digest(p.train) for p in plan.points}
    for arm in ("reading", "after"):
        assert trained[arm, "one"] == trained[arm, "same"] != trained[arm, "other"]


def test_a_plan_that_says_the_same_is_registered_once(store: Store) -> None:
    register(make(study()), store, {})
    before = (store.study("s") / "points.json").read_bytes()
    register(make(study()), store, {})
    assert (store.study("s") / "points.json").read_bytes() == before
    assert [p.name for p in Path(store.study("s")).iterdir()] == ["points.json"]


def test_a_plan_that_changes_is_kept_beside_its_successor(store: Store) -> None:
    hashes = []
    for seeds in (1, 2, 3):
        register(make(study(seeds)), store, {})
        hashes.append(json.loads((store.study("s") / "points.json").read_text())["hash"])
    assert len(set(hashes)) == 3
    for old in hashes[:2]:
        kept = store.study("s") / f"points-{old[:12]}.json"
        assert json.loads(kept.read_text())["hash"] == old


def test_every_registration_of_a_study_that_is_changed_to_and_fro_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day, seeds in enumerate((1, 2, 1, 2, 1), 1):
        monkeypatch.setattr(plans, "now", lambda day=day: f"2026-01-0{day}T00:00:00+00:00")
        register(make(study(seeds)), store, {})
    kept = [json.loads(path.read_text()) for path in Path(store.study("s")).glob("points-*.json")]
    earlier = earlier_plans(Path(store.root), "s", json.loads((store.study("s") / "points.json").read_text()))
    for found in (kept, earlier):
        assert sorted(plan["registered"][:10] for plan in found) == [f"2026-01-0{day}" for day in (1, 2, 3, 4)]
    assert [len(plan["points"]) for plan in earlier] == [len(make(study(n)).points) for n in (1, 2, 1, 2)]


# ---- what is looked up on the network


class Hub:
    """Stands for the hub: counts what is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        monkeypatch.setattr("harness.sources.hub.commit", self.commit)
        monkeypatch.setattr("harness.sources.text._stream", lambda text: None)

    def commit(self, kind: str, name: str, revision: str | None, field: str) -> str:
        self.asked.append(name)
        return f"{len(self.asked):040x}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


def open_revision() -> Study:
    def reading(seed: int) -> Train:
        return replace(scratch(seed), corpus=Corpus(Text("some/dataset", tokenizer=BPE(300))))

    return Study("open", "?", reading, [], {"seed": tune.grid_search([0, 1])})


def test_an_open_revision_is_looked_up_once_written_down_and_used_again(store: Store, hub: Hub) -> None:
    revisions: plans.Revisions = {}
    plan = make(open_revision(), network=True, revisions=revisions)
    register(plan, store, revisions)
    assert hub.asked == ["some/dataset"]
    assert plans.unresolved(plan) == {}
    again = make(open_revision(), network=True, revisions=registered_revisions(open_revision(), store))
    assert hub.asked == ["some/dataset"]
    assert list(again.stages) == list(plan.stages)


def test_what_its_search_looked_up_is_used_by_a_study_that_was_registered_before(store: Store) -> None:
    store.study("s").mkdir(parents=True)
    for name, known in (("points.json", {"a": {"x": "1"}}), (plans.SEARCH, {"a": {"x": "0"}, "b": {"x": "2"}})):
        (store.study("s") / name).write_text(json.dumps({"revisions": known}))
    assert registered_revisions(study(), store) == {"a": {"x": "1"}, "b": {"x": "2"}}


def test_without_a_network_an_open_revision_stays_open(hub: Hub) -> None:
    plan = make(open_revision())
    assert hub.asked == []
    assert [type(s) for s in plans.unresolved(plan).values()] == [Text]


def test_a_study_that_was_never_registered_has_no_revisions(store: Store) -> None:
    assert registered_revisions(study(), store) == {}


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_registered_plan_that_cannot_be_read_is_refused_in_one_line(store: Store, content: str) -> None:
    store.study("s").mkdir(parents=True)
    (store.study("s") / "points.json").write_text(content)
    with pytest.raises(InputError, match=r"points\.json: not readable .*; remove it to register anew$") as refused:
        registered_revisions(study(), store)
    assert "\n" not in str(refused.value)


# ---- numbers for people


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1_234_567, "1.23M"), (2e9, "2G"), (-1500, "-1.5k"), (1e20, "100E")],
)
def test_si(value: float, shown: str) -> None:
    assert plans.si(value) == shown
