"""Why a stage is not in the store: the artifact of the same kind that is most like it, and the fields that differ."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.plan import Plan, label
from harness.specs import Stage, canonical

MANIFESTS, MANIFESTS_S = 5_000, 2.0
"""So many manifests of a store are read, for so many seconds at most."""
SEARCH_S = 0.5
"""CPU seconds in which the stages of a plan are compared with them; with --why, a minute."""
ALIKE = 6
"""Beyond so many fields, what differs is counted rather than named."""
ABSENT = "default"
"""In place of a value where a spec leaves the field out: at its default, or of another type."""

Fields = dict[str, str]
"""A spec as dotted names of fields and their JSON."""


@dataclass(frozen=True)
class Miss:
    """A stage that the store lacks, beside the nearest that it has."""

    digest: str
    stage: Stage
    nearest: str
    """Its digest."""
    differs: dict[str, tuple[str, str]]
    """(here, there) by field."""


def misses(
    lacking: Mapping[str, Stage], manifests: Mapping[str, dict[str, Any]], within_s: float = SEARCH_S
) -> tuple[list[Miss], int]:
    """The nearest of `manifests` for each of `lacking` that has one of its kind, and how many of `lacking` were looked
    at: all, unless `within_s` CPU seconds were over first."""
    kinds: dict[str, _Kind] = {}
    for address, manifest in manifests.items():
        if isinstance(manifest.get("spec"), dict):
            kinds.setdefault(str(manifest.get("kind")), _Kind()).add(address, flat(manifest["spec"]))
    found: list[Miss] = []
    deadline = time.process_time() + within_s
    for count, (address, stage) in enumerate(lacking.items()):
        if count and time.process_time() > deadline:
            return found, count
        kind = kinds.get(type(stage).__name__)
        if kind is not None:
            nearest, differs = kind.nearest(flat(canonical(stage)))
            found.append(Miss(address, stage, nearest, differs))
    return found, len(lacking)


class _Kind:
    """Stored specs of one kind as a table of numbers, a row a spec and a column a field, to compare at once."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.specs: list[Fields] = []
        self.columns: dict[str, int] = {}
        self.codes: dict[tuple[str, str], int] = {}
        self.table: Any = None

    def add(self, address: str, spec: Fields) -> None:
        self.addresses.append(address)
        self.specs.append(spec)
        for name, value in spec.items():
            self.columns.setdefault(name, len(self.columns))
            self.codes.setdefault((name, value), len(self.codes) + 1)  # 0 is for a field that is left out

    def nearest(self, spec: Fields) -> tuple[str, dict[str, tuple[str, str]]]:
        """The stored spec with the fewest fields unlike `spec`, the first of equals, and those fields."""
        import numpy as np

        if self.table is None:
            self.table = np.zeros((len(self.specs), len(self.columns)), np.int32)
            for row, stored in zip(self.table, self.specs, strict=True):
                for name, value in stored.items():
                    row[self.columns[name]] = self.codes[name, value]
        own = np.zeros(len(self.columns), np.int32)
        for name, value in spec.items():
            if name in self.columns:
                own[self.columns[name]] = self.codes.get((name, value), -1)
        best = int((self.table != own).sum(1).argmin())
        there = self.specs[best]
        names = sorted(name for name in spec.keys() | there.keys() if spec.get(name) != there.get(name))
        differs = {name: (spec.get(name, ABSENT), there.get(name, ABSENT)) for name in names}
        return self.addresses[best], differs


def flat(spec: Mapping[str, Any], path: str = "") -> Fields:
    """The fields of a canonical spec by dotted name, whatever their depth; lists are values."""
    found: Fields = {}
    for name, value in spec.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}{name}.")
        elif path or name != "type":  # the kind, which is the same
            found[path + name] = value if isinstance(value, str) else json.dumps(value)
    return found


