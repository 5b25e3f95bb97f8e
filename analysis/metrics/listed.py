"""Metrics that are functions, each in a file of its own: the whole of one is its function and its name in METRICS.

A function of `treated` and `baseline`, two `cells.Run` with a smoothed `curve`, gives a number a pair: a column of
`pairs`, and of `effects` with its mean over seeds and 95 % interval. A function of anything else that `Results` has, by
the names of its parameters (`frame`, `pairs`, `plan`, ...), gives a table. A metric has the name of its column or
table, with its unit at the end, and the first line of its docstring is what the report calls it. `analysis.own` reads
those of a user's own file.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import Run
from analysis.metrics.area import auc_gain_nats
from analysis.metrics.intervals import Interval, bounds, t_interval
from analysis.stored import DataError

Metric = Callable[..., Any]

METRICS: tuple[Metric, ...] = (auc_gain_nats,)

PAIR = {"treated", "baseline"}
"""Parameters of a metric of pairs."""


def all_metrics(own: Sequence[Metric], axes: Iterable[str]) -> tuple[Metric, ...]:
    """METRICS and a user's `own`. Raises DataError where one of those has the name of an axis of the study."""
    if clash := {metric.__name__ for metric in of_pairs(own)} & {*axes}:
        raise DataError(f"metric {min(clash)}: is an axis of the study; name the metric otherwise")
    return (*METRICS, *own)


def beside(there: dict[str, pd.DataFrame], own: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of a study and those of metrics. Raises DataError where one of those has the name of another table."""
    if clash := there.keys() & own.keys():
        raise DataError(f"metric {min(clash)}: is a table already; name the metric otherwise")
    return there | own


def parameters(metric: Metric) -> list[str]:
    """The names of what a metric is a function of."""
    return list(inspect.signature(metric).parameters)


def of_pairs(metrics: Iterable[Metric]) -> list[Metric]:
    """Those that give a number a pair."""
    return [metric for metric in metrics if set(parameters(metric)) == PAIR]


def title(metric: Metric) -> str:
    """What people read."""
    return (metric.__doc__ or metric.__name__).strip().splitlines()[0].rstrip(".")


def columns(metric: Metric) -> list[str]:
    """The columns of `effects` that a metric of pairs fills."""
    return list(bounds(metric.__name__, Interval(0, 0, 0)))


def number(metric: Metric, treated: Run, baseline: Run) -> float:
    """The number of a pair; NaN where it has none. Raises DataError, with the place, where the metric raises or gives
    something else."""
    found = _called(metric, {"treated": treated, "baseline": baseline})
    if isinstance(found, np.ndarray) and found.ndim == 0:  # as `Curve.at` gives it
        found = found.item()
    if found is None:
        return float("nan")
    if isinstance(found, bool) or not isinstance(found, int | float | np.integer | np.floating):
        raise DataError(f"{_place(metric)}: metric {metric.__name__} gave {found!r} of a pair: return a number, or NaN")
    return float(found)


def mean(metric: Metric, pairs: Sequence[tuple[Run, Run]]) -> dict[str, float]:
    """The mean over (treated, baseline) `pairs`, under the names of `columns`; NaN where a pair has no finite number,
    since the pairs that are left would be a selection."""
    values = [number(metric, treated, baseline) for treated, baseline in pairs]
    whole = bool(values) and bool(np.isfinite(values).all())
    return bounds(metric.__name__, t_interval(values if whole else [np.nan] * len(values)))


def tables(metrics: Iterable[Metric], results: Any) -> dict[str, pd.DataFrame]:
    """The tables of the other metrics, by name. Raises DataError where one raises or gives something else."""
    return {m.__name__: _table(m, results) for m in metrics if set(parameters(m)) != PAIR}


def _table(metric: Metric, results: Any) -> pd.DataFrame:
    given = {name: getattr(results, name) for name in parameters(metric)}
    # A column that a metric adds to a table that it is given stays its own.
    given = {k: v.copy(deep=False) if isinstance(v, pd.DataFrame) else v for k, v in given.items()}
    found = _called(metric, given)
    said = f"{_place(metric)}: metric {metric.__name__}"
    if not isinstance(found, pd.DataFrame):
        raise DataError(f"{said} gave a {type(found).__name__}: return a pandas DataFrame")
    if not isinstance(found.index, pd.RangeIndex):
        found = found.reset_index()  # of a groupby it says what a row is
    if not all(isinstance(name, str) for name in found.columns) or not found.columns.is_unique:
        raise DataError(f"{said} gave the columns {list(found.columns)!r}: use names, each once")
    return found


def _called(metric: Metric, given: dict[str, Any]) -> Any:
    try:
        return metric(**given)
    except DataError:
        raise
    except Exception as error:  # whatever a metric's own code raises
        file, line = metric.__code__.co_filename, 0
        trace = error.__traceback__
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
            trace = trace.tb_next
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(f"{_place(metric, line)}: metric {metric.__name__}: {what}") from error


def _place(metric: Metric, line: int = 0) -> str:
    return f"{metric.__code__.co_filename}:{line or metric.__code__.co_firstlineno}"
