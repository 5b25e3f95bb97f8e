"""Benchmarks of a trained stage: kept with their samples, the same however they are batched or cut off."""

import importlib.util
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import export, stages
from harness.__main__ import main
from harness.errors import InputError
from harness.reasoning import lm as models
from harness.reasoning import run, shards
from harness.reasoning.choices import Choices, mass_on_right, pick, scores
from harness.reasoning.humaneval import HumanEval, program
from harness.reasoning.spec import Evaluate, Means, resolved
from harness.reasoning.tasks import GSM8K, Tuning, answers, task, tune
from harness.sources.answers import Answers
from harness.sources.rows import Rows, Template
from harness.sources.text import Text
from harness.specs import Corpus, Evaluation, Recipe, Train, canonical, digest
from harness.store import Store
from tests.test_sandbox import plain_user

MEANS = Means(rows=4)


def table(path: Path, rows: list[dict[str, Any]]) -> Rows:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Rows.local(path)


def sums(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"alpha {i}?", "answer": f"beta\n#### {i % 10}"} for i in range(first, first + count)]


@pytest.fixture(scope="module")
def spec(text: Text, reading: Train) -> Train:
    """Two steps on text, with a head of its own and room for a prompt."""
    shape = replace(reading.model, context=96, tied=False)
    corpus = Corpus(text.resolved(), 1)
    return Train(corpus, 2 * 8 * 96, shape, Recipe(lr=1e-2, batch=8), evaluation=Evaluation(points=2, sequences=4))


@pytest.fixture(scope="module")
def trained(spec: Train, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("evaluated") / "store")
    stages.run_here(spec.corpus.source, store)
    stages.run_here(spec, store)
    return store


@pytest.fixture(scope="module")
def lm(spec: Train, trained: Store, tmp_path_factory: pytest.TempPathFactory) -> models.LM:
    place = tmp_path_factory.mktemp("exported") / "model"
    export.export(digest(spec), place, trained)
    return models.load(place)


@pytest.fixture
def gsm8k(tmp_path: Path) -> GSM8K:
    test, train = table(tmp_path / "test.jsonl", sums(5)), table(tmp_path / "train.jsonl", sums(6, 100))
    return resolved(GSM8K(test, train, max_tokens=12))


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    rows: list[dict[str, Any]] = [
        {"inputs": f"alpha {i}", "multiple_choice_targets": ["beta", "gamma", "日本", "delta x"][: 2 + i % 3],
         "multiple_choice_scores": [1, 0, 0, 0][: 2 + i % 3]}
        for i in range(6)
    ]  # fmt: skip
    rows.append({"inputs": "said", "multiple_choice_targets": [], "multiple_choice_scores": []})
    return resolved(Choices(table(tmp_path / "choices.jsonl", rows), Template("{inputs}")))


# ---- what the model gives to a text


def test_log_probabilities_are_those_of_the_whole_sequence(lm: models.LM) -> None:
    pairs = [("alpha beta", " gamma"), ("alpha", " def f(x):"), ("", "naïve")]
    found = models.score(lm, pairs, rows=2)
    for (before, after), scored in zip(pairs, found, strict=True):
        assert scored is not None
        a, b = lm.prompt(before), lm.encode(after)
        with torch.no_grad():
            logits = lm.net(input_ids=torch.tensor([a + b])).logits[0].log_softmax(-1)
        each = [float(logits[len(a) - 1 + i, t]) for i, t in enumerate(b)]
        assert scored.logprob == pytest.approx(sum(each), abs=1e-4) and scored.tokens == len(b)
    assert models.score(lm, [("alpha " * 100, "beta"), ("alpha", "")]) == [None, None]


def test_a_greedy_continuation_is_the_likeliest_token_each_time(lm: models.LM) -> None:
    prompts = [lm.prompt(p) for p in ("alpha beta gamma", "def", "")]
    together = models.sample(lm, prompts, np.zeros(3, np.uint64), 8)
    for prompt, drawn in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(8):
            with torch.no_grad():
                ids.append(int(lm.net(input_ids=torch.tensor([ids])).logits[0, -1, : lm.vocab].argmax()))
            if ids[-1] == lm.end:
                break
        made = ids[len(prompt) :]
        assert drawn.text == lm.decode(made)
        assert models.sample(lm, [prompt], np.zeros(1, np.uint64), 8) == [drawn]


