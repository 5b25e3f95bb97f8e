"""What a study is doing, read from the store alone: for the live view of `run` and for `status` from anywhere."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.plan import Plan, label, si
from harness.specs import Train
from harness.store import Store

RECENT_S = 60.0
"""A stage whose live line is older than this is not being worked on."""


@dataclass(frozen=True)
class StageView:
    """One stage as a watcher sees it."""

    digest: str
    label: str
    state: Literal["done", "diverged", "running", "waiting"]
    tokens: int
    """Input tokens trained so far."""
    of: int
    train_loss_nats: float | None = None
    loss_nats: float | None = None


def look(plan: Plan, store: Store, since: float = 0.0) -> list[StageView]:
    """Every stage of `plan`; a stage without a live line runs if an attempt began after `since` (Unix time)."""
    return [_view(digest, stage, store, since) for digest, stage in plan.stages.items()]


def _view(digest: str, stage: Any, store: Store, since: float) -> StageView:
    of = stage.tokens if isinstance(stage, Train) else 0
    attempt, manifest = store.open(digest), store.manifest(digest)
    if attempt is not None and manifest is not None:
        done = manifest["status"] == "finished"
        loss = _last_loss(attempt) if isinstance(stage, Train) else None
        return StageView(digest, label(stage), "done" if done else "diverged", of, of, None, loss)
    live = store.resume(digest) / "live.json"
    newest = store.latest_attempt(digest)
    loss = _last_loss(newest) if newest else None
    try:
        age = time.time() - live.stat().st_mtime
        line = json.loads(live.read_text())
        tokens = line["step"] * stage.step_tokens
        state: Literal["running", "waiting"] = "running" if age < RECENT_S else "waiting"
        return StageView(digest, label(stage), state, tokens, of, line["train_loss"], loss)
    except (OSError, ValueError):
        begun = newest is not None and since > 0 and newest.stat().st_mtime >= since
        return StageView(digest, label(stage), "running" if begun else "waiting", 0, of, None, loss)


def _last_loss(attempt: Any) -> float | None:
    try:
        lines = (attempt / "curve.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["loss_nats"] if lines else None
    except (OSError, ValueError):
        return None


class Pace:
    """Tokens a second and seconds left, from what was seen since the start."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def update(self, views: list[StageView]) -> tuple[float | None, float | None]:
        """(tokens/s over the last half minute, seconds left at the pace since the start)."""
        now, tokens = time.monotonic(), sum(v.tokens for v in views)
        self.seen.append((now, tokens))
        first = self.seen[0]
        recent = next(s for s in self.seen if s[0] >= now - 30)
        rate = (tokens - recent[1]) / (now - recent[0]) if now - recent[0] > 1 else None
        average = (tokens - first[1]) / (now - first[0]) if now - first[0] > 1 else 0.0
        left = (sum(v.of for v in views) - tokens) / average if average > 0 else None
        return rate, left


def headline(plan: Plan, views: list[StageView], rate: float | None, left: float | None) -> str:
    done = sum(v.state in ("done", "diverged") for v in views)
    running = sum(v.state == "running" for v in views)
    pace = f"{si(rate)} tokens/s" if rate else "starting"
    eta = f"about {duration(left)} left" if left is not None else "time left unknown yet"
    return f"{plan.study.name}: {done}/{len(views)} stages done, {running} running, {pace}, {eta}"


def line(view: StageView) -> str:
    share = f"{100 * view.tokens / view.of:3.0f} %" if view.of else "     "
    train = f"train loss {view.train_loss_nats:.3f}" if view.train_loss_nats is not None else ""
    held = f"held-out {view.loss_nats:.3f}" if view.loss_nats is not None else ""
    return f"{view.digest[:12]}  {share}  {view.label:<34} {train:<17} {held}".rstrip()


def duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


class Live:
    """A thread that shows a study while it runs: redrawn in place on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, plan: Plan, store: Store, tell: Callable[[str], None] = print) -> None:
        self.plan, self.store, self.tell = plan, store, tell
        self.since, self.pace, self.stop = time.time(), Pace(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=10)

    def _state(self) -> tuple[str, list[str]]:
        views = look(self.plan, self.store, self.since)
        return headline(self.plan, views, *self.pace.update(views)), [line(v) for v in views if v.state == "running"]

    def _run(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.text import Text

        console = Console()
        if not console.is_terminal:
            while not self.stop.wait(10):
                head, lines = self._state()
                self.tell(" | ".join([head, *(" ".join(each.split()) for each in lines)]))
            return
        with RichLive(console=console, refresh_per_second=2, transient=True) as view:
            while not self.stop.wait(1):
                head, lines = self._state()
                view.update(Text("\n".join([head, *lines])))
