"""A study: arms and axes in Ray Tune's own vocabulary, and the points that they make.

An arm is a function of the axes that it names, by parameter name, that returns a `Train`. It runs once for every
distinct setting of those axes: an arm that does not name `band` makes one run that serves all bands.
"""

import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.axes import check_range, variants
from harness.claims import Claim
from harness.errors import InputError, number_fields, require, whole_fields
from harness.reasoning.spec import Benchmark, Evaluate
from harness.search import SEED, Cell, Search, Winners, trial_of
from harness.specs import Train, canonical_json, digest

Arm = Callable[..., Train]

MODULE_PREFIX = "search_space_"
"""Search-space files are loaded as modules of this name; their classes travel to workers by value."""


@dataclass(frozen=True)
class Point:
    """One cell of a study: an arm at one setting of its axes."""

    arm: str
    axes: tuple[tuple[str, Any], ...]
    train: Train
    benchmarks: tuple[tuple[str, Evaluate], ...] = ()
    """What its last stage is asked, by the names that the study gives."""

    def label(self) -> str:
        return " ".join([self.arm, *(f"{k}={v}" for k, v in self.axes)])


@dataclass(frozen=True)
class Trial:
    """One run of a search. Its `point` has the searched values among its axes."""

    cell: Cell
    setting: Mapping[str, Any]
    seed: int
    point: Point


