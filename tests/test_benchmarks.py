"""Benchmarks of a study: stages of its graph like any other, planned, registered, run, told and kept."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from harness import garbage, nearest, space
from harness import plan as plans
from harness.__main__ import main
from harness.errors import InputError
from harness.reasoning import run, shards
from harness.reasoning.gsm8k import GSM8K
from harness.reasoning.humaneval import HumanEval
from harness.reasoning.spec import Benchmark, Evaluate
from harness.sources.rows import Rows
from harness.sources.text import Text
from harness.specs import canonical, digest
from harness.store import Store
from harness.watch import Watch
from tests.test_evaluate import ROW, sums, table
from tests.test_plan import nca, scratch, study

ROOT = Path(__file__).resolve().parent.parent

SPACE = '''
"""Does a first stage on automata help to reason?"""
from ray import tune
from harness.reasoning.tasks import GSM8K, Benchmark, HumanEval, Tuning, tune as tuned
from harness.sources.answers import Answers
from harness.sources.nca import NCA
from harness.sources.rows import Rows
from harness.sources.text import BPE, Text
from harness.search import Search
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=96, init_std=0.1, embed_std=0.1)
TEXT = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)
KNOWN = Answers(Rows.local({known!r}), TEXT, held_out=0.2)
RECIPE = Recipe(lr={lr}, batch=8)
MEASURED = Evaluation(points=2, sequences=2)

def untuned(seed):
    return Train(Corpus(TEXT, seed), 2 * 8 * 96, MODEL, RECIPE, seed, MEASURED)

def scratch(seed):
    return tuned(untuned(seed), KNOWN, 24, Tuning(1, RECIPE), seed, MEASURED)

def nca(seed):
    warm = Train(Corpus(NCA(states=2, grid=4, patch=2), seed), 2 * 8 * 96, MODEL, RECIPE, seed, MEASURED)
    return tuned(untuned(seed).after(warm), KNOWN, 24, Tuning(1, RECIPE), seed, MEASURED)

def automata(seed):
    return nca(seed).init.init

def searched(lr, seed):
    return Train(Corpus(TEXT, seed), 2 * 8 * 96, MODEL, Recipe(lr=lr, batch=8), seed, MEASURED)

TEST = GSM8K(Rows.local({test!r}), Rows.local({known!r}), max_tokens=4)
CODE = {{"he": Benchmark(HumanEval(Rows.local({he!r}), max_tokens=4), 2, 1.0)}}
SEEDS = {{"seed": tune.grid_search([0])}}
study = Study("asked", __doc__, {baseline}, {arms}, SEEDS, search={search}, benchmarks={benchmarks})
'''


@pytest.fixture
def spaces(tmp_path: Path, text: Text) -> Callable[..., Path]:
    """Writes a search space with two benchmarks, which ask the same, and the settings given."""
    table(tmp_path / "known.jsonl", sums(40, 100))
    table(tmp_path / "test.jsonl", sums(5))
    table(tmp_path / "he.jsonl", [ROW])
    benchmarks = '{"gsm8k": Benchmark(TEST, samples=2, temperature=0.6), "again": Benchmark(TEST, 2, 0.6)}'
    settings: dict[str, Any] = {"lr": "1e-2", "baseline": "scratch", "arms": "[nca]", "search": "None"}
    settings |= {"benchmarks": benchmarks}
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("known", "test", "he")}

    def write(**values: str) -> Path:
        path = tmp_path / f"space{len(list(tmp_path.glob('space*.py')))}.py"
        path.write_text(SPACE.format(text=text.files, **settings | paths | values))
        return path

    return write


@pytest.fixture
def call(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    return lambda command, target, *options: main([command, str(target), "--store", str(store.root), *options])


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two problems."""
    monkeypatch.setattr(run, "cut", lambda problems: shards.cut(problems, 2))


def asked(plan: plans.Plan) -> dict[str, Evaluate]:
    return {d: stage for d, stage in plan.stages.items() if isinstance(stage, Evaluate)}


# ---- the plan


def gsm8k(tmp_path: Path) -> GSM8K:
    return GSM8K(table(tmp_path / "test.jsonl", sums(3)), None)


