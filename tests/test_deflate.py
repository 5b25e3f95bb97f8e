"""Sizes of deflate streams: equal to those of the streams that zlib writes, for inputs of every kind."""

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import rng
from harness.automata import score
from harness.automata.deflate import LITERALS, LONGEST, code_lengths, crowded, deflate_bytes
from harness.errors import InputError
from harness.sources.nca import NCA


def zlib_bytes(data: Any) -> Any:
    """What `deflate_bytes` computes, from zlib's streams less their header and checksum."""
    return np.array([len(zlib.compress(row.tobytes(), 9)) - 6 for row in data], np.int64)


def noise(key: int, alphabet: int, length: int) -> Any:
    """uint8 (length,): products of two draws below `alphabet`, divided by it: small bytes are common."""
    words = rng.words(np.array([key], np.uint64), 2 * length)[0] >> np.uint64(40)
    first, second = (words % np.uint64(alphabet)).reshape(2, length)
    return (first * second // np.uint64(alphabet)).astype(np.uint8)


SAMPLE = np.stack([noise(k, alphabet, 1440) for k, alphabet in enumerate([3, 4, 8, 16, 32, 64, 128, 256])])
SAMPLE_BYTES = [170, 287, 538, 718, 860, 1011, 1191, 1388]
"""Sizes of SAMPLE with zlib 1.2.13; other libraries of the same interface make other choices."""

classic = pytest.mark.skipif(
    zlib_bytes(SAMPLE).tolist() != SAMPLE_BYTES, reason="Python is linked to another library than classic zlib"
)


def candidates(source: NCA, count: int) -> Any:
    """uint8 (count, bytes): what is compressed to score the first `count` rules of `source`."""
    trial = rng.words(rng.keys(np.arange(count), 1, 1), 1)[:, 0]
    patches = source.open()._patches(trial, trial, score.FRAMES)
    return patches.reshape(count, -1).astype("<i4").view(np.uint8)


def test_a_sample_has_the_sizes_of_classic_zlib() -> None:
    """On every machine, whatever zlib is there."""
    assert deflate_bytes(SAMPLE).tolist() == SAMPLE_BYTES


@classic
@pytest.mark.parametrize(
    ("source", "count"),
    [
        (NCA(), 2048),
        (NCA(states=2), 512),
        (NCA(states=3), 512),
        (NCA(states=15), 512),
        (NCA(patch=1), 64),
        (NCA(patch=3), 256),
        (NCA(grid=8), 256),
        (NCA(states=3, grid=32), 16),
    ],
    ids=str,
)
def test_candidates(source: NCA, count: int) -> None:
    data = candidates(source, count)
    np.testing.assert_array_equal(deflate_bytes(data), zlib_bytes(data))


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """Bytes of many kinds, one after another: noise, runs, periods, tokens and copies of what came before."""
    data, longest = b"", draw(st.sampled_from([12, 300, 1500, 5000, LONGEST]))
    for _ in range(draw(st.integers(0, 12))):
        length = draw(st.integers(1, longest))
        kind = draw(st.sampled_from(["bytes", "noise", "run", "period", "tokens", "copy", "changed copy"]))
        if kind == "bytes":
            data += draw(st.binary(max_size=20))
        elif kind == "noise":
            data += noise(draw(st.integers(0, 2**32)), draw(st.integers(2, 256)), length).tobytes()
        elif kind == "run":
            data += bytes([draw(st.integers(0, 255))]) * length
        elif kind == "period":
            data += (draw(st.binary(min_size=1, max_size=40)) * length)[:length]
        elif kind == "tokens":
            data += noise(draw(st.integers(0, 2**32)), draw(st.integers(2, 256)), length).astype("<i4").tobytes()
        elif data:
            start = draw(st.integers(0, len(data) - 1))
            copy = bytearray(data[start : start + draw(st.sampled_from([3, 4, 10, 257, 258, 259, 600]))])
            if kind == "changed copy":
                copy[draw(st.integers(0, len(copy) - 1))] ^= draw(st.integers(1, 255))
            data += copy
    return data[:longest]


@classic
@settings(max_examples=200)
@given(inputs())
@example(b"")
@example(b"a")
@example(b"ab")
@example(b"abcabcabc")
@example(b"xabcabcabc")
def test_inputs_of_many_kinds(data: bytes) -> None:
    rows = np.frombuffer(data, np.uint8)[None]
    assert deflate_bytes(rows) == zlib_bytes(rows)


def without_matches(length: int) -> Any:
    """Numbers of two bytes, the first below 32: no three bytes stand there twice."""
    return np.arange(-(-length // 2)).astype(">u2").view(np.uint8)[:length]


SPECIAL = {
    "nothing": np.zeros(0, np.uint8),
    "one byte": np.zeros(1, np.uint8),
    "as many symbols as fit": without_matches(LONGEST),
    "stored": noise(1, 256, 40) ^ np.arange(40, dtype=np.uint8) * 77,
    "stored, long": (rng.words(np.array([5], np.uint64), 2000)[0].view(np.uint8))[:LONGEST],
    "fixed": np.frombuffer(b"hello, hello", np.uint8),
    "one run": np.zeros(LONGEST, np.uint8),
    "two runs": np.repeat(np.array([1, 2], np.uint8), 700),
    "a run, then a longer one": np.concatenate([np.zeros(300, np.uint8), [1], np.zeros(600, np.uint8)]).astype(
        np.uint8
    ),
    "three bytes from 4096 and from 4097 back": np.concatenate(
        [b for d in (4096, 4097) for b in ([251, 252, 253], without_matches(d - 3) ^ (d & 1) * 64, [251, 252, 253])]
    ).astype(np.uint8),
    "from far": np.tile(without_matches(5000), 3),
    "more places than zlib walks over": np.tile(np.array([0, 0, 0, 1], np.uint8), LONGEST // 4),
    "many places, many lengths": noise(3, 3, LONGEST),
}


@classic
@pytest.mark.parametrize("kind", SPECIAL)
def test_special_inputs(kind: str) -> None:
    data = SPECIAL[kind][None]
    assert deflate_bytes(data) == zlib_bytes(data)


@classic
@pytest.mark.parametrize("length", [*range(2, 40), 1025, 1030, 2049, 2052, 4099, 9000])
def test_rows_do_not_touch_each_other(length: int) -> None:
    """What one row leaves in the scratch arrays does not reach the next one."""
    data = np.stack([noise(key, alphabet, length) for alphabet in (2, 3, 20, 256) for key in range(8)])
    want = zlib_bytes(data)
    np.testing.assert_array_equal(deflate_bytes(data), want)
    np.testing.assert_array_equal(deflate_bytes(data[::-1]), want[::-1])


def test_a_row_is_crowded_if_a_hash_stands_at_most_places() -> None:
    """Rows of both kinds are among the candidates, and a hash at more than 1025 places is always seen."""
    shares = np.array([crowded(row) for row in candidates(NCA(), 512)])
    assert 0 < shares.mean() < 0.1
    for key in range(32):
        row = np.zeros(1440, np.uint8)
        row[np.argsort(noise(key, 256, 1440))[: 8 * key // 2]] = 1
        codes = row[:-2].astype(int) << 10 ^ row[1:-1].astype(int) << 5 ^ row[2:]
        assert crowded(row) or np.unique(codes, return_counts=True)[1].max() <= 1025


@pytest.mark.parametrize("limit", [7, 15])
def test_codes_are_cut_to_their_limit(limit: int) -> None:
    """Frequencies like Fibonacci numbers make the longest codes. Cut ones still are a complete prefix code, with the
    shortest code for the most frequent symbol. zlib's own cuts, of the code of code lengths, are among the candidates.
    """
    frequency = np.ones(19, np.int64)
    for s in range(2, len(frequency)):
        frequency[s] = frequency[s - 1] + frequency[s - 2]
    heap, nodes = np.empty(LITERALS + 2, np.int64), np.empty((3, 2 * LITERALS), np.int16)
    assert code_lengths(frequency, 30, heap, *nodes) == 18
    assert nodes[2, :19].tolist() == [18, *range(18, 0, -1)]
    assert code_lengths(frequency, limit, heap, *nodes) == 18
    cut = nodes[2, :19].tolist()
    assert max(cut) == limit
    assert sum(2.0**-bits for bits in cut) == 1
    assert cut == sorted(cut, reverse=True)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=f"leave inputs above {LONGEST} bytes to zlib"):
        deflate_bytes(np.zeros((1, LONGEST + 1), np.uint8))
    with pytest.raises(InputError, match="view the rows as uint8"):
        deflate_bytes(np.zeros((1, 10), np.int32))
    with pytest.raises(InputError, match="one input a row"):
        deflate_bytes(np.zeros(10, np.uint8))