def why(
    plan: Plan, done: Iterable[str], manifests: Mapping[str, dict[str, Any]], whole: bool, every: bool
) -> list[str]:
    """Lines for people: what tells the stages of `plan` that are not `done` from the nearest stored ones, equal reasons
    together or, with `every`, stage by stage. `whole` says whether `manifests` are all of the store's."""
    done = set(done)
    lacking = {d: s for d, s in plan.stages.items() if d not in done}
    if not lacking or not manifests:
        return []
    if not every:  # in the order of their digests: where not all can be compared, those that are do not begin alike
        lacking = dict(sorted(lacking.items()))
    found, looked = misses(lacking, manifests, 60.0 if every else SEARCH_S)
    lines = [_one(miss) for miss in found] if every else _grouped(found)
    if not whole:
        lines.append(f"of the stages in the store, {len(manifests)} were compared")
    if looked < len(lacking):
        lines.append(
            f"of the stages that the store lacks, {looked} of {len(lacking)} were compared; --why takes longer"
        )
    return lines


def moved(plan: Plan, done: Iterable[str], manifests: Mapping[str, dict[str, Any]]) -> list[str]:
    """Lines for people: texts of `plan` that are not `done` but lie in the store at another commit of their dataset or
    tokenizer, with how to use what is there."""
    lines = []
    kinds = [m for m in manifests.values() if isinstance(m.get("spec"), dict) and "held_out" in m["spec"]]
    there = [flat(m["spec"]) for m in kinds]
    for address in plan.stages.keys() - set(done):
        stage = plan.stages[address]
        here = flat(canonical(stage)) if getattr(stage, "stored", False) else {}
        for spec in there if here else ():
            differs = [name for name in sorted(here.keys() | spec.keys()) if here.get(name) != spec.get(name)]
            if differs and set(differs) <= {"revision", "tokenizer.revision"} and "null" not in map(here.get, differs):
                there_at = " and ".join(f"{name}={spec.get(name)!r}" for name in differs)
                here_at = " and ".join(str(here.get(name)) for name in differs)
                lines.append(
                    f"{here.get('dataset')}: the store has it at {there_at}, and this study is at {here_at}; name that "
                    "to use what is there, or it is tokenised anew"
                )
    return sorted(lines)


def _one(miss: Miss) -> str:
    return f"{miss.digest[:12]} {label(miss.stage)}: {_differences(miss.differs)} in {miss.nearest[:12]}"


def _differences(differs: Mapping[str, tuple[str, str]]) -> str:
    named = [f"{name} {_short(here)} here, {_short(there)}" for name, (here, there) in list(differs.items())[:ALIKE]]
    more = f" and {len(differs) - ALIKE} other fields" if len(differs) > ALIKE else ""
    return "; ".join(named) + more


def _short(value: str) -> str:
    return value if len(value) <= 24 else value[:21] + "..."


GROUPS = 4
"""Reasons that are told; the rest is counted."""


def _grouped(found: list[Miss]) -> list[str]:
    groups: dict[tuple[str, ...], list[Miss]] = {}
    for miss in found:
        kind = () if len(miss.differs) > ALIKE else tuple(miss.differs)
        groups.setdefault((type(miss.stage).__name__, *kind), []).append(miss)
    # The most stages first; then what is their own before what is of a stage before them.
    ordered = [
        groups[k] for k in sorted(groups, key=lambda k: (-len(groups[k]), sum(name.count(".") for name in k), k))
    ]
    lines = [_group(group) for group in ordered[:GROUPS]]
    if len(ordered) > GROUPS:
        count = sum(len(group) for group in ordered[GROUPS:])
        lines.append(f"{count} stages for {len(ordered) - GROUPS} other reasons; --why names every one")
    return lines


def _group(group: list[Miss]) -> str:
    stages = "1 stage differs" if len(group) == 1 else f"{len(group)} stages differ"
    kind = type(group[0].stage).__name__
    if len(group[0].differs) > ALIKE:
        fewest = min(len(miss.differs) for miss in group)
        return f"{stages} from every stored {kind} in {fewest} fields or more"
    same = all(miss.differs == group[0].differs for miss in group)
    fields = _differences(group[0].differs) + " there" if same else ", ".join(group[0].differs)
    return f"{stages} from the nearest stored {kind} in {fields}"