def test_every_point_is_asked_every_benchmark_once(tmp_path: Path) -> None:
    task = gsm8k(tmp_path)
    benchmarks = {"gsm8k": Benchmark(task), "warm": Benchmark(task, 4, 1.0), "the_same": Benchmark(task)}
    plan = plans.make(study(benchmarks=benchmarks))
    assert len(asked(plan)) == 9 * 2
    for point, data in zip(plan.points, plan.registered["points"], strict=True):
        assert list(data["benchmarks"]) == list(benchmarks)
        assert data["benchmarks"]["gsm8k"] == data["benchmarks"]["the_same"] != data["benchmarks"]["warm"]
        for name, address in data["benchmarks"].items():
            want = Evaluate(point.train, task, benchmarks[name].samples, benchmarks[name].temperature).resolved()
            assert address == digest(want)
            stage = plan.registered["stages"][address]
            assert (stage["kind"], stage["parents"]) == ("Evaluate", {"model": data["stage"]})
            assert (stage["tokens"], stage["flops"], stage["start"]) == (0, 0, None)
            assert stage["spec"] == canonical(want) and "name" not in stage["spec"]
    labels = {plans.label(stage) for stage in asked(plan).values()}
    assert {"gsm8k of Text 1.02k seed 0 after NCA", "warm of Text 1.02k seed 2 after permuted NCA"} <= labels
    order = list(plan.stages)
    assert all(order.index(digest(stage.train)) < order.index(d) for d, stage in asked(plan).items())


def test_a_benchmark_can_be_asked_of_some_points(tmp_path: Path) -> None:
    def banded(band: int, seed: int) -> Any:
        return replace(nca(seed), tokens=1024 + 256 * band)

    over = {"band": tune.grid_search([1, 2]), "seed": tune.grid_search([0, 1])}
    some = replace(study(), arms=[banded], over=over, benchmarks={"gsm8k": Benchmark(gsm8k(tmp_path), at={"band": 2})})
    points = plans.make(some).registered["points"]
    # What does not name the axis serves all of its values.
    assert [p["axes"] for p in points if p["benchmarks"]] == [
        {"seed": 0}, {"seed": 1}, {"band": 2, "seed": 0}, {"band": 2, "seed": 1},
    ]  # fmt: skip


def test_benchmarks_enter_the_hash_of_a_plan(tmp_path: Path) -> None:
    task = gsm8k(tmp_path)
    found = [
        plans.make(study(benchmarks=benchmarks)).registered["hash"]
        for benchmarks in ({}, {"a": Benchmark(task)}, {"b": Benchmark(task)}, {"a": Benchmark(task, seed=1)})
    ]
    assert len(set(found)) == 4


def test_a_plan_without_benchmarks_has_the_hash_and_addresses_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plans.make(study())
    assert plan.registered["hash"] == "40ad7400437862dde7c7eea3373f9836f542542ce9f1b7ba8b9bc857ea489add"
    assert all("benchmarks" not in point for point in plan.registered["points"])
    published = json.loads((ROOT / "results" / "crossover" / "study.json").read_text("utf-8"))
    (text,) = (m["spec"] for m in published["stages"].values() if m["kind"] == "Text")
    monkeypatch.setattr("harness.sources.text.content_hash", lambda files: text["content"])  # of another Python
    again = plans.make(space.load(str(ROOT / "search_spaces" / "crossover.py"))).registered
    assert again["hash"] == published["plan"]["hash"]
    assert again["points"] == published["plan"]["points"]


def test_commits_of_tasks_are_looked_up_once_and_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def commit(kind: str, name: str, revision: str | None, field: str) -> str:
        looked.append(name)
        return f"{len(looked):040x}"

    monkeypatch.setattr("harness.sources.hub.commit", commit)
    open_task = study(benchmarks={"gsm8k": Benchmark(GSM8K()), "he": Benchmark(HumanEval(), 2, 1.0)})
    offline = plans.make(open_task)
    assert looked == [] and plans.unresolved(offline).keys() == asked(offline).keys()
    revisions: plans.Revisions = {}
    plan = plans.make(open_task, network=True, revisions=revisions)
    plans.register(plan, store, revisions)
    assert sorted(looked) == ["openai/gsm8k", "openai/gsm8k", "openai/openai_humaneval"]  # test and train rows
    assert plans.unresolved(plan) == {}
    again = plans.make(open_task, network=True, revisions=plans.registered_revisions(open_task, store))
    assert len(looked) == 3 and list(again.stages) == list(plan.stages)


# ---- what is refused, before anything starts


