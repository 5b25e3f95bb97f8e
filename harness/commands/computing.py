"""Carrying a plan out: the options of every command that runs stages, and how they run, on Ray or here."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping

from harness import cost, failure, nearest, promise, screen, tracking
from harness import plan as plans
from harness.asking import asking
from harness.cluster.resources import Allotment, Workers, allot
from harness.commands import stage as one
from harness.commands.common import (
    LIMIT_REACHED,
    means_of,
    positive,
    positive_number,
    rates_of,
    running_code,
)
from harness.commands.plan import describe
from harness.errors import InputError
from harness.layout import SHARDINGS, Layout
from harness.limits import Meter
from harness.outcome import Outcome, standing
from harness.reasoning import seen
from harness.reasoning.spec import Asking, Evaluate
from harness.sources.tokenising import contamination
from harness.specs import Stage, Train, digest
from harness.store import Store
from harness.url import Place
from harness.watch import Watch
from harness.worker import Options, Stopped, Worker


def computing() -> argparse.ArgumentParser:
    """The arguments of every command that runs stages: how, and how long."""
    run = argparse.ArgumentParser(add_help=False, parents=[running_code()])
    run.add_argument(
        "--cpus", type=positive, help="CPUs of the Ray instance started here (default: all of this machine's)"
    )
    run.add_argument("--concurrent", type=positive, help="stages at once (default: as many as fit)")
    run.add_argument("--checkpoint-every", type=positive_number, default=15.0, metavar="SECONDS", help="(default 15)")
    run.add_argument("--wandb", metavar="PROJECT", help="mirror curves to Weights & Biases (default: to nowhere)")
    limits = run.add_argument_group(
        "limits", f"when one is reached, running stages save their state and stop; exit code {LIMIT_REACHED}"
    )
    limits.add_argument("--max-hours", type=float, metavar="H", help="of this run")
    limits.add_argument("--max-cost", type=float, metavar="C", help="device-hours of this run times --price")
    layout = run.add_argument_group("layout", "found from the devices and their memory unless given; changes no result")
    layout.add_argument("--sharding", choices=SHARDINGS, help="copies, shards within a node, or over all workers")
    layout.add_argument("--micro-batch", type=positive, metavar="N", help="sequences a forward pass")
    switch = argparse.BooleanOptionalAction
    layout.add_argument("--recompute", action=switch, help="activation checkpointing: less memory, more time")
    layout.add_argument("--compile", action=switch, help="torch.compile of every block (default: on GPUs)")
    run.add_argument("--in-process", action="store_true", help="without Ray, one stage after another, for debugging")
    return run


def carry_out(
    plan: plans.Plan, store: Store, register: Callable[..., None], meter: Meter, args: argparse.Namespace
) -> Outcome:
    """Run what the store lacks of `plan`, and say what became of it; `register` writes it down first, with the promise
    if there is one."""
    prepare(plan, store)
    outcome = standing(plan.needs, store)
    check_asked((stage for d in outcome.left(plan.stages) if isinstance(stage := plan.stages[d], Evaluate)), args)
    if not outcome.left(plan.stages):
        whole = len(outcome.finished) == len(plan.stages)
        what = f"all {len(plan.stages)} stages of {plan.study.name} are in {store.root}"
        print(f"nothing to compute: {what if whole else 'what is left needs stages that failed'}")
        register()
    else:
        if args.stage is None:
            manifests, _ = store.manifests(nearest.MANIFESTS, nearest.MANIFESTS_S)
            rates = rates_of(args, manifests.values())
            moved = nearest.moved(plan, outcome.finished, manifests)
            print(describe(plan, outcome.finished, rates, args.price, moved=moved))
            register = functools.partial(register, promise.make(plan, outcome.finished, rates, args.price))
        failure.clear(store, outcome.left(plan.stages))
        run = compute_here if args.in_process else compute
        outcome = run(plan, store, register, meter, args)
        print(f"{len(outcome.computed)} stages computed")
    tell(plan, store, outcome, args)
    return outcome


def check_in_process(args: argparse.Namespace) -> None:
    """Raise InputError where what a stage is given of a cluster is asked for without one."""
    for option in ("workers", "generator_gpus", "in_trial", "cpus", "concurrent"):
        if args.in_process and getattr(args, option) not in (None, False, 0.0, (Workers(),)):
            name = f"--{option.replace('_', '-')}"
            raise InputError(f"{name}: --in-process runs one stage after another in this process; leave one out")


def check_asked(asked: Iterable[Asking], args: argparse.Namespace) -> None:
    """Raise InputError where something that is asked of a model needs what the command line does not allow, or what
    this machine lacks."""
    for each in asked:
        from harness.reasoning import run

        run.check(each, means_of(args))


def prepare(plan: plans.Plan, store: Store) -> None:
    """Hold the store against what is left of `plan`, and put what is damaged aside."""
    os.environ.setdefault("WANDB_DIR", str(store.here))
    done = store.done(plan.stages)
    store.check(cost.storage(s for d, s in plan.stages.items() if d not in done).peak)
    wandb_trouble(plan, store).unlink(missing_ok=True)
    for address, damage in store.damaged(plan.stages).items():
        aside, what = store.set_aside(address), plans.label(plan.stages[address])
        print(f"damaged: {what} {address[:12]}: {'; '.join(damage)}; set aside in {aside}, made anew")


def tell(plan: plans.Plan, store: Store, outcome: Outcome, args: argparse.Namespace) -> None:
    """What failed, and how to look into it; and text whose validation split is not held out in truth."""
    for address, reason in outcome.failed.items():
        print(one.failed(plan, store, args, address, reason), file=sys.stderr)
    for address in outcome.blocked:
        print(f"blocked: {plans.label(plan.stages[address])} {address[:12]}: a stage it needs failed", file=sys.stderr)
    for address, stage in plan.stages.items():
        manifest = None if isinstance(stage, Train) else store.manifest(address)
        if manifest is not None and (copies := contamination(manifest)) is not None:
            print(f"{plans.label(stage)} {address[:12]}: {copies}; take copies out of the text", file=sys.stderr)
        if manifest is not None and (tuned_on := seen.told(manifest)) is not None:
            print(f"{plans.label(stage)} {address[:12]}: {tuned_on}", file=sys.stderr)
    if args.wandb and (trouble := tracking.trouble(wandb_trouble(plan, store))):
        print(f"{trouble}; every curve is in the store", file=sys.stderr)


def compute(
    plan: plans.Plan, store: Store, register: Callable[[], None], meter: Meter, args: argparse.Namespace
) -> Outcome:
    """Run the plan on Ray; `register` writes the study's down when nothing speaks against running it."""
    from harness.cluster import sweep

    done = store.done(plan.stages)
    left = {d: s for d, s in plan.stages.items() if d not in done}
    allotment, told = allot_stages(left, args)
    check_budgets(plan, store)
    register()
    with live(plan, store, meter, told):
        return sweep.run(plan, store, allotment, options(plan, store, meter, args), meter)


