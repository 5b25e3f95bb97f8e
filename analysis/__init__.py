"""From the files of a study to its tables, figures, verdicts and report. Imports nothing of `harness`."""

from analysis.frame import DataError, load, manifests, missing
from analysis.report import write
from analysis.speedup import effects, pairs
from analysis.tables import Results, export, verdict_table

__all__ = [
    "DataError",
    "Results",
    "effects",
    "export",
    "load",
    "manifests",
    "missing",
    "pairs",
    "verdict_table",
    "write",
]
