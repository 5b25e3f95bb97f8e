"""A study drawn: lines for a log, and a view that is redrawn in place on a terminal."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.gaps import Gap
from harness.plan import si
from harness.url import UrlError
from harness.watch import StageView, StudyView, Watch, in_order

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

LINE_S = 10.0
"""How often a log gets a line."""
ENDED, FAILED, NOTES = 4, 5, 5
"""Stages that ended or failed, and notes, that are shown at most."""
HEADER = 10
"""Lines of the header and around the stages that run."""
NARROW = 80
"""Columns of a terminal below which a table leaves out what matters less."""


def headline(view: StudyView) -> str:
    counts = view.counts
    also = "".join(f", {counts[s]} {s}" for s in ("diverged", "failed", "blocked") if counts[s])
    running = f"{view.study}: {counts['done']}/{len(view.stages)} stages done, {counts['running']} running{also}"
    return ", ".join([running, f"{percent(view.share).strip()} of the FLOPs", *pace(view)])


def pace(view: StudyView) -> list[str]:
    """Speed, what was spent and how long it will take, as far as they are known."""
    speed = [f"{si(view.tokens_per_s)} tokens/s"] if view.tokens_per_s else []
    left = [] if view.over else ["time left unknown yet"]
    if view.seconds_left is not None and not view.over:
        left = [f"about {duration(view.seconds_left)} left"]
    return [*speed, f"{device_time(view.device_hours)} of training", *left]


def device_time(hours: float) -> str:
    return f"{hours:,.2f} device-hours" if hours >= 0.1 else f"{3600 * hours:.3g} device-seconds"


def line(view: StageView) -> str:
    share = percent(view.share) if view.of or view.items else ""
    train = f"train loss {view.train_loss_nats:.3f}" if view.train_loss_nats is not None else ""
    held = f"held-out {view.loss_nats:.3f}" if view.loss_nats is not None else ""
    speed = f"{si(view.tokens_per_s)} tokens/s" if view.tokens_per_s is not None else ""
    mfu = f"MFU {percent(view.mfu).strip()}" if view.mfu is not None else ""
    note = f"! {view.note}" if view.note else ""
    told = "  ".join(part for part in (held, speed, mfu, memory(view), note) if part)
    return f"{view.digest[:12]}  {share:>5}  {view.label:<34} {train:<17} {told}".rstrip()


def gaps_line(view: StudyView) -> str:
    """The newest gaps to the baseline, on one line; empty if there are none."""
    told = ", ".join(gap_words(gap) for gap in view.gaps)
    return f"loss gap to the baseline, nats (above 0 is better): {told}" if told else ""


def gap_words(gap: Gap) -> str:
    return f"{gap.arm} {gap.nats:+.3f} ({pairs(gap)}, {at(gap)} tokens)"


def pairs(gap: Gap) -> str:
    return f"{gap.pairs} of {gap.of} pairs"


def at(gap: Gap) -> str:
    low, high = gap.tokens
    return si(high) if low == high else f"{si(low)} to {si(high)}"


def memory(view: StageView) -> str:
    return f"{view.memory_bytes / 2**30:.1f} GiB" if view.memory_bytes is not None else ""


def percent(share: float) -> str:
    return f"{100 * share:3.0f} %"


def duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


@dataclass(frozen=True)
class Screen:
    """A study for rich, as wide and as high as the console allows."""

    view: StudyView
    told: tuple[str, ...] = ()
    """More lines of the header."""

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        width = options.max_width
        yield from self._header(width)
        failed = in_order(self.view.stages, "failed", "diverged")
        ended = in_order(self.view.stages, "done")[:ENDED]
        running = self.view.of("running")
        below = [2 * min(len(failed), FAILED) + 3 if failed else 0, len(ended) + 3 if ended else 0]
        below += [len(self.view.gaps) + 3 if self.view.gaps else 0, min(NOTES, sum(bool(v.note) for v in running))]
        room = max(3, console.height - HEADER - len(self.told) - sum(below))
        if running:
            yield Text("\nrunning", "bold")
            yield running_table(running[:room], width)
            if len(running) > room:
                yield Text(f"and {len(running) - room} more", "dim")
        if failed:
            yield Text("\nfailed", "bold red")
            for stage in failed[:FAILED]:
                yield from failed_lines(stage)
            if len(failed) > FAILED:
                yield Text(f"and {len(failed) - FAILED} more: python -m harness status", "dim")
        if ended:
            yield Text("\nended", "bold")
            yield ended_table(ended, width)
        if self.view.gaps:
            yield Text("\nloss gap to the baseline (above 0 is better)", "bold")
            yield gaps_table(self.view.gaps)

    def _header(self, width: int) -> Iterable[Any]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        counts = self.view.counts
        colours = {"running": "cyan", "done": "green", "diverged": "red", "failed": "red", "blocked": "yellow"}
        words = Text(self.view.study, "bold")
        for state in ("waiting", "running", "done", "diverged", "failed", "blocked"):
            if counts[state] or state in ("waiting", "running", "done"):
                words.append(f"  {counts[state]} {state}", colours.get(state, "") if counts[state] else "dim")
        yield words
        bar = Table.grid()
        bar.add_row(ProgressBar(total=1.0, completed=self.view.share, width=min(width, 60), complete_style="green"))
        yield bar
        yield Text(" · ".join([f"{percent(self.view.share).strip()} of the FLOPs", *pace(self.view)]))
        for told in self.told:
            yield Text(told, "dim", overflow="fold")


def failed_lines(view: StageView) -> "Iterable[Any]":
    from rich.padding import Padding
    from rich.text import Text

    yield Text.assemble((view.digest[:12], "red"), " ", view.label, overflow="fold")
    yield Padding(Text(view.note or "", overflow="fold"), (0, 0, 0, 2))


def running_table(views: list[StageView], width: int) -> Any:
    columns: list[tuple[str, str, Callable[[StageView], str]]] = [
        ("stage", "left", lambda v: v.digest[: 12 if width >= NARROW else 8]),
        ("", "left", lambda v: v.label),
        ("share", "right", lambda v: percent(v.share) if v.of or v.items else ""),
        ("train", "right", lambda v: number(v.train_loss_nats)),
        ("held-out", "right", lambda v: number(v.loss_nats)),
        ("tokens/s", "right", lambda v: si(v.tokens_per_s) if v.tokens_per_s is not None else ""),
    ]
    if width >= NARROW:
        columns += [("MFU", "right", lambda v: percent(v.mfu).strip() if v.mfu is not None else "")]
        columns += [("memory", "right", memory)]
    rows = table(columns, views)
    noted = [view for view in views if view.note]
    return rows if not noted else group([rows, *(f"  ! {v.digest[:8]} {v.note}" for v in noted[:NOTES])])


def ended_table(views: list[StageView], width: int) -> Any:
    return table(
        [
            ("stage", "left", lambda v: v.digest[: 12 if width >= NARROW else 8]),
            ("", "left", lambda v: v.label),
            ("held-out", "right", lambda v: number(v.loss_nats)),
        ],
        views,
    )


def gaps_table(gaps: Iterable[Gap]) -> Any:
    return table(
        [
            ("arm", "left", lambda g: g.arm),
            ("nats", "right", lambda g: f"{g.nats:+.3f}"),
            ("pairs", "right", lambda g: f"{g.pairs} of {g.of}"),
            ("tokens", "right", at),
        ],
        gaps,
    )


def table(columns: list[tuple[str, Any, Callable[[Any], str]]], rows: Iterable[Any]) -> Any:
    """A table without lines; the second column gives way where there is no room."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, (name, side, _) in enumerate(columns):
        drawn.add_column(name, justify=side, no_wrap=i != 1)
    for row in rows:
        drawn.add_row(*(Text(show(row), no_wrap=True, overflow="ellipsis") for _, _, show in columns))
    return drawn


