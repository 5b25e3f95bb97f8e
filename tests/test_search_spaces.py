"""Every study in search_spaces/ loads and plans, and sources that are there to be looked at give tokens; no network.
The studies of the claims say them in a way that can be decided, and share their stages."""

import functools
import socket
from pathlib import Path
from typing import Any

import pytest

from analysis.results import Results
from harness import cost, preview, winners
from harness import plan as plans
from harness.commands.plan import describe
from harness.rates import Rates
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.search import Winners
from harness.sources.answers import Answers
from harness.sources.text import Text
from harness.space import Study, load, load_value
from harness.specs import State, Train, Transfer, canonical_json, digest, parents
from harness.store import Store

FOLDER = Path(__file__).resolve().parent.parent / "search_spaces"
FILES = sorted(FOLDER.glob("*.py"))
VALUES = {path: vars(load_value(str(path), "study")[2]) for path in FILES}
TARGETS = [
    f"{path}:{name}"
    for path in FILES
    for name in {id(value): name for name, value in VALUES[path].items() if isinstance(value, Study)}.values()
]
CLAIMS = [path for path in FILES if path.stem == "paper" or path.stem.strip("0123456789") == "c"]
CLAIM_TARGETS = [target for target in TARGETS if Path(target.rpartition(":")[0]) in CLAIMS]
UNTRAINED = {"untrained"}
"""Arms whose first stage is one step, the least that a stage has."""
SOURCES = [
    f"{path}:{name}"
    for path in FILES
    if "study" not in VALUES[path]
    for name, value in VALUES[path].items()
    if preview.is_source(value)
]

SCALES = (LAPTOP, GPU_DAY, GPU64_WEEK)


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


def planned(study: Study) -> plans.Plan:
    """The plan; of a study with a search, as if the first of all settings had won."""
    tuning = winners.work_out(study)
    if tuning is None:
        return plans.make(study)
    assert f"{study.name}-search" in describe(tuning.plan, set(), Rates())
    first = {canonical_json(trial.cell): trial.setting for trial in reversed(tuning.trials)}
    return plans.make(study, winners=Winners(first, {"hash": tuning.hash}))


@functools.cache
def plan_of(target: str) -> plans.Plan:
    return planned(load(target))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.removeprefix(f"{FOLDER}/"))
def test_a_study_plans(target: str) -> None:
    plan = plan_of(target)
    study = plan.study
    assert plan.points
    assert study.question.strip()
    trains = [s for s in plan.stages.values() if isinstance(s, Train)]
    assert 0 < cost.cost_of(plan, plan.stages).flops <= sum(t.flops for p in plan.points for t in p.train.chain())
    assert study.name in describe(plan, set(), Rates())
    registered = plan.registered
    if len(plan.points) < 1000:  # one plan of the largest is enough
        assert registered == planned(study).registered
    for point in registered["points"]:
        if point["baseline"] is not None:
            assert point["differs_in"], f"{point['arm']} is its baseline by another name"
            assert registered["points"][point["baseline"]]["axes"].items() <= point["axes"].items()
    single = {digest(p.train.init) for p in plan.points if p.arm in UNTRAINED and p.train.init is not None}
    for train in trains:
        # A budget of whole steps, and enough of them to be a curve.
        few = digest(train) in single or isinstance(train, State)
        assert train.steps >= (1 if few else 20)
        assert set(parents(train)) <= {"tokens", "init"}


def test_every_claim_is_in_a_study_of_every_scale() -> None:
    wanted = {f"C{i}" for i in range(14)} | {"C2-net"}
    for scale in SCALES:
        studies = [load(f"{path}:{scale.name}") for path in CLAIMS]
        assert {claim.id for study in studies for claim in study.claims} == wanted
        assert all(study.claims and study.name.endswith(scale.name) for study in studies)


def arm_stages(target: str, arm: str) -> set[str]:
    """Addresses of the runs of an arm."""
    return {digest(p.train) for p in plan_of(target).points if p.arm == arm}


