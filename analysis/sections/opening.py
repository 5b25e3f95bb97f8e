"""The first screen: the question, what was found, the verdicts and the forest."""

import math

from analysis import figures, numbers
from analysis.deviations import EARLY
from analysis.page import Block, Columns, Details, Figures, Finding, Heading, Table, Text, folded
from analysis.results import Results
from analysis.sections.claims import ACCENT, anchor
from analysis.sections.curves import CURVES
from analysis.sections.own import metric_cells, metric_titles
from analysis.verdict_table import VERDICT_HEADER, verdict_rows
from analysis.verdicts import LEAST_PAIRS, needs

PHRASES = 6
"""Cells that a sentence of the finding names."""
NAMED = 24
"""Cells that a caution names."""


def opening(results: Results) -> list[Block]:
    title, more = question(results)
    head: list[Block] = [Text(over(results), "over"), Heading(title, 1), *([Text(more)] if more else [])]
    found = Finding(finding(results))
    named = claimed_cells(results)
    forest = figures.speedup_forest(results, named)
    tables = [*claim_table(results), *_cells(results)]
    if forest is None:
        return [*head, found, *tables]
    sesoi = float(results.plan.get("sesoi", 1.05))
    caption = (
        f"Speedup with 95 % interval, gross and net, and that of each pair. Dotted: {sesoi:g}, the least of interest."
    )
    return [*head, found, Columns(tables, [Figures([(forest, caption)])])]


def question(results: Results) -> tuple[str, str]:
    """The first line of the study's question, and the rest of it."""
    first, _, rest = str(results.plan.get("question") or results.study).strip().partition("\n")
    return first.strip(), " ".join(rest.split())


def over(results: Results) -> str:
    planned = len(results.plan["points"])
    when = str(results.plan.get("registered", ""))[:10]
    changed = int(results.deviations["deviation"].sum())
    said = f"Study {results.study} · registered {when} · {planned - len(results.missing)} of {planned} points finished"
    return said + (f" · {changed} deviations from its first plan" if changed else "")


def finding(results: Results) -> list[str]:
    """What was found, a plain sentence a verdict."""
    if len(results.claims.verdicts):
        return [f"{c.claim} ({c.verdict}): {c.text}" for _, c in results.claims.verdicts.iterrows()]
    if results.effects.empty:
        return ["This study compares nothing: it has no arm beside its baseline."]
    groups: dict[str, list[int]] = {}
    for i, verdict in enumerate(results.verdicts["verdict"]):
        groups.setdefault(verdict, []).append(i)
    sentences = []
    for verdict, members in groups.items():
        rows = [results.effects.iloc[i] for i in members]
        said = [
            needs(row, results.plan["baseline"], results.labels[i])
            for i, row in zip(members[:PHRASES], rows[:PHRASES], strict=True)
        ]
        more = f"; and {len(rows) - PHRASES} more" if len(rows) > PHRASES else ""
        budgets = {numbers.tokens(row.text_tokens) for row in rows if row.gap_kind == "shared budget"}
        at = f" at {budgets.pop()} text tokens" if len(budgets) == 1 else ""
        sentences.append(f"{verdict[0].upper()}{verdict[1:]}{at}: {'; '.join(said)}{more}.")
    return sentences


def claimed_cells(results: Results) -> list[int]:
    """Places in `Results.cells` of the arms that claims name, which figures draw first."""
    arms = {t["arm"] for c in results.plan.get("claims", []) for t in c["tests"]}
    return [i for i, cell in enumerate(results.cells) if cell.arm in arms]


def claim_table(results: Results) -> list[Block]:
    """Verdicts on claims; empty where none is registered."""
    verdicts = results.claims.verdicts
    if verdicts.empty:
        return []
    rows = [[(c.claim, c.family), c.verdict, c.text] for _, c in verdicts.iterrows()]
    links = [anchor(claim) for claim in verdicts["claim"]]
    return [
        Table(("claim", "verdict", "what it says"), rows, (), (2,), ACCENT, list(verdicts["reason"]), links),
        Text(_registered(results), "note"),
    ]


def _registered(results: Results) -> str:
    """Whether the claims were said before their results could be known."""
    table = results.deviations
    early = table[table["change"] == EARLY]
    claims = table[table["change"].str.startswith("claims") & table["deviation"].astype(bool)]
    if len(early):
        return f"The claims were registered when {early['what'].iloc[0]} were finished already, for another study."
    if len(claims):
        return "Claims were changed when results could have been seen: see the deviations."
    return "The claims and their rules were registered before the first stage of the study had ended."


