"""The content-addressed store: `<root>/stages/<digest>/<attempt>/` holds everything about a stage, and `DONE` beside it
names the one attempt that counts, with the checksum of every file. Attempts never share a directory and `DONE` is
created exclusively with its content in it, so a stage is either whole or absent, whoever was killed and whenever.

The root is a directory that every node sees, or a URL of an object store. There an attempt is written on the machine
that makes it, uploaded, and then named by one conditional PUT of `DONE`; whoever opens it fetches it once a machine.
"""

import contextlib
import datetime
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import copies
from harness.copies import sha256, tried
from harness.errors import InputError
from harness.url import Place, Url, UrlError, dump, read_many

KNOWN: dict[Place, bytes] = {}
"""What this process has read of published stages in object stores: it never changes, and a request takes its time."""
AT_ONCE = 200
"""Stages of an object store that are read together where not all may be."""
SKEW_S: dict[Place, float] = {}
"""How far a store's clock is ahead of this machine's, as this process found it."""


Kind = Literal["attempt", "checkpoints", "damaged", "run", "copy"]


@dataclass(frozen=True)
class Holding:
    """Something that takes room in a store, or on this machine because of it."""

    kind: Kind
    digest: str
    """Of the stage that it is of; what runs left on this machine has their own names."""
    path: Place
    bytes: int
    changed: float
    """When anything in it changed last, seconds since 1970, by the store's clock."""


