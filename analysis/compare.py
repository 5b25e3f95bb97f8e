"""Two studies side by side: the cells that both have, how far their effects are apart, and what differs in their plans.

Nothing here is a verdict: studies that share no seeds, corpora or sizes differ in more than the cell's name says.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import numbers
from analysis.cells import Cell
from analysis.frame import DataError, axes_of, axis_columns
from analysis.metrics.intervals import welch
from analysis.metrics.speedup import exp
from analysis.results import Results
from analysis.trials import domain
from analysis.verdict_table import WIDTH

HALVES = ("n_pairs", "gap_kind", "speedup", "speedup_lo", "speedup_hi", "dloss_nats", "dloss_nats_lo", "dloss_nats_hi")
"""Columns of `effects` that a comparison shows of either study, with _a and _b."""

DIFFERENCES = (
    "speedup_ratio", "speedup_ratio_lo", "speedup_ratio_hi", "p_speedup", "dloss_difference_nats",
    "dloss_difference_nats_lo", "dloss_difference_nats_hi", "p_dloss", "shared_stages",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """`cells` has a row per cell that both studies have; `plans` are lines about what differs in the plans."""

    names: tuple[str, str]
    cells: pd.DataFrame
    only: tuple[list[str], list[str]]
    """Labels of the cells that one study alone has."""
    plans: list[str]
    shared_stages: int
    """Stages that both plans name, which are then one and the same training run."""
    shared_finished: int


def read(places: Sequence[str]) -> tuple[Results, Results]:
    """Two studies, each named by the directory of an export or by a store and a study. Raises DataError where a study
    cannot be read, or `places` are not two."""
    found: list[Results] = []
    left = list(places)
    while left:
        place = left.pop(0)
        if "://" not in place and (Path(place) / "study.json").is_file():
            found.append(Results.from_export(place))
        elif left:
            found.append(Results.from_store(place, left.pop(0)))
        else:
            raise DataError(f"{place}: is no export (it has no study.json), and of a store the study is not named")
    if len(found) != 2:
        raise DataError(
            f"{' '.join(places)}: names {len(found)} studies; name two, each an export or a store and study"
        )
    return found[0], found[1]


def compare(a: Results, b: Results) -> Comparison:
    """Cells are the same where their arm and axes are. An axis on which an arm has one value in one study, and which
    the other study does not have, is passed over.

    `speedup_ratio` is the speedup in `b` over that in `a` (geometric means over pairs), `dloss_difference_nats` the
    loss gap in `b` minus that in `a`; intervals and p values are Welch's over pairs (Welch, 1947), NaN where a study
    has fewer than two. They take the studies' pairs for independent: where `shared_stages` (of this cell) is not 0 the
    interval is too wide. Where text budgets differ within a study (`gap_kind` "own ends") speedups are not compared.
    """
    keys_a, keys_b = _keys(a, b), _keys(b, a)
    there = {key: i for i, key in enumerate(keys_b)}
    both = [(i, there[key]) for i, key in enumerate(keys_a) if key in there]
    readings = (_readings(a), _readings(b))
    rows = [_row(a, i, b, j, readings) for i, j in both]
    halves = [f"{name}_{side}" for name in HALVES for side in "ab"]
    only_a = [name for name, key in zip(a.labels, keys_a, strict=True) if key not in there]
    matched = {j for _, j in both}
    only_b = [name for j, name in enumerate(b.labels) if j not in matched]
    digests = [{digest for point in r.plan["points"] for digest in point["chain"]} for r in (a, b)]
    shared = digests[0] & digests[1]
    return Comparison(
        names=(a.study, b.study) if a.study != b.study else (f"{a.study} (1)", f"{b.study} (2)"),
        cells=pd.DataFrame(rows, columns=["arm", "cell", *halves, *DIFFERENCES]),
        only=(only_a, only_b),
        plans=_plan_differences(a, b),
        shared_stages=len(shared),
        shared_finished=len(shared & set(a.stages) & set(b.stages)),
    )


def _keys(own: Results, other: Results) -> list[tuple[Any, ...]]:
    """What every cell of `own` is known by in `other`."""
    names, others = axis_columns(own.plan), axis_columns(other.plan)
    taken: dict[tuple[str, str], set[str]] = {}
    for cell in own.cells:
        for name in names:
            taken.setdefault((cell.arm, name), set()).add(repr(cell.axes[name]))
    return [
        (
            cell.arm,
            *sorted(
                (
                    (n, v)
                    for n, v in cell.axes.items()
                    if v is not None and (n in others or len(taken[cell.arm, n]) > 1)
                ),
                key=lambda item: item[0],
            ),
        )
        for cell in own.cells
    ]


def _row(
    a: Results, i: int, b: Results, j: int, readings: Sequence[dict[tuple[str, str], tuple[float, float]]]
) -> dict[str, Any]:
    effects, cells = (a.effects.iloc[i], b.effects.iloc[j]), (a.cells[i], b.cells[j])
    row: dict[str, Any] = {"arm": cells[0].arm, "cell": a.labels[i]}
    row |= {f"{name}_{side}": effect[name] for side, effect in zip("ab", effects, strict=True) for name in HALVES}
    stages = [{run.stage for _, t, b in cell.finished() for run in (t, b)} for cell in cells]
    row["shared_stages"] = len(stages[0] & stages[1])
    of_a, of_b = (_of_cell(cell, found) for cell, found in zip(cells, readings, strict=True))
    gap, low, high, p = _welch(of_b[:, 1], of_a[:, 1])
    row |= {"dloss_difference_nats": gap, "dloss_difference_nats_lo": low, "dloss_difference_nats_hi": high}
    row["p_dloss"] = p
    if all(effect["gap_kind"] == "shared budget" for effect in effects):
        ratio, low, high, p = _welch(of_b[:, 0], of_a[:, 0])
        row |= {"speedup_ratio": exp(ratio), "speedup_ratio_lo": exp(low), "speedup_ratio_hi": exp(high)}
        row["p_speedup"] = p
    return row


def _readings(results: Results) -> dict[tuple[str, str], tuple[float, float]]:
    """ln speedup and loss gap (nats) of every pair that carries an estimate, by the digests of its two runs."""
    pairs = results.pairs[["trial_t", "trial_b", "ln_speedup", "dloss_nats"]]
    pairs = pairs.astype({"ln_speedup": float, "dloss_nats": float}).dropna()
    return {(t, b): (speedup, gap) for t, b, speedup, gap in pairs.itertuples(index=False, name=None)}


def _of_cell(cell: Cell, readings: dict[tuple[str, str], tuple[float, float]]) -> np.ndarray:
    """Readings (pairs, 2) of a cell."""
    found = [readings[t.stage, b.stage] for _, t, b in cell.finished() if (t.stage, b.stage) in readings]
    return np.array(found, float).reshape(-1, 2)


def _welch(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """Mean of `first` minus that of `second`, the 95 % interval and p; NaN where they cannot be had."""
    nan = float("nan")
    if not len(first) or not len(second):
        return nan, nan, nan, nan
    if min(len(first), len(second)) < 2:
        return float(first.mean() - second.mean()), nan, nan, nan
    found = welch(first, second)
    return *found.interval, found.p_value


def _plan_differences(a: Results, b: Results) -> list[str]:
    """Lines "what: value in a | value in b" for all that the plans say differently."""
    lines = []
    for name in ("baseline", "sesoi"):
        values = [str(r.plan.get(name, "not said")) for r in (a, b)]
        if values[0] != values[1]:
            lines.append(f"{name}: {values[0]} | {values[1]}")
    for name, sets in (
        ("arms", [r.plan["arms"] for r in (a, b)]),
        ("axes", [r.plan["axes"] for r in (a, b)]),
        ("corpora", [_corpora(r) for r in (a, b)]),
        ("text tokens", [_budgets(r) for r in (a, b)]),
        ("tokens before the text", [_before(r) for r in (a, b)]),
        ("models", [_specs(r, "model") for r in (a, b)]),
        ("recipes", [_specs(r, "recipe") for r in (a, b)]),
    ):
        if line := _sets(name, sets[0], sets[1]):
            lines.append(line)
    for axis in [x for x in a.plan["axes"] if x in b.plan["axes"]]:
        if line := _sets(f"values of {axis}", _values(a, axis), _values(b, axis)):
            lines.append(line)
    return lines


def _sets(name: str, a: Sequence[str], b: Sequence[str]) -> str:
    """What only one of the two has; empty where they are equal."""
    only = [[v for v in own if v not in other] for own, other in ((a, b), (b, a))]
    return f"{name}: {' | '.join(', '.join(o) or 'nothing more' for o in only)}" if any(only) else ""


def _values(results: Results, axis: str) -> list[str]:
    name = "seed" if axis == "seed" else axis_columns({"axes": [axis]})[0]
    return list(dict.fromkeys(str(axes_of(results.plan, p)[name]) for p in results.plan["points"] if axis in p["axes"]))


def _corpora(results: Results) -> list[str]:
    specs = [d.get("spec") or {} for d in results.stages.values()]
    return sorted({domain(spec["corpus"]["source"]) for spec in specs if spec.get("corpus")})


def _before(results: Results) -> list[str]:
    return [numbers.tokens(n) for n in sorted({sum(p["tokens"][:-1]) for p in results.plan["points"]} - {0})]


def _specs(results: Results, part: str) -> list[str]:
    """The settings of `part` of every text stage, each with its value."""
    documents = [results.stages[p["stage"]] for p in results.plan["points"] if p["stage"] in results.stages]
    return sorted({f"{name} {value}" for d in documents for name, value in (d["spec"].get(part) or {}).items()})


def _budgets(results: Results) -> list[str]:
    return [numbers.tokens(n) for n in sorted({p["tokens"][-1] for p in results.plan["points"]})]


def text(found: Comparison) -> str:
    """The comparison for a terminal, at most 120 columns wide."""
    a, b = found.names
    header = ["cell", "pairs", "speedup 1", "speedup 2", "2 over 1", "gap 1", "gap 2", "2 minus 1, nats"]
    rows = [header]
    for _, e in found.cells.iterrows():
        comparable = e.gap_kind_a == e.gap_kind_b == "shared budget"
        ratio = numbers.between(e.speedup_ratio_lo, e.speedup_ratio_hi)
        gap = numbers.between(e.dloss_difference_nats_lo, e.dloss_difference_nats_hi, 3, "+")
        speedups = [numbers.times(v) if comparable else numbers.NONE for v in (e.speedup_a, e.speedup_b)]
        rows.append(
            [
                e.cell,
                f"{e.n_pairs_a}, {e.n_pairs_b}",
                *speedups,
                f"{numbers.times(e.speedup_ratio)} {ratio}".strip(),
                numbers.signed_nats(e.dloss_nats_a),
                numbers.signed_nats(e.dloss_nats_b),
                f"{numbers.signed_nats(e.dloss_difference_nats)} {gap}".strip(),
            ]
        )
    width = [max(len(row[i]) for row in rows) for i in range(len(header))]
    width[0] = min(width[0], WIDTH - sum(width[1:]) - 2 * (len(width) - 1))
    cut = [[row[0] if len(row[0]) <= width[0] else row[0][: width[0] - 1] + "…", *row[1:]] for row in rows]
    lines = ["  ".join(value.ljust(w) for value, w in zip(row, width, strict=True)).rstrip() for row in cut]
    lines.insert(1, "-" * (sum(width) + 2 * (len(width) - 1)))
    said = [f"1 is {a}, 2 is {b}. Brackets: 95 % intervals of Welch over pairs."]
    if found.shared_stages:
        these = f"{found.shared_stages} stages belong to both studies, {found.shared_finished} of them finished"
        said.append(f"{these}: intervals of cells that share runs are too wide.")
    else:
        said.append("The studies share no stage.")
    for name, only in zip(found.names, found.only, strict=True):
        if only:
            more = f" and {len(only) - 8} more" if len(only) > 8 else ""
            said.append(f"Only in {name}: {'; '.join(only[:8])}{more}.")
    said += [
        "The plans differ (1 | 2):" if found.plans else "The plans do not differ.",
        *(f"  {x}" for x in found.plans),
    ]
    if found.cells.empty:
        lines = ["No cell is in both studies."]
    wrapped = [textwrap.fill(x, WIDTH, subsequent_indent="    ", break_on_hyphens=False) for x in said]
    return "\n".join([*lines, "", *wrapped])
