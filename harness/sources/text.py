"""Text as a source: files or a Hugging Face dataset -> documents -> a byte-level tokenizer -> packed token shards.

A `Text` is itself a stage, whose artifact every run on the same text shares. Tokenising is a few pure functions
(`parts`, `documents`, `train_tokenizer`, `encode`, `write`), so that a cluster may run `encode` anywhere, in any order;
`tokenise` is the same in one process. Only the standard library and NumPy are imported to make and hash a `Text`.
"""

import codecs
import functools
import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from harness.errors import InputError, require
from harness.rng import named_seed
from harness.specs import IDENTITY_FREE
from harness.tokens import TokenReader, TokenWriter

SPLITS = ("train", "validation")
HERE = "."
"""The name of a dataset or tokenizer that lies on this machine: its place is no part of its identity."""
STDLIB = "stdlib"
TEXT_SUFFIXES = frozenset(
    ".txt .md .rst .tex .html .xml .py .pyi .c .h .cc .cpp .hpp .cu .cs .go .hs .java .jl .js "  # noqa: SIM905
    ".jsx .ts .tsx .kt .lua .ml .php .pl .r .rb .rs .scala .sh .sql .swift".split()
)
TABLE_SUFFIXES = frozenset((".jsonl", ".parquet"))
STDLIB_SKIPPED = frozenset(
    # tests, what others installed, and tables or prose that a program wrote
    "test tests idle_test site-packages dist-packages __pycache__ lib2to3 encodings pydoc_data".split()  # noqa: SIM905
)
PART_BYTES = 2**20
BPE_TRAINING_BYTES = 200_000_000
"""A tokenizer is trained on the first documents of the training split, until they reach this many UTF-8 bytes."""


def _keep_path_apart(value: Any, name: str, path: str) -> None:
    """Move a path given as `name` to the field `path`, and leave HERE."""
    given = getattr(value, name)
    if given is not None and given.startswith(("/", "./", "../", "~")):
        other = getattr(value, path)
        require(other is None, f"{type(value).__name__}.{path}", other, f"{name} is a path already; give one of them")
        object.__setattr__(value, path, given)
        object.__setattr__(value, name, HERE)
    elif given == HERE:
        require(getattr(value, path) is not None, f"{type(value).__name__}.{name}", given, "write a path as ./<path>")


@dataclass(frozen=True)
class BPE:
    """A byte-level BPE of `vocab` ids, trained on the training split alone; id 0 is <|endoftext|>.

    `vocab` is nominal: a text too small for that many merges leaves the last ids unused.
    """

    end_of_text: ClassVar[str] = "<|endoftext|>"

    vocab: int

    def __post_init__(self) -> None:
        require(257 <= self.vocab <= 2**31, "BPE.vocab", self.vocab, "use 257 (256 bytes and end-of-text) to 2**31")

    @property
    def unresolved(self) -> bool:
        return False

    def resolved(self, network: bool = True) -> Self:
        return self


@dataclass(frozen=True)
class Pretrained:
    """A byte-level BPE with a name: a model on the hub, or the path of a tokenizer.json or of a directory with one.

    `vocab`, the number of its ids, is part of the value, so that a plan needs no network; it is checked when the
    tokenizer is loaded. `end_of_text` is the token put after every document. A path is kept in `path`, which is no part
    of the identity; `content` (SHA-256 of the file) is.
    """

    name: str
    vocab: int
    revision: str | None = None
    end_of_text: str = "<|endoftext|>"
    content: str | None = None
    path: str | None = field(default=None, metadata=IDENTITY_FREE)

    def __post_init__(self) -> None:
        require(1 <= self.vocab <= 2**31, "Pretrained.vocab", self.vocab, "use the number of ids of the tokenizer")
        _keep_path_apart(self, "name", "path")

    @property
    def unresolved(self) -> bool:
        """Whether the commit on the hub is still open."""
        return self.path is None and not _is_commit(self.revision)

    def resolved(self, network: bool = True) -> Self:
        """The same tokenizer with the content hash of its file or, with `network`, its commit on the hub filled in."""
        if self.path is None:
            if not (network and self.unresolved):
                return self
            return replace(self, revision=_commit("model", self.name, self.revision, "Pretrained.name"))
        return replace(self, content=self.content or _sha256(self._file()), path=os.path.abspath(self.path))

    def _file(self) -> "_File":
        path = Path(self.path or "").expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        require(path.is_file(), "Pretrained.name", str(path), "does not exist; name a tokenizer.json or a hub model")
        return _File.at(path, path.name, is_text=False)

    def load(self) -> str:
        """The JSON of the tokenizer; InputError if it is not the one that was registered, or cannot be read."""
        if self.path is None:
            import huggingface_hub

            try:
                path = huggingface_hub.hf_hub_download(self.name, "tokenizer.json", revision=self.revision)
            except Exception as e:  # not found, gated, offline: whatever the hub's client and its transport raise
                raise InputError(
                    f"Pretrained.name = {self.name!r}: {_line(e)}; name a model with tokenizer.json"
                ) from e
            return Path(path).read_text("utf-8")
        file = self._file()
        _check_unchanged("Pretrained.content", self.content, _sha256(file), file.path)
        return Path(file.path).read_text("utf-8")


