"""How fast a training step is, beside the step of the paper's released loop in the same run.

    PYTHONPATH=. python benchmarks/training.py [--models 3M,400M] [--precision fp32] [--reference CHECKOUT]

Needs torch (2.11 or later), transformers, NumPy and safetensors, nothing else of the harness's requirements. CHECKOUT
is a clone of the paper's released code (github.com/danihyunlee/nca-pre-pretraining; `reference_training.py` says what
of it runs). Tokens are random; the model is trained by `harness.loop`, laid out as `harness.layout` chooses.
--json FILE keeps all figures.

- Step time is the median of the steps of all rounds. In each round every side is built anew, makes steps that are not
  counted, and then those that are; `speedup` is the median over rounds of the release's step time by ours. All in wall
  time: run it on an idle machine.
- Utilisation (MFU) is tokens/s x `Llama.flops_per_token` = 6 N + 6 d V + 12 L d T (N without embeddings, width d,
  vocabulary V, depth L, context T), of the fastest square matrix product in the same precision, measured in each round.
- Peak memory is what torch allocated on a GPU, or what was resident on a CPU (with Python and torch; Linux only).
- A checkpoint (`resume.Saver`, into --directory) costs the seconds that the loop waits for the copy and those that the
  steps beside the writing take longer, as a share of 10 minutes.
- Bytes of parameters, gradients and moments on each of two ranks (FSDP, gloo), of what one rank has.
- Sharing (--parts sharing): tokens/s of --processes processes that train at once on one GPU, of what one makes alone
  in its share of the memory, by sequences a step. Run it with and without NVIDIA's MPS (`nvidia-cuda-mps-control -d`).

What was tried, by programs that are not kept (this one's own figures stand in the README): 3M parameters with 8
sequences of 512 tokens on two threads of an idle AMD EPYC 9004 (AVX-512, bfloat16 products), torch 2.13, transformers
5.23, as medians of ratios of wall time to the release's step (1.82 and 1.53 s with a vocabulary of 10,002; 1.26 and
1.03 s with 512). All equal plain float32 up to rounding: gradients are off by 1e-6 of their norm in fp32; in bf16 by
1.4e-2 to 1.6e-2, as those of plain bf16 are.

    vocabulary                                                   10,002              512
    precision                                                fp32    bf16       fp32    bf16
    the loop, logits 8 MiB at a time                         1.38    1.98       1.59    1.93
    logits 512 rows at a time, aligned rows, one softmax     1.53    2.07       1.59    1.92
    the same and attention in blocks of 128 queries          1.60    2.49       1.67    2.64
    the same with 2 sequences a pass                         1.59    2.34       1.67    2.22

The blocks keep their probabilities for the backward pass; computed again there, they gain nothing in fp32 and 2.0 x of
SDPA instead of 2.5 x in bf16, in which SDPA on a CPU is no faster than in fp32.

On a machine that does other things too, threads that spin while they wait for one another take 3 to 4 times as long for
a step as with OMP_WAIT_POLICY=PASSIVE in the environment.

Lost: `torch.nn.functional.linear_cross_entropy`, alone at 1,024 rows, is slower than plain logits with its own chunks
(0.65 x) and 1.3 x as fast with chunks of 256 rows, against 1.4; under autocast it stays in float32, and given bfloat16
it returns the loss in bfloat16 (4e-4 to 4e-3 off) at 0.6 x. torch.compile of every block takes 5 to 8 % off the step,
after 10 to 80 s. The layout of queries and keys, contiguous or not, changes nothing.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import reference_training
import torch
import transformers
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from harness import device, environment, loop, parallel, resume
from harness.layout import Layout
from harness.scales import GPU_DAY
from harness.specs import Corpus, Llama, Recipe, Train, digest
from harness.worker import Batch, Options, Worker

LR = 1e-4
INTERVAL_S = 600.0
"""Seconds between the checkpoints whose cost is told."""
CHECKPOINTS = 3
GPT2, PAPER = 50_257, 10_002
"""Vocabularies: the paper's text, and its automata of 10 states in patches of 2 x 2."""


