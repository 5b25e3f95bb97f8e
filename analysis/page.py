"""Blocks of a report and their two forms: one self-contained HTML page, and Markdown."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape

from analysis.figures.script import CSS, SCRIPT

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""What a browser lets the page do: show itself, and load nothing."""

STYLE = """
:root { --ink: #1d1f21; --soft: #62676c; --line: #e4e4e0; --accent: #0072b2; --paper: #ffffff; --wash: #f7f7f4; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1096px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { font-size: clamp(1.5rem, 3.6vw, 2.1rem); line-height: 1.2; margin: 6px 0 16px; font-weight: 650;
  letter-spacing: -0.01em; max-width: 30em; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 64px 0 10px; padding-top: 18px; border-top: 1px solid var(--line); font-weight: 650; }
h3 { font-size: 1rem; margin: 28px 0 6px; font-weight: 650; }
p, li { max-width: 46em; overflow-wrap: break-word; } p { margin: 0 0 12px; }
ul { padding-left: 1.2em; margin: 0 0 16px; }
.over { color: var(--soft); font-size: .875rem; margin: 0; } .note { color: var(--soft); font-size: .875rem; }
.lead { font-size: 1.0625rem; padding-left: 16px; border-left: 3px solid var(--accent); margin: 0 0 28px; }
.lead p:last-child { margin: 0; }
.scroll { overflow-x: auto; margin: 12px 0 20px; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; font-variant-numeric: tabular-nums;
  min-width: 60%; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: nowrap; vertical-align: bottom;
  border-bottom: 1.5px solid var(--ink); padding: 6px 20px 6px 0; }
td { padding: 9px 20px 9px 0; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; min-width: 20em; } td:last-child, th:last-child { padding-right: 0; }
td:first-child { font-weight: 550; } th.number, td.number { text-align: right; }
td small { display: block; color: var(--soft); font-size: .8125rem; }
tr:has(+ .why) td { border-bottom: 0; padding-bottom: 2px; }
.why td { font-weight: 400; color: var(--soft); padding: 0 0 12px; }
.why div { position: sticky; left: 0; max-width: min(60em, calc(100vw - 32px)); white-space: normal; }
td strong { color: var(--accent); font-weight: 650; }
.columns { display: grid; gap: 8px 48px; } .columns > * { min-width: 0; } .columns .figures { margin-top: 0; }
@media (min-width: 1200px) { main:has(.columns) { max-width: 1320px; }
  .columns { grid-template-columns: minmax(0, 1.75fr) minmax(0, 1fr); align-items: start; }
  .columns td, .columns th { padding-right: 12px; } .columns th { white-space: normal; }
  .columns td:first-child, .columns td:last-child { white-space: normal; } }
.contents { font-size: .875rem; margin: 0 0 20px; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: 4px 20px; } .contents li { max-width: none; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 2px; }
td:first-child a { color: inherit; text-decoration-color: var(--soft); }
details.section { margin: 64px 0 0; padding-top: 18px; border-top: 1px solid var(--line); }
details.section > summary { color: var(--ink); margin-bottom: 10px; }
details.section > summary > h2 { display: inline; margin: 0; padding: 0; border: 0; }
h2:target, h3:target { outline: 3px solid #cfe4f2; outline-offset: 4px; } [id] { scroll-margin-top: 16px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 28px 40px;
  margin: 18px 0; }
figure { margin: 0; max-width: 560px; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .8125rem; line-height: 1.45; margin-top: 6px; }
.strips { display: grid; gap: 6px; margin-top: 12px; } .strips div { display: flex; align-items: center; gap: 12px; }
.strips img { width: calc(100% - 60px); max-width: 480px; image-rendering: pixelated; border: 1px solid var(--line); }
.strips span { font-size: .8125rem; color: var(--soft); font-variant-numeric: tabular-nums; width: 48px; }
pre { background: var(--wash); padding: 12px 14px; overflow-x: auto;
  font: .8125rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 600px) { main { padding: 28px 16px 64px; } h2, details.section { margin-top: 44px; }
  details.section > summary > h2 { margin: 0; }
  td:first-child { white-space: normal; min-width: 9em; } th, td { padding-right: 14px; } }
@media print { main { padding: 0; } h2 { break-after: avoid; } .contents { display: none; }
  th, td { white-space: normal; padding-right: 12px; } td.number { white-space: nowrap; }
  .figures { grid-template-columns: 1fr 1fr; gap: 18px 24px; } .columns .figures { grid-template-columns: 1fr; }
  figure, tr { break-inside: avoid; } .scroll { overflow: visible; } }
"""


