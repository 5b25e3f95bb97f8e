"""A search of hyperparameters before a study: what is tried, and what it found.

Every arm gets as many trials as the others, at the same settings, on seeds and held-out sequences that the study does
not use: it is judged on what it was not tuned on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.axes import check_range, samples, variants
from harness.errors import number_fields, require, whole, whole_fields
from harness.specs import Train

SEED = "seed"
"""The axis whose values are replicates of one setting."""


@dataclass(frozen=True)
class Search:
    """A search of hyperparameters: every arm of a study at the same settings, on seeds and held-out sequences of its
    own. The study runs with what it found.

    `over` maps parameters of the arms to Tune search spaces, as `Study.over` does; the sampled ones are drawn `trials`
    times, alike for all arms. An arm is searched at every setting of its other axes; `at` fixes some of those, and what
    is found there holds for all of their values. `tokens` is the share of every budget, warmup and horizon that a trial
    gets. `search_alg` and `scheduler` are Tune's (OptunaSearch, ASHAScheduler): then a search is one Tuner for every
    arm and setting, on one seed, and stops what does badly.
    """

    over: Mapping[str, Any]
    seeds: Sequence[int]
    trials: int = 1
    at: Mapping[str, Any] = field(default_factory=dict)
    tokens: float = 1.0
    search_alg: Any = None
    scheduler: Any = None

    def __post_init__(self) -> None:
        named = isinstance(self.over, Mapping) and bool(self.over)
        require(named, "Search.over", self.over, "name what is searched, such as lr")
        whole_fields(self, trials=1)
        number_fields(self, "tokens")
        require(isinstance(self.seeds, Sequence), "Search.seeds", self.seeds, "give a list")
        require(0 < self.tokens <= 1, "Search.tokens", self.tokens, "use a share in (0, 1]")
        object.__setattr__(self, "seeds", [whole("Search.seeds", seed, 0) for seed in self.seeds])
        distinct = len(set(self.seeds)) == len(self.seeds) > 0
        require(distinct, "Search.seeds", list(self.seeds), "give at least one seed, each once")
        require(
            not self.adaptive or len(self.seeds) == 1,
            "Search.seeds",
            list(self.seeds),
            "with a search_alg or a scheduler, give one seed",
        )
        drawn = self.search_alg is not None or any(samples(value) for value in self.over.values())
        require(drawn or self.trials == 1, "Search.trials", self.trials, "a grid is tried whole; leave it out")
        for name, value in self.over.items():
            check_range(f"Search.over[{name!r}]", value)
            gridded = self.search_alg is None or samples(value)
            require(gridded, f"Search.over[{name!r}]", value, "a search_alg needs a range, not a grid")

    @property
    def adaptive(self) -> bool:
        """Whether what becomes of a trial depends on the others."""
        return self.search_alg is not None or self.scheduler is not None

    def settings(self) -> list[dict[str, Any]]:
        """Every setting that is tried; with a `search_alg`, as many."""
        found = list(variants(self.over, self.trials))
        for name, value in ((n, v) for setting in found for n, v in setting.items()):
            plain = isinstance(value, str | bool | int | float | None)
            require(plain, f"Search.over[{name!r}]", value, "search numbers, strings or booleans")
        return found


@dataclass(frozen=True)
class Cell:
    """An arm at one setting of the axes that are not searched, without seeds: what has a winner of its own."""

    arm: str
    axes: tuple[tuple[str, Any], ...]

    def label(self) -> str:
        return " ".join([self.arm, *(f"{k}={v}" for k, v in self.axes)])


@dataclass(frozen=True)
class Winners:
    """What a search found."""

    best: Mapping[str, Mapping[str, Any]]
    """The best setting of every cell, by the cell's canonical form."""
    registered: Mapping[str, Any]
    """What the plan of a study says of its search: its hash, what was searched and what was found."""


def trial_of(train: Train, share: float) -> Train:
    """`train` as a trial of a search: with `share` of its budget, and measured on what the study is not measured on."""
    judged = train.evaluation
    evaluation = replace(judged, skip=judged.skip + judged.sequences)
    return replace(_shortened(train, share), evaluation=evaluation)


def _shortened(train: Train, share: float) -> Train:
    if share == 1:
        return train
    init = None if train.init is None else _shortened(train.init, share)
    horizon = None if train.recipe.horizon is None else int(share * train.recipe.horizon)
    recipe = replace(train.recipe, warmup=int(share * train.recipe.warmup), horizon=horizon)
    return replace(train, tokens=int(share * train.tokens), recipe=recipe, init=init)