@dataclass(frozen=True)
class Case:
    """A model and the sequences of a step; `device` is where it is measured unless --models names it."""

    model: Llama
    vocab: int
    batch: int
    device: str

    def spec(self, precision: str) -> Train:
        recipe = Recipe(lr=LR, batch=self.batch, precision=precision)  # type: ignore[arg-type]
        step_tokens = self.batch * self.model.context
        return Train(Corpus(RandomTokens(self.vocab)), 10_000 * step_tokens, self.model, recipe)


@dataclass(frozen=True)
class RandomTokens:
    """A source that only names its vocabulary; `batch_of` draws."""

    version: ClassVar[int] = 1
    stored: ClassVar[bool] = False
    frame_tokens: ClassVar[None] = None

    vocab_size: int

    def open(self, artifact: Any = None) -> Any:
        raise NotImplementedError("this source has no sequences")


# The shapes of search_spaces/model_size.py, a small one that a CPU trains, and one that shares a GPU.
CASES = {
    "3M": Case(Llama(depth=4, width=256, heads=4, mlp=704, context=512), PAPER, 8, "cpu"),
    "10M": Case(GPU_DAY.sizes["10M"].scratch.model, GPT2, 64, "cuda"),
    "100M": Case(Llama(depth=12, width=768, heads=12, mlp=3072), GPT2, 32, "cuda"),
    "400M": Case(Llama(depth=24, width=1024, heads=16, mlp=4096), GPT2, 32, "cuda"),
    "1.6B": Case(Llama(depth=24, width=2048, heads=32, mlp=8192), GPT2, 32, "cuda"),
}


@dataclass(frozen=True)
class Effort:
    """How often things are done: rounds, and in each the steps before those that count, and those."""

    rounds: int
    warm: int
    steps: int


EFFORT = {"cpu": Effort(5, 1, 3), "cuda": Effort(3, 3, 10)}


@dataclass
class Times:
    """Of one side, over all rounds."""

    steps: list[list[float]] = dataclasses.field(default_factory=list)
    """Seconds, by round."""
    first: list[float] = dataclasses.field(default_factory=list)
    """Seconds of the first step of every round, which compiles where something is compiled."""
    memory: list[int | None] = dataclasses.field(default_factory=list)
    """Peak bytes, by round."""

    @property
    def step_s(self) -> float:
        return statistics.median(s for steps in self.steps for s in steps)

    def figures(self, spec: Train, peak_flops: float) -> dict[str, Any]:
        tokens_per_s = spec.step_tokens / self.step_s
        return {
            "step_s": self.step_s,
            "step_s_min": min(s for steps in self.steps for s in steps),
            "tokens_per_s": tokens_per_s,
            "mfu": tokens_per_s * spec.model.flops_per_token(spec.io_width) / peak_flops,
            "peak_memory_bytes": max((m for m in self.memory if m is not None), default=None),
            "first_step_s": self.first[0],
        }


Step = Callable[[Batch, int], Any]
"""(batch, number of the step) -> an update."""


def batch_of(spec: Train, number: int) -> Batch:
    """The random tokens of step `number`."""
    draws = np.random.default_rng(number).integers(
        0, spec.vocab_size, (spec.recipe.batch, spec.model.context + 1), dtype=np.int32
    )
    index = np.arange(spec.recipe.batch, dtype=np.int64) + number * spec.recipe.batch
    return Batch(index, draws[:, :-1].copy(), draws[:, 1:].copy())


def timed(work: Callable[[], Any], where: str) -> float:
    """Seconds of `work`, with what it gave to a GPU."""
    device.synchronise(where)
    started = time.perf_counter()
    work()
    device.synchronise(where)
    return time.perf_counter() - started


def our_step(spec: Train, worker: Worker) -> Step:
    begun = begin(spec, worker)
    return lambda batch, number: loop.optimizer_step(begun, spec, worker, batch, number)


def begin(spec: Train, worker: Worker) -> loop.Begun:
    """The stage before its first step."""
    with tempfile.TemporaryDirectory() as empty:
        return loop.begin(spec, worker, None, Path(empty), None)


def released_step(spec: Train, worker: Worker, checkout: Path, micro: int) -> Step:
    bf16 = spec.recipe.precision == "bf16"
    release = reference_training.Release(checkout, spec.model, spec.io_width, LR, bf16, worker.device, micro)
    return lambda batch, _: release.step(torch.from_numpy(batch.inputs).long(), torch.from_numpy(batch.targets).long())


