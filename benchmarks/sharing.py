"""How long a GPU takes for the stages of studies when several processes share it, without Ray.

    PYTHONPATH=. python benchmarks/sharing.py STORE STUDY... [--processes N] [--compile] [--seconds S]

STUDY is FILE:NAME as for `python -m harness run`. Its stages that STORE lacks are run in N processes, each by
`harness.stages.run_here`, in the order of the studies and after what they need. `python -m harness run` registers the
studies (before the first stage with `--max-hours 0`), goes on with what is left after S seconds, and reports them.

On one H100 with 16 cores and torch 2.11, 15 processes of this program's first form trained, with compiled blocks, the
140 stages of the claims C0, C1, C2, C5 and C6 at the laptop's scale (0.14M parameters, fp32, 2,048 tokens a step, 387M
tokens) in 221 s: 57 steps/s a process, 1.75M tokens/s in all. NVIDIA's MPS was on (`nvidia-cuda-mps-control -d`):
without it a GPU does one process's kernels at a time, and 16 processes without compiled blocks made 2.7 times fewer
steps in their first half minute. TORCHINDUCTOR_COMPILE_THREADS=1 keeps N processes from starting N pools of compilers.
"""

import argparse
import multiprocessing
import queue
import sys
import time
import traceback
from collections.abc import Set
from pathlib import Path
from typing import Any

from harness import device, space, stages
from harness import plan as plans
from harness.commands.common import positive
from harness.errors import InputError
from harness.layout import Layout
from harness.specs import Stage
from harness.store import Store
from harness.worker import Options, Worker


def work(store: Store, where: str, share: float, compile: bool, asked: Any, told: Any) -> None:
    """Run the stages that come by `asked`; tell each one's address, seconds, and how it failed or None."""
    worker = Worker(device=where, memory_share=share, options=Options(Layout(compile=compile)))
    while (task := asked.get()) is not None:
        address, stage = task
        began = time.monotonic()
        try:
            stages.run_here(stage, store, worker)
            failure = None
        except Exception:  # noqa: BLE001 it ends this stage and no other
            failure = traceback.format_exc()
        told.put((address, time.monotonic() - began, failure))


def run(store: Store, studies: list[str], processes: int, compile: bool, seconds: float) -> int:
    """Run what `store` lacks of `studies` for at most so long. Returns the number of stages that are left."""
    found: dict[str, Stage] = {}
    needs: dict[str, Set[str]] = {}
    for study in studies:
        plan = plans.make(space.load(study))
        found |= plan.stages
        needs |= plan.needs
    done = set(store.done(found))
    left = [address for address in found if address not in done]
    running: set[str] = set()
    context = multiprocessing.get_context("spawn")
    asked, told = context.Queue(), context.Queue()
    given = (store, device.of_this_machine(), 1 / processes, compile, asked, told)
    workers = [context.Process(target=work, args=given, daemon=True) for _ in range(processes)]
    for each in workers:
        each.start()
    began = time.monotonic()
    while (left or running) and time.monotonic() - began < seconds:
        for address in [a for a in left if needs[a] <= done][: processes - len(running)]:
            left.remove(address)
            running.add(address)
            asked.put((address, found[address]))
        if not running:
            break  # what is left needs stages that failed
        try:
            address, spent, failure = told.get(timeout=1)
        except queue.Empty:
            continue
        running.remove(address)
        if failure is None:
            done.add(address)
        what = f"{plans.label(found[address])} {address[:12]} {spent:.1f} s"
        print(f"{time.monotonic() - began:7.1f} s  {len(done)}/{len(found)}  {what}", failure or "", flush=True)
    for each in workers:
        each.kill()
    return len(found) - len(done)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--processes", type=positive, default=4)
    parser.add_argument("--compile", action="store_true", help="torch.compile of every block")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()
    try:
        left = run(Store(args.store), args.studies, args.processes, args.compile, args.seconds)
    except InputError as e:
        parser.error(str(e))
    print(f"{left} stages left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
