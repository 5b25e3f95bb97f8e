"""python -m harness cluster: a cluster file, checked before it costs anything."""

import argparse
import sys
from pathlib import Path

from harness import plan as plans
from harness import space, winners
from harness.cluster.resources import allot
from harness.commands.common import Commands
from harness.commands.placing import placing
from harness.search import Winners
from harness.specs import Train, canonical_json


def add(commands: Commands) -> None:
    cluster = commands.add_parser(
        "cluster", parents=[placing()], help="check a cluster file; connects to nothing and starts nothing"
    )
    cluster.add_argument("file", type=Path, metavar="CLUSTER.yaml", help="of `ray up`, or a RayJob of KubeRay")
    cluster.add_argument("--for", dest="target", metavar="FILE[:NAME]", help="a study that it must be able to hold")
    cluster.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    from harness.cluster.check import amounts, check

    checked = check(args.file)
    for line in checked.wrong:
        print(f"error: {args.file}: {line}", file=sys.stderr)
    if checked.wrong:
        return 2
    print("\n".join([str(args.file), *(f"  {line}" for line in checked.nodes)]))
    shown = {name: amount for name, amount in checked.grows_to.items() if name in ("CPU", "GPU")}
    print(f"  grows to {amounts(shown)}" if shown else "  what it grows to is known when its machines are up")
    for line in checked.notes:
        print(f"note: {line}")
    if args.target is not None:
        print(fits(args, checked.grows_to))
    return 0


def fits(args: argparse.Namespace, grows_to: dict[str, float]) -> str:
    """How the study runs on the cluster when that has grown; raises InputError, with the numbers, where it cannot."""
    study = space.load(args.target)
    tuning = winners.work_out(study)
    if tuning is None:
        return fitting(plans.make(study), args, grows_to)
    # The study as if the first setting that is tried had won: few searches are over sizes.
    tried = Winners({canonical_json(cell): trials[0].setting for cell, trials in tuning.cells.items()}, {})
    return "\n".join(fitting(plan, args, grows_to) for plan in (tuning.plan, plans.make(study, winners=tried)))


def fitting(plan: plans.Plan, args: argparse.Namespace, grows_to: dict[str, float]) -> str:
    """The same of a plan."""
    from harness.cluster.check import amounts

    allotment = allot(grows_to, plan.stages, args.workers, None, args.generator_gpus, args.in_trial)
    trains = {d: allotment.of[d] for d, stage in plan.stages.items() if isinstance(stage, Train)}
    largest = max(trains.values(), key=lambda of: of.workers)
    of = f"{largest.workers} worker{'s' if largest.workers > 1 else ''}"
    return (
        f"{plan.study.name}: {len(plan.stages)} stages; one of {of} holds "
        f"{amounts(largest.footprint(largest.workers))}; {allotment.at_once(trains)} run at once when it has grown"
    )
