"""Copies on this machine of what lies in an object store, and the way there: trees of files, whole or not at all."""

import contextlib
import fcntl
import functools
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from harness.url import Place, Url, UrlError

T = TypeVar("T")


class DifferingError(UrlError):
    """A file that is not as it was written."""

    def __init__(self, line: str, name: str) -> None:
        super().__init__(line)
        self.name = name


WAITS_S = (0.5, 2.0, 5.0)
"""Between the tries of what a lost connection can break."""


def cache(root: Url) -> Path:
    """Where this machine keeps its copies of what lies below `root`: in $NCA_CACHE, or ~/.cache/nca-harness."""
    base = Path(os.environ.get("NCA_CACHE", "~/.cache/nca-harness")).expanduser().resolve()
    return base / hashlib.sha256(root.text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Size and checksum."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def is_as_described(path: Path, what: dict[str, Any]) -> bool:
    return path.stat().st_size == what["bytes"] and sha256(path) == what["sha256"]


def tried(call: Callable[[], T]) -> T:
    """What `call` returns; it is called again, a few times, when the object store cannot be reached."""
    for wait in WAITS_S:
        try:
            return call()
        except UrlError:
            time.sleep(wait)
    return call()


def upload(files: dict[str, Path], to: Url) -> None:
    """Put `files`, by their names below `to`. Raises OSError unless all of them are there with their sizes."""
    for name, path in files.items():
        tried(functools.partial((to / name).put, path))
    there = tried(to.find)
    for name, path in files.items():
        if name not in there or there[name].st_size != path.stat().st_size:
            raise UrlError(f"{to / name}: is not there as it was uploaded")


def fetch(of: Url, files: dict[str, Any], to: Path) -> Path:
    """The directory `to` with the files below `of` that `files` describes; once a machine, whoever asks, and dated when
    it was last asked for.

    Raises OSError where one is missing or differs from its checksum."""
    if to.is_dir():
        with contextlib.suppress(OSError):  # another user's
            os.utime(to)
        return to
    with _alone(to):
        if to.is_dir():
            return to
        part = to.with_name(f".part-{secrets.token_hex(4)}")
        try:
            for name, what in files.items():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                tried(functools.partial((of / name).get, part / name))
                if not is_as_described(part / name, what):
                    raise DifferingError(f"{of / name}: does not match its checksum", name)
            os.replace(part, to)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return to


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """While nobody else on this machine is here for `place`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_name(f".{place.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove(directory: Place) -> None:
    """Remove a directory as far as that can be done."""
    if isinstance(directory, Path):
        shutil.rmtree(directory, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            directory.rmtree()


def clock(directory: Place) -> float:
    """Seconds since 1970 by the clock that dates what is written to `directory`, which a file server or an object store
    may have of its own; by this machine's where it cannot be asked."""
    found = dated(directory)
    return time.time() if found is None else found


def dated(directory: Place) -> float | None:
    """When `directory` says that it is; None where it cannot be asked."""
    probe = directory / f".clock-{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"")
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
    except OSError:
        return None