def allot_stages(stages: Mapping[str, Stage], args: argparse.Namespace) -> tuple[Allotment, list[str]]:
    """What each of `stages` gets of the cluster, which is joined or started, and what is to be told of that."""
    from harness.cluster import connection

    dashboard = connection.connect(args.cpus)
    cluster = connection.most_resources()
    allotment = allot(cluster, stages, args.workers, args.concurrent, args.generator_gpus, args.in_trial)
    return allotment, [f"Ray dashboard http://{dashboard}"] if dashboard else []


def check_budgets(plan: plans.Plan, store: Store) -> None:
    """Hold every budget against text that is tokenised already; other text is held against when it is."""
    from harness import stages

    for stage in plan.stages.values():
        if isinstance(stage, Train) and stage.corpus.source.stored and store.has(digest(stage.corpus.source)):
            stages.check_budget(stage, stages.open_reader(stage, store))


def live(plan: plans.Plan, store: Store, meter: Meter, told: list[str]) -> screen.Live:
    """The view of a run that begins now."""

    def header() -> list[str]:
        used = meter.used()
        return [*told, *([f"limit: {used}"] if used else [])]

    return screen.Live(Watch(plan, store, since=store.clock()), header)


def options(plan: plans.Plan, store: Store, meter: Meter, args: argparse.Namespace) -> Options:
    """What the command line says of how stages run."""
    arms: dict[str, tuple[str, ...]] = {}
    for point in plan.points if args.wandb else ():
        address = digest(point.train)
        arms[address] = tuple(dict.fromkeys((*arms.get(address, ()), point.arm)))
    return Options(
        layout=Layout(args.sharding, args.micro_batch, args.recompute, args.compile),
        checkpoint_every_s=args.checkpoint_every,
        wandb=args.wandb,
        wandb_trouble=wandb_trouble(plan, store),
        arms=arms,
        study=plan.study.name,
        starts=plan.starts,
        means=means_of(args),
        stop=meter.stop,
    )


def wandb_trouble(plan: plans.Plan, store: Store) -> Place:
    return store.scratch / f"no-wandb-{plan.study.name}.txt"


def compute_here(
    plan: plans.Plan, store: Store, register: Callable[[], None], meter: Meter, args: argparse.Namespace
) -> Outcome:
    """Run the plan in this process, without Ray, one stage after another. What a stage raises is written down and
    raised, for a debugger, unless it says itself how to mend it: then stages that do not need it go on."""
    from harness import device, stages

    chosen = options(plan, store, meter, args)
    worker = Worker(device=device.of_this_machine(), options=chosen, stop=asking(store, lambda: chosen.stopping))
    check_budgets(plan, store)
    register()
    needs = plan.needs
    outcome = standing(needs, store)
    with live(plan, store, meter, []):
        while (left := outcome.left(plan.stages)) and not meter.reached:
            address = left[0]
            meter.begins(address, 1)
            try:
                outcome.settle(address, stages.run_here(plan.stages[address], store, worker)["status"])
            except Stopped:
                break
            except InputError as e:
                failure.write(store, address, failure.describe(e))
                outcome.failed[address] = str(e)
            except Exception as e:
                failure.write(store, address, failure.describe(e))
                print(f"failed; alone, under a debugger: {one.alone(args, address)}", file=sys.stderr)
                raise
            finally:
                meter.ends(address)
            outcome.block(needs)
    return outcome
