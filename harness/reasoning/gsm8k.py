"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): word problems whose worked answers end in "#### <number>"."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from harness.errors import InputError, require
from harness.reasoning.passk import ks, mean_over_problems, pass_at_k, plain, rate
from harness.reasoning.spec import Evaluate, Means, Problem
from harness.rng import key, permuted
from harness.sources.answers import ANSWER, PROMPT
from harness.sources.rows import Rows, Template, field_of

if TYPE_CHECKING:
    from harness.reasoning.lm import LM

NAME = "openai/gsm8k"
BETWEEN = "\n\n"
STOP = ("\nQuestion:",)
NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)%])[-+])?\s?\$?\s?(?P<digits>(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)|\d+)(?:\.\d+)?|\.\d+)"
)
"""A number as people write it: 1,234.50 or $18 or -3. A sign after a digit or a letter is an operator."""
MARK = "####"
Extraction = Literal["marked", "last_number"]


def number(text: str) -> str | None:
    """The first number in `text`, in one form for equal numbers ("1,200.0" and "$1200" are "1200"); None without."""
    found = NUMBER.search(text)
    return None if found is None else _plain(found)


def _plain(found: re.Match[str]) -> str:
    value = Decimal(found["digits"].replace(",", ""))
    value = -value if found["sign"] == "-" else value
    return "0" if value == 0 else f"{value.normalize():f}"


def answer_of(text: str, extraction: Extraction = "marked") -> str | None:
    """The answer that a worked solution gives: the number that follows the first "####" ("marked"), or, as a more
    lenient reading, the last number in the text where nothing is marked ("last_number"); None where there is none."""
    text = text.replace("\N{MINUS SIGN}", "-")
    _, mark, after = text.partition(MARK)
    if mark:
        line = after.strip().partition("\n")[0]
        found = NUMBER.match(line.lstrip())
        if found is not None or extraction == "marked":
            return None if found is None else _plain(found)
    if extraction == "marked":
        return None
    every = list(NUMBER.finditer(text))
    return _plain(every[-1]) if every else None


def _question(row: dict[str, Any]) -> str:
    return " ".join(field_of(row, "question", str, "a row").split()).casefold()


def solved_problems(
    train: Sequence[dict[str, Any]], test: Iterable[dict[str, Any]], count: int, seed: int
) -> list[dict[str, Any]]:
    """`count` solved problems of `train` in an order of `seed`. Raises InputError where one of them is a problem of
    `test`: the model would be shown what it is asked."""
    require(count <= len(train), "shots", count, f"there are {len(train)} training problems")
    chosen = [train[i] for i in permuted(np.arange(count), max(len(train), 1), int(key(seed, 0x5407)))]
    asked = {_question(row) for row in test}
    for row in chosen:
        if _question(row) in asked:
            raise InputError(
                f"shots = {count}: {row['question'][:60]!r} is a test problem; take shots from the train split"
            )
    return chosen


@dataclass(frozen=True)
class GSM8K:
    """The test problems, with shots from the training split (None will do without shots). Prompts are those of
    fine-tuning on `Answers`.

    `extraction` is how an answer is read from a sample. `problems` keeps only the first that many."""

    version: ClassVar[int] = 1
    runs_code: ClassVar[bool] = False
    takes_shots: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    test: Rows = field(default_factory=lambda: Rows(NAME, ("main",), "test"))
    train: Rows | None = field(default_factory=lambda: Rows(NAME, ("main",), "train"))
    prompt: Template = PROMPT
    answer_text: Template = ANSWER
    extraction: Extraction = "marked"
    max_tokens: int = 320
    problems: int | None = None

    def __post_init__(self) -> None:
        known = ("marked", "last_number")
        require(self.extraction in known, "GSM8K.extraction", self.extraction, "use 'marked' or 'last_number'")
        require(self.max_tokens >= 1, "GSM8K.max_tokens", self.max_tokens, "use at least 1")
        require(self.test != self.train, "GSM8K.train", self.train, "is the test split; give the training split")

    @property
    def asked(self) -> Rows:
        return self.test

    def read(self, shots: int, seed: int) -> list[Problem]:
        """The test problems; all have the same shots before them."""
        test = list(self.test.read())
        solved = []
        if shots:
            if self.train is None:
                raise InputError(f"shots = {shots}: GSM8K.train is None; name the training problems")
            solved = solved_problems(list(self.train.read()), test, shots, seed)
        before = "".join(self.prompt.fill(row) + self.answer_text.fill(row) + BETWEEN for row in solved)
        for i, row in enumerate(test):
            gold = answer_of(field_of(row, "answer", str, f"row {i}"))
            require(gold is not None, "GSM8K.test", i, f"the answer of row {i} has no number after {MARK}")
        asked = islice(enumerate(test), self.problems)
        return [Problem(str(i), before + self.prompt.fill(row, f"row {i}"), row) for i, row in asked]

    def answer(self, lm: "LM", problems: Sequence[Problem], stage: Evaluate, means: Means) -> list[dict[str, Any]]:
        """Samples, and the log-probability of the worked answer with its end (nats)."""
        from harness.reasoning import lm as models

        names = [p.name for p in problems]
        prompts = [p.prompt for p in problems]
        drawn = models.sample_all(
            lm, prompts, names, stage.samples, stage.seed, self.max_tokens, stage.temperature, STOP, means.rows
        )
        gold = models.score(lm, [(p.prompt, self.answer_text.fill(p.row)) for p in problems], means.rows)
        return [
            {
                "problem": p.name,
                "gold": answer_of(p.row["answer"]),
                "samples": [
                    {**each._asdict(), **{mode: answer_of(each.text, mode) for mode in ("marked", "last_number")}}
                    for each in own or []
                ],
                "too_long": own is None,
                "answer": None if found is None else found._asdict(),
                "prompt_sha256": hashlib.sha256(p.prompt.encode()).hexdigest(),
            }
            for p, own, found in zip(problems, drawn, gold, strict=True)
        ]

    def scores(self, records: Sequence[dict[str, Any]], stage: Evaluate) -> dict[str, Any]:
        """pass@k in the task's way to read answers; the share of samples with no answer; the cross-entropy of worked
        answers in nats a token, over all tokens and by problem. A problem that does not fit counts as unsolved."""
        n = stage.samples
        right = np.array([sum(s[self.extraction] == r["gold"] for s in r["samples"]) for r in records], np.int64)
        every = [s for r in records for s in r["samples"]]
        answers = [r["answer"] for r in records if r["answer"] is not None]
        tokens = sum(a["tokens"] for a in answers)
        return {
            "extraction": self.extraction,
            "pass": {str(k): plain(rate(pass_at_k(n, right, k))) for k in ks(n)},
            "no_answer": sum(s[self.extraction] is None for s in every) / len(every) if every else None,
            "cut_off": sum(s["end"] == "length" for s in every) / len(every) if every else None,
            "too_long": sum(r["too_long"] for r in records),
            "answer_nats": -sum(a["logprob"] for a in answers) / tokens if tokens else None,
            "answer_nats_by_problem": plain(mean_over_problems([-a["logprob"] / a["tokens"] for a in answers]))
            if answers
            else None,
            "answers_scored": len(answers),
        }
