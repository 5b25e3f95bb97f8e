"""The rollout of `harness.sources.nca` compiled by numba: the same float32 operations in the same order, so equal bits.

Cells are taken in tiles whose scratch rows have a constant stride, so that LLVM can prove the rows apart and runs the
loops over cells in vector lanes. `fastmath` stays off: a contracted multiply-add rounds once and breaks ties elsewhere.
"""

import math
from typing import Any

import numpy as np
from numba import njit

TILE = 64
CONV, HIDDEN = 4, 16  # channels, as in nca.py; numba freezes globals into constants, which unrolls the loops over them
GAMMA, MIX1, MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S12, S27, S30, S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)
# The largest Gumbel draw of 52 bits lies 40.4 above the smallest: a state further behind cannot win, and needs no draw.
REACH, ROUNDING = np.float32(41), np.float32(1e-6)


@njit(cache=True, nogil=True, error_model="numpy")
def gumbel(key: np.uint64, position: int) -> np.float32:
    """Standard Gumbel noise from word `position` of `key` (`harness.rng.words`), as `nca.gumbel` computes it."""
    z = key + np.uint64(position) * GAMMA + GAMMA
    z = (z ^ (z >> S30)) * MIX1
    z = (z ^ (z >> S27)) * MIX2
    z = z ^ (z >> S31)
    u = (np.float64(z >> S12) + 0.5) * 2.0**-52
    return np.float32(-math.log(-math.log(u)))


@njit(cache=True, nogil=True, error_model="numpy")
def sample(logits: Any, i: int, floor: np.float32, temperature: np.float32, key: np.uint64, position: int) -> int:
    """argmax(logits / temperature + noise) of cell `i` of a tile, over the states whose logit is at least `floor`."""
    best, chosen = np.float32(-np.inf), 0
    for c in range(logits.size // TILE):
        if logits[c * TILE + i] >= floor:
            value = logits[c * TILE + i] / temperature + gumbel(key, position + c)
            if value > best:
                best, chosen = value, c
    return chosen


@njit(cache=True, nogil=True, error_model="numpy")
def rollout(
    table: Any,
    bias0: Any,
    weight1: Any,
    bias1: Any,
    weight2: Any,
    bias2: Any,
    near: Any,
    out: Any,
    temperature: np.float32,
    keys: Any,
    identity_bias: np.float32,
) -> None:
    """Fill out[:, 1:] from out[:, 0]; `out` uint8 (n, steps + 1, cells), shapes of the rest as in `nca.rollout`.

    table (n, 9, states, 4), weight1 (n, 4, 16), weight2 (n, states, 16) (transposed), near (9, cells) the neighbour of
    every cell at the nine places of the kernel, unsigned: a signed index costs a check for negative ones.
    """
    cells, states = out.shape[2], weight2.shape[1]
    conv = np.empty(CONV * TILE, np.float32)
    hidden = np.empty(HIDDEN * TILE, np.float32)
    logits = np.empty(states * TILE, np.float32)
    best = np.empty(TILE, np.float32)
    second = np.empty(TILE, np.float32)
    chosen = np.empty(TILE, np.int32)
    for r in range(out.shape[0]):
        tab, w1, w2 = table[r], weight1[r], weight2[r]
        for t in range(out.shape[1] - 1):
            now = out[r, t]
            for first in range(0, cells, TILE):
                size = min(TILE, cells - first)
                for i in range(size):
                    x0, x1, x2, x3 = bias0[r, 0], bias0[r, 1], bias0[r, 2], bias0[r, 3]
                    for k in range(9):
                        cell = now[near[k, first + i]]
                        x0 += tab[k, cell, 0]
                        x1 += tab[k, cell, 1]
                        x2 += tab[k, cell, 2]
                        x3 += tab[k, cell, 3]
                    conv[i], conv[TILE + i], conv[2 * TILE + i], conv[3 * TILE + i] = x0, x1, x2, x3
                for j in range(HIDDEN):
                    b, v0, v1, v2, v3 = bias1[r, j], w1[0, j], w1[1, j], w1[2, j], w1[3, j]
                    for i in range(size):
                        x = b + conv[i] * v0
                        x = x + conv[TILE + i] * v1
                        x = x + conv[2 * TILE + i] * v2
                        x = x + conv[3 * TILE + i] * v3
                        hidden[j * TILE + i] = max(x, np.float32(0))
                for c in range(states):
                    b = bias2[r, c]
                    for i in range(size):
                        x = b
                        for j in range(HIDDEN):
                            x = x + hidden[j * TILE + i] * w2[c, j]
                        logits[c * TILE + i] = x
                if identity_bias != 0:
                    for i in range(size):
                        logits[now[first + i] * TILE + i] += identity_bias
                for i in range(size):
                    best[i], second[i], chosen[i] = logits[i], -np.inf, 0
                for c in range(1, states):
                    for i in range(size):
                        x = logits[c * TILE + i]
                        second[i] = max(second[i], min(x, best[i]))
                        if x > best[i]:
                            best[i], chosen[i] = x, c
                if temperature > 0:
                    for i in range(size):
                        floor = best[i] - REACH * temperature - abs(best[i]) * ROUNDING
                        if second[i] >= floor:
                            position = (t * cells + first + i) * states
                            chosen[i] = sample(logits, i, floor, temperature, keys[r], position)
                for i in range(size):
                    out[r, t + 1, first + i] = chosen[i]
