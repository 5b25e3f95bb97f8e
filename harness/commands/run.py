"""python -m harness run: compute what the store lacks, then report."""

import argparse
import functools

from harness import plan as plans
from harness import space
from harness.commands import stage as one
from harness.commands.common import Commands, make_plan, of_study, rated
from harness.commands.computing import carry_out, check_asked, check_in_process, computing
from harness.commands.placing import placing
from harness.commands.report import check_beside, own_metrics, reporting, write_report
from harness.commands.search import search
from harness.commands.stopping import ended_early, metered


def add(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        parents=[of_study(), rated(), placing(), computing(), reporting()],
        help="run what the store lacks, then report",
    )
    run.add_argument("--stage", metavar="DIGEST", help="this stage alone and what it needs; `status` has digests")
    run.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    metrics = own_metrics(args)  # what is wrong with them is told before anything runs
    check_beside(args)
    check_in_process(args)
    asked = space.load(args.target).benchmarks.values()
    code, searched = search(args, first=lambda: check_asked(asked, args))
    if code:
        return code
    plan, store, revisions = make_plan(args, network=True)
    register = functools.partial(plans.register, plan, store, revisions)
    if args.stage is not None:
        plan = one.only(plan, args.stage)
    with metered(args, plan.study.name, store, after=searched) as meter:
        outcome = carry_out(plan, store, register, meter, args)
    stopped = outcome.left(plan.stages)
    if args.stage is None and not stopped:
        write_report(plan.study, store, args.beside, metrics)
    if stopped:
        return ended_early(meter, f"{len(outcome.finished)} of {len(plan.stages)} stages done")
    return 1 if outcome.failed or outcome.blocked else 0
