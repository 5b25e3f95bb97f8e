"""What an evaluation is: a frozen value with a digest, as a training stage is. Standard library only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeVar

from harness.errors import require, whole_fields
from harness.sources.rows import Rows
from harness.specs import IDENTITY_FREE, Train, canonical

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
    device: str = "cpu"
    threads: int | None = None
    """Of torch; None leaves them as they are."""


class Task(Protocol):
    """A benchmark: a dataclass that says where its problems come from, in fields that are `Rows`, and how answers are
    judged."""

    version: ClassVar[int]
    runs_code: ClassVar[bool]
    """Whether generated code must be run to judge it."""
    takes_shots: ClassVar[bool]
    draws: ClassVar[bool]
    """Whether answers are sampled; else the given ones are scored."""

    @property
    def asked(self) -> Rows:
        """The rows that the problems are made of."""

    def read(self, shots: int, seed: int) -> list[Problem]:
        """The problems, with the prompts that `shots` solved ones stand before. Raises InputError for bad data."""

    def answer(self, lm: "LM", problems: Sequence[Problem], stage: "Evaluate", means: Means) -> list[dict[str, Any]]:
        """What the model made of every problem, as plain JSON data: everything that `scores` needs. It depends on no
        problem but its own."""

    def scores(self, records: Sequence[dict[str, Any]], stage: "Evaluate") -> dict[str, Any]:
        """The scores of a stage, as plain JSON data, from what `answer` gave for its problems."""


AnyTask = TypeVar("AnyTask", bound=Task)


def rows_of(task: Task) -> dict[str, Rows]:
    """The rows of a task by the field that they are in."""
    values = {f.name: getattr(task, f.name) for f in fields(task)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if isinstance(value, Rows)}


def resolved(task: AnyTask, resolve: Callable[[Rows], Rows] = Rows.resolved) -> AnyTask:
    """The same task with all that identifies its rows filled in, by `resolve`."""
    return replace(task, **{name: resolve(rows) for name, rows in rows_of(task).items()})  # type: ignore[type-var]


@dataclass(frozen=True)
class Asking:
    """A task and how it is asked.

    `samples` are drawn a problem at `temperature` (0: the most likely token, so one sample), after `shots` solved
    problems; where the given answers are scored instead, `samples` is the largest k of pass@k. `engine` is what
    generates and scores: this package or lm-evaluation-harness, whose numbers are its own.
    """

    task: Task
    samples: int = 1
    temperature: float = 0.0
    shots: int = 0
    seed: int = 0
    engine: Literal["harness", "lm-eval"] = "harness"

    def __post_init__(self) -> None:
        whole_fields(self, samples=1, shots=0, seed=0)
        own, task = type(self).__name__, type(self.task).__name__
        require(self.temperature >= 0, f"{own}.temperature", self.temperature, "use 0 or more")
        require(self.engine in ("harness", "lm-eval"), f"{own}.engine", self.engine, "use 'harness' or 'lm-eval'")
        require(self.task.takes_shots or self.shots == 0, f"{own}.shots", self.shots, f"{task} takes none")
        if self.task.draws:
            require(
                self.samples == 1 or self.temperature > 0,
                f"{own}.temperature",
                self.temperature,
                f"{self.samples} samples would be equal; use a temperature above 0, or one sample",
            )
        else:
            require(self.temperature == 0, f"{own}.temperature", self.temperature, f"{task} draws no samples; leave it")


@dataclass(frozen=True)
class Benchmark(Asking):
    """What a study asks of the last stage of its points: of all of them, or of those whose axes do not differ from
    `at` (`at={"domain": "code"}`)."""

    at: Mapping[str, Any] = field(default_factory=dict)

    def asks(self, axes: Mapping[str, Any]) -> bool:
        """Whether points at `axes` are asked."""
        return all(axes.get(name, value) == value for name, value in self.at.items())

    def of(self, train: Train, name: str) -> "Evaluate":
        """The stage that asks `train`; `name` is what the study calls it."""
        return Evaluate(train, **{f.name: getattr(self, f.name) for f in fields(Asking)}, name=name)


@dataclass(frozen=True)
class _Trained:
    train: Train | dict[str, Any]


@dataclass(frozen=True)
class Evaluate(Asking, _Trained):
    """A benchmark of a trained stage. Equal values are the same artifact: samples of every problem, and scores.

    `train` is the stage, or its canonical form as a manifest holds it, which has the same digest. `name` is for people.
    """

    version: ClassVar[int] = 1

    name: str = field(default="", metadata=IDENTITY_FREE)

    def __post_init__(self) -> None:
        kind = self.train["type"] if isinstance(self.train, dict) else type(self.train).__name__
        require(kind == "Train", "Evaluate.train", kind, "has no weights; name a training stage")
        source = self.sources()[0]["type"]
        way_out = "has no tokenizer: its tokens stand for no text; tune the stage on text"
        require(source in ("Text", "Answers"), "Evaluate.train", source, way_out)
        super().__post_init__()

    @property
    def reads(self) -> dict[str, Any]:
        """The stages whose artifacts it reads, by the role that they play."""
        return {"model": self.train}

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Names of data sets whose commit on the hub is still open."""
        return tuple(name for rows in rows_of(self.task).values() for name in rows.unresolved)

    def resolved(self, network: bool = True) -> Self:
        """The same stage with all that identifies its task filled in. Raises InputError as `Rows`."""
        return replace(self, task=resolved(self.task, lambda rows: rows.resolved(network)))

    def check_unseen(self) -> None:
        """Raise InputError where weights of the stage were tuned on the very rows that it is asked."""
        asked = canonical(self.task.asked)
        for source in self.sources():
            seen = source["type"] == "Answers" and source["rows"] == asked
            require(not seen, "task", type(self.task).__name__, "the stage was tuned on these problems; ask others")

    def sources(self) -> list[dict[str, Any]]:
        """What the weights were trained on, the last first, each in its canonical form."""
        if isinstance(self.train, Train):
            return [canonical(stage.corpus.source) for stage in self.train.chain()][::-1]
        return [self.train["corpus"]["source"], *_before(self.train["init"])]


def _before(train: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if train is None else [train["corpus"]["source"], *_before(train["init"])]
