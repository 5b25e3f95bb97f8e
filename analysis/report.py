"""A study on one page: question, finding and verdicts first, then what they rest on, then how to repeat it."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, numbers
from analysis.frame import axis_columns
from analysis.page import Block, Code, Details, Figures, Finding, Heading, Strips, Table, Text, html, markdown
from analysis.speedup import crossings, gap_curve
from analysis.tables import Results
from analysis.verdicts import LEAST_PAIRS

SENTENCES = 4
"""Reasons that open the page; a study with more cells is summed up instead."""


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
    """What was found, in plain sentences: every cell's reason, or a count of verdicts and the two extreme cells."""
    verdicts, effects = results.verdicts, results.effects
    if effects.empty:
        return ["This study compares nothing: it has no arm beside its baseline."]
    if len(effects) <= SENTENCES:
        return list(verdicts["reason"])
    counts = ", ".join(f"{n} {verdict}" for verdict, n in Counter(verdicts["verdict"]).most_common())
    read = effects["speedup"].dropna()
    extremes = list(dict.fromkeys([read.idxmax(), read.idxmin()])) if len(read) else []
    return [f"{len(effects)} comparisons: {counts}.", *(verdicts["reason"][i] for i in extremes)]


def _over(results: Results) -> str:
    planned = len(results.plan["points"])
    when = str(results.plan.get("registered", ""))[:10]
    return f"Study {results.study} · registered {when} · {planned - len(results.missing)} of {planned} points finished"


def _verdict_block(results: Results) -> Table:
    axes = [a for a in axis_columns(results.plan) if results.effects[a].notna().any()]
    rows: list[list[str | tuple[str, str]]] = []
    for (_, e), (_, v) in zip(results.effects.iterrows(), results.verdicts.iterrows(), strict=True):
        own = ", own ends" if e.gap_kind == "own ends" else ""
        bounds = numbers.between(e.dloss_nats_lo, e.dloss_nats_hi, 3, "+")
        net = numbers.between(e.net_speedup_tokens_lo, e.net_speedup_tokens_hi)
        rows.append(
            [
                e.arm,
                *(numbers.NONE if e[a] is None else str(e[a]) for a in axes),
                f"{e.n_pairs} of {e.n_planned}",
                (numbers.signed_nats(e.dloss_nats), bounds + own),
                (numbers.times(e.speedup), numbers.between(e.speedup_lo, e.speedup_hi)),
                (numbers.times(e.net_speedup_tokens), net),
                numbers.times(e.net_speedup_flops),
                v.verdict,
                v.reason,
            ]
        )
    n = len(axes)
    header = ["arm", *axes, "pairs", "loss gap, nats", "speedup", "net of tokens", "net of FLOPs", "verdict", "reason"]
    right = [n + 1, n + 2, n + 3, n + 4, n + 5]
    return Table(
        header, rows, right, (n + 7,), ("supported", "indicative: faster", "indicative: slower", "contradicted")
    )


def _verdicts(results: Results) -> list[Block]:
    plan, effects = results.plan, results.effects
    sesoi = float(plan.get("sesoi", 1.05))
    base = plan["baseline"]
    reading = [
        f"A pair is two runs with one seed, one data order and one set of initial draws; pairs are averaged and the "
        f"brackets are 95 % intervals over seeds. Loss gap: {base} minus the arm at the end, so positive is better "
        f"for the arm. Speedup: text tokens that {base} needs over those that the arm needs to reach {base}'s own "
        f"final loss; where the arm never reaches it, the ratio at the arm's final loss, then below 1. Net: what the "
        f"arm spent before its text, generation included in FLOPs, is added to its bill.",
        f"Supported: the speedup is above 1 (Holm over all cells, 5 %), at least {sesoi:g}, and the first stage was "
        f"learned. Contradicted: {sesoi:g} is excluded. One cosine horizon allows no more than an indication, and "
        f"fewer than {LEAST_PAIRS} pairs no verdict at all.",
    ]
    notes: list[Block] = []
    for i, e in effects.iterrows():
        name = results.labels[int(i)]
        if e.flat_tail:
            up = numbers.times(e.speedup_20_mnats_up)
            notes.append(Text(f"{name}: the curve is flat at its end against the noise of seeds; 0.02 nats higher the "
                              f"speedup reads {up}.", "note"))  # fmt: skip
        if e.n_left_censored:
            notes.append(Text(f"{name}: {e.n_left_censored} pairs crossed before the first evaluation; their speedup "
                              f"is a bound.", "note"))  # fmt: skip
        if e.n_machines_differ:
            notes.append(
                Text(f"{name}: {e.n_machines_differ} pairs ran on different hardware or thread counts.", "note")
            )
        if e.n_diverged_treated or e.n_diverged_baseline:
            notes.append(Text(f"{name}: {e.n_diverged_treated} of its runs and {e.n_diverged_baseline} of {base} "
                              f"diverged and carry no estimate.", "note"))  # fmt: skip
    more = Table(
        ["arm", "final loss", f"final loss of {base}", "perplexity", "area gain, nats", "bits per byte gained",
         "text saved", "saved per token before", "p (Holm)", "estimator", "schedule"],
        [
            [name, numbers.nats(e.treated_loss_nats), numbers.nats(e.target_loss_nats), numbers.percent(e.ppl_change_pct),
             numbers.signed_nats(e.auc_gain_nats), numbers.signed_nats(e.dloss_bits_per_byte),
             numbers.tokens(e.tokens_saved), f"{e.mrs_avg:.2f}" if math.isfinite(e.mrs_avg) else numbers.NONE,
             f"{e.p_adj:.2g}" if math.isfinite(e.p_adj) else numbers.NONE, e.estimator or numbers.NONE,
             e.schedule_kind or numbers.NONE]
            for name, (_, e) in zip(results.labels, effects.iterrows(), strict=True)
        ],
        range(1, 9),
    )  # fmt: skip
    return [
        _verdict_block(results),
        *notes,
        Details("How to read this table", [Text(t) for t in reading]),
        Details("More measures of the same pairs", [more]),
    ]


