"""The verdict tables, as text for a terminal and as cells for a page."""

import textwrap

from analysis import numbers
from analysis.results import Results

WIDTH = 120
"""Columns of a terminal."""


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
    """The verdicts for a terminal, at most 120 columns wide: the claims, if the study registers any, then the table of
    cells with the reason of every row below it."""
    shown = [i for i, name in enumerate(VERDICT_HEADER) if name != "net of FLOPs"]
    with_interval = ("loss gap, nats", "speedup")
    rows = [[VERDICT_HEADER[i] for i in shown]]
    for row in verdict_rows(results):
        rows.append([" ".join(row[i][: 1 + (VERDICT_HEADER[i] in with_interval)]).strip() for i in shown])
    reasons = [textwrap.fill(reason, WIDTH, subsequent_indent="  ") for reason in results.verdicts["reason"]]
    return "\n".join([*_claim_lines(results), *_aligned(rows), "", *reasons])


def _claim_lines(results: Results) -> list[str]:
    lines = []
    for _, claim in results.claims.verdicts.iterrows():
        said = f"{claim.claim} ({claim.verdict}): {claim.text} {claim.reason}"
        lines.append(textwrap.fill(said, WIDTH, subsequent_indent="  "))
    return [*lines, "", "Cells, exploratory:", ""] if lines else []


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows in columns, a line under the first of them; the first column gives way where the terminal is too narrow."""
    width = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    width[0] = min(width[0], WIDTH - sum(width[1:]) - 2 * (len(width) - 1))
    lines = []
    for name, *others in rows:
        cut = name if len(name) <= width[0] else name[: width[0] - 1] + "…"
        lines.append("  ".join(cell.ljust(w) for cell, w in zip([cut, *others], width, strict=True)).rstrip())
    return [lines[0], "-" * (sum(width) + 2 * (len(width) - 1)), *lines[1:]]
