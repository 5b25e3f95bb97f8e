"""`curve.jsonl`: one row an evaluation, and where the seconds went."""

import math
import time
from pathlib import Path
from typing import Any

from harness import device, metrics
from harness.progress import Teller
from harness.schedule import lr_at
from harness.specs import Train
from harness.tracking import Tracker
from harness.url import Place
from harness.worker import Worker

LIVE_EVERY_S = 1.0
CLOCKS = ("tokens_per_s", "mfu", "data_wait", "train_s", "wait_s", "wall_s", "device_s", "memory_bytes")
"""Fields of a row that the machine decides: two runs of a stage differ in them alone."""


class Clock:
    """Seconds spent by purpose, counted on through restarts."""

    def __init__(self, spent: dict[str, float] | None = None) -> None:
        self.spent = dict.fromkeys(("train", "wait", "first_batch", "evaluate", "checkpoint"), 0.0) | (spent or {})
        self.mark = time.perf_counter()

    @property
    def busy(self) -> float:
        """Seconds of training and of waiting for its data."""
        return self.spent["train"] + self.spent["wait"] + self.spent["first_batch"]

    def charge(self, purpose: str) -> float:
        """Charge the time since the last charge to `purpose`; returns it."""
        now = time.perf_counter()
        seconds, self.mark = now - self.mark, now
        self.spent[purpose] += seconds
        return seconds


class Curve:
    """The rows of `curve.jsonl`, written as they come on rank 0, and a live line for whoever watches."""

    def __init__(
        self,
        spec: Train,
        attempt: Path | None,
        rows: list[dict[str, Any]],
        worker: Worker,
        peak_flops: float,
        live_directory: Place,
    ) -> None:
        """`rows` are those of before a restart; `peak_flops` is what a device of the stage reaches, FLOP/s."""
        self.spec, self.worker = spec, worker
        self.rows = list(rows)
        self.notes: list[str] = []
        self.flops_per_token = spec.model.flops_per_token(spec.io_width)
        self.peak_flops = peak_flops * worker.world
        self.teller = Teller(live_directory, attempt) if attempt else None
        self.told = time.monotonic()
        self.told_step: int | None = None
        self.tracker = Tracker(spec, worker.options) if worker.options.wandb and worker.rank == 0 else None
        if self.teller is not None:
            self.teller.rows(self.rows)

    @property
    def steps(self) -> set[int]:
        return {row["step"] for row in self.rows}

    def note(self, line: str) -> None:
        """Something that went wrong and was dealt with, for the manifest and for whoever watches; the same but once."""
        if line not in self.notes:
            self.notes.append(line)

    def utilisation(self, tokens_per_s: float | None) -> float | None:
        """Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): the FLOPs of `Llama.flops_per_token`, of those
        that the devices reach in matrix products alone."""
        return tokens_per_s * self.flops_per_token / self.peak_flops if tokens_per_s is not None else None

    def add(
        self,
        step: int,
        sums: metrics.Sums,
        held_out_bytes: int | None,
        induction: float | None,
        train_loss: float | None,
        grad_norm: float | None,
        clock: Clock,
    ) -> None:
        """The row of an evaluation after `step` steps."""
        spec, spent = self.spec, clock.spent
        before = self.rows[-1] if self.rows else None
        tokens_per_s, data_wait = None, 0.0
        if before is not None and step > before["step"]:
            steady = max(spent["train"] - before["train_s"] + spent["wait"] - before["wait_s"], 1e-9)
            tokens_per_s = (step - before["step"]) * spec.step_tokens / steady
            data_wait = (spent["wait"] - before["wait_s"]) / steady
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
            "tokens_per_s": tokens_per_s,
            "mfu": self.utilisation(tokens_per_s),
            "data_wait": data_wait,
            "train_s": spent["train"],
            "wait_s": spent["wait"],
            "wall_s": clock.busy,
            "device_s": clock.busy * self.worker.world,
            "memory_bytes": device.peak_memory(self.worker.device),
            **metrics.frames(sums, spec.corpus.source.frame_tokens),
        }
        self.rows.append(row)
        if self.teller is not None:
            self.teller.rows([row])
        if self.tracker is not None:
            self.tracker.log(row)
            self._tell_trouble()
        self.worker.report(row)

    def _tell_trouble(self) -> None:
        if self.tracker is not None and self.tracker.failure is not None:
            self.note(self.tracker.failure)

    def close(self) -> None:
        """Nothing follows."""
        if self.teller is not None:
            self.teller.close()
        if self.tracker is not None:
            whole = bool(self.rows) and self.rows[-1]["step"] == self.spec.steps
            self.tracker.close(self.rows[-1] if whole else None)
            self._tell_trouble()

    def forget(self) -> None:
        """Nobody works on the stage any more."""
        if self.teller is not None:
            self.teller.forget()

    def live(self, step: int, train_loss: float, clock: Clock, failure: str | None) -> None:
        """At most once a second, what a watcher sees between evaluations; `failure`: why a checkpoint was given up."""
        if failure is not None:
            self.note(failure)
        now = time.monotonic()
        if self.teller is None or now - self.told < LIVE_EVERY_S:
            return
        tokens_per_s = None
        if self.told_step is not None:
            tokens_per_s = (step - self.told_step) * self.spec.step_tokens / (now - self.told)
        line = {
            "step": step,
            "steps": self.spec.steps,
            "train_loss": finite(train_loss),
            "tokens_per_s": tokens_per_s,
            "mfu": self.utilisation(tokens_per_s),
            "memory_bytes": device.peak_memory(self.worker.device),
            "world": self.worker.world,
            "device_s": clock.busy * self.worker.world,
            "note": failure or (self.notes[-1] if self.notes else None),
        }
        self.teller.live(line)
        self.told, self.told_step = now, step


def finite(value: float | None) -> float | None:
    """JSON has no NaN: None stands for it."""
    return value if value is not None and math.isfinite(value) else None
