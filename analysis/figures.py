"""The figures, one function each, as SVG or PNG text that a page can hold. Colours are Okabe and Ito's, which readers
with any colour vision can tell apart; seeds are thin lines and their mean a thick one."""

import base64
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from analysis import numbers
from analysis.cells import Cell, Run, label
from analysis.frame import DataError, attempt, axis_columns
from analysis.learned import BASELINES, checked_stages
from analysis.speedup import gap_curve, speedup_curve
from analysis.tables import Results

INK = "#333333"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STATES = ("#E9E5DB", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#333333",
          "#8C564B", "#7F7F7F", "#BCBD22", "#17BECF", "#9467BD", "#AEC7E8")  # fmt: skip
"""Colours of automaton states 0, 1, ...; the paper's largest alphabet has 15."""

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
}
SIZE = (4.9, 3.2)
"""Inches: two figures side by side on a desk, one on a phone, with letters that can be read on both."""


def panels(results: Results) -> dict[tuple[str, ...], list[tuple[str, Cell]]]:
    """Cells with their labels, grouped by the baseline runs that they are compared with: one panel of a figure each."""
    found: dict[tuple[str, ...], list[tuple[str, Cell]]] = {}
    for name, cell in zip(results.labels, results.cells, strict=True):
        if any(p.complete for p in cell.pairs):
            key = tuple(sorted({b.stage for _, _, b in cell.finished()}))
            found.setdefault(key, []).append((name, cell))
    # Cells of which different seeds are finished belong together all the same.
    merged: dict[tuple[str, ...], list[tuple[str, Cell]]] = {}
    for key in sorted(found, key=len, reverse=True):
        home = next((k for k in merged if set(key) <= set(k)), key)
        merged.setdefault(home, []).extend(found[key])
    order = {name: i for i, name in enumerate(results.labels)}
    return {k: sorted(v, key=lambda item: order[item[0]]) for k, v in merged.items()}


def loss_curves(results: Results) -> list[str]:
    """Validation loss against text tokens (log), an SVG a panel: every seed as measured, and the mean of seeds."""
    drawn = []
    for members in panels(results).values():
        baselines = {b.stage: b for _, cell in members for _, _, b in cell.finished()}
        groups = [(str(results.plan["baseline"]), INK, list(baselines.values()))]
        groups += [(name, _colour(i), [t for _, t, _ in c.finished()]) for i, (name, c) in enumerate(members)]
        with _figure() as (figure, axes):
            start = 0.05 * max(r.text_tokens for r in baselines.values())
            seen: list[float] = []
            for name, colour, runs in groups:
                for run in runs:
                    late = run.tokens >= start
                    axes.plot(run.tokens[late], run.loss[late], color=colour, lw=0.6, alpha=0.45)
                    seen += list(run.loss[late][np.isfinite(run.loss[late]) & (not run.diverged)])
                x, mean = _mean_curve(runs, start)
                axes.plot(x, mean, color=colour, lw=2, label=name)
            if seen:
                room = 0.05 * (max(seen) - min(seen)) + 1e-3
                axes.set_ylim(min(seen) - room, max(seen) + room)
            axes.set_ylabel("held-out loss, nats per token")
            _token_axis(axes)
            _legend(figure, axes)
            drawn.append(_svg(figure))
    return drawn


def loss_gap(results: Results) -> list[str]:
    """Loss gap against text tokens, an SVG a panel: every pair thin, the mean thick in its 95 % band. Dashed where the
    arm's own budget differs, since then two schedules are at different places."""
    drawn = []
    for members in panels(results).values():
        if not any(cell.readable() for _, cell in members):
            continue
        with _figure() as (figure, axes):
            axes.axhline(0, color=INK, lw=1)
            bands = []
            for i, (name, cell) in enumerate(members):
                read = [(b, t) for _, t, b in cell.readable()]
                if not read:
                    continue
                gap, colour = gap_curve(read), _colour(i)
                for pair in read:
                    alone = gap_curve([pair])
                    axes.plot(alone["tokens"], alone["gap_nats"], color=colour, lw=0.6, alpha=0.45)
                line = "-" if cell.same_budget else "--"
                axes.plot(gap["tokens"], gap["gap_nats"], color=colour, lw=2, ls=line, label=name)
                bands.append((gap["tokens"], gap["gap_nats_lo"], gap["gap_nats_hi"], colour))
            _fill(axes, bands)
            axes.set_ylabel(f"loss of {results.plan['baseline']} minus arm, nats")
            _token_axis(axes)
            _legend(figure, axes)
            drawn.append(_svg(figure))
    return drawn


