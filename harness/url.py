"""A place in an object store, `s3://bucket/prefix` or `gs://bucket/prefix`, with what the harness uses of pathlib.

An object is whole or absent, and has no rename and no append. What cannot be reached raises OSError, as a disk would.
"""

import contextlib
import datetime
import fnmatch
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import InputError, require

EXTRAS = {"s3": "s3", "gs": "gcs"}
"""The extra of this package that brings what a scheme needs."""
TIMEOUTS = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 1}}
"""Seconds, and tries of one request after the first. An upload counts as reading until it is answered."""
FIRST = {"connect_timeout": 5, "read_timeout": 5, "retries": {"max_attempts": 0}}
"""For the first request of a command: a wrong endpoint is told in seconds."""


class UrlError(OSError):
    """An object store that does not do what is asked of it: one line, for people."""


class Stat(NamedTuple):
    """What is known of an object, as `os.stat` names it."""

    st_size: int
    st_mtime: float
    """By the clock of the object store."""


@dataclass(frozen=True, order=True)
class Url:
    """`text` has no slash at its end."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __fspath__(self) -> str:
        raise TypeError(f"{self.text} is no path of this machine")

    def __truediv__(self, name: "str | Path") -> "Url":
        return Url(f"{self.text}/{name}")

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        return Url(self.text.rpartition("/")[0])

    def with_name(self, name: str) -> "Url":
        return self.parent / name

    def resolve(self) -> "Url":
        return self

    def reach(self) -> None:
        """Return when the bucket has answered. Raises UrlError where it does not, in seconds."""
        with contextlib.suppress(FileNotFoundError), self._reached(FIRST) as fs:
            fs.info(self.text)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: an object store has no directories."""

    def read_bytes(self) -> bytes:
        with self._reached() as fs:
            return fs.cat_file(self.text, **_in_one(self.text))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Whole or not at all; what was there is replaced."""
        with self._reached() as fs:
            fs.pipe_file(self.text, content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def create(self, content: bytes) -> bool:
        """One conditional PUT; False, and nothing changed, if there is such an object already."""
        try:
            with self._reached() as fs:
                fs.pipe_file(self.text, content, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, file: Path) -> None:
        """Upload `file`."""
        with self._reached() as fs:
            fs.put_file(str(file), self.text)

    def get(self, file: Path) -> None:
        """Download to `file`."""
        with self._reached() as fs:
            fs.get_file(self.text, str(file))

    def stat(self) -> Stat:
        with self._reached() as fs:
            return _stat(fs.info(self.text))

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        with self._reached() as fs:
            return fs.exists(self.text)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._reached() as fs:
                fs.rm_file(self.text)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def find(self) -> dict[str, Stat]:
        """Every object below, by its name from here, in order; a thousand a request."""
        try:
            with self._reached() as fs:
                found = fs.find(self.text, detail=True)
                start = len(fs._strip_protocol(self.text)) + 1
                return {name[start:]: _stat(info) for name, info in sorted(found.items()) if len(name) > start}
        except FileNotFoundError:
            return {}

    def glob(self, pattern: str) -> "Iterator[Url]":
        """The names below that match, of objects and of what has objects below it, in order."""
        parts = pattern.split("/")
        names = sorted({tuple(name.split("/")[: len(parts)]) for name in self.find()})
        for name in names:
            if len(name) == len(parts) and all(map(fnmatch.fnmatchcase, name, parts)):
                yield self / "/".join(name)

    def rmtree(self, first: str | None = None) -> None:
        """Remove every object below; that named `first` before the others."""
        names = list(self.find())
        if first in names:
            (self / first).unlink(missing_ok=True)
            names.remove(first)
        if names:
            with contextlib.suppress(FileNotFoundError), self._reached() as fs:
                fs.rm([f"{self.text}/{name}" for name in names])

    def move(self, other: "Url", first: str) -> None:
        """Put every object below under `other` instead; that named `first` goes away before the others."""
        for name in self.find():
            with self._reached() as fs:
                fs.cp_file(f"{self.text}/{name}", f"{other.text}/{name}")
        self.rmtree(first)

    @contextlib.contextmanager
    def _reached(self, timeouts: dict[str, Any] = TIMEOUTS) -> Iterator[Any]:
        """The file system of the scheme; whatever goes wrong with it becomes an OSError."""
        fs = _filesystem(self.text, timeouts)
        try:
            yield fs
        except FileNotFoundError as e:
            if "specified bucket" in str(e).lower():
                raise UrlError(f"store = {self.text!r}: there is no such bucket; make it or choose --store") from e
            # An object store that lacks an object says so in words of its own, but to a HEAD.
            code = getattr(e.__cause__, "response", {}).get("Error", {}).get("Code")
            if code == "404" and not getattr(e.__cause__, "operation_name", "").startswith("Head"):
                raise UrlError(f"store = {self.text!r}: no object store answers there; check the endpoint") from e
            raise
        except FileExistsError:
            raise
        except Exception as e:
            raise UrlError(f"store = {self.text!r}: {_reason(e)}") from e


Place = Path | Url
"""Where something lies: a path, or a place in an object store."""


def place(text: str) -> Place:
    """The path or URL that `text` says. Raises InputError for a scheme that is not known, or a bucket alone."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    require(scheme in EXTRAS, "store", text, f"use a path, or a URL that begins with {' or '.join(_schemes())}")
    bucket, _, prefix = rest.strip("/").partition("/")
    require(bool(bucket and prefix), "store", text, f"name a bucket and a prefix in it: {scheme}://BUCKET/PREFIX")
    return Url(text.rstrip("/"))


