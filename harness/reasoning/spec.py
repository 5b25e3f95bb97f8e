"""What an evaluation is: a frozen value with a digest, as a training stage is. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self

from harness.errors import require, whole_fields
from harness.sources.rows import Rows
from harness.specs import Train

if TYPE_CHECKING:
    from harness.reasoning.lm import LM


class Problem(NamedTuple):
    """One problem of a benchmark."""

    name: str
    """Its own among those of the task."""
    prompt: str
    row: dict[str, Any]


class Means(NamedTuple):
    """How an evaluation is carried out: of no result."""

    rows: int = 8
    """Sequences side by side in the model."""
    allow_code: bool = False
    """Whether code that the model writes may be run, in a sandbox."""
    isolation: Literal["namespaces", "limits"] = "namespaces"


class Task(Protocol):
    """A benchmark: a value that says where its problems come from and how answers are judged."""

    version: ClassVar[int]
    runs_code: ClassVar[bool]
    """Whether generated code must be run to judge it."""
    takes_shots: ClassVar[bool]
    draws: ClassVar[bool]
    """Whether answers are sampled; else the given ones are scored."""

    @property
    def asked(self) -> Rows:
        """The rows that the problems are made of."""

    def resolved(self, network: bool = True) -> Self: ...

    def read(self, shots: int, seed: int) -> list[Problem]:
        """The problems, with the prompts that `shots` solved ones stand before. Raises InputError for bad data."""

    def answer(self, lm: "LM", problems: Sequence[Problem], stage: "Evaluate", means: Means) -> list[dict[str, Any]]:
        """What the model made of every problem, as plain JSON data: everything that `scores` needs."""

    def scores(self, records: Sequence[dict[str, Any]], stage: "Evaluate") -> dict[str, Any]:
        """The scores of a stage, as plain JSON data, from what `answer` gave for its problems."""


@dataclass(frozen=True)
class Evaluate:
    """A benchmark of a trained stage. Equal values are the same artifact: samples of every problem, and scores.

    `train` is the stage, or its canonical form as a manifest holds it, which has the same digest. `samples` are drawn a
    problem at `temperature` (0: the most likely token, so one sample), after `shots` solved problems; where the given
    answers are scored instead, `samples` is the largest k of pass@k. `engine` is what generates and scores: this
    package or lm-evaluation-harness, whose numbers are its own.
    """

    version: ClassVar[int] = 1

    train: Train | dict[str, Any]
    task: Task
    samples: int = 1
    temperature: float = 0.0
    shots: int = 0
    seed: int = 0
    engine: Literal["harness", "lm-eval"] = "harness"

    def __post_init__(self) -> None:
        whole_fields(self, samples=1, shots=0, seed=0)
        kind = self.train["type"] if isinstance(self.train, dict) else type(self.train).__name__
        require(kind == "Train", "Evaluate.train", kind, "has no weights; name a training stage")
        require(self.temperature >= 0, "Evaluate.temperature", self.temperature, "use 0 or more")
        require(self.engine in ("harness", "lm-eval"), "Evaluate.engine", self.engine, "use 'harness' or 'lm-eval'")
        name = type(self.task).__name__
        require(self.task.takes_shots or self.shots == 0, "Evaluate.shots", self.shots, f"{name} takes none")
        if self.task.draws:
            require(
                self.samples == 1 or self.temperature > 0,
                "Evaluate.temperature",
                self.temperature,
                f"{self.samples} samples would be equal; use a temperature above 0, or one sample",
            )
        else:
            require(
                self.temperature == 0, "Evaluate.temperature", self.temperature, f"{name} draws no samples; leave it"
            )

    @property
    def reads(self) -> dict[str, Any]:
        """The stages whose artifacts it reads, by the role that they play."""
        return {"model": self.train}
