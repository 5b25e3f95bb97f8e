"""What a study did otherwise than it had registered: a plan that was changed once results could have been seen."""

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import DataError, attempt, axis_value
from analysis.remote import EARLIER

COLUMNS = ("registered", "change", "what", "results_seen", "deviation")
EARLY = "finished before the first plan"
"""The change of a row that is none: other studies had these results before."""
NAMED = 8
"""Values that a row names."""


def earlier_plans(store: Path | str, study: str, current: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Plans that the study had before its `current` one, oldest first, each with `seen`: how many of its points were
    finished when the plan after it was registered. Raises DataError where one cannot be read."""
    plans = []
    for path in sorted((Path(store) / "studies" / study).glob("points-*.json")):
        if not EARLIER.fullmatch(path.name):
            continue
        try:
            plan = json.loads(path.read_bytes())
            plans.append({k: plan.get(k) for k in ("registered", "hash", "sesoi", "claims", "question")} | {
                "points": [{k: p[k] for k in ("arm", "axes", "stage")} for p in plan["points"]]})  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: an earlier plan that cannot be read ({error}); restore it: it says what "
                            "was changed") from None  # fmt: skip
    plans.sort(key=lambda plan: str(plan["registered"]))
    for i, plan in enumerate(plans):
        after = plans[i + 1] if i + 1 < len(plans) else current
        stages = {p["stage"] for p in plan["points"]}
        plan["seen"] = sum(_before(finished(store, digest), after["registered"]) for digest in stages)
    return plans


def finished(store: Path | str, digest: str) -> str | None:
    """When a stage was finished (ISO), None while it is not."""
    directory = attempt(store, digest)
    if directory is None:
        return None
    try:
        manifest = json.loads((directory / "manifest.json").read_bytes())
        return (datetime.fromisoformat(manifest["started"]) + timedelta(seconds=manifest["wall_s"])).isoformat()
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whoever reads the stage itself says what is wrong with it


def deviations(
    plan: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], stages: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """A row a change: when the changed plan was `registered`, the `change` (arms, seeds, levels of an axis or points
    added or removed, claims, sesoi), `what`, how many points had been finished by then (`results_seen`), and whether it
    is a `deviation`: any change after the first result was there.

    A last row counts runs that were finished before the study was first registered; other studies may have shared them.
    `earlier` is from `earlier_plans`, `stages` are manifests by digest.
    """
    rows = []
    for old, new in itertools.pairwise([*earlier, plan]):
        seen = int(old["seen"])
        rows += [
            {"registered": new["registered"], "change": change, "what": what, "results_seen": seen,
             "deviation": seen > 0}
            for change, what in _changes(old, new)
        ]  # fmt: skip
    first = (earlier[0] if earlier else plan).get("registered")
    early = [p for p in plan["points"] if _before(_end(stages.get(p["stage"])), first)]
    if early:
        arms = ", ".join(dict.fromkeys(str(p["arm"]) for p in early))
        what = f"{len(early)} of {len(plan['points'])} points ({arms})"
        rows.append({"registered": first, "change": EARLY, "what": what,
                     "results_seen": len(early), "deviation": False})  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for word, a, b in (("added", old, new), ("removed", new, old)):
        lacked = {p["arm"] for p in b["points"]} - {p["arm"] for p in a["points"]}
        if lacked:
            found.append((f"arms {word}", _named(lacked)))
        axes = {axis for p in b["points"] for axis in p["axes"]}
        for axis in sorted(axes):
            levels = _levels(b, axis) - _levels(a, axis)
            if levels:
                found.append((f"seeds {word}" if axis == "seed" else f"levels of {axis} {word}", _named(levels)))
    changed = {p["stage"] for p in new["points"]} ^ {p["stage"] for p in old["points"]}
    if changed and not found:
        found.append(("runs changed", f"{len(changed)} points are trained otherwise"))
    if old.get("sesoi") != new.get("sesoi"):
        found.append(("smallest effect of interest", f"from {old.get('sesoi')} to {new.get('sesoi')}"))
    said = [{c["id"]: json.dumps(c, sort_keys=True) for c in plan.get("claims") or []} for plan in (old, new)]
    for word, ids in (("added", said[1].keys() - said[0].keys()), ("removed", said[0].keys() - said[1].keys())):
        if ids:
            found.append((f"claims {word}", _named(ids)))
    other = [i for i in said[0].keys() & said[1].keys() if said[0][i] != said[1][i]]
    if other:
        found.append(("claims changed", _named(other)))
    return found


def _levels(plan: Mapping[str, Any], axis: str) -> set[str]:
    return {str(axis_value(p["axes"][axis])) for p in plan["points"] if axis in p["axes"]}


def _named(values: Any) -> str:
    names = sorted(map(str, values), key=lambda v: (len(v), v))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _end(manifest: Mapping[str, Any] | None) -> str | None:
    if not manifest or "started" not in manifest or "wall_s" not in manifest:
        return None
    return (datetime.fromisoformat(manifest["started"]) + timedelta(seconds=float(manifest["wall_s"]))).isoformat()


def _before(a: str | None, b: Any) -> bool:
    """Whether ISO time `a` lies before `b`; False where one is not known."""
    try:
        return a is not None and datetime.fromisoformat(a) < datetime.fromisoformat(str(b))
    except (ValueError, TypeError):  # not a time, or one without its zone
        return False
