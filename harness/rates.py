"""How fast a device trains, for hours and money: given, measured by stages of the same store, or assumed. How
fast text is tokenised is in `text_rates`."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness import text_rates
from harness.specs import Stage, Train

ASSUMED_TFLOPS = 400.0
"""TFLOP/s that a device sustains where nothing is known: about 40 % of a recent GPU's bfloat16 peak."""
OVERHEAD_S = 10.0
"""Device-seconds a stage takes beyond its training steps (set-up, evaluation) where they were not measured."""
FARTHEST = 8.0
"""A rate holds for models up to so many times larger or smaller than the one that it was measured on."""
BUSY = ("train_s", "wait_s", "checkpoint_s")
"""What grows with a stage's tokens; the rest of its time is counted as overhead."""


@dataclass(frozen=True)
class Rate:
    """Of one device."""

    flops_per_s: float
    overhead_s: float = OVERHEAD_S
    """Device-seconds a stage beyond its steps."""

    def seconds(self, flops: float) -> float:
        """Device-seconds of a stage of so many training FLOPs."""
        return flops / self.flops_per_s + self.overhead_s


Size = tuple[str, int]
"""Precision and parameters of the blocks."""


@dataclass(frozen=True)
class Rates:
    """The rate of every stage, and where it is from."""

    given: Rate | None = None
    measured: dict[Size, Rate] = field(default_factory=dict)
    hardware: str = ""
    """What the measured stages ran on."""
    count: int = 0
    """How many stages were measured."""
    text: text_rates.TextRate | None = None
    """Of tokenising."""

    def of(self, stage: Train) -> Rate:
        """The rate given, else that of the measured model nearest in size at the same precision, else the assumed."""
        return self.given or self._nearest(stage) or Rate(ASSUMED_TFLOPS * 1e12)

    def _nearest(self, stage: Train) -> Rate | None:
        def distance(size: Size) -> float:
            return abs(math.log(size[1] / stage.model.body_params))

        near = [size for size in self.measured if size[0] == stage.recipe.precision]
        best = min(near, key=distance, default=None)
        return self.measured[best] if best is not None and distance(best) <= math.log(FARTHEST) else None

    def hours(self, stages: dict[str, Stage], starts: dict[str, str]) -> dict[str, float]:
        """Device-hours of each training stage by digest, from the state in `starts` that it goes on from."""
        found = {}
        for address, stage in stages.items():
            if isinstance(stage, Train):
                before = stages.get(starts.get(address, ""))
                flops = stage.flops - (before.flops if before is not None else 0)
                found[address] = self.of(stage).seconds(flops) / 3600
        return found

    def said(self, stages: Iterable[Stage]) -> str:
        """Where the rates of `stages` are from, in words."""
        if self.given is not None:
            return f"at the {_span([self.given])} that were given"
        trains = [s for s in stages if isinstance(s, Train)]
        rates = [self._nearest(s) for s in trains]
        known = [r for r in rates if r is not None]
        assumed = _span([Rate(ASSUMED_TFLOPS * 1e12)])
        if not known:
            why = "no stage of like size in the store" if self.count else "nothing is measured yet"
            return f"at {assumed}, which is assumed ({why}; or give --tflops)"
        said = f"at {_span(known)}, measured on {self.count} stages of this store ({self.hardware})"
        rest = len(rates) - len(known)
        return said + (f"; for {rest} stages of other sizes {assumed} is assumed (or give --tflops)" if rest else "")


def _span(rates: list[Rate]) -> str:
    def span(values: list[float]) -> str:
        least, most = f"{min(values):.3g}", f"{max(values):.3g}"
        return least if least == most else f"{least} to {most}"

    speed = span([r.flops_per_s / 1e12 for r in rates])
    return f"{speed} TFLOP/s a device and {span([r.overhead_s for r in rates])} s a stage"


def given(tflops: float, manifests: Iterable[dict[str, Any]] = ()) -> Rates:
    """The rate that a user says; that of tokenising is still from `manifests`."""
    return Rates(given=Rate(tflops * 1e12), text=text_rates.measured(manifests))


def measured(manifests: Iterable[dict[str, Any]]) -> Rates:
    """Rates of the stages that `manifests` tell of, of those on the hardware that ran the newest of them: where a study
    ran last is where it is taken to run next."""
    manifests = list(manifests)
    text = text_rates.measured(manifests)
    trained = [m for m in manifests if _tells(m)]
    if not trained:
        return Rates(text=text)
    hardware = _hardware(max(trained, key=lambda m: str(m.get("started", ""))))
    groups: dict[Size, list[dict[str, Any]]] = {}
    for manifest in trained:
        if _hardware(manifest) == hardware:
            size = (manifest["spec"]["recipe"]["precision"], manifest["params_body"])
            groups.setdefault(size, []).append(manifest)
    rates = {size: _rate(group) for size, group in groups.items()}
    return Rates(measured=rates, hardware=hardware, count=sum(len(g) for g in groups.values()), text=text)


def _tells(manifest: dict[str, Any]) -> bool:
    """Whether `manifest` is of a training stage that ran to its end and says how long that took."""
    numbers = [manifest.get(name) for name in ("flops", "params_body", "world", "train_s")]
    usable = all(isinstance(n, int | float) and n > 0 for n in numbers)
    return usable and manifest.get("status") == "finished" and "recipe" in manifest.get("spec", {})


def _hardware(manifest: dict[str, Any]) -> str:
    found = manifest.get("hardware") or {}
    return str(found.get("gpu") or found.get("cpu") or "unknown hardware")


def busy_s(manifest: dict[str, Any]) -> float:
    """Seconds in training steps, of the whole stage: also those before a restart or of the state that it began from."""
    return sum(float(manifest.get(name) or 0.0) for name in BUSY)


def _rate(group: list[dict[str, Any]]) -> Rate:
    """Of stages of one size on one kind of device."""
    speed = sum(m["flops"] for m in group) / sum(busy_s(m) * m["world"] for m in group)
    # A stage that went on from something has clocks of more than its own time.
    whole = [m for m in group if m.get("start") is None and m.get("wall_s", 0.0) >= busy_s(m)]
    beyond = [(m["wall_s"] - busy_s(m)) * m["world"] for m in whole]
    return Rate(speed, statistics.median(beyond) if beyond else OVERHEAD_S)


def hours(value: float) -> str:
    """Device-hours for people."""
    return f"{value:,.1f} device-hours" if value >= 0.1 else f"{value * 3600:.3g} device-seconds"
