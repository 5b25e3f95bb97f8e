"""The content-addressed store: `<root>/stages/<digest>/<attempt>/` holds everything about a stage, and `DONE` beside it
names the one attempt that counts, with the checksum of every file. Attempts never share a directory and `DONE` is
created exclusively with its content in it, so a stage is either whole or absent, whoever was killed and whenever.
"""

import datetime
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError


@dataclass(frozen=True)
class Store:
    """A directory that every node of the cluster sees."""

    root: Path

    @property
    def scratch(self) -> Path:
        """Resume checkpoints and Ray's own files: needed while a stage runs, no part of the record."""
        return self.root.with_name(self.root.name + ".scratch")

    def stage(self, digest: str) -> Path:
        return self.root / "stages" / digest

    def resume(self, digest: str) -> Path:
        return self.scratch / "resume" / digest

    def study(self, name: str) -> Path:
        return self.root / "studies" / name

    def check(self, needed_bytes: int = 0) -> None:
        """Raise InputError unless the store can be written and has room for `needed_bytes`."""
        try:
            for directory in (self.root, self.scratch):
                directory.mkdir(parents=True, exist_ok=True)
                probe = directory / f".probe-{secrets.token_hex(4)}"
                probe.write_bytes(b"probe")
                probe.unlink()
        except OSError as e:
            raise InputError(f"store = {str(self.root)!r}: cannot be written ({e.strerror}); choose --store") from e
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise InputError(
                f"store = {str(self.root)!r}: {free / 1e9:.2f} GB are free and this study needs about "
                f"{needed_bytes / 1e9:.2f} GB; make room or choose --store"
            )

    def exists(self) -> bool:
        """Whether this machine sees the store that a driver checked."""
        return self.root.is_dir()

    def appears(self, digest: str, within_s: float = 5.0) -> bool:
        """Whether the stage is published, allowing for a network file system that shows it late."""
        deadline = time.monotonic() + within_s
        while self.open(digest) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def begin(self, digest: str) -> Path:
        """A new, empty attempt directory."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
        attempt = self.stage(digest) / f"{now}-{secrets.token_hex(4)}"
        attempt.mkdir(parents=True)
        return attempt

    def publish(self, digest: str, attempt: Path) -> bool:
        """Make `attempt` the artifact of `digest`. False if another attempt was first; then this one does not count."""
        files = {}
        for path in sorted(p for p in attempt.rglob("*") if p.is_file()):
            with open(path, "rb") as f:
                os.fsync(f.fileno())
            files[path.relative_to(attempt).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        done = {"attempt": attempt.name, "files": files, "finished": now()}
        marker = self.stage(digest) / "DONE"
        whole = attempt.with_name(f".{attempt.name}.done")
        write_json(whole, done)
        try:
            os.link(whole, marker)  # fails if DONE exists, and brings its content with it
        except FileExistsError:
            return False
        finally:
            whole.unlink(missing_ok=True)
        shutil.rmtree(self.resume(digest), ignore_errors=True)
        return True

    def open(self, digest: str) -> Path | None:
        """The attempt that counts, or None. It is taken at its word; `damage` reads every byte."""
        marker = self.stage(digest) / "DONE"
        try:
            return marker.parent / json.loads(marker.read_text())["attempt"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def damage(self, digest: str) -> list[str]:
        """What is wrong with a published stage, one line a file; empty if every checksum holds."""
        attempt = self.open(digest)
        marker = self.stage(digest) / "DONE"
        if attempt is None:
            return ["DONE is not readable"] if marker.exists() else []
        files = json.loads(marker.read_text()).get("files")
        if not isinstance(files, dict):
            return ["DONE names no files"]
        wrong = []
        for name, want in files.items():
            path = attempt / name
            if not path.is_file():
                wrong.append(f"{name} is missing")
            elif path.stat().st_size != want["bytes"]:
                wrong.append(f"{name} has {path.stat().st_size} bytes instead of {want['bytes']}")
            elif sha256(path) != want["sha256"]:
                wrong.append(f"{name} does not match its checksum")
        return wrong

    def set_aside(self, digest: str) -> Path:
        """Move a damaged stage out of the way, for a person to look at."""
        aside = self.root / "damaged" / f"{digest}-{secrets.token_hex(4)}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.stage(digest), aside)
        return aside

    def starting_with(self, digits: str) -> list[str]:
        """Digests of stages, published or begun, that start with `digits`, in order."""
        return sorted(p.name for p in (self.root / "stages").glob(f"{digits}*") if len(p.name) == 64)

    def done(self, digests: Iterable[str]) -> set[str]:
        """Those of `digests` that are published."""
        return {d for d in digests if self.open(d) is not None}

    def manifest(self, digest: str) -> dict[str, Any] | None:
        """What a published stage says of itself; None if it is not published, or damaged."""
        attempt = self.open(digest)
        try:
            return None if attempt is None else json.loads((attempt / "manifest.json").read_text())
        except (OSError, ValueError):
            return None

    def latest_attempt(self, digest: str) -> Path | None:
        """The newest attempt, published or not: what a stage that is running writes to."""
        directory = self.stage(digest)
        attempts = sorted(p for p in directory.iterdir() if p.is_dir()) if directory.is_dir() else []
        return attempts[-1] if attempts else None


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` whole or not at all, through a name of its own."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "w") as f:
            json.dump(value, f, indent=1, allow_nan=False)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
