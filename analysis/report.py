"""A study on one page: question, finding and verdicts first, then what they rest on, then how to repeat it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, numbers
from analysis.cells import label
from analysis.frame import axis_columns
from analysis.page import (
    Block,
    Code,
    Details,
    Figures,
    Finding,
    Heading,
    Strips,
    Table,
    Text,
    html,
    markdown,
)
from analysis.speedup import crossings, gap_curve
from analysis.tables import VERDICT_HEADER, Results, verdict_rows
from analysis.verdicts import LEAST_PAIRS, needs

ACCENT = ("supported", "contradicted", "indicative: faster", "indicative: slower")
"""Verdicts that say something stand out."""

PHRASES = 6
"""Cells that a sentence of the finding names."""


def write(store: Path | str, study: str, out_dir: Path | str, beside: Sequence[Path | str] = ()) -> Path:
    """Writes report.html, which needs no other file, and report.md into `out_dir`; returns the path of the former.

    `beside` are directories that `analysis.export` wrote, each shown in a section of its own. Raises DataError where
    the store or an export cannot be read.
    """
    results = Results.from_store(store, study)
    others = [Results.from_export(directory) for directory in beside]
    content = blocks(results, others)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(content))
    path = out / "report.html"
    path.write_text(html(f"{study}: {question(results)[0]}", content))
    return path


def blocks(results: Results, beside: Sequence[Results] = ()) -> list[Block]:
    """The content of the page."""
    title, more = question(results)
    return [
        Text(_over(results), "over"),
        Heading(title, 1),
        *([Text(more)] if more else []),
        Finding(finding(results)),
        *_verdicts(results),
        *_curves(results),
        *_first_stages(results),
        *_induction(results),
        *_differences(results),
        *[b for other in beside for b in _beside(other)],
        *_status(results),
        *_environment(results),
        *_repeat(results),
    ]


def question(results: Results) -> tuple[str, str]:
    """The first line of the study's question, and the rest of it."""
    first, _, rest = str(results.plan.get("question") or results.study).strip().partition("\n")
    return first.strip(), " ".join(rest.split())


def finding(results: Results) -> list[str]:
    """What was found, a plain sentence a verdict."""
    if results.effects.empty:
        return ["This study compares nothing: it has no arm beside its baseline."]
    groups: dict[str, list[int]] = {}
    for i, verdict in enumerate(results.verdicts["verdict"]):
        groups.setdefault(verdict, []).append(i)
    sentences = []
    for verdict, members in groups.items():
        rows = [results.effects.iloc[i] for i in members]
        said = [needs(row, results.plan["baseline"], results.labels[i]) for i, row in zip(members, rows, strict=True)]
        more = f"; and {len(said) - PHRASES} more" if len(said) > PHRASES else ""
        budgets = {numbers.tokens(row.text_tokens) for row in rows if row.gap_kind == "shared budget"}
        at = f" at {budgets.pop()} text tokens" if len(budgets) == 1 else ""
        sentences.append(f"{verdict[0].upper()}{verdict[1:]}{at}: {'; '.join(said[:PHRASES])}{more}.")
    return sentences


def _over(results: Results) -> str:
    planned = len(results.plan["points"])
    when = str(results.plan.get("registered", ""))[:10]
    return f"Study {results.study} · registered {when} · {planned - len(results.missing)} of {planned} points finished"


def _verdict_block(results: Results) -> Table:
    rows = verdict_rows(results)
    return Table(VERDICT_HEADER, rows, range(1, 6), accent=ACCENT, notes=list(results.verdicts["reason"]))


def _verdicts(results: Results) -> list[Block]:
    names, effects, base = results.labels, results.effects, results.plan["baseline"]
    more = Table(
        [
            "arm", "final loss", f"final loss of {base}", "perplexity", "area gain, nats", "bits per byte gained",
            "text saved", "saved per token before", "p (Holm)", "estimator", "schedule",
        ],
        [
            [
                name,
                numbers.nats(e.treated_loss_nats),
                numbers.nats(e.target_loss_nats),
                numbers.percent(e.ppl_change_pct),
                numbers.NONE if e.gap_kind == "own ends" else numbers.signed_nats(e.auc_gain_nats),
                numbers.signed_nats(e.dloss_bits_per_byte),
                numbers.NONE if e.gap_kind == "own ends" else numbers.tokens(e.tokens_saved),
                f"{e.mrs_avg:.2f}" if math.isfinite(e.mrs_avg) else numbers.NONE,
                f"{e.p_adj:.2g}" if math.isfinite(e.p_adj) else numbers.NONE,
                e.estimator or numbers.NONE,
                e.schedule_kind or numbers.NONE,
            ]
            for name, (_, e) in zip(names, effects.iterrows(), strict=True)
        ],
        range(1, 9),
    )  # fmt: skip
    return [
        _verdict_block(results),
        *(Text(note, "note") for note in cautions(results)),
        Details("How to read this table", [Text(text) for text in _reading(results)]),
        Details("More measures of the same pairs", [more]),
    ]


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
    return [f"{say} {', '.join(whom)}." for say, whom in found.items()]


