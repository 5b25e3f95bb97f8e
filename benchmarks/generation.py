"""How fast automata become tokens, in process CPU seconds of one core, as ratios within one run.

    python benchmarks/generation.py [--reference CHECKOUT [--reference-python PYTHON]] [--json FILE]

Needs NumPy, and numba for the compiled kernels; where torch sees a CUDA device, that is measured too. CHECKOUT is a
clone of the paper's released code (github.com/danihyunlee/nca-pre-pretraining), run by PYTHON, an interpreter that has
JAX and the checkout's other requirements. Every figure is the median of five runs after one that is not counted.

What was tried, in million tokens a second of rollouts and tokens at 10 states and temperature 0, on one core of an AMD
EPYC 9004 with AVX-512 (the release there: 0.087 eager, 0.29 in one jit), taken while the kernel was written, some
beside other work, so that the order counts more than the figures:

    numba loops over tiles of 64 cells, vectorised by LLVM                      10.1
    vector IR, four channels a row for 16 lanes, transposed                     19.2
    vector IR, channels by AVX-512 permutation, two vectors at a time           15.5
    the same, one vector at a time, states held in int32 copies of the grid     21.4
    the same, largest logit found in numba after all logits were written        15.5
    the same, largest logit kept in registers                                   20.7
    the same, grid of bytes, neighbours across the edge blended in              28.2
    the same without additions of biases that are 0 (the kernel)                29.8
    the kernel with AVX2 (8 lanes, rows) / with SSE2 (4 lanes, rows)      18.4 / 7.8

On an Intel core fused multiply-adds would bring a fifth more, and other bits; see `harness.automata.definition`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness import rng
from harness.automata import engine
from harness.automata.definition import draw_start
from harness.sources.nca import NCA

REPEATS = 5
TOKENS = 164_000_000
"""The paper's NCA budget."""
CONTEXT = 1024
COMPARED = 102_400
"""Sequences of each setting that are made on a device and on the CPU."""
INSTRUCTIONS = {
    "own": None,
    "AVX2": ("haswell", "+avx2,+avx,+fma,+bmi,+bmi2,+lzcnt,+movbe,+popcnt,+f16c,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2"),
    "SSE2": ("x86-64", "+sse2"),
}
"""Processor and features that numba is told to compile for; None for this machine's own."""


