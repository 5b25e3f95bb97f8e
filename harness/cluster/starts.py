"""The newest start of the workers of a stage, on disk: how often they were started without getting further, and which
workers count.

The first tells a stage that dies every time from one that merely loses machines: on spot machines a long stage dies
often, and each time a little further on. The second stops workers that were replaced and do not know it, since their
machine was cut off, or since another driver on the same store runs the stage."""

import contextlib
import json
import secrets
from dataclasses import asdict, dataclass

from harness import copies
from harness.progress import LIVE, START
from harness.store import write_json
from harness.url import Place

LIMIT = 5
"""Starts at one step, without a checkpoint in between, after which a stage gives up."""
ABANDONED_S = 180.0
"""Workers that neither started nor wrote a live line for so long are gone."""


@dataclass(frozen=True)
class Start:
    """One start of the workers of a stage."""

    run: str
    """The driver's run of the stage that started them; a new one counts from 1."""
    step: int
    """The committed step that they go on from."""
    count: int
    """Starts at this step so far, this one included."""
    world: int
    token: str
    """Unlike that of any other start."""

    @property
    def one_too_many(self) -> bool:
        return self.count > LIMIT


def begin(directory: Place, run: str, step: int, world: int) -> Start:
    """Count a start of `world` workers at committed `step`, in `directory`. Rank 0 calls it, and tells the others."""
    before, count = last(directory), 1
    if before is not None and (before.run, before.step) == (run, step):
        count = before.count + (world <= before.world)  # more workers mean that machines came, not that one died
    start = Start(run, step, count, world, secrets.token_hex(8))
    directory.mkdir(parents=True, exist_ok=True)
    write_json(_record(directory), asdict(start))
    return start


def last(directory: Place) -> Start | None:
    """The newest start that was counted in `directory`."""
    try:
        return Start(**json.loads(_record(directory).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def replaced(directory: Place, token: str) -> bool:
    """Whether the workers of another start took the place of those of `token`."""
    newest = last(directory)
    return newest is not None and newest.token != token


def abandoned(directory: Place) -> bool:
    """Whether no workers work on the stage of `directory`: by the clock that dates its files, whoever wrote them."""
    newest = 0.0
    for file in (_record(directory), directory / LIVE):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, file.stat().st_mtime)
    return newest < copies.clock(directory) - ABANDONED_S


def _record(directory: Place) -> Place:
    return directory / START
