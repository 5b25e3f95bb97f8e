"""Fine-tuning on answers: an ordinary stage whose prompts are read and whose answers are the targets."""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import plan, stages
from harness.__main__ import main
from harness.errors import InputError
from harness.sources.answers import AnswerReader, Answers, encode
from harness.sources.rows import Rows, Template
from harness.sources.text import BPE, Text
from harness.sources.tokenizer import from_json
from harness.specs import Corpus, Evaluation, Train, Transfer, canonical, digest, parents
from harness.store import Store
from tests.runs import KilledError, curve, killed_at

FRUIT = ("alpha", "beta", "gamma", "delta")


def rows(count: int = 60) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"question": f"{FRUIT[i % 4]} {i} beta?", "answer": f"{i} gamma" * (1 + i % 3)}


def jsonl(path: Path, values: Iterator[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path, text: Text) -> Answers:
    table = jsonl(tmp_path / "qa.jsonl", rows())
    return Answers(Rows.local(table), text, Template("Q: {question} A:"), held_out=0.25).resolved()


@pytest.fixture
def tokenised(source: Answers, store: Store) -> Store:
    stages.run_here(source.text, store)
    stages.run_here(source, store)
    return store


@pytest.fixture
def reader(source: Answers, tokenised: Store) -> AnswerReader:
    return source.open(tokenised.open(digest(source)))


@pytest.fixture
def tokenizer(source: Answers, tokenised: Store) -> Any:
    attempt = tokenised.open(digest(source))
    assert attempt is not None
    return from_json((attempt / "tokenizer.json").read_text("utf-8"))


@pytest.fixture
def tuning(source: Answers, reading: Train) -> Train:
    """Six steps on answers after the stage on their text."""
    stage = replace(
        reading, corpus=Corpus(source, 4, epochs=3), tokens=6 * 8 * 32, evaluation=Evaluation(points=2, sequences=4)
    )
    return stage.after(replace(reading, tokens=2 * reading.step_tokens), Transfer(reinit=()))


def test_the_prompt_is_read_and_the_answer_is_the_target(source: Answers, reader: AnswerReader, tokenizer: Any) -> None:
    examples = [e for e in source.read() if source.split_of(e) == "train"]
    inputs, targets = reader.sequences(0, np.arange(len(examples)), 64)
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (len(examples), 64)
    found = []
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        supervised = [i for i, t in enumerate(target) if t >= 0]
        first, last = supervised[0], supervised[-1]
        assert supervised == list(range(first, last + 1))
        assert row[0] == target[last] == 0  # end-of-text
        assert row[first + 1 : last + 1] == target[first:last]
        assert set(row[last + 1 :]) <= {0}
        found.append((tokenizer.decode(row[1 : first + 1]), tokenizer.decode(target[first:last])))
    assert sorted(found) == sorted(examples)


def test_an_epoch_has_every_example_once_in_an_order_of_its_own(reader: AnswerReader) -> None:
    count = reader.epoch(64)
    first, second = (reader.sequences(3, np.arange(count) + e * count, 64)[0] for e in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist())
    assert first.tolist() != second.tolist()
    assert reader.sequences(4, np.arange(count), 64)[0].tolist() != first.tolist()
    again = pickle.loads(pickle.dumps(reader))
    for i in (0, 5, count + 2):
        one = again.sequences(3, np.array([i]), 64)[0][0].tolist()
        assert one == np.concatenate([first, second])[i].tolist()


def test_what_does_not_fit_is_left_out_and_counted(reader: AnswerReader, source: Answers, tokenizer: Any) -> None:
    lengths = {"train": [], "validation": []}  # type: ignore[var-annotated]
    for example in source.read():
        lengths[source.split_of(example)].append(len(encode(tokenizer, 0, *example)[0]))
    context = int(np.median(lengths["train"])) - 1  # an example as long as context + 1 fits exactly
    fits = {name: sum(n <= context + 1 for n in of) for name, of in lengths.items()}
    assert 0 < fits["train"] < len(lengths["train"])
    assert reader.dropped(context) == {name: len(of) - fits[name] for name, of in lengths.items()}
    assert reader.epoch(context) == fits["train"]
    _, targets = reader.sequences(0, np.arange(fits["train"]), context)
    assert ((targets == 0).sum(1) == 1).all()  # every answer is there to its end
    with pytest.raises(InputError, match=r"Evaluation\.sequences = 1000: the validation split has"):
        reader.held_out(1000, context)
    with pytest.raises(InputError, match=r"Llama\.context = 3: none of .* training examples fits"):
        reader.epoch(3)


def test_no_prompt_is_on_both_sides(source: Answers, reader: AnswerReader, tokenised: Store) -> None:
    manifest = tokenised.manifest(digest(source))
    assert manifest is not None
    assert manifest["train"]["examples"] + manifest["validation"]["examples"] == 60
    assert manifest["contamination"] == 0
    assert manifest["parents"] == {"tokenizer": digest(source.text)}
    seen = {tuple(row) for row in reader.sequences(0, np.arange(reader.epoch(64)), 64)[0].tolist()}
    held = reader.held_out(manifest["validation"]["examples"], 64)[0].tolist()
    assert not seen & {tuple(row) for row in held}


def test_a_stage_on_answers_trains_stops_and_goes_on(
    tuning: Train, tokenised: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.worker import Options, Worker, read_here

    assert tuning.init is not None
    stages.run_here(tuning.init, tokenised)
    manifest = stages.run_here(tuning, tokenised)
    assert manifest["status"] == "finished"
    assert manifest["dropped"] == {"train": 0, "validation": 0}
    assert manifest["parents"] == {"tokens": digest(tuning.corpus.source), "init": digest(tuning.init)}
    assert manifest["held_out"]["targets"] < 4 * 32
    whole = curve(tokenised, digest(tuning))
    (Path(tokenised.stage(digest(tuning))) / "DONE").unlink()
    options = Options(checkpoint_every_s=0)
    with pytest.raises(KilledError):
        stages.run_here(tuning, tokenised, Worker(options=options, stream=killed_at(4, read_here())))
    assert stages.committed_step(tuning, tokenised) > 0
    stages.run_here(tuning, tokenised)
    assert curve(tokenised, digest(tuning)) == whole
    assert main(["export", digest(tuning), str(tmp_path / "out"), "--store", str(tokenised.root)]) == 0
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_the_budget_is_held_against_the_epochs(tuning: Train, tokenised: Store) -> None:
    longer = replace(tuning, tokens=100 * tuning.step_tokens)
    with pytest.raises(InputError, match=r"set Corpus\(epochs="):
        stages.check_budget(longer, stages.open_reader(longer, tokenised))


def test_a_plan_has_the_text_before_the_answers(tuning: Train, source: Answers) -> None:
    order = list(plan.distinct_stages([tuning]))
    assert order.index(digest(source.text)) < order.index(digest(source)) < order.index(digest(tuning))
    assert parents(source) == {"tokenizer": source.text}


def test_embeddings_that_are_kept_must_be_of_the_same_tokens(tuning: Train, text: Text, generated: Train) -> None:
    source = tuning.corpus.source
    assert isinstance(source, Answers) and tuning.init is not None
    other = replace(tuning.init, corpus=Corpus(replace(source.text, tokenizer=BPE(301))))
    same_size = replace(tuning.init, corpus=Corpus(replace(source.text, held_out=0.3)))
    with pytest.raises(InputError, match="the vocabulary changes"):
        replace(tuning, init=other)
    with pytest.raises(InputError, match=r"Answers\.text = 'Text': the embeddings that are kept"):
        replace(tuning, init=same_size)
    assert replace(tuning, init=same_size, transfer=Transfer()).init is same_size
    assert replace(tuning, init=generated, transfer=Transfer()).init is generated
    assert tuning.after(tuning, Transfer(reinit=())).init is tuning  # another round on the same answers


def test_the_value_says_what_it_is(source: Answers, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = jsonl(tmp_path / "elsewhere" / "qa.jsonl", rows())
    there = replace(source, rows=Rows.local(moved)).resolved()
    assert digest(there) == digest(source)
    changed = replace(source, rows=Rows.local(jsonl(moved, rows(59)))).resolved()
    assert digest(changed) != digest(source)
    assert len({digest(v) for v in (source, replace(source, prompt=Template("{question}")), changed)}) == 3
    assert canonical(replace(source, prompt="Q: {question} A:")) == canonical(source)  # type: ignore[arg-type]
    commits: dict[str, str | None] = {"dataset": None, "text.dataset": None, "text.tokenizer": None}
    assert source.revisions == commits
    assert source.with_revisions(commits) == source


def test_datasets_and_parquet_are_read_as_json_lines_are(source: Answers, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    want = list(rows())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(want), tmp_path / "qa.parquet")
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "train.jsonl", iter(want[:40]))
    jsonl(tmp_path / "data" / "test.jsonl", iter(want[40:]))
    assert list(Rows.local(tmp_path / "qa.parquet").read()) == want
    found = [list(Rows(str(tmp_path / "data"), split=split).resolved().read()) for split in ("train", "test")]
    assert found == [want[:40], want[40:]]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda s: replace(s, prompt=Template("no field")), r"Template\.text = 'no field': name fields"),
        (lambda s: replace(s, prompt=Template("{question.__class__}")), r"Template\.text = .*: name fields"),
        (lambda s: replace(s, prompt=Template("{question")), r"write braces that are text twice"),
        (
            lambda s: list(replace(s, answer=Template("{solution}")).read()),
            r"row 0 lacks 'solution'; it has the fields",
        ),
        (lambda s: replace(s, held_out=1), r"Answers\.held_out = 1"),
        (lambda s: replace(s, examples=1), r"Answers\.examples = 1"),
        (lambda s: Rows(), r"give exactly one"),
        (lambda s: Rows.local("/nowhere/at/all.jsonl").resolved(), r"does not exist"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Callable[[Answers], Any], why: str, source: Answers) -> None:
    with pytest.raises(InputError, match=why) as refused:
        make(source)
    assert "\n" not in str(refused.value)


def test_rows_that_changed_since_they_were_registered_are_refused(source: Answers, tmp_path: Path) -> None:
    jsonl(tmp_path / "qa.jsonl", rows(50))
    with pytest.raises(InputError, match=r"Rows\.content = .* changed since it was registered"):
        list(source.read())
