"""A study on one page: question, finding and verdicts first, then what they rest on, then how to repeat it."""

from collections.abc import Sequence
from pathlib import Path

from analysis import figures
from analysis.metrics.listed import Metric
from analysis.page import Block, Contents, Figures, Finding, Heading, Text, html, markdown
from analysis.results import Results
from analysis.sections import arms, scaling, trust
from analysis.sections.claims import claims
from analysis.sections.curves import crossing_sentences, curves
from analysis.sections.first_stages import first_stages, induction
from analysis.sections.opening import cell_table, claim_table, claimed_cells, finding, opening, question
from analysis.sections.own import own
from analysis.sections.reasoning import reasoning
from analysis.sections.record import environment, repeat


def write(
    store: Path | str,
    study: str,
    out_dir: Path | str,
    beside: Sequence[Path | str] = (),
    metrics: Sequence[Metric] = (),
) -> Path:
    """Writes report.html, which needs no other file, and report.md into `out_dir`; returns the path of the former.

    `beside` are directories that `analysis.export` wrote, each shown in a section of its own; `metrics` are a user's
    own. Raises DataError where the store or an export cannot be read.
    """
    others = [Results.from_export(directory) for directory in beside]
    return write_results(Results.from_store(store, study, metrics), out_dir, others)


def write_results(results: Results, out_dir: Path | str, beside: Sequence[Results] = ()) -> Path:
    """The same of results that were read already."""
    content = blocks(results, beside)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(content))
    path = out / "report.html"
    path.write_text(html(f"{results.study}: {question(results)[0]}", content))
    return path


def blocks(results: Results, beside: Sequence[Results] = ()) -> list[Block]:
    """The content of the page."""
    return [
        *opening(results),
        Contents(),
        *claims(results),
        *curves(results, claimed_cells(results)),
        *arms.endpoints(results),
        *arms.controls(results),
        *reasoning(results),
        *first_stages(results),
        *induction(results),
        *scaling.complexity(results),
        *scaling.budgets(results),
        *scaling.mechanism(results),
        *scaling.law(results),
        *scaling.early(results),
        *own(results),
        *trust.deviations(results),
        *trust.noise(results),
        *trust.differences(results),
        *[b for other in beside for b in _beside(other)],
        *trust.status(results),
        *arms.cost(results),
        *environment(results),
        *repeat(results),
    ]


def _beside(results: Results) -> list[Block]:
    title, more = question(results)
    pictures = [(svg, "Held-out loss against text tokens.") for svg in figures.loss_curves(results)]
    pictures += [(svg, "Loss gap, with its 95 % interval.") for svg in figures.loss_gap(results)]
    return [
        Heading("Beside it: a longer study", id=f"beside-{results.study}"),
        Text(f"{results.study}: {title} {more}".strip()),
        Finding(finding(results)),
        *claim_table(results),
        *cell_table(results),
        *(Text(s) for s in crossing_sentences(results)),
        Figures(pictures),
        Text(f"From committed tables; registered plan {str(results.plan['hash'])[:12]}.", "note"),
    ]