@dataclass(frozen=True)
class Heading:
    """A heading; with an `id`, unique in the page, it can be linked to and stands in the table of contents."""

    text: str
    level: int = 2
    id: str = ""


@dataclass(frozen=True)
class Contents:
    """Links to all headings of level 2 that have an id, sections included."""


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` is "", "over" (a line above the title) or "note" (small print)."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found, in plain sentences."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells are text, or (value, detail) where the detail stands below in small print. `numbers` are the columns
    aligned to the right, `long` those that wrap; cells that start with one of `accent` stand out. `notes`, if given,
    are a sentence for every row: below it on the page, a last column in Markdown. `links`, if given, are the ids that
    the first cell of every row leads to ("" for none)."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | tuple[str, str]]]
    numbers: Sequence[int] = ()
    long: Sequence[int] = ()
    accent: Sequence[str] = ()
    notes: Sequence[str] = ()
    links: Sequence[str] = ()


SHOWN = 24
"""Rows of a long table that are open to view."""


def folded(table: Table, shown: int = SHOWN, what: str = "rows") -> list["Block"]:
    """The first `shown` rows of a table, and the others folded under it."""

    def part(rows: slice) -> Table:
        return replace(table, rows=table.rows[rows], notes=table.notes[rows], links=table.links[rows])

    if len(table.rows) <= shown:
        return [table]
    more = Details(f"{len(table.rows) - shown} more {what}", [part(slice(shown, None))])
    return [part(slice(shown)), more]


@dataclass(frozen=True)
class Strips:
    """Rows of pixels (PNG data URIs), each with a short label, under one caption."""

    caption: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figures:
    """SVG elements with one caption each, and strips; they stand side by side where there is room."""

    pictures: Sequence[tuple[str, str]]
    strips: Sequence[Strips] = ()


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Details:
    """Blocks folded under a summary."""

    summary: str
    blocks: Sequence["Block"] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """Blocks under a heading of level 2 that a reader can fold away; `open` as the page is opened."""

    heading: Heading
    blocks: Sequence["Block"] = field(default_factory=list)
    open: bool = True


@dataclass(frozen=True)
class Columns:
    """Two columns, the left one wider, where the screen is wide; else one below the other."""

    left: Sequence["Block"]
    right: Sequence["Block"]


Block = Heading | Contents | Text | Finding | Table | Figures | Code | Details | Section | Columns


def html(title: str, blocks: Sequence[Block]) -> str:
    """The page, with everything it needs inside."""
    contents = _contents(list(_headings(blocks)))
    body = _own_ids("\n".join(_html(b) for b in blocks)).replace(CONTENTS, contents)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n"
        "</body>\n</html>\n"
    )


def markdown(blocks: Sequence[Block]) -> str:
    """The same in Markdown; of figures only the captions."""
    return "\n\n".join(filter(None, (_markdown(b) for b in blocks))) + "\n"


CONTENTS = "<!-- contents -->"


def _headings(blocks: Sequence[Block]) -> Iterator[Heading]:
    for block in blocks:
        match block:
            case Heading(_, 2, id) if id:
                yield block
            case Section(heading, inner):
                yield from _headings([heading, *inner])
            case Details(_, inner):
                yield from _headings(inner)
            case Columns(left, right):
                yield from _headings([*left, *right])


def _contents(headings: Sequence[Heading]) -> str:
    items = "".join(f'<li><a href="#{escape(h.id)}">{escape(h.text)}</a></li>' for h in headings)
    return f'<nav aria-label="contents"><ul class="contents">{items}</ul></nav>' if items else ""


def _own_ids(body: str) -> str:
    """Every <svg> with ids of its own: two figures may hold the same clip path or marker under the same id."""
    parts = re.split(r"(<svg\b.*?</svg>)", body, flags=re.DOTALL)
    for n in range(1, len(parts), 2):
        names: dict[str, str] = {}

        def own(match: re.Match[str], n: int = n, names: dict[str, str] = names) -> str:
            return f"{match[1]}{names.setdefault(match[2], f'g{n // 2}-{len(names)}')}{match[3]}"

        parts[n] = re.sub(r'((?: id="|href="#|url\(#))([^")]+)(["\)])', own, parts[n])
    return "".join(parts)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level, id):
            anchor = f' id="{escape(id)}"' if id else ""
            return f"<h{level}{anchor}>{escape(text)}</h{level}>"
        case Contents():
            return CONTENTS
        case Text(text, kind):
            return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
        case Finding(sentences):
            return '<div class="lead">' + "".join(f"<p>{escape(s)}</p>" for s in sentences) + "</div>"
        case Table():
            return _html_table(block)
        case Figures(pictures, strips):
            figures = "".join(f"<figure>{svg}<figcaption>{escape(c)}</figcaption></figure>" for svg, c in pictures)
            figures += "".join(_html_strips(s) for s in strips)
            return f'<div class="figures">{figures}</div>' if figures else ""
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Details(summary, blocks):
            return f"<details><summary>{escape(summary)}</summary>" + "\n".join(map(_html, blocks)) + "</details>"
        case Section(heading, blocks, unfolded):
            start = f'<details class="section"{" open" * unfolded}><summary>{_html(heading)}</summary>'
            return start + "\n".join(map(_html, blocks)) + "</details>"
        case Columns(left, right):
            sides = ["\n".join(map(_html, side)) for side in (left, right)]
            return f'<div class="columns"><div>{sides[0]}</div><div>{sides[1]}</div></div>'


def _html_strips(strips: Strips) -> str:
    rows = "".join(f'<div><span>{escape(name)}</span><img alt="" src="{uri}"></div>' for name, uri in strips.rows)
    return f'<figure><div class="strips">{rows}</div><figcaption>{escape(strips.caption)}</figcaption></figure>'


def _html_table(table: Table) -> str:
    def kind(column: int) -> str:
        names = ["number"] * (column in table.numbers) + ["long"] * (column in table.long)
        return f' class="{" ".join(names)}"' if names else ""

    def content(cell: str | tuple[str, str]) -> str:
        if isinstance(cell, tuple):
            return f"{escape(cell[0])}<small>{escape(cell[1])}</small>" if cell[1] else escape(cell[0])
        return f"<strong>{escape(cell)}</strong>" if cell.startswith(tuple(table.accent)) else escape(cell)

    head = "".join(f"<th{kind(i)}>{escape(h)}</th>" for i, h in enumerate(table.header))
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    rows = ""
    for number, row in enumerate(table.rows):
        cells = [content(c) for c in row]
        if table.links and table.links[number]:
            cells[0] = f'<a href="#{escape(table.links[number])}">{cells[0]}</a>'
        rows += "<tr>" + "".join(f"<td{kind(i)}>{c}</td>" for i, c in enumerate(cells)) + "</tr>"
        if table.notes:
            rows += f'<tr class="why"><td colspan="{len(row)}"><div>{escape(table.notes[number])}</div></td></tr>'
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Contents():
            return ""
        case Text(text, _):
            return text
        case Finding(sentences):
            return "\n>\n".join(f"> {s}" for s in sentences)
        case Table(header, rows, right):
            cells = [[" ".join(filter(None, c)) if isinstance(c, tuple) else c for c in row] for row in rows]
            columns = len(header or cells[0])
            line = ["---:" if i in right else "---" for i in range(columns)]
            lines = [list(header) or [""] * columns, line, *cells]
            if block.notes:
                lines = [[*x, y] for x, y in zip(lines, ["reason", "---", *block.notes], strict=True)]
            return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)
        case Figures(pictures, strips):
            captions = [caption for _, caption in pictures] + [s.caption for s in strips]
            return "\n\n".join(f"*Figure (in the HTML report): {c}*" for c in dict.fromkeys(captions))
        case Code(text):
            return f"```\n{text}\n```"
        case Details(summary, blocks):
            return "\n\n".join([f"**{summary}**", *filter(None, map(_markdown, blocks))])
        case Section(heading, blocks):
            return "\n\n".join(filter(None, map(_markdown, [heading, *blocks])))
        case Columns(left, right):
            return "\n\n".join(filter(None, map(_markdown, [*left, *right])))
