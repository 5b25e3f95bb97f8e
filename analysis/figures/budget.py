"""Figures of how much to spend before the text: size x budget, and the marginal rate of substitution."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import numbers
from analysis.figures.style import (
    COLOURS,
    INK,
    LINES,
    PANELS,
    SOFT,
    colour,
    diverging,
    drawing,
    log_ticks,
    more,
    token_axis,
)
from analysis.metrics.response import Surface


def size_budget_surface(surfaces: Sequence[Surface]) -> list[str]:
    """Measured cells as coloured and labelled squares over size and tokens before the text (both log), an SVG a
    surface; where it could be fitted, contours of the mean fit within the measured range, and the located optimum of a
    size with its 95 % interval."""
    shown = [s for s in surfaces if s.y.size]
    drawn: list[str] = []
    for s in shown[:PANELS]:
        params, tokens, mean = np.exp(s.ln_params), np.exp(s.ln_syn_tokens), s.y.mean(axis=0)
        with drawing((4.9, 3.4)) as d:
            limit = float(np.abs(mean).max()) or 1e-9
            d.axes.set_yscale("log")
            if not s.reason:
                n, b, fit = s.grid(41)
                if np.ptp(fit) > 0:
                    d.axes.contour(np.exp(n), np.exp(b), fit.T, levels=8, colors=SOFT, linewidths=0.7)
            for x, y, v, seeds in zip(params, tokens, mean, s.y.T, strict=True):
                tip = (
                    f"{numbers.tokens(x)} parameters, {numbers.tokens(y)} tokens before\nmean {v:+.4f} ({s.measure})\n"
                    f"pairs: {', '.join(f'{w:+.3f}' for w in seeds)}"
                )
                shade = diverging()(0.5 + 0.5 * v / limit)
                square = {"marker": "s", "ms": 27, "mfc": shade, "mec": "white", "zorder": 3}
                d.points(d.axes, x, y, f"{x:.0f} {y:.0f}", [tip], **square)
                ink = "white" if abs(v) > 0.75 * limit else INK
                d.axes.text(x, y, f"{v:+.3f}", ha="center", va="center", fontsize=6.5, color=ink, zorder=4)
            beside = math.exp(0.1 * float(np.ptp(s.ln_params)))  # the right edge of a square, whose label stays free
            named = False
            for best in s.optima:
                if best.located:
                    x, at = math.exp(best.ln_params), best.tokens
                    d.axes.plot([x * beside] * 2, [at.low, at.high], color=COLOURS[2], lw=2, zorder=5)
                    tip = f"best budget at {numbers.tokens(x)} parameters\n{numbers.tokens(at.mean)} tokens"
                    label = None if named else "best budget, 95 % interval"
                    style = {"color": COLOURS[2], "marker": "D", "ms": 5.5, "mec": "white", "zorder": 6, "label": label}
                    d.points(d.axes, x * beside, at.mean, "optimum", [tip], **style)
                    named = True
            log_ticks(d.axes, "x", numbers.tokens)
            sizes = sorted(set(params.round()))
            d.axes.set_xticks(sizes, [numbers.tokens(v) for v in sizes])
            d.axes.minorticks_off()
            budgets = sorted(set(tokens.round()))
            d.axes.set_yticks(budgets, [numbers.tokens(v) for v in budgets])
            d.axes.yaxis.minorticks_off()
            _room(d.axes, params, tokens)
            d.axes.set_xlabel("parameters")
            d.axes.set_ylabel("tokens before the text")
            d.axes.grid(visible=False)
            d.title(f"{s.group or s.arm}: {s.measure}")
            d.legend(d.axes)
            lacking = f"no fit: {s.reason}" if s.reason else ""
            d.note("; ".join(filter(None, (lacking, more((len(shown) - PANELS) * (not drawn), "surfaces")))))
            drawn.append(d.svg(f"{s.measure} by size and tokens before the text, {s.group or s.arm}"))
    return drawn


def substitution(mrs: pd.DataFrame) -> str | None:
    """Text tokens that one more token before the text saves, against that budget (log): a step from budget to budget
    with its 95 % interval in the middle, a colour a group. Above the line at 1 a further token pays for itself. None
    for an empty table. Columns: arm, group, syn_tokens_from, syn_tokens_to, mrs, mrs_lo, mrs_hi, n_pairs."""
    known = mrs[np.isfinite(mrs["mrs"].astype(float))] if len(mrs) else mrs
    if not len(known):
        return None
    groups = list(known.groupby(["arm", "group"], sort=False))
    ends = known[["syn_tokens_from", "syn_tokens_to"]].to_numpy(float)
    start = float(ends[ends > 0].min()) / 3  # a budget of zero has no place on a log axis
    with drawing() as d:
        d.axes.axhline(1, color=INK, lw=1)
        d.axes.axhline(0, color="#999999", lw=0.8)
        for i, ((arm, group), rows) in enumerate(groups[:LINES]):
            name = str(group or arm)
            x, y = [], []
            for row in rows.itertuples():
                low, high = max(float(row.syn_tokens_from), start), float(row.syn_tokens_to)
                x += [low, high]
                y += [float(row.mrs)] * 2
                middle = math.sqrt(low * high) * 1.05 ** (i - (min(len(groups), LINES) - 1) / 2)
                if math.isfinite(row.mrs_lo):
                    d.mark(
                        d.axes.plot([middle] * 2, [row.mrs_lo, row.mrs_hi], color=colour(i), lw=1, alpha=0.7)[0], name
                    )
                spent = f"{numbers.tokens(row.syn_tokens_from)} to {numbers.tokens(row.syn_tokens_to)} tokens before"
                bounds = numbers.between(row.mrs_lo, row.mrs_hi)
                tip = f"{name}\n{spent}\n{row.mrs:+.2f} {bounds}, {row.n_pairs} pairs"
                d.points(d.axes, middle, row.mrs, name, [tip], color=colour(i), ms=4.5, mec="white", mew=0.6, zorder=4)
            d.mark(d.axes.plot(x, y, color=colour(i), lw=1.8, label=name)[0], name)
        values = known["mrs"].to_numpy(float)
        room = 0.6 * max(float(np.ptp(values)), 1.0)
        around = np.clip(known[["mrs_lo", "mrs_hi"]].to_numpy(float), values.min() - room, values.max() + room)
        inside = around[np.isfinite(around)]
        d.axes.set_ylim(min([0.0, *values, *inside]) - 0.1, max([1.0, *values, *inside]) + 0.1)
        token_axis(d.axes, "tokens before the text")
        d.axes.set_ylabel("text tokens saved per token before")
        d.legend(d.axes)
        d.note(more(len(groups) - LINES, "groups"))
        return d.svg("Marginal rate of substitution against the tokens before the text")


def _room(axes: object, x: np.ndarray, y: np.ndarray) -> None:
    """Limits that leave room for whole squares at the edge of log axes."""
    for which, values in (("x", np.log(x)), ("y", np.log(y))):
        room = 0.18 * float(np.ptp(values)) + 0.25
        getattr(axes, f"set_{which}lim")(math.exp(values.min() - room), math.exp(values.max() + room))
