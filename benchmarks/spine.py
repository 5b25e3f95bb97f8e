"""What the spine costs: wall time of a stage beyond its own training, peak memory, waiting for data, planning.

    python benchmarks/spine.py [--stages 4] [--json FILE]

Run on an idle machine. Stages run one at a time and then two side by side, through Ray Data, Ray Train and Ray Tune.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from ray import tune

from harness import plan as plans
from harness.cluster import sweep
from harness.cluster.resources import allot
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, digest
from harness.store import Store

MODEL = Llama(depth=3, width=64, heads=4, mlp=160, context=256)
TEXT = Text.stdlib(tokenizer=BPE(512), documents=40, held_out=0.1)


def scratch(seed: int) -> Train:
    return Train(Corpus(TEXT, seed), 200_000, MODEL, Recipe(lr=3e-3, batch=8), seed, Evaluation(4, 16))


def nca(seed: int) -> Train:
    source = NCA(states=2, grid=8, patch=2, band=(0.08, 0.21))
    warm = Train(Corpus(source, seed), 200_000, MODEL, Recipe(lr=3e-3, batch=8), seed, Evaluation(4, 16))
    return scratch(seed).after(warm)


def grid(points: int) -> Study:
    """A study of `points` points, half of them scratch."""
    return Study("grid", "?", scratch, [nca], {"seed": tune.grid_search(list(range(points // 2)))})


class PeakMemory(threading.Thread):
    """The largest proportional set size of this process and all its descendants, sampled twice a second, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.stop = 0, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(0.5):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, total)


def measure(stages: int, concurrent: int) -> dict[str, float]:
    """Run `stages` NCA and as many text stages, `concurrent` at a time, and divide the wall time."""
    plan = plans.make(Study("spine", "?", scratch, [nca], {"seed": tune.grid_search(list(range(stages)))}))
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "store")
        started = time.perf_counter()
        outcome = sweep.run(plan, store, allot({"CPU": 2.0}, concurrent=concurrent), 60.0)
        wall = time.perf_counter() - started
        if outcome.failed:
            raise SystemExit(f"failed: {outcome.failed}")
        trained = [m for d, s in plan.stages.items() if isinstance(s, Train) and (m := store.manifest(d))]
        generated = [m for m in trained if m["acceptance"] is not None]
        own = sum(m["train_s"] + m["evaluate_s"] for m in trained)
        return {
            "stages": len(plan.stages),
            "wall_s": wall,
            "own_training_s": own,
            "overhead_per_stage_s": (wall * concurrent - own) / len(plan.stages),
            "overhead_wall_per_stage_s": (wall - own / concurrent) / len(plan.stages),
            "data_wait": sum(m["wait_s"] for m in generated) / sum(m["wait_s"] + m["train_s"] for m in generated),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started = time.perf_counter()
    plan = plans.make(grid(10_000))
    addresses = {digest(s) for s in plan.stages.values()}
    _ = plan.registered
    results = {"plan_10000_points_s": time.perf_counter() - started, "planned_stages": len(addresses)}
    memory = PeakMemory()
    memory.start()
    sweep.connect(2)
    results |= {f"one_by_one.{k}": v for k, v in measure(args.stages, 1).items()}
    results |= {f"two_at_once.{k}": v for k, v in measure(args.stages, 2).items()}
    memory.stop.set()
    results["peak_memory_gb"] = memory.peak / 1e9
    for name, value in results.items():
        print(f"{name:<40} {value:10.3f}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
