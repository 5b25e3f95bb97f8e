"""What a stage that was given up leaves in the store: why, in one line, and the traceback."""

import re
import traceback
from collections.abc import Iterable
from typing import NamedTuple

from harness import copies
from harness.errors import InputError
from harness.store import Store
from harness.url import Place, Url, UrlError

NAME = "failed.txt"
"""Beside the stage's checkpoints."""
INPUT = f"{InputError.__module__}.{InputError.__name__}: "
"""How the reason begins where the user can mend it; the rest says how."""
STORE = f"{UrlError.__module__}.{UrlError.__name__}: "
"""The same where an object store did not do what it was asked."""
LASTING = (INPUT, f"{copies.DifferingError.__module__}.{copies.DifferingError.__name__}: ", "FileNotFoundError: ")
"""The same of what does not pass by itself."""


class Failure(NamedTuple):
    """Why a stage was given up."""

    reason: str
    """One line."""
    details: tuple[str, ...] = ()
    """The traceback, or what else was written down, by line."""

    def last(self, lines: int) -> list[str]:
        """The end of the details, without empty lines."""
        return [line for line in self.details if line.strip()][-lines:]


def write(store: Store, digest: str, text: str) -> None:
    """Write down that a stage was given up; the first line of `text` is the reason."""
    place = _place(store, digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    copies.tried(lambda: place.write_text(text, "utf-8"))


def read(store: Store, digest: str) -> Failure | None:
    """Why the stage was given up when it was last tried; None if it was not."""
    try:
        return parse(_place(store, digest).read_text("utf-8"))
    except OSError:
        return None


def parse(text: str) -> Failure:
    """What `write` wrote."""
    reason, *details = text.splitlines() or [""]
    return Failure(reason or "it left no reason", tuple(details))


def of_input(text: str) -> bool:
    """Whether what was written down begins with an error that the user can mend."""
    return text.startswith(INPUT)


def clear(store: Store, digests: Iterable[str]) -> None:
    """These stages are tried again."""
    resume = store.scratch / "resume"
    there = copies.tried(resume.find) if isinstance(resume, Url) else None
    for digest in digests:
        if there is None or f"{digest}/{NAME}" in there:
            _place(store, digest).unlink(missing_ok=True)


def describe(error: BaseException) -> str:
    """`error` for `write`."""
    return f"{root_message(error)}\n{''.join(traceback.format_exception(error))}"


def root_message(error: BaseException) -> str:
    """The first error of the chain, in one line, unless one is bad input, which says itself how to mend it; Ray's
    wrappers carry what happened elsewhere as text."""
    text = "".join(traceback.format_exception(error))
    named = [line for line in text.splitlines() if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b.*:", line)]
    own = [line for line in named if not line.startswith(("ray.", "RayTaskError"))]
    said = [line for line in own if line.startswith(INPUT)]
    return (said or own or named or [type(error).__name__])[0]


def of_store(error: BaseException) -> bool:
    """Whether `error` is, or comes of, that an object store is away: it says nothing of what asked it. What the store
    lacks, or has damaged, is no such error."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return any(line.startswith(STORE) for line in lines) and not any(line.startswith(LASTING) for line in lines)


def _place(store: Store, digest: str) -> Place:
    return store.resume(digest) / NAME