@dataclass(frozen=True)
class Document:
    """One text. `name` decides its split: the file's relative name, or a hash of the text where it has no name."""

    name: str
    text: str


@dataclass(frozen=True)
class Part:
    """A piece of a corpus that one worker tokenises: some files (relative name, SHA-256), or one shard of a dataset."""

    index: int
    files: tuple[tuple[str, str], ...] = ()
    shard: int = 0
    shards: int = 1
    documents: int | None = None


@dataclass(frozen=True)
class Text:
    """Documents from a Hugging Face dataset (`Text("Skylion007/openwebtext")`) or from local files, tokenised.

    `files` is a file, or a directory whose files with a known suffix are read: text and source code are one document
    each, `.jsonl` and `.parquet` one a row, in `column`. `files="stdlib"` is the standard library of the running
    interpreter. What lies locally is identified by `content`, a SHA-256 over names and bytes, a dataset on the hub by
    the commit in `revision`; `resolved()` fills them in. `held_out` is the share of documents in the validation split,
    chosen by a hash; `documents` keeps only the first that many. A local `dataset` (a path, with the layout that
    `datasets.load_dataset` reads) is kept as `dataset="."` and `files`, because its place is no part of its identity.
    """

    version: ClassVar[int] = 1
    stored: ClassVar[bool] = True

    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    column: str = "text"
    revision: str | None = None
    files: str | None = field(default=None, metadata=IDENTITY_FREE)
    content: str | None = None
    tokenizer: BPE | Pretrained = Pretrained("openai-community/gpt2", 50257)
    held_out: float = 0.02
    documents: int | None = None

    def __post_init__(self) -> None:
        _keep_path_apart(self, "dataset", "files")
        if self.dataset != HERE:
            both = (self.dataset, self.files)
            require((self.dataset is None) != (self.files is None), "Text.dataset, files", both, "give exactly one")
        if self.files is not None:
            require(self.revision is None, "Text.revision", self.revision, "local text has none; leave it out")
        if self.dataset is None:
            require(self.config is None, "Text.config", self.config, "files have none; leave it out")
            require(self.split == "train", "Text.split", self.split, "files have none; leave it out")
        require(0 < self.held_out < 1, "Text.held_out", self.held_out, "use a share of documents in (0, 1)")
        require(self.documents is None or self.documents >= 2, "Text.documents", self.documents, "use at least 2")

    @classmethod
    def local(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The text in a file or directory."""
        return cls(files=os.fspath(path), **options)

    @classmethod
    def stdlib(cls, tokenizer: BPE | Pretrained = BPE(512), **options: Any) -> Self:
        """The running interpreter's standard library without its tests: real code on every machine, about 10 MB."""
        return cls(files=STDLIB, tokenizer=tokenizer, **options)

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab

    @property
    def frame_tokens(self) -> None:
        return None

    def open(self, artifact: Any = None) -> TokenReader:
        """The reader of the token shards in the directory `artifact`."""
        return TokenReader(artifact)

    @property
    def unresolved(self) -> bool:
        """Whether a commit on the hub, of the dataset or of the tokenizer, is still open."""
        return self.tokenizer.unresolved or (self.files is None and not _is_commit(self.revision))

    @property
    def revisions(self) -> dict[str, str | None]:
        """The commits on the hub that this text names."""
        return {"dataset": self.revision, "tokenizer": getattr(self.tokenizer, "revision", None)}

    def with_revisions(self, revisions: dict[str, str | None]) -> Self:
        """The same text at commits that were looked up before."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, Pretrained):
            tokenizer = replace(tokenizer, revision=revisions["tokenizer"])
        return replace(self, revision=revisions["dataset"], tokenizer=tokenizer)

    def resolved(self, network: bool = True) -> Self:
        """The same text with its identity filled in: the content hash of local text or, with `network`, the commit of
        a dataset, and the same for the tokenizer.

        What has its identity already is taken as it is, without a look at files or network. Raises InputError for
        files that are missing, empty or not text, tables without the column, a dataset that cannot be had.
        """
        text = replace(self, tokenizer=self.tokenizer.resolved(network))
        if text.files is None:
            if not network or _is_commit(text.revision):
                return text
            assert text.dataset is not None
            text = replace(text, revision=_commit("dataset", text.dataset, text.revision, "Text.dataset"))
            _stream(text)
            return text
        if text.files != STDLIB:
            text = replace(text, files=os.path.abspath(os.path.expanduser(text.files)))
        if text.content is not None:
            return text
        files = _listing(text)
        content = _content(files)
        if text.dataset == HERE:
            _stream(text)
        elif tables := [f for f in files if f.suffix in TABLE_SUFFIXES]:
            for table in tables:
                next(_texts(text, table), None)
        else:
            names = [f.name for f in _shuffled(files)][: text.documents]
            _check_splits(text, {split: sum(_split(text, n) == split for n in names) for split in SPLITS})
        return replace(text, content=content)


# ---- where text lies: files --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    name: str
    """Relative, with slashes: the same on every machine."""
    path: str
    size: int
    mtime_ns: int
    is_text: bool

    @classmethod
    def at(cls, path: Path, name: str, is_text: bool) -> "_File":
        stat = path.stat()
        return cls(name, str(path), stat.st_size, stat.st_mtime_ns, is_text)

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1].lower()


def _root(text: Text) -> Path:
    assert text.files is not None
    return Path(sysconfig.get_path("stdlib")) if text.files == STDLIB else Path(text.files).expanduser()


def _listing(text: Text) -> list[_File]:
    """The files of a local text that are not empty, sorted by name."""
    root = _root(text)
    require(root.exists(), "Text.files", text.files, "does not exist; name a file, a directory, or 'stdlib'")
    if root.is_file():
        found = [_file(text, root, root.name)]
    else:
        found = []
        for directory, inner, names in os.walk(root):
            hidden = STDLIB_SKIPPED if text.files == STDLIB else {"__pycache__"}
            inner[:] = [d for d in inner if d not in hidden and not d.startswith(".")]
            paths = [Path(directory, n) for n in names if not n.startswith(".")]
            found += [_file(text, p, p.relative_to(root).as_posix()) for p in paths if _wanted(text, p)]
    found = sorted((f for f in found if f.size), key=lambda f: f.name)
    known = " ".join(sorted(TEXT_SUFFIXES | TABLE_SUFFIXES))
    require(bool(found), "Text.files", text.files, f"holds no text; a directory is searched for {known}")
    return found


def _file(text: Text, path: Path, name: str) -> _File:
    """A file of `text`; one that was named itself is taken for text unless its suffix says that it is a table."""
    return _File.at(path, name, is_text=text.dataset is None and path.suffix.lower() != ".parquet")


def _wanted(text: Text, path: Path) -> bool:
    if text.dataset == HERE:
        return path.is_file()
    suffixes = {".py"} if text.files == STDLIB else TEXT_SUFFIXES | TABLE_SUFFIXES
    return path.suffix.lower() in suffixes and path.is_file()


@functools.lru_cache(maxsize=1_000_000)
def _sha256(file: _File) -> str:
    """SHA-256 (hex) of the bytes of `file`; InputError if it should be text and has a NUL byte or is not UTF-8."""
    sha, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    with open(file.path, "rb") as f:
        while chunk := f.read(2**20):
            sha.update(chunk)
            if file.is_text:
                _check_text(file.path, chunk, decoder)
    if file.is_text:
        _check_text(file.path, b"", decoder, final=True)
    return sha.hexdigest()


def _check_text(path: str, chunk: bytes, decoder: codecs.IncrementalDecoder, final: bool = False) -> None:
    require(b"\0" not in chunk, "Text.files", path, "is binary (it has a NUL byte); leave it out")
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as e:
        raise InputError(f"Text.files = {path!r}: is not UTF-8 ({e.reason}); convert it or leave it out") from e


def _content(files: Iterable[_File]) -> str:
    """SHA-256 (hex) over the sorted names of `files` and the hashes of their bytes: the identity of local text."""
    pairs = sorted((f.name, _sha256(f)) for f in files)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _shuffled(files: Iterable[_File]) -> list[_File]:
    """`files` in the order of a hash of their names, so that neighbours in the stream are no neighbours in a tree."""
    return sorted(files, key=lambda f: (named_seed("order", f.name), f.name))


def _texts(text: Text, file: _File) -> Iterator[Document]:
    """The documents of one local file that are not empty."""
    if file.suffix not in TABLE_SUFFIXES:
        yield Document(file.name, Path(file.path).read_bytes().decode("utf-8"))
        return
    rows = _jsonl(file) if file.suffix == ".jsonl" else _parquet(file, text.column)
    for number, row in enumerate(rows, 1):
        yield from _cell(text, row, f"{file.path} row {number}")


def _jsonl(file: _File) -> Iterator[dict[str, Any]]:
    with open(file.path, "rb") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as e:
                    raise InputError(f"Text.files = {file.path!r}: line {number} is not JSON ({e}); mend it") from e
                require(isinstance(row, dict), "Text.files", file.path, f"line {number} is not a JSON object; mend it")
                yield row


def _parquet(file: _File, column: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            _check_column(column, table.schema_arrow.names, file.path)
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as e:
        raise InputError(f"Text.files = {file.path!r}: is not Parquet ({_line(e)}); mend it or leave it out") from e


def _check_column(column: str, names: Iterable[str], where: str) -> None:
    names = list(names)
    require(column in names, "Text.column", column, f"{where} has the columns {', '.join(names)}; name one of them")


def _cell(text: Text, row: dict[str, Any], where: str) -> Iterator[Document]:
    """The document in a row of a table, or nothing if it is empty or null."""
    _check_column(text.column, row, where)
    value = row[text.column]
    kind = type(value).__name__
    require(value is None or isinstance(value, str), "Text.column", text.column, f"{where} holds a {kind}; use strings")
    if value:
        try:
            yield Document(hashlib.sha256(value.encode()).hexdigest()[:16], value)
        except UnicodeEncodeError as e:
            raise InputError(f"Text.column = {text.column!r}: {where} is not Unicode ({e.reason}); mend it") from e


# ---- where text lies: the hub ------------------------------------------------------------------------------------


def _is_commit(revision: str | None) -> bool:
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


@functools.lru_cache(maxsize=1024)
def _commit(kind: str, name: str, revision: str | None, field: str) -> str:
    """The commit hash of `revision` (a branch, a tag, None for the default branch) of a repository on the hub."""
    import huggingface_hub
    from huggingface_hub import errors

    api = huggingface_hub.HfApi()
    try:
        info = api.repo_info(name, repo_type=kind, revision=revision, timeout=10)
        if getattr(info, "gated", False):
            api.auth_check(name, repo_type=kind)
    except errors.GatedRepoError as e:
        raise InputError(f"{field} = {name!r}: is gated; accept its terms on the hub and run `hf auth login`") from e
    except errors.RevisionNotFoundError as e:
        raise InputError(f"{field} = {name!r}: has no revision {revision!r}; name a branch or commit") from e
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as e:
        raise InputError(f"{field} = {name!r}: no such {kind} on the hub (or private); write a path as ./<path>") from e
    except Exception as e:  # connection, time-out, offline mode: the types belong to the client's transport
        why = "give revision=<commit hash>, or local files"
        raise InputError(f"{field} = {name!r}: the hub cannot be reached ({_line(e)}); {why}") from e
    assert info.sha is not None
    return info.sha


def _line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@functools.lru_cache(maxsize=32)
def _stream(text: Text) -> Any:
    """The streaming `datasets.IterableDataset` of a hub or local dataset; InputError if it cannot be had."""
    import datasets

    place = str(_root(text)) if text.dataset == HERE else text.dataset
    try:
        stream = datasets.load_dataset(
            place, name=text.config, split=text.split, revision=text.revision, streaming=True
        )
    except Exception as e:  # a missing split or config, no data files, a loading script, the network
        raise InputError(f"Text.dataset = {place!r}: cannot be loaded ({_line(e)})") from e
    if stream.column_names is not None:
        _check_column(text.column, stream.column_names, str(place))
    return stream


# ---- tokenising, in pure pieces ----------------------------------------------------------------------------------


def parts(text: Text) -> list[Part]:
    """The corpus cut into ordered parts: about 1 MB of files each, or the shards of a dataset.

    With `documents` set, a dataset is one part, because nothing else knows where that many documents end. Raises
    InputError if local text is not what was registered.
    """
    if text.files is not None:
        files = _listing(text)
        _check_unchanged("Text.content", text.content, _content(files), text.files)
    if text.dataset is not None:
        count = 1 if text.documents is not None else _stream(text).num_shards
        return [Part(i, shard=i, shards=count, documents=text.documents) for i in range(count)]
    cut: list[Part] = []
    left = text.documents
    for group in _groups(_shuffled(files)):
        if left == 0:
            break
        part = Part(len(cut), files=tuple((f.name, _sha256(f)) for f in group), documents=left)
        if left is not None:
            left -= sum(1 for _ in documents(text, part))
        cut.append(part)
    return cut


def _groups(files: Iterable[_File]) -> Iterator[list[_File]]:
    group: list[_File] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.size
        if size >= PART_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _check_unchanged(field: str, registered: str | None, now: str, where: str | None) -> None:
    way_out = f"{where} changed since it was registered; put it back, or register the study again"
    require(registered is None or registered == now, field, registered, way_out)


def documents(text: Text, part: Part) -> Iterator[Document]:
    """The documents of `part`, in the one order that they have. Empty ones and nulls are skipped."""
    found = _dataset_documents(text, part) if text.dataset is not None else _file_documents(text, part)
    return islice(found, part.documents)


def _file_documents(text: Text, part: Part) -> Iterator[Document]:
    root = _root(text)
    for name, sha in part.files:
        path = root if root.is_file() else root / name
        require(path.is_file(), "Text.files", str(path), "is not on this machine; use files that every node sees")
        file = _file(text, path, name)
        _check_unchanged("Text.content", sha, _sha256(file), file.path)
        yield from _texts(text, file)


def _dataset_documents(text: Text, part: Part) -> Iterator[Document]:
    stream = _stream(text)
    if part.shards > 1:
        stream = stream.shard(num_shards=part.shards, index=part.shard)
    for number, row in enumerate(stream, 1):
        yield from _cell(text, row, f"shard {part.shard} row {number}")


def _split(text: Text, name: str) -> str:
    """The split of the document `name`: whatever else the corpus holds, so that a corpus can grow."""
    return "validation" if named_seed("held out", name) < text.held_out * 2**63 else "train"


def _check_splits(text: Text, count: dict[str, int]) -> None:
    """InputError unless both splits have a document."""
    require(sum(count.values()) > 0, "Text", text.dataset or text.files, "holds no documents that are not empty")
    for split in SPLITS:
        way_out = (
            f"of {sum(count.values())} documents none falls in the {split} split; use more documents (as rows of a "
            ".jsonl, or as files) or another share"
        )
        require(count[split] > 0, "Text.held_out", text.held_out, way_out)


def train_tokenizer(text: Text) -> str:
    """The tokenizer of `text` as the JSON of the `tokenizers` library: trained on the training split, or loaded.

    Raises InputError if a pretrained one has another vocabulary size than declared, no end-of-text token, or is not
    byte-level (then the bytes that a token stands for are unknown).
    """
    if isinstance(text.tokenizer, Pretrained):
        loaded = text.tokenizer.load()
        _check_pretrained(text.tokenizer, loaded)
        return loaded
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=text.tokenizer.vocab,
        special_tokens=[BPE.end_of_text],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(text), trainer)
    return tokenizer.to_str()


def _training_texts(text: Text) -> Iterator[str]:
    left = BPE_TRAINING_BYTES
    for part in parts(text):
        for document in documents(text, part):
            if _split(text, document.name) == "train":
                yield document.text
                left -= len(document.text.encode())
                if left <= 0:
                    return


def _check_pretrained(named: Pretrained, tokenizer_json: str) -> None:
    name = named.path or named.name
    try:
        tokenizer = _tokenizer(tokenizer_json)
    except Exception as e:  # the library raises bare Exception for JSON that is no tokenizer
        raise InputError(f"Pretrained.name = {name!r}: is not a tokenizer.json ({_line(e)})") from e
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    require(size == named.vocab, "Pretrained.vocab", named.vocab, f"{name} has {size} ids; declare that number")
    if tokenizer.token_to_id(named.end_of_text) is None:
        special = ", ".join(t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special) or "none"
        raise InputError(f"Pretrained.end_of_text = {named.end_of_text!r}: {name} lacks it; special tokens: {special}")
    steps = json.loads(tokenizer_json)
    byte_level = '"ByteLevel"' in json.dumps([steps.get("pre_tokenizer"), steps.get("decoder")])
    require(
        byte_level, "Pretrained.name", name, "is not a byte-level BPE, so bytes cannot be counted; use one, as gpt2"
    )


@functools.lru_cache(maxsize=2)
def _tokenizer(tokenizer_json: str) -> Any:
    """The tokenizer, set to read all text as text: no truncation, and special tokens spelt out are not special."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def token_bytes(tokenizer_json: str, vocab: int) -> Any:
    """UTF-8 bytes that each id stands for, int64 (vocab,): one a character in byte-level BPE, 0 for special tokens."""
    tokenizer = _tokenizer(tokenizer_json)
    out = np.zeros(vocab, np.int64)
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        out[number] = len(token)
    for number, added in tokenizer.get_added_tokens_decoder().items():
        out[number] = 0 if added.special else len(added.content.encode())
    return out


def _dtype(vocab: int) -> Any:
    return np.dtype(np.uint16 if vocab <= 2**16 else np.uint32)


def encode(text: Text, tokenizer_json: str, part: Part) -> dict[str, Any]:
    """The tokens of one part. For each of `SPLITS`: "<split>" uint16 or uint32 (n,), end-of-text after every document;
    "<split>_bytes", UTF-8 bytes; "<split>_texts" uint64 (documents,), a hash of each document's text.
    """
    tokenizer, dtype = _tokenizer(tokenizer_json), _dtype(text.vocab_size)
    end = np.array([tokenizer.token_to_id(text.tokenizer.end_of_text)], dtype)
    tokens: dict[str, list[Any]] = {split: [np.empty(0, dtype)] for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[int]] = {split: [] for split in SPLITS}
    for batch in _batches(documents(text, part)):
        encodings = tokenizer.encode_batch_fast([d.text for d in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            split, data = _split(text, document.name), document.text.encode()
            tokens[split] += [np.array(encoding.ids, dtype), end]
            size[split] += len(data)
            texts[split].append(int.from_bytes(hashlib.sha256(data).digest()[:8], "little"))
    out: dict[str, Any] = {"part": part.index}
    for split in SPLITS:
        out[split] = np.concatenate(tokens[split])
        out[f"{split}_bytes"] = size[split]
        out[f"{split}_texts"] = np.array(texts[split], np.uint64)
    return out


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists of documents of about 1 MB: enough for every core, little enough to hold."""
    batch: list[Document] = []
    size = 0
    for document in found:
        batch.append(document)
        size += len(document.text)
        if size >= PART_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write(text: Text, tokenizer_json: str, encoded: Iterable[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """Write the artifact of `text` to `directory`, from what `encode` gave for its parts, in their order.

    Returns the summary for the manifest; "contamination" counts validation documents whose exact text is in train too.
    Raises InputError if a split has no document.
    """
    dtype = _dtype(text.vocab_size)
    writers = {split: TokenWriter(directory, split, dtype) for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[Any]] = {split: [np.empty(0, np.uint64)] for split in SPLITS}
    for piece in encoded:
        for split in SPLITS:
            writers[split].append(piece[split])
            size[split] += int(piece[f"{split}_bytes"])
            texts[split].append(np.asarray(piece[f"{split}_texts"], np.uint64))
    summary: dict[str, Any] = {}
    found = {split: np.concatenate(texts[split]) for split in SPLITS}
    for split in SPLITS:
        writers[split].close()
        summary[split] = {"tokens": writers[split].tokens, "bytes": size[split], "documents": len(found[split])}
    _check_splits(text, {split: len(found[split]) for split in SPLITS})
    (directory / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    np.save(directory / "token_bytes.npy", token_bytes(tokenizer_json, text.vocab_size))
    contamination = int(np.isin(found["validation"], found["train"]).sum())
    return summary | {"vocab_size": text.vocab_size, "dtype": dtype.name, "contamination": contamination}


def tokenise(text: Text, directory: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the artifact of `text` to `directory` in this process; calls `progress(parts done, parts)`."""
    tokenizer_json = train_tokenizer(text)
    cut = parts(text)

    def encoded() -> Iterator[dict[str, Any]]:
        for part in cut:
            yield encode(text, tokenizer_json, part)
            if progress is not None:
                progress(part.index + 1, len(cut))

    return write(text, tokenizer_json, encoded(), Path(directory))
