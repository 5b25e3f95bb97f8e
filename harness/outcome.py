"""What became of the stages of a plan."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.store import Store

DIVERGED = "diverged: its loss is not a finite number"


@dataclass
class Outcome:
    """Stages by digest. What is in no set is still to be computed."""

    finished: set[str] = field(default_factory=set)
    computed: set[str] = field(default_factory=set)
    """Those of the finished that this run computed."""
    failed: dict[str, str] = field(default_factory=dict)
    """The reason by digest."""
    blocked: set[str] = field(default_factory=set)
    """Never started, since a stage that they need failed."""

    def settle(self, address: str, status: str) -> None:
        """Take down that a stage was computed, with the status of its manifest."""
        if status == "finished":
            self.finished.add(address)
            self.computed.add(address)
        else:
            self.failed[address] = DIVERGED

    def block(self, needs: Mapping[str, set[str]]) -> None:
        """Block every stage that needs a failed or blocked one; `needs` has parents before children."""
        for address, needed in needs.items():
            if needed & (self.failed.keys() | self.blocked):
                self.blocked.add(address)

    def left(self, stages: Iterable[str]) -> list[str]:
        """Those of `stages` that are neither finished nor failed nor blocked, in their order."""
        return [d for d in stages if d not in self.finished and d not in self.failed and d not in self.blocked]


def standing(needs: Mapping[str, set[str]], store: Store) -> Outcome:
    """Where the store stands before a run of the stages that `needs` names."""
    outcome = Outcome()
    for address, manifest in store.manifests_of(needs).items():
        outcome.settle(address, manifest["status"])
    outcome.computed.clear()
    outcome.block(needs)
    return outcome
