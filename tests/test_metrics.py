"""Held-out measures, and the predictors that a model must beat."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import baselines, metrics
from harness.metrics import HeldOut
from harness.sources.nca import NCA


class Model(torch.nn.Module):
    """What logits are, from `logits(inputs)`; called as the harness's model is."""

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor, each: bool) -> Any:
        assert each
        logits = self.logits(inputs)
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return nats.view_as(targets), logits.argmax(-1) == targets

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Table(Model):
    """A model of bigrams: the logits of the next token are a row of `table`."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.as_tensor(table, dtype=torch.float32))

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.table[inputs]


class Copier(Model):
    """Knows what followed the last occurrence of the token, and is `sure` of it; else uniform over `vocab`."""

    def __init__(self, vocab: int, sure: float) -> None:
        super().__init__()
        self.vocab, self.sure = vocab, sure

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*inputs.shape, self.vocab)
        for row, tokens in enumerate(inputs.tolist()):
            followed: dict[tuple[int, ...], int] = {}
            for t in range(len(tokens)):
                if t >= 2:
                    followed[tuple(tokens[t - 2 : t])] = tokens[t]
                known = followed.get(tuple(tokens[t - 1 : t + 1]))
                if known is not None:
                    logits[row, t, known] = self.sure
        return logits


def held_out(n: int = 7, context: int = 12, vocab: int = 5, masked: int = 3) -> HeldOut:
    random = np.random.default_rng(0)
    tokens = random.integers(0, vocab, (n, context + 1)).astype(np.int32)
    targets = tokens[:, 1:].copy()
    targets[0, :masked] = -100  # rows of unequal weight
    targets[1, :] = -100
    return HeldOut(tokens[:, :-1], targets, np.arange(vocab) + 1)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 9))
def test_loss_is_the_mean_over_targets_however_they_are_batched(rows: int) -> None:
    data, table = held_out(), np.random.default_rng(1).standard_normal((5, 5))
    sums = metrics.evaluate(Table(table), data, "fp32", 0, 1, "cpu", rows)
    log_p = table - np.log(np.exp(table).sum(-1, keepdims=True))
    at = data.targets >= 0
    losses = -log_p[data.inputs[at], data.targets[at]]
    assert sums.loss_nats == pytest.approx(losses.mean(), rel=1e-6)
    assert sums.accuracy == pytest.approx((table.argmax(-1)[data.inputs[at]] == data.targets[at]).mean())
    assert sums.count.sum() == at.sum()
    assert data.bytes == (data.targets[at] + 1).sum()
    assert sums.bits_per_byte(data.bytes) == pytest.approx(losses.sum() / math.log(2) / data.bytes, rel=1e-6)


def test_ranks_share_the_held_out_set_out() -> None:
    data, net = held_out(), Table(np.random.default_rng(1).standard_normal((5, 5)))
    whole = metrics.evaluate(net, data, "fp32", 0, 1, "cpu", 4)

    def part(rank: int) -> HeldOut:
        return HeldOut(data.inputs[rank::3], data.targets[rank::3], None)

    parts = [metrics.evaluate(net, part(rank), "fp32", 0, 1, "cpu", 4) for rank in range(3)]
    assert sum(p.nats for p in parts) == pytest.approx(whole.nats)
    assert sum(p.count for p in parts) == pytest.approx(whole.count)


def test_tokens_that_stand_for_no_text_have_no_bits_per_byte() -> None:
    data = held_out()
    none = HeldOut(data.inputs, data.targets, None)
    assert none.bytes is None
    assert metrics.evaluate(Table(np.eye(5)), none, "fp32", 0, 1, "cpu", 4).bits_per_byte(none.bytes) is None


def test_a_measured_model_goes_on_training() -> None:
    net = Table(np.eye(5))
    metrics.evaluate(net, held_out(), "fp32", 0, 1, "cpu", 4)
    assert net.training
    metrics.induction_nats(net, metrics.random_copies(held_out()), "fp32", "cpu")
    assert net.training


# ---- induction


def test_random_copies_are_each_written_twice_from_tokens_that_occur() -> None:
    data = held_out(n=40, context=200, vocab=50)
    copies = metrics.random_copies(data, strings=8, length=64)
    assert copies.shape == (8, 128)
    assert (copies[:, :64] == copies[:, 64:]).all()
    assert len({tuple(row) for row in copies.tolist()}) == 8
    assert set(copies.ravel().tolist()) <= set(data.targets[data.targets >= 0].tolist())
    assert (copies == metrics.random_copies(data, strings=8, length=64)).all()
    assert metrics.random_copies(held_out(context=31)).shape == (16, 30)  # never longer than the context


def test_induction_is_negative_where_the_model_copies_and_zero_where_it_does_not() -> None:
    copies = metrics.random_copies(held_out(n=40, context=200, vocab=50))
    sure = metrics.induction_nats(Copier(50, 20.0), copies, "fp32", "cpu")
    half = metrics.induction_nats(Copier(50, 3.0), copies, "fp32", "cpu")
    assert sure == pytest.approx(-math.log(50), abs=0.5)  # from uniform to certain, but for chance repeats
    assert sure < half < -0.5
    assert metrics.induction_nats(Table(np.zeros((50, 50))), copies, "fp32", "cpu") == pytest.approx(0, abs=1e-5)


# ---- frames


def test_by_frame_takes_the_patches_of_each_frame_alone() -> None:
    source = NCA(states=2, grid=4)  # 4 patches and 2 delimiters a frame
    context = 32
    inputs, targets = source.open().sequences(0, np.arange(3), context)
    count = (targets >= 0).sum(0)
    whole = np.concatenate([inputs, targets[:, -1:]], 1)
    frame = np.arange(1, context + 1) // source.frame_tokens
    means = metrics.by_frame(count * frame * 1.0, count, source.frame_tokens)
    assert means == [None, *range(1, 6)]
    patch = metrics.is_patch(context, source.frame_tokens)
    delimiters = source.vocab_size - 2
    assert (patch == (whole[:, 1:] < delimiters).all(0)).all()


# ---- baselines

VOCAB = 6


def tokens(rows: Any) -> tuple[Any, Any]:
    whole = np.asarray(rows, np.int32)
    return whole[:, :-1].copy(), whole[:, 1:].copy()


def test_baselines_of_noise_are_its_entropy() -> None:
    random = np.random.default_rng(0)
    fit, score = (tokens(random.integers(0, VOCAB, (200, 65))) for _ in range(2))
    found = baselines.fit_and_score(fit, score, VOCAB, None)
    assert found["unigram_nats"] == pytest.approx(math.log(VOCAB), abs=0.01)
    assert found["ngram2_nats"] == pytest.approx(math.log(VOCAB), abs=0.02)
    assert found["copy_nats"] is None
    assert found["copy_accuracy"] is None


def test_two_tokens_of_context_find_what_one_token_cannot() -> None:
    random = np.random.default_rng(0)

    def fibonacci(n: int) -> Any:
        rows = random.integers(0, VOCAB, (n, 65))
        for t in range(2, 65):
            rows[:, t] = (rows[:, t - 1] + rows[:, t - 2]) % VOCAB
        return tokens(rows)

    found = baselines.fit_and_score(fibonacci(200), fibonacci(50), VOCAB, None)
    assert found["unigram_nats"] == pytest.approx(math.log(VOCAB), abs=0.05)
    assert found["ngram2_nats"] is not None
    assert found["ngram2_nats"] < 0.1


def test_copying_is_seen_in_frames_that_stay() -> None:
    random = np.random.default_rng(0)
    frame_tokens, frames = 6, 8

    def still(n: int, change: float) -> Any:
        out = np.empty((n, frames, frame_tokens), np.int64)
        out[:, :, 0], out[:, :, -1] = 16, 17
        out[:, 0, 1:-1] = random.integers(0, 16, (n, 4))
        for f in range(1, frames):
            fresh = random.integers(0, 16, (n, 4))
            out[:, f, 1:-1] = np.where(random.random((n, 4)) < change, fresh, out[:, f - 1, 1:-1])
        inputs, targets = tokens(out.reshape(n, -1))
        targets[:, : frame_tokens - 1] = -100
        return inputs, targets

    def found(change: float) -> dict[str, float | None]:
        return baselines.fit_and_score(still(300, change), still(100, change), 18, frame_tokens)

    rigid, noisy, random_frames = found(0.0), found(0.5), found(1.0)
    assert rigid["copy_accuracy"] == 1.0
    assert rigid["copy_nats"] == pytest.approx(0.01, abs=0.02)
    assert noisy["copy_accuracy"] == pytest.approx(0.5 + 0.5 / 16, abs=0.03)
    entropy = -(17 / 32 * math.log(17 / 32) + 15 / 32 * math.log(1 / 32))
    assert noisy["copy_nats"] == pytest.approx(entropy, abs=0.03)
    assert random_frames["copy_nats"] == pytest.approx(math.log(16), abs=0.03)
    assert rigid["unigram_nats"] == pytest.approx(math.log(16), abs=0.03)  # delimiters left out


def test_baselines_leave_the_targets_as_they_were() -> None:
    fit = tokens(np.random.default_rng(0).integers(0, VOCAB, (20, 65)))
    before = fit[1].copy()
    baselines.fit_and_score(fit, fit, VOCAB, None)
    assert (fit[1] == before).all()


def test_ids_of_a_large_vocabulary_do_not_run_over() -> None:
    random = np.random.default_rng(0)
    large = 2**31 - 3
    few = np.array([0, large // 2, large - 1])
    fit, score = (tokens(few[random.integers(0, 3, (50, 65))]) for _ in range(2))
    found = baselines.fit_and_score(fit, score, large, None)
    assert found["ngram2_nats"] == pytest.approx(math.log(3), rel=0.2)
    assert found["unigram_nats"] is not None and math.isfinite(found["unigram_nats"])