def _curves(results: Results) -> list[Block]:
    curves, gaps = figures.loss_curves(results), figures.loss_gap(results)
    if not curves:
        return [Heading("Curves"), Text("No pair is finished yet.")]
    base = results.plan["baseline"]
    drawn = [(svg, "Held-out loss while training on text. Thin: every seed. Thick: smoothed mean.") for svg in curves]
    drawn += [
        (svg, f"Loss of {base} minus that of the arm; above zero the arm leads. Thin: every pair. Band: 95 % interval. "
              "Dashed: the arm's budget differs, so mid-run its schedule is at another place.")
        for svg in gaps
    ]  # fmt: skip
    forest = figures.speedup_forest(results)
    sesoi = float(results.plan.get("sesoi", 1.05))
    speedups = [(forest, f"Speedup with 95 % interval, gross and net. Dotted: {sesoi:g}, the least of interest.")]
    return [
        Heading("Loss against text"),
        *(Text(s) for s in crossing_sentences(results)),
        Figures(drawn),
        Heading("Speedup"),
        Figures([(svg, caption) for svg, caption in speedups if svg]),
    ]


def crossing_sentences(results: Results) -> list[str]:
    """Where the curves of an arm and the baseline cross beyond the noise of seeds."""
    said = []
    for name, cell in zip(results.labels, results.cells, strict=True):
        read = [(b, t) for _, t, b in cell.readable()]
        same = all(abs(t.text_tokens / b.text_tokens - 1) < 0.01 for _, t, b in cell.finished())
        for tokens, leads in crossings(gap_curve(read)) if read and same else []:
            verb = "overtakes" if leads else "falls behind"
            said.append(f"{name} {verb} {results.plan['baseline']} at {numbers.tokens(tokens)} text tokens.")
    return said


def _first_stages(results: Results) -> list[Block]:
    table = results.learned
    if table.empty:
        return []
    rows = []
    for _, r in table.iterrows():
        name = ", ".join([r.arm, *(f"{a} {r[a]}" for a in axis_columns(results.plan) if r[a] is not None)])
        gain = (numbers.signed_nats(r.gain_nats), numbers.between(r.gain_nats_lo, r.gain_nats_hi, 3, "+"))
        right = f"{100 * r.accuracy:.0f} %" if math.isfinite(r.accuracy) else numbers.NONE
        copy = f"{100 * r.copy_accuracy:.0f} %" if math.isfinite(r.copy_accuracy) else numbers.NONE
        kept = f"{100 * r.acceptance:.0f} %" if math.isfinite(r.acceptance) else numbers.NONE
        rows.append([name, str(r.n_runs), numbers.nats(r.loss_nats), (numbers.nats(r.best_nats), r.best), gain,
                     numbers.nats(r.needed_nats), right, copy, kept, r.learned])  # fmt: skip
    header = ["first stage of", "runs", "loss, nats", "best simple predictor", "gain, nats", "needed", "next token right",
              "by copying", "rules kept", "learned"]  # fmt: skip
    drawn = [(svg, "Held-out loss of rules never trained on, by frame: it falls where the rule is inferred in context.")
             for svg in figures.learned_check(results)]  # fmt: skip
    strips = [
        Strips(f"{name}: one rule a row, time from left to right; left, the gzip ratio of its tokens.",
               [(f"{score:.2f}", uri) for score, uri in rows])
        for name, rows in figures.automata(results)
    ]  # fmt: skip
    return [
        Heading("Was the first stage learned in context?"),
        Text("Its held-out loss on rules never seen must beat the best of three simple predictors by 5 % of that "
             "predictor's loss, with the whole 95 % interval."),
        Table(header, rows, range(1, 9), (), ("no",)),
        Figures(drawn),
        *strips,
    ]  # fmt: skip


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
        rows = [[str(numbers.NONE if v is None or v != v else v) for v in row] for row in results.missing.to_numpy()]
        for row in rows:
            row[-2] = row[-2][:12]
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
    return [Heading("Environment"), Table(["", ""], [[k, v] for k, v in facts], (), (1,))]


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
