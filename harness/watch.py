"""What a study is doing, read from the store alone: for the live view of `run` and for `status` from anywhere."""

import datetime
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from harness import progress
from harness.gaps import Curve, Gap, Gaps
from harness.outcome import DIVERGED
from harness.plan import Plan, label
from harness.progress import Rows, Told
from harness.specs import Stage, Train
from harness.store import Store

RECENT_S = 60.0
"""A stage whose live line is older than this is not being worked on."""
SETTLING_S = 5.0
"""How long the pace since the start says nothing yet."""

State = Literal["waiting", "running", "done", "diverged", "failed", "blocked"]
OVER = ("done", "diverged", "failed", "blocked")


@dataclass(frozen=True)
class StageView:
    """One stage as a watcher sees it."""

    digest: str
    label: str
    state: State = "waiting"
    tokens: int = 0
    """Input tokens trained so far."""
    of: int = 0
    start: int = 0
    """Of `tokens`, those of the state that it goes on from."""
    flops: float = 0.0
    """Of the whole stage, without the state that it goes on from."""
    train_loss_nats: float | None = None
    loss_nats: float | None = None
    tokens_per_s: float | None = None
    mfu: float | None = None
    memory_bytes: int | None = None
    """Most that rank 0 has held."""
    device_s: float = 0.0
    """Devices x seconds of training so far."""
    items: tuple[int, int] | None = None
    """Of a stage that runs and counts: problems answered, or parts of a text tokenised, of how many."""
    note: str | None = None
    """The newest trouble that was dealt with; of a stage that is over, why it failed."""
    ended: float | None = None
    """Unix time at which it was computed."""

    @property
    def share(self) -> float:
        """Of its own work, what is done."""
        if self.state in ("done", "diverged"):
            return 1.0
        if self.items is not None:
            return self.items[0] / max(1, self.items[1])
        return max(0, self.tokens - self.start) / (self.of - self.start) if self.of > self.start else 0.0


@dataclass(frozen=True)
class StudyView:
    """A study as a watcher sees it."""

    study: str
    stages: tuple[StageView, ...]
    """Parents before children."""
    gaps: tuple[Gap, ...] = ()
    seconds_left: float | None = None

    def of(self, *states: State) -> list[StageView]:
        return [view for view in self.stages if view.state in states]

    @property
    def counts(self) -> Counter[str]:
        """Stages by state."""
        return Counter(view.state for view in self.stages)

    @property
    def share(self) -> float:
        """Of the FLOPs of all stages, those that are spent; of the stages, if they have none."""
        whole = sum(view.flops for view in self.stages)
        if not whole:
            return self.counts["done"] / max(1, len(self.stages))
        return sum(view.flops * view.share for view in self.stages) / whole

    @property
    def tokens_per_s(self) -> float | None:
        speeds = [view.tokens_per_s for view in self.of("running") if view.tokens_per_s is not None]
        return sum(speeds) if speeds else None

    @property
    def device_hours(self) -> float:
        """Of training, by all stages."""
        return sum(view.device_s for view in self.stages) / 3600

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return all(view.state in OVER for view in self.stages)