def speedup_forest(results: Results) -> str | None:
    """Speedup of every cell with its 95 % interval, gross (filled) and net of the tokens before (open); None if no
    cell with the baseline's text budget can be read."""
    effects = results.effects
    comparable = effects["gap_kind"] == "shared budget"
    shown = [i for i in range(len(effects)) if comparable[i] and math.isfinite(effects["speedup"][i])]
    if not shown:
        return None
    with _figure((SIZE[0], 0.9 + 0.42 * len(shown))) as (figure, axes):
        ends = [v for k in ("speedup", "net_speedup_tokens") for v in effects.loc[shown, k] if v > 0]
        low, high = min(0.8, *ends) / 1.15, max(1.25, *ends) * 1.15
        axes.axvline(1, color=INK, lw=1)
        axes.axvline(results.plan.get("sesoi", 1.05), color="#999999", lw=1, ls=":")
        for row, i in enumerate(shown):
            for kind, dy, fill in (("speedup", -0.13, True), ("net_speedup_tokens", 0.13, False)):
                value, lo, hi = (float(effects[f"{kind}{end}"][i]) for end in ("", "_lo", "_hi"))
                if not math.isnan(lo):
                    axes.plot([max(lo, low / 2), min(hi, high * 2)], [row + dy] * 2, color=COLOURS[0], lw=1.6)
                axes.plot(
                    value, row + dy, "o", ms=6, mec=COLOURS[0], mfc=COLOURS[0] if fill else "white", mew=1.4,
                    label=("gross" if fill else "net of tokens before") if row == 0 else None,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if low <= t <= high]
        axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(shown)), [results.labels[i] for i in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"text that {results.plan['baseline']} needs / text that the arm needs")
        _legend(figure, axes)
        return _svg(figure)


def speedup_by_loss(results: Results) -> list[str]:
    """S(L), the speedup at every loss on the baseline's way to its final one (right), an SVG a panel, with 95 % bands
    and the headline's target marked: a line that bends there hangs on the flat tail of a schedule."""
    drawn = []
    for members in panels(results).values():
        read = {name: [(b, t) for _, t, b in cell.readable()] for name, cell in members if cell.same_budget}
        if not any(read.values()):
            continue
        with _figure() as (figure, axes):
            axes.axhline(1, color=INK, lw=1)
            bands = []
            for i, (name, _) in enumerate(members):
                if not read.get(name):
                    continue
                curve = speedup_curve(read[name])
                axes.plot(curve["target_loss_nats"], curve["speedup"], color=_colour(i), lw=2, label=name)
                axes.plot(curve["target_loss_nats"].iloc[-1], curve["speedup"].iloc[-1], "o", color=_colour(i), ms=5)
                bands.append((curve["target_loss_nats"], curve["speedup_lo"], curve["speedup_hi"], _colour(i)))
            _fill(axes, bands)
            axes.invert_xaxis()
            axes.set_xlabel("held-out loss reached, nats per token")
            axes.set_ylabel("speedup")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
            _legend(figure, axes)
            drawn.append(_svg(figure))
    return drawn


def learned_check(results: Results) -> list[str]:
    """Held-out loss of a first stage by frame (its context grows to the right) above the simple predictors' losses
    as lines, an SVG for every distinct set of stages."""
    drawn = []
    for name, digests in first_stages(results):
        held_out = [results.stages[d]["held_out"] for d in digests]
        by_frame = [h["loss_by_frame"] for h in held_out if h.get("loss_by_frame")]
        if not by_frame:
            continue
        with _figure() as (figure, axes):
            losses = np.array([[np.nan if v is None else v for v in row] for row in by_frame], float)
            frames = np.arange(1, losses.shape[1] + 1)
            axes.plot(frames, losses.T, color=COLOURS[0], lw=0.6, alpha=0.45)
            measured = ~np.isnan(losses).all(axis=0)
            axes.plot(frames[measured], np.nanmean(losses[:, measured], axis=0), color=COLOURS[0], lw=2, label="model")
            for (simple, field), style in zip(BASELINES.items(), (":", "--", "-."), strict=True):
                values = [h[field] for h in held_out if h.get(field) is not None]
                if values:
                    axes.axhline(np.mean(values), color=INK, lw=1.1, ls=style, label=simple)
            axes.set_xlabel("frame of the sequence")
            axes.set_ylabel("held-out loss, nats per token")
            axes.set_title(name)
            axes.set_ylim(bottom=0)
            _legend(figure, axes)
            drawn.append(_svg(figure))
    return drawn


