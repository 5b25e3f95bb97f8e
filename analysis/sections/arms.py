"""Arms beside each other: controls, decayed endpoints, cost, and how many cells gain how much."""

from analysis import figures, numbers
from analysis.page import Block, Figures, Heading, Table, Text
from analysis.results import Results
from analysis.sections.opening import claimed_cells
from analysis.verdict_table import VERDICT_HEADER


def endpoints(results: Results) -> list[Block]:
    """Loss at the ends of decayed schedules, and effects read across them."""
    drawn = figures.decayed_endpoints(results, claimed_cells(results))
    if not drawn:
        return []
    caption = "Final held-out loss of runs that ended their own schedule. Thin: every seed. Thick: mean."
    rows: list[list[str | tuple[str, str]]] = []
    for cell, (_, e) in zip(results.endpoint_cells, results.endpoint_effects.iterrows(), strict=True):
        between = numbers.between(e.speedup_lo, e.speedup_hi)
        net = numbers.between(e.net_speedup_tokens_lo, e.net_speedup_tokens_hi)
        of = f"{e.n_pairs} of {e.n_planned}"
        row = (cell.arm, of, str(cell.horizons), numbers.tokens(e.text_tokens))
        rows.append([*row, (numbers.times(e.speedup), between), (numbers.times(e.net_speedup_tokens), net)])
    header = ("arm", "pairs", "budgets", "longest", VERDICT_HEADER[3], VERDICT_HEADER[4])
    said = "Read across the ends of decayed runs, so that no schedule is cut off anywhere."
    table: list[Block] = [Text(said), Table(header, rows, range(1, 6))] if rows else []
    return [
        Heading("Decayed endpoints", id="endpoints"),
        *table,
        Figures([(svg, caption) for svg in drawn]),
    ]


def controls(results: Results) -> list[Block]:
    named = {t["than"] for c in results.plan.get("claims", []) for t in c["tests"] if t.get("than")}
    arms = sorted(named - {results.plan["baseline"]})
    drawn = figures.controls(results, arms, claimed_cells(results))
    profile = figures.performance_profile(results, claimed_cells(results))
    if not drawn and profile is None:
        return []
    caption = "Loss gap of every arm, a mark a pair, with mean and 95 % interval. Grey: controls."
    profile_caption = "Share of cells whose speedup is at least that on the axis."
    pictures = [(svg, caption) for svg in drawn] + ([(profile, profile_caption)] if profile else [])
    return [Heading("Arms beside each other", id="arms"), Figures(pictures)]


def cost(results: Results) -> list[Block]:
    table = results.cost
    if table.empty:
        return []
    drawn = figures.cost_pareto(results, claimed_cells(results))
    caption = "Final loss against all FLOPs spent: the first stage and the generation of its tokens count."
    header = [str(c).replace("_", " ") for c in table.columns]
    rows = [[_cell(name, value) for name, value in row.items()] for _, row in table.iterrows()]
    right = [i for i, c in enumerate(table.columns) if table[c].dtype.kind in "if"]
    return [
        Heading("What it cost", id="cost"),
        Table(header, rows, right),
        Figures([(svg, caption) for svg in drawn]),
    ]


def _cell(name: object, value: object) -> str:
    if isinstance(value, str) or value is None:
        return str(value or numbers.NONE)
    number = float(str(value))
    if str(name).endswith("_s"):
        return numbers.seconds(number)
    return numbers.tokens(number)
