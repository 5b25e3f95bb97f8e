"""python -m harness plan | search | run | status | report | preview FILE; export | evaluate DIGEST; gc; cluster FILE

A recipe is never given here: what a run is stands in the search space, where and how it runs stands here.
"""

import argparse
import os
import sys

from harness.commands import cluster, evaluate, export, gc, plan, preview, report, run, search, status
from harness.commands.common import INTERRUPTED
from harness.errors import InputError
from harness.url import UrlError


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, 1 if a stage failed, 2 for bad input, 4 if `run` stopped at a limit, 130 if interrupted."""
    args = parser().parse_args(argv)
    try:
        return args.command(args)
    except (InputError, UrlError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here, in a stage from its newest checkpoint", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m harness", description=(__doc__ or "").splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in (plan, search, run, status, report, preview, export, evaluate, gc, cluster):
        command.add(commands)
    return top


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)