def read_many(places: Iterable[Url]) -> dict[Url, bytes]:
    """The content of many objects, read at once; those that are not there or cannot be read now are left out."""
    wanted = list(places)
    if not wanted:
        return {}
    with wanted[0]._reached() as fs:
        found = fs.cat([p.text for p in wanted], on_error="omit", **_in_one(wanted[0].text))
        return {p: found[name] for p in wanted if (name := fs._strip_protocol(p.text)) in found}


def _in_one(text: str) -> dict[str, Any]:
    """Read an object in one request: s3fs would ask for its size first, to cut it into several."""
    return {"max_concurrency": 1} if text.startswith("s3:") else {}


def _schemes() -> Iterator[str]:
    return (f"{scheme}://" for scheme in EXTRAS)


def _filesystem(text: str, timeouts: dict[str, Any]) -> Any:
    """The client of a URL; fsspec keeps one a process."""
    import fsspec

    scheme = text.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = timeouts
    try:
        fs = fsspec.filesystem(scheme, **options)
        if scheme == "s3":
            fs.retries = 2  # `copies.tried` waits longer between the tries of what matters
        return fs
    except ImportError as e:
        raise InputError(
            f"store = {text!r}: needs a package more; pip install 'nca-scaling-harness[{EXTRAS[scheme]}]'"
        ) from e
    except Exception as e:
        raise UrlError(f"store = {text!r}: {_reason(e)}") from e


def _stat(info: dict[str, Any]) -> Stat:
    changed = info.get("LastModified") or info.get("mtime") or info.get("updated") or 0.0
    if isinstance(changed, str):
        changed = datetime.datetime.fromisoformat(changed)
    return Stat(info["size"] or 0, changed.timestamp() if isinstance(changed, datetime.datetime) else changed)


def _reason(error: BaseException) -> str:
    """What went wrong and the way out, in one line."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if "Credential" in kind or "credential" in text.lower():
        return f"no credentials ({text}); set those of the provider, such as $AWS_PROFILE"
    if isinstance(error, PermissionError):
        return f"not allowed ({text}); check the credentials and the rights on the bucket"
    if any(word in kind for word in ("Connect", "Timeout", "Endpoint", "Closed")):
        return f"cannot be reached ({text}); check the network and the endpoint, such as $AWS_ENDPOINT_URL"
    return text or kind


def dump(value: Any) -> bytes:
    """`value` as JSON. Raises ValueError or TypeError for what JSON has not."""
    return json.dumps(value, indent=1, allow_nan=False).encode()
