"""Text as a source: what identifies it, how it is split and tokenised, and what is refused."""

import functools
import hashlib
import http.server
import json
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.sources import text as module
from harness.sources import tokenising, tokenizer
from harness.sources.files import STDLIB, listing
from harness.sources.hub import commit
from harness.sources.text import BPE, Part, Pretrained, Text, documents, parts, split_of
from harness.sources.tokenising import encode, tokenise, train_tokenizer, training_texts, write
from harness.sources.tokenizer import from_json, token_bytes
from harness.specs import Corpus, Llama, Recipe, Train, differences, digest, parents

WORDS = ["alpha", "beta", "gamma", "delta", "naïve", "日本", "def f(x):\n    return x", "0.5"]


def other(value):
    """A value of another type than is asked for."""
    return value


def prose(number, words=40):
    return " ".join(random.Random(number).choices(WORDS, k=words)) + f" {number}\n"


@pytest.fixture
def folder(tmp_path):
    """Sixty small files in a tree, and what no corpus should take."""
    root = tmp_path / "corpus"
    for i in range(60):
        path = root / f"d{i % 3}" / f"f{i:02d}.{'py' if i % 2 else 'txt'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(prose(i).encode())
    (root / "empty.txt").touch()
    (root / "picture.png").write_bytes(b"\x89PNG\0")
    (root / ".git").mkdir()
    (root / ".git" / "config.txt").write_text("hidden")
    return root


@pytest.fixture
def text(folder):
    return Text.local(folder, tokenizer=BPE(300), held_out=0.2)


@pytest.fixture
def rows():
    return [{"id": i, "text": prose(i)} for i in range(60)]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def artifact(text, directory):
    """The summary, and the bytes of every file."""
    directory.mkdir()
    summary = tokenise(text, directory)
    return summary, {p.name: p.read_bytes() for p in directory.iterdir()}


def by_split(text):
    found: dict[str, list[object]] = {"train": [], "validation": []}
    for part in parts(text):
        for document in documents(text, part):
            found[split_of(text, document.name)].append(document)
    return found


# ---- identity