def cell_table(results: Results, link: str = "") -> list[Block]:
    """The verdict table of cells, the first of them open to view."""
    rows, notes = verdict_rows(results), list(results.verdicts["reason"])
    table = Table(VERDICT_HEADER, rows, range(1, 6), (), ACCENT, notes, [link] * len(rows))
    return folded(table, what="cells")


def _cells(results: Results) -> list[Block]:
    link = CURVES if any(cell.finished() for cell in results.cells) else ""
    notes = [Text(note, "note") for note in cautions(results)]
    help_ = Details("How to read this table", [Text(text) for text in _reading(results)])
    more = Details("More measures of the same pairs", [_measures(results)])
    if len(results.claims.verdicts):
        label = f"All cells against {results.plan['baseline']} (exploratory): {len(results.cells)}"
        return [*notes, Details(label, [*cell_table(results, link), help_, more])]
    return [*cell_table(results, link), *notes, help_, more]


def _measures(results: Results) -> Table:
    base = results.plan["baseline"]
    header = [
        "arm", "final loss", f"final loss of {base}", "perplexity", "bits per byte gained", "text saved",
        "saved per token before", "p (adjusted)", "pair correlation", "estimator", "schedule", *metric_titles(results),
    ]  # fmt: skip
    rows: list[list[str | tuple[str, str]]] = [
        [
            name,
            numbers.nats(e.treated_loss_nats),
            numbers.nats(e.target_loss_nats),
            numbers.percent(e.ppl_change_pct),
            numbers.signed_nats(e.dloss_bits_per_byte),
            numbers.NONE if e.gap_kind == "own ends" else numbers.tokens(e.tokens_saved),
            f"{e.mrs_avg:.2f}" if math.isfinite(e.mrs_avg) else numbers.NONE,
            f"{e.p_adj:.2g}" if math.isfinite(e.p_adj) else numbers.NONE,
            f"{e.pair_corr:.2f}" if math.isfinite(e.pair_corr) else numbers.NONE,
            e.estimator or numbers.NONE,
            e.schedule_kind or numbers.NONE,
            *metric_cells(results, e),
        ]
        for name, (_, e) in zip(results.labels, results.effects.iterrows(), strict=True)
    ]
    return Table(header, rows, [i for i in range(1, len(header)) if header[i] not in ("estimator", "schedule")])


def cautions(results: Results) -> list[str]:
    """What a reader of the verdicts has to know besides: flat tails, bounds, unlike machines, diverged runs."""
    effects, names = results.effects, results.labels
    found: dict[str, list[str]] = {}
    for name, (_, e) in zip(names, effects.iterrows(), strict=True):
        if e.flat_tail:
            say = "Flat at the end against the noise of seeds; read 0.02 nats higher the speedup is"
            found.setdefault(say, []).append(f"{numbers.times(e.speedup_20_mnats_up)} for {name}")
        if e.n_left_censored:
            say = "Crossed before the first evaluation, so the speedup is a bound:"
            found.setdefault(say, []).append(f"{name} ({e.n_left_censored} pairs)")
        if e.n_machines_differ:
            say = "Pairs that ran on different hardware or thread counts:"
            found.setdefault(say, []).append(f"{name} ({e.n_machines_differ})")
        if e.n_diverged_treated or e.n_diverged_baseline:
            say = "Diverged runs, which carry no estimate (arm, baseline):"
            found.setdefault(say, []).append(f"{name} ({e.n_diverged_treated}, {e.n_diverged_baseline})")
    return [f"{say} {_some(whom)}." for say, whom in found.items()]


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _reading(results: Results) -> list[str]:
    base, sesoi = results.plan["baseline"], float(results.plan.get("sesoi", 1.05))
    pairs = (
        "A pair is two runs with one seed, one data order and one set of initial draws. Brackets are 95 % intervals "
        "over pairs. "
        f"Loss gap: {base} minus the arm at the end, so above zero the arm is better. "
        f"Speedup: text tokens that {base} needs over those that the arm needs to reach {base}'s own final loss; where "
        "the arm never reaches it, the same ratio at the arm's final loss, which is then below 1. "
        "Between arms with unlike text budgets only the ends are compared. "
        "Net: what the arm spent before its text is added to its bill, in FLOPs with the generation of its tokens; a "
        "cell's net bounds are those of its speedup, a claim's are read pair by pair."
    )
    claimed = len(results.claims.verdicts) > 0
    adjusted = "false discovery rate 10 %" if claimed else "Holm over all cells, 5 %"
    rule = (
        f"Supported: the speedup is above 1 ({adjusted}) and at least {sesoi:g}, and the first stage was learned. "
        f"Contradicted: the arm is slower, and {sesoi:g} is excluded. One cosine horizon allows no more than an "
        f"indication, and fewer than {LEAST_PAIRS} pairs no verdict at all."
    )
    return [pairs, rule]