def _reading(results: Results) -> list[str]:
    base, sesoi = results.plan["baseline"], float(results.plan.get("sesoi", 1.05))
    pairs = (
        "A pair is two runs with one seed, one data order and one set of initial draws. Brackets are 95 % intervals "
        "over pairs. "
        f"Loss gap: {base} minus the arm at the end, so above zero the arm is better. "
        f"Speedup: text tokens that {base} needs over those that the arm needs to reach {base}'s own final loss; where "
        "the arm never reaches it, the same ratio at the arm's final loss, which is then below 1. "
        "Between arms with unlike text budgets only the ends are compared. "
        "Net: what the arm spent before its text is added to its bill, in FLOPs with the generation of its tokens."
    )
    rule = (
        f"Supported: the speedup is above 1 (Holm over all cells, 5 %) and at least {sesoi:g}, and the first stage was "
        f"learned. Contradicted: the arm is slower, and {sesoi:g} is excluded. One cosine horizon allows no more than "
        f"an indication, and fewer than {LEAST_PAIRS} pairs no verdict at all."
    )
    return [pairs, rule]


def _curves(results: Results) -> list[Block]:
    curves, gaps = figures.loss_curves(results), figures.loss_gap(results)
    if not curves:
        return [Heading("Curves"), Text("No pair is finished yet.")]
    base = results.plan["baseline"]
    loss_caption = "Held-out loss while training on text. Thin: every seed. Thick: smoothed mean."
    gap_caption = (
        f"Loss of {base} minus that of the arm; above zero the arm leads. Thin: every pair. Band: 95 % interval. "
        "Dashed: the arm's budget differs, so mid-run its schedule is at another place."
    )
    drawn = [(svg, loss_caption) for svg in curves] + [(svg, gap_caption) for svg in gaps]
    forest = figures.speedup_forest(results)
    sesoi = float(results.plan.get("sesoi", 1.05))
    by_loss = figures.speedup_by_loss(results)
    by_loss_caption = (
        f"Speedup at every loss on the way of {base} to its final one (dot), with 95 % band. A line that bends near "
        "its end says that the headline hangs on the tail of the schedule."
    )
    forest_caption = f"Speedup with 95 % interval, gross and net. Dotted: {sesoi:g}, the least of interest."
    return [
        Heading("Loss against text"),
        *(Text(s) for s in crossing_sentences(results)),
        Figures(drawn),
        Heading("Speedup"),
        Figures([*([(forest, forest_caption)] if forest else []), *((svg, by_loss_caption) for svg in by_loss)]),
    ]


def crossing_sentences(results: Results) -> list[str]:
    """Where the curves of an arm and the baseline cross beyond the noise of seeds."""
    said = []
    for name, cell in zip(results.labels, results.cells, strict=True):
        read = [(b, t) for _, t, b in cell.readable()]
        for tokens, leads in crossings(gap_curve(read)) if read and cell.same_budget else []:
            verb = "overtakes" if leads else "falls behind"
            said.append(f"{name} {verb} {results.plan['baseline']} at {numbers.tokens(tokens)} text tokens.")
    return said


def _first_stages(results: Results) -> list[Block]:
    table = results.learned
    if table.empty:
        return []
    rows: list[list[str | tuple[str, str]]] = []
    for _, r in table.iterrows():
        name = label(r.arm, {a: r[a] for a in axis_columns(results.plan)}, results.plan)
        rows.append(
            [
                name,
                str(r.n_runs),
                numbers.nats(r.loss_nats),
                (numbers.nats(r.best_nats), r.best),
                (numbers.signed_nats(r.gain_nats), numbers.between(r.gain_nats_lo, r.gain_nats_hi, 3, "+")),
                numbers.nats(r.needed_nats),
                (numbers.share(r.accuracy), f"copying {numbers.share(r.copy_accuracy)}"),
                numbers.share(r.acceptance),
                r.learned,
            ]
        )
    losses = ("loss, nats", "best predictor", "gain, nats", "needed")
    header = ["first stage of", "runs", *losses, "accuracy", "kept", "learned"]
    caption = "Held-out loss on rules never trained on, by frame: it falls where a rule is inferred in context."
    strips = [
        Strips(
            f"{name}: one rule a row, time from left to right; on the left the gzip ratio of its tokens.",
            [(f"{score:.2f}", uri) for score, uri in rows_of_pixels],
        )
        for name, rows_of_pixels in figures.automata(results)
    ]
    return [
        Heading("Was the first stage learned in context?"),
        Text(
            "Its loss on rules never seen must beat the best of three simple predictors by 5 % of that predictor's "
            "loss, with the whole 95 % interval. Kept: the share of drawn rules whose complexity lies in the band."
        ),
        Table(header, rows, range(1, 8), accent=("no",)),
        Figures([(svg, caption) for svg in figures.learned_check(results)], strips),
    ]


