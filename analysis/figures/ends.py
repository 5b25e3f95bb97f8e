"""Figures of the ends of runs: loss across text budgets, and loss against what everything cost."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from analysis import numbers
from analysis.cells import Cell, Run, groups
from analysis.figures.panels import ranked
from analysis.figures.style import (
    CELLS,
    INK,
    LINES,
    MARKERS,
    PANELS,
    colour,
    dash,
    drawing,
    log_ticks,
    more,
    token_axis,
)
from analysis.results import Results

Ends = list[tuple[str, Run]]
"""(seed, run) of runs with a final loss."""


def decayed_endpoints(results: Results, first: Sequence[int] = ()) -> list[str]:
    """Final loss at the ends of decayed schedules against the text budget, an SVG a text and size: every seed thin,
    the mean thick. Empty where no arm has two text budgets."""
    panels: dict[tuple[Any, ...], list[tuple[int, str, list[Cell]]]] = {}
    place = {id(results.cells[i]): n for n, i in enumerate(ranked(results, first))}
    for name, members in groups(results.cells, "text_tokens"):
        key = (members[0].domain, members[0].params)
        panels.setdefault(key, []).append((min(place[id(c)] for c in members), name, members))
    found = sorted(panels.items(), key=lambda item: min(place for place, _, _ in item[1]))
    drawn: list[str] = []
    for (domain, params), lines in found[:PANELS]:
        lines.sort(key=lambda line: line[0])
        baselines = {b.stage: (str(s), b) for _, _, members in lines for c in members for s, _, b in c.finished()}
        series: list[tuple[str, Ends]] = [(str(results.plan["baseline"]), list(baselines.values()))]
        series += [(name, [(str(s), t) for c in m for s, t, _ in c.finished()]) for _, name, m in lines[:LINES]]
        series = [(name, [(s, r) for s, r in runs if _decayed(r)]) for name, runs in series]
        if not any(len({r.text_tokens for _, r in runs}) > 1 for _, runs in series):
            continue
        with drawing() as d:
            for i, (name, runs) in enumerate(series):
                shade = colour(i - 1) if i else INK
                for seed in dict.fromkeys(s for s, _ in runs):
                    own = sorted((r.text_tokens, float(r.loss[-1])) for s, r in runs if s == seed)
                    tips = [f"{name}\nseed {seed}\n{numbers.tokens(x)} tokens: {y:.4f} nats" for x, y in own]
                    style = {"color": shade, "ms": 2.5, "lw": 0.6, "ls": "-", "alpha": 0.5}
                    d.points(d.axes, [x for x, _ in own], [y for _, y in own], name, tips, **style)
                x, mean = _means([(float(r.text_tokens), float(r.loss[-1])) for _, r in runs])
                style = {"color": shade, "lw": 2, "marker": "o", "ms": 4, "ls": dash(i - 1) if i else "-"}
                d.line(d.axes, x, mean, name, f"{name}\nmean of seeds", label=name, **style)
            token_axis(d.axes, "text tokens of the whole schedule")
            d.axes.set_ylabel("final held-out loss, nats per token")
            d.title(_where(domain, params, list(panels)))
            d.readout(d.axes, "tokens", "nats")
            d.legend(d.axes)
            d.note(more(len(lines) - LINES, "arms") or more((len(found) - PANELS) * (not drawn), "panels"))
            drawn.append(d.svg(f"Final loss at decayed endpoints against text tokens, {domain}"))
    return drawn


def cost_pareto(results: Results, first: Sequence[int] = ()) -> list[str]:
    """Final loss against all FLOPs spent, the first stage and the generation of its tokens included, an SVG a held-out
    set: every run small, the mean of a cell large, and the frontier of those means, which nothing beats at less cost.
    """
    sets: dict[tuple[str, str], dict[str, dict[tuple[Any, ...], Ends]]] = {}
    base = str(results.plan["baseline"])
    names: dict[tuple[Any, ...], str] = {}
    order = ranked(results, first)
    for i in order:
        for seed, treated, baseline in results.cells[i].finished():
            for arm, run in ((base, baseline), (results.cells[i].arm, treated)):
                if run.diverged or not len(run.loss):
                    continue
                facets = (arm, run.params, run.text_tokens, run.schedule)
                key = facets if arm == base else (*facets, i)
                size = f", {numbers.tokens(run.params)} parameters" if run.params else ""
                own = f"{base}, {numbers.tokens(run.text_tokens)} tokens{size}"
                names[key] = own if arm == base else results.labels[i]
                members = sets.setdefault((run.domain, run.validation), {}).setdefault(arm, {}).setdefault(key, [])
                if all(run.stage != other.stage for _, other in members):
                    members.append((str(seed), run))
    drawn: list[str] = []
    for (domain, _), arms in list(sets.items())[:PANELS]:
        with drawing() as d:
            means: list[tuple[float, float]] = []
            for i, (arm, cells) in enumerate(list(arms.items())[:LINES]):
                style: dict[str, Any] = {"color": INK if arm == base else colour(i - 1), "marker": MARKERS[i % 6]}
                for n, (key, runs) in enumerate(cells.items()):
                    x, y = [_flops(r) for _, r in runs], [float(r.loss[-1]) for _, r in runs]
                    middle = (float(np.mean(x)), float(np.mean(y)))
                    means.append(middle)
                    if n < CELLS:
                        tips = [f"{names[key]}\nseed {s}\n{v:.4f} nats" for (s, _), v in zip(runs, y, strict=True)]
                        d.points(d.axes, x, y, arm, tips, ms=3.5, alpha=0.45, mew=0, **style)
                        tip = f"{names[key]}\nmean of {len(runs)}: {middle[1]:.4f} nats\n{middle[0]:.3g} FLOPs"
                        d.points(d.axes, *middle, arm, [tip], ms=6.5, mec="white", mew=0.7, **style)
                d.axes.plot([], [], ls="none", ms=6, label=arm, **style)
            edge = _frontier(means)
            d.axes.plot(
                [x for x, _ in edge], [y for _, y in edge], color="#767676", lw=1.2, ls="--", drawstyle="steps-post",
                zorder=1, label="frontier of means",
            )  # fmt: skip
            log_ticks(d.axes, "x", lambda v: f"{v:.0e}".replace("e+", "e"))
            _few_ticks(d.axes)
            d.axes.set_xlabel("FLOPs of all stages and generation")
            d.axes.set_ylabel("final held-out loss, nats per token")
            d.title(domain if len(sets) > 1 else "")
            d.legend(d.axes)
            hidden = sum(max(len(c) - CELLS, 0) for c in list(arms.values())[:LINES])
            d.note(more(hidden, "cells") or more((len(sets) - PANELS) * (not drawn), "held-out sets"))
            drawn.append(d.svg(f"Final loss against all FLOPs spent, {domain}"))
    return drawn


def _decayed(run: Run) -> bool:
    return len(run.loss) > 0 and not run.diverged and run.decayed


def _flops(run: Run) -> float:
    return run.before_flops + run.flops_per_token * run.text_tokens


def _means(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
    by_x: dict[float, list[float]] = {}
    for x, y in sorted(points):
        by_x.setdefault(x, []).append(y)
    return list(by_x), [float(np.mean(v)) for v in by_x.values()]


def _frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of (cost, loss) that no cheaper or equal one undercuts, by cost."""
    edge: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not edge or loss < edge[-1][1]:
            edge.append((cost, loss))
    return edge


def _few_ticks(axes: Any) -> None:
    """Ticks that can be read on a log axis of less than a decade."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    if high / low < 20:
        ticks = [v for v in MaxNLocator(5).tick_values(low, high) if low <= v <= high]
        axes.set_xticks(ticks, [f"{v:.3g}".replace("e+", "e") for v in ticks])
        axes.minorticks_off()


def _where(domain: str, params: float, keys: list[tuple[Any, ...]]) -> str:
    parts = [domain] if len({k[0] for k in keys}) > 1 else []
    return ", ".join([*parts, *([f"{numbers.tokens(params)} parameters"] if len({k[1] for k in keys}) > 1 else [])])
