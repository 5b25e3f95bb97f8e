"""The corpora as values: through the real loading code, from small copies in the layout that each has on the hub."""

import gzip
import itertools
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune

from harness import nearest, progress, stages, text_rates
from harness.commands.plan import describe
from harness.corpora import C4, CODEPARROT, FINEWEB_EDU, OPENWEBMATH, OPENWEBTEXT
from harness.errors import InputError
from harness.failure import root_message
from harness.plan import make
from harness.rates import Rates, measured
from harness.rates import given as given_rates
from harness.sources import tokenising
from harness.sources.text import SPLITS, Part, Text, documents, parts
from harness.sources.tokenising import encode, encode_missing, kept, pieces, tokenise
from harness.sources.tokenizer import BPE, Pretrained, from_json
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train, canonical, digest
from harness.store import Store
from harness.watch import Watch
from harness.worker import Stopped, Worker

CORPORA = {
    "openwebtext": OPENWEBTEXT,
    "openwebmath": OPENWEBMATH,
    "codeparrot": CODEPARROT,
    "c4": C4,
    "fineweb_edu": FINEWEB_EDU,
}
VOCAB = 330
WORDS = ["alpha", "beta", "gamma", "naïve", "日本", "def f(x):\n    return x", "$x^2$", "0.5", "it's"]


def prose(number: int, words: int = 30) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=words)) + f" {number}\n"


def row(name: str, number: int, text: str | None) -> dict[str, Any]:
    """A row with the columns that the corpus has on the hub."""
    url, date = f"https://example.org/{number}", "2019-04-25T12:57:54Z"
    columns: dict[str, dict[str, Any]] = {
        "openwebtext": {"text": text},
        "openwebmath": {"url": url, "text": text, "date": date, "metadata": '{"extraction_info": {}}'},
        "codeparrot": {
            "repo_name": "who/what",
            "path": f"f{number}.py",
            "copies": "1",
            "size": str(len(text or "")),
            "content": text,
            "license": "mit",
        },
        "c4": {"text": text, "timestamp": date, "url": url},
        "fineweb_edu": {
            "text": text,
            "id": f"<urn:uuid:{number}>",
            "dump": "CC-MAIN-2024-10",
            "url": url,
            "file_path": "s3://commoncrawl/x.warc.gz",
            "language": "en",
            "language_score": 0.98,
            "token_count": 200,
            "score": 3.2,
            "int_score": 3,
        },
    }
    return columns[name]


LAYOUT = {
    "openwebtext": "plain_text/train-{k:05d}-of-00003.parquet",
    "openwebmath": "data/train-{k:05d}-of-00003-abcdef0123456789.parquet",
    "codeparrot": "data/train-{k:05d}-of-00003.parquet",
    "c4": "en/c4-train.{k:05d}-of-01024.json.gz",
    "fineweb_edu": "sample/10BT/{k:03d}_00000.parquet",
}
CARD = {
    "openwebtext": {"plain_text": "plain_text/train-*"},
    "openwebmath": {"default": "data/train-*"},
    "codeparrot": {},
    "c4": {"en": "en/c4-train.*.json.gz", "en.noblocklist": "en.noblocklist/c4-train.*.json.gz"},
    "fineweb_edu": {"default": "data/*/*", "sample-10BT": "sample/10BT/*"},
}


