"""Claims of a study: the rows of each test, adjusted within their family, and one verdict a claim.

Verdicts are supported, contradicted, inconclusive, or indicative where only one cosine horizon was trained; "no
verdict" where there is too little to decide anything. The rule is in `decide`.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import numbers
from analysis.cells import Cell, labeller
from analysis.contrasts import Contrast, Versus, contrasts, learned_contrasts
from analysis.frame import axis_columns
from analysis.metrics.intervals import benjamini_hochberg, holm
from analysis.verdicts import ALPHA, EXPLORATORY_ALPHA, LEAST_PAIRS, Verdict, worst

LEAST_RUNS = 2
"""Runs that a learned check needs; it compares no pairs."""

ROW_COLUMNS = (
    "claim", "row", "family", "measure", "unit", "n", "estimate", "estimate_lo", "estimate_hi", "above", "at_least",
    "below", "p_above", "p_above_adj", "p_below", "p_below_adj", "learned", "horizons", "schedules",
    "n_diverged_treated", "n_diverged_other", "verdict", "reason",
)  # fmt: skip
CLAIM_COLUMNS = ("claim", "text", "family", "needs", "n_rows", "verdict", "reason")


class Claims(NamedTuple):
    """`verdicts`: a row a claim; `rows`: a row a test and setting of the axes, in the order of the claims."""

    verdicts: pd.DataFrame
    rows: pd.DataFrame


def claims(plan: dict[str, Any], versus: Versus, learned: pd.DataFrame) -> Claims:
    """The claims that `plan` registers, decided. `versus(arm, than)` gives the cells of an arm against another,
    `learned` is the table of learned checks."""
    said = plan.get("claims", [])
    sesoi = float(plan.get("sesoi", 1.05))

    label = labeller(plan)

    def name(cell: Cell) -> str:
        return label(cell.arm, cell.axes)

    def name_row(row: pd.Series) -> str:
        return label(row["arm"], {a: row[a] for a in axis_columns(plan)})

    found: list[tuple[dict[str, Any], Contrast]] = []
    for claim in said:
        for test in claim["tests"]:
            if test["type"] == "Learned":
                rows = learned_contrasts(test, learned, name_row)
            else:
                rows = contrasts(test, versus, sesoi, name)
            found += [(claim, row) for row in rows]
    above, below = _adjusted([c["family"] for c, _ in found], [r for _, r in found])
    table = []
    for (claim, row), p_above, p_below in zip(found, above, below, strict=True):
        check = _learned(row.cells, learned)
        verdict = decide(row, check, p_above, p_below, claim["family"])
        table.append(
            {
                "claim": claim["id"],
                "row": row.label,
                "family": claim["family"] or "exploratory",
                "measure": row.measure,
                "unit": row.unit,
                "n": row.n,
                "estimate": row.estimate.mean,
                "estimate_lo": row.estimate.low,
                "estimate_hi": row.estimate.high,
                "above": row.above,
                "at_least": row.at_least,
                "below": row.below,
                "p_above": row.p_above,
                "p_above_adj": p_above,
                "p_below": row.p_below,
                "p_below_adj": p_below,
                "learned": check,
                "horizons": row.horizons,
                "schedules": " / ".join(row.schedules),
                "n_diverged_treated": row.diverged[0],
                "n_diverged_other": row.diverged[1],
                **verdict._asdict(),
            }
        )
    rows = pd.DataFrame(table, columns=list(ROW_COLUMNS))
    verdicts = [_whole(claim, rows[rows["claim"] == claim["id"]]) for claim in said]
    return Claims(pd.DataFrame(verdicts, columns=list(CLAIM_COLUMNS)), rows)


def decide(row: Contrast, learned: str, p_above: float, p_below: float, family: str) -> Verdict:
    """The verdict on one row, from the learned check of its first stages and p values adjusted within its family.

    In order: too few pairs carry no verdict; more pairs that lost their treated run by divergence than their other
    one cap at inconclusive; *supported* needs the effect above `above` (adjusted p), at least `at_least`, within reach
    of what was published, and a learned first stage; *contradicted* needs it below `below`; one horizon that is not
    wsd's caps both at indicative, and one horizon of any schedule a contradiction of a speedup that is still above 1.
    """
    alpha = ALPHA if family else EXPLORATORY_ALPHA
    if row.lacking or math.isnan(row.estimate.mean):
        return Verdict("no verdict", f"{row.label}: {row.lacking or 'nothing can be read'}.")
    runs, least = row.unit_of, LEAST_RUNS if row.unit_of == "runs" else LEAST_PAIRS
    said = f"{row.label}: {row.measure} {shown(row)}"
    if row.n < least:
        return Verdict(f"no verdict ({row.n} of {least} {runs})", f"{said}, too few {runs} to tell from chance.")
    if row.diverged[0] > row.diverged[1]:
        text = f"in {row.diverged[0]} pairs its run diverged and in {row.diverged[1]} that of the other side"
        return Verdict("inconclusive", f"{said}, but {text}: the pairs that are left are a selection.")
    one_cosine = bool(row.schedules) and not set(row.schedules) <= {"wsd"} and row.horizons == 1
    cap = "; one cosine horizon allows no more than an indication" if one_cosine else ""
    over = p_above < alpha and row.estimate.mean > row.above
    meets = row.published is None or (row.estimate.low <= row.published[1] and row.estimate.high >= row.published[0])
    if over and row.estimate.mean >= row.at_least and meets:
        if learned in ("no", "one run"):
            check = "was not learned" if learned == "no" else "was checked in one run only"
            return Verdict("inconclusive", f"{said}, but the first stage {check}.")
        means = f"above {_number(row.above, row)} (p {p_above:.2g}, {_adjustment(family)})"
        return Verdict("indicative: for" if cap else "supported", f"{said}, {means}{_published(row)}{cap}.")
    if p_below < alpha and row.estimate.mean < row.below:
        means = f"below {_number(row.below, row)} (p {p_below:.2g}, {_adjustment(family)})"
        if row.unit == "x" and row.estimate.high >= 1 and row.horizons == 1 and not cap:
            cap = "; on one horizon decay pulls every crossing to the end, so this is an indication"
        return Verdict("indicative: against" if cap else "contradicted", f"{said}, {means}{cap}.")
    if over:
        short = (
            f"less than {_number(row.at_least, row)}"
            if row.estimate.mean < row.at_least
            else "outside of what was published"
        )
        return Verdict("inconclusive", f"{said}: there is an effect, but {short}.")
    return Verdict("inconclusive", f"{said}: the interval leaves the question open.")


def _learned(cells: Sequence[Cell], table: pd.DataFrame) -> str:
    """The worst learned check of the first stages of `cells`; "" where they have none."""
    found = []
    for cell in cells:
        rows = table[table["arm"] == cell.arm]
        for axis, value in cell.axes.items():
            rows = rows if value is None else rows[rows[axis].isna() | (rows[axis].astype(str) == str(value))]
        found += list(rows["learned"])
    return worst(found)


def shown(row: Contrast) -> str:
    """The estimate with its interval and unit."""
    digits, sign = (2, "") if row.unit == "x" else (4 if abs(row.estimate.mean) < 0.1 else 3, "+")
    unit = "x" if row.unit == "x" else f" {row.unit}"
    return f"{row.estimate.mean:{sign}.{digits}f}{unit} {numbers.between(*row.estimate[1:], digits, sign)}".rstrip()


def _number(value: float, row: Contrast) -> str:
    return f"{value:.2f}x" if row.unit == "x" else f"{value:.3g} {row.unit}"


def _published(row: Contrast) -> str:
    return (
        ""
        if row.published is None
        else f" and within reach of the published {row.published[0]:g} to {row.published[1]:g}"
    )


def _adjustment(family: str) -> str:
    return f"Holm in {family}" if family else "exploratory, false discovery rate"


def _adjusted(families: Sequence[str], rows: Sequence[Contrast]) -> tuple[np.ndarray, np.ndarray]:
    """p values of `above` and `below`, adjusted within each family: Holm, or Benjamini and Hochberg without one."""
    found = []
    for p in (np.array([r.p_above for r in rows], float), np.array([r.p_below for r in rows], float)):
        adjusted = np.full(len(p), np.nan)
        for family in dict.fromkeys(families):
            member = np.array([f == family for f in families])
            adjusted[member] = holm(p[member]) if family else benjamini_hochberg(p[member])
        found.append(adjusted)
    return found[0], found[1]


def _whole(claim: dict[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """The verdict on a claim from those on its rows."""
    kinds = [v if v.startswith("indicative") else v.split(" (")[0] for v in rows["verdict"]]
    decided = _combined(kinds, claim["needs"])
    exploratory = "" if claim["family"] else "exploratory: "
    if len(rows) == 1:
        reason = rows["reason"].iloc[0]
    else:
        counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
        reason = f"{', '.join(f'{n} of {len(rows)} {kind}' for kind, n in counts.items())}; {claim['needs']} needed."
    return {
        "claim": claim["id"],
        "text": claim["text"],
        "family": claim["family"] or "exploratory",
        "needs": claim["needs"],
        "n_rows": len(rows),
        "verdict": exploratory + decided,
        "reason": reason,
    }


def _combined(kinds: Sequence[str], needs: str) -> str:
    """One verdict for several. "all": for if all are for, against if any is against; "any": the other way round."""
    if not kinds or all(kind == "no verdict" for kind in kinds):
        return "no verdict"
    sides = {"for": ("supported", "indicative: for"), "against": ("contradicted", "indicative: against")}
    every, one = ("for", "against") if needs == "all" else ("against", "for")
    for side, enough in ((one, any), (every, all)):
        of_side = [kind for kind in kinds if kind in sides[side]]
        if enough(kind in sides[side] for kind in kinds):
            # A firm verdict on the one that decides is firm; where all are needed the weakest counts.
            firm = (any if enough is any else all)(kind == sides[side][0] for kind in of_side)
            return sides[side][0] if firm else sides[side][1]
    return "inconclusive"
