"""Each registered claim: its rule, its rows, and a picture of them."""

from typing import Any

from analysis import numbers, rules
from analysis.figures.claims import claim_rows
from analysis.page import Block, Figures, Heading, Section, Table, Text, folded
from analysis.results import Results
from analysis.sections.published import published

ACCENT = ("supported", "contradicted", "indicative: ")
"""Verdicts that say something stand out."""
ROWS = 12
"""Rows of a claim open to view."""


def anchor(claim: str) -> str:
    """The id of a claim's section."""
    return f"claim-{claim.lower()}"


def claims(results: Results) -> list[Block]:
    """A section a claim."""
    sesoi = float(results.plan.get("sesoi", 1.05))
    found: list[Block] = []
    verdicts = results.claims.verdicts.set_index("claim")
    for claim in results.plan.get("claims", []):
        verdict = verdicts.loc[claim["id"]]
        rows = results.claims.rows[results.claims.rows["claim"] == claim["id"]]
        reported = next((tuple(t["published"]) for t in claim["tests"] if t.get("published")), None)
        caption = "Estimates with 95 % intervals. Dotted: to be exceeded; dashed: contradicted below."
        pictures = [(svg, caption) for svg in claim_rows(rows, reported)]
        said = [Text(rules.rule(test, sesoi)) for test in _distinct(claim["tests"])]
        need = "All rows are needed" if claim["needs"] == "all" else "One row is enough"
        family = f"Family {claim['family']}" if claim["family"] else "Exploratory"
        found.append(
            Section(
                Heading(f"{claim['id']}: {claim['text']}", id=anchor(claim["id"])),
                [Text(f"{verdict.verdict[0].upper()}{verdict.verdict[1:]}. {verdict.reason}"), *said,
                 Text(f"{family}. {need}. {rules.common()}", "note"), Figures(pictures), *_rows(rows),
                 *published(results, claim["id"])],
            )
        )  # fmt: skip
    return found


def _distinct(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({str(test): test for test in tests}.values())


def _rows(rows: Any) -> list[Block]:
    header = ("row", "measure", "n", "estimate", "p above", "p below", "learned", "verdict")
    cells = []
    for _, r in rows.iterrows():
        digits, sign = (2, "") if r.unit == "x" else (4, "+")
        value = "-" if r.estimate != r.estimate else f"{r.estimate:{sign}.{digits}f}{'x' if r.unit == 'x' else ''}"
        between = numbers.between(r.estimate_lo, r.estimate_hi, digits, sign)
        cells.append([r["row"], r.measure, str(r.n), (value, between), _p(r.p_above_adj), _p(r.p_below_adj),
                      r.learned or numbers.NONE, r.verdict])  # fmt: skip
    table = Table(header, cells, range(2, 6), (0,), ACCENT, list(rows["reason"]))
    return folded(table, ROWS) if cells else []


def _p(value: float) -> str:
    return numbers.NONE if value != value else f"{value:.2g}"
