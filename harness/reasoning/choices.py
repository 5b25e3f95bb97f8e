"""Multiple choice by the probability that the model gives to each answer, with nothing generated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.errors import require
from harness.reasoning.chance import chance, normalised
from harness.reasoning.passk import ks, plain, rate
from harness.reasoning.spec import Evaluate, Means, Problem
from harness.sources.rows import Rows, Template, field_of

if TYPE_CHECKING:
    from harness.reasoning.lm import LM

BY = ("sum", "token", "byte")
"""What the log-probability of an option is divided by: nothing, its tokens, its UTF-8 bytes."""


@dataclass(frozen=True)
class Choices:
    """Questions with options, of which those with a positive entry in the field `right` are right; a field with the
    number of the one right option will do as well. An option follows the prompt and a space.

    Rows with fewer than two options, or of which none or all are right, ask for something else: they are left out and
    counted. `problems` keeps only the first that many of the others."""

    version: ClassVar[int] = 1
    runs_code: ClassVar[bool] = False
    takes_shots: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    rows: Rows
    prompt: Template
    options: str = "multiple_choice_targets"
    right: str = "multiple_choice_scores"
    problems: int | None = None

    @property
    def asked(self) -> Rows:
        return self.rows

    def read(self, shots: int = 0, seed: int = 0) -> list[Problem]:
        """The problems: options and the numbers of the right ones stand in `row`."""
        found = []
        for i, row in enumerate(self.rows.read()):
            where = f"row {i}"
            options = list(field_of(row, self.options, (list, tuple), where))
            marks = field_of(row, self.right, (list, tuple, int), where)
            right = [marks] if isinstance(marks, int) else [j for j, mark in enumerate(marks) if mark > 0]
            if len(options) < 2 or not 0 < len(right) < len(options):
                continue
            require(max(right) < len(options), self.right, right, f"{where} has {len(options)} options")
            problem = {"options": [str(o) for o in options], "right": right}
            found.append(Problem(str(i), self.prompt.fill(row, where), problem))
        require(bool(found), "Choices.options", self.options, "no row has options of which some are right")
        return list(islice(found, self.problems))

    def answer(self, lm: "LM", problems: Sequence[Problem], stage: Evaluate, means: Means) -> list[dict[str, Any]]:
        """The log-probability of every option (nats), and its length."""
        from harness.reasoning import lm as models

        pairs = [(p.prompt, f" {option}") for p in problems for option in p.row["options"]]
        scored = iter(models.score(lm, pairs, means.rows))
        records = []
        for p in problems:
            own = [next(scored) for _ in p.row["options"]]
            fits = all(each is not None for each in own)
            records.append(
                {
                    "problem": p.name,
                    "options": p.row["options"],
                    "right": p.row["right"],
                    "too_long": not fits,
                    "logprob": [each.logprob if each else None for each in own] if fits else None,
                    "tokens": [each.tokens if each else None for each in own] if fits else None,
                }
            )
        return records

    def scores(self, records: Sequence[dict[str, Any]], stage: Evaluate) -> dict[str, Any]:
        return scores(records, stage.samples)


def pick(record: dict[str, Any], by: str) -> int:
    """The number of the option with the largest log-probability, divided as `by` says; the first of equals."""
    sizes = {
        "sum": [1] * len(record["options"]),
        "token": record["tokens"],
        "byte": [max(1, len(option.encode())) for option in record["options"]],
    }[by]
    return int(np.argmax([p / size for p, size in zip(record["logprob"], sizes, strict=True)]))


def mass_on_right(record: dict[str, Any]) -> float:
    """The share of the right options in the probability that the model gives to all of them together."""
    logprob = record["logprob"]
    top = max(logprob)
    mass = [math.exp(p - top) for p in logprob]
    return sum(mass[i] for i in record["right"]) / sum(mass)


def scores(records: Sequence[dict[str, Any]], most: int) -> dict[str, Any]:
    """Accuracy of the likeliest option in each way to count length, and pass@k for k up to `most` of independent draws
    of an option by its probability, each with the same normalised by chance at the same k: a uniform guesser reads 0
    everywhere. pass@k is exact, 1 - (1 - p)^k with p the mass on right options, so nothing is drawn. A problem that
    does not fit into the context counts as wrong."""
    options = np.array([len(r["options"]) for r in records])
    right = np.array([len(r["right"]) for r in records])
    found: dict[str, Any] = {"too_long": sum(r["too_long"] for r in records)}
    guess = float(chance(options, 1, right).mean())
    for by in BY:
        hits = [0.0 if r["too_long"] else float(pick(r, by) in r["right"]) for r in records]
        found[f"accuracy_{by}"] = plain(rate(hits))
        found[f"accuracy_{by}_normalised"] = float(normalised(np.mean(hits), guess))
    mass = np.array([0.0 if r["too_long"] else mass_on_right(r) for r in records])
    found["pass"], found["pass_normalised"], found["chance"] = {}, {}, {}
    for k in ks(most):
        values = 1.0 - (1.0 - mass) ** k
        by_chance = float(chance(options, k, right).mean())
        found["pass"][str(k)] = plain(rate(np.clip(values, 0.0, 1.0)))
        found["chance"][str(k)] = by_chance
        found["pass_normalised"][str(k)] = float(normalised(values.mean(), by_chance))
    return found
