"""The modules of a Llama and ranges of its layers, in the notation of `Transfer.reinit`. Standard library only.

An entry is a module ("attention") or a part of one in some layers, as Python slices a list of them ("attention[0:4]",
"mlp[-2:]", "norms[3]"). "norms" are all of them; "norms[:]" are those of the layers and "final_norm" is the other one.
"""

import re
from collections.abc import Iterable

from harness.errors import InputError, require

MODULES = ("embeddings", "attention", "mlp", "norms")
PARTS = (*MODULES, "final_norm")
"""What entries are taken apart into. As a part, "norms" are those of the layers alone."""
WITHOUT_LAYERS = ("embeddings", "final_norm")
ENTRY = re.compile(
    rf"(?P<part>{'|'.join(PARTS)})(?P<layers>\[((?P<one>-?[0-9]+)|(?P<start>-?[0-9]+)?:(?P<stop>-?[0-9]+)?)\])?"
)

Boundary = tuple[int, int]
"""A place between layers: (0, n) lies after the first n of them, (1, -n) before the last n."""
Range = tuple[Boundary, Boundary]
"""The layers between two boundaries. Boundaries compare as tuples: until the depth is known, one that counts from the
first layer is taken to come before one that counts from the last."""
FIRST, LAST = (0, 0), (1, 0)
ALL = (FIRST, LAST)


def parse(entries: Iterable[str], field: str = "Transfer.reinit") -> dict[str, list[Range]]:
    """The parts that `entries` name, in the order of `PARTS`, each with its ranges of layers, ascending and joined.

    Raises InputError, which names `field`, for what is no module or no range of layers.
    """
    require(not isinstance(entries, str), field, entries, 'give a tuple of modules: ("embeddings",)')
    named: dict[str, set[Range]] = {part: set() for part in PARTS}
    for entry in entries:
        found = ENTRY.fullmatch(entry) if isinstance(entry, str) else None
        if found is None:
            way_out = f"name modules among {', '.join(PARTS)}; in some layers, as attention[0:4], mlp[-2:] or norms[3]"
            raise InputError(f"{field} = {entry!r}: {way_out}")
        part = found["part"]
        if found["layers"] is None:
            named[part].add(ALL)
            if part == "norms":
                named["final_norm"].add(ALL)
            continue
        require(part not in WITHOUT_LAYERS, field, entry, f"lies in no layer; name {part} without a range")
        if found["one"] is not None:
            start = _boundary(found["one"], FIRST)
            stop = (start[0], start[1] + 1)
        else:
            start, stop = _boundary(found["start"], FIRST), _boundary(found["stop"], LAST)
        require(start < stop, field, entry, "holds no layer; give a range from a layer to a later one")
        named[part].add((start, stop))
    return {part: _joined(ranges) for part, ranges in named.items() if ranges}


def _boundary(number: str | None, default: Boundary) -> Boundary:
    if number is None:
        return default
    return (1 if int(number) < 0 else 0, int(number))


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """`ranges` ascending; those that overlap or touch at every depth are one."""
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined:
            first, last = joined[-1]
            if (start == first or _ordered(start, last)) and start <= last and _ordered(stop, last):
                joined[-1] = first, max(stop, last)
                continue
        joined.append((start, stop))
    return joined


def _ordered(a: Boundary, b: Boundary) -> bool:
    """Whether two boundaries have the same order at every depth."""
    return a[0] == b[0] or not {a, b}.isdisjoint(ALL)


def spell(named: dict[str, list[Range]]) -> tuple[str, ...]:
    """The one spelling of what `parse` gives."""
    every_norm = named.get("norms") == [ALL] and "final_norm" in named
    entries: list[str] = []
    for part in PARTS:
        if part == "final_norm" and every_norm:
            continue
        for pair in named.get(part, []):
            without = pair == ALL and (part != "norms" or every_norm)
            entries.append(part if without else spell_range(part, pair))
    return tuple(entries)


def spell_range(part: str, pair: Range) -> str:
    """A part in a range of layers: (0, 3) to (0, 4) of the mlp is "mlp[3]"."""
    start, stop = pair
    if stop == (start[0], start[1] + 1):
        return f"{part}[{start[1]}]"
    return f"{part}[{'' if start == FIRST else start[1]}:{'' if stop == LAST else stop[1]}]"


def complement(named: dict[str, list[Range]], field: str) -> dict[str, list[Range]]:
    """All parts and layers but the `named` ones. Raises InputError where that depends on the depth."""
    rest: dict[str, list[Range]] = {}
    for part in PARTS:
        ranges = named.get(part, [])
        cuts = [FIRST, *(boundary for pair in ranges for boundary in pair), LAST]
        gaps = list(zip(cuts[::2], cuts[1::2], strict=True))
        entries = [spell_range(part, pair) for pair in ranges]
        way_out = "whether these overlap depends on the depth; name every layer once"
        require(all(start < stop for start, stop in gaps[1:-1]), field, entries, way_out)
        if left := [(start, stop) for start, stop in gaps if start < stop]:
            rest[part] = left
    return rest


def layers(ranges: Iterable[Range], depth: int) -> list[range]:
    """The numbers of the layers in every range, in a model of `depth` layers."""
    return [range(start[0] * depth + start[1], stop[0] * depth + stop[1]) for start, stop in ranges]


def check_depth(named: dict[str, list[Range]], depth: int, field: str = "Transfer.reinit") -> None:
    """InputError unless every range lies within `depth` layers, holds one, and leaves one between it and the next."""
    for part, ranges in named.items():
        end = -1
        for pair, numbers in zip(ranges, layers(ranges, depth), strict=True):
            entry = spell_range(part, pair)
            within = 0 <= numbers.start < numbers.stop <= depth
            require(within, field, entry, f"a model of {depth} layers has layers 0 to {depth - 1}; name some of these")
            require(numbers.start > end, field, entry, f"meets the range before it at depth {depth}; make them one")
            end = numbers.stop
