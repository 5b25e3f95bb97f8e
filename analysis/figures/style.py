"""What all figures share: colours, type, and a drawing that becomes an <svg> element which the page's script can read.

Colours are Okabe and Ito's (2008, "Color Universal Design"), which readers with any colour vision can tell apart; seeds
are thin lines or small marks and their mean a thick line or a large mark.
"""

import io
import json
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np

from analysis import numbers

INK = "#333333"
SOFT = "#767676"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (7, 1.5)), (0, (1, 1)))
"""Lines after the sixth repeat the colours with another dash."""
MARKERS = "os^Dvp"
"""Shapes that tell arms apart without colour."""
DIVERGING = ("#D55E00", "#F4C9A8", "#FAFAF8", "#A9CFE6", "#0072B2")
"""Harm, nothing, gain."""

LINES = 12
"""Lines of a panel."""
PANELS = 12
"""Panels of a figure."""
ROWS = 40
"""Rows of a forest, a strip plot, a map."""
CELLS = 60
"""Cells of an arm in a picture where each is a mark."""
VERTICES = 200
"""Points of a line: more than an eye can tell apart on the width of a figure."""

LONG_PATH = 600
"""Characters of an SVG attribute."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "analysis",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#ECECEC",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 72,  # that of an SVG, so that a point of the figure is a unit of its viewBox
}
SIZE = (4.9, 3.2)
"""Inches: two figures side by side on a desk, one on a phone, with letters that can be read on both."""


class Drawing:
    """A figure under work: `figure` and `axes` are matplotlib's. What is drawn by `line`, `points` and `band`, or
    passed to `mark`, belongs to a series that the reader can point at; `svg` says so in data attributes."""

    def __init__(self, figure: Any, axes: Any) -> None:
        self.figure, self.axes = figure, axes
        self._marks: list[tuple[str, str]] = []
        self._spots: list[tuple[Any, float, float, str, str]] = []
        self._readouts: dict[Any, tuple[str, str]] = {}

    def mark(self, artist: Any, series: str, tip: str = "") -> Any:
        """Makes an artist part of a series; with a tip it is a line that can be read along its way."""
        artist.set_gid(f"mark-{len(self._marks)}")
        self._marks.append((series, tip))
        return artist

    def line(self, axes: Any, x: Any, y: Any, series: str, tip: str = "", **style: Any) -> None:
        """A line of at most VERTICES points (x, y), both (n,)."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        if len(x) > VERTICES:
            keep = np.unique(np.linspace(0, len(x) - 1, VERTICES).round().astype(int))
            x, y = x[keep], y[keep]
        self.mark(axes.plot(x, y, **style)[0], series, tip)

    def points(self, axes: Any, x: Any, y: Any, series: str, tips: Sequence[str], **style: Any) -> None:
        """Marks at (x, y), both (n,), each with its tip."""
        x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
        self.mark(axes.plot(x, y, **({"ls": "none", "marker": "o"} | style))[0], series)
        for at in zip(x, y, tips, strict=True):
            self.spot(axes, *at, series)

    def spot(self, axes: Any, x: float, y: float, tip: str, series: str) -> None:
        """A place that tells its tip, whatever is drawn there."""
        if math.isfinite(x) and math.isfinite(y):
            self._spots.append((axes, x, y, tip, series))

    def band(self, axes: Any, x: Any, low: Any, high: Any, series: str, colour: str) -> None:
        """A band in the limits that the axes have by now: the band of two pairs would flatten every line."""
        axes.set_ylim(axes.get_ylim())
        low, high = np.asarray(low, float), np.asarray(high, float)
        if (np.isfinite(low) & np.isfinite(high)).any():
            self.mark(axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0), series)

    def readout(self, axes: Any, x: str, y: str) -> None:
        """Lines of these axes are read at the pointer, in the formats "tokens", "nats", "times" or "number"."""
        self._readouts[axes] = (x, y)

    def legend(self, axes: Any) -> None:
        """A legend above the axes, where it hides no line; the figure grows with it. Entries stand for their series."""
        handles, names = axes.get_legend_handles_labels()
        if not names:
            return
        shown = [shorten(name, 58) for name in names]
        many = len(shown) > LINES // 2
        columns = 2 if max(map(len, shown)) <= (36 if many else 26) and len(shown) > 1 else 1
        grow = (0.17 if many else 0.19) * math.ceil(len(shown) / columns)
        self.figure.set_figheight(self.figure.get_figheight() + grow)
        style: Any = {"fontsize": 7.2, "handlelength": 1.6, "columnspacing": 1.0} if many else {}
        legend = self.figure.legend(handles, shown, loc="outside upper left", ncols=columns, **style)
        for handle, text, name in zip(legend.legend_handles, legend.get_texts(), names, strict=True):
            self.mark(handle, name)
            self.mark(text, name)

    def title(self, text: str, size: float = 9.0) -> None:
        """A title on at most two lines; the figure grows with the second."""
        lines = textwrap.wrap(text, 56, max_lines=2, placeholder="…")
        self.figure.set_figheight(self.figure.get_figheight() + 0.15 * max(len(lines) - 1, 0))
        self.axes.set_title("\n".join(lines), fontsize=size)

    def note(self, text: str) -> None:
        """Small print at the foot of the figure."""
        if text:
            self.figure.set_figheight(self.figure.get_figheight() + 0.14)
            self.figure.supxlabel(text, x=0.99, ha="right", fontsize=7.5, color=SOFT)

    def svg(self, title: str) -> str:
        """The figure as an <svg> element that scales with the page and names nothing outside it. `title` says in
        words what is drawn."""
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = re.sub(r'<g id="mark-(\d+)"', lambda m: f"<g{_data(*self._marks[int(m[1])])}", text)
        text = re.sub(r'<g id="[^"]*"', "<g", text)  # unreferenced, and equal ids in one page are an error
        text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
        text = re.sub(r' (?:d|x|y|width|height|transform)="[^"]*"', lambda m: _round(m[0]), text)
        head = f'<svg role="img" tabindex="0" data-axes="{escape(json.dumps(self._boxes()))}"'
        before, after = text.removeprefix("<svg").split(">", 1)
        body = after.rpartition("</svg>")[0]
        return f"{head}{before}>\n<title>{escape(title)}</title>{body}{''.join(self._circles())}</svg>"

    def _boxes(self) -> list[dict[str, Any]]:
        height = self.figure.bbox.height
        found = []
        for axes, (x_format, y_format) in self._readouts.items():
            box = axes.bbox
            found.append(
                {
                    "box": [round(float(v), 2) for v in (box.x0, height - box.y1, box.width, box.height)],
                    "x": [*map(float, axes.get_xlim()), axes.get_xscale(), x_format, axes.get_xlabel()],
                    "y": [*map(float, axes.get_ylim()), axes.get_yscale(), y_format, axes.get_ylabel()],
                }
            )
        return found

    def _circles(self) -> Iterator[str]:
        height = self.figure.bbox.height
        for axes, x, y, tip, series in self._spots:
            cx, cy = axes.transData.transform((x, y))
            if axes.bbox.x0 - 1 <= cx <= axes.bbox.x1 + 1 and axes.bbox.y0 - 1 <= cy <= axes.bbox.y1 + 1:
                yield f'<circle cx="{cx:.1f}" cy="{height - cy:.1f}" r="6" fill="none"{_data(series, tip)}/>\n'


