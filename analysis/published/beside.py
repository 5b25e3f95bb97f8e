"""Reported results of the claims that a study registers, and beside them the study's own estimates of the same
measures."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis import numbers
from analysis.cells import Cell, labeller
from analysis.contrasts import Versus, lacking
from analysis.metrics.speedup import exp
from analysis.published.reported import COLUMNS, NUMBERS, reported
from analysis.readings import chosen, effect, readable

HERE = "estimated here"
"""How the study's own rows were obtained."""
TABLE = (*COLUMNS[:10], "value_lo", "value_hi", *COLUMNS[10:])
"""Columns of `beside`."""
FLOATS = (*NUMBERS, "value_lo", "value_hi")


class Own(NamedTuple):
    """How a reported measure is read from a study's cells."""

    measure: str
    """Of `analysis.readings`."""
    shown: Callable[[float], float]
    """From nats or ln of a ratio to the unit in which it was reported; monotone."""


OWN: Mapping[str, Own] = {
    "speedup": Own("speedup", exp),
    "speedup_5_mnats_up": Own("speedup_5_mnats_up", exp),
    "speedup_20_mnats_up": Own("speedup_20_mnats_up", exp),
    "net_speedup_tokens": Own("net_speedup_tokens", exp),
    "perplexity_change": Own("gap", lambda gap: 100 * math.expm1(-gap)),
    "text_needed": Own("speedup", lambda ln_ratio: 100 * exp(-ln_ratio)),
}


def beside(plan: Mapping[str, Any], versus: Versus) -> pd.DataFrame:
    """A row a reported result of a claim that `plan` registers, then a row a cell that the claim's tests compare, for
    every measure of those results that can be read from it: TABLE.

    `versus(arm, than)` gives the cells of an arm against another. In the study's own rows `value_lo` and `value_hi`
    are the bounds of the 95 % interval over pairs, `seeds` the pairs, `model` the parameters of the body, and `note`
    says why there is no estimate."""
    known = reported()
    name = labeller(dict(plan))
    rows: list[dict[str, Any]] = []
    for claim in plan.get("claims", []):
        theirs = known[known["claim"] == claim["id"]]
        rows += theirs.to_dict("records")
        tests = [test for test in claim["tests"] if test["type"] == "Beats"]
        for measure in theirs.drop_duplicates("measure").itertuples():
            if measure.measure in OWN:
                of = {"claim": claim["id"], "study": plan["study"], "measure": measure.measure, "unit": measure.unit,
                      "obtained": HERE, "source": str(plan["hash"])}  # fmt: skip
                rows += [of | row for row in _own_rows(tests, OWN[str(measure.measure)], versus, name)]
    table = pd.DataFrame(rows, columns=list(TABLE))
    return table.astype({name: "float64" if name in FLOATS else "str" for name in TABLE})


def _own_rows(
    tests: Sequence[Mapping[str, Any]], own: Own, versus: Versus, name: Callable[[str, dict[str, Any]], str]
) -> Iterable[dict[str, Any]]:
    compared = {(t["arm"], t["than"], str(t.get("choose"))): t for t in tests}
    for test in compared.values():
        cells, how = chosen(readable(versus(test["arm"], test["than"]), own.measure), test.get("choose"))
        for cell in cells:
            yield _own_row(cell, own, test["than"]) | {"arm": f"{name(cell.arm, cell.axes)}{how}"}


def _own_row(cell: Cell, own: Own, than: str) -> dict[str, Any]:
    found = effect(cell, own.measure)
    row = {
        "model": numbers.tokens(cell.params) if cell.finished() else "", "corpus": cell.domain,
        "text_tokens": cell.text_tokens, "baseline": than, "seeds": 0, "note": lacking(cell, than),
    }  # fmt: skip
    if found is None:
        return row
    value, *ends = (own.shown(v) for v in found.interval)
    low, high = sorted(ends)
    return row | {"value": value, "value_lo": low, "value_hi": high, "seeds": found.n, "note": ""}
