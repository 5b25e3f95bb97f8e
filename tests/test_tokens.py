"""Packed token shards: every window once an epoch, whatever the seed, the batch and the size of a shard."""

import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.tokens import TokenReader, TokenWriter


def reader(directory, train, validation=100, shard_tokens=2**26, pieces=1):
    """A reader of `train` and `validation` tokens that count up from 0, so that a token says where it lies."""
    for split, tokens in (("train", train), ("validation", validation)):
        writer = TokenWriter(Path(directory), split, np.uint16, shard_tokens)
        for piece in np.array_split(np.arange(tokens), pieces):
            writer.append(piece)
        writer.close()
        assert writer.tokens == tokens
    np.save(Path(directory) / "token_bytes.npy", np.ones(max(train, validation), np.int64))
    return TokenReader(directory)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 150), st.integers(1, 12), st.integers(1, 50), st.integers(1, 7), st.integers(0, 2**63 - 1))
def test_an_epoch_is_every_window_once_whatever_the_shards(tokens, context, shard_tokens, pieces, seed):
    context = min(context, tokens - 1)
    with tempfile.TemporaryDirectory() as directory:
        read = reader(directory, tokens, shard_tokens=shard_tokens, pieces=pieces)
        count = read.epoch(context)
        assert count == (tokens - 1) // context
        for epoch in range(2):
            inputs, targets = read.sequences(seed, np.arange(count) + epoch * count, context)
            assert inputs.dtype == targets.dtype == np.int32
            np.testing.assert_array_equal(inputs[np.argsort(inputs[:, 0])].ravel(), np.arange(count * context))
            np.testing.assert_array_equal(targets, inputs + 1)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_a_sequence_does_not_depend_on_its_batch(batch, first):
    with tempfile.TemporaryDirectory() as directory:
        read = reader(directory, 500, shard_tokens=64)
        index = np.arange(first, first + batch)
        together = read.sequences(7, index, 9)
        alone = [read.sequences(7, [i], 9) for i in index]
        for k in range(2):
            np.testing.assert_array_equal(together[k], np.concatenate([a[k] for a in alone]))


def test_the_order_depends_on_the_seed_and_on_the_epoch(tmp_path):
    read = reader(tmp_path, 1001)
    orders = {tuple(read.sequences(seed, np.arange(100) + 100 * e, 10)[0][:, 0]) for seed in (0, 1) for e in (0, 1)}
    assert len(orders) == 4
    assert tuple(range(0, 1000, 10)) not in orders
    np.testing.assert_array_equal(read.sequences(0, np.arange(100), 10), read.sequences(0, np.arange(100), 10))


@pytest.mark.parametrize(("tokens", "shard_tokens", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 4, [3])])
def test_shards_are_full_but_the_last(tmp_path, tokens, shard_tokens, sizes):
    reader(tmp_path, tokens, shard_tokens=shard_tokens)
    shards = [np.load(p) for p in sorted(tmp_path.glob("train-*.npy"))]
    assert [len(s) for s in shards] == sizes
    assert {s.dtype for s in shards} == {np.dtype(np.uint16)}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 11])
def test_held_out_windows_are_distinct_and_evenly_spaced(tmp_path, count):
    inputs, targets = reader(tmp_path, 50, validation=112).held_out(count, 10)  # 11 windows
    window = inputs[:, 0] // 10
    np.testing.assert_array_equal(inputs, window[:, None] * 10 + np.arange(10))
    np.testing.assert_array_equal(targets, inputs + 1)
    assert set(np.diff(window)) <= {11 // count, -(-11 // count)}
    assert len(set(window)) == count


def test_text_too_short_is_refused_with_what_would_fit(tmp_path):
    read = reader(tmp_path, 10, validation=112)
    with pytest.raises(InputError, match=r"Evaluation.sequences = 12: .*112 tokens, 11 windows of 10"):
        read.held_out(12, 10)
    with pytest.raises(InputError, match=r"Llama.context = 10: .*10 tokens"):
        read.sequences(0, [0], 10)


def test_a_directory_without_shards_is_refused(tmp_path):
    with pytest.raises(InputError, match="no train shards"):
        TokenReader(tmp_path)


def test_a_reader_pickles_as_a_path(tmp_path):
    read = reader(tmp_path, 5000)
    data = pickle.dumps(read)
    assert len(data) < 500
    np.testing.assert_array_equal(
        pickle.loads(data).sequences(3, np.arange(20), 16), read.sequences(3, np.arange(20), 16)
    )


def test_threads_read_what_one_thread_reads(tmp_path):
    read = reader(tmp_path, 5000, shard_tokens=100)
    index = [np.arange(i, i + 20) for i in range(0, 400, 20)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: read.sequences(0, i, 16), index))
    np.testing.assert_array_equal(found, [read.sequences(0, i, 16) for i in index])