def put(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as f:
            f.writelines(json.dumps(r) + "\n" for r in rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


def repository(root: Path, name: str, texts: list[str | None]) -> Path:
    """A copy of the corpus in three files, with a card that names its configs and another config beside it."""
    for k in range(3):
        rows = [row(name, i, t) for i, t in enumerate(texts) if i % 3 == k]
        put(root / LAYOUT[name].format(k=k), rows)
    other = {"c4": "en.noblocklist/c4-train.00000-of-01024.json.gz", "fineweb_edu": "data/CC/000.parquet"}
    if name in other:
        put(root / other[name], [row(name, 0, "another config")])
    configs = [f"- config_name: {c}\n  data_files:\n  - split: train\n    path: {p}\n" for c, p in CARD[name].items()]
    card = ["license: odc-by\n", *(["configs:\n"] if configs else []), *configs]
    (root / "README.md").write_text(f"---\n{''.join(card)}---\n")
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a byte-level BPE and GPT-2's special token."""
    directory = tmp_path_factory.mktemp("tokenizer")
    trained = BPE(VOCAB).train(prose(i) for i in range(60))
    tokenizers.Tokenizer.from_str(trained).save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture
def local(tmp_path: Path, tokenizer: Path) -> Callable[..., Text]:
    """`local(name, texts)`: the corpus, from a copy on this machine and with a tokenizer that lies here."""

    def of(name: str, texts: list[str | None] | None = None, **options: Any) -> Text:
        place = repository(tmp_path / name, name, [prose(i) for i in range(90)] if texts is None else texts)
        own: dict[str, Any] = {
            "dataset": str(place),
            "tokenizer": Pretrained(str(tokenizer), VOCAB),
            "held_out": 0.2,
            "size": None,
        }
        return replace(CORPORA[name], **own | options)

    return of


def made(text: Text, directory: Path, **options: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The summary, and the bytes of every file."""
    directory.mkdir()
    summary = tokenise(text, directory, **options)
    return summary, contents(directory)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != "manifest.json"}


# ---- the values


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_leaves_the_commit_open_and_has_the_tokenizer_of_gpt2(name: str) -> None:
    text = CORPORA[name]
    assert text.unresolved
    assert text.tokenizer == Pretrained("openai-community/gpt2", 50257)
    assert text.size is not None and text.size > 10**10
    # hundreds of windows of 1,024 tokens are held out, and a thousandth at most
    assert text.size / 4.4 * text.held_out > 2**21
    assert text.held_out < 0.001


def test_the_size_is_no_part_of_the_identity() -> None:
    assert digest(OPENWEBTEXT) == digest(Text("Skylion007/openwebtext", held_out=0.0005))
    with pytest.raises(InputError, match=r"Text.size = 0: use bytes"):
        replace(OPENWEBTEXT, size=0)


# ---- through the loading code


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_is_read_split_and_tokenised(name: str, local: Callable[..., Text], tmp_path: Path) -> None:
    texts = [prose(i) for i in range(90)]
    text = local(name, [*texts, "", None]).resolved()
    assert text.config == CORPORA[name].config and text.column == CORPORA[name].column
    cut = parts(text)
    assert len(cut) == 3
    assert sorted(d.text for p in cut for d in documents(text, p)) == sorted(texts)
    summary, files = made(text, tmp_path / "out")
    assert summary["empty"] == 2
    assert sum(summary[split]["documents"] for split in SPLITS) == 90
    loaded = from_json(files["tokenizer.json"].decode())
    end = loaded.token_to_id("<|endoftext|>")
    found = []
    for split in SPLITS:
        tokens = np.load(tmp_path / "out" / f"{split}-00000.npy")
        assert tokens[-1] == end
        found += [loaded.decode(t[:-1].tolist()) for t in np.split(tokens, np.flatnonzero(tokens == end) + 1)[:-1]]
    assert sorted(found) == sorted(texts)


@pytest.mark.parametrize("name", CORPORA)
def test_a_changed_schema_names_the_columns_that_there_are(name: str, local: Callable[..., Text]) -> None:
    columns = ", ".join(row(name, 0, "x"))
    with pytest.raises(InputError, match=rf"Text.column = 'body': .* has the columns {columns}; name one") as e:
        text = local(name, column="body").resolved()
        list(documents(text, parts(text)[0]))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["c4", "fineweb_edu"])
def test_a_config_that_is_not_there_is_refused(name: str, local: Callable[..., Text]) -> None:
    with pytest.raises(InputError, match=r"Text.dataset = .*cannot be loaded .*gone") as e:
        local(name, config="gone").resolved()
    assert "\n" not in str(e.value)


def test_files_of_different_schemas_are_refused_in_a_line(local: Callable[..., Text], tmp_path: Path) -> None:
    text = local("openwebmath")
    put(tmp_path / "openwebmath" / LAYOUT["openwebmath"].format(k=2), [{"text": "x", "page": 3}])
    with pytest.raises(InputError, match=r"Text.dataset = .*(cannot be read|cannot be loaded)|has the columns") as e:
        resolved = text.resolved()
        [list(documents(resolved, p)) for p in parts(resolved)]
    assert "\n" not in str(e.value)


def test_a_column_of_another_type_is_refused_in_a_line(local: Callable[..., Text], tmp_path: Path) -> None:
    text = local("openwebtext")
    put(tmp_path / "openwebtext" / LAYOUT["openwebtext"].format(k=1), [{"text": [prose(i)]} for i in range(9)])
    with pytest.raises(InputError, match=r"Text.dataset = .*cannot be read .*list.* to string.*one schema") as e:
        resolved = text.resolved()
        [list(documents(resolved, p)) for p in parts(resolved)]
    assert "\n" not in str(e.value)


def test_damage_inside_a_file_is_refused_in_a_line(local: Callable[..., Text], tmp_path: Path) -> None:
    text, damaged = local("openwebtext"), tmp_path / "openwebtext" / LAYOUT["openwebtext"].format(k=1)
    content = bytearray(damaged.read_bytes())
    content[100:300] = bytes(200)
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"Text.dataset = .*cannot be read .*files are whole") as e:
        resolved = text.resolved()
        [list(documents(resolved, p)) for p in parts(resolved)]
    assert "\n" not in str(e.value)


def test_a_config_that_is_not_named_is_asked_for_with_those_that_there_are(local: Callable[..., Text]) -> None:
    with pytest.raises(InputError, match=r"Text.dataset = .*cannot be loaded .*Config name is missing.*en.nob") as e:
        local("c4", config=None).resolved()
    assert "\n" not in str(e.value) and "name a config" in str(e.value)


def test_a_damaged_file_is_refused_in_a_line(local: Callable[..., Text], tmp_path: Path) -> None:
    text = local("c4")
    with gzip.open(tmp_path / "c4" / LAYOUT["c4"].format(k=1), "wt") as f:
        f.write('{"text": "fine", "timestamp": "t", "url": "u"}\n{"text": "cut')
    with pytest.raises(InputError, match=r"Text.dataset = .*cannot be read .*one schema") as e:
        resolved = text.resolved()
        [list(documents(resolved, p)) for p in parts(resolved)]
    assert "\n" not in str(e.value)


def test_a_tokenizer_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"Llama.io_width = 50000: the corpus has a vocabulary of 50257"):
        Train(Corpus(OPENWEBTEXT), 1_000_000, Llama(depth=2, io_width=50_000), Recipe(lr=1e-3))


# ---- documents of any length


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(5, 200))
def test_a_document_in_pieces_has_the_tokens_of_the_whole(tokenizer: Path, number: int, characters: int) -> None:
    # words of at most 9 letters stand among these, so that a place to cut is always near
    document = (
        " ".join(random.Random(number).choices([*WORDS, "\n\n", "  ", "plain words here"], k=60)) + " plain words"
    )
    loaded = from_json((tokenizer / "tokenizer.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenising, "PIECE_CHARACTERS", characters + 200)
        cut = pieces(document)
    assert "".join(cut) == document
    ids = [i for piece in cut for i in loaded.encode(piece, add_special_tokens=False).ids]
    assert ids == loaded.encode(document, add_special_tokens=False).ids


def test_an_enormous_document_is_encoded_in_pieces(
    local: Callable[..., Text], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [prose(i, 400) for i in range(30)] + ["x" * 5000]
    text = local("openwebtext", [*long]).resolved()
    monkeypatch.setattr(tokenising, "NEAR", 256)
    whole = made(text, tmp_path / "whole")
    monkeypatch.setattr(tokenising, "PIECE_CHARACTERS", 1024)
    assert max(len(p) for p in pieces(long[0])) <= 1024 and len(pieces("x" * 5000)) == 5
    cut = made(text, tmp_path / "cut")
    assert cut[0]["train"]["bytes"] == whole[0]["train"]["bytes"]
    assert cut[0]["train"]["documents"] == whole[0]["train"]["documents"]
    loaded = from_json(whole[1]["tokenizer.json"].decode())
    read = [np.concatenate([np.load(tmp_path / d / f"{s}-00000.npy") for s in SPLITS]) for d in ("whole", "cut")]
    assert loaded.decode(read[0].tolist()) == loaded.decode(read[1].tolist())


# ---- restarts


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenising, "BLOCK_CHARACTERS", 1000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("survives", [0, 1, 4, 10_000])
def test_a_restart_encodes_only_what_is_not_there(
    local: Callable[..., Text], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    text, work = local("codeparrot", [*(prose(i) for i in range(90)), ""]).resolved(), tmp_path / "work"
    plain = made(text, tmp_path / "plain")
    real, calls = tokenising.encode_block, itertools.count()

    def dies(*args: Any) -> dict[str, Any]:
        if next(calls) == survives:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(tokenising, "encode_block", dies)
    if survives < 1000:
        with pytest.raises(KeyboardInterrupt):
            made(text, tmp_path / "killed", work=work)
    else:
        made(text, tmp_path / "killed", work=work)
    total = sum(len(list(tokenising.blocks(text, part))) for part in parts(text))
    done: list[int] = []

    def counted(*args: Any) -> dict[str, Any]:
        done.append(1)
        return real(*args)

    monkeypatch.setattr(tokenising, "encode_block", counted)
    summary, files = made(text, tmp_path / "again", work=work)
    assert len(done) == max(0, total - survives) and total > 6
    assert files == plain[1]
    assert {**summary, "found_bytes": 0} == plain[0]
    assert (summary["found_bytes"] > 0) == (survives > 0)


@pytest.mark.usefixtures("small_blocks")
def test_text_that_is_told_to_stop_keeps_its_blocks_and_goes_on(local: Callable[..., Text], tmp_path: Path) -> None:
    text, store, plain = local("openwebtext").resolved(), Store(tmp_path / "store"), Store(tmp_path / "plain")
    asked = itertools.count()
    with pytest.raises(Stopped):
        stages.run_here(text, store, Worker(stop=lambda: next(asked) >= 4))
    assert store.latest_attempt(digest(text)) is None
    assert list(Path(store.resume(digest(text))).rglob("*.npz"))
    manifest, undisturbed = stages.run_here(text, store), stages.run_here(text, plain)
    assert manifest["found_bytes"] > undisturbed["found_bytes"] == 0
    mine, theirs = store.open(digest(text)), plain.open(digest(text))
    assert mine is not None and theirs is not None and contents(mine) == contents(theirs)


def test_a_watcher_sees_how_much_of_a_text_is_tokenised(
    local: Callable[..., Text], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, store, real = local("openwebtext").resolved(), Store(tmp_path / "store"), tokenising.encode_missing
    seen: list[tuple[str, float]] = []

    def looks(text: Text, tokenizer_json: str, part: Part, *args: Any) -> Any:
        deadline = time.monotonic() + 20
        while (view := watch.look().stages[0]).share < part.index / len(parts(text)) and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append((view.state, view.share))
        return real(text, tokenizer_json, part, *args)

    model = Llama(depth=1, width=8, heads=1, mlp=8, context=16)
    watch = Watch(make(Study("watched", "?", lambda: Train(Corpus(text, 0), 32, model, Recipe(1e-3, 1), 0), [])), store)
    monkeypatch.setattr(tokenising, "encode_missing", looks)
    monkeypatch.setattr(progress, "TELL_S", 0.01)
    stages.run_here(text, store)
    count = len(parts(text))
    assert count > 1 and seen[1:] == [("running", i / count) for i in range(1, count)]
    assert not list(store.resume("").glob("*/live.json"))


@pytest.mark.usefixtures("small_blocks")
def test_a_part_that_is_whole_is_not_read_again(
    local: Callable[..., Text], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = local("openwebtext").resolved()
    part, loaded = parts(text)[1], text.tokenizer.load()  # type: ignore[union-attr]
    first = encode_missing(text, loaded, part, tmp_path)
    monkeypatch.setattr(tokenising, "documents", None)
    again = encode_missing(text, loaded, part, tmp_path)
    assert (first.found, again.found) == (0, first.blocks)
    monkeypatch.undo()
    tokens = np.concatenate([piece["train"] for piece in kept(again, tmp_path)])
    np.testing.assert_array_equal(tokens, encode(text, loaded, part)["train"])


@pytest.mark.usefixtures("small_blocks")
def test_a_damaged_block_is_removed_and_made_anew(local: Callable[..., Text], tmp_path: Path) -> None:
    text, work = local("openwebtext").resolved(), tmp_path / "work"
    plain = made(text, tmp_path / "plain")
    made(text, tmp_path / "first", work=work)
    block = sorted(work.glob("000001-*.npz"))[1]
    block.write_bytes(block.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"is damaged; it is removed and made anew"):
        made(text, tmp_path / "second", work=work)
    assert made(text, tmp_path / "third", work=work)[1] == plain[1]


def test_blocks_go_when_the_text_is_published(local: Callable[..., Text], tmp_path: Path) -> None:
    text, store = local("fineweb_edu").resolved(), Store(tmp_path / "store")
    manifest = stages.run_here(text, store)
    assert store.has(digest(text)) and not store.resume(digest(text)).exists()
    assert manifest["spec"]["held_out"] == 0.2 and manifest["empty"] == 0 and manifest["found_bytes"] == 0
    assert stages.run_stored(text, store, fails, "here") == store.manifest(digest(text))


def fails(source: Any, directory: Path, count: Any) -> dict[str, Any]:
    raise FileNotFoundError("what another driver, who was first, removed")


@pytest.fixture(scope="module")
def ray_data() -> Iterator[Any]:
    """`harness.cluster.data` on a Ray of this machine."""
    import ray

    from harness.cluster import connection, data

    connection.connect(2)
    yield data
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.filterwarnings("default::DeprecationWarning")  # Ray Data's own, of its context
def test_a_cluster_goes_on_where_a_run_stopped_and_gives_the_same_bytes(
    ray_data: Any, local: Callable[..., Text], tmp_path: Path
) -> None:
    text, work = local("c4", [*(prose(i) for i in range(90)), ""]).resolved(), tmp_path / "work"
    plain = made(text, tmp_path / "plain")
    encode_missing(text, tokenising.kept_tokenizer(text, work), parts(text)[1], work)
    for name in ("ray", "stopped"):
        (tmp_path / name).mkdir()
    here = os.getpid()
    for stop, where in ((lambda: os.getpid() != here, "after block 1 of part 0"), (lambda: True, "before part 0")):
        with pytest.raises(Stopped, match=where):
            ray_data.tokenise(text, tmp_path / "stopped", cpus=0.0, work=work, stop=stop)
    summary = ray_data.tokenise(text, tmp_path / "ray", cpus=0.0, work=work)
    assert summary["found_bytes"] > 0
    assert {**summary, "found_bytes": 0} == plain[0]
    assert contents(tmp_path / "ray") == plain[1]


@pytest.mark.ray
@pytest.mark.filterwarnings("default::DeprecationWarning")  # Ray Data's own, of its context
def test_a_cluster_says_in_a_line_what_is_wrong_with_a_file(
    ray_data: Any, local: Callable[..., Text], tmp_path: Path
) -> None:
    text = local("c4")
    with gzip.open(tmp_path / "c4" / LAYOUT["c4"].format(k=1), "wt") as f:
        f.write('{"text": "fine", "timestamp": "t", "url": "u"}\n{"text": "cut')
    with pytest.raises(Exception, match="cannot be read") as e:
        ray_data.tokenise(text, tmp_path, cpus=0.0, work=tmp_path / "work")
    assert re.search(r"Text.dataset = .*cannot be read .*one schema$", root_message(e.value))


# ---- overlap of the splits


def test_near_copies_across_the_splits_are_counted(local: Callable[..., Text], tmp_path: Path) -> None:
    copies = [prose(i).encode().upper().decode().replace(" ", "\n\t") for i in range(20)]
    summary, _ = made(local("c4", [*(prose(i) for i in range(90)), *copies]).resolved(), tmp_path / "out")
    assert summary["contamination"] > 0
    words = tokenising.contamination(summary)
    assert words is not None and f"{summary['contamination']} of {summary['validation']['documents']}" in words


def test_a_validation_split_that_train_holds_is_refused(local: Callable[..., Text], tmp_path: Path) -> None:
    spaced = [" ".join(["one sentence"] + [""] * i) for i in range(90)]
    with pytest.raises(
        InputError, match=r"of \d+ validation documents are in the training split too \(100%\).*take"
    ) as e:
        made(local("openwebtext", [*spaced]).resolved(), tmp_path / "out")
    assert "\n" not in str(e.value)


# ---- the plan


def manifest(text: Text, size: int, seconds: float, **more: Any) -> dict[str, Any]:
    splits = {"train": {"bytes": size - 10, "documents": 9}, "validation": {"bytes": 10, "documents": 1}}
    made = {"kind": "Text", "spec": canonical(text), "wall_s": seconds, "hardware": {"cpu": "a processor"}}
    return {**made, **splits, **more}


def study(text: Text) -> Study:
    def scratch(seed: int) -> Train:
        return Train(Corpus(text), 1_000_000, Llama(depth=2, width=16, heads=2, mlp=24), Recipe(lr=1e-3), seed)

    return Study("s", "What?", scratch, [], {"seed": tune.grid_search([0])})


def test_the_plan_tells_what_tokenising_takes_where_a_rate_is_known() -> None:
    plan = make(study(OPENWEBTEXT))
    unknown = describe(plan, set(), Rates())
    assert "text    Skylion007/openwebtext: 39.8GB to tokenise, about 18.1GB of tokens" in unknown
    assert "how long it takes is not known" in unknown
    small = describe(make(study(replace(OPENWEBTEXT, tokenizer=BPE(512)))), set(), Rates())
    assert "about 35.6GB of tokens" in small
    # 10 MB in 2 s, of which a run before did half
    texts = [manifest(C4, 10_000_000, 1.0, found_bytes=5_000_000), manifest(C4, 5_000_000, 1.0)]
    assert text_rates.measured(texts) == text_rates.TextRate(5e6, "a processor", 2)
    for rates in (measured(texts), given_rates(1.0, texts)):
        known = describe(plan, set(), rates, 2.0)
        assert "2.2 hours, 4.42 for each device that waits at 5MB/s, measured on 2 texts of this store" in known
    assert "to tokenise" not in describe(plan, set(plan.stages), Rates())
    cut = make(study(replace(C4, documents=1000)))
    assert "allenai/c4: how much text it is, and how long" in describe(cut, set(), measured(texts))


@pytest.mark.parametrize("damage", [{"wall_s": None}, {"train": None}, {"found_bytes": 10**9}, {"kind": "Train"}])
def test_a_manifest_that_does_not_tell_a_rate_is_left_out(damage: dict[str, Any]) -> None:
    assert text_rates.measured([manifest(C4, 1000, 1.0, **damage)]) is None


def test_a_revision_that_moved_is_told_with_the_one_that_is_there() -> None:
    def at(commit: str) -> Text:
        return replace(
            OPENWEBTEXT, revision=commit * 40, tokenizer=Pretrained("openai-community/gpt2", 50257, "d" * 40)
        )

    plan, stored = make(study(at("b"))), {digest(at("a")): manifest(at("a"), 1000, 1.0)}
    (line,) = nearest.moved(plan, set(), stored)
    assert f"Skylion007/openwebtext: the store has it at revision='{'a' * 40}', and this study is at {'b' * 40}" in line
    assert f"moved   {line}" in describe(plan, set(), Rates(), moved=[line])
    assert nearest.moved(plan, {digest(at("b"))}, stored) == []
    assert nearest.moved(make(study(OPENWEBTEXT)), set(), stored) == []  # the commit is still open
    assert nearest.moved(make(study(replace(at("b"), held_out=0.1))), set(), stored) == []


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Every test has copies of its own, and streams are kept by the value of a text."""
    from harness.sources import text

    text._stream.cache_clear()
    yield
    text._stream.cache_clear()
