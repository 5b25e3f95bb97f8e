"""What came before the text: was it learned, what does it look like, and does it teach induction."""

from analysis import figures, numbers
from analysis.cells import labeller
from analysis.frame import axis_columns
from analysis.page import Block, Figures, Heading, Strips, Table, Text, folded
from analysis.results import Results


def first_stages(results: Results) -> list[Block]:
    table = results.learned
    if table.empty:
        return []
    label = labeller(results.plan)
    rows: list[list[str | tuple[str, str]]] = []
    for _, r in table.iterrows():
        rows.append(
            [
                label(r.arm, {a: r[a] for a in axis_columns(results.plan)}),
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
    gain = figures.learned_gain(results)
    gain_caption = "Is a first stage that was learned better also worth more? Each mark is a pair."
    drawn = [(svg, caption) for svg in figures.learned_check(results)] + ([(gain, gain_caption)] if gain else [])
    return [
        Heading("Was the first stage learned in context?", id="learned"),
        Text(
            "Its loss on rules never seen must beat the best of three simple predictors by 5 % of that predictor's "
            "loss, with the whole 95 % interval. Kept: the share of drawn rules whose complexity lies in the band."
        ),
        *folded(Table(header, rows, range(1, 8), accent=("no",))),
        Figures(drawn, strips),
    ]


def induction(results: Results) -> list[Block]:
    drawn = figures.induction_probe(results)
    if not drawn:
        return []
    caption = "Loss on the second occurrence of a random sequence minus that on the first: below zero it is copied."
    return [Heading("Induction probe", id="induction"), Figures([(svg, caption) for svg in drawn])]
