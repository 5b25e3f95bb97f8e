"""What is exported is the model that was trained, to the bit, with the tokenizer of its text, or it is refused."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import processors

from harness import model, stages
from harness.__main__ import main
from harness.sources.text import Pretrained, Text, documents, parts, split_of
from harness.sources.tokenising import train_tokenizer
from harness.specs import Corpus, Recipe, Train, canonical_json, digest
from harness.store import Store

SAID = ("alpha naïve 日本 def f(x):\n    return x  0.5", " gamma", "a <|endoftext|> b", "", "a , b . n't")


@pytest.fixture(scope="module")
def cases(generated: Train, reading: Train) -> dict[str, Train]:
    """Stages on automata, on text, and on text after automata; each with a tied head and with one of its own."""
    found: dict[str, Train] = {}
    for head, tied in (("tied", True), ("untied", False)):
        shape = replace(generated.model, tied=tied, rope_theta=5e3)
        automata, text = (replace(stage, model=shape, tokens=4 * stage.step_tokens) for stage in (generated, reading))
        found |= {f"automata, {head}": automata, f"text, {head}": text, f"after, {head}": text.after(automata)}
    return found


@pytest.fixture(scope="module")
def trained(cases: dict[str, Train], reading: Train, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with all `cases`, and a stage that diverged."""
    store = Store(tmp_path_factory.mktemp("trained") / "store")
    stages.run_here(reading.corpus.source, store)
    for stage in cases.values():
        assert stages.run_here(stage, store)["status"] == "finished"
    assert stages.run_here(diverging(cases["automata, tied"]), store)["status"] == "diverged"
    return store


def diverging(stage: Train) -> Train:
    return replace(stage, recipe=Recipe(lr=1e30, batch=8))


CASES = [f"{corpus}, {head}" for head in ("tied", "untied") for corpus in ("automata", "text", "after")]


