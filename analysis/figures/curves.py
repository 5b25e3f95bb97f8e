"""Figures along the text of a run: loss, gap, speedup at every loss, decayed ends, and the induction probe."""

import math
from collections.abc import Sequence

import numpy as np

from analysis import numbers
from analysis.cells import Run
from analysis.figures.panels import Panel, panels
from analysis.figures.style import INK, Drawing, colour, dash, drawing, more, token_axis
from analysis.metrics.speedup import NEAR_TARGETS, gap_curve, speedup_curve
from analysis.results import Results

Group = tuple[str, str, object, list[tuple[str, Run]]]
"""Name, colour, dash, and (seed, run) of a line."""


def loss_curves(results: Results, first: Sequence[int] = ()) -> list[str]:
    """Validation loss against text tokens (log), an SVG a panel: every seed as measured, and the mean of seeds."""
    found, left = panels(results, first)
    drawn: list[str] = []
    for panel in found:
        with drawing() as d:
            start = 0.05 * max(r.text_tokens for r in panel.baselines)
            seen: list[float] = []
            for name, shade, line, runs in _groups(results, panel):
                for seed, run in runs:
                    late = run.tokens >= start
                    d.line(
                        d.axes, run.tokens[late], run.loss[late], name, f"{name}\nseed {seed}", color=shade, lw=0.6,
                        alpha=0.45,
                    )  # fmt: skip
                    seen += list(run.loss[late][np.isfinite(run.loss[late]) & (not run.diverged)])
                x, mean = _mean_curve([run for _, run in runs], start)
                said = f"{name}\nmean of {len(runs)} seeds"
                d.line(d.axes, x, mean, name, said, color=shade, lw=2, ls=line, label=name)
            if seen:
                room = 0.05 * (max(seen) - min(seen)) + 1e-3
                d.axes.set_ylim(min(seen) - room, max(seen) + room)
            d.axes.set_ylabel("held-out loss, nats per token")
            _finish(d, panel, left * (not drawn))
            drawn.append(d.svg(f"Held-out loss against text tokens{_of(panel)}"))
    return drawn


def loss_gap(results: Results, first: Sequence[int] = ()) -> list[str]:
    """Loss gap against text tokens, an SVG a panel: every pair thin, the mean thick in its 95 % band. Dotted where the
    arm's own budget differs, since then two schedules are at different places."""
    found, left = panels(results, first)
    drawn: list[str] = []
    for panel in found:
        if not any(m.cell.readable() for m in panel.members):
            continue
        with drawing() as d:
            d.axes.axhline(0, color=INK, lw=1)
            bands = []
            for i, (_, name, cell) in enumerate(panel.members):
                read = cell.readable()
                if not read:
                    continue
                for seed, treated, baseline in read:
                    alone = gap_curve([(baseline, treated)])
                    d.line(
                        d.axes, alone["tokens"], alone["gap_nats"], name, f"{name}\nseed {seed}", color=colour(i),
                        lw=0.6, alpha=0.45,
                    )  # fmt: skip
                gap = gap_curve([(b, t) for _, t, b in read])
                line = dash(i) if cell.same_budget else ":"
                said = f"{name}\nmean of {len(read)} pairs"
                d.line(d.axes, gap["tokens"], gap["gap_nats"], name, said, color=colour(i), lw=2, ls=line, label=name)
                bands.append((gap["tokens"], gap["gap_nats_lo"], gap["gap_nats_hi"], name, colour(i)))
            for band in bands:
                d.band(d.axes, *band)
            d.axes.set_ylabel(f"loss of {results.plan['baseline']} minus arm, nats")
            _finish(d, panel, left * (not drawn))
            drawn.append(d.svg(f"Loss of {results.plan['baseline']} minus that of each arm{_of(panel)}"))
    return drawn


