"""python -m harness plan: points, stages and cost."""

import argparse
import itertools
from collections.abc import Collection, Iterator, Sequence

from harness import cost, nearest, text_rates
from harness import plan as plans
from harness.commands.common import Commands, next_plan, of_study, rated, rates_of
from harness.plan import label, si
from harness.rates import Rates, hours
from harness.reasoning.spec import Evaluate
from harness.specs import Train


def add(commands: Commands) -> None:
    plan = commands.add_parser("plan", parents=[of_study(), rated()], help="show points, stages, cost; starts nothing")
    plan.add_argument(
        "--why", action="store_true", help="name, for every stage that the store lacks, the nearest and what differs"
    )
    plan.set_defaults(command=command)


def command(args: argparse.Namespace) -> int:
    plan, store, searching = next_plan(args)
    done = store.done(plan.stages)
    manifests, whole = store.manifests(nearest.MANIFESTS, nearest.MANIFESTS_S)
    why = nearest.why(plan, done, manifests, whole, args.why)
    moved = nearest.moved(plan, done, manifests)
    print(describe(plan, done, rates_of(args, manifests.values()), args.price, why, moved))
    if searching:
        print("  then    the plan of the study follows from the winners; `run`, or `search` alone, finds them")
    return 0


def describe(
    plan: plans.Plan,
    done: Collection[str],
    rates: Rates,
    price: float | None = None,
    why: Sequence[str] = (),
    moved: Sequence[str] = (),
) -> str:
    """The plan for people: points, stages, cost, what sharing saves, `why` what is lacking is not there, and what texts
    `moved`. `price` is money a device-hour."""
    trains = [s for s in plan.stages.values() if isinstance(s, Train)]
    asked = sum(isinstance(s, Evaluate) for s in plan.stages.values())
    evaluations = f"{asked} evaluation{'s' * (asked > 1)}"
    kinds = f"{len(trains)} training" + (f", {evaluations}" if asked else "")
    left = [d for d in plan.stages if d not in done]
    all_of_it = plan.complete or plan  # the study from nothing, whatever the store has and no longer has
    whole, rest = cost.cost_of(all_of_it, all_of_it.stages), cost.cost_of(plan, left)
    total = sum(rates.hours(all_of_it.stages, all_of_it.starts).values())
    took = {d: hours for d, hours in rates.hours(plan.stages, plan.starts).items() if d not in done}
    remaining = sum(took.values())
    lines = [plan.study.name, *(f"  {line}".rstrip() for line in plan.study.question.strip().splitlines()), ""]
    for arm in plan.study.all_arms:
        points = [p for p in plan.points if p.arm == arm.__name__]
        chain = " -> ".join(si(t.tokens) for t in points[0].train.chain())
        lines.append(f"  {arm.__name__:<20} {len(points):>6} points   tokens {chain}")
    lines += [
        "",
        f"  points  {len(plan.points)}",
        *_equal(plan),
        f"  stages  {len(plan.stages)} distinct ({kinds}), {len(done)} in the store",
        f"  tokens  {si(whole.tokens)}",
        f"  FLOPs   {si(whole.flops)}",
        f"  time    {hours(total)} {rates.said(trains)}",
    ]
    if asked:
        lines.append(f"  asked   {evaluations}, not in the hours: what they take depends on the answers")
    if price is not None:
        lines.append(f"  money   {price * total:,.2f} at {price:g} a device-hour")
    lines += [f"  chain   {line}" for line in _chain(plan, took)]
    lacking = {d: plan.stages[d] for d in left}
    lines += [f"  text    {line}" for line in text_rates.lines(lacking, rates.text, price)]
    lines += [f"  moved   {line}" for line in moved]
    lines += [
        f"  storage {_storage(all_of_it)}",
        f"  left    {si(rest.tokens)} tokens, {si(rest.flops)} FLOPs, {hours(remaining)}"
        + (f", {price * remaining:,.2f}" if price is not None else ""),
        *_sharing(plan),
        *(f"  not in the store: {line}" for line in why),
    ]
    for name in dict.fromkeys(n for stage in plans.unresolved(plan).values() for n in stage.unresolved):
        lines.append(f"  open    {name}: `run` looks the commit of its revision up and writes it down")
    return "\n".join(lines)


def _equal(plan: plans.Plan) -> Iterator[str]:
    """Points that are one training under two names."""
    pairs = plans.equal_points(plan.points)
    if pairs:
        one, other = (point.label() for point in pairs[0])
        count = f"{len(pairs)} of the points {'is' if len(pairs) == 1 else 'are'}"
        yield f"  equal   {count} the same training as another, such as {one} as {other}"


def _chain(plan: plans.Plan, took: dict[str, float]) -> Iterator[str]:
    """The stages left that must run one after another and take longest, those of one shared run together."""
    total, chain = cost.longest_chain(plan, took)
    parts = []
    for _, group in itertools.groupby(chain, lambda d: plan.stages[d].beginning if plan.stages[d].shared_steps else d):
        run = list(group)
        stages = f", {len(run)} stages" if len(run) > 1 else ""
        parts.append(f"{label(plan.stages[run[-1]])} ({duration(sum(took[d] for d in run))}{stages})")
    if parts:
        yield f"{duration(total)} in the longest, at one device a stage: {' -> '.join(parts)}"


def duration(value: float) -> str:
    """Hours for people."""
    return hours(value).replace("device-", "")


def _storage(plan: plans.Plan) -> str:
    space = cost.storage(plan.stages.values())
    weights, states, checkpoints = (si(b) + "B" for b in (space.weights, space.states, space.checkpoints))
    parts = f"{weights} weights, {states} states that budgets share, {checkpoints} checkpoints a running stage"
    return f"{si(space.peak)}B at most, without text: {parts}"


def _sharing(plan: plans.Plan) -> Iterator[str]:
    """What sharing saves, by cause."""
    (_, alone), *steps = cost.sharing(plan)
    if not alone.flops:
        return
    saved = 100 * (1 - steps[-1][1].flops / alone.flops)
    yield (
        f"  sharing saves {saved:.0f} % of the FLOPs against every cell alone, each with its own baseline "
        f"({si(alone.tokens)} tokens, {si(alone.flops)} FLOPs)"
    )
    before = alone
    for cause, after in steps:
        share = 100 * (before.flops - after.flops) / alone.flops
        yield f"          {cause:<16} {share:5.1f} %, leaves {after.flops / alone.flops:.3f}"
        before = after
