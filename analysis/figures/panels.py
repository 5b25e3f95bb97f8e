"""Which cells share a panel, and which are drawn where there are too many for a page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from analysis.cells import Cell, Run, labeller
from analysis.figures.style import LINES, PANELS
from analysis.frame import axis_columns
from analysis.results import Results


class Member(NamedTuple):
    """A line of a panel: the cell's place in `Results.cells`, its label there, and a shorter one for this panel."""

    place: int
    name: str
    cell: Cell


class Panel(NamedTuple):
    """Cells that are compared with the same baseline runs."""

    title: str
    """What the members share and others do not, such as "domain math"; empty if there is one panel."""
    baselines: list[Run]
    members: list[Member]
    hidden: int
    """Members that are not drawn."""


def ranked(results: Results, first: Sequence[int] = ()) -> list[int]:
    """Places in `Results.cells`, those of `first` first and the others in the plan's order."""
    head = list(dict.fromkeys(first))
    return head + [i for i in range(len(results.cells)) if i not in set(head)]


def panels(results: Results, first: Sequence[int] = ()) -> tuple[list[Panel], int]:
    """At most PANELS panels of at most LINES members with a complete pair, and how many panels are left out."""
    groups: dict[tuple[str, ...], list[int]] = {}
    order = {i: n for n, i in enumerate(ranked(results, first))}
    for i in order:
        cell = results.cells[i]
        if cell.finished():
            groups.setdefault(tuple(sorted({b.stage for _, _, b in cell.finished()})), []).append(i)
    # Cells of which different seeds are finished belong together all the same.
    merged: dict[frozenset[str], list[int]] = {}
    for key in sorted(groups, key=len, reverse=True):
        home = next((k for k in merged if k.issuperset(key)), frozenset(key))
        merged.setdefault(home, []).extend(groups[key])
    found = [sorted(members, key=order.__getitem__) for members in merged.values()]
    found.sort(key=lambda members: order[members[0]])
    drawn = [_panel(results, members, len(found) > 1) for members in found[:PANELS]]
    return drawn, len(found) - len(drawn)


def local_names(results: Results, members: Sequence[int]) -> tuple[str, list[str]]:
    """What cells have in common that others in the study do not, such as "domain math", and their labels without
    it."""
    shared: dict[str, Any] = {}
    for axis in axis_columns(results.plan):
        own = {str(results.cells[i].axes.get(axis)) for i in members}
        if len(own) == 1 and len({str(cell.axes.get(axis)) for cell in results.cells}) > 1:
            shared[axis] = results.cells[members[0]].axes.get(axis)
    name = labeller(results.plan)
    own_cells = [results.cells[i] for i in members]
    names = [name(c.arm, {a: v for a, v in c.axes.items() if a not in shared}) for c in own_cells]
    return name("", shared).removeprefix(", "), names


def _panel(results: Results, members: list[int], titled: bool) -> Panel:
    title, names = local_names(results, members) if titled else ("", [results.labels[i] for i in members])
    shown = [Member(i, name, results.cells[i]) for i, name in zip(members[:LINES], names[:LINES], strict=True)]
    baselines = {b.stage: b for i in members for _, _, b in results.cells[i].finished()}
    return Panel(title, list(baselines.values()), shown, len(members) - len(shown))