@pytest.fixture
def refused(call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs what must be refused: exit code 2, one line, nothing begun; returns the line."""

    def refused(target: object, *options: str, commands: tuple[str, ...] = ("plan", "run")) -> str:
        for command in commands:
            capsys.readouterr()
            assert call(command, target, *options, *(["--in-process"] if command == "run" else [])) == 2
            (line,) = capsys.readouterr().err.splitlines()
        assert not list(store.root.glob("stages/*")) and not list(store.root.glob("studies/*"))
        return line.removeprefix("error: ")

    return refused


@pytest.mark.parametrize(
    ("benchmarks", "why"),
    [
        ('{"a b": Benchmark(TEST)}', "Study.benchmarks = 'a b': name it with letters, digits, - and _"),
        ('{"a": TEST}', "benchmark a = 'a GSM8K': give a Benchmark(task, ...)"),
        ('{"a": Benchmark(TEST, 2)}', "Benchmark.temperature = 0.0: 2 samples would be equal"),
        (
            '{"a": Benchmark(TEST, at={"depth": 2})}',
            "benchmark a: at = 'depth': the study has no such axis; it has seed",
        ),
        ('{"a": Benchmark(TEST, at={"seed": 7})}', "benchmark a: at = {'seed': 7}: no point is at these axes"),
        (
            '{"a": Benchmark(GSM8K(Rows.local("/nowhere/x.jsonl"), None))}',
            "Text.files = '/nowhere/x.jsonl': does not exist; name a file",
        ),
        (
            '{"seen": Benchmark(GSM8K(KNOWN.rows, None))}',
            "scratch seed=0: benchmark seen: task = 'GSM8K': the stage was tuned on these problems; ask others",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    benchmarks: str, why: str, spaces: Callable[..., Path], refused: Callable[..., str]
) -> None:
    assert why in refused(spaces(benchmarks=benchmarks))


def test_a_stage_whose_tokens_are_no_text_is_not_asked(
    spaces: Callable[..., Path], refused: Callable[..., str]
) -> None:
    said = refused(spaces(baseline="automata"))
    assert said.startswith("automata seed=0: benchmark gsm8k: Evaluate.train = 'NCA': has no tokenizer")


def test_generated_code_runs_only_if_run_was_told_so(
    spaces: Callable[..., Path], refused: Callable[..., str], call: Callable[..., int], store: Store
) -> None:
    search = 'Search({"lr": tune.grid_search([1e-2])}, seeds=[7])'
    searching = spaces(benchmarks="CODE", baseline="searched", arms="[]", search=search)
    assert "code that would be run" in refused(searching, commands=("run",))  # before its search
    path = spaces(benchmarks="CODE", baseline="untuned", arms="[]")
    said = refused(path, commands=("run",))
    assert said.startswith("task = 'HumanEval': its answers are code that would be run") and "--run-generated" in said
    assert call("plan", path) == 0
    assert call("run", path, "--in-process", "--run-generated-code") == 0
    (address,) = asked(plans.make(space.load(str(path))))
    manifest = store.manifest(address)
    assert manifest is not None and manifest["isolation"] == "namespaces"
    assert call("run", path, "--in-process") == 0  # nothing of it is left to run


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="it is installed")
def test_an_engine_that_is_missing_is_told_before_anything_starts(
    spaces: Callable[..., Path], refused: Callable[..., str]
) -> None:
    path = spaces(benchmarks='{"a": Benchmark(TEST, engine="lm-eval")}')
    assert refused(path, commands=("run",)).startswith("Evaluate.engine = 'lm-eval': is not installed; pip install")


# ---- a run


def test_a_study_is_asked_in_this_process(
    spaces: Callable[..., Path], call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spaces()
    plan = plans.make(space.load(str(path)))
    assert call("plan", path) == 0
    out = capsys.readouterr().out
    assert "stages  9 distinct (5 training, 2 evaluations), 0 in the store" in out
    assert "asked   2 evaluations, not in the hours" in out
    assert call("run", path, "--in-process") == 0
    assert "9 stages computed" in capsys.readouterr().out
    registered = json.loads((store.study("asked") / "points.json").read_text())
    for point in registered["points"]:
        assert list(point["benchmarks"]) == ["gsm8k", "again"]
        (address,) = set(point["benchmarks"].values())
        manifest = store.manifest(address)
        assert manifest is not None and manifest["kind"] == "Evaluate"
        assert manifest["parents"] == {"model": point["stage"]} and manifest["problems"] == 5
        assert set(manifest["scores"]["pass"]) == {"1", "2"}
        assert manifest["spec"] == registered["stages"][address]["spec"]
        assert manifest["executed"] == {"engine": "harness", "version": None, "on": "in_process"}
    assert not (store.study("evaluations")).exists()
    assert call("run", path, "--in-process") == 0
    assert "nothing to compute: all 9 stages of asked" in capsys.readouterr().out
    assert call("status", path) == 0
    out = capsys.readouterr().out
    assert out.startswith("asked: 9/9 stages done") and "gsm8k of Answers" in out
    assert garbage.survey(store).garbage == ()
    more = spaces(benchmarks='{"hot": Benchmark(TEST, 2, 5.0)}')
    assert call("plan", more, "--why") == 0
    why = [line for line in capsys.readouterr().out.splitlines() if "not in the store" in line]
    assert len(why) == 2 and all("temperature 5 here, 0.6 in" in line for line in why), why
    assert len(nearest.flat(canonical(next(iter(asked(plan).values()))))) > 20


@pytest.mark.usefixtures("pairs")
def test_an_evaluation_that_was_cut_off_goes_on_with_the_shards_that_are_left(
    spaces: Callable[..., Path], call: Callable[..., int], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spaces(arms="[]")
    plan = plans.make(space.load(str(path)))
    (address,) = asked(plan)
    answered: list[list[str]] = []
    answer = GSM8K.answer

    def counted(self: GSM8K, lm: Any, problems: Any, *rest: Any) -> Any:
        answered.append([p.name for p in problems])
        return answer(self, lm, problems, *rest)

    def killed(self: GSM8K, lm: Any, problems: Any, *rest: Any) -> Any:
        if len(answered) == 2:
            raise KeyboardInterrupt
        return counted(self, lm, problems, *rest)

    monkeypatch.setattr(GSM8K, "answer", killed)
    assert call("run", path, "--in-process") == 130
    assert answered == [["0", "1"], ["2", "3"]]
    place = Path(store.resume(address))
    assert len(list(place.glob("samples-*"))) == 2 and not store.has(address)
    assert garbage.CHECKPOINTS not in {each.why for each in garbage.survey(store, quiet_s=-60.0).garbage}
    answered.clear()
    monkeypatch.setattr(GSM8K, "answer", counted)
    assert call("run", path, "--in-process", "--stage", address[:12]) == 0
    assert answered == [["4"]] and store.has(address) and not place.exists()


def test_a_training_stage_that_diverged_blocks_its_evaluations(
    spaces: Callable[..., Path], call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spaces(lr="1e30")
    assert call("run", path, "--in-process") == 1
    err = capsys.readouterr().err
    plan = plans.make(space.load(str(path)))
    blocked = [line for line in err.splitlines() if line.startswith("blocked: gsm8k of Answers")]
    assert len(blocked) == 2
    view = Watch(plan, store).look()
    assert {v.state for v in view.stages if v.digest in asked(plan)} == {"blocked"}
    assert view.over


def test_a_study_without_its_points_is_told_how_far_an_evaluation_is(store: Store, tmp_path: Path) -> None:
    from harness.store import write_json

    plan = plans.make(study(benchmarks={"gsm8k": Benchmark(gsm8k(tmp_path))}))
    address = next(iter(asked(plan)))
    Path(store.resume(address)).mkdir(parents=True)
    write_json(store.resume(address) / "live.json", {"world": 1, "items": [1, 4]})
    (view,) = (v for v in Watch(plan, store).look().stages if v.digest == address)
    assert view.state == "running" and view.share == 0.25


def test_a_benchmark_of_a_stage_that_is_no_training_stage_is_refused() -> None:
    with pytest.raises(InputError, match="has no weights"):
        Benchmark(GSM8K()).of(Rows("a/b"), "x")  # type: ignore[arg-type]


def test_what_a_benchmark_asks_is_what_evaluate_asks(tmp_path: Path) -> None:
    task = gsm8k(tmp_path)
    one = Benchmark(task, samples=4, temperature=0.6, seed=3).of(scratch(0), "gsm8k")
    assert digest(one) == digest(Evaluate(scratch(0), task, samples=4, temperature=0.6, seed=3))
