"""A study's tables as files to commit, from which its results can be read again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.frame import DataError
from analysis.metrics.listed import Metric
from analysis.results import EXPORT, Results

LONG = ("frame", "evals")
"""Tables of a row an evaluation: their CSV is compressed."""


def export(store: Path | str, study: str, directory: Path | str, metrics: Sequence[Metric] = ()) -> Path:
    """`export_results` of what a store holds, with a user's own `metrics`. Raises DataError where it cannot be read,
    too."""
    return export_results(Results.from_store(store, study, metrics), directory)


def export_results(results: Results, directory: Path | str) -> Path:
    """Writes every table of a study as data to commit: NAME.csv (LONG ones NAME.csv.gz) and, unless it has no rows,
    NAME.parquet, and study.json (plan, manifests, what is missing), from which `Results.from_export` has all of them
    again. Returns the directory. Raises DataError where it cannot be written."""
    out = Path(directory)
    tables = results.tables()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, found in tables.items():
            _write_table(found, out, name)
        _write_study(results, out / "study.json")
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from None
    return out


def _write_table(found: pd.DataFrame, out: Path, name: str) -> None:
    if name in LONG:
        found.to_csv(out / f"{name}.csv.gz", index=False, compression={"method": "gzip", "mtime": 0})
    else:
        found.to_csv(out / f"{name}.csv", index=False)
    (out / f"{name}.parquet").unlink(missing_ok=True)
    if len(found):
        plain = found.copy(deep=False)
        # Values of several types, which Parquet has no column for, are text there.
        for column in [name for name in plain if pd.api.types.is_object_dtype(plain[name])]:
            plain[column] = pd.Series([None if pd.isna(v) else str(v) for v in plain[column]], plain.index, "str")
        plain.to_parquet(out / f"{name}.parquet", index=False)


def _write_study(results: Results, path: Path) -> None:
    plan = {k: v for k, v in results.plan.items() if k != "stages"}
    meta = {
        "format": EXPORT,
        "plan": plan,
        "stages": results.stages,
        "earlier": results.earlier,
        "missing": json.loads(results.missing.to_json(orient="records")),
    }
    path.write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")
