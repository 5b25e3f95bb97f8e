"""From a stage to its artifact in the store: open what it reads, run it, publish it. The same on Ray's workers and in
this process; only the `Worker`, and how text is spread over a cluster, differ."""

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness import baselines, environment, loop, resume
from harness.errors import InputError
from harness.sources.tokenising import tokenise
from harness.specs import Sequences, Stage, Train, canonical, digest, parents
from harness.store import Store, write_json
from harness.worker import Worker

FORMAT = 1
BASELINE_TOKENS = 2**19
"""Training tokens to which the learned-task baselines are fitted."""
PICTURES, PICTURE_FRAMES = 6, 24
ACCEPTANCE_RULES = 2048
"""Candidates whose scores give the acceptance rate: a standard error of about .01."""


def open_reader(spec: Train, store: Store) -> Sequences:
    """The sequences of `spec`, generated or read from the tokenised artifact."""
    source = spec.corpus.source
    return source.open(store.open(digest(source)) if source.stored else None)


def check_budget(spec: Train, reader: Sequences) -> None:
    """Raise InputError where `spec` asks for more than its epochs of a finite source."""
    epoch = reader.epoch(spec.model.context)
    if epoch is None:
        return
    available = epoch * spec.corpus.epochs
    needed = spec.steps * spec.recipe.batch
    if needed > available:
        raise InputError(
            f"Train.tokens = {spec.tokens}: {needed} sequences are asked for and {spec.corpus.epochs} epoch(s) hold "
            f"{available} ({available * spec.model.context} tokens); shorten the budget or set Corpus(epochs="
            f"{-(-needed // epoch)})"
        )


def run_train(spec: Train, store: Store, worker: Worker) -> dict[str, Any]:
    """Run a training stage on this rank; rank 0 publishes. Returns the manifest."""
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    address = digest(spec)
    inputs = {role: digest(stage) for role, stage in parents(spec).items()}
    attempt = store.begin(address) if worker.rank == 0 else None
    reader = open_reader(spec, store)
    check_budget(spec, reader)
    weights = read_weights(store, inputs["init"]) if "init" in inputs else None
    trained = loop.train(spec, worker, reader, weights, attempt, store.resume(address))
    if attempt is None:
        return trained
    manifest = {
        **header(spec, started),
        **trained,
        "parents": inputs,
        "executed": worker.executed,
        "hardware": environment.hardware(worker.device),
        "threads": worker.threads,
        "world": worker.world,
        "vocab_size": spec.vocab_size,
        "params": spec.model.params(spec.vocab_size),
        "params_body": spec.model.body_params,
        "flops": spec.flops,
    }
    if not spec.corpus.source.stored:
        manifest |= describe_generated(spec, reader, attempt)
        manifest["held_out"] |= score_baselines(spec, reader)
    else:
        manifest |= {"acceptance": None, "generation_flops": 0}
    manifest["wall_s"] = time.perf_counter() - clock
    write_json(attempt / "manifest.json", manifest)
    store.publish(address, attempt)
    return manifest


def run_stored(
    source: Any, store: Store, write: Callable[[Any, Path], dict[str, Any]], executed: str
) -> dict[str, Any]:
    """Run the stage that puts a source's tokens into the store; `write(source, directory)` does it and says what it
    wrote. Returns the manifest."""
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    attempt = store.begin(digest(source))
    written = write(source, attempt)
    manifest = {
        **header(source, started),
        "status": "finished",
        "parents": {},
        "executed": executed,
        "hardware": environment.hardware("cpu"),
        **written,
        "wall_s": time.perf_counter() - clock,
    }
    write_json(attempt / "manifest.json", manifest)
    store.publish(digest(source), attempt)
    return manifest


def run_here(stage: Stage, store: Store, worker: Worker | None = None) -> dict[str, Any]:
    """The in-process twin: any stage in this process, without Ray. Returns the manifest."""
    if isinstance(stage, Train):
        return run_train(stage, store, worker or Worker())
    return run_stored(stage, store, tokenise, "in_process")


def header(stage: Stage, started: datetime.datetime) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": type(stage).__name__,
        "digest": digest(stage),
        "spec": canonical(stage),
        "commit": environment.commit(),
        "versions": environment.versions(),
        "started": started.isoformat(timespec="seconds"),
    }


def read_weights(store: Store, address: str) -> dict[str, Any]:
    """Weights of a published stage, by parameter name."""
    from safetensors.torch import load_file

    attempt = store.open(address)
    assert attempt is not None, f"stage {address} is not in the store"
    return load_file(attempt / "weights" / "model.safetensors")


def describe_generated(spec: Train, reader: Any, attempt: Path) -> dict[str, Any]:
    """What generation cost and, for sources with pictures, a few of them in `frames.npz`."""
    source = spec.corpus.source
    context = spec.model.context
    acceptance = reader.acceptance(ACCEPTANCE_RULES) if hasattr(reader, "acceptance") else None
    if hasattr(reader, "frames"):
        frames, scores = reader.frames(PICTURES, PICTURE_FRAMES)
        np.savez_compressed(attempt / "frames.npz", frames=frames, scores=scores)
    flops = source.flops_per_token(context) if hasattr(source, "flops_per_token") else 0.0
    return {"acceptance": acceptance, "generation_flops": int(spec.tokens * flops / (acceptance or 1.0))}


def score_baselines(spec: Train, reader: Sequences) -> dict[str, Any]:
    """Losses, on this stage's held-out sequences, of predictors that need no learning in context."""
    context = spec.model.context
    count = min(spec.steps * spec.recipe.batch, max(1, BASELINE_TOKENS // context))
    fit = reader.sequences(spec.corpus.seed, np.arange(count, dtype=np.int64), context)
    held_out = reader.held_out(spec.evaluation.sequences, context)
    return baselines.fit_and_score(fit, held_out, spec.vocab_size, spec.corpus.source.frame_tokens)


def committed_step(spec: Train, store: Store) -> int:
    """The step at which a restart of `spec` goes on."""
    return resume.committed_step(store.resume(digest(spec)))
