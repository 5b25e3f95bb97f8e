"""python -m harness report: tables and report from the store alone."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import copies, space
from harness.commands.common import Commands, of_study, open_store
from harness.errors import InputError
from harness.store import Store
from harness.url import Url


def add(commands: Commands) -> None:
    report = commands.add_parser(
        "report", parents=[of_study(), reporting()], help="remake tables and report from the store"
    )
    report.set_defaults(command=command)


def reporting() -> argparse.ArgumentParser:
    """The arguments of every command that writes a report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="results that `python -m analysis export` wrote, shown beside this study's",
    )
    parser.add_argument(
        "--metrics", metavar="FILE[:NAME]", help="metrics of your own, a column or a table each: see docs/extending.md"
    )
    return parser


@contextlib.contextmanager
def told(prefix: str = "") -> Iterator[None]:
    """What analysis says of files that it cannot read, as an InputError."""
    import analysis

    try:
        yield
    except analysis.DataError as e:
        raise InputError(f"{prefix}{e}") from e


def own_metrics(args: argparse.Namespace) -> Sequence[Any]:
    """The metrics that the command line names. Raises InputError for a file that has none."""
    import analysis

    with told():
        return analysis.own.load(args.metrics)


def check_beside(args: argparse.Namespace) -> None:
    """Raises InputError for what `--beside` names and cannot be read."""
    import analysis

    with told("--beside = "):
        for directory in args.beside:
            analysis.Results.from_export(directory)


def command(args: argparse.Namespace) -> int:
    write_report(space.load(args.target), open_store(args), args.beside, own_metrics(args))
    return 0


def write_report(study: space.Study, store: Store, beside: list[Path], metrics: Sequence[Any] = ()) -> None:
    """Tables and the HTML report, from the store alone, with a user's own `metrics`; the verdict table to the
    terminal."""
    import analysis

    place = store.study(study.name)
    out = store.here / "studies" / study.name if isinstance(place, Url) else place
    with told():
        report = analysis.write(str(store.root), study.name, out, beside, metrics)
        print(f"\n{analysis.verdict_table(analysis.Results.from_store(str(store.root), study.name))}")
    if isinstance(place, Url):
        copies.upload({p.relative_to(out).as_posix(): p for p in sorted(out.rglob("*")) if p.is_file()}, place)
    print(f"\nreport: {report}" + (f" and {place / report.name}" if isinstance(place, Url) else ""))