@pytest.mark.parametrize("scale", SCALES, ids=lambda s: s.name)
def test_the_studies_of_a_scale_share_scratch_and_automata(scale: Any) -> None:
    headline = plan_of(f"{FOLDER / 'paper.py'}:{scale.name}")
    shared = {
        arm: {
            digest(p.train)
            for p in headline.points
            if p.arm == arm and dict(p.axes)["text"] == 1 and dict(p.axes)["domain"] == scale.domain
        }
        for arm in ("scratch", "nca")
    }
    assert len(shared["scratch"]) == len(shared["nca"]) == len(scale.seeds)
    for name in ("c3", "c4", "c5", "c6", "c7", "c8", "c11", "c12", "c13"):
        target = f"{FOLDER / name}.py:{scale.name}"
        for arm, stages in shared.items():
            # c6 has the whole transfer as a cell, c7 the band as a level, c8 the alphabet and the budget.
            assert stages <= arm_stages(target, arm), f"{name}: {arm}"
    bands = plan_of(f"{FOLDER / 'c0.py'}:{scale.name}")
    assert {digest(p.train.init) for p in headline.points if p.arm == "nca" and p.train.init is not None} & {
        digest(p.train.init) for p in bands.points if p.train.init is not None
    }


@pytest.mark.parametrize("scale", SCALES, ids=lambda s: s.name)
def test_reasoning_is_asked_of_what_was_tuned_for_it(scale: Any) -> None:
    plan = plan_of(f"{FOLDER / 'c10.py'}:{scale.name}")
    headline = plan_of(f"{FOLDER / 'paper.py'}:{scale.name}")
    for point in plan.points:
        task = dict(point.axes)["task"]
        ((name, asked),) = point.benchmarks
        assert name == task and asked.train is point.train
        source = point.train.corpus.source
        if task == "humaneval":
            assert isinstance(source, Text) and asked.task.runs_code
        else:
            assert isinstance(source, Answers) and point.train.init is not None
            assert source.text == point.train.init.corpus.source and point.train.transfer == Transfer(reinit=())
        pretrained = point.train if task == "humaneval" else point.train.init
        assert pretrained is not None and digest(pretrained) in headline.stages


def test_the_laptop_goes_on_from_the_crossover_study() -> None:
    crossover = plan_of(str(FOLDER / "crossover.py"))
    laptop = plan_of(f"{FOLDER / 'paper.py'}:laptop")
    assert set(laptop.stages) <= set(crossover.stages)
    permuted = arm_stages(f"{FOLDER / 'c5.py'}:laptop", "permuted")
    assert permuted and permuted <= set(crossover.stages)


def test_paper_and_release_differ_in_every_setting_of_the_protocol() -> None:
    values = VALUES[FOLDER / "paper.py"]
    published, released = vars(values["PUBLISHED"]), vars(values["RELEASED"])
    assert all(published[name] != released[name] for name in published)
    for target in ("study", "released"):
        for point in plan_of(f"{FOLDER / 'paper.py'}:{target}").points:
            if point.arm == "nca":
                warm = point.train.init
                assert warm is not None and warm.tokens == 163_840_000
                # The released 164M tokens are those of the warmup, 5,000 steps of 32 sequences.
                assert (warm.steps, warm.horizon_steps) == ((5_000, 50_000) if target == "released" else (10_000,) * 2)


def test_controls_are_trained_like_the_arm_that_they_control() -> None:
    for scale in SCALES:
        points = plan_of(f"{FOLDER / 'c5.py'}:{scale.name}").points
        treated = {p.arm: p.train for p in points if p.train.init is not None and dict(p.axes)["seed"] == 0}
        for train in treated.values():
            own, nca = train.init, treated["nca"].init
            assert own is not None and nca is not None
            assert (own.tokens, own.recipe, own.model) == (nca.tokens, nca.recipe, nca.model)
            assert (train.recipe, train.model, train.corpus) == (
                treated["nca"].recipe, treated["nca"].model, treated["nca"].corpus,
            )  # fmt: skip
            assert own.vocab_size == nca.vocab_size


@pytest.mark.parametrize("target", CLAIM_TARGETS, ids=lambda t: t.removeprefix(f"{FOLDER}/"))
def test_claims_are_read_from_a_store_in_which_nothing_ran(target: str, tmp_path: Path) -> None:
    study = load(target)
    store = Store(tmp_path)
    plans.register(plan_of(target), store, {})
    found = Results.from_store(tmp_path, study.name).claims
    assert list(found.verdicts["claim"]) == [claim.id for claim in study.claims]
    assert set(found.verdicts["verdict"]) == {"no verdict"}
    tests = sum(len(claim.tests) for claim in study.claims)
    assert len(found.rows) >= tests
    assert not found.rows["reason"].str.contains("no such points are planned").any()
