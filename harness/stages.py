"""From a stage to its artifact in the store: open what it reads, run it, publish it. The same on Ray's workers and in
this process; only the `Worker`, and how text is spread over a cluster, differ."""

import datetime
import functools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness import baselines, environment, loop, metrics, resume
from harness.errors import InputError
from harness.progress import Count, Teller, counting
from harness.reasoning.spec import Evaluate, Means
from harness.sources import answers, checking
from harness.sources.tokenising import BLOCK_CHARACTERS, tokenise
from harness.specs import Sequences, Stage, Train, canonical, digest, parents
from harness.store import Store, write_json
from harness.url import Place
from harness.worker import Options, Stopped, Worker

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
    """Raise InputError where `spec` asks for more than its epochs of a finite source, or for more held-out sequences
    than there are beside those that it skips."""
    if spec.evaluation.skip:
        metrics.held_out(spec, reader)
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
    if not spec.corpus.source.stored:
        checking.look(spec.corpus.source, reader, spec.model.context)
    check_budget(spec, reader)
    weights = read_weights(store, inputs["init"]) if "init" in inputs else None
    start = start_of(spec, store, worker.options)
    trained = loop.train(spec, worker, reader, weights, attempt, store.resume(address), start)
    if attempt is None:
        return trained
    manifest = {
        **header(spec, started),
        **trained,
        "parents": inputs,
        "start": start[1] if start else None,
        "executed": worker.executed,
        "hardware": environment.hardware(worker.device),
        "threads": worker.threads,
        "world": worker.world,
        "vocab_size": spec.vocab_size,
        "params": spec.model.params(spec.io_width),
        "params_body": spec.model.body_params,
        "flops": spec.flops,
    }
    if not spec.corpus.source.stored:
        manifest |= describe_generated(spec, reader, attempt)
        manifest["held_out"] |= score_baselines(spec, reader)
    else:
        manifest |= {"acceptance": None, "generation_flops": 0}
        if hasattr(reader, "dropped"):
            manifest["dropped"] = reader.dropped(spec.model.context)
    manifest["wall_s"] = time.perf_counter() - clock
    write_json(attempt / "manifest.json", manifest)
    store.publish(address, attempt)
    return manifest


Write = Callable[[Any, Path, Count], dict[str, Any]]
"""(source, directory, count) -> what it wrote, for the manifest; a text calls `count` with its parts."""


def run_stored(source: Any, store: Store, write: Write, executed: str) -> dict[str, Any]:
    """Run the stage that puts a source's tokens into the store; `write` does it. Returns the manifest; raises Stopped
    if `write` does."""
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    attempt = store.begin(digest(source))
    with counting(Teller(store.resume(digest(source)), attempt)) as count:
        try:
            written = write(source, attempt, count)
        except Stopped:
            shutil.rmtree(attempt, ignore_errors=True)
            raise
        except Exception:
            # Another driver on this store may have been first; then what it worked from is gone.
            other = store.manifest(digest(source))
            if other is None:
                raise
            shutil.rmtree(attempt, ignore_errors=True)
            return other
        manifest = {
            **header(source, started),
            "status": "finished",
            "parents": {role: digest(stage) for role, stage in parents(source).items()},
            "executed": executed,
            "hardware": environment.hardware("cpu"),
            **written,
            "wall_s": time.perf_counter() - clock,
        }
        write_json(attempt / "manifest.json", manifest)
        store.publish(digest(source), attempt)  # of a large text, minutes
    return manifest


def run_here(stage: Stage, store: Store, worker: Worker | None = None) -> dict[str, Any]:
    """The in-process twin: any stage in this process, without Ray. Returns the manifest."""
    worker = worker or Worker()
    if isinstance(stage, Train):
        return run_train(stage, store, worker)
    if isinstance(stage, Evaluate):
        from harness.reasoning import run

        by = run.Executor(worker.executed)
        return run.evaluate(stage, store, means(worker), by=by, stop=worker.stop)
    return run_stored(stage, store, writer(stage, store, functools.partial(tokenise, stop=worker.stop)), "in_process")


def means(worker: Worker) -> Means:
    """How `worker` carries an evaluation out."""
    return worker.options.means._replace(device=worker.device, threads=worker.threads)


def writer(source: Any, store: Store, tokenise: Callable[..., dict[str, Any]]) -> Write:
    """What writes the artifact of a stored source: `tokenise`, or for answers what uses the tokenizer of their text."""
    if not isinstance(source, answers.Answers):
        return functools.partial(tokenise, work=blocks_of(source, store))
    text = store.open(digest(source.text))
    assert text is not None, f"stage {digest(source.text)} is not in the store"
    tokenizer = (text / "tokenizer.json").read_text("utf-8")
    return lambda source, directory, _: answers.write(source, directory, tokenizer)


def blocks_of(source: Any, store: Store) -> Place:
    """Where blocks of a text lie while it is tokenised: they outlive a restart, and go when the text is published."""
    return store.resume(digest(source)) / f"blocks-{BLOCK_CHARACTERS}"


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
    acceptance, complexity = reader.accepted(ACCEPTANCE_RULES) if hasattr(reader, "accepted") else (None, None)
    if hasattr(reader, "frames"):
        frames, scores = reader.frames(PICTURES, PICTURE_FRAMES)
        np.savez_compressed(attempt / "frames.npz", frames=frames, scores=scores)
    flops = source.flops_per_token(context) if hasattr(source, "flops_per_token") else 0.0
    generation_flops = int(spec.tokens * flops / (acceptance or 1.0))
    return {"acceptance": acceptance, "complexity": complexity, "generation_flops": generation_flops}


def score_baselines(spec: Train, reader: Sequences) -> dict[str, Any]:
    """Losses, on this stage's held-out sequences, of predictors that need no learning in context."""
    context = spec.model.context
    count = min(spec.steps * spec.recipe.batch, max(1, BASELINE_TOKENS // context))
    fit = reader.sequences(spec.corpus.seed, np.arange(count, dtype=np.int64), context)
    held_out = metrics.held_out(spec, reader)
    return baselines.fit_and_score(fit, held_out, spec.vocab_size, spec.corpus.source.frame_tokens)


def start_of(spec: Train, store: Store, options: Options) -> tuple[Path, str] | None:
    """Where the state lies that `spec` goes on from, and its digest; None if it has none, or that is not there."""
    state = options.starts.get(digest(spec))
    attempt = None if state is None else store.open(state)
    return None if state is None or attempt is None else (attempt / "state", state)


def first_step(spec: Train, store: Store, options: Options) -> int:
    """The step at which a worker that is started now begins."""
    return resume.newest_or(store.resume(digest(spec)), digest(spec), start_of(spec, store, options)).step


def committed_step(spec: Train, store: Store) -> int:
    """The step at which a restart of `spec` goes on."""
    return resume.newest(store.resume(digest(spec)), digest(spec)).step
