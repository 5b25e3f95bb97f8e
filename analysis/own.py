"""Metrics of a user's own file, given to a command as FILE.py or FILE.py:NAME: a list of functions, as
`analysis.metrics.listed` says, whose NAME is `metrics` unless given."""

import dataclasses
import importlib.util
import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.metrics.effects import EFFECT_COLUMNS, PAIR_COLUMNS
from analysis.metrics.listed import METRICS, PAIR, Metric, columns, parameters
from analysis.results import TABLES, Results
from analysis.stored import DataError

HIDDEN = {"metrics", "own_tables"}
"""What `Results` has of the metrics themselves."""


def known() -> list[str]:
    """What a metric can be a function of, beside the two runs of a pair."""
    made = [name for name, value in vars(Results).items() if isinstance(value, property | cached_property)]
    return [n for n in (*(f.name for f in dataclasses.fields(Results)), *made) if n not in HIDDEN]


def load(target: str | None) -> tuple[Metric, ...]:
    """The metrics of `target`, none for None. Raises DataError, in one line, for a file that cannot be read or holds
    something else."""
    if target is None:
        return ()
    file, colon, name = target.rpartition(":")
    path, name = (Path(file), name) if colon and file.endswith(".py") else (Path(target), "metrics")
    found = getattr(_module(path, target), name, None)
    if not isinstance(found, list | tuple) or not found:
        raise DataError(f"{target}: has no list of functions named {name!r}; write {name} = [a_function, ...]")
    for metric in found:
        _check(metric, target)
    names = [metric.__name__ for metric in (*METRICS, *found)]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise DataError(f"{target}: more than one metric is named {', '.join(twice)}; give each a name of its own")
    return tuple(found)


def _module(path: Path, target: str) -> Any:
    if not path.is_file() or path.suffix != ".py":
        raise DataError(f"{target}: is no Python file; give metrics as FILE.py or FILE.py:NAME")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"metrics_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise DataError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever the file's own code raises
        raise DataError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return module


def _check(metric: Any, target: str) -> None:
    if not inspect.isfunction(metric) or not metric.__name__.isidentifier():
        raise DataError(f"{target}: {metric!r} is no metric; use a function with a name")
    named, there = parameters(metric), known()
    if set(named) == PAIR:
        taken = {*PAIR_COLUMNS, *EFFECT_COLUMNS, "study", "arm", "seed", "verdict", "reason"}
        if clash := taken & {*columns(metric)}:
            raise DataError(f"{target}: {min(clash)} is a column already; name the metric otherwise")
        return
    if metric.__name__ in TABLES:
        raise DataError(f"{target}: {metric.__name__} is a table already; name the metric otherwise")
    for name in named:
        if name not in there:
            raise DataError(
                f"{target}: metric {metric.__name__}: there is no {name!r}; name `treated` and `baseline`, or some of "
                f"{', '.join(there)}"
            )
    if not named:
        raise DataError(f"{target}: metric {metric.__name__} names nothing; name `treated` and `baseline`, or `frame`")
