"""Text that lies on this machine: its files, in order, and the SHA-256 that identifies what they hold."""

import codecs
import functools
import hashlib
import json
import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError, require
from harness.rng import named_seed

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


def keep_path_apart(value: Any, name: str, path: str) -> None:
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
class File:
    """A file of a text as it was found: changed bytes make another value."""

    name: str
    """Relative, with slashes: the same on every machine."""
    path: str
    size: int
    mtime_ns: int
    is_text: bool

    @classmethod
    def at(cls, path: Path, name: str, is_text: bool) -> "File":
        stat = path.stat()
        return cls(name, str(path), stat.st_size, stat.st_mtime_ns, is_text)

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1].lower()


def root(files: str) -> Path:
    """The file or directory that `Text.files` names."""
    return Path(sysconfig.get_path("stdlib")) if files == STDLIB else Path(files).expanduser()


def listing(files: str, dataset: bool) -> list[File]:
    """The files under `files` that are not empty, sorted by name: the text among them or, of a `dataset`, all.

    Raises InputError if there are none.
    """
    place = root(files)
    require(place.exists(), "Text.files", files, "does not exist; name a file, a directory, or 'stdlib'")
    if place.is_file():
        found = [_file(place, place.name, dataset)]
    else:
        found = []
        for directory, inner, names in os.walk(place):
            hidden = STDLIB_SKIPPED if files == STDLIB else {"__pycache__"}
            inner[:] = [d for d in inner if d not in hidden and not d.startswith(".")]
            paths = [Path(directory, n) for n in names if not n.startswith(".")]
            found += [_file(p, p.relative_to(place).as_posix(), dataset) for p in paths if _wanted(files, p, dataset)]
    found = sorted((f for f in found if f.size), key=lambda f: f.name)
    known = " ".join(sorted(TEXT_SUFFIXES | TABLE_SUFFIXES))
    require(bool(found), "Text.files", files, f"holds no text; a directory is searched for {known}")
    return found


def named(files: str, name: str) -> File:
    """The file that `listing` of a text gives as `name`; InputError if this machine lacks it."""
    place = root(files)
    path = place if place.is_file() else place / name
    require(path.is_file(), "Text.files", str(path), "is not on this machine; use files that every node sees")
    return _file(path, name, dataset=False)


def _file(path: Path, name: str, dataset: bool) -> File:
    """A file of a text; one that was named itself is taken for text unless its suffix says that it is a table."""
    return File.at(path, name, is_text=not dataset and path.suffix.lower() != ".parquet")


def _wanted(files: str, path: Path, dataset: bool) -> bool:
    if dataset:
        return path.is_file()
    suffixes = {".py"} if files == STDLIB else TEXT_SUFFIXES | TABLE_SUFFIXES
    return path.suffix.lower() in suffixes and path.is_file()


@functools.lru_cache(maxsize=1_000_000)
def sha256(file: File) -> str:
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


def content_hash(files: Iterable[File]) -> str:
    """SHA-256 (hex) over the sorted names of `files` and the hashes of their bytes: the identity of local text."""
    pairs = sorted((f.name, sha256(f)) for f in files)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def shuffled(files: Iterable[File]) -> list[File]:
    """`files` in the order of a hash of their names, so that neighbours in the stream are no neighbours in a tree."""
    return sorted(files, key=lambda f: (named_seed("order", f.name), f.name))


def check_unchanged(field: str, registered: str | None, now: str, where: str | None) -> None:
    """InputError unless the hash `now` of what lies at `where` is the `registered` one, if any is."""
    way_out = f"{where} changed since it was registered; put it back, or register the study again"
    require(registered is None or registered == now, field, registered, way_out)
