"""What commands share: arguments, and the plan of a search space."""

import argparse
import math
import os
from collections.abc import Iterable
from typing import Any

from harness import plan as plans
from harness import rates, space, winners
from harness.errors import require
from harness.reasoning.spec import Means
from harness.store import Store
from harness.url import Url, place

LIMIT_REACHED, INTERRUPTED = 4, 130
"""Exit codes of a run that did not get to its end."""

Commands = Any
"""Where a command adds its parser: what argparse's add_subparsers returns."""


def default_store() -> str:
    return os.environ.get("NCA_STORE", "store")


def open_store(args: argparse.Namespace) -> Store:
    """The store that the command line names. Raises InputError for a URL of another kind, UrlError for a bucket that
    does not answer."""
    root = place(args.store).resolve()
    if isinstance(root, Url):
        root.reach()
    else:
        require(not root.exists() or root.is_dir(), "store", str(root), "is no directory; name one, or leave it out")
    return Store(root)


def stored() -> argparse.ArgumentParser:
    """The arguments of every command that reads a store."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--store",
        default=default_store(),
        metavar="DIR|URL",
        help="where results lie: a directory that every node sees, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX (default: "
        "$NCA_STORE, or ./store)",
    )
    return parser


def of_study() -> argparse.ArgumentParser:
    """The arguments of every command on a study."""
    parser = argparse.ArgumentParser(add_help=False, parents=[stored()])
    parser.add_argument("target", metavar="FILE[:NAME]", help="a search space; NAME is `study` unless given")
    return parser


def rated() -> argparse.ArgumentParser:
    """The arguments of every command that says what a study costs."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--tflops",
        type=positive_number,
        metavar="T",
        help="TFLOP/s a device sustains, for hours (default: as measured on like stages of the store, else "
        f"{rates.ASSUMED_TFLOPS:g})",
    )
    parser.add_argument("--price", type=positive_number, metavar="P", help="of a device-hour, for money")
    return parser


def running_code() -> argparse.ArgumentParser:
    """The arguments of every command that can evaluate on code which a model wrote."""
    parser = argparse.ArgumentParser(add_help=False)
    code = parser.add_argument_group("code that a model wrote", "judged by running it (humaneval)")
    code.add_argument("--run-generated-code", action="store_true", help="run it, in a sandbox")
    code.add_argument(
        "--limits-alone",
        action="store_true",
        help="run it without namespaces, where there are none: it reaches the network and the user's files",
    )
    return parser


def means_of(args: argparse.Namespace) -> Means:
    """What the command line says of how evaluations are carried out."""
    return Means(allow_code=args.run_generated_code, isolation="limits" if args.limits_alone else "namespaces")


def rates_of(args: argparse.Namespace, manifests: Iterable[dict[str, Any]]) -> rates.Rates:
    """The rates that the command line gives, else those that `manifests` tell of."""
    return rates.given(args.tflops, manifests) if args.tflops is not None else rates.measured(manifests)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def make_search(args: argparse.Namespace, network: bool) -> tuple[winners.Tuning | None, Store, plans.Revisions]:
    """The search of the study, if it has one."""
    study, store = space.load(args.target), open_store(args)
    revisions = plans.registered_revisions(study, store)
    return winners.work_out(study, network, revisions), store, revisions


def make_plan(args: argparse.Namespace, network: bool) -> tuple[plans.Plan, Store, plans.Revisions]:
    """The plan of the study, with the winners of its search. Raises InputError where that has not ended."""
    tuning, store, revisions = make_search(args, network)
    found = winners.found(tuning, store) if tuning is not None else None
    plan = plans.make(space.load(args.target), network, revisions, found)
    return plan.without(store.done(plan.stages)), store, revisions


def next_plan(args: argparse.Namespace) -> tuple[plans.Plan, Store, bool]:
    """What is to be run next, and whether it is the study's search, whose winners the plan of the study needs."""
    tuning, store, _ = make_search(args, network=False)
    if tuning is not None and winners.found(tuning, store) is None:
        return tuning.plan.without(store.done(tuning.plan.stages)), store, True
    return *make_plan(args, network=False)[:2], False
