"""What of a store no registered study needs and nobody writes."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.store import Holding, Store

QUIET_S = 24 * 3600.0
"""What is not published, or of no registered study, counts as in use until nothing of it has changed for so long:
machines come back, a stage that waits for one is not abandoned, and a search is not over."""

UNNEEDED = "stages that no registered study has and that nobody has written to for a day"
ATTEMPTS = "attempts that were not published and that nobody has written to for a day"
CHECKPOINTS = "resume checkpoints of stages that are done, or that no registered study has"
DAMAGED = "stages that were set aside as damaged"
STATES = "states of shared runs from which no unfinished stage goes on"
RUNS = "what runs that are over wrote for themselves on this machine"
COPIES = "copies on this machine, of stages in the store, that nobody has asked for for a day"
KINDS = (UNNEEDED, STATES, ATTEMPTS, CHECKPOINTS, DAMAGED, RUNS, COPIES)


@dataclass(frozen=True)
class Garbage:
    """Something that can go, and why."""

    why: str
    """One of `KINDS`."""
    holding: Holding


@dataclass(frozen=True)
class Survey:
    """A store as gc sees it."""

    bytes: int
    """Of everything."""
    studies: int
    """Registered plans, earlier ones of a name too."""
    needed: int
    """Stages that they have."""
    garbage: tuple[Garbage, ...]


def survey(store: Store, quiet_s: float = QUIET_S) -> Survey:
    """What there is, and what of it can go. Raises InputError where a registered plan cannot be read."""
    holdings = list(store.holdings())  # before the plans: what is begun meanwhile is in neither
    plans = store.registrations()
    needed = {digest for plan in plans.values() for digest in plan["stages"]}
    of_stages = [h for h in holdings if h.kind in ("attempt", "checkpoints")]
    published = store.published({*(h.digest for h in of_stages), *needed})
    used = {state for plan in plans.values() for state in states_in_use(plan["stages"], published)}
    states = {d for plan in plans.values() for d, stage in plan["stages"].items() if stage["kind"] == "State"}
    unused = (states & needed) - used
    quiet_since = store.clock() - quiet_s
    written = {h.digest for h in of_stages if h.changed > quiet_since}

    def quiet(holding: Holding, why: str) -> str | None:
        return why if holding.changed <= quiet_since else None

    def reason(holding: Holding) -> str | None:
        digest = holding.digest
        if holding.kind == "damaged":
            return DAMAGED
        if holding.kind == "copy":
            return quiet(holding, COPIES)
        if holding.kind == "run":  # one that lasts may leave its directory alone for days, but not its stages
            return None if written else quiet(holding, RUNS)
        if holding.kind == "attempt" and published.get(digest) == holding.path.name:
            if digest not in needed:  # a search registers no trials that its algorithm suggests
                return quiet(holding, UNNEEDED)
            return STATES if digest in unused else None
        if holding.kind == "attempt":
            return None if digest in written and digest not in published else quiet(holding, ATTEMPTS)
        return quiet(holding, CHECKPOINTS) if digest in published or digest not in needed else None

    found = tuple(Garbage(why, h) for h in holdings if (why := reason(h)) is not None)
    return Survey(sum(h.bytes for h in holdings), len(plans), len(needed), found)


def states_in_use(stages: dict[str, Any], published: Container[str]) -> Iterator[str]:
    """The states from which an unfinished one of the registered `stages` goes on, itself or through a state that is not
    there."""
    unfinished = [d for d, stage in stages.items() if stage["kind"] != "State" and d not in published]
    if any("start" not in stages[d] for d in unfinished):  # registered before plans said it
        yield from (d for d, stage in stages.items() if stage["kind"] == "State")
        return
    while unfinished:
        state = stages.get(unfinished.pop(), {}).get("start")
        if state is not None:
            yield state
            if state not in published:
                unfinished.append(state)


def remove(garbage: Iterable[Garbage], store: Store) -> int:
    """Remove it, and return the bytes; what was registered since it was found stays."""
    garbage, freed = list(garbage), 0
    needed = {digest for plan in store.registrations().values() for digest in plan["stages"]}
    for each in garbage:
        if each.why != UNNEEDED or each.holding.digest not in needed:
            store.discard(each.holding)
            freed += each.holding.bytes
    return freed
