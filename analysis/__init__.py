"""From the files of a study to its tables, figures, verdicts and report. Imports nothing of `harness`."""

from analysis import own
from analysis.exports import export
from analysis.frame import DataError, load, manifests, missing
from analysis.report import write
from analysis.results import Results
from analysis.verdict_table import verdict_table

__all__ = [
    "DataError",
    "Results",
    "export",
    "load",
    "manifests",
    "missing",
    "own",
    "verdict_table",
    "write",
]