def _induction(results: Results) -> list[Block]:
    drawn = figures.induction_probe(results)
    if not drawn:
        return []
    caption = "Loss on the second occurrence of a random sequence minus that on the first: below zero it is copied."
    return [Heading("Induction probe"), Figures([(svg, caption) for svg in drawn])]


def _differences(results: Results) -> list[Block]:
    rows = [[name, c.differs_in or "nothing"] for name, c in zip(results.labels, results.cells, strict=True)]
    return [
        Heading("What differs in each pair"),
        Text(f"Every other field of the two runs is equal: the arm against {results.plan['baseline']}."),
        Table(["arm", "fields that differ"], rows, (), (1,)),
    ]


def _beside(results: Results) -> list[Block]:
    title, more = question(results)
    pictures = [(svg, "Held-out loss against text tokens.") for svg in figures.loss_curves(results)]
    pictures += [(svg, "Loss gap, with its 95 % interval.") for svg in figures.loss_gap(results)]
    return [
        Heading("Beside it: a longer study"),
        Text(f"{results.study}: {title} {more}".strip()),
        Finding(finding(results)),
        _verdict_block(results),
        *(Text(s) for s in crossing_sentences(results)),
        Figures(pictures),
        Text(f"From committed tables; registered plan {str(results.plan['hash'])[:12]}.", "note"),
    ]


def _status(results: Results) -> list[Block]:
    status = Counter(d["status"] for d in results.stages.values())
    done = ", ".join(f"{n} {name}" for name, n in status.items()) or "none"
    found: list[Block] = [Heading("Status"), Text(f"Stages: {done}. Points not finished: {len(results.missing)}.")]
    if len(results.missing):
        texts = results.missing.assign(stage=results.missing["stage"].str[:12]).astype(object)
        rows = [[numbers.NONE if pd.isna(v) else str(v) for v in row] for row in texts.to_numpy()]
        found.append(Details("Points that wait", [Table(list(results.missing.columns), rows)]))
    return found


def _environment(results: Results) -> list[Block]:
    documents = list(results.stages.values())
    facts = [
        ("versions", _distinct(", ".join(f"{k} {v}" for k, v in d["versions"].items()) for d in documents)),
        ("hardware", _distinct(d["hardware"].get("gpu") or d["hardware"].get("cpu") for d in documents)),
        ("threads", _distinct(d.get("threads") for d in documents)),
        ("workers", _distinct(d.get("world") for d in documents)),
        ("executed", _distinct(d.get("executed") for d in documents)),
        ("commit", _distinct(d.get("commit") for d in documents)),
        ("time", f"{numbers.seconds(sum(d['wall_s'] for d in documents))} over all stages"),
    ]
    return [Heading("Environment"), Table((), [[k, v] for k, v in facts], long=(1,))]


def _repeat(results: Results) -> list[Block]:
    rows = [
        [d.get("kind", ""), digest[:12], numbers.tokens(float(d.get("tokens", math.nan))), d["status"],
         numbers.seconds(float(d["wall_s"]))]
        for digest, d in results.stages.items()
    ]  # fmt: skip
    return [
        Heading("Repeat it"),
        Code(
            f"python -m harness run search_spaces/{results.study}.py\npython -m analysis report STORE {results.study}"
        ),
        Text(f"Registered plan: {results.plan['hash']}", "note"),
        Details(f"{len(rows)} stages", [Table(["kind", "digest", "tokens", "status", "time"], rows, (2, 4))]),
    ]


def _distinct(values: Iterable[Any]) -> str:
    """Distinct values with how often each occurs, if there is more than one."""
    counts = Counter(str(v) for v in values if v is not None)
    if len(counts) <= 1:
        return next(iter(counts), numbers.NONE)
    return "; ".join(f"{value} ({n})" for value, n in counts.most_common())