def test_local_text_is_what_it_holds_not_where_it_lies(folder, text, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    there = Text.local(moved, tokenizer=BPE(300), held_out=0.2).resolved()
    moved.rename(folder)
    here = text.resolved()
    assert here.files != there.files
    assert digest(here) == digest(there)
    (folder / "d0" / "f00.txt").write_text("another text")
    assert digest(text.resolved()) != digest(here)


def test_the_name_of_a_file_is_part_of_the_identity(folder, text):
    before = text.resolved()
    (folder / "d0" / "f00.txt").rename(folder / "d0" / "g00.txt")
    assert differences(before, text.resolved()) == ["content"]


def test_what_is_resolved_is_taken_as_it_is(folder, text):
    resolved = text.resolved()
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.unlink()
    assert resolved.resolved() == resolved


def test_a_relative_path_is_made_absolute_when_resolved(text, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert Text.local("corpus", tokenizer=BPE(300)).resolved().files == str(folder)


def test_a_text_is_a_source_that_a_stage_can_name(text):
    run = Train(Corpus(text.resolved()), 64, Llama(1, 8, 1, 8, 16), Recipe(lr=1e-3, batch=2))
    assert parents(run) == {"tokens": text.resolved()}
    assert run.vocab_size == 300
    assert text.frame_tokens is None


def test_importing_text_imports_no_heavy_library():
    import subprocess

    code = "import sys, harness.sources.text; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"datasets", "tokenizers", "pyarrow", "huggingface_hub", "torch", "transformers"} & set(loaded)


# ---- the artifact


def test_every_document_is_in_one_split_and_followed_by_end_of_text(text, tmp_path):
    summary, files = artifact(text, tmp_path / "out")
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    end = tokenizer.token_to_id("<|endoftext|>")
    assert end == 0
    found = by_split(text)
    assert Counter(d.text for split in found.values() for d in split) == Counter(prose(i) for i in range(60))
    for split, expected in found.items():
        tokens = np.load(tmp_path / "out" / f"{split}-00000.npy")
        assert tokens.dtype == np.uint16
        assert tokens[-1] == end
        ends = np.flatnonzero(tokens == end)
        texts = [tokenizer.decode(t.tolist()) for t in np.split(tokens, ends + 1)[:-1]]
        assert texts == [d.text for d in expected]
        size = sum(len(t.encode()) for t in texts)
        assert summary[split] == {"tokens": len(tokens), "bytes": size, "documents": len(texts)}
        assert np.load(tmp_path / "out" / "token_bytes.npy")[tokens].sum() == size
    assert (summary["vocab_size"], summary["dtype"], summary["contamination"]) == (300, "uint16", 0)


def test_the_reader_keeps_validation_documents_out_of_training(text, tmp_path):
    _, files = artifact(text, tmp_path / "out")
    read = text.open(tmp_path / "out")
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    held_out, _ = read.held_out(len(np.load(tmp_path / "out" / "validation-00000.npy")) // 32 - 1, 32)
    train, _ = read.sequences(0, np.arange(read.epoch(32)), 32)
    documents = {split: "".join(d.text for d in found) for split, found in by_split(text).items()}
    for split, windows in (("train", train), ("validation", held_out)):
        for window in windows:
            piece = max(tokenizer.decode(window.tolist(), skip_special_tokens=False).split("<|endoftext|>"), key=len)
            assert piece.strip("\ufffd") in documents[split]  # a window may cut a character
    assert not {tuple(w) for w in held_out} & {tuple(w) for w in train}


def test_the_same_text_gives_the_same_bytes(text, tmp_path):
    assert artifact(text, tmp_path / "a") == artifact(text.resolved(), tmp_path / "b")


@pytest.mark.parametrize("part_bytes", [1, 3000, 2**20])
def test_parts_encoded_in_any_order_and_written_in_order_are_the_whole(text, tmp_path, monkeypatch, part_bytes):
    whole = artifact(text, tmp_path / "whole")
    monkeypatch.setattr(module, "PART_BYTES", part_bytes)
    monkeypatch.setattr(tokenising, "BATCH_CHARACTERS", part_bytes)
    cut = parts(text)
    assert [p.index for p in cut] == list(range(len(cut)))
    tokenizer = train_tokenizer(text)
    encoded = {p.index: encode(text, tokenizer, p) for p in random.Random(0).sample(cut, len(cut))}
    (tmp_path / "cut").mkdir()
    summary = write(text, tokenizer, (encoded[i] for i in range(len(cut))), tmp_path / "cut")
    assert (summary, {p.name: p.read_bytes() for p in (tmp_path / "cut").iterdir()}) == whole


def test_files_are_not_read_in_the_order_of_their_names(text):
    names = [d.name for part in parts(text) for d in documents(text, part)]
    assert names != sorted(names)
    assert sorted(names) == sorted(f"d{i % 3}/f{i:02d}.{'py' if i % 2 else 'txt'}" for i in range(60))


def test_a_document_keeps_its_split_when_the_corpus_grows(folder, text):
    before = {d.name for d in by_split(text)["validation"]}
    (folder / "new.txt").write_text("a new one")
    assert {d.name for d in by_split(text)["validation"]} - {"new.txt"} == before


def test_the_tokenizer_has_seen_no_validation_document(folder, text):
    marker = "zqxjvkw" * 30
    held_out = {d.name for d in by_split(text)["validation"]}
    for name in held_out:
        (folder / name).write_text(marker)
    assert "zqxj" not in " ".join(json.loads(train_tokenizer(text))["model"]["vocab"])
    for name in {d.name for d in by_split(text)["train"]}:
        (folder / name).write_text(marker)
    assert "zqxj" in " ".join(json.loads(train_tokenizer(text))["model"]["vocab"])


def test_the_tokenizer_is_trained_on_a_capped_number_of_bytes(text, monkeypatch):
    train = by_split(text)["train"]
    monkeypatch.setattr(tokenising, "BPE_TRAINING_BYTES", len(train[0].text.encode()) + 1)
    assert list(training_texts(text)) == [train[0].text, train[1].text]


@given(text=st.text(st.sampled_from("ab \n日"), max_size=60), longest=st.integers(1, 9))
def test_what_is_trained_on_is_cut_in_unbroken_runs_alone(text, longest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "LONGEST_RUN", longest)
        pieces = list(tokenizer.in_pieces(text))
    assert "".join(pieces) == text
    runs = [run for piece in pieces for run in piece.split()]
    assert max(map(len, runs), default=0) <= longest
    if max(map(len, text.split()), default=0) <= longest:
        assert pieces == [text]


def test_a_document_of_one_word_trains_a_tokenizer():
    word = "".join(random.Random(0).choices("abcdefgh", k=300_000))
    trained = from_json(BPE(300).train([word]))
    assert trained.decode(trained.encode(word).ids) == word


def test_only_the_first_documents_are_kept(text):
    order = [d.name for part in parts(text) for d in documents(text, part)]
    few = Text.local(text.files, tokenizer=BPE(300), held_out=0.2, documents=17)
    assert [d.name for part in parts(few) for d in documents(few, part)] == order[:17]


def test_the_number_of_documents_runs_across_files_and_parts(tmp_path, rows, monkeypatch):
    for k in range(4):
        jsonl(tmp_path / f"{k}.jsonl", rows[15 * k : 15 * k + 15])
    monkeypatch.setattr(module, "PART_BYTES", 1)
    few = Text.local(tmp_path, tokenizer=BPE(300), documents=37)
    cut = parts(few)
    assert [len(list(documents(few, p))) for p in cut] == [15, 15, 7]


def test_copies_across_the_splits_are_counted(folder, text, tmp_path):
    found = by_split(text)
    for document in found["validation"][:2]:
        (folder / document.name).write_text(found["train"][0].text)
    assert artifact(text, tmp_path / "out")[0]["contamination"] == 2


def test_the_spelt_out_end_of_text_is_only_text(folder, text, tmp_path):
    for path in folder.rglob("*.txt"):
        path.write_text("the token <|endoftext|> ends a document\n" * 3)
    summary, _ = artifact(text, tmp_path / "out")
    tokens = np.load(tmp_path / "out" / "train-00000.npy")
    assert (tokens == 0).sum() == summary["train"]["documents"]


@functools.cache
def some_tokenizer():
    """The JSON of a tokenizer with 400 ids."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator([prose(i) for i in range(50)], trainer)
    return trained.to_str()


@settings(deadline=None)
@given(st.text(max_size=200))
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(sample):
    size = token_bytes(some_tokenizer(), 400)
    ids = tokenizers.Tokenizer.from_str(some_tokenizer()).encode(sample).ids
    assert size[[i for i in ids if i]].sum() == len(sample.replace("<|endoftext|>", "").encode())
    assert size[0] == 0


@pytest.mark.parametrize(("vocab", "dtype"), [(65536, "uint16"), (65537, "uint32")])
def test_ids_are_as_wide_as_the_vocabulary_needs(text, tmp_path, vocab, dtype):
    wide = Text.local(text.files, tokenizer=BPE(vocab), held_out=0.2)
    summary, _ = artifact(wide, tmp_path / "out")
    assert summary["dtype"] == dtype == np.load(tmp_path / "out" / "train-00000.npy").dtype.name
    assert wide.open(tmp_path / "out").token_bytes.shape == (vocab,)


def test_progress_is_reported(text, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 5000)
    calls = []
    tokenise(text, tmp_path, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(i + 1, len(calls)) for i in range(len(calls))]
    assert len(calls) > 1


def test_the_standard_library_is_a_corpus(tmp_path):
    text = Text.stdlib(held_out=0.2, documents=30).resolved()
    assert text.vocab_size == 512
    summary, _ = artifact(text, tmp_path / "out")
    assert summary["train"]["documents"] + summary["validation"]["documents"] == 30
    names = [d.name for part in parts(Text.stdlib()) for d in documents(text, part)]
    assert {"json/decoder.py", "argparse.py"} <= {f.name for f in listing(STDLIB, dataset=False)}
    assert not [n for n in names if {"test", "tests", "site-packages", "encodings"} & set(n.split("/"))]


# ---- tables and datasets


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_every_row_of_a_table_is_a_document(tmp_path, rows, kind):
    rows += [{"id": 60, "text": ""}, {"id": 61, "text": None}]
    path = tmp_path / f"table.{kind}"
    if kind == "jsonl":
        jsonl(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    text = Text.local(path, tokenizer=BPE(300), held_out=0.2).resolved()
    assert [d.text for p in parts(text) for d in documents(text, p)] == [prose(i) for i in range(60)]
    summary, _ = artifact(text, tmp_path / "out")
    assert summary["train"]["documents"] + summary["validation"]["documents"] == 60


@pytest.fixture(params=["jsonl", "parquet"])
def repository(request, tmp_path, rows):
    """A local dataset with the layout of a hub repository: three shards of a split, and another split."""
    data = tmp_path / "repository" / "data"
    data.mkdir(parents=True)
    shards = {f"train-{k:05d}-of-00003": rows[20 * k : 20 * k + 20] for k in range(3)} | {"test-00000-of-00001": rows}
    for name, content in shards.items():
        if request.param == "jsonl":
            jsonl(data / f"{name}.jsonl", content)
        else:
            pq.write_table(pa.Table.from_pylist(content), data / f"{name}.parquet")
    return data.parent


def test_a_dataset_is_streamed_shard_by_shard(repository, tmp_path):
    text = Text(str(repository), tokenizer=BPE(300), held_out=0.2).resolved()
    cut = parts(text)
    assert [p.shard for p in cut] == [0, 1, 2]
    assert [[d.text for d in documents(text, p)] for p in cut] == [
        [prose(i) for i in range(20 * k, 20 * k + 20)] for k in range(3)
    ]
    summary, files = artifact(text, tmp_path / "a")
    assert summary["train"]["documents"] + summary["validation"]["documents"] == 60
    assert (summary, files) == artifact(text, tmp_path / "b")


def test_only_the_first_documents_of_a_dataset_are_kept(repository):
    text = Text(str(repository), tokenizer=BPE(300), documents=25)
    assert [d.text for p in parts(text) for d in documents(text, p)] == [prose(i) for i in range(25)]


def test_a_local_dataset_is_what_it_holds_not_where_it_lies(repository, tmp_path):
    text = Text(str(repository), tokenizer=BPE(300)).resolved()
    assert text.revision is None
    moved = Text(str(repository.rename(tmp_path / "moved")), tokenizer=BPE(300)).resolved()
    assert digest(text) == digest(moved)
    assert moved.files is not None
    next(Path(moved.files).rglob("*test*")).write_bytes(b"changed")
    with pytest.raises(InputError, match="changed since it was registered"):
        parts(moved)


def test_equal_texts_of_a_dataset_fall_in_one_split(tmp_path, rows):
    path = jsonl(tmp_path / "twice.jsonl", rows + rows)
    summary, _ = artifact(Text.local(path, tokenizer=BPE(300), held_out=0.2), tmp_path / "out")
    assert summary["contamination"] == 0
    assert summary["train"]["documents"] + summary["validation"]["documents"] == 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "nope"}, r"Text.dataset = .*nope.*train"),
        ({"config": "nope"}, r"Text.dataset = .*nope"),
        ({"column": "nope"}, r"Text.column = 'nope': .* columns id, text"),
    ],
)
def test_a_dataset_without_what_is_asked_is_refused(repository, options, message):
    text = Text(str(repository), tokenizer=BPE(300), **options)
    with pytest.raises(InputError, match=message):
        parts(text.resolved())
        next(documents(text, parts(text)[0]))


def test_a_parquet_file_without_rows_is_told(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "train.parquet")
    text = Text(str(tmp_path), tokenizer=BPE(300)).resolved()
    with pytest.raises(InputError, match=r"^Text.dataset = .*cannot be read \(a Parquet file without rows\); name a"):
        list(documents(text, parts(text)[0]))


# ---- the hub


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that knows one data set, one gated one and one model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            gated = "gated" in self.path
            known = self.path.split("?")[0] in (
                "/api/datasets/who/corpus",
                "/api/datasets/who/corpus/revision/v1",
                "/api/datasets/who/gated",
                "/api/models/who/tokenizer",
            )
            self.send_response(403 if gated and "auth-check" in self.path else 200 if known else 404)
            if gated and "auth-check" in self.path:
                self.send_header("X-Error-Code", "GatedRepo")
            elif not known:
                self.send_header("X-Error-Code", "RevisionNotFound" if "revision" in self.path else "RepoNotFound")
            self.end_headers()
            name = "/".join(self.path.split("/")[3:5])
            self.wfile.write(json.dumps({"id": name, "sha": "c" * 40, "gated": gated and "manual"}).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    commit.cache_clear()
    yield
    server.shutdown()
    server.server_close()
    commit.cache_clear()


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_branch_is_resolved_to_its_commit(hub, monkeypatch, revision):
    monkeypatch.setattr(module, "_stream", lambda text: None)
    assert Text("who/corpus", revision=revision, tokenizer=BPE(300)).resolved().revision == "c" * 40


def test_a_named_tokenizer_is_resolved_to_its_commit(hub, folder):
    text = Text.local(folder, tokenizer=Pretrained("who/tokenizer", 1000), held_out=0.2)
    assert text.resolved().tokenizer == Pretrained("who/tokenizer", 1000, revision="c" * 40)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("who/nobody", None, "no such dataset"),
        ("not a name", None, "no such dataset"),
        ("who/gated", None, "is gated"),
        ("who/corpus", "v2", "no revision 'v2'"),
    ],
)
def test_a_dataset_that_cannot_be_had_is_refused(hub, name, revision, message):
    with pytest.raises(InputError, match=message) as e:
        Text(name, revision=revision, tokenizer=BPE(300)).resolved()
    assert "\n" not in str(e.value)


def test_a_hub_out_of_reach_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # discard: nothing listens
    commit.cache_clear()
    with pytest.raises(InputError, match=r"Text.dataset = 'who/corpus': the hub cannot be reached") as e:
        Text("who/corpus", tokenizer=BPE(300)).resolved()
    assert "\n" not in str(e.value)


def test_without_the_network_a_commit_stays_open(folder, monkeypatch):
    monkeypatch.setattr("harness.sources.hub.commit", None)
    web = Text("who/corpus", tokenizer=BPE(300))
    assert web.resolved(network=False) == web
    assert web.unresolved
    local = Text.local(folder, tokenizer=Pretrained("who/tokenizer", 9), held_out=0.2).resolved(network=False)
    assert local.content is not None
    assert local.unresolved
    assert not Text.local(folder, tokenizer=BPE(300)).unresolved


def test_a_commit_needs_no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    text = Text("who/corpus", revision="a" * 40, tokenizer=Pretrained("who/tokenizer", 9, revision="b" * 40))
    assert text.resolved() == text
    assert not text.unresolved


# ---- pretrained tokenizers


@pytest.fixture
def trained(text, tmp_path):
    """A tokenizer.json with 302 ids: a special token, 301 of bytes and merges, and an ordinary added token."""
    tokenizer = tokenizers.Tokenizer.from_str(train_tokenizer(Text.local(text.files, tokenizer=BPE(301), held_out=0.2)))
    tokenizer.add_tokens([tokenizers.AddedToken("日本日本", special=False)])
    path = tmp_path / "pretrained" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


def test_a_pretrained_tokenizer_is_used_as_it_is(folder, trained, tmp_path):
    (folder / "added.txt").write_text("日本日本 alpha")
    results = []
    for k, name in enumerate((trained, trained.parent)):
        text = Text.local(folder, tokenizer=Pretrained(str(name), 302), held_out=0.2).resolved()
        assert isinstance(text.tokenizer, Pretrained)
        assert text.tokenizer.content == hashlib.sha256(trained.read_bytes()).hexdigest()
        results.append((digest(text), artifact(text, tmp_path / f"out{k}")))
    assert results[0] == results[1]
    summary = results[0][1][0]
    read = text.open(tmp_path / "out0")
    for split in ("train", "validation"):
        tokens = np.load(tmp_path / "out0" / f"{split}-00000.npy")
        assert read.token_bytes[tokens].sum() == summary[split]["bytes"]
    assert read.token_bytes[301] == len("日本日本".encode())


def test_a_tokenizer_that_adds_or_cuts_tokens_does_neither_here(folder, trained, text):
    loaded = tokenizers.Tokenizer.from_file(str(trained))
    loaded.post_processor = tokenizers.processors.TemplateProcessing("<|endoftext|> $A", None, [("<|endoftext|>", 0)])
    loaded.enable_truncation(5)
    plain = Text.local(folder, tokenizer=Pretrained(str(trained), 302), held_out=0.2)
    part = parts(plain)[0]
    expected = encode(plain, trained.read_text(), part)
    np.testing.assert_array_equal(encode(plain, loaded.to_str(), part)["train"], expected["train"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab": 301}, r"Pretrained.vocab = 301: .* has 302 ids"),
        ({"vocab": 302, "end_of_text": "</s>"}, r"end_of_text = '</s>': .* special tokens: <\|endoftext\|>"),
    ],
)
def test_a_tokenizer_that_is_not_as_declared_is_refused(folder, trained, options, message):
    with pytest.raises(InputError, match=message):
        train_tokenizer(Text.local(folder, tokenizer=Pretrained(str(trained), **options)))


def test_a_tokenizer_without_bytes_is_refused(folder, trained):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="a"))
    words.save(str(trained))
    with pytest.raises(InputError, match="not a byte-level BPE"):
        train_tokenizer(Text.local(folder, tokenizer=Pretrained(str(trained), 2)))
    trained.write_text("{}")
    with pytest.raises(InputError, match=r"is not a tokenizer.json"):
        train_tokenizer(Text.local(folder, tokenizer=Pretrained(str(trained), 2)))


def test_a_tokenizer_that_changed_is_refused(folder, trained):
    text = Text.local(folder, tokenizer=Pretrained(str(trained), 302), held_out=0.2).resolved()
    trained.write_text(trained.read_text() + "\n")
    with pytest.raises(InputError, match=r"Pretrained.content = .*changed since it was registered"):
        train_tokenizer(text)


def test_a_missing_tokenizer_is_refused_at_once(folder):
    with pytest.raises(InputError, match=r"Pretrained.name = .*nowhere.*does not exist"):
        Text.local(folder, tokenizer=Pretrained("/nowhere/tokenizer.json", 302)).resolved()


# ---- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Text(tokenizer=BPE(300)), "exactly one"),
        (lambda: Text("who/corpus", files="stdlib"), "exactly one"),
        (lambda: Text("/corpus", files="stdlib"), r"Text.files = 'stdlib'"),
        (lambda: Text("."), "write a path"),
        (lambda: Text(files="x", revision="main"), r"Text.revision = 'main'"),
        (lambda: Text(files="x", config="en"), r"Text.config = 'en'"),
        (lambda: Text(files="x", split="test"), r"Text.split = 'test'"),
        (lambda: Text("who/corpus", held_out=0), r"Text.held_out = 0"),
        (lambda: Text("who/corpus", held_out=1.0), r"Text.held_out = 1.0"),
        (lambda: Text("who/corpus", documents=1), r"Text.documents = 1"),
        (lambda: Text("who/corpus", documents=other(2.5)), r"Text.documents = 2.5: use a whole number of at least 2"),
        (lambda: Text("who/corpus", tokenizer=other("gpt2")), r"Text.tokenizer = 'gpt2': use BPE\(vocab\), or"),
        (lambda: BPE(other(300.5)), r"BPE.vocab = 300.5: use a whole number"),
        (lambda: Pretrained("gpt2", other(50257.5)), r"Pretrained.vocab = 50257.5: use a whole number"),
        (lambda: BPE(256), r"BPE.vocab = 256"),
        (lambda: BPE(2**31 + 1), r"BPE.vocab"),
        (lambda: Pretrained("gpt2", 0), r"Pretrained.vocab = 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message) as e:
        make()
    assert "\n" not in str(e.value)


def test_whole_numbers_may_be_written_with_a_point(folder, tmp_path):
    text = Text.local(folder, tokenizer=BPE(other(3e2)), held_out=0.2, documents=other(4e1)).resolved()
    plain = Text.local(folder, tokenizer=BPE(300), held_out=0.2, documents=40).resolved()
    assert digest(text) == digest(plain)
    assert artifact(text, tmp_path / "a") == artifact(plain, tmp_path / "b")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no text"),
        ({"a.txt": b""}, "holds no text"),
        ({"a.png": b"\x89PNG"}, "holds no text"),
        ({"a.txt": b"fine", "b.txt": b"nul \0 here"}, r"b.txt': is binary"),
        ({"a.txt": b"fine", "b.txt": b"caf\xe9 au lait"}, r"b.txt': is not UTF-8"),
        ({"a.txt": b"fine", "b.txt": b"cut \xc3"}, r"b.txt': is not UTF-8"),
        ({"a.txt": b"only one"}, "of 1 documents none falls in the"),
        ({"a.jsonl": b'{"body": "x", "id": 1}\n'}, r"Text.column = 'text': .*columns body, id"),
        ({"a.jsonl": b'{"text": 5}\n'}, r"Text.column = 'text': .*row 1 holds a int"),
        ({"a.jsonl": b"plain text\n"}, r"a.jsonl': line 1 is not JSON"),
        ({"a.jsonl": b'["text"]\n'}, r"a.jsonl': line 1 is not a JSON object"),
        ({"a.jsonl": b'{"text": "\\ud800"}\n'}, r"row 1 is not Unicode"),
        ({"a.parquet": b"PAR0 what"}, r"a.parquet': is not Parquet"),
    ],
)
def test_files_that_are_no_text_are_refused_before_anything_starts(tmp_path, files, message):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as e:
        Text.local(tmp_path, tokenizer=BPE(300)).resolved()
    assert "\n" not in str(e.value)


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"Text.files = .*nowhere.*does not exist"):
        Text.local(tmp_path / "nowhere", tokenizer=BPE(300)).resolved()


def test_a_named_binary_file_is_refused_whatever_its_suffix(tmp_path):
    (tmp_path / "a.weights").write_bytes(b"\0\1")
    with pytest.raises(InputError, match="is binary"):
        Text.local(tmp_path / "a.weights", tokenizer=BPE(300)).resolved()


def test_a_parquet_file_without_the_column_is_refused(tmp_path, rows):
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"Text.column = 'body': .*columns id, text"):
        Text.local(tmp_path, column="body", tokenizer=BPE(300)).resolved()


def test_a_table_without_both_splits_is_refused_when_tokenised(tmp_path, rows):
    text = Text.local(jsonl(tmp_path / "a.jsonl", rows[:2]), tokenizer=BPE(300), held_out=1e-9).resolved()
    with pytest.raises(InputError, match=r"Text.held_out = 1e-09: of 2 documents none falls in the validation split"):
        artifact(text, tmp_path / "out")
    empty = Text.local(jsonl(tmp_path / "b.jsonl", [{"text": ""}]), tokenizer=BPE(300)).resolved()
    with pytest.raises(InputError, match="holds no documents"):
        artifact(empty, tmp_path / "empty")


def test_text_that_changed_since_it_was_registered_is_refused(folder, text, tmp_path):
    resolved = text.resolved()
    cut = parts(resolved)
    (folder / "d0" / "f00.txt").write_text("another text")
    with pytest.raises(InputError, match=r"Text.content = .*corpus changed since it was registered"):
        tokenise(resolved, tmp_path)
    with pytest.raises(InputError, match=r"Text.content = .*f00.txt changed since it was registered"):
        [list(documents(resolved, p)) for p in cut]


def test_a_node_that_lacks_a_file_says_so(text):
    with pytest.raises(InputError, match=r"gone.txt'?: is not on this machine"):
        list(documents(text, Part(0, files=(("gone.txt", "0" * 64),))))