@dataclass(frozen=True)
class Study:
    """A question, the arm that the others are compared with, and the axes that they run over.

    `over` maps axis names to Ray Tune search spaces (`tune.grid_search`, `tune.choice`, `tune.loguniform`, ...) or
    constants; sampled axes are drawn `num_samples` times. `sesoi` is the smallest speedup worth having, registered
    with the plan, as are `claims`, what the study sets out to decide. `search` fills parameters of the arms that are no
    axes. `benchmarks` are asked of the last stage of every point, under names of their own. `callbacks` are Tune's
    (WandbLoggerCallback): they see every stage's curve as it is made, and are no part of what the study is.
    """

    name: str
    question: str
    baseline: Arm
    arms: Sequence[Arm]
    over: Mapping[str, Any] = field(default_factory=dict)
    num_samples: int = 1
    sesoi: float = 1.05
    claims: Sequence[Claim] = ()
    search: Search | None = None
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)
    callbacks: Sequence[Any] = ()

    def __post_init__(self) -> None:
        require(_is_plain(self.name), "Study.name", self.name, "use letters, digits, - and _ (it names a directory)")
        require(isinstance(self.question, str), "Study.question", self.question, "ask it in words")
        whole_fields(self, num_samples=1)
        number_fields(self, "sesoi")
        for name in ("over", "benchmarks"):
            require(isinstance(getattr(self, name), Mapping), f"Study.{name}", getattr(self, name), "give a dict")
        for name in ("arms", "callbacks"):
            require(isinstance(getattr(self, name), list | tuple), f"Study.{name}", getattr(self, name), "give a list")
        claimed = isinstance(self.claims, list | tuple) and all(isinstance(claim, Claim) for claim in self.claims)
        require(claimed, "Study.claims", self.claims, "give a list of claims: [Claim(id, text, tests)]")
        for arm in self.all_arms:
            require(hasattr(arm, "__name__"), "Study.arms", arm, "an arm is a function; wrap it in one with a name")
        require(self.sesoi > 1, "Study.sesoi", self.sesoi, "use a speedup above 1")
        names = [arm.__name__ for arm in self.all_arms]
        require(len(set(names)) == len(names), "Study.arms", names, "give every arm a name of its own")
        named = {axis for arm in self.all_arms for axis in self._axes_of(arm)}
        for axis, value in self.over.items():
            several = isinstance(value, list | range)
            require(not several, f"Study.over[{axis!r}]", value, "for several values use tune.grid_search([...])")
            check_range(f"Study.over[{axis!r}]", value)
            require(axis in named, "Study.over", axis, f"no arm names this axis; arms name {', '.join(sorted(named))}")
        ids = [claim.id for claim in self.claims]
        require(len(set(ids)) == len(ids), "Study.claims", ids, "give every claim an id of its own")
        for claim in self.claims:
            for kind, used, known in (
                ("arm", claim.arms, names),
                ("axis", claim.axes, list(self.over)),
                ("benchmark", claim.benchmarks, list(self.benchmarks)),
            ):
                for name in sorted(used - set(known)):
                    way_out = f"the study has no such {kind}; it has {', '.join(known) or 'none'}"
                    require(False, f"claim {claim.id}", name, way_out)
        for name, benchmark in self.benchmarks.items():
            require(_is_plain(name), "Study.benchmarks", name, "name it with letters, digits, - and _")
            kind = f"a {type(benchmark).__name__}"
            require(isinstance(benchmark, Benchmark), f"benchmark {name}", kind, "give a Benchmark(task, ...)")
            for axis in benchmark.at:
                way_out = f"the study has no such axis; it has {', '.join(self.over) or 'none'}"
                require(axis in self.over, f"benchmark {name}: at", axis, way_out)
        if self.search is not None:
            self._check_search(self.search)

    def _check_search(self, search: Search) -> None:
        for name in search.over:
            require(name not in self.over, "Search.over", name, "is an axis of the study; search or run over it")
            named = any(name in self._searched(arm) for arm in self.all_arms)
            require(named, "Search.over", name, "no arm names this parameter; spell it as they do or leave it out")
        for arm in self.all_arms:
            names = ", ".join(search.over)
            require(bool(self._searched(arm)), "Search.over", names, f"arm {arm.__name__} names none: all are tuned")
        for name in search.at:
            require(name in self.over and name != SEED, "Search.at", name, "name an axis of Study.over but the seed")
        require(SEED in self.over, "Study.over", list(self.over), f"a search needs the axis {SEED!r}")
        own = [setting[SEED] for setting in variants({SEED: self.over[SEED]}, self.num_samples)]
        both = [seed for seed in search.seeds if seed in own]
        require(not both, "Search.seeds", both, "are seeds of the study too; search on others")
        counts = {arm.__name__: len(self._settings(search, arm)) for arm in self.all_arms}
        equal = len(set(counts.values())) == 1
        require(equal, "Search.over", counts, "arms get unequal numbers of trials; sample the axes instead of a grid")

    @property
    def all_arms(self) -> list[Arm]:
        return [self.baseline, *self.arms]

    def _searched(self, arm: Arm) -> list[str]:
        """The searched parameters that `arm` names."""
        found = inspect.signature(arm).parameters
        return [name for name in self.search.over if name in found] if self.search is not None else []

    def _settings(self, search: Search, arm: Arm) -> list[dict[str, Any]]:
        """What `arm` is tried at, each once."""
        names = self._searched(arm)
        settings = [{name: setting[name] for name in names} for setting in search.settings()]
        return list({repr(setting): setting for setting in settings}.values())

    def _axes_of(self, arm: Arm) -> list[str]:
        axes = []
        searched = self._searched(arm)
        for name, parameter in inspect.signature(arm).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InputError(f"arm {arm.__name__}: parameter {name!r} is no axis; name every axis it runs over")
            if name in self.over:
                axes.append(name)
            elif name not in searched and parameter.default is parameter.empty:
                known = f"Study.over, which has {', '.join(self.over) or 'none'}"
                if self.search is not None:
                    known += f", nor in Search.over, which has {', '.join(self.search.over)}"
                raise InputError(f"arm {arm.__name__}: axis {name!r} is not in {known}")
        return axes

    def points(self, winners: Winners | None = None) -> list[Point]:
        """Every distinct point, arm by arm, baseline first, with what its search found and its benchmarks. Raises
        InputError where an arm or a benchmark refuses a setting, and without `winners` if there is a search."""
        points, settings = [], self._grid(self.over)
        for arm in self.all_arms:
            for axes in self._chosen(arm, settings):
                points.append(self._asked(_point(arm, axes, self._best(arm, axes, winners))))
        asked = {name for point in points for name, _ in point.benchmarks}
        for name, benchmark in self.benchmarks.items():
            require(name in asked, f"benchmark {name}: at", dict(benchmark.at), "no point is at these axes")
        return points

    def _asked(self, point: Point) -> Point:
        """`point` with its benchmarks."""
        found = []
        for name, benchmark in self.benchmarks.items():
            if benchmark.asks(dict(point.axes)):
                try:
                    found.append((name, benchmark.of(point.train, name)))
                except InputError as e:
                    raise InputError(f"{point.label()}: benchmark {name}: {e}") from e
        return replace(point, benchmarks=tuple(found))

    def _grid(self, over: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every setting of the axes of `over`: at least one."""
        settings = list(variants(over, self.num_samples))
        require(bool(settings), "Study.over", dict(over), "yields no points; give every axis a value")
        return settings

    def _chosen(self, arm: Arm, settings: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[str, Any], ...]]:
        """What is distinct of `settings` in the axes that `arm` names."""
        axes = [axis for axis in self._axes_of(arm) if axis in settings[0]]
        chosen = (tuple((axis, setting[axis]) for axis in axes) for setting in settings)
        return list({repr(each): each for each in chosen}.values())

    def _best(self, arm: Arm, axes: tuple[tuple[str, Any], ...], winners: Winners | None) -> Mapping[str, Any]:
        if self.search is None:
            return {}
        if winners is None:
            raise InputError(f"study {self.name}: its search has not run; `python -m harness search FILE` runs it")
        free = tuple((name, value) for name, value in axes if name != SEED and name not in self.search.at)
        return winners.best[canonical_json(Cell(arm.__name__, free))]

    def trials(self) -> list[Trial]:
        """Every run of the search, arm by arm, baseline first."""
        search, trials = self.search, []
        assert search is not None
        settings = self._grid({k: v for k, v in self.over.items() if k != SEED and k not in search.at})
        for arm in self.all_arms:
            for axes in self._chosen(arm, settings):
                for setting in self._settings(search, arm):
                    for seed in search.seeds:
                        trials.append(self.trial(Cell(arm.__name__, axes), setting, seed))
        return trials

    def trial(self, cell: Cell, setting: Mapping[str, Any], seed: int) -> Trial:
        """One run of the search, measured on held-out sequences that no stage of the study is measured on."""
        assert self.search is not None
        arm = next(arm for arm in self.all_arms if arm.__name__ == cell.arm)
        named = self._axes_of(arm)
        fixed = {name: value for name, value in {**self.search.at, SEED: seed}.items() if name in named}
        point = _point(arm, (*cell.axes, *fixed.items()), setting)
        train = trial_of(point.train, self.search.tokens)
        return Trial(cell, setting, seed, Point(cell.arm, (*point.axes, *setting.items()), train))

    def pairs(self, points: Sequence[Point]) -> list[int | None]:
        """For every point the number of the baseline point with the same axes, None for the baseline itself."""
        baseline = {repr(p.axes): i for i, p in enumerate(points) if p.arm == self.baseline.__name__}
        needed = self._axes_of(self.baseline)
        found: list[int | None] = []
        for point in points:
            if point.arm == self.baseline.__name__:
                found.append(None)
                continue
            axes = dict(point.axes)
            missing = [a for a in needed if a not in axes]
            require(not missing, f"arm {point.arm}", missing, f"name these axes too: {self.baseline.__name__} has them")
            found.append(baseline[repr(tuple((a, axes[a]) for a in needed))])
        return found


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum()


def _point(arm: Arm, axes: tuple[tuple[str, Any], ...], found: Mapping[str, Any]) -> Point:
    """The point of `arm` at `axes`, with what a search `found` for its other parameters."""
    label = " ".join([arm.__name__, *(f"{k}={v}" for k, v in axes), *(f"{k}={v}" for k, v in found.items())])
    try:
        train = arm(**dict(axes), **found)
        digest(train)
    except InputError as e:
        raise InputError(f"{label}: {e}") from e
    except Exception as e:  # whatever an arm's own code raises
        raise InputError(f"{label}: {type(e).__name__}: {e}") from e
    if not isinstance(train, Train):
        raise InputError(f"arm {arm.__name__} returned {train!r}: an arm returns a Train")
    return Point(arm.__name__, axes, train)


@functools.cache
def load(target: str) -> Study:
    """The study of `FILE[:NAME]` (NAME is `study` unless given). Raises InputError with the reason in one line."""
    value, name, module = load_value(target, "study")
    if not isinstance(value, Study):
        names = [n for n, v in vars(module).items() if isinstance(v, Study)]
        what = f"{name!r} is a {type(value).__name__}" if value is not None else f"there is no {name!r}"
        raise InputError(f"{target}: {what}; studies in this file: {', '.join(names) or 'none'}")
    return value


def load_value(target: str, default: str) -> tuple[Any, str, Any]:
    """(value or None, its name, module) of `FILE[:NAME]`."""
    file, colon, name = target.rpartition(":")
    path, name = (Path(file), name) if colon and file.endswith(".py") else (Path(target), default)
    if not path.is_file():
        raise InputError(f"{target}: there is no such file; give a search space as FILE.py or FILE.py:NAME")
    if path.suffix != ".py":
        raise InputError(f"{target}: is no Python file; give a search space as FILE.py or FILE.py:NAME")
    path = path.resolve()
    module_name = MODULE_PREFIX + path.stem + "_" + hashlib.sha256(str(path).encode()).hexdigest()[:8]
    loader = importlib.util.spec_from_file_location(module_name, path)
    assert loader is not None and loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    sys.modules[module_name] = module  # before it runs: dataclasses look their module up
    try:
        loader.loader.exec_module(module)
    except InputError as e:
        raise InputError(f"{path.name}: {e}") from e
    except SyntaxError as e:
        raise InputError(f"{e.filename or path}:{e.lineno}: {e.msg}") from e
    except Exception as e:
        line = _line_in(e, str(path))
        raise InputError(f"{path}{line}: {type(e).__name__}: {' '.join(str(e).split())}") from e
    return getattr(module, name, None), name, module


def _line_in(error: BaseException, file: str) -> str:
    """The last line of `file` that `error` came through, with a colon before it."""
    found, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return found
