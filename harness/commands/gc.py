"""python -m harness gc: what no registered study needs, and its removal."""

import argparse

from harness import garbage
from harness.commands.common import Commands, open_store, stored
from harness.plan import si


def add(commands: Commands) -> None:
    gc = commands.add_parser("gc", parents=[stored()], help="show, or remove, what no registered study needs")
    gc.add_argument("--remove", action="store_true", help="remove it (default: show it)")
    gc.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    store = open_store(args)
    found = garbage.survey(store)
    print(f"{store.root}: {si(found.bytes)}B; {found.studies} registered plans have {found.needed} stages")
    for kind in garbage.KINDS:
        some = [each.holding for each in found.garbage if each.why == kind]
        if some:
            print(f"  {len(some):>6}  {si(sum(h.bytes for h in some)) + 'B':>8}  {kind}")
    if not found.garbage:
        print("nothing can go")
    elif args.remove:
        print(f"{si(garbage.remove(found.garbage, store))}B removed")
    else:
        total = sum(each.holding.bytes for each in found.garbage)
        print(f"{si(total)}B can go; nothing was removed: --remove does")
    return 0