@dataclass(frozen=True)
class Store:
    """Where results lie: every node of the cluster sees it."""

    root: Place

    @property
    def scratch(self) -> Place:
        """Resume checkpoints and Ray's own files: needed while a stage runs, no part of the record."""
        return self.root.with_name(self.root.name + ".scratch")

    @property
    def here(self) -> Path:
        """This machine's directory for what belongs to no record: that of Ray and of copies."""
        return copies.cache(self.root) if isinstance(self.root, Url) else Path(self.scratch)

    @property
    def runs(self) -> Path:
        """What runs write on this machine for themselves, a directory each."""
        return self.here / "runs"

    def stage(self, digest: str) -> Place:
        return self.root / "stages" / digest

    def resume(self, digest: str) -> Place:
        return self.scratch / "resume" / digest

    def study(self, name: str) -> Place:
        return self.root / "studies" / name

    def search(self, digest: str) -> Place:
        return self.root / "searches" / digest

    def check(self, needed_bytes: int = 0) -> None:
        """Raise InputError unless the store can be written and has room for `needed_bytes`."""
        if isinstance(self.root, Url):
            self._check_there(self.root)
            return
        try:
            for directory in (self.root, Path(self.scratch)):
                directory.mkdir(parents=True, exist_ok=True)
                probe = directory / f".probe-{secrets.token_hex(4)}"
                probe.write_bytes(b"probe")
                probe.unlink()
        except OSError as e:
            raise InputError(f"store = {str(self.root)!r}: cannot be written ({e.strerror}); choose --store") from e
        self._check_links(self.root)
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise InputError(
                f"store = {str(self.root)!r}: {free / 1e9:.2f} GB are free and this study needs about "
                f"{needed_bytes / 1e9:.2f} GB; make room or choose --store"
            )

    def _check_links(self, root: Path) -> None:
        probe = root / f".probe-{secrets.token_hex(4)}"
        try:
            twice = (create_json(probe, 1), create_json(probe, 2))
        except OSError:
            twice = (False, False)
        finally:
            probe.unlink(missing_ok=True)
        if twice != (True, False):
            raise InputError(
                f"store = {str(root)!r}: its file system has no hard links, by which stages are published whole or not "
                f"at all; choose --store"
            )

    def _check_there(self, root: Url) -> None:
        probe = root / f".probe-{secrets.token_hex(4)}"
        try:
            twice = (probe.create(b"probe"), probe.create(b"another"))
            probe.unlink()
        except FileNotFoundError as e:  # of a PUT
            raise InputError(f"store = {str(root)!r}: there is no such bucket; make it or choose --store") from e
        except UrlError as e:
            raise InputError(str(e).replace(str(probe), str(root))) from e
        if twice != (True, False):
            raise InputError(
                f"store = {str(root)!r}: ignores conditional writes (If-None-Match), so two drivers could overwrite "
                f"each other; use another object store or a directory"
            )

    def exists(self) -> bool:
        """Whether this machine sees the store that a driver checked."""
        if isinstance(self.root, Path):
            return self.root.is_dir()
        try:
            tried(self.root.reach)
        except OSError:
            return False
        return True

    def clock(self) -> float:
        """Seconds since 1970 by the clock that dates the files of this store; whole ones where an object store dates by
        such, so that nothing that is written later is older."""
        if self.root not in SKEW_S and (dated := copies.dated(self.scratch)) is not None:
            SKEW_S[self.root] = dated - time.time()
        now = time.time() + SKEW_S.get(self.root, 0.0)
        return now if isinstance(self.root, Path) else float(int(now))

    def appears(self, digest: str, within_s: float = 5.0) -> bool:
        """Whether the stage is published, allowing for a network file system that shows it late."""
        deadline = time.monotonic() + within_s
        while not self.has(digest):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def begin(self, digest: str) -> Path:
        """A new, empty attempt directory, on this machine."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
        attempt = self._copy(digest, f"{now}-{secrets.token_hex(4)}")
        attempt.mkdir(parents=True)
        return attempt

    def publish(self, digest: str, attempt: Path) -> bool:
        """Make `attempt` the artifact of `digest`. False if another attempt was first; then this one does not count.

        Raises OSError where it cannot be written; then it does not count either, and may be published again."""
        files = {}
        for path in sorted(p for p in attempt.rglob("*") if p.is_file()):
            with open(path, "rb") as f:
                os.fsync(f.fileno())
            files[path.relative_to(attempt).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        done = {"attempt": attempt.name, "files": files, "finished": now()}
        marker = self.stage(digest) / "DONE"
        if isinstance(marker, Url):
            copies.upload({name: attempt / name for name in files}, marker.parent / attempt.name)
        if not create_json(marker, done):
            if isinstance(marker, Url):
                shutil.rmtree(attempt, ignore_errors=True)  # of a directory, `gc` shows it
            return False
        copies.remove(self.resume(digest))
        return True

    def _copy(self, digest: str, attempt: str) -> Path:
        """Where an attempt lies on this machine: in the store, or in the copy of an object store."""
        if isinstance(self.root, Url):
            return copies.cache(self.root) / "stages" / digest / attempt
        return Path(self.stage(digest)) / attempt

    def _done(self, digest: str) -> dict[str, Any] | None:
        """What DONE says; None where it is absent, or not readable."""
        try:
            done = json.loads(self._known(self.stage(digest) / "DONE"))
            return done if isinstance(done["attempt"], str) else None
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def _known(self, place: Place) -> bytes:
        """The bytes of a file of a published stage."""
        if isinstance(place, Path):
            return place.read_bytes()
        if place not in KNOWN:
            KNOWN[place] = tried(place.read_bytes)
        return KNOWN[place]

    def read_ahead(self, digests: Iterable[str], *names: str) -> None:
        """Read DONE and the files `names` of published stages all at once, where each would take a request."""
        if not isinstance(self.root, Url):
            return
        markers = {d: self.root / "stages" / d / "DONE" for d in digests}
        new = [d for d, marker in markers.items() if marker not in KNOWN]
        if new:
            KNOWN.update(read_many(markers[d] for d in self.done(new)).items())
        done = [(d, self._done(d)) for d, marker in markers.items() if marker in KNOWN]
        files = [markers[d].parent / what["attempt"] / name for d, what in done if what is not None for name in names]
        KNOWN.update(read_many(file for file in files if file not in KNOWN).items())

    def has(self, digest: str) -> bool:
        """Whether the stage is published."""
        return self._done(digest) is not None

    def open(self, digest: str) -> Path | None:
        """The attempt that counts, on this machine, or None. It is taken at its word; `damage` reads every byte. What
        has to be fetched from an object store is held against its checksums, and raises OSError if it differs."""
        done = self._done(digest)
        if done is None:
            return None
        place = self.stage(digest) / done["attempt"]
        if isinstance(place, Path):
            return place
        try:
            return copies.fetch(place, done["files"], self._copy(digest, place.name))
        except (UrlError, FileNotFoundError) as e:
            raise UrlError(f"{e}; if it stays so, remove {place.parent / 'DONE'} and `run` makes the stage anew") from e

    def read(self, digest: str, name: str) -> bytes | None:
        """One file of a published stage, without the others; None if it is not published, or has no such file."""
        done = self._done(digest)
        try:
            return None if done is None else self._known(self.stage(digest) / done["attempt"] / name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def damage(self, digest: str) -> list[str]:
        """What is wrong with a published stage, one line a file; empty if every checksum holds. In an object store,
        which checks what it keeps, files are held against their sizes; checksums are, when they are fetched."""
        done, stage = self._done(digest), self.stage(digest)
        if done is None:
            return ["DONE is not readable"] if (stage / "DONE").exists() else []
        files = done.get("files")
        if not isinstance(files, dict):
            return ["DONE names no files"]
        attempt = stage / done["attempt"]
        there = attempt.find() if isinstance(attempt, Url) else None
        wrong = []
        for name, want in files.items():
            path = attempt / name
            if name not in there if there is not None else not Path(path).is_file():
                wrong.append(f"{name} is missing")
                continue
            size = (there[name] if there is not None else path.stat()).st_size
            if size != want["bytes"]:
                wrong.append(f"{name} has {size} bytes instead of {want['bytes']}")
            elif isinstance(path, Path) and sha256(path) != want["sha256"]:
                wrong.append(f"{name} does not match its checksum")
        return wrong

    def damaged(self, digests: Collection[str]) -> dict[str, list[str]]:
        """Those of `digests` that are damaged, and what is wrong with them."""
        if isinstance(self.root, Url):
            there = self.done(digests)
            digests = [d for d in digests if d in there]
            self.read_ahead(digests)
        with ThreadPoolExecutor(8) as pool:
            found = zip(digests, pool.map(self.damage, digests), strict=True)
            return {d: wrong for d, wrong in found if wrong}

    def set_aside(self, digest: str) -> Place:
        """Move a damaged stage out of the way, for a person to look at."""
        aside = self.root / "damaged" / f"{digest}-{secrets.token_hex(4)}"
        stage = self.stage(digest)
        if isinstance(stage, Url) and isinstance(aside, Url):
            stage.move(aside, first="DONE")
            self._forget(stage, digest)
        else:
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(stage), Path(aside))
        return aside

    def starting_with(self, digits: str) -> list[str]:
        """Digests of stages, published or begun, that start with `digits`, in order."""
        return sorted(p.name for p in (self.root / "stages").glob(f"{digits}*") if len(p.name) == 64)

    def done(self, digests: Iterable[str]) -> set[str]:
        """Those of `digests` that are published; in an object store from one listing."""
        if isinstance(self.root, Url):
            there = tried((self.root / "stages").find)
            return {d for d in digests if f"{d}/DONE" in there}
        return {d for d in digests if self.has(d)}

    def manifest(self, digest: str) -> dict[str, Any] | None:
        """What a published stage says of itself; None if it is not published, or damaged."""
        try:
            content = self.read(digest, "manifest.json")
            return None if content is None else json.loads(content)
        except UrlError:
            raise
        except (OSError, ValueError):
            return None

    def begun(self) -> set[str]:
        """Digests of stages of which there is anything, published or not."""
        return {name for place in (self.root / "stages", self.scratch / "resume") for name in _names(place)}

    def latest_attempt(self, digest: str) -> Path | None:
        """The newest attempt on this machine, published or not: what a stage that is running writes to."""
        directory = self._copy(digest, "")
        attempts = sorted(p for p in directory.iterdir() if p.is_dir()) if directory.is_dir() else []
        return attempts[-1] if attempts else None

    def manifests(self, most: int, within_s: float) -> tuple[dict[str, dict[str, Any]], bool]:
        """Manifests of published stages by digest, and whether these are all: reading ends after `most`, or when
        `within_s` seconds are over."""
        found: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + within_s
        digests, step = self.starting_with(""), 1 if isinstance(self.root, Path) else AT_ONCE
        for i in range(0, len(digests), step):
            if len(found) >= most or time.monotonic() > deadline:
                return found, False
            found |= self.manifests_of(digests[i : i + step])
        return found, True

    def manifests_of(self, digests: Iterable[str], *also: str) -> dict[str, dict[str, Any]]:
        """Manifests of those of `digests` that are published and not damaged. In an object store they are read all at
        once, and the files `also` with them."""
        if isinstance(self.root, Url):
            done = self.done(digests := list(digests))
            self.read_ahead(done, "manifest.json", *also)
            digests = [d for d in digests if d in done]
        return {d: manifest for d in digests if (manifest := self.manifest(d)) is not None}

    def registrations(self) -> dict[str, dict[str, Any]]:
        """Every plan that was registered here, earlier ones too, by where it lies. Raises InputError for one that
        cannot be read, since nobody knows what it needs."""
        found = {}
        places: Iterable[Place] = (self.root / "studies").glob("*/points*.json")
        for place in sorted(places, key=str):
            try:
                found[str(place)] = json.loads(place.read_text())
                for stage in found[str(place)]["stages"].values():
                    _ = stage["kind"]
            except UrlError:
                raise
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
                raise InputError(f"{place}: not readable ({e}); remove it if nothing that it names is needed") from e
        return found

    def counts(self, digest: str) -> str | None:
        """The name of the attempt that counts, or None."""
        done = self._done(digest)
        return None if done is None else done["attempt"]

    def published(self, digests: Iterable[str]) -> dict[str, str]:
        """The names of the attempts that count of those of `digests` that are published."""
        if isinstance(self.root, Url):
            digests = self.done(digests)
            self.read_ahead(digests)
        return {d: attempt for d in digests if (attempt := self.counts(d)) is not None}

    def holdings(self) -> Iterator[Holding]:
        """Everything that takes room: attempts, resume checkpoints and what was set aside as damaged; on this machine
        copies of what an object store has, and what runs write."""
        stages, resume, damaged = self.root / "stages", self.scratch / "resume", self.root / "damaged"
        for attempt, files in _trees(stages, "*/*"):
            if len(attempt.parent.name) == 64 and attempt.name != "DONE":
                yield _holding("attempt", attempt.parent.name, attempt, files)
        for place, files in _trees(resume, "*"):
            yield _holding("checkpoints", place.name, place, files)
        for place, files in _trees(damaged, "*"):
            yield _holding("damaged", place.name.partition("-")[0], place, files)
        for place, files in _trees(self.runs, "*"):
            yield _holding("run", place.name, place, files)
        if isinstance(self.root, Url):
            for copy, files in _trees(self.here / "stages", "*/*"):
                yield _holding("copy", copy.parent.name, copy, files)

    def discard(self, holding: Holding) -> None:
        """Remove `holding`. A stage loses DONE before its files, so that it is whole or absent, whoever is killed."""
        stage = self.stage(holding.digest)
        if holding.kind == "attempt" and self.counts(holding.digest) == holding.path.name:
            (stage / "DONE").unlink(missing_ok=True)
        copies.remove(holding.path)
        if holding.kind == "attempt" and isinstance(stage, Url):
            self._forget(stage, holding.digest)
        elif holding.kind == "attempt":
            with contextlib.suppress(OSError):  # other attempts are left
                Path(stage).rmdir()

    def _forget(self, stage: Url, digest: str) -> None:
        """Nothing of the stage is as this machine knows it."""
        for known in [p for p in KNOWN if str(p).startswith(f"{stage}/")]:
            del KNOWN[known]
        shutil.rmtree(self._copy(digest, ""), ignore_errors=True)


def _trees(root: Place, pattern: str) -> Iterator[tuple[Place, list[tuple[int, float]]]]:
    """What lies at `pattern` below `root` and has something below it, with what is known of all its files; in an object
    store from one listing."""
    if isinstance(root, Path):
        for path in sorted(p for p in root.glob(pattern) if p.is_dir()):
            yield path, list(_stats(path))
        return
    depth = pattern.count("/") + 1
    below = sorted((name.split("/"), stat) for name, stat in tried(root.find).items())
    for parts, files in itertools.groupby((b for b in below if len(b[0]) > depth), lambda each: each[0][:depth]):
        yield root / "/".join(parts), [stat for _, stat in files]


def _stats(path: Path) -> Iterator[tuple[int, float]]:
    for each in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):  # it was removed since
            stat = each.stat()
            yield stat.st_size if each.is_file() else 0, stat.st_mtime


def _holding(kind: Kind, digest: str, place: Place, files: Iterable[tuple[int, float]]) -> Holding:
    files = list(files)
    return Holding(kind, digest, place, sum(size for size, _ in files), max((when for _, when in files), default=0.0))


def _names(place: Place) -> Iterable[str]:
    """What lies in `place`."""
    if isinstance(place, Url):
        return [each.name for each in place.glob("*")]
    return os.listdir(place) if place.is_dir() else []


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def create_json(place: Place, value: Any) -> bool:
    """Write `value` as JSON to a file that is not there yet, with its content in it. False, and nothing changed, if it
    is there, whoever was first."""
    if isinstance(place, Url):
        content = dump(value)
        # A PUT whose answer was lost is tried again, and then finds its own object.
        return tried(lambda: place.create(content)) or tried(place.read_bytes) == content
    whole = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    write_json(whole, value)
    try:
        os.link(whole, place)
    except FileExistsError:
        return False
    finally:
        whole.unlink(missing_ok=True)
    return True


def write_json(path: Place, value: Any) -> None:
    """Write `value` whole or not at all, through a name of its own."""
    if isinstance(path, Url):
        return path.write_bytes(dump(value))
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "w") as f:
            json.dump(value, f, indent=1, allow_nan=False)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
