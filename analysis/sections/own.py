"""Metrics that are functions (`analysis.metrics.listed`): those of pairs as columns, the tables of the others."""

import functools
from typing import Any

import pandas as pd

from analysis import numbers
from analysis.metrics import listed
from analysis.page import Block, Heading, Table, Text, folded
from analysis.results import Results

ROWS = 200
"""Rows of a table that the page has; the export has all."""


def metric_titles(results: Results) -> list[str]:
    """What the metrics of pairs are called in the head of a table."""
    titles = [listed.title(metric) for metric in listed.of_pairs(results.metrics)]
    return [t if t[1:2].isupper() else t[:1].lower() + t[1:] for t in titles]


def metric_cells(results: Results, effect: pd.Series) -> list[str | tuple[str, str]]:
    """The metrics of pairs in a row of `effects`, with their intervals; none where text budgets differ, since one of
    the runs is then mid-schedule where the other ends."""
    found: list[str | tuple[str, str]] = []
    for metric in listed.of_pairs(results.metrics):
        style = numbers.signed_nats if metric.__name__.endswith("_nats") else functools.partial(shown, metric.__name__)
        mean, low, high = (float(effect[column]) for column in listed.columns(metric))
        there = mean == mean and effect["gap_kind"] != "own ends"
        found.append((style(mean), f"[{style(low)}, {style(high)}]" if low == low else "") if there else numbers.NONE)
    return found


def own(results: Results) -> list[Block]:
    """The tables of the other metrics."""
    found: list[Block] = []
    for metric in results.metrics:
        if (table := results.own_tables.get(metric.__name__)) is not None:
            found += [Text(f"{listed.title(metric)} ({metric.__name__}).{_cut(table)}"), *folded(_table(table))]
    return [Heading("Metrics of this study", id="metrics"), *found] if found else []


def _cut(table: pd.DataFrame) -> str:
    return f" The first {ROWS} of {len(table)} rows; the export has all." if len(table) > ROWS else ""


def _table(table: pd.DataFrame) -> Table:
    names = list(table.columns)
    rows = [[shown(n, v) for n, v in zip(names, row, strict=True)] for row in table.head(ROWS).itertuples(index=False)]
    numeric = [i for i, name in enumerate(names) if pd.api.types.is_numeric_dtype(table[name])]
    return Table([name.replace("_", " ") for name in names], rows, numeric)


def shown(name: str, value: Any) -> str:
    """A value as the unit at the end of its column's name wants it."""
    if not isinstance(value, bool) and pd.api.types.is_number(value):
        unit = name.removesuffix("_lo").removesuffix("_hi").rpartition("_")[2]
        styles = {"nats": numbers.nats, "tokens": numbers.tokens, "speedup": numbers.times, "s": numbers.seconds}
        return styles.get(unit, _plain)(float(value))
    return numbers.NONE if value is None or value is pd.NA else str(value)


def _plain(value: float) -> str:
    return f"{value:.4g}" if value == value else numbers.NONE
