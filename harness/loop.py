"""The one training loop: every stage, in this process or on the ranks that Ray Train started."""

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness import device, layout, metrics, model, parallel, resume, schedule
from harness.curve import Clock, Curve, finite
from harness.layout import Layout
from harness.rng import named_seed
from harness.specs import Sequences, State, Train, digest
from harness.transfer import Scales, initial_weight
from harness.url import Place, Url
from harness.worker import Batch, Stopped, Worker

if TYPE_CHECKING:
    import torch

NOTICE_S = 2.0
"""How often a worker asks whether its machine is about to be taken away, or whether it is to stop; then it saves at
once."""


class Begun(NamedTuple):
    """A stage that can take its next step."""

    chosen: Layout
    net: Any
    ranked: Any
    """`net`, or what averages its gradients over the ranks."""
    optimizer: Any
    found: resume.Found
    scales: dict[str, float]
    """Standard deviations of the weights before the first step."""


def train(
    spec: Train,
    worker: Worker,
    reader: Sequences,
    parent: "Mapping[str, torch.Tensor] | None",
    attempt: Path | None,
    resume_directory: Place,
    start: tuple[Path, str] | None = None,
) -> dict[str, Any]:
    """Run `spec` to its last step, from its newest resume checkpoint if there is one, else from `start`: the directory
    and digest of a `State` that it goes through.

    `parent` holds the weights of `spec.init`. Rank 0 has an `attempt` directory and writes `curve.jsonl` there as it
    goes, and `weights/` at the end, or `state/` if `spec` is a `State`. Returns what the manifest says of the training:
    status, clocks, final measures. A loss that is not finite ends the stage with the status "diverged", without
    weights. Raises Stopped when the worker is told to stop; InputError where one sequence does not fit into memory, a
    checkpoint is of another stage, or the parent's weights do not fit.
    """
    import torch

    torch.set_num_threads(worker.threads)
    with parallel.process_group(worker.world), contextlib.ExitStack() as ending:
        setup_started = time.perf_counter()
        begun = begin(spec, worker, parent, resume_directory, start)
        del parent
        here = resume.local(resume_directory) if isinstance(resume_directory, Url) else None
        saver = resume.Saver(digest(spec), worker.rank, worker.world, device.kind(worker.device), here)
        ending.callback(saver.close)
        held_out = metrics.HeldOut(*metrics.held_out(spec, reader), token_bytes=reader.token_bytes)
        copies = metrics.random_copies(held_out) if spec.corpus.source.stored else None
        peak_flops = device.matrix_peak(worker.device, spec.recipe.precision)
        saved, evaluation_steps = begun.found.state, set(spec.evaluation_steps)
        # A state may have been measured where this stage is not.
        rows = [row for row in saved.get("rows", []) if row["step"] in evaluation_steps or isinstance(spec, State)]
        curve = Curve(spec, attempt, rows, worker, peak_flops, resume_directory)
        ending.callback(curve.close)
        for line in begun.found.damaged:
            curve.note(line)
        own_hash = saved.get("hash", 0) if worker.rank == 0 else 0
        clock = Clock(saved.get("clock"))
        setup_s = time.perf_counter() - setup_started
        marks = schedule.marks(spec)
        last_checkpoint = last_notice = time.perf_counter()
        status, final = "finished", None
        train_loss = grad_norm = None
        step = begun.found.step

        def measure() -> metrics.Sums:
            sums, induction = held_out_measures(begun, spec, worker, held_out, copies)
            clock.charge("evaluate")
            if step not in curve.steps:
                curve.add(step, sums, held_out.bytes, induction, train_loss, grad_norm, clock)
                clock.charge("evaluate")
            return sums

        def save(directory: Place) -> None:
            nonlocal own_hash
            total_hash = parallel.total_words(own_hash, worker.world, worker.device)
            own_hash = total_hash if worker.rank == 0 else 0
            state = {"rows": curve.rows, "hash": total_hash, "clock": clock.spent, "scales": begun.scales}
            saver.save(directory, step, checkpoint_tensors(begun.net, begun.optimizer), state)

        if step in evaluation_steps:
            final = measure()
        first = True
        for batch in stream(worker, spec, reader, step):
            clock.charge("first_batch" if first else "wait")
            first = False
            own_hash = (own_hash + hash_rows(batch)) % 2**64
            loss, count, grad_norm = optimizer_step(begun, spec, worker, batch, step)
            now = time.perf_counter()
            # All ranks go by rank 0's clock.
            clocks = (now - last_checkpoint >= worker.options.checkpoint_every_s, now - last_notice >= NOTICE_S)
            mine = [loss, count, *(due and worker.rank == 0 for due in clocks)]
            nats, targets, save_due, notice_due = parallel.total(mine, worker.world, worker.device)
            train_loss = nats / max(targets, 1.0)
            step += 1
            clock.charge("train")
            curve.live(step, train_loss, clock, saver.failure)
            if not math.isfinite(train_loss) or not math.isfinite(grad_norm):
                status = "diverged"
                break
            if step in evaluation_steps:
                final = measure()
            noticed = stopped = False
            if notice_due:
                noticed, stopped, last_notice = worker.notice(), worker.stop(), now
            if step < spec.steps and (save_due or noticed or stopped or step in marks):
                save(resume_directory)
                if noticed or stopped:
                    saver.wait()
                last_checkpoint = time.perf_counter()
                if stopped:
                    curve.forget()
                    raise Stopped(f"stopped at step {step}")
            clock.charge("checkpoint")
        if final is None or status == "diverged":
            final = measure()
        if status == "finished" and isinstance(spec, State):
            # The attempt of an object store is on rank 0's machine alone: the ranks meet there.
            place = Path(parallel.of_rank_0(str(attempt), worker.world)) / "state" if here is None else resume_directory
            save(place)
            saver.wait()
            if saver.failure is not None:
                raise OSError(saver.failure)
            if here is not None and attempt is not None:
                resume.copy_newest(resume_directory, digest(spec), attempt / "state")
        elif status == "finished":
            save_weights(begun.net, attempt)
        return {
            "status": status,
            "setup_s": setup_s,
            **{f"{purpose}_s": seconds for purpose, seconds in clock.spent.items()},
            "tokens": step * spec.step_tokens,
            "sequences": step * spec.recipe.batch,
            "sequence_hash": f"{parallel.total_words(own_hash, worker.world, worker.device):016x}",
            "scales": begun.scales,
            "layout": dataclasses.asdict(begun.chosen),
            "peak_flops": peak_flops,
            "memory_bytes": device.peak_memory(worker.device),
            "notes": curve.notes,
            "held_out": held_out_summary(spec, final, held_out),
        }


