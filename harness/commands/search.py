"""python -m harness search: find the hyperparameters that a study runs with."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable

from harness import nearest, space, winners
from harness import plan as plans
from harness.commands.common import Commands, make_search, of_study, rated, rates_of
from harness.commands.computing import (
    allot_stages,
    carry_out,
    check_budgets,
    check_in_process,
    computing,
    live,
    options,
    prepare,
    tell,
)
from harness.commands.placing import placing
from harness.commands.plan import describe
from harness.commands.stopping import ended_early, metered
from harness.errors import InputError, require
from harness.limits import Meter
from harness.space import Trial
from harness.store import Store


def add(commands: Commands) -> None:
    search = commands.add_parser(
        "search",
        parents=[of_study(), rated(), placing(), computing()],
        help="run the search of a study, as `run` does before anything",
    )
    search.set_defaults(command=command, stage=None)


def command(args: argparse.Namespace) -> int:
    check_in_process(args)
    study = space.load(args.target)
    if study.search is None:
        raise InputError(f"Study.search = None: study {study.name} has nothing to search; give it a Search")
    return search(args)[0]


def search(args: argparse.Namespace, first: Callable[[], None] = lambda: None) -> tuple[int, Meter | None]:
    """Run the search of a study, after `first`, if it has one that has not ended: its winners are part of the plan. The
    exit code, 0 where the plan can be made, and the meter of what it took."""
    tuning, store, revisions = make_search(args, network=True)
    if tuning is None:
        return 0, None
    record, meter = winners.read(tuning, store), None
    if record is None:
        first()
        register = functools.partial(winners.register, tuning, store, revisions)
        with metered(args, tuning.plan.study.name, store) as meter:
            if tuning.search.adaptive:
                results = _adapt(tuning, store, register, revisions, meter, args)
                ended = meter.reached is None
            else:
                outcome = carry_out(tuning.plan, store, register, meter, args)
                ended = not outcome.left(tuning.plan.stages)
                results = winners.gather(tuning, store, outcome) if ended else []
        if not ended:
            return ended_early(meter, "the search has not ended"), meter
        if len(results) < len(tuning.trials) or any(told.status == "failed" for _, told in results):
            return 1, meter
        record = winners.conclude(tuning, results, store)
    print(f"search {record['hash'][:12]} of {tuning.study.name}:\n{winners.table(record)}")
    return 0, meter


def _adapt(
    tuning: winners.Tuning,
    store: Store,
    register: Callable[[], None],
    revisions: plans.Revisions,
    meter: Meter,
    args: argparse.Namespace,
) -> list[tuple[Trial, winners.Told]]:
    """Run a search whose trials depend on each other."""
    from harness.cluster import search as searching

    plan = tuning.plan
    require(not args.in_process, "--in-process", True, "Ray Tune stops trials of this search; leave it out")
    searching.check(tuning.search)
    prepare(plan, store)
    manifests, _ = store.manifests(nearest.MANIFESTS, nearest.MANIFESTS_S)
    print(describe(plan, store.done(plan.stages), rates_of(args, manifests.values()), args.price))
    allotment, told = allot_stages(plan.stages, args)
    check_budgets(plan, store)
    register()
    # With a search_alg nobody knows which stages there will be.
    known = tuning.search.search_alg is None
    with live(plan, store, meter, told) if known else contextlib.nullcontext():
        chosen = options(plan, store, meter, args)
        results, outcome = searching.run(tuning, store, allotment, chosen, revisions, meter)
    tell(plan, store, outcome, args)
    for trial, what in results:
        if what.status == "failed":
            print(f"failed: {trial.point.label()}: {what.why}", file=sys.stderr)
    return results
