"""The benchmarks of reasoning transfer, and how stages are tuned for them, as values."""

from dataclasses import dataclass, field
from typing import Any

from harness.errors import InputError, require, whole_fields
from harness.reasoning import gsm8k
from harness.reasoning.choices import Choices
from harness.reasoning.gsm8k import GSM8K
from harness.reasoning.humaneval import HumanEval
from harness.reasoning.spec import Benchmark
from harness.sources.answers import ANSWER, PROMPT, Answers
from harness.sources.rows import Rows, Template
from harness.sources.text import Text
from harness.specs import Corpus, Evaluation, Recipe, Train, Transfer

__all__ = ["BIGBENCH_LITE", "GSM8K", "Benchmark", "Choices", "HumanEval", "Tuning", "answers", "task", "tune"]

BIGBENCH = "tasksource/bigbench"
BIGBENCH_LITE = (
    "auto_debugging", "bbq_lite_json", "code_line_description", "conceptual_combinations", "conlang_translation",
    "emoji_movie", "formal_fallacies_syllogisms_negation", "hindu_knowledge", "known_unknowns",
    "language_identification", "linguistics_puzzles", "logic_grid_puzzle", "logical_deduction",
    "misconceptions_russian", "novel_concepts", "operators", "parsinlu_reading_comprehension",
    "play_dialog_same_or_different", "repeat_copy_logic", "strange_stories", "strategyqa", "symbol_interpretation",
    "vitaminc_fact_verification", "winowhy",
)  # fmt: skip
"""The 24 tasks of BIG-bench Lite (Srivastava et al. 2022, arXiv 2206.04615)."""
BIGBENCH_PROMPT = Template("{inputs}")
BIGBENCH_ANSWER = Template(" {targets[0]}")


@dataclass(frozen=True)
class Tuning:
    """How often every example is seen, and how fast it is learnt. Defaults are the paper's for GSM8K."""

    epochs: int = 10
    recipe: Recipe = field(default_factory=lambda: Recipe(lr=1e-5, batch=32))

    def __post_init__(self) -> None:
        whole_fields(self, epochs=1)


TUNINGS = {"gsm8k": Tuning(), "bigbench-lite": Tuning(1, Recipe(lr=5e-6, batch=32))}


def answers(name: str, text: Text, **options: Any) -> Answers:
    """The training examples of a benchmark, on the tokenizer of the pre-training `text`."""
    if name == "gsm8k":
        return Answers(Rows(gsm8k.NAME, ("main",)), text, PROMPT, ANSWER, **options)
    if name == "bigbench-lite":
        return Answers(Rows(BIGBENCH, BIGBENCH_LITE), text, BIGBENCH_PROMPT, BIGBENCH_ANSWER, **options)
    raise InputError(f"benchmark = {name!r}: has no training examples; use {' or '.join(TUNINGS)}")


def task(name: str, problems: int | None = None) -> GSM8K | Choices | HumanEval:
    """A benchmark by its name: "gsm8k", "bigbench-lite" (its tasks with options) or "humaneval"."""
    if name == "gsm8k":
        return GSM8K(problems=problems)
    if name == "bigbench-lite":
        return Choices(Rows(BIGBENCH, BIGBENCH_LITE, "validation"), BIGBENCH_PROMPT, problems=problems)
    if name == "humaneval":
        return HumanEval(problems=problems)
    raise InputError(f"benchmark = {name!r}: unknown; use gsm8k, bigbench-lite or humaneval")


def tune(
    pretrained: Train,
    source: Answers,
    examples: int,
    tuning: Tuning,
    seed: int = 0,
    evaluation: Evaluation | None = None,
) -> Train:
    """The stage that goes on from `pretrained`, all of whose weights are kept, on the `examples` training examples of
    `source`: an ordinary training stage of as many whole steps as its epochs hold."""
    steps = examples * tuning.epochs // tuning.recipe.batch
    require(steps >= 1, "examples", examples, f"one step takes {tuning.recipe.batch}; use more, or a smaller batch")
    tokens = steps * tuning.recipe.batch * pretrained.model.context
    corpus = Corpus(source, seed, tuning.epochs)
    stage = Train(corpus, tokens, pretrained.model, tuning.recipe, seed, evaluation or Evaluation())
    return stage.after(pretrained, Transfer(reinit=()))
