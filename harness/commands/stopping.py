"""How a run ends before it is done: at a limit that the command line names, or by Ctrl-C."""

import argparse
import contextlib
import secrets
import signal
import sys
import threading
from collections.abc import Iterator

from harness.commands.common import INTERRUPTED, LIMIT_REACHED
from harness.limits import Limit, Meter
from harness.store import Store

STOPPING = (
    "\ninterrupted: stages that train save their step and stop, text that is being tokenised stops after its block; "
    "once more to end at once"
)


@contextlib.contextmanager
def metered(args: argparse.Namespace, name: str, store: Store, after: Meter | None = None) -> Iterator[Meter]:
    """The meter of what the command line allows a run of study `name`, of which that `after` counted the first part.
    Inside, a first Ctrl-C ends the run as a limit would, and a second one at once."""
    stop = store.scratch / "stop" / f"{name}-{secrets.token_hex(4)}"
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        threading.Thread(target=stop_stages, daemon=True).start()  # what it waits for may be held by this thread

    def stop_stages() -> None:
        with contextlib.suppress(OSError):  # who reads it may have been interrupted too
            print(STOPPING, file=sys.stderr, flush=True)
        meter.interrupt()

    with Meter(Limit(args.max_hours, args.max_cost, args.price), store, stop, after) as meter:
        # What runs in the background ignores it, and a debugger has a use of its own for it; a thread may not set it.
        listen = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
        if listen:
            signal.signal(signal.SIGINT, first)
        try:
            yield meter
        finally:
            if listen:
                signal.signal(signal.SIGINT, before)


def ended_early(meter: Meter, what: str) -> int:
    """Say that `what` was stopped before it was done; the exit code."""
    why = "interrupted" if meter.interrupted else f"stopped at the limit of {meter.reached}"
    print(f"{why}: {what}, the same command goes on")
    return INTERRUPTED if meter.interrupted else LIMIT_REACHED