def group(parts: Iterable[Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    return Group(*(Text(part, "yellow", overflow="fold") if isinstance(part, str) else part for part in parts))


def number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else ""


class Live:
    """Shows a study as it goes: redrawn in place on a terminal, a line now and then elsewhere."""

    def __init__(
        self,
        watch: Watch,
        told: Callable[[], list[str]] = list,
        every_s: float | None = None,
        console: "Console | None" = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        """`told` gives more lines for the header. Drawn every `every_s` seconds: every second on a terminal, every five
        of an object store, every ten elsewhere, unless given."""
        self.watch, self.told, self.every_s, self.console, self.tell = watch, told, every_s, console, tell
        self.said_gaps = ""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(timeout=10)

    def _run(self) -> None:
        from rich.console import Console

        self.console = self.console or Console()
        if self.console.is_terminal or not self.over.wait(self.every_s or LINE_S):
            self.show()

    def show(self, until: Callable[[StudyView], bool] = lambda view: False) -> StudyView:
        """Show the study until `until` holds, or, from another thread, `over` is set; returns what was seen last."""
        from rich.console import Console
        from rich.live import Live as RichLive

        console = self.console or Console()
        if not console.is_terminal:
            return self._follow(self._say, until, self.every_s or LINE_S)
        with RichLive(console=console, auto_refresh=False, transient=True) as drawn:

            def draw(view: StudyView) -> None:
                drawn.update(Screen(view, tuple(self.told())), refresh=True)

            return self._follow(draw, until, self.every_s or (1.0 if isinstance(self.watch.store.root, Path) else 5.0))

    def _follow(
        self, show: Callable[[StudyView], None], until: Callable[[StudyView], bool], rest_s: float
    ) -> StudyView:
        view: StudyView | None = None
        while True:
            began = time.monotonic()
            try:
                view = self.watch.look()
                show(view)
            except UrlError:  # the store is away for a while
                if view is None:
                    raise
            if until(view) or self.over.wait(max(rest_s, 4 * (time.monotonic() - began))):
                return view

    def _say(self, view: StudyView) -> None:
        self.tell(" | ".join([headline(view), *(" ".join(line(each).split()) for each in view.of("running"))]))
        gaps = gaps_line(view)
        if gaps and gaps != self.said_gaps:
            self.tell(gaps)
        self.said_gaps = gaps
