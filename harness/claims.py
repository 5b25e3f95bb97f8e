"""Claims: what a study sets out to decide, and by which rule, said before it runs and registered with its plan.

A claim is a sentence and the tests that decide it. Every test names arms and axes of the study; `analysis` reads them
from the registered plan as data. The claims C1 to C13 of the paper (Lee, Han, Kumar, Agrawal, 2026, arXiv 2603.10055)
and of its critics stand below as functions of the arms that a study has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from harness.errors import require

Measure = Literal["speedup", "net_speedup_tokens", "net_speedup_flops", "gap"]
"""What is compared: text tokens to equal loss, the same with the stages before the text on the bill (in tokens, or in
FLOPs with generation), or the loss gap in nats a token at equal text."""


@dataclass(frozen=True)
class Choose:
    """The level of `axis` with the greatest mean loss gap on `seeds`; what is chosen is tested on the other seeds."""

    axis: str
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "Choose.seeds", list(self.seeds), "name the seeds to choose by")
        object.__setattr__(self, "seeds", tuple(self.seeds))


@dataclass(frozen=True)
class Learned:
    """The first stage of `arm` is learned in context: on rules never seen it beats the best of the simple predictors
    by 5 % of that predictor's loss."""

    arm: str


@dataclass(frozen=True)
class Beats:
    """`arm` beats `than`: the effect lies above `above` with its interval and is at least `at_least`; it is refuted
    where the effect lies below `below`. Ratios for speedups (1 is none), nats for a gap (0 is none); left out they are
    no effect and, twice, the study's `sesoi` or, for a gap, 0.01 nats. `published` is the range that was reported,
    which the interval has to meet. A row for every setting of the axes."""

    arm: str
    than: str
    measure: Measure = "speedup"
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    published: tuple[float, float] | None = None
    choose: Choose | None = None

    def __post_init__(self) -> None:
        require(self.measure in get_args(Measure), "Beats.measure", self.measure, f"use one of {get_args(Measure)}")
        require(self.arm != self.than, "Beats.than", self.than, "an arm cannot beat itself")


@dataclass(frozen=True)
class Trend:
    """The measure of `arm` against `than` rises with ln of the axis `along` (of a band: with its measured gzip ratio):
    the slope per seed lies above `above`; it is refuted below `below`. A row for every setting of the other axes."""

    arm: str
    than: str
    along: str
    measure: Measure = "gap"
    above: float = 0.0
    below: float = 0.0

    def __post_init__(self) -> None:
        require(self.measure in get_args(Measure), "Trend.measure", self.measure, f"use one of {get_args(Measure)}")


@dataclass(frozen=True)
class Matching:
    """More complex automata help texts of `high` more than texts of `low`: the contrast, per seed, of slopes of the
    loss gap on measured complexity along `band`, mean over `high` minus mean over `low`, lies above 0."""

    arm: str
    than: str
    band: str
    domain: str
    high: Sequence[str]
    low: Sequence[str]

    def __post_init__(self) -> None:
        require(
            bool(self.high and self.low), "Matching.high, low", [*self.high, *self.low], "name levels on both sides"
        )
        object.__setattr__(self, "high", tuple(self.high))
        object.__setattr__(self, "low", tuple(self.low))


@dataclass(frozen=True)
class Carries:
    """Of the modules that are `kept` or not (axes of a factorial) `module` carries the gain: its main effect on the
    loss gap lies above 0 and above that of each of `others`."""

    arm: str
    than: str
    module: str
    others: Sequence[str]
    kept: str = "kept"

    def __post_init__(self) -> None:
        object.__setattr__(self, "others", tuple(self.others))


@dataclass(frozen=True)
class Same:
    """`arm` and `other` end alike: the interval of their loss gap lies within `within` nats of 0. Refuted where it lies
    outside."""

    arm: str
    other: str
    within: float = 0.01

    def __post_init__(self) -> None:
        require(self.within > 0, "Same.within", self.within, "use nats above 0")
        require(self.arm != self.other, "Same.other", self.other, "name another arm")


