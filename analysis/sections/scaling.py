"""How the effect moves with complexity, size and budget, and what of it shows early."""

import math

from analysis import figures, numbers
from analysis.figures.complexity import contrast_text
from analysis.metrics.mechanism import Mechanism, triage
from analysis.page import Block, Figures, Heading, Table, Text, folded
from analysis.results import Results
from analysis.sections.opening import claimed_cells

PICTURES = 6
"""Cells whose mechanism is drawn."""


def complexity(results: Results) -> list[Block]:
    """Loss gap against measured complexity, with the optimum where it can be located, and by text."""
    responses, matchings = results.responses, results.matchings
    if not responses and not matchings:
        return []
    caption = (
        "Loss gap against the measured gzip ratio of what the first stage saw. Thin: seeds. Dashed: mean parabola; "
        "band: Fieller interval of its optimum, where it is located."
    )
    heat = "Mean loss gap by text and band, its standard deviation over seeds below; framed: the best band of a text."
    pictures = [(svg, caption) for svg in figures.complexity_response(responses)]
    pictures += [(svg, heat) for svg in figures.domain_band_heatmap(matchings)]
    rows = [
        [
            r.group, str(len(set(r.x))), str(len(r.y)), _signed(r.curvature.mean, r.curvature.low, r.curvature.high),
            (f"{r.optimum.mean:.3f}", numbers.between(r.optimum.low, r.optimum.high, 3))
            if math.isfinite(r.optimum.mean) else numbers.NONE,
            "located" if r.located else f"not located: {r.reason}",
        ]
        for r in responses
    ]  # fmt: skip
    header = ("cells", "bands", "pairs", "curvature, nats", "optimum", "interior optimum")
    return [
        Heading("Complexity", id="complexity"),
        *(folded(Table(header, rows, range(1, 5), (5,))) if rows else []),
        *(Text(f"{m.group or m.arm}: {contrast_text(m)}.") for m in matchings[:PICTURES]),
        Figures(pictures),
    ]


def budgets(results: Results) -> list[Block]:
    """Size and tokens before the text: where they pay."""
    surfaces, mrs = results.surfaces, results.mrs
    if not surfaces and mrs.empty:
        return []
    caption = "Mean loss gap by model size and tokens before the text. Contours: the fit, where there is one."
    pictures = [(svg, caption) for svg in figures.size_budget_surface(surfaces)]
    substitution = figures.substitution(mrs)
    if substitution:
        said = "Text tokens that one more token before the text saves; above 1 it pays for itself."
        pictures.append((substitution, said))
    return [Heading("Size and budget", id="budget"), Figures(pictures)]


def mechanism(results: Results) -> list[Block]:
    """Which picture fits: a multiplier of tokens, a head start in tokens, or a lower loss."""
    table = results.mechanisms
    table = table[table["best"] != ""]
    if table.empty:
        return []
    header = ("arm", "multiplier", "offset", "shift, nats", "rms of multiplier", "of offset", "of shift", "fits best")
    rows = [
        [
            r.label, numbers.times(r.speedup_multiplier), numbers.tokens(r.offset_tokens),
            numbers.signed_nats(r.shift_nats),
            *(f"{r[f'rms_nats_{kind}']:.4f}" for kind in ("multiplier", "offset", "vertical")), r.best,
        ]
        for _, r in table.iterrows()
    ]  # fmt: skip
    said = (
        "A multiplier keeps its ratio as text grows, an offset fades, a lower loss is worth ever more text. The "
        "baseline's own curve is scaled, moved or lowered; evaluations of a run are not independent, so this describes."
    )
    caption = "Residuals of the three pictures along the run; the one that holds lies along zero."
    pictures = [(svg, caption) for svg in figures.mechanism_residuals(_drawn(results))]
    head = Heading("What kind of gain", id="mechanism")
    return [head, Text(said), *folded(Table(header, rows, range(1, 7))), Figures(pictures)]


def _drawn(results: Results) -> list[tuple[str, Mechanism | None]]:
    order = claimed_cells(results) or range(len(results.cells))
    found: list[tuple[str, Mechanism | None]] = []
    for i in order:
        cell = results.cells[i]
        runs = [(t, b) for _, t, b in cell.finished() if t.curve and b.curve and not cell.unlike]
        if runs and cell.same_budget and len(found) < PICTURES:
            picture = triage([b.curve for _, b in runs if b.curve], [(t.tokens, t.loss) for t, _ in runs])
            found.append((results.labels[i], picture))
    return found


def early(results: Results) -> list[Block]:
    """Do small models and early losses tell which arm will win?"""
    drawn = figures.early_signal(results.signals)
    if not drawn:
        return []
    caption = (
        "Loss gap late against early, a mark an arm. The ceiling is what a perfect early reading would reach here."
    )
    return [Heading("Does it show early?", id="early"), Figures([(svg, caption) for svg in drawn])]


def law(results: Results) -> list[Block]:
    """The baseline's scaling law, and an arm's tokens by it."""
    found = [s for s in results.scalings if s.fit is not None]
    if not found:
        return []
    rows: list[list[str | tuple[str, str]]] = []
    for s in found:
        assert s.fit is not None
        held = s.fit.held_out
        error = numbers.NONE if held is None else f"{held.error:+.4f}"
        factor = (numbers.times(s.factor.mean), numbers.between(s.factor.low, s.factor.high))
        rows.append([s.group or s.arm, str(s.fit.sizes), str(s.fit.runs), f"{s.fit.rms:.4f}", error, factor])
    header = ("arm", "sizes", "runs", "rms, nats", "error at the largest size, nats", "tokens of the arm are worth")
    said = "L = E + A N^-a + B D^-b of the baseline; the largest size is predicted from the others. Secondary."
    return [Heading("By the scaling law", id="law"), Text(said), *folded(Table(header, rows, range(1, 6)))]


def _signed(mean: float, low: float, high: float) -> tuple[str, str]:
    return (f"{mean:+.3g}", numbers.between(low, high, 3, "+"))