def test_a_sample_depends_on_its_seed_problem_and_number_alone(lm: models.LM) -> None:
    def draw(prompts: list[str], names: list[str], seed: int, rows: int, samples: int = 3) -> Any:
        return models.sample_all(lm, prompts, names, samples, seed, 6, 1.0, (), rows)

    both = draw(["alpha", "beta gamma delta"], ["0", "1"], 7, rows=4)
    assert draw(["beta gamma delta"], ["1"], 7, rows=1) == both[1:]
    assert draw(["alpha"], ["0"], 7, rows=8, samples=5)[0][:3] == both[0]
    assert draw(["alpha"], ["0"], 8, rows=4)[0] != both[0]
    assert len({each.text for each in draw(["alpha"], ["0"], 7, rows=8, samples=8)[0]}) > 4
    assert draw(["alpha " * 200], ["0"], 0, rows=4) == [None]


def test_draws_follow_the_distribution() -> None:
    scores = torch.log(torch.tensor([0.5, 0.2, 0.3, 0.0])).repeat(20_000, 1)
    words = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    counts = np.bincount(models.draw(scores, 1.0, words).numpy(), minlength=4) / 20_000
    assert counts == pytest.approx([0.5, 0.2, 0.3, 0], abs=0.02)
    cold = np.bincount(models.draw(scores, 0.5, words).numpy(), minlength=4) / 20_000
    assert cold == pytest.approx(np.array([0.25, 0.04, 0.09, 0]) / 0.38, abs=0.02)
    ends = models.draw(scores[:2], 1.0, np.array([0, 2**64 - 1], np.uint64))
    assert ends.tolist() == [0, 2]


def test_a_stop_string_ends_a_continuation_and_is_left_out(lm: models.LM) -> None:
    prompt = lm.prompt("alpha")
    (whole,) = models.sample(lm, [prompt], np.zeros(1, np.uint64), 20)
    stop = whole.text[3:5]
    (cut,) = models.sample(lm, [prompt], np.zeros(1, np.uint64), 20, stop=[stop])
    assert cut.end == "stop" and cut.text == whole.text[: whole.text.index(stop)]
    assert cut.tokens < whole.tokens or whole.tokens <= 5
    assert models.sample(lm, [[0] * 95], np.zeros(1, np.uint64), 20)[0].tokens == 1  # as far as the context goes


def test_a_head_of_its_own_is_never_read_as_a_tied_one(
    lm: models.LM, spec: Train, trained: Store, tmp_path: Path
) -> None:
    # The release loads an untied checkpoint as tied.
    assert not lm.net.config.tie_word_embeddings
    assert not torch.equal(lm.net.lm_head.weight, lm.net.model.embed_tokens.weight)
    from safetensors.torch import load_file, save_file

    export.export(digest(spec), tmp_path / "out", trained)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "out" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"its weights are not those of its configuration: .*lm_head\.weight"):
        models.load(tmp_path / "out")


# ---- multiple choice


def record(logprob: list[float], right: int = 0, options: list[str] | None = None) -> dict[str, Any]:
    options = options or ["a"] * len(logprob)
    tokens = [len(o) for o in options]
    return {"options": options, "right": [right], "logprob": logprob, "tokens": tokens, "too_long": False}


def test_length_counts_as_asked() -> None:
    one = record([-2.0, -3.0, -3.3], options=["a", "bb", "日本"])
    assert [pick(one, by) for by in ("sum", "token", "byte")] == [0, 1, 2]
    assert mass_on_right(record([math.log(3) - 900, -900.0])) == pytest.approx(0.75)


def test_a_model_that_knows_nothing_reads_nothing_at_every_k() -> None:
    same = [record([-5.0] * 4, right) for right in (0, 1, 2, 3)]
    found = scores(same, 4)
    assert list(found["pass"]) == ["1", "2", "4"]
    assert [found["pass"][k]["mean"] for k in found["pass"]] == pytest.approx([0.25, 0.4375, 1 - 0.75**4])
    assert list(found["pass_normalised"].values()) == pytest.approx([0, 0, 0], abs=1e-12)
    assert found["accuracy_sum_normalised"] == pytest.approx(0)  # the first of equals is right once in four


