"""`python -m analysis report STORE STUDY`, `export STORE STUDY DIRECTORY`, `compare STORE STUDY STORE STUDY` and
`curves FILE --baseline ARM`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis import compare, own
from analysis.exports import export
from analysis.frame import DataError
from analysis.published import text as published_text
from analysis.published.compare import compare_file
from analysis.report import write_results
from analysis.results import Results
from analysis.verdict_table import verdict_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with one line where the data cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="write report.html and report.md, and print the verdicts")
    report.add_argument("store", help="a directory, or a URL such as s3://BUCKET/PREFIX")
    report.add_argument("study")
    report.add_argument("--out", type=Path, help="directory of the report (default: STORE/studies/STUDY, or STUDY)")
    report.add_argument("--beside", type=Path, action="append", default=[], help="an exported study to show beside it")
    report.add_argument("--metrics", metavar="FILE[:NAME]", help="metrics of your own: see docs/extending.md")
    tables = commands.add_parser("export", help="write the study's tables as data to commit")
    tables.add_argument("store", help="a directory, or a URL such as s3://BUCKET/PREFIX")
    tables.add_argument("study")
    tables.add_argument("directory", type=Path)
    tables.add_argument("--metrics", metavar="FILE[:NAME]", help="metrics of your own, a column or a table each")
    curves = commands.add_parser("curves", help="read curves that a paper published, or anyone else measured")
    curves.add_argument("file", type=Path, help="a CSV with the columns arm, tokens, loss_nats; or JSON")
    curves.add_argument("--baseline", required=True, metavar="ARM", help="the arm that the others are compared with")
    curves.add_argument("--json", action="store_true", help="print JSON")
    beside = commands.add_parser("compare", help="two studies side by side: cells, effects, plans")
    beside.add_argument("studies", nargs="+", metavar="STUDY", help="twice: STORE STUDY, or the directory of an export")
    options = parser.parse_args(arguments)
    try:
        if options.command == "curves":
            found = compare_file(options.file, options.baseline)
            print(published_text.document(found) if options.json else published_text.text(found))
        elif options.command == "compare":
            print(compare.text(compare.compare(*compare.read(options.studies))))
        elif options.command == "export":
            print(export(options.store, options.study, options.directory, own.load(options.metrics)))
        else:
            here = Path(options.store) / "studies" if "://" not in options.store else Path()
            out = options.out or here / options.study
            results = Results.from_store(options.store, options.study, own.load(options.metrics))
            path = write_results(results, out, [Results.from_export(directory) for directory in options.beside])
            print(verdict_table(results))
            print(f"\n{path}")
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
