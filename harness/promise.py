"""What a study was said to cost when it was registered, and what it has cost so far."""

import json
from collections.abc import Collection
from typing import Any

from harness import cost, rates
from harness.plan import Plan
from harness.rates import Rates
from harness.store import Store, now
from harness.url import Place

CLOCKS = ("setup_s", "train_s", "wait_s", "first_batch_s", "evaluate_s", "checkpoint_s")


def make(plan: Plan, done: Collection[str], speed: Rates, price: float | None) -> dict[str, Any]:
    """The promise for the stages of `plan` that are not `done`, as plain data; `price` is money a device-hour."""
    left = [d for d in plan.stages if d not in done]
    total = cost.cost_of(plan, left)
    all_hours = speed.hours(plan.stages, plan.starts)
    hours = {d: all_hours[d] for d in left if d in all_hours}
    return {
        "made": now(),
        "tokens": total.tokens,
        "flops": total.flops,
        "device_hours": sum(hours.values()),
        "price": price,
        "money": None if price is None else price * sum(hours.values()),
        "storage_bytes": cost.storage(plan.stages[d] for d in left).peak,
        "rate": speed.said(plan.stages[d] for d in left),
        "stages": {d: float(f"{h:.6g}") for d, h in hours.items()},
        "found": sum(d in done for d in all_hours),
    }


def device_hours(manifest: dict[str, Any], start: dict[str, Any] | None) -> float:
    """Device-hours of a published training stage; `start` is the manifest of the state that it went on from. `wall_s`
    is of the last start of its workers alone, the clocks of all of them that left a checkpoint."""
    clocks = sum(float(manifest.get(name) or 0.0) for name in CLOCKS)
    if start is not None:
        clocks -= sum(float(start.get(name) or 0.0) for name in CLOCKS if name != "setup_s")
    elif manifest.get("start") is not None:
        clocks = 0.0  # of the state, which is gone, too
    return max(float(manifest.get("wall_s") or 0.0), clocks) * float(manifest.get("world") or 1) / 3600


def promised_and_spent(registered: Place, store: Store) -> list[str]:
    """The promise of the plan `registered`, beside what its stages have taken so far, in lines for people; none where
    nothing was promised."""
    try:
        promise = json.loads(registered.read_text())["promise"]
        promised = dict(promise["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    manifests = store.manifests_of(promised)

    def start_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
        state = manifest.get("start")
        return None if state is None else manifests.get(state) or store.manifest(state)

    spent = {d: device_hours(m, start_of(m)) for d, m in manifests.items()}
    found = f", {promise['found']} more were in the store" if promise["found"] else ""
    what = f"{len(promised)} training stages {promise['rate']}{found}"
    lines = [
        f"promised  {rates.hours(promise['device_hours'])} for {what}",
        f"spent     {rates.hours(sum(spent.values()))} on {len(spent)} of them",
    ]
    due = sum(promised[d] for d in spent)
    if due > 0:
        lines[-1] += f", which were promised {rates.hours(due)}: {sum(spent.values()) / due:.2f} times the promise"
    if promise["price"] is not None:
        paid = promise["price"] * sum(spent.values())
        lines.append(f"money     {paid:,.2f} spent of {promise['money']:,.2f}, at {promise['price']:g} a device-hour")
    return lines
