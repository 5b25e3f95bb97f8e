"""The tests of claims: each takes what the registered plan says of it and the cells it names, and gives its rows.

A row is an effect with its interval and the p values of the two hypotheses that decide about it. Seeds are the unit.
Ratios are tested as natural logarithms; a row shows them as ratios. Gaps and slopes are in nats per token.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis.cells import Cell, Run
from analysis.frame import DataError
from analysis.metrics.benchmarks import LOWER, gains, named
from analysis.metrics.endpoints import at_longest
from analysis.metrics.intervals import Interval, t_interval, t_p_value
from analysis.metrics.matching import contrast_by_seed, slopes_by_seed
from analysis.metrics.speedup import exp
from analysis.readings import along, by_seed, chosen, effect, fixed, positions, readable

LEAST_GAP = 0.01
"""Nats, 1 % of perplexity: the smallest gap of interest where a test names none."""
NAMES = {
    "speedup": "speedup",
    "net_speedup_tokens": "speedup net of tokens",
    "net_speedup_flops": "speedup net of FLOPs",
    "gap": "loss gap",
}
"""How measures read."""
Versus = Callable[[str, str], list[Cell]]
"""Cells of an arm (first) against another (second)."""


@dataclass(frozen=True)
class Contrast:
    """One row of a claim. `estimate`, `above`, `at_least` and `below` are ratios where `unit` is "x", else nats."""

    label: str
    measure: str
    unit: str
    n: int
    """Seeds that it rests on."""
    estimate: Interval
    above: float
    """Supported only if the effect lies above this with its interval."""
    at_least: float
    below: float
    """Refuted if the effect lies below this with its interval."""
    p_above: float
    """Two-sided, of the effect being `above`."""
    p_below: float
    published: tuple[float, float] | None = None
    cells: tuple[Cell, ...] = ()
    """What it was read from."""
    unit_of: Literal["pairs", "runs"] = "pairs"
    """What `n` counts."""
    lacking: str = ""
    """Why there is no estimate."""

    @property
    def schedules(self) -> list[str]:
        """Schedules of the text stages."""
        return sorted({run.schedule for _, t, b in self._finished for run in (t, b)})

    @property
    def horizons(self) -> int:
        """Text budgets, each decayed, that the effect was read across."""
        return min((cell.horizons for cell in self.cells), default=1)

    @property
    def diverged(self) -> tuple[int, int]:
        """Pairs whose treated run diverged, and whose other one did: a run of several pairs counts in each."""
        return sum(t.diverged for _, t, _ in self._finished), sum(b.diverged for _, _, b in self._finished)

    @property
    def _finished(self) -> list[tuple[Any, Run, Run]]:
        return [run for cell in self.cells for run in cell.finished()]


def contrasts(test: Mapping[str, Any], versus: Versus, sesoi: float, label: Callable[[Cell], str]) -> list[Contrast]:
    """Rows of `test`, as points.json has it. `sesoi` is the study's smallest speedup of interest, `label` names a cell.
    Raises DataError for a test of an unknown type."""
    kinds = {
        "Beats": _beats, "Trend": _trend, "Matching": _matching, "Carries": _carries, "Same": _same, "Scores": _scores,
    }  # fmt: skip
    if test["type"] not in kinds:
        raise DataError(f"points.json: test {test['type']}: this version knows {', '.join(kinds)}; use its own version")
    return kinds[test["type"]](test, versus, sesoi, label)


def learned_contrasts(
    test: Mapping[str, Any], table: pd.DataFrame, label: Callable[[pd.Series], str]
) -> list[Contrast]:
    """The learned check of every first stage of the arm: its gain over the best simple predictor, against what is
    needed."""
    measure = "gain over the best simple predictor"
    rows = []
    for _, r in table[table["arm"] == test["arm"]].iterrows():
        gain = Interval(r.gain_nats, r.gain_nats_lo, r.gain_nats_hi)
        needed, p = float(r.needed_nats), float(r.p_needed)
        name, of = f"{label(r)}, first stage", int(r.n_runs)
        rows.append(Contrast(name, measure, "nats", of, gain, needed, needed, needed, p, p, unit_of="runs"))
    why = f"no first stage of {test['arm']} with simple predictors is finished"
    return rows or [_nothing(f"{test['arm']}, first stage", measure, "nats", why)]


class Thresholds(NamedTuple):
    """Of a `Beats`: what the effect must lie above, be at least, and is refuted below; ratios, or nats of a gap."""

    above: float
    at_least: float
    below: float


def thresholds(test: Mapping[str, Any], sesoi: float) -> Thresholds:
    """Those that `test` names, else no effect and, twice, the smallest of interest."""
    ratio = test["measure"] != "gap"
    at_least = _given(test, "at_least", sesoi if ratio else LEAST_GAP)
    return Thresholds(_given(test, "above", 1.0 if ratio else 0.0), at_least, _given(test, "below", at_least))


def _beats(test: Mapping[str, Any], versus: Versus, sesoi: float, label: Callable[[Cell], str]) -> list[Contrast]:
    ratio, measure = test["measure"] != "gap", NAMES[test["measure"]]
    unit, limits = "x" if ratio else "nats", thresholds(test, sesoi)
    published = tuple(test["published"]) if test.get("published") else None
    cells, how = chosen(readable(versus(test["arm"], test["than"]), test["measure"]), test.get("choose"))
    rows = []
    for cell in cells:
        name = f"{label(cell)} against {test['than']}{how}"
        found = effect(cell, test["measure"])
        if found is None:
            rows.append(_nothing(name, measure, unit, lacking(cell, test["than"])))
            continue
        interval = Interval(*(exp(v) for v in found.interval)) if ratio else found.interval
        p_above, p_below = (found.p(math.log(v) if ratio else v) for v in (limits.above, limits.below))
        rows.append(
            Contrast(name, measure, unit, found.n, interval, *limits, p_above, p_below, published, cells=(cell,))
        )
    return rows or [_nothing(f"{test['arm']} against {test['than']}", measure, unit, "no such points are planned")]


def _trend(test: Mapping[str, Any], versus: Versus, _: float, label: Callable[[Cell], str]) -> list[Contrast]:
    unit = "nats" if test["measure"] == "gap" else "ln x"
    measure = f"slope of {NAMES[test['measure']]} on {test['along']}"
    rows = []
    for name, cells in along(readable(versus(test["arm"], test["than"]), test["measure"]), test["along"], label):
        x = positions(cells, test["along"])
        seeds, y = by_seed(cells, test["measure"])
        if len(set(x)) < 2 or not seeds or not np.isfinite(x).all():
            rows.append(_nothing(name, measure, unit, f"needs two levels of {test['along']} with pairs of one seed"))
            continue
        centred = x - x.mean()
        rows.append(
            _sample(name, measure, unit, y @ centred / (centred @ centred), test["above"], test["below"], cells)
        )
    return rows or [_nothing(f"{test['arm']} against {test['than']}", measure, unit, "no such points are planned")]


def _matching(test: Mapping[str, Any], versus: Versus, _: float, label: Callable[[Cell], str]) -> list[Contrast]:
    high, low = ([str(d) for d in test[side]] for side in ("high", "low"))
    measure = f"slope of loss gap on complexity, {' + '.join(high)} minus {' + '.join(low)}"
    cells = at_longest(versus(test["arm"], test["than"]))
    rows = []
    domains = [*high, *low]
    for name, group in fixed(cells, (test["band"], test["domain"]), label):
        grid = {
            d: sorted((c for c in group if str(c.axes[test["domain"]]) == d), key=lambda c: c.complexity)
            for d in domains
        }
        few = [d for d, of in grid.items() if len({c.complexity for c in of if c.finished()}) < 2]
        if few:
            rows.append(_nothing(name, measure, "nats", f"needs two bands for each of {', '.join(few)}"))
            continue
        seeds, y = by_seed([c for d in domains for c in grid[d]], "gap")
        sizes = {len(of) for of in grid.values()}
        if not seeds or len(sizes) > 1:
            rows.append(_nothing(name, measure, "nats", "needs the same bands and seeds for every text"))
            continue
        x = np.array([[c.complexity for c in grid[d]] for d in domains])
        y = y.reshape(len(seeds), len(domains), sizes.pop())
        own = contrast_by_seed(slopes_by_seed(x, y), domains, high, low)
        rows.append(_sample(name, measure, "nats", own, 0.0, 0.0, group))
    return rows or [_nothing(test["arm"], measure, "nats", "no such points are planned")]


def _carries(test: Mapping[str, Any], versus: Versus, _: float, label: Callable[[Cell], str]) -> list[Contrast]:
    modules = [test["module"], *test["others"]]
    rows = []
    for name, cells in fixed(at_longest(versus(test["arm"], test["than"])), modules, label):
        seeds, y = by_seed(cells, "gap")
        whole = len({tuple(str(c.axes[m]) for m in modules) for c in cells}) == 2 ** len(modules)
        if not seeds or not whole:
            rows.append(
                _nothing(name, f"effect of {test['module']}", "nats", "needs pairs in every cell of the factorial")
            )
            continue
        sign = np.array([[1.0 if c.axes[m] == test["kept"] else -1.0 for m in modules] for c in cells])
        effects = 2 * y @ sign / len(cells)  # (seeds, modules): mean of kept minus mean of not
        said = f"{name}, {test['module']}"
        rows.append(_sample(said, f"main effect of {test['module']}", "nats", effects[:, 0], 0.0, 0.0, cells))
        for i, other in enumerate(test["others"], 1):
            measure = f"main effect of {test['module']} minus that of {other}"
            rows.append(
                _sample(f"{said} over {other}", measure, "nats", effects[:, 0] - effects[:, i], 0.0, 0.0, cells)
            )
    return rows or [_nothing(test["arm"], f"effect of {test['module']}", "nats", "no such points are planned")]


def _same(test: Mapping[str, Any], versus: Versus, _: float, label: Callable[[Cell], str]) -> list[Contrast]:
    """The distance from equality, as the room that is left: `within` minus the greater of gap and minus gap, so that it
    is above 0 where the two are alike. Its interval is that of the nearer of the two one-sided tests."""
    within = float(test["within"])
    rows = []
    for cell in at_longest(versus(test["arm"], test["other"])):
        name = f"{label(cell)} like {test['other']}"
        found = effect(cell, "gap")
        if found is None:
            rows.append(_nothing(name, "room to inequality", "nats", lacking(cell, test["other"])))
            continue
        mean, low, high = found.interval
        side = 1.0 if mean >= 0 else -1.0
        far = high if side > 0 else -low
        near = low if side > 0 else -high
        room = Interval(within - abs(mean), within - far, within - near)
        p = found.p(side * within)
        measure = f"{within:g} nats minus the distance"
        rows.append(Contrast(name, measure, "nats", found.n, room, 0.0, 0.0, 0.0, p, p, cells=(cell,)))
    return rows or [_nothing(f"{test['arm']} like {test['other']}", "gap", "nats", "no such points are planned")]


def _scores(test: Mapping[str, Any], versus: Versus, _: float, label: Callable[[Cell], str]) -> list[Contrast]:
    benchmark, metric, least = test["benchmark"], test["metric"], float(test["at_least"])
    k = test["k"] if metric == "pass" else None
    measure, unit = f"gain in {named(metric, k)} on {benchmark}", "nats" if metric in LOWER else "share"
    rows = []
    for cell in at_longest(c for c in versus(test["arm"], test["than"]) if benchmark in c.benchmarks):
        name = f"{label(cell)} against {test['than']}, {benchmark}"
        found = gains(cell, benchmark, metric, k)
        if found.lacking:
            rows.append(_nothing(name, measure, unit, found.lacking))
            continue
        values = found.values
        p_above, p_below = t_p_value(values), t_p_value(values, least)
        gain = t_interval(values)
        rows.append(
            Contrast(name, measure, unit, len(values), gain, 0.0, least, least, p_above, p_below, cells=(cell,))
        )
    return rows or [
        _nothing(f"{test['arm']} against {test['than']}, {benchmark}", measure, unit, "no such evaluations are planned")
    ]


def _sample(
    name: str, measure: str, unit: str, values: np.ndarray, above: float, below: float, cells: Sequence[Cell]
) -> Contrast:
    p_above, p_below = t_p_value(values, above), t_p_value(values, below)
    return Contrast(
        name, measure, unit, len(values), t_interval(values), above, above, below, p_above, p_below, cells=tuple(cells)
    )


def lacking(cell: Cell, than: str) -> str:
    """Why nothing can be read from a cell of an arm against `than`."""
    if cell.unlike:
        return f"{cell.unlike} differ"
    if not cell.finished():
        return f"no pair of {cell.arm} and {than} is finished"
    if not cell.same_budget:
        return "text budgets differ"
    return "runs diverged or have too few evaluations"


def _nothing(name: str, measure: str, unit: str, why: str) -> Contrast:
    none = math.nan
    return Contrast(name, measure, unit, 0, Interval(none, none, none), none, none, none, none, none, lacking=why)


def _given(test: Mapping[str, Any], name: str, otherwise: float) -> float:
    return otherwise if test.get(name) is None else float(test[name])
