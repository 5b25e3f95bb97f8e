"""HumanEval (Chen et al. 2021, arXiv 2107.03374): Python functions from their docstrings, judged by hidden tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.errors import require
from harness.reasoning import sandbox
from harness.reasoning.passk import ks, pass_at_k, plain, rate
from harness.reasoning.spec import Evaluate, Means, Problem
from harness.sources.rows import Rows, field_of

if TYPE_CHECKING:
    from harness.reasoning.lm import LM

STOP = ("\nclass", "\ndef", "\n#", "\n@", "\nif", "\nprint", "\nimport", "\nfrom")
"""What begins something after the function."""


def program(row: dict[str, Any], completion: str) -> str:
    """The source that holds a completion against the tests of its problem."""
    return f"{row['prompt']}{completion}\n\n{row['test']}\n\ncheck({row['entry_point']})\n"


@dataclass(frozen=True)
class HumanEval:
    """The problems, without tuning or shots. `wall_s` is what a program may take; `problems` keeps only the first that
    many."""

    version: ClassVar[int] = 1
    runs_code: ClassVar[bool] = True
    takes_shots: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    rows: Rows = field(default_factory=lambda: Rows("openai/openai_humaneval", split="test"))
    max_tokens: int = 512
    wall_s: float = 10.0
    problems: int | None = None

    def __post_init__(self) -> None:
        require(self.max_tokens >= 1, "HumanEval.max_tokens", self.max_tokens, "use at least 1")
        require(self.wall_s > 0, "HumanEval.wall_s", self.wall_s, "use a positive number of seconds")

    @property
    def asked(self) -> Rows:
        return self.rows

    def read(self, shots: int = 0, seed: int = 0) -> list[Problem]:
        found = []
        for i, row in enumerate(islice(self.rows.read(), self.problems)):
            for name in ("task_id", "prompt", "test", "entry_point"):
                field_of(row, name, str, f"row {i}")
            found.append(Problem(row["task_id"], row["prompt"], row))
        return found

    def answer(self, lm: "LM", problems: Sequence[Problem], stage: Evaluate, means: Means) -> list[dict[str, Any]]:
        """Completions, and how each ended in the sandbox."""
        from harness.reasoning import lm as models

        require(
            means.allow_code, "allow_code", means.allow_code, "generated code would be run; allow it, or do without"
        )
        names, prompts = [p.name for p in problems], [p.prompt for p in problems]
        drawn = models.sample_all(
            lm, prompts, names, stage.samples, stage.seed, self.max_tokens, stage.temperature, STOP, means.rows
        )
        return [
            {
                "problem": p.name,
                "too_long": own is None,
                "samples": [{**each._asdict(), **self.judge(p.row, each.text, means)} for each in own or []],
            }
            for p, own in zip(problems, drawn, strict=True)
        ]

    def judge(self, row: dict[str, Any], completion: str, means: Means) -> dict[str, Any]:
        """How the program with `completion` ended."""
        limits = sandbox.Limits(wall_s=self.wall_s, cpu_s=max(1, round(self.wall_s)))
        ended = sandbox.run(program(row, completion), limits, means.isolation)
        return {"status": ended.status, "code": ended.code, "output": ended.output}

    def scores(self, records: Sequence[dict[str, Any]], stage: Evaluate) -> dict[str, Any]:
        """pass@k; a problem whose prompt fills the context counts as unsolved."""
        right = np.array([sum(s["status"] == "passed" for s in r["samples"]) for r in records], np.int64)
        every = [s["status"] for r in records for s in r["samples"]]
        return {
            "pass": {str(k): plain(rate(pass_at_k(stage.samples, right, k))) for k in ks(stage.samples)},
            "too_long": sum(r["too_long"] for r in records),
            "ended": {status: every.count(status) for status in sorted(set(every))},
        }
