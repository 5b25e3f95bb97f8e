"""What trained stages score on benchmarks, and whether an arm gains there."""

import math

import pandas as pd

from analysis import numbers
from analysis.cells import labeller
from analysis.figures.claims import claim_rows
from analysis.frame import axis_columns
from analysis.metrics.benchmarks import LOWER, named
from analysis.page import Block, Details, Figures, Heading, Table, Text, folded
from analysis.results import Results

ACCENT = ("indicative: ",)
READING = (
    "Brackets of a score are 95 % intervals over problems, those of a gain over pairs of seeds, which answer the same "
    "problems; above zero the arm is better. Chance is what uniform guesses score, k of them for pass@k; normalised is "
    "0 for a guesser and 1 for what is always right. Rows of this table are exploratory; a claim has its own."
)


def reasoning(results: Results) -> list[Block]:
    """Gains by arm and benchmark, the scores of every run, and evaluations that wait; nothing without benchmarks."""
    table = results.benchmarks
    if table.empty:
        return []
    waiting = table[table["status"] == "waiting"]
    done = table[table["status"] != "waiting"]
    evaluated = done["stage"].nunique()
    planned = table["stage"].nunique()
    found: list[Block] = [
        Heading("Reasoning", id="reasoning"),
        Text(f"{evaluated} of {planned} evaluations are finished."),
        *([Text(READING)] if evaluated else []),
        *_effects(results),
    ]
    if evaluated:
        found.append(Details(f"Scores of every run: {len(done)}", folded(_scores(results, done))))
    if len(waiting):
        found.append(
            Details(f"Evaluations that wait: {waiting['stage'].nunique()}", folded(_waiting(results, waiting)))
        )
    return found


def _effects(results: Results) -> list[Block]:
    effects = results.benchmark_effects
    if effects.empty:
        return []
    names = _names(results, effects)
    header = ("arm", "gain", "benchmark", "verdict", "score", f"score of {results.plan['baseline']}", "pairs")
    rows: list[list[str | tuple[str, str]]] = [
        [
            name, (_number(e.gain, "+"), numbers.between(e.gain_lo, e.gain_hi, 3, "+")),
            (f"{e.benchmark} {named(e.metric, e.k)}".strip(), e.task), e.verdict,
            (_number(e.score), _against_chance(e.chance, e.normalised)),
            (_number(e.baseline_score), _against_chance(math.nan, e.baseline_normalised)),
            f"{e.n_pairs} of {e.n_planned}",
        ]
        for name, (_, e) in zip(names, effects.iterrows(), strict=True)
    ]  # fmt: skip
    table = Table(header, rows, (1, 4, 5, 6), (), ACCENT, list(effects["reason"]))
    caption = "Gain over the baseline at the first metric of every benchmark, with its 95 % interval over pairs."
    pictures = [(svg, caption) for svg in claim_rows(_headlines(effects, names))]
    return [*folded(table), Figures(pictures)]


def _headlines(effects: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The first metric of every cell and benchmark, in the form of the rows of a claim."""
    named_rows = effects.assign(row=[f"{n}, {b}" for n, b in zip(names, effects["benchmark"], strict=True)])
    first = named_rows.drop_duplicates("row")
    metrics = [named(m, k) for m, k in zip(first["metric"], first["k"], strict=True)]
    return pd.DataFrame(
        {
            "row": first["row"],
            "measure": [f"gain in {m}" for m in metrics],
            "unit": ["nats" if m in LOWER else "share" for m in first["metric"]],
            "estimate": first["gain"],
            "estimate_lo": first["gain_lo"],
            "estimate_hi": first["gain_hi"],
            "above": math.nan,
            "below": math.nan,
            "verdict": first["verdict"],
        }
    )


def _scores(results: Results, done: pd.DataFrame) -> Table:
    header = (
        "arm", "seed", "benchmark", "metric", "score", "chance", "normalised", "problems", "tuned on",
        "too long", "engine",
    )  # fmt: skip
    rows: list[list[str | tuple[str, str]]] = [
        [
            name, str(s.seed), (s.benchmark, s.task), named(s.metric, s.k),
            (_number(s.score), numbers.between(s.score_lo, s.score_hi, 3)), _number(s.chance),
            _number(s.normalised, "+"), _count(s.problems), _count(s.tuned_on), _count(s.too_long),
            s.engine,
        ]
        for name, (_, s) in zip(_names(results, done), done.iterrows(), strict=True)
    ]  # fmt: skip
    return Table(header, rows, range(4, 10))


def _waiting(results: Results, waiting: pd.DataFrame) -> Table:
    rows = [
        [name, str(w.seed), w.benchmark, w.stage[:12]]
        for name, (_, w) in zip(_names(results, waiting), waiting.iterrows(), strict=True)
    ]
    return Table(("arm", "seed", "benchmark", "evaluation"), rows)


def _names(results: Results, table: pd.DataFrame) -> list[str]:
    """What the arm of every row is called."""
    label = labeller(results.plan)
    columns = {axis: f"{axis}_axis" if f"{axis}_axis" in table else axis for axis in axis_columns(results.plan)}
    return [label(r["arm"], {axis: r[column] for axis, column in columns.items()}) for _, r in table.iterrows()]


def _against_chance(chance: float, normalised: float) -> str:
    said = [f"chance {chance:.3f}"] * math.isfinite(chance)
    return ", ".join(said + [f"normalised {normalised:+.3f}"] * math.isfinite(normalised))


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if math.isfinite(value) else numbers.NONE


def _count(value: object) -> str:
    return numbers.NONE if pd.isna(value) else f"{value}"
