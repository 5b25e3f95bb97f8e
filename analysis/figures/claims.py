"""The rows of a claim: estimates with their intervals, beside what they are tested against."""

import math

import pandas as pd

from analysis import numbers
from analysis.figures.style import COLOURS, INK, ROWS, SIZE, SOFT, drawing, more, rows_of

DECIDED = {
    "supported": COLOURS[2],
    "indicative: for": COLOURS[2],
    "indicative: better": COLOURS[2],
    "contradicted": COLOURS[1],
    "indicative: against": COLOURS[1],
    "indicative: worse": COLOURS[1],
}
"""Green and vermilion of Okabe and Ito; filled where the verdict is firm."""


def claim_rows(rows: pd.DataFrame, published: tuple[float, float] | None = None) -> list[str]:
    """A forest for every unit among the rows of a claim (of `Results.claims.rows`, or in their form): the estimate with
    its interval of 95 %, coloured by verdict, the thresholds as lines and what was published as a band."""
    drawn = []
    for unit, group in rows[rows["estimate"].notna()].groupby("unit", sort=False):
        shown = group.iloc[:ROWS]
        ratio = unit == "x"
        with drawing((SIZE[0], 0.9 + 0.36 * len(shown))) as d:
            axes = d.axes
            axes.axvline(1 if ratio else 0, color=INK, lw=1)
            for name, style in (("above", ":"), ("below", "--")):
                for value in sorted(set(shown[name].dropna())):
                    axes.axvline(value, color=SOFT, lw=1, ls=style)
            if published is not None and ratio:
                axes.axvspan(*published, color=COLOURS[4], alpha=0.18, lw=0, label="published")
            low, high = _limits(shown, ratio)
            for y, (_, row) in enumerate(shown.iterrows()):
                firm = not str(row.verdict).startswith("indicative")
                colour = DECIDED.get(row.verdict, SOFT)
                if not math.isnan(row.estimate_lo):
                    ends = [max(row.estimate_lo, low), min(row.estimate_hi, high)]
                    d.mark(axes.plot(ends, [y, y], color=colour, lw=1.8)[0], row["row"])
                value = f"{row.estimate:.3g} {'x' if ratio else unit}"
                tip = f"{row['row']}\n{value} {numbers.between(row.estimate_lo, row.estimate_hi, 3)}\n{row.verdict}"
                face = colour if firm else "white"
                d.points(axes, row.estimate, y, row["row"], [tip], ms=6, mec=colour, mew=1.4, mfc=face, zorder=3)
            if ratio:
                axes.set_xscale("log")
                axes.minorticks_off()
                steps = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 2, 3, 5)
                ticks = [t for t in steps if low <= t <= high]
                axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
            axes.set_xlim(low, high)
            axes.set_yticks(range(len(shown)), [rows_of(text, 34) for text in shown["row"]])
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(shown) - 0.4, -0.6)
            axes.grid(axis="y", visible=False)
            measures = list(dict.fromkeys(shown["measure"]))
            axes.set_xlabel(measures[0] if len(measures) == 1 else f"effect, {'ratio' if ratio else unit}")
            if published is not None and ratio:
                d.legend(axes)
            d.note(more(len(group) - len(shown), "rows"))
            drawn.append(d.svg(f"Rows of the claim, {unit}: {len(shown)} estimates with 95 % intervals"))
    return drawn


def _limits(rows: pd.DataFrame, ratio: bool) -> tuple[float, float]:
    """Limits that hold estimates, thresholds and, where they are not far out, the ends of intervals."""
    values = [float(v) for name in ("estimate", "above", "below") for v in rows[name].dropna() if math.isfinite(v)]
    values += [1.0 if ratio else 0.0]
    ends = [float(v) for name in ("estimate_lo", "estimate_hi") for v in rows[name].dropna() if math.isfinite(v)]
    if ratio:
        low, high = min(values) / 1.12, max(values) * 1.12
        inside = [v for v in ends if low / 1.5 < v < high * 1.5]
        return min([low, *(v / 1.03 for v in inside)]), max([high, *(v * 1.03 for v in inside)])
    span = max(max(values) - min(values), 1e-4)
    low, high = min(values) - 0.15 * span, max(values) + 0.15 * span
    inside = [v for v in ends if low - 1.5 * span < v < high + 1.5 * span]
    return min([low, *(v - 0.03 * span for v in inside)]), max([high, *(v + 0.03 * span for v in inside)])