def induction_probe(results: Results) -> list[str]:
    """The induction probe against text tokens, an SVG a panel; empty where it was not measured."""
    drawn = []
    text = results.frame[(results.frame["phase"] == "pre-training") & (results.frame["tokens"] > 0)]
    text = text.drop_duplicates(["stage", "tokens"])
    if not text["induction_nats"].notna().any():
        return []
    for members in panels(results).values():
        baselines = list({b.stage for _, cell in members for _, _, b in cell.finished()})
        groups = [(str(results.plan["baseline"]), INK, baselines)]
        groups += [(name, _colour(i), [t.stage for _, t, _ in c.finished()]) for i, (name, c) in enumerate(members)]
        with _figure() as (figure, axes):
            axes.axhline(0, color="#999999", lw=1)
            for name, colour, stages in groups:
                rows = text[text["stage"].isin(stages) & text["induction_nats"].notna()]
                if rows.empty:
                    continue
                for _, run in rows.groupby("stage"):
                    axes.plot(run["tokens"], run["induction_nats"], color=colour, lw=0.6, alpha=0.45)
                mean = rows.groupby("tokens")["induction_nats"].agg(["mean", "size"])
                mean = mean[mean["size"] == mean["size"].max()]
                axes.plot(mean.index, mean["mean"], color=colour, lw=2, label=name)
            axes.set_ylabel("loss on a repeat minus first time, nats")
            _token_axis(axes)
            _legend(figure, axes)
            drawn.append(_svg(figure))
    return drawn


def automata(results: Results, rules: int = 4, times: int = 10) -> list[tuple[str, list[tuple[float, str]]]]:
    """Pictures of the automata that were trained on: (name, [(gzip ratio, PNG data URI)]), a strip a rule with time
    from left to right; empty for results without a store. Raises DataError where frames.npz is damaged."""
    found: list[tuple[str, list[tuple[float, str]]]] = []
    for name, digests in first_stages(results):
        directory = attempt(results.store, digests[0]) if results.store else None
        path = directory / "frames.npz" if directory else None
        if path is None or not path.is_file():
            continue
        try:
            with np.load(path, allow_pickle=False) as stored:
                frames, scores = stored["frames"], stored["scores"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete the stage's DONE and run it again") from None
        strips = [(float(s), _strip(f[:times])) for f, s in zip(frames[:rules], scores[:rules], strict=True)]
        found.append((name, strips))
    return found


def first_stages(results: Results) -> list[tuple[str, list[str]]]:
    """Distinct sets of finished stages before the text that have simple predictors to beat, digests in the order of
    seeds, each with the labels of the cells that start from it (an arm and its control may share one)."""
    found: dict[tuple[str, ...], list[str]] = {}
    for (arm, *values, _phase), digests in checked_stages(results.plan, results.stages).items():
        axes = dict(zip(axis_columns(results.plan), values, strict=True))
        found.setdefault(tuple(digests), []).append(label(arm, axes, results.plan))
    return [("; ".join(names), list(digests)) for digests, names in found.items()]


def _strip(frames: np.ndarray) -> str:
    """A PNG data URI of frames (time, grid, grid), side by side with a gap of one cell."""
    from matplotlib import image
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(STATES[i % len(STATES)]) for i in range(int(frames.max(initial=0)) + 1)])
    times, height, width = frames.shape
    picture = np.ones((height, times * (width + 1) - 1, 3))
    for i, frame in enumerate(frames):
        picture[:, i * (width + 1) : i * (width + 1) + width] = palette[frame]
    buffer = io.BytesIO()
    image.imsave(buffer, picture, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _mean_curve(runs: list[Run], start: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean smoothed loss of the runs that have one, from `start` tokens to the end of the shortest."""
    curves = [r.curve for r in runs if r.curve]
    if not curves:
        return np.empty(0), np.empty(0)
    x = np.linspace(max(math.log(start), *(c.x[0] for c in curves)), min(c.end for c in curves), 256)
    return np.exp(x), np.mean([c.at(x) for c in curves], axis=0)


def _fill(axes: Any, bands: list[tuple[Any, Any, Any, str]]) -> None:
    """Bands (x, low, high, colour) in the limits of the lines: the band of two pairs would flatten every line."""
    axes.set_ylim(axes.get_ylim())
    for x, low, high, colour in bands:
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def _legend(figure: Any, axes: Any) -> None:
    """A legend above the axes, where it hides no line; the figure grows with it."""
    rows = math.ceil(len(axes.get_legend_handles_labels()[0]) / 2)
    figure.set_figheight(figure.get_figheight() + 0.18 * rows)
    figure.legend(loc="outside upper left", ncols=2)


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _token_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlabel("text tokens")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers.tokens(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


@contextmanager
def _figure(size: tuple[float, float] = SIZE) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes without pyplot, so that nothing global is kept and no display is asked for."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    """The figure as an <svg> element that scales with the page and names nothing outside it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # unreferenced, and equal ids in one page are an error
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", '<svg role="img"', 1).strip()
