"""Loss against text, the gap on the way, and the speedup at every loss."""

from collections.abc import Sequence

from analysis import figures, numbers
from analysis.metrics.speedup import crossings, gap_curve
from analysis.page import Block, Figures, Heading, Text
from analysis.results import Results

CURVES = "curves"
"""Where the rows of the verdict table lead."""
SENTENCES = 12


def curves(results: Results, first: Sequence[int] = ()) -> list[Block]:
    drawn, gaps = figures.loss_curves(results, first), figures.loss_gap(results, first)
    if not drawn:
        return [Heading("Curves"), Text("No pair is finished yet.")]
    base = results.plan["baseline"]
    loss_caption = "Held-out loss while training on text. Thin: every seed. Thick: smoothed mean."
    gap_caption = (
        f"Loss of {base} minus that of the arm; above zero the arm leads. Thin: every pair. Band: 95 % interval. "
        "Dotted: the arm's budget differs, so mid-run its schedule is at another place."
    )
    by_loss = figures.speedup_by_loss(results, first)
    by_loss_caption = (
        f"Speedup at every loss on the way of {base} to its final one (dot), with 95 % band; rings: 0.005 and 0.02 "
        "nats above it. A line that bends near its end says that the headline hangs on the tail of the schedule."
    )
    return [
        Heading("Loss against text", id=CURVES),
        *(Text(s) for s in crossing_sentences(results)),
        Figures([(svg, loss_caption) for svg in drawn] + [(svg, gap_caption) for svg in gaps]),
        *([Heading("Speedup by loss", id="speedup")] if by_loss else []),
        Figures([(svg, by_loss_caption) for svg in by_loss]),
    ]


def crossing_sentences(results: Results) -> list[str]:
    """Where the curves of an arm and the baseline cross beyond the noise of seeds."""
    said = []
    for name, cell in zip(results.labels, results.cells, strict=True):
        read = [(b, t) for _, t, b in cell.readable()]
        for tokens, leads in crossings(gap_curve(read)) if read and cell.same_budget else []:
            verb = "overtakes" if leads else "falls behind"
            said.append(f"{name} {verb} {results.plan['baseline']} at {numbers.tokens(tokens)} text tokens.")
        if len(said) > SENTENCES:
            return [*said[:SENTENCES], "Other cells cross too; the figures show some of them."]
    return said
