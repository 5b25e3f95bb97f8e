"""How a stage fails: what its ranks write down, and what is said of it in one line."""

import traceback

from harness import failure
from harness.failure import root_message
from harness.specs import Train, digest
from harness.store import Store
from harness.url import Place, Url, UrlError


class StageFailed(RuntimeError):
    """A stage that fails in the same way however often it is tried; the text is the traceback."""


class TryAgain(RuntimeError):
    """An error that may not come again in another process."""


class Replaced(Exception):
    """Workers that no longer count."""


REPLACED = "its workers were replaced by those of another driver"
STOPPED = "it was told to stop"
UNSEEN = "rank "
"""With its number: one that does not see the store."""
NOTHING = "its workers ended and left nothing in the store"


def unseen(store: Store, machine: str) -> Exception:
    """The error that a machine does not see the store: a directory is not mounted there; an object store may be away
    for a while."""
    said = blind(store, machine)
    return UrlError(said) if isinstance(store.root, Url) else StageFailed(said)


def blind(store: Store, machine: str, why: str | None = None) -> str:
    """That a machine does not see the store."""
    return (
        f"store = {str(store.root)!r}: {machine} does not see it{f' ({why})' if why else ''}; "
        f"use a directory that all nodes mount, or a URL that all may read"
    )


def waited_in_vain(error: BaseException) -> bool:
    """Whether the workers' machines did not come in all the time that they were waited for."""
    cause = getattr(error, "controller_failure", None)
    return type(cause).__name__ == "WorkerGroupStartupTimeoutError"


def notes_of(spec: Train, store: Store) -> list[Place]:
    """What ranks wrote down when they failed; the first is of the rank that failed first, and the others lost it."""
    return sorted(store.resume(digest(spec)).glob("error-*.txt"), key=lambda note: note.stat().st_mtime)


def write_note(spec: Train, store: Store, rank: int, error: BaseException, step: int) -> bool:
    """Write down that `rank` failed at committed `step`. Whether it failed there with the same error before, which is
    its own and not an object store's."""
    text = f"{root_message(error)}\n{at(step)}\n{traceback.format_exc()}"
    note = store.resume(digest(spec)) / f"error-{rank}.txt"
    known = note.read_text().splitlines()[:2] if note.exists() else []
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(text)
    return text.splitlines()[:2] == known and not failure.of_store(error)


def at(step: int) -> str:
    return f"at committed step {step}"
