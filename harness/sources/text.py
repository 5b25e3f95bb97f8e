"""Text as a source: local files or a Hugging Face dataset, as ordered documents in two splits.

A `Text` is itself a stage, whose artifact (tokens, which `tokenising` makes) every run on the same text shares. Only
the standard library and NumPy are imported to make and hash one.
"""

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar, Self

from harness.errors import number_fields, require, whole_fields
from harness.rng import named_seed
from harness.sources import hub
from harness.sources.files import (
    HERE,
    STDLIB,
    TABLE_SUFFIXES,
    File,
    check_unchanged,
    content_hash,
    keep_path_apart,
    listing,
    named,
    root,
    sha256,
    shuffled,
)
from harness.sources.formats import Document, Dropped, check_column, file_documents, row_documents
from harness.sources.tokenizer import BPE, Pretrained
from harness.specs import IDENTITY_FREE
from harness.tokens import TokenReader

__all__ = ["BPE", "SPLITS", "Part", "Pretrained", "Text", "check_splits", "documents", "parts", "split_of"]

SPLITS = ("train", "validation")
PART_BYTES = 2**20
ROWS = 256
"""Rows of a dataset that are read at once: as Arrow tables, because rows as dictionaries take several times as long."""
GPT2 = Pretrained("openai-community/gpt2", 50257)
STDLIB_BPE = BPE(512)


@dataclass(frozen=True)
class Text:
    """Documents from a Hugging Face dataset (`Text("Skylion007/openwebtext")`) or from local files, tokenised.

    `files` is a file, or a directory whose files with a known suffix are read: text and source code are one document
    each, `.jsonl` and `.parquet` one a row, in `column`. `files="stdlib"` is the standard library of the running
    interpreter. What lies locally is identified by `content`, a SHA-256 over names and bytes, a dataset on the hub by
    the commit in `revision`; `resolved()` fills them in. `held_out` is the share of documents in the validation split,
    chosen by a hash; `documents` keeps only the first that many. `size` is about how many bytes the corpus has, for an
    estimate of what tokenising it takes; nothing else depends on it. A local `dataset` (a path, with the layout that
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
    tokenizer: BPE | Pretrained = GPT2
    held_out: float = 0.02
    documents: int | None = None
    size: int | None = field(default=None, metadata=IDENTITY_FREE)

    def __post_init__(self) -> None:
        keep_path_apart(self, "dataset", "files")
        if self.dataset != HERE:
            both = (self.dataset, self.files)
            require((self.dataset is None) != (self.files is None), "Text.dataset, files", both, "give exactly one")
        if self.files is not None:
            require(self.revision is None, "Text.revision", self.revision, "local text has none; leave it out")
        if self.dataset is None:
            require(self.config is None, "Text.config", self.config, "files have none; leave it out")
            require(self.split == "train", "Text.split", self.split, "files have none; leave it out")
        number_fields(self, "held_out")
        require(0 < self.held_out < 1, "Text.held_out", self.held_out, "use a share of documents in (0, 1)")
        kinds = isinstance(self.tokenizer, BPE | Pretrained)
        require(kinds, "Text.tokenizer", self.tokenizer, "use BPE(vocab), or Pretrained(name, vocab) as for gpt2")
        if self.documents is not None:
            whole_fields(self, documents=2)
        require(self.size is None or self.size >= 1, "Text.size", self.size, "use bytes, or leave it out")

    @classmethod
    def local(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The text in a file or directory."""
        return cls(files=os.fspath(path), **options)

    @classmethod
    def stdlib(cls, tokenizer: BPE | Pretrained = STDLIB_BPE, **options: Any) -> Self:
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
    def unresolved(self) -> tuple[str, ...]:
        """Names of what has its commit on the hub still open: the dataset, the tokenizer."""
        dataset = () if self.files is not None or hub.is_commit(self.revision) else (str(self.dataset),)
        return (*dataset, *self.tokenizer.unresolved)

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
            if not network or hub.is_commit(text.revision):
                return text
            assert text.dataset is not None
            text = replace(text, revision=hub.commit("dataset", text.dataset, text.revision, "Text.dataset"))
            _stream(text)
            return text
        place = text.files if text.files == STDLIB else os.path.abspath(os.path.expanduser(text.files))
        text = replace(text, files=place)
        if text.content is not None:
            return text
        files = listing(place, dataset=text.dataset == HERE)
        content = content_hash(files)
        if text.dataset == HERE:
            _stream(text)
            return replace(text, content=content)
        if tables := [f for f in files if f.suffix in TABLE_SUFFIXES]:
            for table in tables:
                next(file_documents(table, text.column), None)
        else:
            names = [f.name for f in shuffled(files)][: text.documents]
            check_splits(text, {split: sum(split_of(text, n) == split for n in names) for split in SPLITS})
        return replace(text, content=content, size=text.size or sum(f.size for f in files))