def fitting(spec: Train, worker: Worker, checkout: Path) -> int:
    """Sequences a forward pass of the release: the most, of halves of a step, for which there is memory."""
    micro = spec.recipe.batch
    while micro > 1 and device.kind(worker.device) == "cuda":
        try:
            step = released_step(spec, worker, checkout, micro)
            for number in range(2):  # moments come with the first
                step(batch_of(spec, number), number)
            break
        except torch.OutOfMemoryError:
            micro //= 2
        finally:
            step = None  # type: ignore[assignment]
            give_back(worker.device)
    return micro


def measure(make: Callable[[], Step], spec: Train, worker: Worker, effort: Effort, times: Times) -> None:
    """One round of one side."""
    give_back(worker.device)
    reset_peak_memory(worker.device)
    step, where = make(), worker.device
    batches = [batch_of(spec, number) for number in range(effort.warm + effort.steps)]
    spent = [timed(lambda: step(batch, number), where) for number, batch in enumerate(batches)]  # noqa: B023
    times.first.append(spent[0])
    times.steps.append(spent[effort.warm :])
    times.memory.append(peak_memory(where))


def give_back(where: str) -> None:
    """Collect what nothing refers to, so that one side has the memory that the other had."""
    gc.collect()
    if device.kind(where) == "cuda":
        torch.compiler.reset()  # compiled blocks keep their parameters
        torch.cuda.empty_cache()


def reset_peak_memory(where: str) -> None:
    if device.kind(where) == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_memory(where: str) -> int | None:
    """Bytes since `reset_peak_memory`; None where the system does not say."""
    if device.kind(where) == "cuda":
        return device.peak_memory(where)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def race(case: Case, precision: str, worker: Worker, checkout: Path | None, effort: Effort) -> dict[str, Any]:
    """Our step and, with a checkout, the release's, round by round."""
    spec = case.spec(precision)
    sides: dict[str, Callable[[], Step]] = {"ours": lambda: our_step(spec, worker)}
    micro = fitting(spec, worker, checkout) if checkout else None
    if checkout is not None and micro is not None:
        sides["release"] = lambda: released_step(spec, worker, checkout, micro)
    times = {side: Times() for side in sides}
    peak_flops = 0.0
    for number in range(effort.rounds):
        peak_flops = max(peak_flops, device.matrix_peak(worker.device, precision))
        for side in list(sides) if number % 2 == 0 else list(reversed(sides)):
            measure(sides[side], spec, worker, effort, times[side])
    found = {
        "params": spec.model.params(spec.io_width),
        "tokens_per_step": spec.step_tokens,
        "flops_per_token": spec.model.flops_per_token(spec.io_width),
        "peak_flops": peak_flops,
        **{side: times[side].figures(spec, peak_flops) for side in sides},
    }
    if micro is not None:
        both = zip(times["release"].steps, times["ours"].steps, strict=True)
        ratios = [statistics.median(theirs) / statistics.median(ours) for theirs, ours in both]
        found |= {"speedup": statistics.median(ratios), "speedup_by_round": ratios, "release_micro_batch": micro}
    return found


def checkpoint_cost(case: Case, precision: str, worker: Worker, directory: Path, effort: Effort) -> dict[str, Any]:
    """What writing a checkpoint in the background costs the loop, as the median of a few."""
    spec, where = case.spec(precision), worker.device
    number = 0

    def step() -> None:
        nonlocal number
        loop.optimizer_step(begun, spec, worker, batch_of(spec, number), number)
        number += 1

    with parallel.process_group(1), tempfile.TemporaryDirectory(dir=directory) as place:
        begun = begin(spec, worker)
        saver = resume.Saver(digest(spec), 0, 1, device.kind(where))
        for _ in range(effort.warm):
            step()
        held, slowed, wrote = [], [], []
        for _ in range(CHECKPOINTS):
            plain = statistics.median(timed(step, where) for _ in range(effort.steps))
            started = time.perf_counter()
            tensors = loop.checkpoint_tensors(begun.net, begun.optimizer)
            held.append(timed(lambda: saver.save(Path(place), number, tensors, {}), where))  # noqa: B023
            beside = []
            while saver.pending is not None and not saver.pending.done():
                beside.append(timed(step, where))
            wrote.append(time.perf_counter() - started)
            slowed.append(sum(beside) - plain * len(beside))
            saver.wait()
            if saver.failure is not None:
                raise RuntimeError(saver.failure)
        saver.close()
        newest = next(resume.newest_first(Path(place)))
        size = sum(file.stat().st_size for file in newest.iterdir())
    cost = statistics.median(h + s for h, s in zip(held, slowed, strict=True))
    return {
        "bytes": size,
        "held_up_s": statistics.median(held),
        "slowed_s": statistics.median(slowed),
        "written_after_s": statistics.median(wrote),
        "cost_s": cost,
        f"share_of_{INTERVAL_S:.0f}_s": cost / INTERVAL_S,
    }


