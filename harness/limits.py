"""What a run may use. When that is used, or the user interrupts the run, no stage is begun any more and those that run
save their state and stop."""

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.errors import require
from harness.progress import LIVE, START
from harness.store import Store
from harness.url import Place

TICK_S = 1.0
"""How often device time is counted."""
TICK_THERE_S = 5.0
"""The same where each stage takes requests to an object store."""
INTERRUPTION = "an interruption"


@dataclass(frozen=True)
class Limit:
    """What a run may use; None = as much as it takes."""

    hours: float | None = None
    """Of the clock."""
    cost: float | None = None
    """Device-hours times their price."""
    price: float | None = None
    """Of a device-hour, in the unit of `cost`."""

    def __post_init__(self) -> None:
        for name, value in (("--max-hours", self.hours), ("--max-cost", self.cost)):
            require(value is None or value >= 0, name, value, "use a number of at least 0")
        if self.cost is not None:
            require((self.price or 0) > 0, "--price", self.price, "--max-cost needs the price of a device-hour")

    def reached(self, hours: float, device_hours: float) -> str | None:
        """The limit that is reached after so much, in words."""
        if self.hours is not None and hours >= self.hours:
            return f"{self.hours:g} h"
        if self.cost is not None and self.price and device_hours * self.price >= self.cost:
            return f"{self.cost:g}, {self.cost / self.price:.3g} device-hours at {self.price:g}"
        return None

    def used(self, hours: float, device_hours: float) -> str | None:
        """How much of each limit is used, for people; None without a limit."""
        parts = []
        if self.hours is not None:
            parts.append(f"{hours:.2f} of {self.hours:g} h")
        if self.cost is not None and self.price:
            parts.append(f"cost {device_hours * self.price:.2f} of {self.cost:g}")
        return ", ".join(parts) or None


class Running(NamedTuple):
    """A stage that this run was told it began."""

    world: int
    """Devices that it was to have."""
    share: float
    """Of each of them; the rest is other stages'."""
    before: Path | None
    """Its newest attempt on this machine before that."""
    since: float
    """Seconds since 1970, by the store's clock."""


class Meter:
    """The clock and, for a limit of cost, the device time of one run; what the meter `after` has counted is of that run
    too. Makes the file `stop` when the limit is reached or the run is interrupted."""

    def __init__(self, limit: Limit, store: Store, stop: Place, after: "Meter | None" = None) -> None:
        self.limit, self.store, self.stop = limit, store, stop
        self.reached: str | None = None if after is None else after.reached
        """What ends the run early, in words: the limit, or INTERRUPTION."""
        self.device_s: float = 0.0 if after is None else after.device_s
        self._counted = time.monotonic()
        self._begun: float = self._counted if after is None else after._begun
        self._running: dict[str, Running] = {}
        self._lock, self._over, self._told = threading.Lock(), threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Meter":
        self._tick()
        if self.limit != Limit():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError):  # a store that cannot be written says so itself
            self.stop.unlink(missing_ok=True)

    def begins(self, address: str, world: int, share: float = 1.0) -> None:
        """A stage begins, on a share of each of `world` devices unless its live line says otherwise; they count from
        its first sign of life, not while it waits for machines."""
        if self.limit.cost is not None:
            running = Running(world, share, self.store.latest_attempt(address), self.store.clock())
            with self._lock:
                self._running[address] = running

    def ends(self, address: str) -> None:
        """A stage ended, in whatever way."""
        if address in self._running:
            self._tick()
            with self._lock:
                self._running.pop(address, None)

    @property
    def interrupted(self) -> bool:
        return self.reached == INTERRUPTION

    def interrupt(self) -> None:
        """End the run as a limit would; waits where the store is away."""
        with self._lock:
            self.reached = self.reached or INTERRUPTION
            self._tell()
        while not self._told and not self._over.wait(TICK_S):
            self._tick()

    def used(self) -> str | None:
        """How much of the limit this run has used, for people; None without a limit."""
        return self.limit.used((time.monotonic() - self._begun) / 3600, self.device_s / 3600)

    def _run(self) -> None:
        while not self._told:
            left = TICK_S if isinstance(self.store.root, Path) else TICK_THERE_S
            if self.limit.hours is not None and self.reached is None:
                left = min(left, max(0.0, self._begun + 3600 * self.limit.hours - time.monotonic()))
            if self._over.wait(left):
                return
            self._tick()

    def _tick(self) -> None:
        with self._lock:
            running = dict(self._running)
        devices = sum(self._devices(address, of) for address, of in running.items())  # asks the store
        with self._lock:
            now = time.monotonic()
            self.device_s += (now - self._counted) * devices
            self._counted = now
            if self.reached is None:
                self.reached = self.limit.reached((now - self._begun) / 3600, self.device_s / 3600)
            self._tell()

    def _tell(self) -> None:
        """Make the file, where it is to be and is not; where the store is away, the next tick does. For who has the
        lock."""
        if self.reached is None or self._told or self._over.is_set():  # nobody would remove it any more
            return
        with contextlib.suppress(OSError):
            self.stop.parent.mkdir(parents=True, exist_ok=True)
            self.stop.write_text(self.reached)
            self._told = True

    def _devices(self, address: str, running: Running) -> float:
        place = self.store.resume(address)
        try:
            if (place / LIVE).stat().st_mtime >= running.since:
                return running.share * int(json.loads((place / LIVE).read_text())["world"])
        except (OSError, ValueError, KeyError):
            pass
        began = self.store.latest_attempt(address) != running.before or self._started(place, running.since)
        return running.share * running.world if began else 0

    def _started(self, place: Place, since: float) -> bool:
        """Whether workers of a stage of an object store were started on any machine."""
        if isinstance(place, Path):
            return False  # their attempt is seen
        try:
            return (place / START).stat().st_mtime >= since
        except OSError:
            return False
