"""python -m harness export: a trained stage as a Hugging Face model."""

import argparse
from pathlib import Path

from harness.commands.common import Commands, open_store, stored


def add(commands: Commands) -> None:
    export = commands.add_parser("export", parents=[stored()], help="write a training stage as a Hugging Face model")
    export.add_argument("digest", metavar="DIGEST", help="of a training stage, or its first digits, as `status` shows")
    export.add_argument("directory", type=Path, metavar="DIR", help="new, or empty")
    export.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    from harness.export import export

    print("\n".join(export(args.digest, args.directory, open_store(args))))
    return 0
