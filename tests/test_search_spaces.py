"""Every study in search_spaces/ loads and plans, and sources that are there to be looked at give tokens; no network."""

import socket
from pathlib import Path
from typing import Any

import pytest

from harness import plan as plans
from harness import preview
from harness.__main__ import describe
from harness.space import Study, load, load_value
from harness.specs import Train, Transfer, digest, parents

FOLDER = Path(__file__).resolve().parent.parent / "search_spaces"
FILES = sorted(FOLDER.glob("*.py"))
VALUES = {path: vars(load_value(str(path), "study")[2]) for path in FILES}
TARGETS = [f"{path}:{name}" for path in FILES for name, value in VALUES[path].items() if isinstance(value, Study)]
SOURCES = [
    f"{path}:{name}"
    for path in FILES
    if "study" not in VALUES[path]
    for name, value in VALUES[path].items()
    if preview.is_source(value)
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a plan needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_file_has_a_study_or_sources() -> None:
    assert {"smoke.py", "bands.py"} <= {path.name for path in FILES}
    for path in FILES:
        if not any(source.startswith(f"{path}:") for source in SOURCES):
            assert isinstance(load(str(path)), Study)


@pytest.mark.parametrize("target", SOURCES, ids=lambda t: t.removeprefix(f"{FOLDER}/"))
def test_a_source_can_be_previewed(target: str) -> None:
    name, source = preview.find(target)
    if not source.stored:
        found, frames = preview.measure(name, source, 2)
        assert found["name"] == name and frames is not None


def test_bands_has_the_automata_of_the_smoke_study() -> None:
    found = [preview.find(str(FOLDER / target))[1] for target in ("bands.py:smoke", "smoke.py")]
    assert digest(found[0]) == digest(found[1])


def test_the_whole_transfer_among_the_ablations_is_the_arm_of_the_study_that_has_it_alone() -> None:
    for target, other in (("reinit.py:laptop", "smoke.py"), ("reinit.py", "token_budget.py")):
        ablations, plain = (plans.make(load(str(FOLDER / file))) for file in (target, other))
        cells = [p for p in ablations.points if p.train.transfer is not None and dict(p.axes)["seed"] == 0]
        assert len({digest(p.train) for p in cells}) == 8
        (whole,) = [p for p in cells if p.train.transfer == Transfer()]
        assert digest(whole.train.corpus) in {digest(t.corpus) for t in plain.stages.values() if isinstance(t, Train)}
        if other == "smoke.py":
            assert digest(whole.train) in plain.stages


def test_studies_have_names_of_their_own() -> None:
    names = [load(target).name for target in TARGETS]
    assert len(set(names)) == len(names)  # a study's name is its directory in the store


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.removeprefix(f"{FOLDER}/"))
def test_a_study_plans(target: str) -> None:
    study = load(target)
    plan = plans.make(study)
    assert plan.points
    assert study.question.strip()
    trains = [s for s in plan.stages.values() if isinstance(s, Train)]
    assert 0 < plans.cost(trains).flops <= sum(t.flops for p in plan.points for t in p.train.chain())
    assert study.name in describe(plan, set(), 400.0)
    registered = plan.registered
    assert registered == plans.make(study).registered
    for point in registered["points"]:
        if point["baseline"] is not None:
            assert point["differs_in"], f"{point['arm']} is its baseline by another name"
            assert registered["points"][point["baseline"]]["axes"].items() <= point["axes"].items()
    for train in trains:
        assert train.steps >= 20  # a budget of whole steps, and enough of them to be a curve
        assert set(parents(train)) <= {"tokens", "init"}
