"""What a stage tells while it runs and a watcher reads: the newest live line, and the rows of its curve so far.

In a directory both are files that grow. An object store gets an object a row, in a thread of its own: a step never
waits for the network, and what cannot be sent is sent later or, if it is a live line, never."""

import contextlib
import functools
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness import copies, failure, resume
from harness.failure import Failure
from harness.store import Store, write_json
from harness.url import Place, Url, dump, read_many

LIVE = "live.json"
START = "start.json"
"""The newest start of workers that was counted."""
PARTS: dict[Url, bytes] = {}
"""What this process has read of curves of running stages in object stores."""
TELL_S = 1.0
"""Between two live lines of a stage that counts."""
SEND_EVERY_S = 2.0
"""Between two rounds of sending to an object store."""
SEND_AGAIN_S = 10.0
"""After a round that failed."""

Count = Callable[[int, int], None]
"""(items done, items): called by a stage as it gets on."""


class Teller:
    """Rank 0's end: `attempt` is its attempt directory, `directory` is where the stage's checkpoints lie."""

    def __init__(self, directory: Place, attempt: Path) -> None:
        self.directory, self.attempt = directory, attempt
        self.rows_told = 0
        self.outbox = Outbox() if isinstance(directory, Url) else None

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """Append to the curve."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with open(self.attempt / "curve.jsonl", "a") as f:
            f.write(text)
        if self.outbox is not None and isinstance(self.directory, Url) and rows:
            self.rows_told += len(rows)
            part = self.directory / "curve" / self.attempt.name / f"{self.rows_told:06d}.jsonl"
            self.outbox.send(part, text.encode())

    def live(self, line: dict[str, Any]) -> None:
        """Replace the live line. A full disk says nothing: the next line says it, where there is room for one."""
        if self.outbox is not None and isinstance(self.directory, Url):
            self.outbox.send(self.directory / LIVE, dump(line))
            return
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True)
            write_json(self.directory / LIVE, line)

    def forget(self) -> None:
        """Nobody works on the stage any more; nothing follows."""
        self.close()
        with contextlib.suppress(OSError):
            (self.directory / LIVE).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing follows."""
        if self.outbox is not None:
            self.outbox.close()


@contextlib.contextmanager
def counting(teller: Teller, world: int = 1) -> Iterator[Count]:
    """Tell of a stage that counts what it has done, parts of a text or problems, in `world` processes while the body
    runs, by what this gives. One item may take long, so a thread says again and again that the stage runs."""
    line: dict[str, Any] = {"world": world}
    over = threading.Event()

    def tell() -> None:
        while True:
            teller.live(dict(line))
            if over.wait(TELL_S):
                return

    def count(done: int, of: int) -> None:
        line["items"] = [done, of]

    thread = threading.Thread(target=tell, daemon=True, name="counting")
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()
        teller.forget()


class Outbox:
    """Objects on their way: the newest content of each, sent in rounds by one thread."""

    def __init__(self) -> None:
        self.waiting: dict[Url, bytes] = {}
        self.changed, self.closed = threading.Condition(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name="telling")
        self.thread.start()

    def send(self, place: Url, content: bytes) -> None:
        with self.changed:
            self.waiting[place] = content
            self.changed.notify()

    def close(self) -> None:
        """Give up what was not sent, and return when nothing more is being sent."""
        self.closed.set()
        with self.changed:
            self.changed.notify()
        self.thread.join(timeout=30)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.closed.is_set())
                taken, self.waiting = self.waiting, {}
            failed = {}
            for place, content in taken.items():
                if self.closed.is_set():
                    return
                try:
                    place.write_bytes(content)
                except Exception:  # noqa: BLE001 whatever it is, training goes on untold
                    failed[place] = content
            with self.changed:
                self.waiting = failed | self.waiting
            if self.closed.wait(SEND_AGAIN_S if failed else SEND_EVERY_S):
                return


class Rows(NamedTuple):
    """A curve as far as it goes."""

    version: tuple[Any, ...]
    """Another one if the curve is."""
    read: Callable[[], str]
    """Its lines; the last one may be half written. Raises OSError."""


class Told(NamedTuple):
    """What the store says of a stage."""

    manifest: dict[str, Any] | None = None
    """If it is published; then the rest but `rows` is left out."""
    rows: Rows | None = None
    live: dict[str, Any] | None = None
    """The newest live line."""
    live_age_s: float = math.inf
    failed: Failure | None = None
    failed_age_s: float = math.inf
    step: int = 0
    """Of the newest checkpoint, by its name alone: to hold it to its checksums takes time."""
    begun: float | None = None
    """When the newest attempt began or told its last row, seconds since 1970, by the store's clock."""


