"""python -m harness plan | run | status | report | preview FILE[:NAME]; export DIGEST DIR

A recipe is never given here: what a run is stands in the search space, where and how it runs stands here.
"""

import argparse
import os
import sys
from pathlib import Path

from harness import plan as plans
from harness import space, watch
from harness.errors import InputError
from harness.outcome import Outcome, needs, standing
from harness.plan import si
from harness.specs import Train, digest
from harness.store import Store


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, 1 if a stage failed, 2 for bad input, 130 if interrupted."""
    args = parser().parse_args(argv)
    try:
        return args.command(args)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; everything that is done is kept, the same command goes on from here", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m harness", description=(__doc__ or "").splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    default_store = Path(os.environ.get("NCA_STORE", "store"))
    stored = argparse.ArgumentParser(add_help=False)
    stored.add_argument(
        "--store",
        type=Path,
        default=default_store,
        help="directory of results that every node sees (default: $NCA_STORE, or ./store)",
    )
    common = argparse.ArgumentParser(add_help=False, parents=[stored])
    common.add_argument("target", metavar="FILE[:NAME]", help="a search space; NAME is `study` unless given")

    reporting = argparse.ArgumentParser(add_help=False)
    reporting.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="results that `python -m analysis export` wrote, shown beside this study's",
    )

    plan = commands.add_parser("plan", parents=[common], help="show points, stages and cost; starts nothing")
    plan.add_argument("--tflops", type=float, default=400.0, help="TFLOP/s a device sustains, for hours (default 400)")
    plan.set_defaults(command=plan_command)

    run = commands.add_parser("run", parents=[common, reporting], help="run what the store lacks, then report")
    run.add_argument(
        "--cpus", type=positive, help="CPUs of the Ray instance started here (default: all of this machine's)"
    )
    run.add_argument("--workers", type=positive, default=1, help="training workers a stage (default 1)")
    run.add_argument(
        "--generator-gpus",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of a worker's GPU (default 0: CPUs generate)",
    )
    run.add_argument("--concurrent", type=positive, help="stages at once (default: as many as fit)")
    run.add_argument("--checkpoint-every", type=float, default=15.0, metavar="SECONDS", help="(default 15)")
    run.add_argument("--in-process", action="store_true", help="without Ray, one stage after another, for debugging")
    run.set_defaults(command=run_command)

    status = commands.add_parser("status", parents=[common], help="show what is done, running and waiting")
    status.set_defaults(command=status_command)

    report = commands.add_parser("report", parents=[common, reporting], help="remake tables and report from the store")
    report.set_defaults(command=report_command)

    preview = commands.add_parser("preview", help="show what a source generates: pictures, complexity, statistics")
    preview.add_argument("target", metavar="FILE:NAME", help="any source in a search space, such as an NCA or a Text")
    preview.add_argument(
        "--beside", metavar="FILE:NAME|PATH", help="a text to compare with: a Text in a file, or a path of text files"
    )
    preview.add_argument("--sequences", type=positive, default=2048, help="sequences that are looked at (default 2048)")
    preview.add_argument("--out", type=Path, metavar="DIR", help="(default preview/NAME)")
    preview.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="(default: one a CPU)")
    preview.set_defaults(command=preview_command, store=default_store)

    export = commands.add_parser("export", parents=[stored], help="write a training stage as a Hugging Face model")
    export.add_argument("digest", metavar="DIGEST", help="of a training stage, or its first digits, as `status` shows")
    export.add_argument("directory", type=Path, metavar="DIR", help="new, or empty")
    export.set_defaults(command=export_command)
    return top


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def make_plan(args: argparse.Namespace, network: bool) -> tuple[plans.Plan, Store, plans.Revisions]:
    study, store = space.load(args.target), Store(args.store.resolve())
    revisions = plans.registered_revisions(study, store)
    return plans.make(study, network, revisions), store, revisions


def plan_command(args: argparse.Namespace) -> int:
    plan, store, _ = make_plan(args, network=False)
    done = store.done(plan.stages)
    print(describe(plan, done, args.tflops))
    return 0


def describe(plan: plans.Plan, done: set[str], tflops: float) -> str:
    """The plan for people: points, stages, cost, and what sharing saves."""
    trains = [s for s in plan.stages.values() if isinstance(s, Train)]
    whole, alone = plans.cost(trains), plans.alone(plan)
    left = plans.cost(s for d, s in plan.stages.items() if d not in done)
    lines = [plan.study.name, *(f"  {line}".rstrip() for line in plan.study.question.strip().splitlines()), ""]
    for arm in plan.study.all_arms:
        points = [p for p in plan.points if p.arm == arm.__name__]
        chain = " -> ".join(plans.si(t.tokens) for t in points[0].train.chain())
        lines.append(f"  {arm.__name__:<20} {len(points):>6} points   tokens {chain}")
    lines += [
        "",
        f"  points  {len(plan.points)}",
        f"  stages  {len(plan.stages)} distinct ({len(trains)} training), {len(done)} in the store",
        f"  tokens  {si(whole.tokens)}",
        f"  FLOPs   {si(whole.flops)}, {hours(whole.flops, tflops)} at {tflops:g} TFLOP/s a device",
        f"  storage {whole.bytes / 1e9:.3g} GB of weights",
        f"  left    {si(left.tokens)} tokens, {si(left.flops)} FLOPs",
    ]
    if alone.flops:
        saved = 100 * (1 - whole.flops / alone.flops)
        lines.append(
            f"  sharing saves {saved:.0f} % of the FLOPs against every cell alone, each with its own baseline "
            f"({si(alone.tokens)} tokens, {si(alone.flops)} FLOPs)"
        )
    for source in plans.unresolved(plan).values():
        lines.append(f"  open    {source.dataset}: `run` looks the commit of its revision up and writes it down")
    return "\n".join(lines)


def hours(flops: float, tflops: float) -> str:
    value = flops / (tflops * 1e12) / 3600
    return f"{value:,.1f} device-hours" if value >= 0.1 else f"{value * 3600:.2g} device-seconds"


def run_command(args: argparse.Namespace) -> int:
    plan, store, revisions = make_plan(args, network=True)
    left = [s for d, s in plan.stages.items() if store.open(d) is None]
    largest = max((plans.cost([s]).bytes for s in left), default=0)
    # A resume checkpoint is the model and two moments of every weight; two are kept while a third is written.
    store.check(plans.cost(left).bytes + 9 * largest)
    for address, stage in plan.stages.items():
        if damage := store.damage(address):
            aside = store.set_aside(address)
            print(f"damaged: {plans.label(stage)} {address[:12]}: {'; '.join(damage)}; set aside in {aside}, made anew")
    outcome = standing(plan.stages, store)
    if not outcome.left(plan.stages):
        whole = len(outcome.finished) == len(plan.stages)
        what = f"all {len(plan.stages)} stages of {plan.study.name} are in {store.root}"
        print(f"nothing to compute: {what if whole else 'what is left needs stages that failed'}")
        plans.register(plan, store, revisions)
    else:
        print(describe(plan, outcome.finished, 400.0))
        run = compute_here if args.in_process else compute
        outcome = run(plan, store, revisions, args)
        print(f"{len(outcome.computed)} stages computed")
    for address, reason in outcome.failed.items():
        print(f"failed: {plans.label(plan.stages[address])} {address[:12]}: {reason}", file=sys.stderr)
    for address in outcome.blocked:
        print(f"blocked: {plans.label(plan.stages[address])} {address[:12]}: a stage it needs failed", file=sys.stderr)
    write_report(plan.study, store, args.beside)
    return 1 if outcome.failed or outcome.blocked else 0


def compute(plan: plans.Plan, store: Store, revisions: plans.Revisions, args: argparse.Namespace) -> Outcome:
    """Run the plan on Ray."""
    from harness.cluster import sweep

    sweep.connect(args.cpus)
    resources = sweep.admit(plan, args.workers, args.concurrent, args.generator_gpus)
    check_budgets(plan, store)
    plans.register(plan, store, revisions)
    with watch.Live(plan, store):
        return sweep.run(plan, store, resources, args.checkpoint_every)


def check_budgets(plan: plans.Plan, store: Store) -> None:
    """Hold every budget against text that is tokenised already; other text is held against when it is."""
    from harness import stages

    for stage in plan.stages.values():
        if isinstance(stage, Train) and stage.corpus.source.stored and store.open(digest(stage.corpus.source)):
            stages.check_budget(stage, stages.open_reader(stage, store))


def compute_here(plan: plans.Plan, store: Store, revisions: plans.Revisions, _: argparse.Namespace) -> Outcome:
    """Run the plan in this process, without Ray, one stage after another."""
    from harness import stages

    check_budgets(plan, store)
    plans.register(plan, store, revisions)
    outcome, needed = standing(plan.stages, store), needs(plan.stages)
    with watch.Live(plan, store):
        while left := outcome.left(plan.stages):
            outcome.settle(left[0], stages.run_here(plan.stages[left[0]], store)["status"])
            outcome.block(needed)
    return outcome


def status_command(args: argparse.Namespace) -> int:
    plan, store, _ = make_plan(args, network=False)
    views = watch.look(plan, store)
    print(watch.headline(plan, views, None, None))
    for view in views:
        print(f"{view.state:<9}", watch.line(view))
    return 0


def report_command(args: argparse.Namespace) -> int:
    write_report(space.load(args.target), Store(args.store.resolve()), args.beside)
    return 0


def preview_command(args: argparse.Namespace) -> int:
    from harness import preview

    preview.run(args.target, args.beside, args.sequences, args.out, args.threads, args.store)
    return 0


def export_command(args: argparse.Namespace) -> int:
    from harness.export import export

    print("\n".join(export(args.digest, args.directory, Store(args.store.resolve()))))
    return 0


def write_report(study: space.Study, store: Store, beside: list[Path]) -> None:
    """Tables and the HTML report, from the store alone; the verdict table to the terminal."""
    import analysis

    try:
        out = store.study(study.name)
        report = analysis.write(store.root, study.name, out, beside)
        print(f"\n{analysis.verdict_table(analysis.Results.from_store(store.root, study.name))}")
    except analysis.DataError as e:
        raise InputError(str(e)) from e
    print(f"\nreport: {report}")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
