"""Benchmarks of trained stages: the scores of every run, and the gains of arms over the baseline, seed by seed.

The interval of a score is over its problems: it says how the score would vary with other problems. The interval of a
gain is over pairs of seeds, which answer the same problems. Neither stands in for the other.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.cells import Cell
from analysis.frame import axes_of, axis_columns, axis_values
from analysis.metrics.intervals import benjamini_hochberg, bounds, t_interval, t_p_value
from analysis.stored import DataError
from analysis.verdicts import EXPLORATORY_ALPHA, LEAST_PAIRS, Verdict

COLUMNS = (
    "benchmark", "task", "engine", "shots", "samples", "temperature", "status", "metric", "k", "score", "score_lo",
    "score_hi", "chance", "normalised", "problems", "tuned_on", "too_long", "stage",
)  # fmt: skip
"""Columns of `benchmark_table` after arm, axes and seed."""
EFFECT_COLUMNS = (
    "benchmark", "task", "engine", "metric", "k", "n_planned", "n_pairs", "score", "baseline_score", "gain", "gain_lo",
    "gain_hi", "p", "p_adj", "chance", "normalised", "baseline_normalised", "verdict", "reason",
)  # fmt: skip
"""Columns of `benchmark_effects` after arm and axes."""
FLOATS = (
    "temperature", "score", "score_lo", "score_hi", "chance", "normalised", "baseline_score", "gain", "gain_lo",
    "gain_hi", "p", "p_adj", "baseline_normalised",
)  # fmt: skip
WHOLE = ("k", "shots", "samples", "problems", "tuned_on", "too_long")
LOWER = ("answer_nats", "answer_nats_by_problem")
"""Metrics of which less is better."""
REMARKS = ("no_answer", "cut_off")
"""Shares of samples that say how an evaluation went, not how good a model is: no gain is read from them."""


class Score(NamedTuple):
    """A score of an evaluation; NaN where it has no interval over problems, or guessing has no chance."""

    metric: str
    k: int | None
    """Of pass@k; None for other metrics."""
    score: float
    low: float = math.nan
    high: float = math.nan
    chance: float = math.nan
    """What uniform guesses score, k of them for pass@k."""
    normalised: float = math.nan
    """(score - chance) / (1 - chance)."""


class Gains(NamedTuple):
    """Scores of a cell's pairs that are both evaluated, in the order of their seeds."""

    treated: Sequence[Score]
    baseline: Sequence[Score]
    values: np.ndarray
    """(pairs,): how much better the treated run is."""
    lacking: str
    """Why they allow no verdict whatever their number; "" otherwise."""


def scores(manifest: Mapping[str, Any]) -> list[Score]:
    """Scores of an evaluation from its manifest, pass@k first, then by name. Raises DataError where they are none."""
    try:
        return sorted(_scores(manifest["scores"]), key=lambda s: (s.metric != "pass", s.metric, s.k or 0))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        say = f"its scores cannot be read ({error!r}); delete its DONE and evaluate again"
        raise DataError(f"evaluation {manifest.get('digest', '')}: {say}") from None