def median(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Median seconds of `work` by `clock`, after one run that is not counted."""
    work()
    spent = []
    for _ in range(REPEATS):
        before = clock()
        work()
        spent.append(clock() - before)
    return statistics.median(spent)


def rollouts(temperature: float, count: int = 128, calls: int = 8) -> float:
    """Tokens a second of rollouts and tokens alone, from rules and starts that lie ready; `count` are run at a time, so
    few that their states stay in the core's cache."""
    source = NCA(temperature=temperature)
    keys = rng.keys(np.arange(count), 0)
    rules, start = engine.draw_rules(keys, source.states), draw_start(keys, source.states, source.grid, source.start)
    times = source.times(source.frames_for(CONTEXT))

    def work() -> None:
        for _ in range(calls):
            states = engine.rollout(rules, start, times.stop - 1, temperature, keys)
            patches = engine.patch_tokens(states[:, times], source.states, source.patch)
            engine.supervised(patches, source.start_token, CONTEXT)

    return calls * count * CONTEXT / median(work)


def pipeline(band: tuple[float, float], threads: int, count: int, clock: Callable[[], float]) -> float:
    """Seconds a sequence, from nothing to inputs and targets, one fresh rule each out of `band`."""
    engine.set_threads(threads)
    reader = NCA(band=band).open()
    return median(lambda: reader.sequences(0, np.arange(count), CONTEXT), clock) / count


def kernel_figures() -> dict[str, float]:
    return {f"rollout_{t:g}_tokens_per_s": rollouts(t) for t in (0.0, 1e-4, 1e-3)}


def figures() -> dict[str, float]:
    """Everything that is measured in this process."""
    engine.compiled()  # numba is part of what is imported
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, float] = {}
    for name, band, count in (("50+", (0.5, 1.0), 2048), ("30-40", (0.3, 0.4), 1024), ("20-30", (0.2, 0.3), 512)):
        each = pipeline(band, 1, count, time.process_time)
        found[f"band_{name}_accepted_per_s"] = 1 / each
        found[f"band_{name}_164M_core_s"] = TOKENS / CONTEXT * each
    one, two = (pipeline((0.5, 1.0), threads, 4096, time.perf_counter) for threads in (1, 2))
    found["two_threads_speedup"] = one / two
    engine.set_threads(1)
    found["memory_over_imports_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found


def differing(source: NCA, count: int, at_once: int = 12_800) -> int:
    """How many of the first `count` sequences are not the same on the CPU and on the CUDA device."""
    total = 0
    for first in range(0, count, at_once):
        made = []
        for device in ("cpu", "cuda"):
            engine.set_device(device)
            made.append(source.open().sequences(0, np.arange(first, first + at_once), CONTEXT)[0])
        total += int((made[0] != made[1]).any(axis=1).sum())
    return total


def device_figures() -> dict[str, float] | None:
    """What a CUDA device does, in wall time, with scores on as many threads as the machine has cores; None without."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    source = NCA(band=(0.5, 1.0))
    keys = rng.keys(np.arange(engine.DEVICE_CHUNK), 0)
    start, times = draw_start(keys, source.states, source.grid, source.start), source.times(source.frames_for(CONTEXT))
    engine.set_device("cuda")
    kernels = engine.on_device()
    rules = kernels.draw_rules(keys, source.states, "cuda")

    def roll() -> None:
        kernels.rollout(rules, start, times.stop - 1)
        torch.cuda.synchronize()

    each = median(roll, time.perf_counter) / len(keys)
    # A step of a cell: 36 table additions, 4 x 16 and 16 x states products and sums.
    operations = (times.stop - 1) * source.grid**2 * (36 + 2 * 4 * 16 + 2 * 16 * source.states)
    engine.set_threads(os.cpu_count() or 1)
    count = TOKENS // CONTEXT
    started = time.perf_counter()
    reader = source.open()
    for first in range(0, count, 2**16):
        reader.sequences(0, np.arange(first, min(first + 2**16, count)), CONTEXT)
    found = {
        "rollout_tokens_per_s": CONTEXT / each,
        "rollout_flop_per_s": operations / each,
        "band_50+_164M_wall_s": time.perf_counter() - started,
    }
    for settings in (source, NCA(temperature=1e-4), NCA(temperature=1e-3, states=15)):
        name = f"of_{COMPARED}_differ_at_{settings.temperature:g}_with_{settings.states}_states"
        found[name] = differing(settings, COMPARED)
    engine.set_threads(1)
    engine.set_device("cpu")
    return {torch.cuda.get_device_name(): 1.0, **found}


def alone(instructions: tuple[str, str] | None) -> dict[str, float]:
    """`kernel_figures` of a process of its own, whose numba may compile for other instructions."""
    environment = dict(os.environ)
    if instructions is not None:
        environment |= {"NUMBA_CPU_NAME": instructions[0], "NUMBA_CPU_FEATURES": instructions[1]}
    command = [sys.executable, __file__, "--kernel-only"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def reference(python: str, checkout: Path) -> dict[str, Any]:
    command = [python, str(Path(__file__).with_name("reference_generation.py")), str(checkout)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference", type=Path, metavar="CHECKOUT")
    parser.add_argument("--reference-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kernel-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kernel_only:
        print(json.dumps(kernel_figures()))
        return 0
    released = reference(args.reference_python, args.reference) if args.reference else None
    own = figures()
    kernels = {name: alone(target) for name, target in INSTRUCTIONS.items()}
    for name, found in kernels.items():
        for t in ("0", "0.0001", "0.001"):
            speed = found[f"rollout_{t}_tokens_per_s"]
            ratio = f"{speed / released['eager_tokens_per_s']:6.0f} x eager release" if released else ""
            print(f"rollout and tokens, temperature {t:<7} {name:<8} {speed / 1e6:8.2f} M tokens/s  {ratio}")
    for name, value in own.items():
        print(f"{name:<45} {value:12.2f}")
    if released:
        for name, value in released.items():
            print(f"release: {name:<36} {value if isinstance(value, str) else round(value, 1):>12}")
    device = device_figures()
    for name, value in (device or {}).items():
        print(f"device: {name:<40} {value:.4g}")
    if args.json:
        args.json.write_text(
            json.dumps({"here": own, "kernels": kernels, "released": released, "device": device}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
