"""A preview for people: figures, an animation, and one HTML page with all of it inside.

Colours are Okabe and Ito's, which readers with any colour vision can tell apart. matplotlib and Pillow are imported
where they are used.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from harness.compressibility import PUBLISHED
from harness.statistics import RANKS

INK, SOFT, GREY, BLUE, ORANGE = "#333333", "#666666", "#B8B8B4", "#0072B2", "#D55E00"
STATES = ("#E9E5DB", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#333333",
          "#8C564B", "#7F7F7F", "#BCBD22", "#17BECF", "#9467BD", "#AEC7E8")  # fmt: skip
"""Colours of automaton states 0, 1, ...; the paper's largest alphabet has 15. A larger one runs from dark to light."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "preview",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
}
STRIPS, COLUMNS, PAGE_COLUMNS = 6, 14, 10
"""Rules in the picture, and frames of each: in the file, and on the page, which a phone shows too."""
MILLISECONDS = 160
"""A frame of the animation."""

Frames = tuple[Any, Any] | None
"""uint8 (rules, times, grid, grid) states and the gzip ratios (rules,) of their rules; None where there are none."""


def write(out: Path, measured: Sequence[dict[str, Any]], rows: Sequence[Any], frames: Frames) -> list[Path]:
    """Write preview.html, .png, .json and, with `frames`, .gif to `out`; returns their paths. `measured` are the
    numbers of the source and of what stands beside it, `rows` its table."""
    files = {
        "preview.html": page(measured, rows, frames).encode(),
        "preview.png": picture(measured, frames),
        "preview.json": json.dumps({"measured": list(measured), "published": PUBLISHED}, indent=1).encode(),
    }
    (out / "preview.gif").unlink(missing_ok=True)  # of another source, which had frames
    if frames is not None:
        files["preview.gif"] = animation(frames[0])
    for name, content in files.items():
        (out / name).write_bytes(content)
    return [out / name for name in files]


# ---- pictures of rules