class Watch:
    """Looks at a study again and again. A stage that is computed is read once, a curve when it has changed."""

    def __init__(self, plan: Plan, store: Store, since: float | None = None) -> None:
        """A driver gives the time of its start by the store's clock, `since`: to it a stage without a live line runs if
        an attempt began after that."""
        self.plan, self.store, self.since = plan, store, since
        self.needs = plan.needs
        self.waiting = {d: _waiting(plan, d, stage) for d, stage in plan.stages.items()}
        self.settled: dict[str, StageView] = {}
        self.curves: dict[str, _Rows] = {}
        self.gaps = Gaps(plan)
        self.first: tuple[float, float] | None = None

    def look(self) -> StudyView:
        """The study now. Raises OSError while the store cannot be reached."""
        told = progress.told(self.store, [d for d in self.waiting if d not in self.settled])
        views: dict[str, StageView] = {}
        for digest, blank in self.waiting.items():
            view = self.settled.get(digest) or self._look(digest, blank, told)
            if view.state == "waiting" and any(views[d].state in OVER[1:] for d in self.needs[digest] if d in views):
                view = replace(view, state="blocked")
            views[digest] = view
        gaps = self.gaps.newest({d: rows.losses for d, rows in self.curves.items()})
        found = StudyView(self.plan.study.name, tuple(views.values()), tuple(gaps))
        return replace(found, seconds_left=self._left(found))

    def _look(self, digest: str, blank: StageView, told: Callable[[str], Told]) -> StageView:
        try:
            return self._view(digest, blank, told(digest))
        except OSError:  # it is being published, or its files come late: the next look sees it
            return blank

    def _view(self, digest: str, blank: StageView, told: Told) -> StageView:
        if told.manifest is not None:
            self.settled[digest] = self._ended(digest, blank, told.manifest, told.rows)
            return self.settled[digest]
        stage, rows = self.plan.stages[digest], self._rows(digest, told.rows)
        view = replace(blank, loss_nats=rows.loss_nats, device_s=rows.device_s)
        line = told.live
        if line is not None and told.live_age_s < min(RECENT_S, told.failed_age_s):
            also: dict[str, Any] = {name: line.get(name) for name in ("tokens_per_s", "mfu", "memory_bytes", "note")}
            return replace(
                view,
                state="running",
                tokens=_tokens(stage, line.get("step", 0)),
                train_loss_nats=line.get("train_loss"),
                device_s=line.get("device_s", view.device_s),
                items=tuple(line["items"]) if "items" in line else None,
                **also,
            )
        view = replace(view, tokens=max(blank.tokens, _tokens(stage, told.step)))
        if told.failed is not None:
            return replace(view, state="failed", note=told.failed.reason)
        if self.since is not None and told.begun is not None and told.begun >= self.since:
            return replace(view, state="running", tokens=max(view.tokens, max(rows.losses, default=0)))
        return view

    def _ended(self, digest: str, blank: StageView, manifest: dict[str, Any], curve: Rows | None) -> StageView:
        rows = self._rows(digest, curve) if blank.of else _Rows()
        finished = manifest["status"] == "finished"
        return replace(
            blank,
            state="done" if finished else "diverged",
            tokens=manifest.get("tokens", 0),
            loss_nats=rows.loss_nats,
            device_s=rows.device_s,
            note=None if finished else DIVERGED,
            ended=datetime.datetime.fromisoformat(manifest["started"]).timestamp() + manifest.get("wall_s", 0.0),
        )

    def _rows(self, digest: str, curve: Rows | None) -> "_Rows":
        """What is needed of a curve, which is read if it is another than before."""
        if curve is None:
            return _Rows()
        known = self.curves.get(digest)
        if known is None or known.version != curve.version:
            known = self.curves[digest] = _read_rows(curve)
        return known

    def _left(self, view: StudyView) -> float | None:
        """Seconds left, at the pace since the first look, or at that of the stages that run while there is none."""
        now, spent = time.monotonic(), sum(v.flops * v.share for v in view.stages)
        left = sum(v.flops * (1 - v.share) for v in view.of("waiting", "running"))
        if not left:  # what is left to do has no FLOPs
            return None
        self.first = self.first or (now, spent)
        seconds, flops = now - self.first[0], spent - self.first[1]
        if seconds > SETTLING_S and flops > 0:
            return left * seconds / flops
        running = [v for v in view.of("running") if v.flops]
        pace = sum((v.tokens_per_s or 0.0) * v.flops / (v.of - v.start) for v in running)
        return left / pace if pace else None


@dataclass(frozen=True)
class _Rows:
    """What a watcher needs of a curve."""

    version: tuple[Any, ...] = ()
    losses: Curve = field(default_factory=dict)
    loss_nats: float | None = None
    device_s: float = 0.0


def _read_rows(curve: Rows) -> _Rows:
    rows = []
    for line in curve.read().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # it is being written
            break
    losses = {row["tokens"]: row["loss_nats"] for row in rows if row["loss_nats"] is not None}
    newest = rows[-1] if rows else {}
    return _Rows(curve.version, losses, newest.get("loss_nats"), newest.get("device_s", 0.0))


def _waiting(plan: Plan, digest: str, stage: Stage) -> StageView:
    if not isinstance(stage, Train):
        return StageView(digest, label(stage))
    start = plan.stages.get(plan.starts.get(digest, ""))
    tokens, flops = (start.tokens, start.flops) if isinstance(start, Train) else (0, 0)
    return StageView(
        digest, label(stage), tokens=tokens, of=stage.tokens, start=tokens, flops=float(stage.flops - flops)
    )


def _tokens(stage: Stage, step: int) -> int:
    return step * stage.step_tokens if isinstance(stage, Train) else 0


def in_order(stages: Iterable[StageView], *states: State) -> list[StageView]:
    """`stages` by the order of their `states`; of one state the newest first."""
    return sorted((v for v in stages if v.state in states), key=lambda v: (states.index(v.state), -(v.ended or 0.0)))
