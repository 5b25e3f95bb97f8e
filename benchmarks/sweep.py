"""What a sweep costs beside its training: the data path, the start of a stage, hundreds of short stages, planning.

    PYTHONPATH=. python benchmarks/sweep.py [--parts data,overhead,many,recovery,planning,sharing] [--json FILE]

Run on an idle machine. Every figure is a ratio or a difference within this one run. `sharing` needs a GPU and is left
out unless it is asked for: a study of 10M parameters, its stages one by one and several to the GPU. It takes
minutes, and wants NVIDIA's MPS (`nvidia-cuda-mps-control -d`) started before it.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune

from harness import plan as plans
from harness import stages, watch
from harness.cluster import connection, data, sweep
from harness.cluster.resources import Workers, allot, resources
from harness.scales import GPU_DAY
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, digest
from harness.store import Store, write_json
from harness.worker import Options, Stream, read_here

MODEL = Llama(depth=3, width=64, heads=4, mlp=160, context=256)
TEXT = Text.stdlib(tokenizer=BPE(512), documents=40, held_out=0.1)
AUTOMATA = NCA(states=2, grid=8, patch=2, band=(0.08, 0.21))
PAPER_AUTOMATA = NCA(band=(0.5, 1.0))
CONTEXT = 1024
"""Of the data path: the paper's automata and context. The small ones above take more of a core a token, and 64
consumers would wait for two cores to generate, not for the path."""
CONSUMER_TOKENS_PER_S = 20_000
"""What one consumer trains on: MODEL on one core."""
CONSUMERS = (1, 4, 16, 64)
PARTS = ("data", "overhead", "many", "recovery", "planning")
TEN_MILLION = GPU_DAY.sizes["10M"].scratch
SHARERS = 4


def scratch(seed: int) -> Train:
    return Train(Corpus(TEXT, seed), 200_000, MODEL, Recipe(lr=3e-3, batch=8), seed, Evaluation(4, 16))


def nca(seed: int) -> Train:
    warm = Train(Corpus(AUTOMATA, seed), 200_000, MODEL, Recipe(lr=3e-3, batch=8), seed, Evaluation(4, 16))
    return scratch(seed).after(warm)


def short(seed: int) -> Train:
    """About a second of one core."""
    return Train(Corpus(AUTOMATA, seed), 16_384, MODEL, Recipe(lr=3e-3, batch=8), seed, Evaluation(2, 4))


def seeds(name: str, baseline: Callable[[int], Train], arms: list[Callable[[int], Train]], count: int) -> plans.Plan:
    return plans.make(Study(name, "?", baseline, arms, {"seed": tune.grid_search(list(range(count)))}))


# ---- the data path


def consume(streams: list[Stream], spec: Train) -> dict[str, float]:
    """Let every stream feed a consumer that takes the time of training for each of its batches: tokens/s of all
    together and share of the time that they waited, both after the first batch."""
    step_s = spec.step_tokens / len(streams) / CONSUMER_TOKENS_PER_S
    reader = spec.corpus.source.open()
    waited, ended, first = ([0.0] * len(streams) for _ in range(3))
    everyone = threading.Barrier(len(streams))
    started = time.perf_counter()

    def consumer(i: int) -> None:
        batches = streams[i](spec, reader, 0)
        next(batches)
        first[i] = time.perf_counter()
        everyone.wait()
        began = clock = time.perf_counter()
        for _ in batches:
            waited[i] += time.perf_counter() - clock
            time.sleep(step_s)
            clock = time.perf_counter()
        ended[i] = clock - began

    threads = [threading.Thread(target=consumer, args=(i,)) for i in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = spec.tokens - spec.step_tokens
    return {
        "first_batch_s": max(first) - started,
        "tokens_per_s": tokens / max(ended),
        "wait": sum(waited) / sum(ended),
        "ideal_tokens_per_s": len(streams) * CONSUMER_TOKENS_PER_S,
    }


def data_path(consumers: int, seconds: float) -> dict[str, float]:
    """Ray Data beside the generator called by every consumer in this process."""
    rows = 8
    steps = int(seconds * CONSUMER_TOKENS_PER_S / (rows * CONTEXT))
    recipe = Recipe(lr=3e-3, batch=rows * consumers)
    model = replace(MODEL, context=CONTEXT)
    spec = Train(Corpus(PAPER_AUTOMATA, 0), steps * consumers * rows * CONTEXT, model, recipe, 0)
    here = consume([read_here(rank, consumers) for rank in range(consumers)], spec)
    data.configure()
    given = resources({"CPU": float(consumers)}, Workers(consumers, consumers))
    shards = data.sequences(spec, 0, given).streaming_split(consumers, equal=True)
    open_shard: list[Callable[[], Any]] = [lambda shard=shard: shard for shard in shards]
    streamed = consume([data.stream_shard(open_shard[r], consumers, r, consumers) for r in range(consumers)], spec)
    return {
        "ray_over_in_process": streamed["tokens_per_s"] / here["tokens_per_s"],
        "ray_over_training": streamed["tokens_per_s"] / streamed["ideal_tokens_per_s"],
        "wait": streamed["wait"],
        "wait_in_process": here["wait"],
        "first_batch_s": streamed["first_batch_s"],
    }


# ---- stages


def overhead(count: int, concurrent: int, in_trial: bool) -> dict[str, float]:
    """Run `count` NCA and as many text stages, `concurrent` at a time, and divide the wall time."""
    plan = seeds("overhead", scratch, [nca], count)
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "store")
        allotment = allot({"CPU": 2.0}, plan.stages, concurrent=concurrent, in_trial=in_trial)
        started = time.perf_counter()
        outcome = sweep.run(plan, store, allotment, Options(checkpoint_every_s=60))
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
            "per_stage_s": (wall * concurrent - own) / len(plan.stages),
            "data_wait": sum(m["wait_s"] for m in generated) / sum(m["wait_s"] + m["train_s"] for m in generated),
        }


class Memory(threading.Thread):
    """Bytes, every half second: resident in this process, and the proportional set size of it and all below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver: list[int] = []
        self.peak, self.stop = 0, threading.Event()

    def __enter__(self) -> "Memory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()

    def run(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(0.5):
            self.driver.append(me.memory_info().rss)
            self.peak = max(self.peak, sum(_pss(p) for p in [me, *me.children(recursive=True)]))


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def many(count: int) -> dict[str, float]:
    """`count` stages of a second, in their trials, two at a time."""
    plan = seeds("many", short, [], count)
    with tempfile.TemporaryDirectory() as directory, Memory() as memory:
        store = Store(Path(directory) / "store")
        started = time.perf_counter()
        outcome = sweep.run(plan, store, allot({"CPU": 2.0}, plan.stages, in_trial=True), Options())
        wall = time.perf_counter() - started
        attempts = [sum(p.is_dir() for p in store.stage(d).iterdir()) for d in plan.stages]
        manifests = [m for d in plan.stages if (m := store.manifest(d))]
        own = sum(m["train_s"] + m["evaluate_s"] for m in manifests)
        early = len(memory.driver) // 10
        return {
            "stages": count,
            "lost": count - len(outcome.computed),
            "run_twice": sum(n > 1 for n in attempts),
            "wall_s": wall,
            "own_training_per_stage_s": own / count,
            "per_stage_s": (2 * wall - own) / count,
            "driver_growth_mb": (memory.driver[-1] - memory.driver[early]) / 1e6,
            "driver_mb": memory.driver[-1] / 1e6,
            "peak_memory_gb": memory.peak / 1e9,
        }


def recovery(kills: int) -> dict[str, float]:
    """Kill the worker of a stage that trains on automata, again and again, and see when the stage is further than it
    was: seconds."""
    long = Train(Corpus(AUTOMATA, 0), 6_000_000, MODEL, Recipe(lr=3e-3, batch=8), 0, Evaluation(2, 4))
    plan = plans.make(Study("recovery", "?", lambda: long, []))
    took: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "store")
        stop = Path(directory) / "stop"
        options = Options(checkpoint_every_s=2, stop=stop)
        allotment = allot({"CPU": 2.0}, plan.stages)
        running = threading.Thread(target=sweep.run, args=(plan, store, allotment, options))
        running.start()
        for _ in range(kills):
            at = further(store, digest(long), 50)
            (worker,) = (p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(cmd(p)))
            began = time.perf_counter()
            worker.kill()
            further(store, digest(long), at)
            took.append(time.perf_counter() - began)
        stop.touch()
        running.join()
    return {"median_s": statistics.median(took), "max_s": max(took), "kills": kills}


