"""The results of a study as one value, the same whether they come from a store or from committed CSV files."""

import json
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd

from analysis import learned as learned_check
from analysis import numbers, speedup
from analysis import verdicts as decisions
from analysis.cells import Cell, cells, label
from analysis.frame import (
    CURVE_FIELDS,
    DataError,
    axes_of,
    axis_columns,
    check_key,
    load,
    manifests,
    missing,
    read_plan,
    table,
)

WIDTH = 120
"""Columns of a terminal."""
EXPORT = 1
"""The format of an exported directory."""


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that is known about a study: its registered plan, manifests by stage, and the frame; every other
    table follows from them."""

    plan: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    frame: pd.DataFrame
    missing: pd.DataFrame
    store: Path | None = None
    """Where stored pictures of automata may be found; an export has none."""

    @classmethod
    def from_store(cls, store: Path | str, study: str) -> Self:
        """Reads a store. Raises DataError where the study is unknown or a stage damaged."""
        plan = read_plan(store, study)
        return cls(plan, manifests(store, study), load(store, study), missing(store, study), Path(store))

    @classmethod
    def from_export(cls, directory: Path | str) -> Self:
        """Reads what `export` wrote. Raises DataError where it is not there or is damaged."""
        path = Path(directory) / "study.json"
        try:
            meta = json.loads(path.read_bytes())
            plan = meta["plan"]
            axes = {
                a: {str(axes_of(plan, p)[a]): axes_of(plan, p)[a] for p in plan["points"]} for a in axis_columns(plan)
            }
            kinds = {**dict.fromkeys(axes, "str"), **dict.fromkeys(CURVE_FIELDS, "float64"), "differs_in": "str"}
            frame = pd.read_csv(
                path.parent / "frame.csv.gz", dtype=kinds, keep_default_na=False,
                na_values={c: [""] for c in CURVE_FIELDS},
            )  # fmt: skip
            for axis, values in axes.items():  # "0.30" is text on one axis and a number on another; the plan knows
                frame[axis] = pd.Series([values.get(text) for text in frame[axis]], dtype=object)
            frame = table(frame.to_dict("records"), list(frame.columns), plan)
            absent = table(meta["missing"], ["arm", *axis_columns(plan), "seed", "stage", "label"], plan)
            return cls(plan, meta["stages"], check_key(frame, plan), absent)
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{directory}: no readable export ({error}); write it with analysis export") from None

    @property
    def study(self) -> str:
        return str(self.plan["study"])

    @cached_property
    def cells(self) -> list[Cell]:
        return cells(self.frame, self.plan, self.stages)

    @cached_property
    def labels(self) -> list[str]:
        """What every cell is called, in the order of `cells` and `effects`."""
        return [label(cell.arm, cell.axes, self.plan) for cell in self.cells]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        return speedup.pairs(self.frame, self.plan, self.stages)

    @cached_property
    def effects(self) -> pd.DataFrame:
        return speedup.effects(self.frame, self.plan, self.stages)

    @cached_property
    def learned(self) -> pd.DataFrame:
        return learned_check.learned(self.plan, self.stages)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        return decisions.verdicts(self.effects, self.learned, self.plan, self.labels)


def export(store: Path | str, study: str, directory: Path | str) -> Path:
    """Writes the tables of a study as data to commit: frame.csv.gz, pairs.csv, effects.csv (with verdicts),
    learned.csv and study.json (plan, manifests, what is missing). Units are in the column names.
    Returns the directory."""
    results = Results.from_store(store, study)
    out = Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    results.frame.to_csv(out / "frame.csv.gz", index=False, compression={"method": "gzip", "mtime": 0})
    results.pairs.to_csv(out / "pairs.csv", index=False)
    pd.concat([results.effects, results.verdicts], axis=1).to_csv(out / "effects.csv", index=False)
    results.learned.to_csv(out / "learned.csv", index=False)
    plan = {k: v for k, v in results.plan.items() if k != "stages"}
    meta = {
        "format": EXPORT,
        "plan": plan,
        "stages": results.stages,
        "missing": json.loads(results.missing.to_json(orient="records")),
    }
    (out / "study.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")
    return out


def verdict_rows(results: Results) -> list[list[tuple[str, str]]]:
    """The verdict table as text, a row a cell: (value, interval or remark) of arm, pairs, loss gap, speedup, net of
    tokens, net of FLOPs, verdict. Where text budgets differ no speedup is shown: it would mix text with schedule."""
    rows = []
    for name, (_, e), verdict in zip(
        results.labels, results.effects.iterrows(), results.verdicts["verdict"], strict=True
    ):
        bounds = numbers.between(e.dloss_nats_lo, e.dloss_nats_hi, 3, "+")
        row = [(name, ""), (f"{e.n_pairs} of {e.n_planned}", ""), (numbers.signed_nats(e.dloss_nats), bounds)]
        for kind in ("speedup", "net_speedup_tokens", "net_speedup_flops"):
            comparable = e.gap_kind != "own ends"
            shown = (numbers.times(e[kind]), numbers.between(e[f"{kind}_lo"], e[f"{kind}_hi"]))
            row.append(shown if comparable else (numbers.NONE, ""))
        rows.append([*row, (verdict, "")])
    return rows


VERDICT_HEADER = ("arm", "pairs", "loss gap, nats", "speedup", "net of tokens", "net of FLOPs", "verdict")


def verdict_table(results: Results) -> str:
    """The verdict table for a terminal, at most 120 columns wide, with the reason of every row below it."""
    shown = [i for i, name in enumerate(VERDICT_HEADER) if name != "net of FLOPs"]
    with_interval = ("loss gap, nats", "speedup")
    rows = [[VERDICT_HEADER[i] for i in shown]]
    for row in verdict_rows(results):
        rows.append([" ".join(row[i][: 1 + (VERDICT_HEADER[i] in with_interval)]).strip() for i in shown])
    width = [max(len(row[i]) for row in rows) for i in range(len(shown))]
    width[0] = min(width[0], WIDTH - sum(width[1:]) - 2 * (len(width) - 1))
    lines = []
    for name, *others in rows:
        cut = name if len(name) <= width[0] else name[: width[0] - 1] + "…"
        lines.append("  ".join(cell.ljust(w) for cell, w in zip([cut, *others], width, strict=True)).rstrip())
    lines.insert(1, "-" * (sum(width) + 2 * (len(width) - 1)))
    reasons = [textwrap.fill(reason, WIDTH, subsequent_indent="  ") for reason in results.verdicts["reason"]]
    return "\n".join([*lines, "", *reasons])
