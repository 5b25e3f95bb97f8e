"""The one training loop: every stage, in this process or on the ranks that Ray Train started."""

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import metrics, model, parallel, resume
from harness.curve import Clock, Curve, finite
from harness.schedule import lr_at
from harness.specs import Sequences, Train
from harness.transfer import initial_weights, scales
from harness.worker import Batch, Worker

if TYPE_CHECKING:
    import torch


def train(
    spec: Train,
    worker: Worker,
    reader: Sequences,
    parent: "dict[str, torch.Tensor] | None",
    attempt: Path | None,
    resume_directory: Path,
) -> dict[str, Any]:
    """Run `spec` to its last step, from its newest resume checkpoint if there is one.

    `parent` holds the weights of `spec.init`. Rank 0 has an `attempt` directory and writes `curve.jsonl` there as it
    goes, and `weights/` at the end. Returns what the manifest says of the training: status, clocks, final measures.
    A loss that is not finite ends the stage with the status "diverged", without weights.
    """
    import torch

    torch.set_num_threads(worker.threads)
    setup_started = time.perf_counter()
    net = model.build(spec.model, spec.vocab_size)
    checkpoint = resume.newest_state(resume_directory)
    saved = resume.load_tensors(checkpoint[0]) if checkpoint else None
    state = checkpoint[1] if checkpoint else {"step": 0, "rows": [], "hash": 0, "clock": None, "scales": None}
    start = (
        {name: saved[f"model.{name}"] for name in model.weights(net)}
        if saved
        else initial_weights(spec, {n: p.shape for n, p in model.weights(net).items()}, parent)
    )
    with torch.no_grad():
        for name, parameter in model.weights(net).items():
            parameter.copy_(start[name])
    net.to(worker.device).train()
    optimizer = make_optimizer(spec, net)
    if saved:
        restore_optimizer(optimizer, net, saved)
    net_scales = state["scales"] or scales(start)
    del start, saved, parent
    ranked = parallel.spread(net, worker.world)

    held_out = metrics.HeldOut(
        *reader.held_out(spec.evaluation.sequences, spec.model.context), token_bytes=reader.token_bytes
    )
    copies = metrics.random_copies(held_out) if spec.corpus.source.stored else None
    micro = worker.micro_batch or spec.recipe.batch // worker.world
    evaluation_steps = set(spec.evaluation.steps(spec.steps))
    curve = Curve(attempt, state["rows"], worker)
    own_hash = state["hash"] if worker.rank == 0 else 0
    clock = Clock(state["clock"])
    setup_s = time.perf_counter() - setup_started
    last_checkpoint = time.perf_counter()
    status, final = "finished", None
    train_loss = grad_norm = None
    step = int(state["step"])

    def measure(step: int) -> metrics.Sums:
        sums = metrics.evaluate(net, held_out, spec.recipe.precision, worker.rank, worker.world, worker.device, micro)
        induction = None
        if copies is not None:
            induction = metrics.induction_nats(net, copies, spec.recipe.precision, worker.device)
        clock.charge("evaluate")
        if step not in curve.steps:
            curve.add(step, spec, sums, held_out.bytes, induction, train_loss, grad_norm, clock)
            clock.charge("evaluate")
        return sums

    if step in evaluation_steps:
        final = measure(step)
    first = True
    for batch in stream(worker, spec, reader, step):
        clock.charge("first_batch" if first else "wait")
        first = False
        own_hash = (own_hash + hash_rows(batch)) % 2**64
        loss, count, grad_norm = optimizer_step(ranked, optimizer, spec, worker, batch, micro, lr_at(spec, step))
        due = time.perf_counter() - last_checkpoint >= worker.checkpoint_every_s and step + 1 < spec.steps
        nats, targets, save = parallel.total(
            [loss, count, float(due and worker.rank == 0)], worker.world, worker.device
        )
        train_loss = nats / max(targets, 1.0)
        step += 1
        clock.charge("train")
        curve.live(step, spec, train_loss, resume_directory)
        clock.charge("checkpoint")
        if not math.isfinite(train_loss) or not math.isfinite(grad_norm):
            status = "diverged"
            break
        if step in evaluation_steps:
            final = measure(step)
        if save:
            total_hash = parallel.total_words(own_hash, worker.world, worker.device)
            own_hash = total_hash if worker.rank == 0 else 0
            if worker.rank == 0:
                tensors = checkpoint_tensors(net, optimizer)
                row_state = {"rows": curve.rows, "hash": total_hash, "clock": clock.spent, "scales": net_scales}
                resume.save(resume_directory, step, tensors, row_state)
            clock.charge("checkpoint")
            last_checkpoint = time.perf_counter()
    if final is None or status == "diverged":
        final = measure(step)
    total_hash = parallel.total_words(own_hash, worker.world, worker.device)
    if attempt is not None and status == "finished":
        save_weights(net, attempt / "weights")
    return {
        "status": status,
        "setup_s": setup_s,
        **{f"{purpose}_s": seconds for purpose, seconds in clock.spent.items()},
        "tokens": step * spec.step_tokens,
        "sequences": step * spec.recipe.batch,
        "sequence_hash": f"{total_hash:016x}",
        "scales": net_scales,
        "held_out": held_out_summary(spec, final, held_out),
    }