def local_bytes(tensors: Any) -> int:
    """Bytes of the parts of `tensors` that lie on this rank."""
    parts = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return sum(part.numel() * part.element_size() for part in parts)


def state_bytes(case: Case, worker: Worker) -> dict[str, int]:
    """Bytes of parameters, gradients and both moments on this rank, when a step updates them."""
    spec = case.spec("fp32")
    begun = begin(spec, worker)
    found = {"parameters": local_bytes(begun.net.parameters())}

    def before_update(*_: Any) -> None:
        found["gradients"] = local_bytes(p.grad for p in begun.net.parameters() if p.grad is not None)

    begun.optimizer.register_step_pre_hook(before_update)
    rows = worker.rows(spec.recipe.batch)[-1]
    own = slice(worker.rank * rows, (worker.rank + 1) * rows)
    batch = batch_of(spec, 0)
    loop.optimizer_step(begun, spec, worker, Batch(*(part[own] for part in batch)), 0)
    states = begun.optimizer.state.values()
    return found | {"moments": local_bytes(state[moment] for state in states for moment in loop.MOMENTS)}


def _rank(rank: int, world: int, case: Case, directory: Path) -> None:
    """One of the ranks of `memory_by_rank`."""
    torch.set_num_threads(1)
    meeting = f"file://{directory / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    worker = Worker(rank, world, world, options=Options(Layout("fsdp")))
    (directory / f"{rank}.json").write_text(json.dumps(state_bytes(case, worker)))
    torch.distributed.destroy_process_group()


def memory_by_rank(case: Case, world: int = 2) -> dict[str, Any]:
    """Bytes by kind of the whole on one rank, of the shards on every rank of `world`, and the largest share."""
    alone = state_bytes(case, Worker())
    with tempfile.TemporaryDirectory() as place:
        spawn(_rank, (world, case, Path(place)), nprocs=world)
        ranks = [json.loads((Path(place) / f"{rank}.json").read_text()) for rank in range(world)]
    shards = {what: [rank[what] for rank in ranks] for what in alone}
    return {
        what: {"alone": whole, "ranks": shards[what], "largest_share": max(shards[what]) / whole}
        for what, whole in alone.items()
    }


def _sharer(
    number: int,
    case: Case,
    precision: str,
    where: str,
    options: Options,
    batches: list[int],
    seconds: float,
    meet: Any,
    made: Any,
) -> None:
    """One of the processes of `sharing`: for each of `batches` the steps/s of the first alone, then of all at once."""
    torch.set_num_threads(1)
    worker = Worker(device=where, memory_share=1 / meet.parties, options=options)
    for place, batch in enumerate(batches):
        step = None
        give_back(where)
        spec = replace(case, batch=batch).spec(precision)
        step, drawn = our_step(spec, worker), batch_of(spec, 0)
        for count in range(5):
            step(drawn, count)
        for phase, busy in enumerate((number == 0, True)):
            meet.wait()
            steps, started = 0, time.perf_counter()
            while busy and time.perf_counter() - started < seconds:
                step(drawn, steps)  # waits for the device: it returns the loss
                steps += 1
            made[(2 * place + phase) * meet.parties + number] = steps / (time.perf_counter() - started)
            meet.wait()


