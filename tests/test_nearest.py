"""Why a stage is not in the store: the nearest artifact of its kind, and what differs."""

from dataclasses import replace
from typing import Any

import pytest
from ray import tune

from harness import nearest
from harness.plan import Plan, make
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train, canonical, digest
from harness.store import Store, write_json

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
WEB = Text("some/dataset", revision="0" * 40, tokenizer=BPE(300))
Manifests = dict[str, dict[str, Any]]


def train(seed: int = 0, lr: float = 1e-3, source: Any = WEB) -> Train:
    return Train(Corpus(source, seed), 1024, MODEL, Recipe(lr=lr, batch=8), seed)


def stored(*stages: Any) -> Manifests:
    return {digest(s): {"kind": type(s).__name__, "spec": canonical(s)} for s in stages}


def only(stage: Any, manifests: Manifests) -> nearest.Miss:
    (miss,), looked = nearest.misses({digest(stage): stage}, manifests)
    assert looked == 1
    return miss


def planned(over: dict[str, list[Any]], arm: Any = None) -> Plan:
    axes = {k: tune.grid_search(v) for k, v in over.items()}
    return make(Study("s", "?", arm or (rates_and_seeds if "lr" in over else seeds), [], axes))


def rates_and_seeds(lr: float, seed: int) -> Train:
    return train(seed, lr)


def seeds(seed: int) -> Train:
    return train(seed)


def test_the_nearest_is_the_one_with_the_fewest_other_fields() -> None:
    near, far = train(lr=3e-3), train(seed=4, lr=1e-3)
    miss = only(train(), stored(far, near))
    assert miss.nearest == digest(near)
    assert miss.differs == {"recipe.lr": ("0.001", "0.003")}


@pytest.mark.parametrize(
    ("there", "field", "values"),
    [
        (replace(train(), model=replace(MODEL, io_width=320)), "model.io_width", ("default", "320")),
        (train(source=replace(WEB, revision="1" * 40)), "corpus.source.revision", ("0" * 40, "1" * 40)),
        (replace(train(), tokens=512), "tokens", ("1024", "512")),
    ],
    ids=["neutral", "nested", "budget"],
)
def test_fields_are_named_where_they_lie(there: Train, field: str, values: tuple[str, str]) -> None:
    assert only(train(), stored(there)).differs == {field: values}


def test_an_older_version_of_a_stage_is_told() -> None:
    manifests = stored(train())
    manifests[digest(train())]["spec"]["version"] = 1
    assert only(train(), manifests).differs == {"version": (str(Train.version), "1")}


def test_what_differs_further_up_is_named_with_its_stage() -> None:
    def after(lr: float) -> Train:
        return train().after(train(lr=lr, source=NCA(grid=8)))

    assert only(after(1e-3), stored(after(2e-3))).differs == {"init.recipe.lr": ("0.001", "0.002")}


def test_kinds_are_not_mixed() -> None:
    assert nearest.misses({digest(WEB): WEB}, stored(train())) == ([], 1)
    assert only(WEB, stored(train(), replace(WEB, held_out=0.5))).differs == {"held_out": ("0.02", "0.5")}


def test_manifests_of_no_known_form_are_passed_over() -> None:
    assert nearest.misses({digest(train()): train()}, {"a" * 64: {"kind": "Train"}, "b" * 64: {}}) == ([], 1)


def test_equal_reasons_are_told_together() -> None:
    plan = planned({"lr": [1e-3, 2e-3, 3e-3], "seed": [0, 1]})
    done = {digest(train(seed)): train(seed) for seed in (0, 1)}
    lines = nearest.why(plan, done, stored(*done.values()), whole=True, every=False)
    assert lines == ["4 stages differ from the nearest stored Train in recipe.lr"]
    every = nearest.why(plan, done, stored(*done.values()), whole=True, every=True)
    assert len(every) == 4
    assert "recipe.lr 0.002 here, 0.001 in" in every[0]


def test_equal_values_are_told_too() -> None:
    plan = planned({"lr": [2e-3], "seed": [0, 1]})
    lines = nearest.why(plan, set(), stored(WEB, train(0), train(1)), whole=True, every=False)
    assert "2 stages differ from the nearest stored Train in recipe.lr 0.002 here, 0.001 there" in lines


def test_many_fields_are_counted_rather_than_named() -> None:
    other = Train(Corpus(NCA(grid=8), 9), 512, replace(MODEL, width=32), Recipe(lr=1.0, batch=4), 3)
    plan = planned({"seed": [0]})
    lines = nearest.why(plan, [digest(WEB)], stored(other), whole=True, every=False)
    assert len(lines) == 1 and "from every stored Train in" in lines[0] and "fields or more" in lines[0]
    assert "and " in nearest.why(plan, [digest(WEB)], stored(other), whole=True, every=True)[0]


def test_it_says_when_not_all_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, manifests = planned({"seed": list(range(50))}), stored(train(lr=1.0))
    assert nearest.why(plan, set(), manifests, whole=False, every=False)[-1] == (
        "of the stages in the store, 1 were compared"
    )
    monkeypatch.setattr(nearest, "SEARCH_S", 0.0)
    last = nearest.why(plan, set(), manifests, whole=True, every=False)[-1]
    assert last == "of the stages that the store lacks, 1 of 51 were compared; --why takes longer"


def test_nothing_is_said_of_an_empty_store_or_a_finished_plan() -> None:
    plan = planned({"seed": [0]})
    assert nearest.why(plan, set(), {}, whole=True, every=True) == []
    assert nearest.why(plan, plan.stages, stored(train()), whole=True, every=True) == []


def test_a_few_thousand_are_compared() -> None:
    plan = planned({"lr": [1e-5 * k for k in range(1, 301)], "seed": list(range(10))})
    manifests = stored(*(train(seed, 1.0 + k) for seed in range(10) for k in range(100)))
    lines = nearest.why(plan, set(), manifests, whole=True, every=False)
    assert "recipe.lr" in lines[0]


def test_reading_manifests_is_bounded(store: Store) -> None:
    for seed in range(5):
        attempt = store.begin(digest(train(seed)))
        write_json(attempt / "manifest.json", {"kind": "Train", "spec": canonical(train(seed))})
        store.publish(digest(train(seed)), attempt)
    store.begin(digest(train(9)))  # not published
    found, whole = store.manifests(10, 60.0)
    assert (len(found), whole) == (5, True)
    found, whole = store.manifests(3, 60.0)
    assert (len(found), whole) == (3, False)
    assert store.manifests(10, -1.0) == ({}, False)