def stream(worker: Worker, spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
    """The worker's batches, held to the numbers that they must carry and to their count."""
    step = first_step
    for batch in worker.stream(spec, reader, first_step):
        low, high = step * spec.recipe.batch, (step + 1) * spec.recipe.batch
        if (
            len(batch.index) != spec.recipe.batch // worker.world
            or not (low <= batch.index).all() & (batch.index < high).all()
        ):
            raise RuntimeError(f"step {step} got sequences {batch.index.tolist()}, outside {low} to {high - 1}")
        yield batch
        step += 1
    if step != spec.steps:
        raise RuntimeError(f"the data ended after step {step} of {spec.steps}")


def optimizer_step(
    ranked: Any, optimizer: Any, spec: Train, worker: Worker, batch: Batch, micro: int, lr: float
) -> tuple[float, int, float]:
    """One update from this rank's `batch`, `micro` sequences at a time. Returns the rank's summed loss (nats), its
    number of targets and the gradient norm before clipping. The gradient is that of the mean over the targets of the
    whole step, however they are spread over ranks and micro-batches."""
    import torch

    count = int((batch.targets >= 0).sum())
    (everywhere,) = parallel.total([count], worker.world, worker.device)
    inputs = torch.from_numpy(batch.inputs).long().to(worker.device)
    targets = torch.from_numpy(batch.targets).long().to(worker.device)
    summed = 0.0
    for low in range(0, len(inputs), micro):
        last = low + micro >= len(inputs)
        with ranked.no_sync() if worker.world > 1 and not last else contextlib.nullcontext():
            logits = model.logits(ranked, inputs[low : low + micro], spec.recipe.precision)
            loss = model.nats(logits, targets[low : low + micro]).sum()
            (loss * (worker.world / everywhere)).backward()  # the ranks' gradients are averaged
        summed += float(loss.detach())
    clip = spec.recipe.clip if spec.recipe.clip is not None else math.inf
    norm = float(torch.nn.utils.clip_grad_norm_(parallel.plain(ranked).parameters(), clip))
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return summed, count, norm


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


def checkpoint_tensors(net: Any, optimizer: Any) -> "dict[str, torch.Tensor]":
    """Model and optimizer by parameter name, on the CPU."""
    tensors = {}
    for name, parameter in model.weights(net).items():
        tensors[f"model.{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value.detach().cpu().contiguous()
    return tensors


def restore_optimizer(optimizer: Any, net: Any, saved: "dict[str, torch.Tensor]") -> None:
    """Put back what `checkpoint_tensors` took."""
    for name, parameter in model.weights(net).items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][key] = saved[f"optimizer.{name}.{key}"].to(parameter.device)


def save_weights(net: Any, directory: Path) -> None:
    """`model.safetensors` and `config.json`, as transformers reads them."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True)
    weights = {n: p.detach().cpu().contiguous() for n, p in model.weights(net).items()}
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
    summary: dict[str, Any] = {}
    if frame_tokens is not None:
        summary["loss_by_frame"] = [finite(loss) for loss in metrics.by_frame(nats, count, frame_tokens)]
        summary["accuracy_by_frame"] = metrics.by_frame(correct, count, frame_tokens)
        patch = metrics.is_patch(len(count), frame_tokens)
        count, nats, correct = count[patch], nats[patch], correct[patch]
    targets = metrics.Sums(nats, correct, count)
    return {
        "loss_nats": finite(targets.loss_nats),
        "loss_bits_per_byte": finite(final.bits_per_byte(data.bytes)),
        "accuracy": targets.accuracy,
        "targets": int(count.sum()),
        **summary,
    }