def sharing(
    case: Case, precision: str, worker: Worker, processes: int, batches: list[int], seconds: float
) -> Iterator[tuple[int, dict[str, float]]]:
    """By sequences a step: tokens/s of one process alone and of `processes` on one device at once, and their ratio."""
    context = torch.multiprocessing.get_context("spawn")
    made = context.Array("d", 2 * len(batches) * processes)
    given = (case, precision, worker.device, worker.options, batches, seconds, context.Barrier(processes), made)
    spawn(_sharer, given, nprocs=processes)
    rates = np.array(made).reshape(len(batches), 2, processes).sum(2)
    for batch, (alone, together) in zip(batches, rates, strict=True):
        tokens = batch * case.model.context
        rates_s = {"alone_tokens_per_s": alone * tokens, "together_tokens_per_s": together * tokens}
        yield batch, rates_s | {"speedup": together / alone}


def processor(where: str) -> str:
    """The name of the device."""
    gpu = environment.hardware(where)["gpu"]
    return gpu or f"{environment.cpu()} ({torch.backends.cpu.get_cpu_capability()})"


def show(name: str, precision: str, found: dict[str, Any]) -> None:
    """The rows of a race in the table."""
    for side in ("ours", "release"):
        if side in found:
            row = found[side]
            memory = row["peak_memory_bytes"]
            print(
                f"{name:<6} {precision:<5} {side:<8} {1e3 * row['step_s']:10.1f} {row['tokens_per_s']:12,.0f} "
                f"{row['mfu']:7.1%} {memory / 2**30 if memory is not None else float('nan'):8.2f} "
                f"{found.get('speedup', float('nan')) if side == 'ours' else 1.0:8.2f}",
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", help=f"of {','.join(CASES)}; unless given, those for the device")
    parser.add_argument("--precision", help="fp32, bf16 or both with a comma; bf16 on a GPU, both on a CPU")
    parser.add_argument("--vocabulary", type=int, help="of the models; unless given, that of GPT-2 or of the automata")
    parser.add_argument("--reference", type=Path, metavar="CHECKOUT")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="as the same option of `run`")
    parser.add_argument("--parts", default="steps,checkpoint,memory", help="what is measured")
    parser.add_argument("--processes", type=int, default=4, help="of sharing (default 4)")
    parser.add_argument("--sequences", default="8,16,64", help="a step, of sharing (default 8,16,64)")
    parser.add_argument("--seconds", type=float, default=5.0, help="each way, of sharing (default 5)")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="where checkpoints are written")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kind = device.kind(args.device)
    cases = {name: replace(case, vocab=args.vocabulary or case.vocab) for name, case in CASES.items()}
    names = args.models.split(",") if args.models else [n for n, case in CASES.items() if case.device == kind]
    precisions = (args.precision or {"cpu": "fp32,bf16", "cuda": "bf16"}[kind]).split(",")
    parts = args.parts.split(",")
    effort = EFFORT[kind]
    if args.rounds:
        effort = replace(effort, rounds=args.rounds)
    torch.set_num_threads(args.threads)
    worker = Worker(device=args.device, threads=args.threads, options=Options(Layout(compile=args.compile)))
    results: dict[str, Any] = {
        "device": processor(args.device),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in results.items()))
    if "steps" in parts:
        print("model  prec. side       step, ms     tokens/s     MFU mem, GiB  speedup")
        results["steps"] = {}
        for name in names:
            for precision in precisions:
                found = race(cases[name], precision, worker, args.reference, effort)
                results["steps"][f"{name} {precision}"] = found
                show(name, precision, found)
    if "checkpoint" in parts:
        results["checkpoint"] = {}
        for name in names:
            found = checkpoint_cost(cases[name], precisions[-1], worker, args.directory, effort)
            results["checkpoint"][f"{name} {precisions[-1]}"] = found
            print(f"{name} checkpoint: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    if "memory" in parts:
        results["memory_3M_world_2"] = memory_by_rank(CASES["3M"])
        for what, each in results["memory_3M_world_2"].items():
            print(f"3M {what}, bytes: alone {each['alone']}, of two ranks {each['ranks']}: {each['largest_share']:.3f}")
    if "sharing" in parts:
        results["sharing"] = {}
        batches = [int(n) for n in args.sequences.split(",")]
        for name in names:
            case, precision = cases[name], precisions[-1]
            for batch, found in sharing(case, precision, worker, args.processes, batches, args.seconds):
                results["sharing"][f"{name} {batch}"] = found
                what = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
                print(f"{name}, {batch} sequences a step, {args.processes} processes: {what}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
