"""python -m harness evaluate: a benchmark of a trained stage, kept in the store."""

import argparse
import math
import sys
from typing import TYPE_CHECKING

from harness.commands.common import Commands, means_of, open_store, positive, running_code, stored

if TYPE_CHECKING:
    from harness.reasoning import tasks

TASKS = ("gsm8k", "bigbench-lite", "humaneval")


def add(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", parents=[stored(), running_code()], help="benchmark a training stage")
    parser.add_argument("digest", metavar="DIGEST", help="of a training stage, or its first digits, as `status` shows")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument(
        "--samples", type=positive, default=1, metavar="N", help="a problem; of choices, the largest k of pass@k"
    )
    parser.add_argument("--temperature", type=not_negative, default=0.0, metavar="T", help="0: the most likely token")
    parser.add_argument("--shots", type=int, default=0, metavar="N", help="solved training problems first (gsm8k)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--problems", type=positive, metavar="N", help="the first N problems alone")
    parser.add_argument("--data", metavar="FILE", help="the problems, as .jsonl or .parquet (default: from the hub)")
    parser.add_argument("--shots-data", metavar="FILE", help="the training problems, for shots")
    parser.add_argument("--extraction", choices=("marked", "last_number"), default="marked", help="of answers (gsm8k)")
    parser.add_argument("--engine", choices=("harness", "lm-eval"), default="harness")
    parser.add_argument("--rows", type=positive, default=8, metavar="N", help="sequences side by side in the model")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.set_defaults(command=command)


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return number


def command(args: argparse.Namespace) -> int:
    from harness import export
    from harness.reasoning import seen
    from harness.reasoning.run import check, evaluate, register
    from harness.reasoning.spec import Evaluate
    from harness.specs import digest

    store = open_store(args)
    address = export.find(args.digest, store)
    _, manifest = export.open_trained(address, store)
    asked = (args.samples, args.temperature, args.shots, args.seed, args.engine)
    stage = Evaluate(manifest["spec"], _task(args), *asked)
    means = means_of(args)._replace(rows=args.rows, device=_device(args.device))
    check(stage, means)
    stage = stage.resolved()
    stage.check_unseen()
    register(stage, store)
    found = evaluate(stage, store, means, _progress)
    print(f"{export.describe(manifest['spec'])} {address[:12]}: {args.task}, {found['problems']} problems")
    if (tuned_on := seen.told(found)) is not None:
        print(f"  {tuned_on}")
    for name, value in found["scores"].items():
        print(f"  {name}: {_said(value)}")
    print(f"stage {digest(stage)}")
    return 0


def _task(args: argparse.Namespace) -> "tasks.GSM8K | tasks.Choices | tasks.HumanEval":
    from dataclasses import replace

    from harness.errors import require
    from harness.reasoning import tasks
    from harness.sources.rows import Rows

    task = tasks.task(args.task, args.problems)
    require(args.shots_data is None or args.task == "gsm8k", "--shots-data", args.shots_data, "of gsm8k alone")
    if isinstance(task, tasks.GSM8K):
        task = replace(task, extraction=args.extraction)
        if args.data is not None:
            train = Rows.local(args.shots_data) if args.shots_data else None
            return replace(task, test=Rows.local(args.data), train=train)
        return task if args.shots_data is None else replace(task, train=Rows.local(args.shots_data))
    return task if args.data is None else replace(task, rows=Rows.local(args.data))


def _device(name: str) -> str:
    """`name`, if this machine has such a device; else InputError."""
    import torch

    from harness.errors import InputError

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:  # the second where torch was built without CUDA
        why = str(e).splitlines()[0]
        raise InputError(f"--device = {name!r}: {why}; use cpu, or cuda where there is a GPU") from e
    return name


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {of} problems", end="" if done < of else "\n", file=sys.stderr, flush=True)


def _said(value: object) -> str:
    if isinstance(value, dict) and {"mean", "low", "high"} <= value.keys():
        bounds = "" if value["low"] is None else f" ({value['low']:.4f} to {value['high']:.4f})"
        return f"{value['mean']:.4f}{bounds}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(of)}" for name, of in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
