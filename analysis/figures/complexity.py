"""Figures of the response to the complexity of the first stage's data, within a text and across texts."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np

from analysis import numbers
from analysis.figures.style import COLOURS, INK, PANELS, SIZE, Drawing, diverging, drawing, more, shorten
from analysis.metrics.matching import Matching
from analysis.metrics.response import Response


def complexity_response(responses: Sequence[Response]) -> list[str]:
    """Loss gap against measured complexity, an SVG a response: every seed thin, the mean of seeds as dots, the mean
    parabola dashed, and, where the optimum is located, its 95 % interval as a band."""
    shown = [r for r in responses if len(r.y) and len(r.x)]
    drawn: list[str] = []
    for r in shown[:PANELS]:
        with drawing() as d:
            name = r.group or r.arm
            d.axes.axhline(0, color=INK, lw=1)
            for n, row in enumerate(r.y):
                tips = [f"pair {n + 1}\ncomplexity {x:.3f}\n{y:+.4f} nats" for x, y in zip(r.x, row, strict=True)]
                style = {"color": COLOURS[0], "ms": 2.5, "lw": 0.6, "ls": "-", "alpha": 0.5}
                d.points(d.axes, r.x, row, f"pair {n + 1}", tips, **style)
            if np.isfinite(r.coefficients).all():
                fine = np.linspace(r.x.min(), r.x.max(), 80)
                kind = "parabola" if r.coefficients[:, 2].any() else "line"
                fit = r.at(fine).mean(axis=0)
                d.line(
                    d.axes, fine, fit, "fit", f"mean {kind} of pairs", color=COLOURS[1], lw=1.6, ls="--",
                    label=f"mean {kind}",
                )  # fmt: skip
            mean = r.y.mean(axis=0)
            tips = [f"mean of {len(r.y)} pairs\ncomplexity {x:.3f}\n{y:+.4f} nats"
                    for x, y in zip(r.x, mean, strict=True)]  # fmt: skip
            d.points(d.axes, r.x, mean, "mean", tips, color=COLOURS[0], ms=6, mec="white", mew=0.8, label="mean")
            if r.located:
                best, low, high = r.optimum
                d.mark(d.axes.axvspan(low, high, color=COLOURS[2], alpha=0.15, lw=0), "optimum")
                d.axes.axvline(best, color=COLOURS[2], lw=1.4, label=f"optimum {best:.3f} [{low:.3f}, {high:.3f}]")
            d.axes.set_xlabel("measured complexity of the first stage's data, gzip ratio")
            d.axes.set_ylabel("loss gap, nats")
            d.title(name)
            d.readout(d.axes, "number", "nats")
            d.legend(d.axes)
            lacking = "" if r.located else f"optimum not located: {r.reason}"
            d.note("; ".join(filter(None, (lacking, more((len(shown) - PANELS) * (not drawn), "responses")))))
            drawn.append(d.svg(f"Loss gap against complexity, {name}"))
    return drawn


def domain_band_heatmap(matchings: Sequence[Matching]) -> list[str]:
    """Mean loss gap by text and band, an SVG a matching; in every square the mean, the standard deviation over seeds
    below it, and a frame around the best band of a text. The registered contrast stands above."""
    shown = [m for m in matchings if m.y.size]
    drawn: list[str] = []
    for m in shown[:PANELS]:
        mean = m.y.mean(axis=0)
        spread = m.y.std(axis=0, ddof=1) if len(m.y) > 1 else np.full(mean.shape, math.nan)
        bands = np.nanmean(m.x, axis=0)
        with drawing((SIZE[0], 1.35 + 0.5 * len(m.domains))) as d:
            limit = float(np.abs(mean).max()) or 1e-9
            d.axes.pcolormesh(mean, cmap=diverging(), vmin=-limit, vmax=limit, edgecolors="white", linewidth=2)
            for i, domain in enumerate(m.domains):
                for k in range(mean.shape[1]):
                    dark = abs(mean[i, k]) > 0.75 * limit
                    below = f"\nsd {spread[i, k]:.3f}" if math.isfinite(spread[i, k]) else ""
                    d.axes.text(
                        k + 0.5, i + 0.5, f"{mean[i, k]:+.3f}{below}", ha="center", va="center", fontsize=7.5,
                        color="white" if dark else INK,
                    )  # fmt: skip
                    seeds = ", ".join(f"{v:+.3f}" for v in m.y[:, i, k])
                    tip = f"{domain}, complexity {m.x[i, k]:.3f}\nmean {mean[i, k]:+.4f} nats\npairs: {seeds}"
                    d.spot(d.axes, k + 0.5, i + 0.5, tip, f"{i} {k}")
                _frame(d, int(mean[i].argmax()), i)
            d.axes.set_xticks(np.arange(len(bands)) + 0.5, [f"{x:.2f}" for x in bands])
            d.axes.set_yticks(np.arange(len(m.domains)) + 0.5, [shorten(name, 20) for name in m.domains])
            d.axes.tick_params(length=0, labelcolor=INK)
            d.axes.invert_yaxis()
            d.axes.grid(visible=False)
            d.axes.spines[["left", "bottom"]].set_visible(False)
            d.axes.set_xlabel("measured complexity of the first stage's data, gzip ratio")
            said = textwrap.fill(contrast_text(m), 62)
            d.figure.set_figheight(d.figure.get_figheight() + 0.15 * said.count("\n"))
            d.figure.suptitle(f"{m.group or m.arm}\n{said}", fontsize=8.5, x=0.01, ha="left")
            d.note(more(len(shown) - PANELS, "maps") if not drawn else "")
            drawn.append(d.svg(f"Loss gap by text and complexity, {m.group or m.arm}. {contrast_text(m)}"))
    return drawn


def contrast_text(m: Matching) -> str:
    """The contrast in words: "slope of web, math less that of code: +0.12 [+0.05, +0.19] nats, one-sided p 0.004"."""
    if m.reason and not math.isfinite(m.contrast.mean):
        return f"no contrast: {m.reason}"
    sides = f"slope of {', '.join(m.high)} less that of {', '.join(m.low)}"
    p = f", one-sided p {m.p:.2g}" if math.isfinite(m.p) else ""
    bounds = numbers.between(m.contrast.low, m.contrast.high, 3, "+")
    return f"{sides}: {m.contrast.mean:+.3f} {bounds} nats per unit{p}"


def _frame(d: Drawing, column: int, row: int) -> None:
    x, y = [column, column + 1, column + 1, column, column], [row, row, row + 1, row + 1, row]
    inset = 0.045
    xs = [v + (inset if v == column else -inset) for v in x]
    ys = [v + (inset if v == row else -inset) for v in y]
    d.axes.plot(xs, ys, color=INK, lw=1.3)
