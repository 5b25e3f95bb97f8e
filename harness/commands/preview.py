"""python -m harness preview: what a source generates."""

import argparse
import os
from pathlib import Path

from harness.commands.common import Commands, default_store, positive


def add(commands: Commands) -> None:
    preview = commands.add_parser("preview", help="show what a source generates: pictures, complexity, statistics")
    preview.add_argument("target", metavar="FILE:NAME", help="any source in a search space, such as an NCA or a Text")
    preview.add_argument(
        "--beside", metavar="FILE:NAME|PATH", help="a text to compare with: a Text in a file, or a path of text files"
    )
    preview.add_argument("--sequences", type=positive, default=2048, help="sequences that are looked at (default 2048)")
    preview.add_argument("--out", type=Path, metavar="DIR", help="(default preview/NAME)")
    preview.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="(default: one a CPU)")
    preview.set_defaults(command=command, store=default_store())


def command(args: argparse.Namespace) -> int:
    from harness import preview

    preview.run(args.target, args.beside, args.sequences, args.out, args.threads, Path(args.store))
    return 0
