"""`curve.jsonl`: one row an evaluation, and where the seconds went."""

import json
import math
import time
from pathlib import Path
from typing import Any

from harness import metrics
from harness.schedule import lr_at
from harness.specs import Train
from harness.store import write_json
from harness.worker import Worker


class Clock:
    """Seconds spent by purpose, counted on through restarts."""

    def __init__(self, spent: dict[str, float] | None = None) -> None:
        self.spent = dict.fromkeys(("train", "wait", "first_batch", "evaluate", "checkpoint"), 0.0) | (spent or {})
        self.mark = time.perf_counter()

    def charge(self, purpose: str) -> float:
        """Charge the time since the last charge to `purpose`; returns it."""
        now = time.perf_counter()
        seconds, self.mark = now - self.mark, now
        self.spent[purpose] += seconds
        return seconds


class Curve:
    """The rows of `curve.jsonl`, written as they come on rank 0, and a live line for whoever watches."""

    def __init__(self, attempt: Path | None, rows: list[dict[str, Any]], worker: Worker) -> None:
        self.rows = list(rows)
        self.worker = worker
        self.path = attempt / "curve.jsonl" if attempt else None
        self.told = 0.0
        if self.path:
            self.path.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows))

    @property
    def steps(self) -> set[int]:
        return {row["step"] for row in self.rows}

    def add(
        self,
        step: int,
        spec: Train,
        sums: metrics.Sums,
        held_out_bytes: int | None,
        induction: float | None,
        train_loss: float | None,
        grad_norm: float | None,
        clock: Clock,
    ) -> None:
        spent = clock.spent
        before = self.rows[-1] if self.rows else None
        busy = spent["train"] + spent["wait"] + spent["first_batch"]
        row = {
            "step": step,
            "tokens": step * spec.step_tokens,
            "loss_nats": finite(sums.loss_nats),
            "loss_bits_per_byte": finite(sums.bits_per_byte(held_out_bytes)),
            "accuracy": sums.accuracy,
            "induction_nats": finite(induction),
            "train_loss_nats": finite(train_loss),
            "grad_norm": finite(grad_norm),
            "lr": lr_at(spec, max(0, step - 1)),
            "tokens_per_s": None,
            "data_wait": 0.0,
            "train_s": spent["train"],
            "wait_s": spent["wait"],
            "wall_s": busy,
            "device_s": busy * self.worker.world,
        }
        if before is not None and step > before["step"]:
            steady = spent["train"] - before["train_s"] + spent["wait"] - before["wait_s"]
            row["tokens_per_s"] = (step - before["step"]) * spec.step_tokens / max(steady, 1e-9)
            row["data_wait"] = (spent["wait"] - before["wait_s"]) / max(steady, 1e-9)
        self.rows.append(row)
        if self.path:
            with open(self.path, "a") as f:
                f.write(json.dumps(row, allow_nan=False) + "\n")
        self.worker.report(row)

    def live(self, step: int, spec: Train, train_loss: float, directory: Path) -> None:
        """At most once a second, what a watcher sees between evaluations."""
        now = time.monotonic()
        if self.worker.rank == 0 and now - self.told >= 1.0:
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / "live.json", {"step": step, "steps": spec.steps, "train_loss": finite(train_loss)})
            self.told = now


def finite(value: float | None) -> float | None:
    """JSON has no NaN: None stands for it."""
    return value if value is not None and math.isfinite(value) else None
