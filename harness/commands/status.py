"""python -m harness status: what is done, running, failed and waiting."""

import argparse
import math
import sys
import time
from pathlib import Path

from harness import plan as plans
from harness import promise, screen, space, watch, winners
from harness.commands.common import INTERRUPTED, Commands, make_search, next_plan, of_study, positive_number
from harness.store import Store
from harness.url import UrlError

WATCH_S = 2.0
WINNERS_S = 20.0
"""In which the driver of a search that has ended has written down its winners."""


def add(commands: Commands) -> None:
    status = commands.add_parser("status", parents=[of_study()], help="show what is done, running, failed and waiting")
    status.add_argument(
        "--watch",
        type=positive_number,
        nargs="?",
        const=WATCH_S,
        metavar="SECONDS",
        help=f"go on showing it, every so often (default {WATCH_S:g}), until nothing is left to do",
    )
    status.add_argument("--all", action="store_true", help="list the stages that wait or are blocked too")
    status.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    plan, store, searching = next_plan(args)
    if isinstance(store.root, Path) and not store.exists():
        print(f"store = {str(store.root)!r}: there is none yet; --store or NCA_STORE names another", file=sys.stderr)
    if args.watch is not None:
        try:
            if searching and (ended := follow_search(args, plan, store)) is not None:
                show(ended, args.all)
                print("the search has ended without winners; `search` tells why", file=sys.stderr)
                return 1
            plan = next_plan(args)[0] if searching else plan
            view = screen.Live(watch.Watch(plan, store), every_s=args.watch).show(until=lambda view: view.over)
        except KeyboardInterrupt:
            return INTERRUPTED
        show(view, args.all)
        return 1 if view.of("failed", "diverged", "blocked") else 0
    show(watch.Watch(plan, store).look(), args.all)
    registered = store.study(space.load(args.target).name) / (plans.SEARCH if searching else plans.POINTS)
    for line in promise.promised_and_spent(registered, store):
        print(line)
    return 0


def follow_search(args: argparse.Namespace, plan: plans.Plan, store: Store) -> watch.StudyView | None:
    """Watch the search of a study until it has winners, and so the study a plan; returns what was seen last if it has
    none WINNERS_S after its end, or ten times as long where it had ended before: its driver may be about to begin."""
    tuning, *_ = make_search(args, network=False)
    assert tuning is not None
    over, seen = math.inf, False

    def found() -> bool:
        try:
            return winners.read(tuning, store) is not None
        except UrlError:  # the store is away for a while
            return False

    def until(view: watch.StudyView) -> bool:
        nonlocal over, seen
        over, seen = min(over, time.monotonic()) if view.over else math.inf, seen or not view.over
        return found() or time.monotonic() - over > WINNERS_S * (1 if seen else 10)

    view = screen.Live(watch.Watch(plan, store), every_s=args.watch).show(until)
    return None if found() else view


def show(view: watch.StudyView, everything: bool) -> None:
    """Print `view`: what runs first, then what failed, what is done and what waits."""
    print(screen.headline(view))
    if gaps := screen.gaps_line(view):
        print(gaps)
    waiting: tuple[watch.State, ...] = ("waiting", "blocked")
    listed = watch.in_order(view.stages, "running", "failed", "diverged", "done", *(waiting if everything else ()))
    for stage in listed:
        print(f"{stage.state:<9}", screen.line(stage))
    for state in () if everything else waiting:
        if count := view.counts[state]:
            print(f"{state:<9} {count} stage{'s' * (count > 1)} (--all lists them)")
    sys.stdout.flush()