@contextmanager
def drawing(size: tuple[float, float] = SIZE) -> Iterator[Drawing]:
    """A drawing without pyplot, so that nothing global is kept and no display is asked for."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        yield Drawing(figure, figure.add_subplot())


def colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def dash(i: int) -> Any:
    return DASHES[i // len(COLOURS) % len(DASHES)]


def diverging() -> Any:
    """A colour map from harm to gain."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("gain", DIVERGING)


def log_ticks(axes: Any, which: str, text: Any, subs: Sequence[float] = (1, 2, 5)) -> None:
    """A log axis ("x" or "y") with few ticks that read as `text(value)`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}scale")("log")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def token_axis(axes: Any, name: str = "text tokens") -> None:
    log_ticks(axes, "x", numbers.tokens)
    axes.set_xlabel(name)


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def row_labels(axes: Any, labels: Sequence[str]) -> None:
    """Names of rows 0, 1, ... on the left, on at most two lines each, and the first row at the top."""
    wrapped = [rows_of(label) for label in labels]
    axes.set_yticks(range(len(labels)), wrapped, fontsize=8 if any("\n" in w for w in wrapped) else 9)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def rows_of(text: str, width: int = 28) -> str:
    """A label on at most two lines, broken after a comma where that fits."""
    if len(text) <= width:
        return text
    parts = text.split(", ")
    for cut in range(len(parts) - 1, 0, -1):
        lines = [", ".join(parts[:cut]) + ",", ", ".join(parts[cut:])]
        if max(map(len, lines)) <= width:
            return "\n".join(lines)
    return "\n".join(textwrap.wrap(text, width, max_lines=2, placeholder="…"))


def more(count: int, what: str) -> str:
    """A note on what is not drawn, if there is any."""
    return f"{count} more {what} not drawn" if count > 0 else ""


def _data(series: str, tip: str) -> str:
    lines = escape(tip).replace("\n", "&#10;")  # XML would read a line end in an attribute as a space
    said = f' data-tip="{lines}"' if tip else ""
    return f' data-series="{escape(series)}"{said}'


def _round(attribute: str) -> str:
    """Long paths to a tenth of a unit, which is a sixth of a pixel on a desk, and the rest to a hundredth."""
    digits = 1 if len(attribute) > LONG_PATH else 2
    longer = rf"-?\d+\.\d{{{digits + 1},}}"
    return re.sub(longer, lambda m: f"{float(m[0]):.{digits}f}".rstrip("0").rstrip("."), attribute)
