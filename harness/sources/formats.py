"""From the formats that text comes in (plain text, JSON Lines, Parquet, rows of a dataset) to documents."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError, require
from harness.sources import first_line
from harness.sources.files import TABLE_SUFFIXES, File


@dataclass(frozen=True)
class Document:
    """One text. `name` decides its split: the file's relative name, or a hash of the text where it has no name."""

    name: str
    text: str


@dataclass
class Dropped:
    """What is read and is no document, counted."""

    empty: int = 0
    """Rows whose text is empty or null."""


def file_documents(file: File, column: str, dropped: Dropped | None = None) -> Iterator[Document]:
    """The documents of one file that are not empty; those of a table stand in `column`. The others are counted in
    `dropped`."""
    if file.suffix not in TABLE_SUFFIXES:
        yield Document(file.name, Path(file.path).read_bytes().decode("utf-8"))
        return
    rows = jsonl(file, "Text.files") if file.suffix == ".jsonl" else _parquet(file, column)
    for number, row in enumerate(rows, 1):
        yield from row_documents(row, column, f"{file.path} row {number}", dropped)


def jsonl(file: File, field: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON Lines; InputError, which names `field`, for a line that is none."""
    with open(file.path, "rb") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as e:
                    raise InputError(f"{field} = {file.path!r}: line {number} is not JSON ({e}); mend it") from e
                require(isinstance(row, dict), field, file.path, f"line {number} is not a JSON object; mend it")
                yield row


def _parquet(file: File, column: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            check_column(column, table.schema_arrow.names, file.path)
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as e:
        raise InputError(
            f"Text.files = {file.path!r}: is not Parquet ({first_line(e)}); mend it or leave it out"
        ) from e


def check_column(column: str, names: Iterable[str], where: str) -> None:
    """InputError unless a table at `where` with the columns `names` has `column`."""
    names = list(names)
    require(column in names, "Text.column", column, f"{where} has the columns {', '.join(names)}; name one of them")


def row_documents(row: dict[str, Any], column: str, where: str, dropped: Dropped | None = None) -> Iterator[Document]:
    """The document in a row of a table, or nothing if it is empty or null."""
    check_column(column, row, where)
    value = row[column]
    kind = type(value).__name__
    require(value is None or isinstance(value, str), "Text.column", column, f"{where} holds a {kind}; use strings")
    if value:
        try:
            yield Document(hashlib.sha256(value.encode()).hexdigest()[:16], value)
        except UnicodeEncodeError as e:
            raise InputError(f"Text.column = {column!r}: {where} is not Unicode ({e.reason}); mend it") from e
    elif dropped is not None:
        dropped.empty += 1
