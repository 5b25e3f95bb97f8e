"""One stage of a study by itself: found by its digest, run alone, and what it said when it failed."""

import argparse
import shlex
from pathlib import Path

from harness import failure
from harness.errors import InputError
from harness.plan import Plan, label
from harness.store import Store
from harness.url import place

LAST_LINES = 12
"""Of what a failed stage wrote down."""


def only(plan: Plan, prefix: str) -> Plan:
    """The plan of the one stage whose digest starts with `prefix`, and what it needs. Raises InputError where that is
    not one stage."""
    found = [address for address in plan.stages if prefix and address.startswith(prefix)]
    if len(found) != 1:
        many = ", ".join(f"{address[:16]} ({label(plan.stages[address])})" for address in found[:3])
        what = f"more than one stage starts so: {many}" if found else f"no stage of {plan.study.name} starts so"
        raise InputError(f"--stage = {prefix!r}: {what}; `status --all` shows digests")
    return plan.only(found[0])


def alone(args: argparse.Namespace, address: str) -> str:
    """The command that runs one stage of the study of `args` in process, under a debugger."""
    command = ["python", "-m", "pdb", "-m", "harness", "run", args.target]
    ours = place(args.store).resolve() == Path("store").resolve()
    where = [] if ours else ["--store", args.store]
    allowed = ["--run-generated-code"] * args.run_generated_code + ["--limits-alone"] * args.limits_alone
    return shlex.join([*command, *where, "--in-process", "--stage", address[:12], *allowed])


def failed(plan: Plan, store: Store, args: argparse.Namespace, address: str, reason: str) -> str:
    """What is told of a stage that failed: why and, unless that says itself how to mend it, its last lines and how to
    run it alone."""
    told = [f"failed: {label(plan.stages[address])} {address[:12]}: {reason.removeprefix(failure.INPUT)}"]
    found = failure.read(store, address)
    if found is not None and not failure.of_input(found.reason):
        told += [f"  | {line}" for line in found.last(LAST_LINES) if line.strip() != reason]
        told.append(f"  alone, under a debugger: {alone(args, address)}")
    return "\n".join(told)