def speedup_by_loss(results: Results, first: Sequence[int] = ()) -> list[str]:
    """S(L), the speedup at every loss on the baseline's way to its final one (right), an SVG a panel, with 95 % bands.
    A dot is the headline's target, and rings are the speedups 0.005 and 0.02 nats above it: where the three differ
    the headline hangs on the flat tail of a schedule."""
    found, left = panels(results, first)
    drawn: list[str] = []
    for panel in found:
        if not any(m.cell.readable() and m.cell.same_budget for m in panel.members):
            continue
        with drawing() as d:
            d.axes.axhline(1, color=INK, lw=1)
            bands = []
            for i, (_, name, cell) in enumerate(panel.members):
                read = [(b, t) for _, t, b in cell.readable()]
                if not read or not cell.same_budget:
                    continue
                curve = speedup_curve(read)
                loss, speedup = curve["target_loss_nats"].to_numpy(), curve["speedup"].to_numpy()
                said = f"{name}\nmean of {len(read)} pairs"
                d.line(d.axes, loss, speedup, name, said, color=colour(i), lw=2, ls=dash(i), label=name)
                above = [loss[-1] + up for up in NEAR_TARGETS]
                near = np.interp(above, loss[::-1], speedup[::-1], right=np.nan)
                for at, value, up in zip(above, near, NEAR_TARGETS, strict=True):
                    tip = f"{name}\n{numbers.times(value)} at {up:g} nats above the target"
                    d.points(d.axes, at, value, name, [tip], color=colour(i), mfc="white", ms=5, mew=1.3)
                tip = f"{name}\n{numbers.times(speedup[-1])} at the target, {numbers.nats(loss[-1])} nats"
                d.points(d.axes, loss[-1], speedup[-1], name, [tip], color=colour(i), ms=5.5)
                bands.append((loss, curve["speedup_lo"], curve["speedup_hi"], name, colour(i)))
            for band in bands:
                d.band(d.axes, *band)
            d.axes.invert_xaxis()
            d.axes.set_xlabel("held-out loss reached, nats per token")
            d.axes.set_ylabel("speedup")
            d.axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
            d.title(panel.title)
            d.readout(d.axes, "nats", "times")
            d.legend(d.axes)
            d.note(_notes(panel, left * (not drawn)))
            drawn.append(d.svg(f"Speedup at every loss{_of(panel)}"))
    return drawn


def induction_probe(results: Results, first: Sequence[int] = ()) -> list[str]:
    """The induction probe against text tokens, an SVG a panel; empty where it was not measured."""
    text = results.frame[(results.frame["phase"] == "pre-training") & (results.frame["tokens"] > 0)]
    text = text.drop_duplicates(["stage", "tokens"])
    text = text[text["induction_nats"].notna()]
    if text.empty:
        return []
    found, left = panels(results, first)
    drawn: list[str] = []
    for panel in found:
        with drawing() as d:
            d.axes.axhline(0, color="#999999", lw=1)
            for name, shade, dashes, runs in _groups(results, panel):
                seeds = {run.stage: seed for seed, run in runs}
                rows = text[text["stage"].isin(list(seeds))]
                if rows.empty:
                    continue
                for stage, run in rows.groupby("stage"):
                    said = f"{name}\nseed {seeds[str(stage)]}"
                    d.line(d.axes, run["tokens"], run["induction_nats"], name, said, color=shade, lw=0.6, alpha=0.45)
                mean = rows.groupby("tokens")["induction_nats"].agg(["mean", "size"])
                mean = mean[mean["size"] == mean["size"].max()]
                said = f"{name}\nmean of {len(seeds)} seeds"
                d.line(d.axes, mean.index, mean["mean"], name, said, color=shade, lw=2, ls=dashes, label=name)
            d.axes.set_ylabel("loss on a repeat minus first time, nats")
            _finish(d, panel, left * (not drawn))
            drawn.append(d.svg(f"Induction probe against text tokens{_of(panel)}"))
    return drawn


def _groups(results: Results, panel: Panel) -> list[Group]:
    seeds: dict[str, str] = {}
    for member in panel.members:
        seeds |= {b.stage: str(seed) for seed, _, b in member.cell.finished()}
    baselines = [(seeds.get(b.stage, "?"), b) for b in panel.baselines]
    groups: list[Group] = [(str(results.plan["baseline"]), INK, "-", baselines)]
    for i, (_, name, cell) in enumerate(panel.members):
        groups.append((name, colour(i), dash(i), [(str(seed), t) for seed, t, _ in cell.finished()]))
    return groups


def _mean_curve(runs: list[Run], start: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean smoothed loss of the runs that have one, from `start` tokens to the end of the shortest."""
    curves = [r.curve for r in runs if r.curve]
    if not curves:
        return np.empty(0), np.empty(0)
    x = np.linspace(max(math.log(start), *(c.x[0] for c in curves)), min(c.end for c in curves), 160)
    return np.exp(x), np.mean([c.at(x) for c in curves], axis=0)


def _finish(d: Drawing, panel: Panel, panels_left: int) -> None:
    token_axis(d.axes)
    d.title(panel.title)
    d.readout(d.axes, "tokens", "nats")
    d.legend(d.axes)
    d.note(_notes(panel, panels_left))


def _notes(panel: Panel, panels_left: int) -> str:
    return "; ".join(filter(None, (more(panel.hidden, "arms"), more(panels_left, "panels"))))


def _of(panel: Panel) -> str:
    names = ", ".join(m.name for m in panel.members)
    return (f", {panel.title}" if panel.title else "") + f": {names}"
