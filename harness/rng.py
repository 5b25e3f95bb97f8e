"""Counter-based randomness: every word is a pure function of (key, position), in integer arithmetic only.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): the same words on
every machine and device, whatever the batch. Normals come from a table of quantiles and logarithms from basic
operations, since the last bit of a transcendental function differs between libraries.
"""

import functools
import hashlib
import statistics
from typing import Any

import numpy as np

LN2 = 0.6931471805599453
SQRT_HALF = 0x3FE6A09E667F3BCD
"""The bits of the float64 next to the square root of 1/2."""
GAMMA = 0x9E3779B97F4A7C15
MIX1, MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = 2**64 - 1


def mix(z: Any) -> Any:
    """One SplitMix64 output for every uint64 in `z`."""
    z = z + np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX2)
    return z ^ (z >> np.uint64(31))


def key(*parts: int) -> np.uint64:
    """One uint64 that stands for a tuple of integers (each taken modulo 2**64)."""
    return np.uint64(keys(np.zeros(1, np.uint64), *parts)[0])


def keys(index: Any, *parts: int) -> Any:
    """A uint64 key for (parts..., index) for every entry of `index` (n,)."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state ^ np.array([part & MASK], np.uint64))
    return mix(state ^ np.asarray(index).astype(np.uint64))


def words(key: Any, count: int, first: int = 0) -> Any:
    """uint64 (n, count): words `first`, first + 1, ... of each key in `key` (n,)."""
    position = np.arange(first, first + count, dtype=np.uint64) * np.uint64(GAMMA)
    return mix(np.asarray(key, np.uint64)[:, None] + position)


def log(x: Any) -> Any:
    """Natural logarithm of float64 `x`, positive and normal, to 12 digits and with the same bits on every machine.

    Library logarithms differ in their last bit. This one adds, multiplies and divides, each rounded once as IEEE 754
    says: x = 2**e m with m in [sqrt(1/2), sqrt(2)), and log m = 2 artanh((m - 1) / (m + 1)) by its series.
    """
    bits = x.view(np.int64)
    exponent = (bits - np.int64(SQRT_HALF)) >> np.int64(52)
    m = (bits - (exponent << np.int64(52))).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    total = np.full_like(z, 1.0 / 17)
    for odd in (15, 13, 11, 9, 7, 5, 3, 1):
        total = total * z + 1.0 / odd
    return exponent * LN2 + 2.0 * s * total


def named_seed(*names: Any) -> int:
    """A 63-bit seed for a tuple of names and numbers, for generators that take one (NumPy, torch)."""
    return int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:8], "little") >> 1


@functools.cache
def normal_table(bound: float | None = None) -> Any:
    """float32 (65536,): a unit-variance normal at equiprobable midpoints, truncated at +-`bound` standard deviations.

    Truncation shrinks the variance; as in the LeCun-normal initialiser of JAX, the table is scaled back to 1.
    """
    normal = statistics.NormalDist()
    low, high = (normal.cdf(-bound), normal.cdf(bound)) if bound else (0.0, 1.0)
    table = np.array([normal.inv_cdf(low + (high - low) * (i + 0.5) / 65536) for i in range(65536)])
    scale = 1.0
    if bound:
        z = bound * normal.pdf(bound) / (high - low)
        scale = float(np.sqrt(1.0 - 2.0 * z))
    return (table / scale).astype(np.float32)


def permuted(index: Any, size: int, key: int) -> Any:
    """The image of every `index` (int64, in [0, size)) under a pseudorandom permutation of range(size).

    A six-round Feistel network on the smallest even number of bits that holds `size`, walking its cycle until the
    value falls below `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): no table of `size`
    entries, and the same order on every machine.
    """
    half = max(1, (int(size - 1).bit_length() + 1) // 2)
    low = np.uint64(2**half - 1)
    shift = np.uint64(half)
    value = np.asarray(index).astype(np.uint64)
    rounds = [np.uint64(k) for k in words(keys(np.zeros(1), key), 6)[0]]
    todo = np.ones(value.shape, bool)
    while todo.any():
        left, right = value[todo] >> shift, value[todo] & low
        for k in rounds:
            left, right = right, left ^ (mix(right ^ k) & low)
        value[todo] = (left << shift) | right
        todo &= value >= np.uint64(size)
    return value.astype(np.int64)