def palette(states: int) -> Any:
    """uint8 (states + 1, 3): a colour of every state, and white for what lies between grids."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    named = [to_rgb(c) for c in STATES[:states]]
    colours = named if states <= len(STATES) else colormaps["viridis"](np.linspace(0, 1, states))[:, :3]
    return np.vstack([np.array(colours) * 255, [[255, 255, 255]]]).round().astype(np.uint8)


def mosaic(grids: Any, gap: int, scale: int = 1) -> Any:
    """int (height, width): the `grids` (rows, columns, size, size), every cell `scale` pixels wide, `gap` pixels of -1
    between them."""
    rows, columns, size, _ = grids.shape
    wide = size * scale
    out = np.full((rows * (wide + gap) - gap, columns * (wide + gap) - gap), -1)
    for row in range(rows):
        for column in range(columns):
            y, x = row * (wide + gap), column * (wide + gap)
            out[y : y + wide, x : x + wide] = grids[row, column].repeat(scale, 0).repeat(scale, 1)
    return out


def animation(frames: Any) -> bytes:
    """A GIF, endless: all rules of `frames` side by side in a square, one frame after the other."""
    from PIL import Image

    rules, times, size, _ = frames.shape
    side = int(rules**0.5)
    scale = max(1, round(60 / size))
    colours = palette(int(frames.max()) + 1)
    images = [
        Image.fromarray(colours[mosaic(frames[: side * side, t].reshape(side, side, size, size), 8, scale)])
        for t in range(times)
    ]
    # One palette for all frames, of exact colours as long as there are at most 256 of them.
    shared = Image.new("P", (1, 1))
    shared.putpalette(colours[-256:].ravel().tolist())
    first, *rest = (image.quantize(palette=shared, dither=Image.Dither.NONE) for image in images)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0, optimize=False)
    return buffer.getvalue()


def _draw_rules(axes: Any, frames: Frames, found: dict[str, Any], columns: int) -> None:
    """Six accepted rules, one a row, over `columns` frames."""
    assert frames is not None
    states, ratios = frames
    shown = states[:STRIPS, :columns]
    size, gap = shown.shape[-1], 1
    axes.imshow(palette(int(states.max()) + 1)[mosaic(shown, gap)], interpolation="nearest", aspect="equal")
    centre = (size - 1) / 2
    axes.set_yticks(np.arange(len(shown)) * (size + gap) + centre, [f"{r:.2f}" for r in ratios[:STRIPS]])
    times = found["first_frame"] + found["frame_step"] * np.arange(shown.shape[1])
    axes.set_xticks(np.arange(shown.shape[1]) * (size + gap) + centre, [str(t) for t in times])
    axes.tick_params(length=0)
    axes.set_xlabel("step of the automaton")
    axes.set_ylabel("gzip ratio of the rule")
    for spine in axes.spines.values():
        spine.set_visible(False)


# ---- figures of numbers


def _draw_histogram(axes: Any, measured: Sequence[dict[str, Any]]) -> None:
    """Gzip ratios: of fresh candidates with the band marked, or of sequences; what stands beside as an outline."""
    found = measured[0]
    edges = np.array(found["histogram"]["edges"])
    every = found["histogram"].get("candidates")
    band = found["acceptance"]["band"] if found["acceptance"] else None
    values = 100 * np.array(every or found["histogram"]["sequences"])
    if every and band:
        inside = (edges[:-1] >= band[0] - 1e-9) & (edges[1:] <= band[1] + 1e-9)
        axes.axvspan(band[0], min(band[1], edges[-1]), color=BLUE, alpha=0.08, lw=0)
        axes.stairs(np.where(inside, 0, values), edges, fill=True, color=GREY, label="candidates rejected")
        label = f"accepted: {band[0]:g} to {band[1]:g}"
        axes.stairs(np.where(inside, values, 0), edges, fill=True, color=BLUE, label=label)
    else:
        label = "candidates, all accepted" if every else found["name"]
        axes.stairs(values, edges, fill=True, color=BLUE, label=label)
    for other in measured[1:]:
        axes.stairs(100 * np.array(other["histogram"]["sequences"]), edges, color=ORANGE, lw=1.6, label=other["name"])
    used = np.flatnonzero(np.sum([m["histogram"]["sequences"] for m in measured], 0) + values)
    axes.set_xlim(0, max(0.75, min(edges[-1], edges[used[-1] + 1] + 0.05)))
    axes.set_xlabel("gzip ratio")
    axes.set_ylabel("share, % a bin of .01")
    axes.set_title("Gzip ratio")
    iid = found["gzip"]["sequences"]["iid"]
    axes.spines["top"].set_visible(True)
    top = axes.secondary_xaxis("top", functions=(lambda x: x / iid, lambda x: x * iid))
    top.set_xlabel(f"normalised by i.i.d. tokens of {found['alphabet']:,} ids ({iid:.2f})", fontsize=8, color=SOFT)
    top.tick_params(labelsize=8)
    axes.legend(loc="best")


def _draw_ranks(axes: Any, measured: Sequence[dict[str, Any]]) -> None:
    """Share of tokens against rank."""
    for number, (m, colour, style) in enumerate(zip(measured, (BLUE, ORANGE), ("-", "--"), strict=False)):
        slope = m["statistics"]["zipf_slope"]
        label = m["name"] if slope is None else f"{m['name']}, slope {slope:.2f}"
        axes.loglog(
            m["ranks"]["rank"], m["ranks"]["share"], color=colour, ls=style, lw=1.8, label=label, zorder=3 - number
        )
    low, high = axes.get_xlim()
    if high > RANKS:
        axes.axvline(RANKS, color=SOFT, lw=0.8, ls=":")
        axes.annotate(
            "fit\nto here", (RANKS, 0.98), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", va="top", fontsize=8, color=SOFT,
        )  # fmt: skip
    axes.set_xlim(max(low, 0.8), high)
    axes.grid(color="#ECECEC", lw=0.8)
    axes.set_xlabel("rank of the token")
    axes.set_ylabel("share of all tokens")
    axes.set_title("Rank and frequency")
    axes.legend(loc="best")


@contextmanager
def _figure(size: tuple[float, float]) -> Iterator[Any]:
    """A figure without pyplot, so that nothing global is kept and no display is asked for."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        yield figure