@dataclass(frozen=True)
class Scores:
    """`arm` scores better than `than` on a benchmark of the study: the gain in `metric` (of pass@k at `k`), paired by
    seed, lies above 0 with its interval and is at least `at_least`, a share of the problems (nats for "answer_nats", of
    which less is better). Refuted where it lies below that. A row for every setting of the axes."""

    arm: str
    than: str
    benchmark: str
    metric: str = "pass"
    k: int = 1
    at_least: float = 0.01

    def __post_init__(self) -> None:
        require(self.arm != self.than, "Scores.than", self.than, "an arm cannot beat itself")
        require(self.k >= 1, "Scores.k", self.k, "use a whole number of at least 1")
        require(self.at_least > 0, "Scores.at_least", self.at_least, "use a gain above 0")


Test = Learned | Beats | Trend | Matching | Carries | Same | Scores


@dataclass(frozen=True)
class Claim:
    """A sentence, the tests that decide it, and the family within which their p values are adjusted (Holm). A claim
    without a family is exploratory (Benjamini and Hochberg, 10 %). `needs` "all" rows of its tests, or "any"."""

    version: ClassVar[int] = 1

    id: str
    text: str
    tests: Sequence[Test]
    family: str = ""
    needs: Literal["all", "any"] = "all"

    def __post_init__(self) -> None:
        require(isinstance(self.id, str) and bool(self.id), "Claim.id", self.id, "give the claim a name, such as C2")
        for name in ("text", "family"):
            require(isinstance(getattr(self, name), str), f"claim {self.id}: {name}", getattr(self, name), "use words")
        tests = isinstance(self.tests, list | tuple) and all(isinstance(test, Test) for test in self.tests)
        require(tests, f"claim {self.id}: tests", self.tests, "give a list of tests: [Beats(arm, than, ...)]")
        require(bool(self.tests), f"claim {self.id}: tests", list(self.tests), "give at least one test")
        require(self.needs in ("all", "any"), f"claim {self.id}: needs", self.needs, "use 'all' or 'any'")
        object.__setattr__(self, "tests", tuple(self.tests))

    @property
    def arms(self) -> set[str]:
        """Arms that its tests name."""
        return {v for t in self.tests for f in ("arm", "than", "other") if (v := getattr(t, f, None)) is not None}

    @property
    def axes(self) -> set[str]:
        """Axes that its tests name."""
        found = {v for t in self.tests for f in ("along", "band", "domain", "module") if (v := getattr(t, f, None))}
        found |= {axis for t in self.tests if isinstance(t, Carries) for axis in t.others}
        return found | {t.choose.axis for t in self.tests if isinstance(t, Beats) and t.choose is not None}

    @property
    def benchmarks(self) -> set[str]:
        """Benchmarks that its tests name."""
        return {test.benchmark for test in self.tests if isinstance(test, Scores)}


PERPLEXITY_NATS = 0.01
"""The smallest loss gap worth having: 1 % of perplexity."""


def learned(arm: str = "nca") -> Claim:
    """C0."""
    return Claim("C0", "The automata are learned in context.", [Learned(arm)], "C0")


def perplexity(arm: str = "nca", than: str = "scratch") -> Claim:
    """C1. The paper reports 4 to 6 % lower perplexity."""
    test = Beats(arm, than, "gap", above=0.0, at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS)
    return Claim("C1", f"{arm} ends at a lower perplexity than {than}.", [test], "F1", "any")


def speedup(arm: str = "nca", than: str = "scratch") -> Claim:
    """C2, in the paper's words "up to 1.6x faster": supported above 1.2 if the interval meets 1.4 to 1.6, refuted below
    1.4."""
    test = Beats(arm, than, "speedup", above=1.2, at_least=1.2, below=1.4, published=(1.4, 1.6))
    return Claim("C2", f"{arm} needs 1.4 to 1.6 times less text than {than} for the same loss.", [test], "F1", "any")


