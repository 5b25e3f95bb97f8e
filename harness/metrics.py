"""Held-out measures of a model. Every name ends in its unit; losses are token-weighted means."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import model as models
from harness.errors import InputError
from harness.parallel import sum_over_ranks
from harness.rng import keys, words
from harness.sources.checking import checked
from harness.specs import Sequences, Train


@dataclass(frozen=True)
class HeldOut:
    """A fixed set of held-out sequences: int32 (n, context) each, and UTF-8 bytes by token id where there are any."""

    inputs: Any
    targets: Any
    token_bytes: Any | None

    @property
    def bytes(self) -> int | None:
        """UTF-8 bytes that the supervised targets stand for."""
        if self.token_bytes is None:
            return None
        return int(self.token_bytes[self.targets[self.targets >= 0]].sum())


@dataclass(frozen=True)
class Sums:
    """Sums over held-out sequences by target position: float64 (context,) each."""

    nats: Any
    correct: Any
    count: Any

    @property
    def loss_nats(self) -> float:
        return float(self.nats.sum() / self.count.sum())

    @property
    def accuracy(self) -> float:
        return float(self.correct.sum() / self.count.sum())

    def bits_per_byte(self, bytes: int | None) -> float | None:
        return float(self.nats.sum() / math.log(2) / bytes) if bytes else None


def held_out(spec: Train, reader: Sequences) -> tuple[Any, Any]:
    """Inputs and targets of the held-out sequences that `spec` is measured on. Raises InputError if there are too few.

    What is skipped is found again by its tokens: the windows of a text are spread evenly over its held-out part,
    however many are asked for, so those of a larger set do not begin with those of a smaller one."""
    count, skip, context = spec.evaluation.sequences, spec.evaluation.skip, spec.model.context
    if not skip:
        return checked(spec.corpus.source, reader.held_out(count, context), count, context)
    try:
        inputs, targets = reader.held_out(skip + count, context)
    except InputError as e:
        raise InputError(f"Evaluation.skip = {skip}: no {count} more held-out sequences ({e})") from e
    skipped = Counter(row.tobytes() for row in reader.held_out(skip, context)[0])
    rest = []
    for i, row in enumerate(inputs):
        if skipped[row.tobytes()]:
            skipped[row.tobytes()] -= 1
        else:
            rest.append(i)
    chosen = np.array(rest)[np.arange(count) * len(rest) // count]
    return inputs[chosen], targets[chosen]


def evaluate(model: Any, data: HeldOut, precision: str, rank: int, world: int, device: str, rows: int) -> Sums:
    """Run `model` over the held-out set, `rows` sequences at a time, every rank its share and all as often: a sharded
    model needs every rank in each of its passes."""
    import torch

    model.eval()
    count, context = data.inputs.shape
    sums = torch.zeros(3, context, dtype=torch.float64, device=device)
    mine = np.arange(rank, count, world)
    for low in range(0, -(-count // world), rows):
        part = mine[low : low + rows]
        inputs, targets = data.inputs[part], data.targets[part]
        if not len(part):
            inputs, targets = np.zeros((1, context), np.int32), np.full((1, context), -100, np.int32)
        inputs = torch.from_numpy(inputs).long().to(device)
        targets = torch.from_numpy(targets).long().to(device)
        nats, hits = models.score(model, inputs, targets, precision)
        sums[0] += nats.double().sum(0)
        sums[1] += hits.double().sum(0)
        sums[2] += (targets >= 0).double().sum(0)
    model.train()
    nats, correct, count = sum_over_ranks(sums.tolist(), world, device, "float64").cpu().numpy()
    return Sums(nats, correct, count)


def random_copies(data: HeldOut, strings: int = 16, length: int = 64) -> Any:
    """int32 (strings, 2 * length): random strings, tokens drawn from the held-out unigram, each written twice."""
    pool = data.targets[data.targets >= 0]
    length = min(length, data.inputs.shape[1] // 2)
    draws = words(keys(np.arange(strings), 0x1D), length)
    string = pool[(draws % np.uint64(len(pool))).astype(np.int64)]
    return np.concatenate([string, string], 1).astype(np.int32)


def induction_nats(model: Any, copies: Any, precision: str, device: str) -> float:
    """Loss on the second copy of a random string minus loss on the first: negative where the model copies from
    context (Olsson et al., arXiv 2209.11895). The first tokens of either copy, still without a match, are left out."""
    import torch

    length = copies.shape[1] // 2
    tokens = torch.from_numpy(copies).long().to(device)
    model.eval()
    nats = models.score(model, tokens[:, :-1], tokens[:, 1:], precision)[0].mean(0)
    model.train()
    skip = length // 16
    return float(nats[length + skip :].mean() - nats[skip : length - 1].mean())


def by_frame(values: Any, counts: Any, frame_tokens: int) -> list[float | None]:
    """Mean over the patch tokens of every frame, from sums by target position; None where none is supervised."""
    token = np.arange(1, len(values) + 1)  # the target at position t is token t + 1 of the sequence
    patch = is_patch(len(values), frame_tokens)
    means: list[float | None] = []
    for frame in range(int(token[-1]) // frame_tokens + 1):
        here = patch & (token // frame_tokens == frame)
        count = counts[here].sum()
        means.append(float(values[here].sum() / count) if count else None)
    return means


def frames(sums: Sums, frame_tokens: int | None) -> dict[str, list[float | None]]:
    """Loss (nats) and accuracy over the patch tokens of every frame, the in-context curve; empty without frames."""
    if frame_tokens is None:
        return {}
    losses = by_frame(sums.nats, sums.count, frame_tokens)
    return {
        "loss_by_frame": [loss if loss is not None and math.isfinite(loss) else None for loss in losses],
        "accuracy_by_frame": by_frame(sums.correct, sums.count, frame_tokens),
    }


def is_patch(context: int, frame_tokens: int) -> Any:
    """bool (context,): whether the target at a position is a patch token and no delimiter of a frame."""
    phase = np.arange(1, context + 1) % frame_tokens
    return (phase != 0) & (phase != frame_tokens - 1)