def begin(
    spec: Train,
    worker: Worker,
    parent: "Mapping[str, torch.Tensor] | None",
    resume_directory: Place,
    start: tuple[Path, str] | None,
) -> Begun:
    """The model and the optimizer, laid out over the ranks, as they were at the newest checkpoint, at `start` or before
    step 0."""
    here = layout.here(worker.device, worker.world, worker.local_world, worker.memory_share)
    place = layout.common(parallel.of_all_ranks(here, worker.world))
    asked = worker.options.layout
    if spec.recipe.attention_dropout:
        asked = replace(asked, micro_batch=1)  # every sequence has draws of its own
    chosen = layout.choose(spec, asked, place, worker.rows(spec.recipe.batch)[-1])
    newest = resume.newest_or(resume_directory, digest(spec), start, read=True) if worker.rank == 0 else None
    found = parallel.of_rank_0(newest, worker.world)
    net = model.build(spec.model, spec.io_width, spec.recipe.attention_dropout, "meta")
    parallel.shard(net, chosen, place)
    model.materialise(net, worker.device)
    optimizer = make_optimizer(spec, net)
    if found.place is None:
        fresh = Scales()
        for name, parameter in model.weights(net).items():
            full = initial_weight(spec, name, parameter.shape, parent)
            fresh.add(name, full)
            parallel.fill(parameter, full)
        scales = fresh.found()
    else:
        begin_moments(net, optimizer, found.step)
        resume.load(found.place, checkpoint_tensors(net, optimizer))
        scales = found.state["scales"]
    return Begun(chosen, net, parallel.replicate(net.train(), chosen, place), optimizer, found, scales)


def held_out_measures(
    begun: Begun, spec: Train, worker: Worker, held_out: metrics.HeldOut, copies: Any
) -> tuple[metrics.Sums, float | None]:
    """Sums over the held-out set and, with `copies`, the induction probe (nats)."""
    precision, rows = spec.recipe.precision, begun.chosen.micro_batch or 1
    sums = metrics.evaluate(begun.net, held_out, precision, worker.rank, worker.world, worker.device, rows)
    induction = None
    if copies is not None:
        induction = metrics.induction_nats(begun.net, copies, precision, worker.device)
    parallel.reshard(begun.net)
    return sums, induction


