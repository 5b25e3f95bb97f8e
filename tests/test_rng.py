"""Counter-based randomness: words that depend on key and position only, and what is built from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import rng

U64 = st.integers(0, 2**64 - 1)


def test_words_are_the_published_splitmix64() -> None:
    """The first outputs of the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c) from seed 0."""
    want = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert rng.words(np.zeros(1, np.uint64), 3)[0].tolist() == want


@given(st.lists(U64, min_size=1, max_size=8), st.integers(0, 2**40), st.integers(1, 9), st.integers(0, 8))
def test_words_depend_on_key_and_position_only(keys: list[int], first: int, count: int, skip: int) -> None:
    whole = rng.words(np.array(keys, np.uint64), skip + count, first)
    for row, key in enumerate(keys):
        np.testing.assert_array_equal(
            rng.words(np.array([key], np.uint64), count, first + skip)[0], whole[row, skip:]
        )  # fmt: skip


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8), st.lists(U64, max_size=4))
def test_keys_depend_on_their_own_entry_only(index: list[int], parts: list[int]) -> None:
    keys = rng.keys(np.array(index), *parts)
    for row, i in enumerate(index):
        assert keys[row] == rng.keys(np.array([i]), *parts)[0]


def test_keys_tell_parts_and_their_order_apart() -> None:
    index = np.arange(1000)
    tuples = [(), (0,), (1,), (0, 1), (1, 0), (0, 0), (2**63, 1), (-1,)]
    assert len(np.unique(np.concatenate([rng.keys(index, *parts) for parts in tuples]))) == 1000 * len(tuples)
    assert rng.key(5, 6) == rng.key(5, 6) != rng.key(6, 5)
    assert rng.keys(index, -1).tolist() == rng.keys(index, 2**64 - 1).tolist()


def test_every_bit_is_even_and_neighbours_are_unrelated() -> None:
    words = rng.words(rng.keys(np.arange(500), 3), 40)
    bits = (words[..., None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean((0, 1)) - 0.5).max() < 5 * 0.5 / 20_000**0.5
    for other in (words[1:, :] ^ words[:-1, :], words[:, 1:] ^ words[:, :-1]):  # across keys, across positions
        flipped = np.bitwise_count(other).mean()
        assert abs(flipped - 32) < 5 * 4 / other.size**0.5


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=U64, other=U64)
def test_permuted_is_a_bijection_of_the_range(size: int, key: int, other: int) -> None:
    index = np.arange(size)
    image = rng.permuted(index, size, key)
    np.testing.assert_array_equal(np.sort(image), index)
    np.testing.assert_array_equal(rng.permuted(index[::-1], size, key), image[::-1])
    if size > 50 and other != key:
        assert (image != index).any() and (rng.permuted(index, size, other) != image).any()


@given(size=st.integers(2**40, 2**62), key=U64, index=st.lists(st.integers(0, 2**40 - 1), max_size=20, unique=True))
def test_permuted_needs_no_table(size: int, key: int, index: list[int]) -> None:
    image = rng.permuted(np.array(index, np.int64), size, key)
    assert len(set(image.tolist())) == len(index) and ((0 <= image) & (image < size)).all()


@pytest.mark.parametrize("bound", [None, 2.0, 1.0])
def test_normals_have_unit_variance_within_their_bound(bound: float | None) -> None:
    table = rng.normal_table(bound).astype(np.float64)
    assert table.shape == (65536,) and (np.diff(table) > 0).all()
    np.testing.assert_allclose(table, -table[::-1], atol=1e-5)
    assert abs(table.mean()) < 1e-6 and abs(table.var() - 1) < 2e-3
    if bound is None:
        assert abs((table**4).mean() - 3) < 0.05 and 4.0 < table[-1] < 4.5
    else:  # scaled back after truncation, as JAX's initialisers are: .87962566 is the deviation cut at 2
        assert table[-1] == pytest.approx(bound / {2.0: 0.87962566, 1.0: 0.53956}[bound], rel=1e-3)


def test_named_seeds_differ_by_name() -> None:
    seeds = {rng.named_seed("a"), rng.named_seed("b"), rng.named_seed("a", 1), rng.named_seed("a", "1")}
    assert len(seeds) == 4 and all(0 <= seed < 2**63 for seed in seeds)
    assert rng.named_seed("a", 1) == rng.named_seed("a", 1)