@functools.lru_cache(maxsize=32)
def _stream(text: Text) -> Any:
    """The streaming `datasets.IterableDataset` of a hub or local dataset; InputError if it cannot be had."""
    place = str(root(text.files)) if text.files is not None else text.dataset
    assert place is not None
    stream = hub.stream(place, text.config, text.split, text.revision)
    if stream.column_names is not None:
        check_column(text.column, stream.column_names, place)
    return stream


def split_of(text: Text, name: str) -> str:
    """The split of the document `name`: whatever else the corpus holds, so that a corpus can grow."""
    return "validation" if named_seed("held out", name) < text.held_out * 2**63 else "train"


def check_splits(text: Text, count: dict[str, int]) -> None:
    """InputError unless both splits have a document, by the `count` of documents in each."""
    require(sum(count.values()) > 0, "Text", text.dataset or text.files, "holds no documents that are not empty")
    for split in SPLITS:
        way_out = (
            f"of {sum(count.values())} documents none falls in the {split} split; use more documents (as rows of a "
            ".jsonl, or as files) or another share"
        )
        require(count[split] > 0, "Text.held_out", text.held_out, way_out)


@dataclass(frozen=True)
class Part:
    """A piece of a corpus that one worker tokenises: some files (relative name, SHA-256), or one shard of a dataset."""

    index: int
    files: tuple[tuple[str, str], ...] = ()
    shard: int = 0
    shards: int = 1
    documents: int | None = None


def parts(text: Text) -> list[Part]:
    """The corpus cut into ordered parts: about 1 MB of files each, or the shards of a dataset.

    With `documents` set, a dataset is one part, because nothing else knows where that many documents end. Raises
    InputError if local text is not what was registered.
    """
    if text.files is not None:
        files = listing(text.files, dataset=text.dataset == HERE)
        check_unchanged("Text.content", text.content, content_hash(files), text.files)
    if text.dataset is not None:
        count = 1 if text.documents is not None else _stream(text).num_shards
        return [Part(i, shard=i, shards=count, documents=text.documents) for i in range(count)]
    cut: list[Part] = []
    left = text.documents
    for group in _groups(shuffled(files)):
        if left == 0:
            break
        part = Part(len(cut), files=tuple((f.name, sha256(f)) for f in group), documents=left)
        if left is not None:
            left -= sum(1 for _ in documents(text, part))
        cut.append(part)
    return cut


def _groups(files: Iterable[File]) -> Iterator[list[File]]:
    group: list[File] = []
    size = 0
    for file in files:
        group.append(file)
        size += file.size
        if size >= PART_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def documents(text: Text, part: Part, dropped: Dropped | None = None) -> Iterator[Document]:
    """The documents of `part`, in the one order that they have. Empty ones and nulls are skipped, and counted in
    `dropped`. Raises InputError for a table without the column, or one that is not of the dataset's schema."""
    read = _dataset_documents if text.dataset is not None else _local_documents
    return islice(read(text, part, dropped), part.documents)


def _local_documents(text: Text, part: Part, dropped: Dropped | None) -> Iterator[Document]:
    assert text.files is not None
    for name, sha in part.files:
        file = named(text.files, name)
        check_unchanged("Text.content", sha, sha256(file), file.path)
        yield from file_documents(file, text.column, dropped)


def _dataset_documents(text: Text, part: Part, dropped: Dropped | None) -> Iterator[Document]:
    stream = _stream(text)
    if part.shards > 1:
        stream = stream.shard(num_shards=part.shards, index=part.shard)
    number = 0
    for table in hub.tables(text.files or text.dataset or "", stream, ROWS):
        check_column(text.column, table.column_names, f"shard {part.shard} row {number + 1}")
        for value in table.column(text.column).to_pylist():
            number += 1
            yield from row_documents({text.column: value}, text.column, f"shard {part.shard} row {number}", dropped)
