"""Held-out measures of a model. Every name ends in its unit; losses are token-weighted means."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import model as models
from harness.parallel import sum_over_ranks
from harness.rng import keys, words


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


def evaluate(model: Any, data: HeldOut, precision: str, rank: int, world: int, device: str, rows: int) -> Sums:
    """Run `model` over the held-out set, `rows` sequences at a time, every rank its share."""
    import torch

    model.eval()
    context = data.inputs.shape[1]
    sums = torch.zeros(3, context, dtype=torch.float64, device=device)
    mine = np.arange(rank, len(data.inputs), world)
    with torch.no_grad():
        for i in range(0, len(mine), rows):
            part = mine[i : i + rows]
            inputs = torch.from_numpy(data.inputs[part]).long().to(device)
            targets = torch.from_numpy(data.targets[part]).long().to(device)
            logits = models.logits(model, inputs, precision)
            sums[0] += models.nats(logits, targets).double().sum(0)
            sums[1] += (logits.argmax(-1) == targets).double().sum(0)
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
    with torch.no_grad():
        nats = models.nats(models.logits(model, tokens[:, :-1], precision), tokens[:, 1:]).mean(0)
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


def is_patch(context: int, frame_tokens: int) -> Any:
    """bool (context,): whether the target at a position is a patch token and no delimiter of a frame."""
    phase = np.arange(1, context + 1) % frame_tokens
    return (phase != 0) & (phase != frame_tokens - 1)
