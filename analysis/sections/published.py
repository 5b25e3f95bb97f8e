"""What others reported on a claim, beside the study's own estimates of the same measures."""

import math
from collections.abc import Callable

import pandas as pd

from analysis import numbers
from analysis.page import Block, Heading, Table, Text, folded
from analysis.published.beside import HERE
from analysis.published.reported import IN_WORDS
from analysis.results import Results

ROWS = 12
"""Rows open to view."""
OWN = "this study"
MEASURES = {
    "perplexity_change": "perplexity change",
    "perplexity": "final perplexity",
    "speedup": "speedup",
    "speedup_5_mnats_up": "speedup 0.005 nats above the end",
    "speedup_20_mnats_up": "speedup 0.02 nats above the end",
    "net_speedup_tokens": "speedup net of tokens",
    "text_needed": "text for the same loss",
    "best_band": "best band of gzip ratios",
    "gzip_ratio": "gzip ratio",
    "accuracy": "accuracy",
    "pass_at_1_normalised": "pass@1 less chance",
    "pass_at_2_normalised": "pass@2 less chance",
    "pass_at_4_normalised": "pass@4 less chance",
    IN_WORDS: "result",
}
"""How measures of `Results.published` read."""
REMARKS = {
    "perplexity": "Perplexities compare on one text with one tokenizer alone; their change compares further.",
    "speedup": "A speedup read at the end of one cosine run, as the published ones are, hangs on its flat tail.",
    "net_speedup_tokens": "Here net counts the tokens before the text, as published; a rule in FLOPs counts more.",
    "best_band": "A best band is a maximum, which differs by chance; a study here tests one contrast of slopes.",
}
"""What a reader has to know of a measure before comparing."""


def published(results: Results, claim: str) -> list[Block]:
    """A table of reported rows and own rows, measure by measure, and how they differ; nothing where none is known."""
    rows = results.published[results.published["claim"] == claim]
    if rows.empty:
        return []
    ordered = [row for name in _order(rows) for _, row in rows[rows["measure"] == name].iterrows()]
    header = ("from", "value", "measure", "text", "seeds", "how")
    table = Table(header, [_cells(row) for row in ordered], (1, 4), (5,), (OWN,))
    head = Heading("Published, and here", 3)
    return [head, *(Text(said) for said in differences(rows)), *folded(table, ROWS)]


def differences(rows: pd.DataFrame) -> list[str]:
    """How the reported rows of a claim and the study's own differ, in sentences."""
    ours, theirs = rows[rows["obtained"] == HERE], rows[rows["obtained"] != HERE]
    said = []
    for study, own in theirs[theirs["seeds"] == 1].groupby("study", sort=False):
        sizes = ", ".join(m for m in dict.fromkeys(own["model"]) if m)
        said.append(f"{study}: one run an arm at {sizes} parameters, no seeds, and so no interval.")
    if ours["seeds"].max() > 0:
        read = ours[ours["seeds"] > 0]
        pairs, sizes = _range(read["seeds"], lambda v: f"{v:g}"), " to ".join(dict.fromkeys(read["model"]))
        text = _range(read["text_tokens"], numbers.tokens)
        said.append(
            f"This study: {pairs} pairs of seeds an estimate, with 95 % intervals, at {sizes} parameters without "
            f"embeddings and {text} text tokens."
        )
    elif len(ours):
        said.append("This study has no finished pair to compare yet.")
    else:
        said.append("This study estimates none of these measures.")
    return [" ".join(said), *(REMARKS[m] for m in dict.fromkeys(rows["measure"]) if m in REMARKS)]


def _order(rows: pd.DataFrame) -> list[str]:
    """Measures, those that the study estimates too first."""
    both = set(rows.loc[rows["obtained"] == HERE, "measure"])
    return sorted(dict.fromkeys(rows["measure"]), key=lambda name: name not in both)


def _cells(row: pd.Series) -> list[str | tuple[str, str]]:
    own = row.obtained == HERE
    size = [f"{row.model} parameters" if row.model else "", _tokens(row.text_tokens)]
    arms = f"{row.arm} against {row.baseline}" if row.arm and row.baseline else row.arm
    seeds = numbers.NONE if math.isnan(row.seeds) else f"{row.seeds:g}"
    return [
        OWN if own else row.study,
        (_value(row.value, row.unit, row.value_to), numbers.between(row.value_lo, row.value_hi)),
        (MEASURES[row.measure], f"of {arms}" if arms else ""),
        (row.corpus or numbers.NONE, ", ".join(filter(None, size))),
        seeds,
        (row.obtained, row.note),
    ]


def _value(value: float, unit: str, to: float = math.nan) -> str:
    if math.isnan(value):
        return numbers.NONE
    if unit == "x":
        return numbers.times(value)
    digits = f"{value:.2f}" if unit == "perplexity" else f"{value:.3g}"
    range_ = digits if math.isnan(to) else f"{digits} to {to:.3g}"
    return f"{range_} %" if unit == "%" else range_


def _tokens(value: float) -> str:
    return "" if math.isnan(value) else f"{numbers.tokens(value)} tokens"


def _range(values: pd.Series, said: Callable[[float], str]) -> str:
    return " to ".join(dict.fromkeys([said(values.min()), said(values.max())]))