def test_a_model_that_answers_nothing_scores_nothing() -> None:
    # The release never stores responses, and then scores 100 %.
    lost = [{**record([-1.0, -2.0]), "logprob": None, "tokens": None, "too_long": True}] * 4
    found = scores(lost, 2)
    assert found["too_long"] == 4
    assert found["accuracy_sum"]["mean"] == found["pass"]["2"]["mean"] == 0
    assert found["accuracy_sum_normalised"] == -1


def test_choices_of_a_stage(spec: Train, choices: Choices, trained: Store, lm: models.LM) -> None:
    stage = Evaluate(spec, choices, samples=2)
    manifest = run.evaluate(stage, trained, MEANS)
    assert manifest["problems"] == 6  # one row has no options
    records = lines(trained, stage)
    assert [len(r["logprob"]) for r in records] == [2, 3, 4, 2, 3, 4]
    want = models.score(lm, [("alpha 0", " beta"), ("alpha 0", " gamma")])
    assert records[0]["logprob"] == pytest.approx([w.logprob for w in want if w], abs=1e-5)
    hits = [pick(r, "sum") == 0 for r in records]
    assert manifest["scores"]["accuracy_sum"]["mean"] == pytest.approx(sum(hits) / 6)
    guess = np.mean([1 / 2, 1 / 3, 1 / 4])
    assert manifest["scores"]["chance"]["1"] == pytest.approx(guess)


# ---- a stage in the store


def lines(store: Store, stage: Evaluate) -> list[dict[str, Any]]:
    content = store.read(digest(stage), "samples.jsonl")
    assert content is not None
    return [json.loads(line) for line in content.splitlines()]


def test_gsm8k_of_a_stage_keeps_samples_and_scores(spec: Train, gsm8k: GSM8K, trained: Store, lm: models.LM) -> None:
    stage = Evaluate(spec, gsm8k, samples=4, temperature=1.0, shots=1, seed=3)
    manifest = run.evaluate(stage, trained, MEANS)
    assert manifest["kind"] == "Evaluate" and manifest["parents"] == {"model": digest(spec)}
    assert manifest["digest"] == digest(stage) and trained.damage(digest(stage)) == []
    records = lines(trained, stage)
    assert [r["problem"] for r in records] == list("01234") and all(len(r["samples"]) == 4 for r in records)
    assert [r["gold"] for r in records] == list("01234")
    problems = gsm8k.read(1, 3)
    shot, asked = problems[0].prompt.split("\n\n")
    assert re.fullmatch(r"Question: alpha 10[0-5]\?\nAnswer: beta\n#### [0-5]", shot)
    assert asked == "Question: alpha 0?\nAnswer:"
    gold = models.score(lm, [(p.prompt, f" {p.row['answer']}") for p in problems])
    nats = -sum(g.logprob for g in gold if g) / sum(g.tokens for g in gold if g)
    assert manifest["scores"]["answer_nats"] == pytest.approx(nats, abs=1e-5)
    right = [sum(s["marked"] == r["gold"] for s in r["samples"]) for r in records]
    assert manifest["scores"]["pass"]["1"]["mean"] == pytest.approx(sum(right) / 20)
    assert run.evaluate(stage, trained, MEANS) == manifest