@pytest.fixture
def export(trained: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `export`; returns what was printed."""

    def export(target: str, directory: Path, store: Store = trained) -> str:
        assert main(["export", target, str(directory), "--store", str(store.root)]) == 0
        return capsys.readouterr().out

    return export


@pytest.fixture
def refused(trained: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs what must be refused: exit code 2, one line, nothing written; returns the line."""

    def refused(target: str, directory: Path | None = None, store: Store = trained) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["export", target, str(directory or tmp_path / "out"), "--store", str(store.root)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix("error: ")

    return refused


@pytest.fixture
def own(trained: Store, store: Store) -> Store:
    """A copy of the store, for a test to damage."""
    shutil.copytree(trained.root, store.root)
    return store


# ---- what is written


@pytest.mark.parametrize("case", CASES)
def test_the_exported_model_is_the_trained_one_to_the_bit(
    case: str, cases: dict[str, Train], trained: Store, export: Callable[..., str], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    spec = cases[case]
    export(digest(spec), tmp_path / "out")
    weights = stages.read_weights(trained, digest(spec))
    net = model.build(spec.model, spec.vocab_size)
    with torch.no_grad():
        for name, parameter in model.weights(net).items():
            parameter.copy_(weights[name])
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert model.weights(loaded).keys() == weights.keys()
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == spec.model.tied
    ids = torch.randint(spec.vocab_size, (3, spec.model.context), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = model.logits(net.eval(), ids, "fp32")
        assert torch.equal(loaded(input_ids=ids).logits, want)


def test_the_tokenizer_gives_the_ids_that_were_trained_on(
    cases: dict[str, Train], trained: Store, export: Callable[..., str], tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    out = tmp_path / "out"
    spec = cases["text, tied"]
    text, attempt = spec.corpus.source, trained.open(digest(spec.corpus.source))
    assert isinstance(text, Text) and attempt is not None
    export(digest(spec), out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    end = tokenizer.eos_token_id
    ids: list[int] = []
    for part in parts(text):
        for document in documents(text, part):
            if split_of(text, document.name) == "train":
                ids += [*tokenizer(document.text).input_ids, end]
    assert ids == np.concatenate([np.load(shard) for shard in sorted(attempt.glob("train-*.npy"))]).tolist()
    assert end == 0 == tokenizer.bos_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert AutoConfig.from_pretrained(out).eos_token_id == AutoConfig.from_pretrained(out).bos_token_id == end
    assert GenerationConfig.from_pretrained(out).eos_token_id == end
    assert tokenizer.model_max_length == spec.model.context
    check_ids(tokenizer, train_tokenizer(text))


def check_ids(tokenizer: Any, tokenizer_json: str) -> None:
    from harness.sources.tokenizer import from_json

    for said in SAID:
        ids = from_json(tokenizer_json).encode(said, add_special_tokens=False).ids
        assert tokenizer(said).input_ids == ids
        assert tokenizer.decode(ids) == said


def test_a_pretrained_tokenizer_that_adds_tokens_adds_none_once_exported(
    text: Text, generated: Train, store: Store, export: Callable[..., str], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    theirs = tokenizers.Tokenizer.from_str(train_tokenizer(text))
    theirs.add_special_tokens(["<|begin|>", "<|end|>"])
    begin = theirs.token_to_id("<|begin|>")
    assert begin is not None
    theirs.post_processor = processors.TemplateProcessing(single="<|begin|> $0", special_tokens=[("<|begin|>", begin)])
    theirs.enable_truncation(4)
    theirs.save(str(tmp_path / "theirs.json"))
    named = Pretrained(str(tmp_path / "theirs.json"), theirs.get_vocab_size(), end_of_text="<|end|>")
    source = replace(text, tokenizer=named).resolved()
    spec = replace(generated, corpus=Corpus(source), tokens=2 * generated.step_tokens)
    for stage in (source, spec):
        stages.run_here(stage, store)
    export(digest(spec), tmp_path / "out", store)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token_id == theirs.token_to_id("<|end|>") == begin + 1
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == begin + 1
    check_ids(tokenizer, (tmp_path / "theirs.json").read_text("utf-8"))


@pytest.mark.parametrize("case", ["automata, tied", "after, tied"])
def test_the_card_says_what_the_model_is(
    case: str, cases: dict[str, Train], trained: Store, export: Callable[..., str], tmp_path: Path
) -> None:
    spec = cases[case]
    manifest = trained.manifest(digest(spec))
    assert manifest is not None
    export(digest(spec), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    (canonical,) = re.findall("```json\n(.*)\n```", card)
    assert canonical == canonical_json(spec)
    assert hashlib.sha256(canonical.encode()).hexdigest() == digest(spec)
    assert re.findall(r"`([0-9a-f]{64})`", card) == [digest(stage) for stage in spec.chain()][::-1]
    assert f"{manifest['held_out']['loss_nats']:.4f} nats a token" in card
    assert f"torch {manifest['versions']['torch']}" in card
    assert ("bits a byte" in card) == spec.corpus.source.stored


def test_automata_have_no_tokenizer_and_it_is_said(
    cases: dict[str, Train], export: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    head, note = export(digest(cases["automata, tied"]), out).splitlines()
    assert head.endswith(f"written to {out}")
    assert note == "no tokenizer: the tokens of NCA stand for no text"
    assert {p.name for p in out.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["bos_token_id"] is config["eos_token_id"] is None


def test_the_first_digits_and_an_empty_directory_will_do(
    cases: dict[str, Train], export: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (line,) = export(digest(cases["text, tied"])[:12].upper(), tmp_path / "out").splitlines()
    assert digest(cases["text, tied"])[:12] in line
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    names = {"model.safetensors", "config.json", "generation_config.json", "README.md"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names | {"tokenizer.json", "tokenizer_config.json"}


# ---- what is refused


@pytest.mark.parametrize("target", ["abc", "", "*", "smoke.py", "0123456g", "0" * 65], ids=str)
def test_what_is_no_digest_is_refused(target: str, refused: Callable[..., str]) -> None:
    assert refused(target) == (f"digest = {target!r}: give at least its first 6 hex digits, as `status` shows them")


def test_unknown_digests_and_stores_are_refused(refused: Callable[..., str], trained: Store, tmp_path: Path) -> None:
    assert refused("000000").startswith(f"digest = '000000': no stage in {trained.root} starts with it")
    assert "no stage in" in refused("000000", store=Store(tmp_path / "none"))


def test_digits_that_two_stages_share_are_refused_with_both(
    cases: dict[str, Train], own: Store, refused: Callable[..., str]
) -> None:
    address = digest(cases["text, tied"])
    other = address[:10] + ("0" if address[10] != "0" else "1") * 54
    shutil.copytree(own.stage(address), own.stage(other))
    line = refused(address[:8], store=own)
    assert line.startswith(f"digest = {address[:8]!r}: stands for 2 stages: ")
    assert address in line and other in line


def test_what_has_no_weights_is_refused(
    cases: dict[str, Train], reading: Train, own: Store, refused: Callable[..., str]
) -> None:
    assert "is a Text, which has no weights" in refused(digest(reading.corpus.source))
    assert "has diverged, so it has no weights" in refused(digest(diverging(cases["automata, tied"])))
    begun = replace(cases["text, tied"], seed=77)
    own.begin(digest(begun))
    assert "is not finished" in refused(digest(begun), store=own)


@pytest.mark.parametrize(
    ("file", "damage", "what"),
    [
        ("weights/model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x55"), "does not match its"),
        ("manifest.json", Path.unlink, "manifest.json is missing"),
        ("../DONE", lambda p: p.write_bytes(b"{"), "DONE is not readable"),
    ],
    ids=["altered", "missing", "marker"],
)
def test_a_damaged_stage_is_refused(
    file: str,
    damage: Callable[[Path], Any],
    what: str,
    cases: dict[str, Train],
    own: Store,
    refused: Callable[..., str],
) -> None:
    attempt = own.open(digest(cases["text, tied"]))
    assert attempt is not None
    damage((attempt / file).resolve())
    line = refused(digest(cases["text, tied"]), store=own)
    assert "is damaged: " in line and what in line


def test_a_text_that_is_damaged_or_gone_is_refused(
    cases: dict[str, Train], reading: Train, own: Store, refused: Callable[..., str], tmp_path: Path
) -> None:
    address = digest(reading.corpus.source)
    attempt = own.open(address)
    assert attempt is not None
    (attempt / "tokenizer.json").write_text("{}")
    assert f"digest = {address!r}: is damaged: tokenizer.json" in refused(digest(cases["text, tied"]), store=own)
    own.set_aside(address)
    assert f"digest = {address!r}: is not finished" in refused(digest(cases["text, tied"]), store=own)


def test_a_directory_that_is_taken_or_cannot_be_made_is_refused(
    cases: dict[str, Train], refused: Callable[..., str], tmp_path: Path
) -> None:
    address = digest(cases["text, tied"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for taken in (tmp_path / "full", tmp_path / "full" / "file"):
        assert "is there and not an empty directory" in refused(address, taken)
    assert "cannot be written (Not a directory)" in refused(address, tmp_path / "full" / "file" / "out")


def test_an_export_that_fails_leaves_nothing(
    cases: dict[str, Train], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert "cannot be written (No space left on device)" in refused(digest(cases["text, tied"]))