def stream(worker: Worker, spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
    """The worker's batches, held to the numbers that they must carry and to their count."""
    step = first_step
    for batch in worker.stream(spec, reader, first_step):
        low, high = step * spec.recipe.batch, (step + 1) * spec.recipe.batch
        if (
            len(batch.index) not in worker.rows(spec.recipe.batch)
            or not (low <= batch.index).all() & (batch.index < high).all()
        ):
            raise RuntimeError(f"step {step} got sequences {batch.index.tolist()}, outside {low} to {high - 1}")
        yield batch
        step += 1
    if step != spec.steps:
        raise RuntimeError(f"the data ended after step {step} of {spec.steps}")


def optimizer_step(begun: Begun, spec: Train, worker: Worker, batch: Batch, step: int) -> tuple[float, int, float]:
    """Update number `step` from this rank's `batch`, a micro-batch at a time. Returns the rank's summed loss (nats),
    its number of targets and the gradient norm before clipping. The gradient is that of the mean over the targets of
    the whole step, however they are spread over ranks and micro-batches."""
    import torch

    rows, micro = worker.rows(spec.recipe.batch)[-1], begun.chosen.micro_batch or len(batch.index)
    index, inputs, targets = padded(batch, rows)
    count = int((targets >= 0).sum())
    everywhere, sequences = parallel.total([count, len(batch.index)], worker.world, worker.device)
    if sequences != spec.recipe.batch:
        raise RuntimeError(f"step {step} got {sequences:.0f} sequences over all ranks instead of {spec.recipe.batch}")
    inputs = torch.from_numpy(inputs).long().to(worker.device)
    targets = torch.from_numpy(targets).long().to(worker.device)
    summed = torch.zeros((), dtype=torch.float64, device=worker.device)
    for low in range(0, rows, micro):
        if spec.recipe.attention_dropout:
            torch.manual_seed(named_seed("attention dropout", spec.seed, int(index[low])) % 2**63)
        with parallel.accumulate(begun.ranked) if low + micro < rows else contextlib.nullcontext():
            loss = model.summed_nats(
                begun.ranked, inputs[low : low + micro], targets[low : low + micro], spec.recipe.precision
            )
            (loss * (worker.world / everywhere)).backward()  # the ranks' gradients are averaged
        summed += loss.detach()
    norm = parallel.clip(begun.net, spec.recipe.clip if spec.recipe.clip is not None else math.inf)
    for group in begun.optimizer.param_groups:
        group["lr"] = schedule.lr_at(spec, step)
    begun.optimizer.step()
    begun.optimizer.zero_grad(set_to_none=True)
    return float(summed), count, norm


def padded(batch: Batch, rows: int) -> Batch:
    """`batch` with sequences that have no targets, up to `rows`: every rank must make as many passes as the others."""
    missing = rows - len(batch.index)
    if not missing:
        return batch
    context = batch.inputs.shape[1]
    return Batch(
        np.concatenate([batch.index, np.zeros(missing, np.int64)]),
        np.concatenate([batch.inputs, np.zeros((missing, context), np.int32)]),
        np.concatenate([batch.targets, np.full((missing, context), -100, np.int32)]),
    )


def make_optimizer(spec: Train, net: Any) -> Any:
    """AdamW; weight decay on matrices alone."""
    import torch

    matrices = [p for p in net.parameters() if p.ndim >= 2]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": spec.recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=spec.recipe.lr,
        betas=(spec.recipe.beta1, spec.recipe.beta2),
        eps=spec.recipe.eps,
        fused=True,
    )


MOMENTS = ("exp_avg", "exp_avg_sq")


def begin_moments(net: Any, optimizer: Any, step: int) -> None:
    """Give `optimizer` the state of one that made `step` steps, with moments that `checkpoint_tensors` can fill."""
    import torch

    for parameter in net.parameters():
        state = optimizer.state[parameter]
        state["step"] = torch.tensor(float(step), device=parameter.device)
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(parameter, requires_grad=False)


def checkpoint_tensors(net: Any, optimizer: Any) -> "dict[str, torch.Tensor]":
    """The weights and both moments by name, as they lie on this rank (the number of steps is that of the stage)."""
    tensors = {}
    for name, parameter in model.weights(net).items():
        tensors[f"weights.{name}"] = parameter.detach()
        tensors |= {f"{moment}.{name}": optimizer.state[parameter][moment] for moment in MOMENTS}
    return tensors


def save_weights(net: Any, attempt: Path | None) -> None:
    """`model.safetensors` and `config.json` in `weights/`, as transformers reads them, on the rank that has an
    `attempt`; all ranks take part."""
    from safetensors.torch import save_file

    weights = {}
    for name, parameter in model.weights(net).items():
        full = parallel.whole(parameter)
        if attempt is not None:
            weights[name] = full
    if attempt is None:
        return
    directory = attempt / "weights"
    directory.mkdir(parents=True)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    net.config.architectures = ["LlamaForCausalLM"]
    (directory / "config.json").write_text(net.config.to_json_string())


def hash_rows(batch: Batch) -> int:
    """Sum over rows of a 64-bit hash of (index, inputs), modulo 2**64: the same for any order and any ranks, so that
    a whole stage's can be recomputed from its source."""
    total = 0
    for index, row in zip(batch.index.tolist(), batch.inputs, strict=True):
        data = index.to_bytes(8, "little") + row.astype("<i4").tobytes()
        total += int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    return total % 2**64


def held_out_summary(spec: Train, final: metrics.Sums, data: metrics.HeldOut) -> dict[str, Any]:
    """The last measures; with frames, over patch tokens alone and by frame, as the learned-task check reads them."""
    frame_tokens = spec.corpus.source.frame_tokens
    count, nats, correct = final.count, final.nats, final.correct
    if frame_tokens is not None:
        patch = metrics.is_patch(len(count), frame_tokens)
        count, nats, correct = count[patch], nats[patch], correct[patch]
    targets = metrics.Sums(nats, correct, count)
    return {
        "loss_nats": finite(targets.loss_nats),
        "loss_bits_per_byte": finite(final.bits_per_byte(data.bytes)),
        "accuracy": targets.accuracy,
        "targets": int(count.sum()),
        **metrics.frames(final, frame_tokens),
    }