def picture(measured: Sequence[dict[str, Any]], frames: Frames) -> bytes:
    """Everything that is drawn in one PNG, 1,200 pixels wide."""
    found = measured[0]
    with _figure((10, 4 if frames is None else 8.4)) as figure:
        if frames is None:
            lower = figure.subfigures()
        else:
            upper, lower = figure.subfigures(2, 1, height_ratios=[1.22, 1])
            _draw_rules(upper.subplots(), frames, found, COLUMNS)
        left, right = lower.subplots(1, 2)
        _draw_histogram(left, measured)
        _draw_ranks(right, measured)
        figure.suptitle(_headline(measured), fontsize=11.5, fontweight="bold", x=0.012, ha="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _svg(draw: Callable[[Any, Any], None], measured: Any) -> str:
    """A figure as an <svg> element that scales with the page and names nothing outside it."""
    with _figure((4.9, 3.5)) as figure:
        draw(figure.add_subplot(), measured)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # unreferenced, and equal ids in one page are an error
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", '<svg role="img"', 1).strip()


# ---- the page

PAGE_STYLE = """
:root { --ink: #1d1f21; --soft: #62676c; --line: #e4e4e0; --accent: #0072b2; }
* { box-sizing: border-box; } html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1096px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { font-size: clamp(1.5rem, 3.6vw, 2.1rem); line-height: 1.2; margin: 6px 0 16px; font-weight: 650;
  letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 56px 0 10px; padding-top: 18px; border-top: 1px solid var(--line); font-weight: 650; }
p, li { max-width: 46em; } p { margin: 0 0 12px; } ul { padding-left: 1.2em; margin: 0 0 16px; }
code { font: .875em/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.over, .note { color: var(--soft); font-size: .875rem; } .over { margin: 0; }
.lead { font-size: 1.0625rem; padding-left: 16px; border-left: 3px solid var(--accent); margin: 0 0 28px; }
.scroll { overflow-x: auto; margin: 12px 0 20px; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 0 7px 24px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom: 1.5px solid var(--ink); }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 11em; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 28px 40px; }
.rules { display: grid; grid-template-columns: 1fr; gap: 28px; align-items: start; }
@media (min-width: 900px) { .rules { grid-template-columns: minmax(0, 1.9fr) minmax(0, 1fr); gap: 40px; } }
figure { margin: 0; } figure svg, figure img { width: 100%; height: auto; display: block; }
.rules figure:last-child img { max-width: 400px; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .8125rem; line-height: 1.45; margin-top: 8px; }
@media (max-width: 600px) { main { padding: 28px 16px 64px; } h2 { margin-top: 40px; } td, th { padding-left: 14px; } }
"""


def page(measured: Sequence[dict[str, Any]], rows: Sequence[Any], frames: Frames) -> str:
    """The page, with everything it needs inside."""
    found = measured[0]
    body = ['<p class="over">What a source generates</p>', f"<h1>{escape(found['name'])}</h1>"]
    body.append(f"<p><code>{escape(found['settings'])}</code></p>")
    body += [f"<p>beside {escape(m['name'])}: <code>{escape(m['settings'])}</code></p>" for m in measured[1:]]
    body.append(f'<p class="lead">{escape(_lead(measured))}</p>')
    if frames is not None:
        body.append(f'<div class="rules">{_rules_figure(found, frames)}{_animation_figure(found, frames)}</div>')
    body.append("<h2>How complex, how often</h2>")
    histogram = (
        "Gzip ratio: level 9, int32 tokens of ten frames without delimiters (without frames: windows of as many "
        "tokens). The upper axis is for the source alone: raw ratios of different alphabets do not compare."
    )
    ranks = (
        f"How often the token of each rank comes. Slopes are least squares of ln frequency on ln rank, 1 to {RANKS}."
    )
    body.append(
        f'<div class="figures"><figure>{_svg(_draw_histogram, measured)}<figcaption>{histogram}</figcaption></figure>'
        f"<figure>{_svg(_draw_ranks, measured)}<figcaption>{ranks}</figcaption></figure></div>"
    )
    table = _table(["", *(m["name"] for m in measured)], [[label, *cells] for label, cells in rows])
    body += ["<h2>In numbers</h2>", table]
    body += [f'<p class="note">{escape(note)}</p>' for note in _notes(measured)]
    body += ["<h2>Which band for which text</h2>", *_published(measured)]
    title = escape(found["name"])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def _rules_figure(found: dict[str, Any], frames: Frames) -> str:
    with _figure((6, 3.85)) as figure:
        _draw_rules(figure.add_subplot(), frames, found, PAGE_COLUMNS)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=200)
    caption = (
        "Each row is one rule from a random start, each square its grid at one step, each colour a state. To the left "
        "the gzip ratio of the rule's first ten frames."
    )
    image = f'<img alt="Rules over time" src="{_uri(buffer.getvalue(), "png")}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _animation_figure(found: dict[str, Any], frames: Frames) -> str:
    assert frames is not None
    last = found["first_frame"] + found["frame_step"] * (frames[0].shape[1] - 1)
    side = int(len(frames[0]) ** 0.5)
    caption = f"{side * side} rules from step {found['first_frame']} to {last} (preview.gif)."
    return (
        f'<figure><img alt="Animation of rules" src="{_uri(animation(frames[0]), "gif")}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(c.replace('+-', '±'))}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _headline(measured: Sequence[dict[str, Any]]) -> str:
    names = measured[0]["name"] + ", " + measured[0]["settings"]
    return " beside ".join([names, *(m["name"] for m in measured[1:])])


def _lead(measured: Sequence[dict[str, Any]]) -> str:
    found = measured[0]
    gzip, stats = found["gzip"]["sequences"], found["statistics"]
    said = []
    if found["acceptance"] and found["acceptance"]["band"]:
        low, high = found["acceptance"]["band"]
        share = 100 * found["acceptance"]["share"]
        said.append(f"{share:.1f} % of fresh rules score between {low:g} and {high:g} and are accepted.")
    said.append(
        f"Sequences gzip to {gzip['mean']:.2f} on average, {gzip['normalised']['mean']:.2f} of what i.i.d. tokens do, "
        f"and hold {stats['distinct']:.0f} different tokens of {found['context']:,}."
    )
    said += [
        f"{m['name']}, tokenised and scored alike: {m['gzip']['sequences']['mean']:.2f} raw, "
        f"{m['gzip']['sequences']['normalised']['mean']:.2f} normalised."
        for m in measured[1:]
    ]
    return " ".join(said)


def _notes(measured: Sequence[dict[str, Any]]) -> list[str]:
    found = measured[0]
    first = (
        f"Statistics are of the first {found['statistics']['sequences']:,} training sequences of seed 0; delimiters of "
        "frames are left out. Entropy, slope and ids that occur depend on how many sequences are looked at."
    )
    notes = [first]
    if found["acceptance"]:
        notes.append(
            f"Acceptance is a share of {found['acceptance']['candidates']:,} fresh candidates, ± its standard error."
        )
    for m in measured:
        if m["text"]:
            size = m["text"]
            part = "the whole training split" if size["whole"] else "a sample of the training split"
            pieces = f"{size['bytes']['count']:,} pieces of {40 * m['patches']:,} bytes, " if size["bytes"] else ""
            notes.append(
                f"{m['name']}: {part}, {size['sampled_documents']:,} documents, {size['tokens_read']:,} tokens of "
                f"{m['alphabet']:,} ids. Gzip ratios over {size['tokens']['count']:,} windows of {10 * m['patches']:,} "
                f"tokens, {pieces}{size['documents']['count']:,} documents, spread over what was read."
            )
    return notes


def _published(measured: Sequence[dict[str, Any]]) -> list[str]:
    texts = [m for m in measured if m["text"]]
    header = ["", "gzip ratio", "best band"]
    rows = [[f"{name} (paper)", f"{ratio:.0%}".replace("%", " %"), band] for name, (ratio, band) in PUBLISHED.items()]
    for m in texts:
        scales = [("tokens, as a rule is scored", "tokens"), ("raw bytes, pieces", "bytes"), ("documents", "documents")]
        rows += [
            [f"{m['name']}: {label}", f"{100 * m['text'][what]['mean']:.0f} %", ""]
            for label, what in scales
            if m["text"][what]
        ]
    words = (
        "Lee et al. (arXiv 2603.10055) find the best band of automata near the gzip ratio of the text. They do not say "
        "on which scale the text was measured (tokens or bytes, and how much at once), so a ratio here stands beside "
        "theirs as an indication only; bands are raw ratios of rules with 10 states and 2 x 2 patches."
    )
    if not texts:
        words += " --beside measures a text of yours."
    return [_table(header, rows), f'<p class="note">{escape(words)}</p>']