def cmd(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def further(store: Store, address: str, step: int) -> int:
    """The step of a stage, once it is more than `step` and was told after now."""
    live, since = store.resume(address) / "live.json", time.time()
    while True:
        try:
            found = int(json.loads(live.read_text())["step"])
            if found > step and live.stat().st_mtime > since + 0.5:
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.05)


# ---- several stages to a GPU


def ten_million(seed: int, batch: int, steps: int) -> Train:
    """A stage on text of `steps` steps of `batch` sequences."""
    tokens = steps * batch * TEN_MILLION.model.context
    recipe = replace(TEN_MILLION.recipe(tokens), batch=batch, warmup=tokens // 50)
    text = Corpus(TEXT, seed, epochs=10_000)
    return Train(text, tokens, TEN_MILLION.model, recipe, seed, Evaluation(4, 16))


def sharing(batch: int, steps: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The wall time of stages of 10M parameters one by one, and of as many at once as are to share the GPU. A short
    stage comes first, so that neither way compiles what the other then finds compiled."""
    first = seeds("first", lambda seed: ten_million(seed, batch, 10), [], 1)
    plan = seeds("sharing", lambda seed: ten_million(seed, batch, steps), [], SHARERS)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        ways = (("first", first, 1), ("at_once", plan, SHARERS), ("one_by_one", plan, 1))
        for name, stages_of, sharers in ways:
            found[name] = shared(stages_of, Store(Path(directory) / name), sharers)
            yield name, found[name]
    yield "ratio", {"wall": found["one_by_one"]["wall_s"] / found["at_once"]["wall_s"]}


def shared(plan: plans.Plan, store: Store, sharers: int) -> dict[str, float]:
    """Run `plan`, of stages on one text, with `sharers` stages on the GPU at once."""
    trains = {address: stage for address, stage in plan.stages.items() if isinstance(stage, Train)}
    for address, stage in plan.stages.items():
        if address not in trains:
            stages.run_here(stage, store)
    workers = Workers(per_gpu=sharers)
    started = time.perf_counter()
    allotment = allot(ray.cluster_resources(), plan.stages, [workers], sharers)
    outcome = sweep.run(plan, store, allotment, Options(checkpoint_every_s=600))
    wall = time.perf_counter() - started
    if outcome.failed:
        raise SystemExit(f"failed: {outcome.failed}")
    manifests = [m for address in trains if (m := store.manifest(address))]
    trained = sum(m["train_s"] + m["wait_s"] for m in manifests)
    return {"wall_s": wall, "train_s_per_stage": trained / len(manifests)}


# ---- planning


BANDS = 4


def banded(band: int, seed: int, copy: int = 0) -> Train:
    automata = Corpus(NCA(states=2, grid=8, patch=2, band=(band / 1000, 0.9)), seed)
    return scratch(seed).after(Train(automata, 200_000, MODEL, Recipe(lr=3e-3, batch=8), seed, Evaluation(4, 16)))


def grid(count: int, copies: int = 1) -> Study:
    """A study of `count` seeds: as many points from scratch, and after automata BANDS times as many, of which `copies`
    each are one training."""
    axes = {"band": BANDS, "seed": count, "copy": copies}
    over = {name: tune.grid_search(list(range(size))) for name, size in axes.items()}
    return Study("planning", "?", scratch, [banded], over)


def planning(study: Study) -> dict[str, float]:
    """Plan and register `study`."""
    started = time.perf_counter()
    plan = plans.make(study)
    _ = plan.registered
    return {
        "points": len(plan.points),
        "stages": len(plan.stages),
        "plan_s": time.perf_counter() - started,
    }


def status(count: int) -> dict[str, float]:
    """Look at a study of `count` stages that are all in the store."""
    plan = plans.make(grid(count // (1 + 2 * BANDS)))
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory) / "store")
        manifest = stages.run_here(short(0), store)
        source = store.open(digest(short(0)))
        assert source is not None
        for address in plan.stages:
            attempt = store.begin(address)
            shutil.copy(source / "curve.jsonl", attempt)
            write_json(attempt / "manifest.json", manifest | {"digest": address})
            store.publish(address, attempt)
        started = time.perf_counter()
        views = watch.Watch(plan, store).look().stages
        looked = time.perf_counter() - started
        assert all(v.state == "done" for v in views)
    return {"stages": len(plan.stages), "status_s": looked}


def measure(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    parts = args.parts.split(",")
    if "planning" in parts:
        yield "planning", planning(grid(345, copies=7))
        yield "planning.one_training_a_point", planning(grid(2_000))
        yield "status", status(3_000)
    if parts == ["sharing"]:
        connection.connect()
        for name, figures in sharing(args.sequences, args.steps):
            yield f"sharing.{name}", figures
    elif {"data", "overhead", "many", "recovery"} & set(parts):
        connection.connect(2)
    if "data" in parts:
        for consumers in CONSUMERS:
            yield f"data.{consumers}", data_path(consumers, args.seconds)
    if "overhead" in parts:
        for concurrent, in_trial in itertools.product((1, 2), (False, True)):
            name = f"overhead.{'in_trial' if in_trial else 'ray_train'}.{concurrent}_at_once"
            yield name, overhead(args.stages, concurrent, in_trial)
    if "many" in parts:
        yield "many", many(200)
    if "recovery" in parts:
        yield "recovery", recovery(5)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"(default {','.join(PARTS)})")
    parser.add_argument("--stages", type=int, default=3, help="of each kind, for the overhead (default 3)")
    parser.add_argument("--seconds", type=float, default=80.0, help="of the data path (default 80)")
    parser.add_argument("--sequences", type=int, default=8, help="a step, of the stages that share (default 8)")
    parser.add_argument("--steps", type=int, default=1000, help="of each of them (default 1000)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "sharing" in args.parts and args.parts != "sharing":
        parser.error(f"--parts {args.parts}: sharing has the whole machine, the others two cores; run it alone")
    results: dict[str, float] = {}
    for part, figures in measure(args):
        for name, value in figures.items():
            results[f"{part}.{name}"] = value
            print(f"{f'{part}.{name}':<55} {value:12.3f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
