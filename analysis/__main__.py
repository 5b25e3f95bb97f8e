"""`python -m analysis report STORE STUDY` and `python -m analysis export STORE STUDY DIRECTORY`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.frame import DataError
from analysis.report import write
from analysis.tables import Results, export, verdict_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one line where the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="write report.html and report.md, and print the verdicts")
    report.add_argument("store", type=Path)
    report.add_argument("study")
    report.add_argument("--out", type=Path, help="directory of the report (default: STORE/studies/STUDY)")
    report.add_argument("--beside", type=Path, action="append", default=[], help="an exported study to show beside it")
    tables = commands.add_parser("export", help="write the study's tables as data to commit")
    tables.add_argument("store", type=Path)
    tables.add_argument("study")
    tables.add_argument("directory", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "export":
            print(export(options.store, options.study, options.directory))
        else:
            out = options.out or options.store / "studies" / options.study
            path = write(options.store, options.study, out, options.beside)
            print(verdict_table(Results.from_store(options.store, options.study)))
            print(f"\n{path}")
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