def test_scores_of_samples_worked_out_by_hand(spec: Train, gsm8k: GSM8K) -> None:
    def sample(marked: str | None, last: str) -> dict[str, Any]:
        return {"marked": marked, "last_number": last, "end": "end"}

    records = [
        {"gold": "7", "too_long": False, "answer": {"logprob": -6.0, "tokens": 3, "hits": 1},
         "samples": [sample("7", "7"), sample(None, "7"), sample("8", "8"), sample(None, "1")]},
        {"gold": "9", "too_long": True, "answer": None, "samples": []},
    ]  # fmt: skip
    stage = Evaluate(spec, gsm8k, samples=4, temperature=1.0)
    found = gsm8k.scores(records, stage)
    assert {k: v["mean"] for k, v in found["pass"].items()} == pytest.approx({"1": 0.125, "2": 0.25, "4": 0.5})
    lenient = replace(gsm8k, extraction="last_number").scores(records, stage)
    assert {k: v["mean"] for k, v in lenient["pass"].items()} == pytest.approx({"1": 0.25, "2": 5 / 12, "4": 0.5})
    assert (found["no_answer"], found["too_long"], found["answer_nats"]) == (0.5, 1, 2.0)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two problems."""
    monkeypatch.setattr(run, "cut", lambda problems: shards.cut(problems, 2))


@pytest.mark.usefixtures("pairs")
def test_what_was_cut_off_goes_on_with_the_next_shard(
    spec: Train, gsm8k: GSM8K, trained: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Evaluate(spec, gsm8k, samples=2, temperature=1.0, seed=11)
    asked: list[list[str]] = []
    answer = GSM8K.answer

    def cut_off(self: GSM8K, lm: Any, problems: Any, *rest: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append([p.name for p in problems])
        return answer(self, lm, problems, *rest)

    monkeypatch.setattr(GSM8K, "answer", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(stage, trained, MEANS)
    assert asked == [["0", "1"], ["2", "3"]] and not trained.has(digest(stage))
    place = Path(trained.resume(digest(stage)))
    assert [p.name for p in sorted(place.glob("samples-*"))] == ["samples-00000.json", "samples-00001.json"]
    (place / "samples-00001.json").write_bytes((place / "samples-00001.json").read_bytes()[:-9])  # damaged

    def counted(self: GSM8K, lm: Any, problems: Any, *rest: Any) -> Any:
        asked.append([p.name for p in problems])
        return answer(self, lm, problems, *rest)

    monkeypatch.setattr(GSM8K, "answer", counted)
    run.evaluate(stage, trained, MEANS)
    assert asked[2:] == [["2", "3"], ["4"]]
    assert not place.exists()
    found = [[s["text"] for s in r["samples"]] for r in lines(trained, stage)]
    other = Evaluate(spec, replace(gsm8k, problems=5), samples=2, temperature=1.0, seed=11)
    run.evaluate(other, trained, Means(rows=1))
    assert [[s["text"] for s in r["samples"]] for r in lines(trained, other)] == found


@pytest.mark.usefixtures("pairs")
def test_shards_in_an_object_store_are_gathered_wherever_they_were_answered(
    spec: Train, gsm8k: GSM8K, trained: Store, remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.run_here(spec.corpus.source, remote)
    stages.run_here(spec, remote)
    stage = Evaluate(spec, gsm8k, samples=2, temperature=1.0, seed=5)
    first = shards.cut(gsm8k.read(0, 0), 2)[0]
    assert sum(shards.answer_here(stage, [first], remote, MEANS)) == 2
    assert (remote.resume(digest(stage)) / first.file).exists()
    asked: list[list[str]] = []
    answer = GSM8K.answer

    def counted(self: GSM8K, lm: Any, problems: Any, *rest: Any) -> Any:
        asked.append([p.name for p in problems])
        return answer(self, lm, problems, *rest)

    monkeypatch.setattr(GSM8K, "answer", counted)
    there = run.evaluate(stage, remote, MEANS)
    assert asked == [["2", "3"], ["4"]] and not list(remote.resume(digest(stage)).glob("*"))
    here = run.evaluate(stage, trained, MEANS)
    assert lines(remote, stage) == lines(trained, stage) and there["scores"] == here["scores"]


def test_a_task_that_loses_problems_is_told(spec: Train, gsm8k: GSM8K, trained: Store) -> None:
    class Losing(GSM8K):
        def answer(self, lm: Any, problems: Any, stage: Any, means: Any) -> list[dict[str, Any]]:
            return super().answer(lm, problems, stage, means)[1:]

    with pytest.raises(InputError, match=r"problem = \['1', '2', '3'\]: Losing\.answer gave these"):
        run.evaluate(Evaluate(spec, Losing(gsm8k.test, None, max_tokens=2)), trained, MEANS)


def test_the_value_says_what_it_is(spec: Train, gsm8k: GSM8K) -> None:
    stage = Evaluate(spec, gsm8k)
    assert digest(Evaluate(canonical(spec), gsm8k)) == digest(stage)
    changes: list[dict[str, Any]] = [
        {"shots": 1}, {"seed": 1}, {"samples": 2, "temperature": 1.0}, {"temperature": 0.5}, {"engine": "lm-eval"},
        {"task": replace(gsm8k, extraction="last_number")}, {"train": replace(spec, seed=9)},
    ]  # fmt: skip
    assert len({digest(stage), *(digest(replace(stage, **change)) for change in changes)}) == len(changes) + 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"samples": 4}, r"Evaluate\.temperature = 0\.0: 4 samples would be equal"),
        ({"temperature": -1}, r"Evaluate\.temperature = -1: use 0 or more"),
        ({"engine": "other"}, r"Evaluate\.engine = 'other'"),
        ({"task": HumanEval(), "shots": 2}, r"Evaluate\.shots = 2: HumanEval takes none"),
        ({"task": Choices(Rows("x/y"), Template("{a}")), "temperature": 1.0}, "Choices draws no samples"),
        ({"train": {"type": "Text"}}, r"Evaluate\.train = 'Text': has no weights"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change: dict[str, Any], why: str, spec: Train, gsm8k: GSM8K) -> None:
    with pytest.raises(InputError, match=why):
        replace(Evaluate(spec, gsm8k), **change)


# ---- code


ROW = {
    "task_id": "Test/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    "entry_point": "add",
}


def test_completions_are_held_against_the_hidden_tests() -> None:
    judged = {code: plain_user(program(ROW, code)).status for code in ("    return a + b", "    return a - b", "  (")}
    assert list(judged.values()) == ["passed", "failed", "failed"]
    assert HumanEval().judge(ROW, "    return a + b", Means(allow_code=True))["status"] == "passed"


def test_code_runs_only_if_that_was_asked_for(spec: Train, trained: Store, tmp_path: Path) -> None:
    stage = Evaluate(spec, HumanEval(table(tmp_path / "he.jsonl", [ROW]), max_tokens=4), 2, 1.0)
    with pytest.raises(InputError, match="its answers are code that would be run; allow it with allow_code=True"):
        run.evaluate(stage, trained, MEANS)
    manifest = run.evaluate(stage, trained, Means(rows=4, allow_code=True))
    assert manifest["scores"]["pass"]["2"]["mean"] == 0 and manifest["isolation"] == "namespaces"
    (found,) = lines(trained, stage.resolved())
    assert all(s["status"] == "failed" for s in found["samples"])


# ---- tuning and the command


def test_a_tuned_stage_is_evaluated_by_the_command(
    spec: Train, trained: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(spec.corpus.source, Text)
    rows = table(tmp_path / "train.jsonl", sums(40, 100))
    table(tmp_path / "test.jsonl", sums(3))
    source = Answers(rows, spec.corpus.source, held_out=0.2).resolved()
    stages.run_here(source, trained)
    manifest = trained.manifest(digest(source))
    assert manifest is not None
    recipe = Recipe(lr=1e-2, batch=8)
    evaluation = Evaluation(points=2, sequences=4)
    tuned = tune(spec, source, manifest["train"]["examples"], Tuning(20, recipe), evaluation=evaluation)
    assert tuned.steps == manifest["train"]["examples"] * 20 // 8
    loss = stages.run_here(tuned, trained)["held_out"]["loss_nats"]
    store = ["--store", str(trained.root)]
    data = ["--data", str(tmp_path / "test.jsonl"), "--shots-data", str(tmp_path / "train.jsonl")]
    said = []
    for stage in (spec, tuned):
        assert main(["evaluate", digest(stage)[:12], "--task", "gsm8k", *data, *store]) == 0
        said.append(capsys.readouterr().out)
        assert "gsm8k, 3 problems" in said[-1]
    before, after = (float(re.findall(r"answer_nats: ([0-9.]+)", out)[0]) for out in said)
    assert after < before - 1 and loss < before
    address = said[1].splitlines()[-1].split()[-1]
    assert trained.manifest(address) is not None
    assert {address, digest(tuned)} <= {d for plan in trained.registrations().values() for d in plan["stages"]}
    seen = ["--data", str(tmp_path / "train.jsonl")]
    assert main(["evaluate", digest(tuned), "--task", "gsm8k", *seen, *store]) == 2
    assert "the stage was tuned on these problems" in capsys.readouterr().err
    assert main(["evaluate", digest(tuned), "--task", "gsm8k", "--shots", "1", *data[:2], *store]) == 2
    assert "shots = 1: GSM8K.train is None; name the training problems" in capsys.readouterr().err
    assert main(["evaluate", digest(spec), "--task", "humaneval", *data[:2], *store]) == 2
    assert "--run-generated-code" in capsys.readouterr().err
    assert main(["evaluate", digest(tuned), "--task", "gsm8k", "--device", "bogus", *data, *store]) == 2
    said_of_it = capsys.readouterr().err
    assert said_of_it.startswith("error: --device = 'bogus': ") and said_of_it.count("\n") == 1


def test_what_was_learnt_by_heart_is_solved(spec: Train, trained: Store, tmp_path: Path) -> None:
    assert isinstance(spec.corpus.source, Text)
    fruit = ("alpha", "beta", "gamma", "delta")
    pairs = [(a, b) for a in fruit for b in fruit]
    known = [{"question": f"{a} {b}?", "answer": f"{b}\n#### {i}"} for i, (a, b) in enumerate(pairs)]
    source = Answers(table(tmp_path / "known.jsonl", known), spec.corpus.source, held_out=0.3).resolved()
    stages.run_here(source, trained)
    wide = replace(spec, model=replace(spec.model, width=64, heads=4, mlp=128))
    stages.run_here(wide, trained)
    reader = source.open(trained.open(digest(source)))
    recipe = Recipe(lr=1e-2, batch=8, warmup=8 * 96 * 10, schedule="cosine")
    tuned = tune(wide, source, reader.epoch(96), Tuning(110, recipe), evaluation=Evaluation(points=1, sequences=1))
    stages.run_here(tuned, trained)
    splits = [source.split_of(example) for example in source.read()]
    learnt = [row for row, split in zip(known, splits, strict=True) if split == "train"]
    new = {"question": "delta delta alpha?", "answer": "beta\n#### 99"}
    respelt = [row | {"question": row["question"].upper()} for row in learnt[:2]]
    asked = GSM8K(table(tmp_path / "asked.jsonl", [*learnt[::-1], new]), None, max_tokens=24)
    stage = Evaluate(tuned, resolved(asked))
    found = run.evaluate(stage, trained, Means(rows=16))
    assert (found["problems"], found["tuned_on"]) == (len(learnt) + 1, len(learnt))
    records = lines(trained, stage)[:-1]
    assert all(s["marked"] == r["gold"] and s["end"] != "length" for r in records for s in r["samples"])
    assert sum(-r["answer"]["logprob"] for r in records) < 0.1 * sum(r["answer"]["tokens"] for r in records)
    hot = run.evaluate(replace(stage, samples=4, temperature=3.0), trained, Means(rows=16))
    assert hot["scores"]["pass"]["1"]["mean"] < hot["scores"]["pass"]["4"]["mean"]
    assert run.evaluate(replace(stage, train=spec), trained, MEANS)["tuned_on"] is None
    for name, rows in (("copied", learnt), ("respelt", respelt)):
        copied = Evaluate(tuned, resolved(GSM8K(table(tmp_path / f"{name}.jsonl", rows), None)))
        with pytest.raises(InputError, match=rf"task = 'GSM8K': the stage was tuned on all {len(rows)} problems; ask"):
            run.evaluate(copied, trained, MEANS)


def test_benchmarks_and_tunings_by_name(text: Text) -> None:
    assert answers("gsm8k", text).rows == GSM8K().train
    assert len(answers("bigbench-lite", text).rows.configs) == 24
    assert [type(task(name)).__name__ for name in ("gsm8k", "bigbench-lite", "humaneval")] == [
        "GSM8K", "Choices", "HumanEval",
    ]  # fmt: skip
    for make in (lambda: task("mmlu"), lambda: answers("humaneval", text)):
        with pytest.raises(InputError, match="benchmark = "):
            make()


def test_a_stage_without_a_tokenizer_is_refused(generated: Train, gsm8k: GSM8K, store: Store) -> None:
    stages.run_here(generated, store)
    with pytest.raises(InputError, match="has no tokenizer"):
        run.evaluate(Evaluate(generated, gsm8k), store, MEANS)


# ---- lm-evaluation-harness


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-evaluation-harness is installed")
def test_lm_eval_is_asked_for_where_it_is_missing(spec: Train, gsm8k: GSM8K, trained: Store) -> None:
    with pytest.raises(InputError, match=r"Evaluate\.engine = 'lm-eval': is not installed; pip install"):
        run.evaluate(Evaluate(spec, gsm8k, engine="lm-eval"), trained, MEANS)


@pytest.mark.filterwarnings("default")
def test_lm_eval_scores_the_same_choices_alike(spec: Train, choices: Choices, trained: Store) -> None:
    pytest.importorskip("lm_eval")
    ours = run.evaluate(Evaluate(spec, choices), trained, MEANS)
    theirs = run.evaluate(Evaluate(spec, choices, engine="lm-eval"), trained, MEANS)
    assert theirs["scores"]["acc,none"] == pytest.approx(ours["scores"]["accuracy_sum"])
    assert theirs["executed"]["version"] is not None
    found = lines(trained, Evaluate(spec, choices, engine="lm-eval"))
    own = lines(trained, Evaluate(spec, choices))
    for a, b in zip(own, found, strict=True):
        assert [float(r[0]) for r in b["filtered_resps"]] == pytest.approx(a["logprob"], abs=1e-3)


@pytest.mark.filterwarnings("default")
def test_lm_eval_reads_the_same_answers(spec: Train, gsm8k: GSM8K, trained: Store) -> None:
    pytest.importorskip("lm_eval")
    found = run.evaluate(Evaluate(spec, gsm8k, shots=1, engine="lm-eval"), trained, MEANS)
    assert found["scores"]["exact_match,marked"]["mean"] == 0.0
    assert len(lines(trained, Evaluate(spec, gsm8k, shots=1, engine="lm-eval"))) == 5


@pytest.mark.usefixtures("pairs")
@pytest.mark.filterwarnings("default")
def test_lm_eval_scores_shards_as_it_scores_all_at_once(spec: Train, choices: Choices, trained: Store) -> None:
    lm_eval_engine = pytest.importorskip("lm_eval") and importlib.import_module("harness.reasoning.lm_eval_engine")
    asked = [Evaluate(spec, replace(choices, problems=n), engine="lm-eval") for n in (5, 6)]
    few, many = (run.evaluate(stage, trained, MEANS) for stage in asked)
    assert lines(trained, asked[1])[:4] == lines(trained, asked[0])[:4]
    assert few["scores"] == lm_eval_engine.scores(lines(trained, asked[1])[:5], asked[0])
    assert many["scores"]["acc,none"]["problems"] == 6


def test_lm_eval_is_asked_only_what_it_does(spec: Train, gsm8k: GSM8K, trained: Store) -> None:
    stage = Evaluate(spec, gsm8k, samples=4, temperature=1.0, engine="lm-eval")
    with pytest.raises(InputError, match=r"Evaluate\.samples = 4: lm-eval draws one sample here"):
        run.evaluate(stage, trained, MEANS)
    with pytest.raises(InputError, match=r"Evaluate\.task = 'HumanEval': lm-eval runs GSM8K and Choices"):
        run.check(Evaluate(spec, HumanEval(), engine="lm-eval"), Means(allow_code=True))


def test_metrics_of_lm_eval_are_means_over_problems(spec: Train, choices: Choices) -> None:
    from harness.reasoning import lm_eval_engine

    records = [{"acc": a, "acc_norm": b, "filter": "none"} for a, b in ((1.0, 1.0), (0.0, 1.0), (1.0, 1.0), (0.0, 1.0))]
    found = lm_eval_engine.scores(records, Evaluate(spec, choices, engine="lm-eval"))
    assert {name: value["mean"] for name, value in found.items()} == {"acc,none": 0.5, "acc_norm,none": 1.0}
    assert found["acc,none"]["problems"] == 4 and found["acc,none"]["low"] < 0.5 < found["acc,none"]["high"]
