"""python -m harness cluster: a cluster file, checked before it costs anything."""

import argparse
import sys
from pathlib import Path

from harness import plan as plans
from harness import space, winners
from harness.cluster.resources import allot
from harness.commands.common import Commands
from harness.commands.placing import placing
from harness.specs import Train


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
    from harness.cluster.check import amounts

    study = space.load(args.target)
    searched = winners.work_out(study)  # its trials are of the sizes of the study, whose plan it settles
    plan = plans.make(study) if searched is None else searched.plan
    allotment = allot(grows_to, plan.stages, args.workers, None, args.generator_gpus, args.in_trial)
    trains = {d: allotment.of[d] for d, stage in plan.stages.items() if isinstance(stage, Train)}
    largest = max(trains.values(), key=lambda of: of.workers)
    of = f"{largest.workers} worker{'s' if largest.workers > 1 else ''}"
    return (
        f"{plan.study.name}: {len(plan.stages)} stages; one of {of} holds "
        f"{amounts(largest.footprint(largest.workers))}; {allotment.at_once(trains)} run at once when it has grown"
    )