def net_speedup(arm: str = "nca", than: str = "scratch") -> Claim:
    """C2 with the automata on the bill."""
    test = Beats(arm, than, "net_speedup_flops")
    return Claim("C2-net", f"{arm} saves FLOPs, its automata and their training counted.", [test], "F1-net", "any")


def beats_text(arm: str = "nca", texts: Sequence[str] = ("text",)) -> Claim:
    """C3: 164M tokens of automata beat 1.6B of natural text."""
    tests = [Beats(arm, text, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS) for text in texts]
    return Claim("C3", f"{arm} helps more than a warm-up on natural text.", tests, "F2")


def beats_dyck(arm: str = "nca", dycks: Sequence[str] = ("dyck",)) -> Claim:
    """C4."""
    tests = [Beats(arm, dyck, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS) for dyck in dycks]
    return Claim("C4", f"{arm} helps more than bracket languages.", tests, "F2")


def structure(arm: str = "nca", controls: Sequence[str] = ("shuffled", "permuted")) -> Claim:
    """C5."""
    tests = [Beats(arm, control, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS) for control in controls]
    return Claim("C5", f"It is the structure of automata that helps, not their statistics: {arm}.", tests, "F2")


def attention(arm: str = "nca", than: str = "scratch", others: Sequence[str] = ("mlp", "norms")) -> Claim:
    """C6."""
    return Claim("C6", "Attention carries the gain.", [Carries(arm, than, "attention", others)], "C6")


def matching(
    high: Sequence[str], low: Sequence[str], arm: str = "nca", than: str = "scratch", band: str = "band",
    domain: str = "domain",
) -> Claim:  # fmt: skip
    """C7, one pre-registered contrast."""
    test = Matching(arm, than, band, domain, high, low)
    return Claim("C7", "Texts that compress less are helped by automata that compress less.", [test], "F3")


def token_scaling(along: str = "nca_tokens", arm: str = "nca", than: str = "scratch") -> Claim:
    """C8: the gain grows with synthetic tokens, a row for every alphabet."""
    return Claim("C8", "More synthetic tokens help more.", [Trend(arm, than, along)], "C8")


def size_scaling(along: str = "depth", arm: str = "nca", than: str = "scratch") -> Claim:
    """C9."""
    return Claim("C9", "The speedup grows with the model.", [Trend(arm, than, along, "speedup")], "C9")


def reasoning(arm: str = "nca", than: str = "scratch", benchmarks: Sequence[str] = ()) -> Claim:
    """C10, by the loss on answers (or code) that were held out, a row a benchmark; and by pass@1 on `benchmarks` of the
    study, which models near guessing do not move."""
    loss = Beats(arm, than, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS)
    tests: list[Test] = [loss, *(Scores(arm, than, benchmark) for benchmark in benchmarks)]
    return Claim("C10", f"{arm} reasons better than {than}: it gives right answers more probability.", tests, "C10")


def not_the_schedule(
    arm: str = "nca", annealed: str = "annealed", untrained: str = "untrained", than: str = "scratch"
) -> Claim:
    """C11: the gain is there with an annealed first stage as with one that ends at warmup, and not without any step."""
    tests = [
        Beats(annealed, than, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS),
        Beats(arm, untrained, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS),
    ]
    return Claim("C11", "The gain is no artefact of the first stage's schedule.", tests, "C11")


def rule_diversity(arm: str = "nca", bank: str = "bank") -> Claim:
    """C12: fresh rules beat a bank of some size, a row for every size. No trend along sizes is asked: a first stage on
    few rules is not learned on rules that it never saw, and supports nothing."""
    test = Beats(arm, bank, "gap", at_least=PERPLEXITY_NATS, below=PERPLEXITY_NATS)
    return Claim("C12", "More distinct rules help more.", [test], "C12", "any")


def nuisances(variants: Sequence[str], arm: str = "nca", within: float = PERPLEXITY_NATS) -> Claim:
    """C13, a test for every setting that is changed alone."""
    tests = [Same(variant, arm, within) for variant in variants]
    return Claim("C13", "The result does not hang on nuisance settings.", tests, "C13")
