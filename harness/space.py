"""A study: arms and axes in Ray Tune's own vocabulary, and the points that they make.

An arm is a function of the axes that it names, by parameter name, that returns a `Train`. It runs once for every
distinct setting of those axes: an arm that does not name `band` makes one run that serves all bands.
"""

import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InputError, require
from harness.rng import named_seed
from harness.specs import Train, digest

Arm = Callable[..., Train]

MODULE_PREFIX = "search_space_"
"""Search-space files are loaded as modules of this name; their classes travel to workers by value."""


@dataclass(frozen=True)
class Point:
    """One cell of a study: an arm at one setting of its axes."""

    arm: str
    axes: tuple[tuple[str, Any], ...]
    train: Train

    def label(self) -> str:
        return " ".join([self.arm, *(f"{k}={v}" for k, v in self.axes)])


@dataclass(frozen=True)
class Study:
    """A question, the arm that the others are compared with, and the axes that they run over.

    `over` maps axis names to Ray Tune search spaces (`tune.grid_search`, `tune.choice`, `tune.loguniform`, ...) or
    constants; sampled axes are drawn `num_samples` times. `sesoi` is the smallest speedup worth having, registered
    with the plan.
    """

    name: str
    question: str
    baseline: Arm
    arms: Sequence[Arm]
    over: Mapping[str, Any] = field(default_factory=dict)
    num_samples: int = 1
    sesoi: float = 1.05

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "").isalnum()
        require(plain, "Study.name", self.name, "use letters, digits, - and _ (it names a directory)")
        require(self.num_samples >= 1, "Study.num_samples", self.num_samples, "use at least 1")
        for arm in self.all_arms:
            require(hasattr(arm, "__name__"), "Study.arms", arm, "an arm is a function; wrap it in one with a name")
        require(self.sesoi > 1, "Study.sesoi", self.sesoi, "use a speedup above 1")
        names = [arm.__name__ for arm in self.all_arms]
        require(len(set(names)) == len(names), "Study.arms", names, "give every arm a name of its own")
        named = {axis for arm in self.all_arms for axis in self._axes_of(arm)}
        for axis in self.over:
            require(axis in named, "Study.over", axis, f"no arm names this axis; arms name {', '.join(sorted(named))}")

    @property
    def all_arms(self) -> list[Arm]:
        return [self.baseline, *self.arms]

    def _axes_of(self, arm: Arm) -> list[str]:
        axes = []
        for name, parameter in inspect.signature(arm).parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InputError(f"arm {arm.__name__}: parameter {name!r} is no axis; name every axis it runs over")
            if name in self.over:
                axes.append(name)
            elif parameter.default is parameter.empty:
                known = ", ".join(self.over) or "none"
                raise InputError(f"arm {arm.__name__}: axis {name!r} is not in Study.over, which has {known}")
        return axes

    def points(self) -> list[Point]:
        """Every distinct point, arm by arm, baseline first. Raises InputError where an arm refuses a setting."""
        settings = list(variants(self.over, self.num_samples))
        require(bool(settings), "Study.over", dict(self.over), "yields no points; give every axis a value")
        points = []
        for arm in self.all_arms:
            axes = self._axes_of(arm)
            seen = set()
            for setting in settings:
                chosen = tuple((axis, setting[axis]) for axis in axes)
                identity = repr(chosen)
                if identity not in seen:
                    seen.add(identity)
                    points.append(_point(arm, chosen))
        return points

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


def _point(arm: Arm, axes: tuple[tuple[str, Any], ...]) -> Point:
    label = " ".join([arm.__name__, *(f"{k}={v}" for k, v in axes)])
    try:
        train = arm(**dict(axes))
        digest(train)
    except InputError as e:
        raise InputError(f"{label}: {e}") from e
    except Exception as e:  # whatever an arm's own code raises
        raise InputError(f"{label}: {type(e).__name__}: {e}") from e
    if not isinstance(train, Train):
        raise InputError(f"arm {arm.__name__} returned {train!r}: an arm returns a Train")
    return Point(arm.__name__, axes, train)


def variants(over: Mapping[str, Any], num_samples: int) -> Iterator[dict[str, Any]]:
    """Every setting of the axes, by Tune's own variant generator. A sampled axis has one draw a sample, equal over the
    grid and drawn from its own name: else a seed axis would unpair its pairs, and a new axis would change old draws."""
    import numpy as np
    from ray.tune.search.sample import Domain
    from ray.tune.search.variant_generator import generate_variants

    for sample in range(num_samples):
        space = {}
        for axis, value in over.items():
            if isinstance(value, Domain) and not value.is_function():
                value = value.sample(random_state=np.random.RandomState(named_seed(axis, sample) % 2**32))
            elif isinstance(value, dict) and value.keys() == {"grid_search"}:
                value = {"grid_search": _Shared(value["grid_search"])}
            space[axis] = value
        state = np.random.RandomState(sample)
        for _, setting in generate_variants(space, constant_grid_search=True, random_state=state):
            yield setting
        if not any(isinstance(value, Domain) for value in over.values()):
            return  # nothing is sampled, so another sample would be the same


class _Shared(list[Any]):
    """A list that Tune, which copies the whole space for every variant, need not copy: long axes stay linear."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


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
