"""Whether a cheap reading orders the arms as the dear one does."""

import math
from collections.abc import Sequence

import numpy as np

from analysis import numbers
from analysis.figures.style import COLOURS, PANELS, colour, drawing, more
from analysis.metrics.proxy import EarlySignal

SHOWN = 60
"""Arms of a panel."""
NAMED = 8
"""Up to so many arms are named at their points."""


def early_signal(signals: Sequence[EarlySignal]) -> list[str]:
    """Loss gap late against loss gap early, an SVG a signal: an arm a point with a whisker of one standard error each
    way, and each pair small. Above stand the share of pairs of arms that both order alike, what the noise of seeds
    would allow, Spearman's and Kendall's correlation, and the regret of the early choice."""
    shown = [s for s in signals if len(s.arms) > 1 and len(s.small) and len(s.large)]
    drawn: list[str] = []
    for s in shown[:PANELS]:
        with drawing((4.9, 3.7)) as d:
            x, y = s.small.mean(axis=0), s.large.mean(axis=0)
            ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
            d.axes.axline((0, 0), slope=1, color="#BBBBBB", lw=1, ls=":")
            for i, name in enumerate(s.arms[:SHOWN]):
                shade = colour(i) if len(s.arms) <= len(COLOURS) else COLOURS[0]
                if len(s.small) == len(s.large):
                    tips = [f"{name}\npair {n + 1}\nearly {a:+.4f}, late {b:+.4f} nats"
                            for n, (a, b) in enumerate(zip(s.small[:, i], s.large[:, i], strict=True))]  # fmt: skip
                    d.points(d.axes, s.small[:, i], s.large[:, i], name, tips, color=shade, ms=2.5, alpha=0.45, mew=0)
                for values, across in ((s.small[:, i], True), (s.large[:, i], False)):
                    if len(values) > 1:
                        error = float(values.std(ddof=1)) / math.sqrt(len(values))
                        line = ([x[i] - error, x[i] + error], [y[i]] * 2) if across else (
                            [x[i]] * 2, [y[i] - error, y[i] + error])  # fmt: skip
                        d.mark(d.axes.plot(*line, color=shade, lw=1)[0], name)
                tip = f"{name}\nearly {x[i]:+.4f}, late {y[i]:+.4f} nats"
                d.points(d.axes, x[i], y[i], name, [tip], color=shade, ms=6, mec="white", mew=0.8, zorder=4)
                if len(s.arms) <= NAMED:
                    d.axes.plot([], [], "o", ls="none", ms=6, color=shade, label=name)
            d.axes.set_xlabel(f"loss gap at {s.early}, nats")
            d.axes.set_ylabel(f"loss gap at {s.late}, nats")
            if not np.ptp(ends):
                d.axes.margins(0.2)
            d.axes.locator_params(axis="x", nbins=6)
            said = "\n".join(filter(None, (s.group, signal_text(s))))
            d.axes.set_title(said, fontsize=8.2, fontweight="normal")
            d.legend(d.axes)
            d.note("; ".join(filter(None, (
                more(len(s.arms) - SHOWN, "arms"), more((len(shown) - PANELS) * (not drawn), "signals"),
            ))))  # fmt: skip
            drawn.append(d.svg(f"Late against early loss gap, {s.early} and {s.late}. {signal_text(s)}"))
    return drawn


def signal_text(s: EarlySignal) -> str:
    """What the figure says in numbers, on two lines."""
    ceiling = f", {numbers.share(s.ceiling)} by a perfect proxy" if math.isfinite(s.ceiling) else ""
    rank = f"Spearman {s.spearman:.2f}, Kendall {s.kendall:.2f}" if math.isfinite(s.spearman) else "no rank correlation"
    regret = f", regret {s.regret:.4f} nats" if math.isfinite(s.regret) else ""
    return f"{numbers.share(s.accuracy)} of pairs of arms ordered alike{ceiling}\n{rank}{regret}"