def told(store: Store, digests: Iterable[str]) -> Callable[[str], Told]:
    """What every stage of `digests` tells now: read together where each would take requests, else when it is asked for.
    That raises OSError while files come late."""
    if isinstance(store.root, Url):
        return _told_there(store, list(digests)).__getitem__
    begun = store.begun()
    return lambda digest: _told_here(store, digest) if digest in begun else Told()


def _told_here(store: Store, digest: str) -> Told:
    counts = store.counts(digest)
    if counts is not None:
        attempt = Path(store.stage(digest)) / counts
        manifest = _json((attempt / "manifest.json").read_text)
        if manifest is not None:
            return Told(manifest, _rows_here(attempt))
    newest, place = store.latest_attempt(digest), Path(store.resume(digest))
    kept = next(resume.newest_first(place), None)
    return Told(
        rows=None if newest is None else _rows_here(newest),
        live=_json((place / LIVE).read_text),
        live_age_s=_age(place / LIVE, store),
        failed=failure.read(store, digest),
        failed_age_s=_age(place / failure.NAME, store),
        step=0 if kept is None else resume.step_of(kept.name),
        begun=None if newest is None else newest.stat().st_mtime,
    )


def _rows_here(attempt: Path) -> Rows | None:
    path = attempt / "curve.jsonl"
    try:
        now = path.stat()
    except OSError:
        return None
    return Rows((str(path), now.st_size, now.st_mtime_ns), path.read_text)


def _age(path: Path, store: Store) -> float:
    try:
        return store.clock() - path.stat().st_mtime
    except OSError:
        return math.inf


def _told_there(store: Store, digests: list[str]) -> dict[str, Told]:
    """From two listings, and one request for each stage that tells something."""
    published = store.manifests_of(digests, "curve.jsonl")
    found = {d: Told(manifest, _rows_there(store, d, manifest)) for d, manifest in published.items()}
    wanted = [d for d in digests if d not in published]
    place = store.scratch / "resume"
    assert isinstance(place, Url)
    files: dict[str, dict[str, float]] = {d: {} for d in wanted}
    for name, stat in copies.tried(place.find).items() if wanted else ():
        digest, _, rest = name.partition("/")
        if digest in files:
            files[digest][rest] = stat.st_mtime
    said = {d: [name for name in (LIVE, failure.NAME) if name in files[d]] for d in wanted}
    content = read_many(place / d / name for d, names in said.items() for name in names)
    for d in wanted:
        found[d] = _one_there(place / d, files[d], content, store.clock())
    return found


def _one_there(place: Url, files: Mapping[str, float], content: Mapping[Url, bytes], now: float) -> Told:
    """`files` of the stage below `place`, by their times of change."""
    parts = [name for name in files if name.startswith("curve/")]
    newest = max(parts, key=lambda name: (files[name], name), default=None)
    steps = [name for name in files if name.startswith("step-") and name.endswith("/state.json")]
    failed = content.get(place / failure.NAME)
    rows = None
    if newest is not None:
        attempt = newest.rpartition("/")[0]
        names = tuple(sorted(name for name in parts if name.startswith(f"{attempt}/")))
        rows = Rows((str(place), *names), functools.partial(_joined, tuple(place / name for name in names)))
    return Told(
        rows=rows,
        live=_json(lambda: content[place / LIVE]) if place / LIVE in content else None,
        live_age_s=now - files.get(LIVE, -math.inf),
        failed=None if failed is None else failure.parse(failed.decode()),
        failed_age_s=now - files.get(failure.NAME, -math.inf),
        step=max(map(resume.step_of, steps), default=0),
        begun=None if newest is None else files[newest],
    )


def _rows_there(store: Store, digest: str, manifest: Mapping[str, Any]) -> Rows | None:
    """The curve of a published stage."""
    content = store.read(digest, "curve.jsonl") if "recipe" in manifest.get("spec", {}) else None
    return None if content is None else Rows((str(store.stage(digest)), len(content)), content.decode)


def _joined(parts: tuple[Url, ...]) -> str:
    """The rows that were told one after another. A part never changes, and is read once."""
    PARTS.update(read_many(part for part in parts if part not in PARTS))
    if missing := [part for part in parts if part not in PARTS]:
        raise OSError(f"{missing[0]}: not there any more")
    return b"".join(PARTS[part] for part in parts).decode()


def _json(read: Callable[[], str | bytes]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(read())
        return found
    except (OSError, ValueError):
        return None