def benchmark_table(plan: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for every point, benchmark, metric and k: arm, axes, seed and COLUMNS. An evaluation that is not finished
    has one row without a metric, its `status` "waiting". `tuned_on` counts problems that are among what the stage was
    tuned on, `too_long` those that do not fit into the context; `stage` is the digest of the evaluation."""
    rows = []
    for point in plan["points"]:
        for name, digest in sorted((point.get("benchmarks") or {}).items()):
            axes = axes_of(dict(plan), point)
            found = {"arm": point["arm"], "axes": axes, "seed": axes["seed"], "benchmark": name, "stage": digest}
            document = stages.get(digest)
            if document is None:
                rows.append(found | {"status": "waiting"})
                continue
            found |= _described(document) | {"status": document["status"], "problems": document["problems"]}
            found |= {"tuned_on": document.get("tuned_on"), "too_long": document["scores"].get("too_long")}
            for score in scores(document):
                rows.append(found | score._asdict() | {"score_lo": score.low, "score_hi": score.high})
    return _table(rows, plan, ("seed",), COLUMNS)


def benchmark_effects(cells: Iterable[Cell], plan: Mapping[str, Any]) -> pd.DataFrame:
    """A row for every cell, benchmark, metric and k: arm, axes and EFFECT_COLUMNS.

    `gain` is the mean over pairs of seeds of how much better the arm scores than the baseline, with the paired t
    interval, NaN where the pairs allow none. A benchmark of which no pair is evaluated has one row without a metric.
    p values are adjusted over all rows (Benjamini and Hochberg): all of them are exploratory, so that a verdict is an
    indication at most."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        for benchmark in cell.benchmarks:
            named = {"arm": cell.arm, "axes": cell.axes, "benchmark": benchmark, "n_planned": len(cell.pairs)}
            rows += [named | row for row in _effect_rows(cell, benchmark)]
    p = benjamini_hochberg([row["p"] for row in rows])
    for row, adjusted in zip(rows, p, strict=True):
        row |= {"p_adj": adjusted, **_decide(row, adjusted)._asdict()}
    return _table(rows, plan, (), EFFECT_COLUMNS)


def gains(cell: Cell, benchmark: str, metric: str, k: int | None = None) -> Gains:
    """The gains of a cell's pairs in a metric, at `k` samples for pass@k; runs that diverged give none."""
    found: list[tuple[Score, Score]] = []
    unlike = False
    for t, b in _evaluated(cell, benchmark):
        pair = [_find(document, metric, k) for document in (t, b)]
        unlike = unlike or _settings(t) != _settings(b)
        if pair[0] is not None and pair[1] is not None:
            found.append((pair[0], pair[1]))
    treated, baseline = [t for t, _ in found], [b for _, b in found]
    sign = -1.0 if metric in LOWER else 1.0
    values = sign * np.array([t.score - b.score for t, b in found], float)
    return Gains(treated, baseline, values, _lacking(cell, benchmark, treated, baseline, unlike))


def named(metric: str, k: int | None) -> str:
    """How a metric reads: "pass@4"."""
    return metric if k is None or pd.isna(k) else f"{metric}@{k:g}"


def _scores(found: Mapping[str, Any]) -> Iterator[Score]:
    """Rates with their intervals, and plain shares and losses; counts are no scores."""
    chance, normalised = found.get("chance", {}), found.get("pass_normalised", {})
    for name, value in found.items():
        if name == "pass":
            for k, rate in value.items():
                yield Score(name, int(k), *_rate(rate), _number(chance.get(k)), _number(normalised.get(k)))
        elif isinstance(value, dict) and "mean" in value:
            guess = chance.get("1") if name.startswith("accuracy") else None
            yield Score(name, None, *_rate(value), _number(guess), _number(found.get(f"{name}_normalised")))
        elif isinstance(value, float) and not name.endswith("_normalised"):
            yield Score(name, None, value)


def _rate(value: Mapping[str, Any]) -> tuple[float, float, float]:
    return _number(value["mean"]), _number(value.get("low")), _number(value.get("high"))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _described(document: Mapping[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    return {
        "task": str((spec.get("task") or {}).get("type", "")),
        "engine": str(spec.get("engine", "")),
        **{name: spec.get(name) for name in ("shots", "samples", "temperature")},
    }


def _settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that two evaluations must agree on to be compared: all but the stage that is evaluated."""
    return {k: v for k, v in document["spec"].items() if k != "train"} | {"problems": document["problems"]}


def _evaluated(cell: Cell, benchmark: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Manifests of (treated, baseline) of the pairs that are both evaluated and did not diverge."""
    runs = [(t, b) for _, t, b in cell.finished() if not t.diverged and not b.diverged]
    return [
        (t.benchmarks[benchmark], b.benchmarks[benchmark])
        for t, b in runs
        if benchmark in t.benchmarks and benchmark in b.benchmarks
    ]


def _find(document: Mapping[str, Any], metric: str, k: int | None) -> Score | None:
    return next((s for s in scores(document) if s.metric == metric and (s.k is None or s.k == k)), None)


def _lacking(cell: Cell, benchmark: str, treated: Sequence[Score], baseline: Sequence[Score], unlike: bool) -> str:
    if unlike:
        return "settings of the evaluations differ"
    if not treated:
        there = _evaluated(cell, benchmark)
        return f"{benchmark} has no such score" if there else f"no pair is evaluated on {benchmark}"
    if len(treated) > 1 and len({s.score for s in (*treated, *baseline)}) == 1:
        return f"every run scores {treated[0].score:.3g}, so {benchmark} cannot tell them apart"
    return ""


def _effect_rows(cell: Cell, benchmark: str) -> list[dict[str, Any]]:
    there = _evaluated(cell, benchmark)
    if not there:
        return [{"n_pairs": 0, "p": math.nan, "metric": "", "lacking": _lacking(cell, benchmark, (), (), False)}]
    rows = []
    metrics = dict.fromkeys((s.metric, s.k) for t, _ in there for s in scores(t) if s.metric not in REMARKS)
    for metric, k in metrics:
        found = gains(cell, benchmark, metric, k)
        rows.append(
            {
                **_described(there[0][0]),
                "metric": metric,
                "k": k,
                "n_pairs": len(found.values),
                "score": _mean([s.score for s in found.treated]),
                "baseline_score": _mean([s.score for s in found.baseline]),
                **bounds("gain", t_interval([] if found.lacking else found.values)),
                "p": math.nan if found.lacking else t_p_value(found.values),
                "chance": _mean([s.chance for s in found.treated]),
                "normalised": _mean([s.normalised for s in found.treated]),
                "baseline_normalised": _mean([s.normalised for s in found.baseline]),
                "lacking": found.lacking,
            }
        )
    return rows


def _decide(row: Mapping[str, Any], p: float) -> Verdict:
    n, what = row["n_pairs"], named(row["metric"], row.get("k"))
    if row["lacking"]:
        return Verdict("no verdict", f"{row['lacking'][0].upper()}{row['lacking'][1:]}.")
    if n < LEAST_PAIRS:
        pairs = "1 pair" if n == 1 else f"{n} pairs"
        return Verdict(f"no verdict ({pairs}, {LEAST_PAIRS} needed)", f"Too few pairs to tell {what} from chance.")
    if p < EXPLORATORY_ALPHA:
        better = "better" if row["gain"] > 0 else "worse"
        return Verdict(f"indicative: {better}", f"{what} is {better} (p {p:.2g}, exploratory, false discovery rate).")
    return Verdict("inconclusive", f"The interval of the gain in {what} leaves the question open.")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _table(
    rows: Sequence[Mapping[str, Any]], plan: Mapping[str, Any], more: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """`rows` with the columns arm, axes, `more` and `columns`; an axis of the name of one of these is `<name>_axis`."""
    found: dict[str, Any] = {"arm": pd.Series([row["arm"] for row in rows], dtype="str")}
    for axis in axis_columns(dict(plan)):
        found[f"{axis}_axis" if axis in columns else axis] = axis_values([row["axes"].get(axis) for row in rows])
    for name in (*more, *columns):
        values = [row.get(name) for row in rows]
        if name in FLOATS:
            found[name] = pd.Series([_number(v) for v in values], dtype="float64")
        elif name in WHOLE or name.startswith("n_"):
            found[name] = pd.Series(values, dtype="Int64")
        else:
            found[name] = axis_values(values) if name == "seed" else pd.Series([v or "" for v in values], dtype="str")
    return pd.DataFrame(found)
