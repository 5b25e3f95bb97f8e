"""Rows of a table as a value: a split of a Hugging Face dataset, or local JSON Lines and Parquet files.

Only the standard library is imported to make and hash one.
"""

import os
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from harness.errors import InputError, require
from harness.sources import first_line, hub
from harness.sources.files import (
    HERE,
    TABLE_SUFFIXES,
    File,
    check_unchanged,
    content_hash,
    keep_path_apart,
    listing,
    root,
)
from harness.sources.formats import jsonl
from harness.specs import IDENTITY_FREE


@dataclass(frozen=True)
class Rows:
    """The rows of `split` of a dataset on the hub (`Rows("openai/gsm8k", ("main",))`), in its order, those of one
    configuration after the other; or of local `files`: one .jsonl or .parquet file, or a directory of them by name.

    What lies locally is identified by `content`, a SHA-256 over names and bytes, a dataset on the hub by the commit in
    `revision`; `resolved()` fills them in. A local `dataset` (a path) is kept as `dataset="."` and `files`, because its
    place is no part of its identity.
    """

    version: ClassVar[int] = 1

    dataset: str | None = None
    configs: tuple[str, ...] = ()
    split: str = "train"
    revision: str | None = None
    files: str | None = field(default=None, metadata=IDENTITY_FREE)
    content: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "configs", tuple(self.configs))
        keep_path_apart(self, "dataset", "files")
        if self.dataset != HERE:
            both = (self.dataset, self.files)
            require((self.dataset is None) != (self.files is None), "Rows.dataset, files", both, "give exactly one")
        if self.files is not None:
            require(self.revision is None, "Rows.revision", self.revision, "local rows have none; leave it out")
        if self.dataset is None:
            require(self.configs == (), "Rows.configs", self.configs, "files have none; leave them out")
            require(self.split == "train", "Rows.split", self.split, "files have none; leave it out")

    @classmethod
    def local(cls, path: str | os.PathLike[str]) -> Self:
        """The rows in a file, or in the tables of a directory."""
        return cls(files=os.fspath(path))

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The name of the dataset if its commit on the hub is still open."""
        return () if self.dataset in (None, HERE) or hub.is_commit(self.revision) else (str(self.dataset),)

    @property
    def revisions(self) -> dict[str, str | None]:
        """The commit on the hub that these rows name."""
        return {"dataset": self.revision}

    def with_revisions(self, revisions: dict[str, str | None]) -> Self:
        """The same rows at a commit that was looked up before."""
        return replace(self, revision=revisions["dataset"])

    def resolved(self, network: bool = True) -> Self:
        """The same rows with the content hash of local files or, with `network`, the commit of a dataset filled in.

        Raises InputError for files that are missing or hold no table, and a dataset that cannot be had.
        """
        if self.files is None:
            if not (network and self.unresolved):
                return self
            assert self.dataset is not None
            return replace(self, revision=hub.commit("dataset", self.dataset, self.revision, "Rows.dataset"))
        rows = replace(self, files=os.path.abspath(os.path.expanduser(self.files)))
        return rows if rows.content is not None else replace(rows, content=content_hash(rows._files()))

    def read(self) -> Iterator[dict[str, Any]]:
        """The rows, in their order. Raises InputError if they cannot be read, or are not those that were registered."""
        if self.files is not None:
            check_unchanged("Rows.content", self.content, content_hash(self._files()), self.files)
        if self.dataset is None:
            for file in self._files():
                yield from jsonl(file, "Rows.files") if file.suffix == ".jsonl" else _parquet(file)
            return
        place = str(root(self.files)) if self.files is not None else self.dataset
        for config in self.configs or (None,):
            yield from hub.stream(place, config, self.split, self.revision)

    def _files(self) -> list[File]:
        assert self.files is not None
        found = listing(self.files, dataset=self.dataset == HERE)
        if self.dataset == HERE:
            return found
        tables = [f for f in found if f.suffix in TABLE_SUFFIXES]
        require(bool(tables), "Rows.files", self.files, f"holds no table; use {' or '.join(sorted(TABLE_SUFFIXES))}")
        return tables


def _parquet(file: File) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as e:
        raise InputError(f"Rows.files = {file.path!r}: is not Parquet ({first_line(e)}); mend it") from e


@dataclass(frozen=True)
class Template:
    """Text with the fields of a row in it, written as for `str.format`: "Question: {question}", "{targets[0]}"."""

    text: str

    def __post_init__(self) -> None:
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None]
        except ValueError as e:
            raise InputError(f"Template.text = {self.text!r}: {e}; write braces that are text twice") from e
        plain = all(name.partition("[")[0].isidentifier() and "." not in name for name in names)
        require(plain and bool(names), "Template.text", self.text, "name fields of the row, as {question}")

    def fill(self, row: dict[str, Any], where: str = "a row") -> str:
        """The text of `row`. Raises InputError, which names `where`, if it lacks a field."""
        try:
            return self.text.format_map(row)
        except (KeyError, IndexError, TypeError) as e:
            has = ", ".join(row)
            raise InputError(f"Template.text = {self.text!r}: {where} lacks {e}; it has the fields {has}") from e


def field_of(row: dict[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """The field `name` of `row`, which is to be a `kind`; else InputError."""
    require(name in row, "field", name, f"{where} has the fields {', '.join(row)}; name one of them")
    kinds: Iterable[type] = kind if isinstance(kind, tuple) else (kind,)
    way_out = f"{where} holds a {type(row[name]).__name__}; use {' or '.join(k.__name__ for k in kinds)}"
    require(isinstance(row[name], kind), "field", name, way_out)
    return row[name]
