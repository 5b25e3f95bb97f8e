"""The definition on a CUDA device, by torch and Triton: the same float32 operations in the same order, so equal bits.

A simulation is one program, and all its steps run inside the kernel: the states of the step before are read back from
the output, which lies in L1. Lanes are cells, `block` of them at a time. The sixteen hidden values of a cell stay in
registers while a loop over states computes one logit after the other and keeps the largest: any alphabet takes the
same registers. A step at temperature > 0 has a second pass, for blocks of cells in which noise can change the winner:
it computes the logits anew, and noise only for states within its reach of the largest.

What bounds it: products rounded before they are added are two instructions where a fused one would do (32 + 128 + 32
states sums and products a cell and step), and every weight is a load from L1 that all lanes share. The more cells a
thread has the more arithmetic a load feeds, but the more lanes idle beyond the last cell: see `launch`. Programs are
one warp, or four on large grids, so a device is full from some thousands of simulations a call on. These are counts of
instructions; no device has been timed.

Equal bits need: launches with `enable_fp_fusion=False`, since ptxas otherwise fuses; divisions that round as IEEE 754
says (`/` of Triton does in float64 only); no library logarithm; in torch only elementwise operations in eager mode.

Triton's wheel brings all that compiles kernels. What launches them it builds once with a C compiler of the machine
(`CC`, gcc or clang, and the headers of Python), and raises RuntimeError or CalledProcessError where that fails.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from harness import rng
from harness.automata import definition
from harness.automata.definition import Rules

CONV, HIDDEN = tl.constexpr(definition.CONV), tl.constexpr(definition.HIDDEN)
GAMMA, MIX1, MIX2 = tl.constexpr(rng.GAMMA), tl.constexpr(rng.MIX1), tl.constexpr(rng.MIX2)
LN2, SQRT_HALF = tl.constexpr(rng.LN2), tl.constexpr(rng.SQRT_HALF)
# As in the compiled kernels: no draw of 52 bits lies 41 above another, so a state further behind needs no draw.
REACH, ROUNDING = tl.constexpr(41.0), tl.constexpr(1e-6)
OPTIONS = {"enable_fp_fusion": False, "num_stages": 1}
"""How kernels are compiled. Stages would load states ahead of the step that writes them."""


@triton.jit
def log(x: tl.tensor) -> tl.tensor:
    """As `harness.rng.log`, of float64 `x`."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits - SQRT_HALF) >> 52
    m = (bits - (exponent << 52)).to(tl.float64, bitcast=True)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    total = z * (1.0 / 17) + 1.0 / 15
    for i in tl.static_range(7):
        total = total * z + 1.0 / (13 - 2 * i)
    return exponent.to(tl.float64) * LN2 + 2.0 * s * total


@triton.jit
def gumbel(key: tl.tensor, position: tl.tensor) -> tl.tensor:
    """As `definition.gumbel` of the words of `key` at `position`, both uint64."""
    z = key + position * GAMMA + GAMMA
    z = (z ^ (z >> 30)) * MIX1
    z = (z ^ (z >> 27)) * MIX2
    z = z ^ (z >> 31)
    u = ((z >> 12).to(tl.float64) + 0.5) * (2.0**-52)
    return (-log(-log(u))).to(tl.float32)


@triton.jit
def entries(
    table: tl.tensor, now: tl.tensor, cell: tl.tensor, place: tl.constexpr, grid: tl.constexpr, states: tl.constexpr
) -> tl.tensor:
    """(block, 4): what the neighbours of `cell` (block,) at one place of the kernel add; each is a load of 16 bytes."""
    y, x = cell // grid, cell % grid
    near = (y + (place // 3 + grid - 1)) % grid * grid + (x + (place % 3 + grid - 1)) % grid
    row = place * states + tl.load(now + near).to(tl.int32)
    return tl.load(table + (row[:, None] * CONV + tl.arange(0, CONV)[None, :]))


@triton.jit
def channels(table: tl.tensor, now: tl.tensor, cell: tl.tensor, grid: tl.constexpr, states: tl.constexpr) -> tl.tuple:
    """The four channels of the cells `cell` (block,) of the grid of bytes at `now`; `table` is [9][states][4]."""
    sums = entries(table, now, cell, 0, grid, states)
    for place in tl.static_range(1, 9):
        sums = sums + entries(table, now, cell, place, grid, states)
    even, odd = tl.split(tl.reshape(sums, (cell.shape[0], CONV // 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def hidden_units(conv: tl.tuple, weights: tl.tensor) -> tl.tuple:
    """The sixteen hidden values of cells; `weights` is [16][5], of every unit its four weights and its bias."""
    units: tl.tuple = ()
    for j in tl.static_range(HIDDEN):
        unit = tl.load(weights + (j * (CONV + 1) + CONV))
        for f in tl.static_range(CONV):
            unit = unit + conv[f] * tl.load(weights + (j * (CONV + 1) + f))
        units = units + (tl.where(unit > 0, unit, 0.0),)  # noqa: RUF005 (Triton unpacks no tuples)
    return units


@triton.jit
def logit(
    units: tl.tuple, weights: tl.tensor, state: tl.tensor, own: tl.tensor, identity_bias: tl.tensor, stay: tl.constexpr
) -> tl.tensor:
    """The logit of `state` in cells now in `own`; `weights` is [states][17], of each state its weights and its bias."""
    place = weights + state * (HIDDEN + 1)
    total = tl.load(place + HIDDEN)
    for j in tl.static_range(HIDDEN):
        total = total + units[j] * tl.load(place + j)
    if stay:
        total = tl.where(own == state, total + identity_bias, total)
    return total


@triton.jit
def rollout_kernel(
    tables: tl.tensor,
    hidden: tl.tensor,
    output: tl.tensor,
    out: tl.tensor,
    keys: tl.tensor,
    temperature: tl.tensor,
    identity_bias: tl.tensor,
    steps: tl.tensor,
    width: tl.constexpr,
    states: tl.constexpr,
    block: tl.constexpr,
    unrolled: tl.constexpr,
    noisy: tl.constexpr,
    stay: tl.constexpr,
) -> None:
    """Fill out[:, 1:] from out[:, 0]; `out` uint8 [n][steps + 1][cells], weights as from `packed`, `keys` int64 [n].

    `noisy`: temperature > 0; `stay`: identity_bias is not 0. The logits of `unrolled` states are computed side by side,
    so that one's additions fill the latency of another's.
    """
    cells: tl.constexpr = width * width
    simulation = tl.program_id(0).to(tl.int64)
    table = tables + simulation * (9 * states * CONV)
    weights1 = hidden + simulation * (HIDDEN * (CONV + 1))
    weights2 = output + simulation * (states * (HIDDEN + 1))
    now = out + simulation * (steps + 1) * cells
    if noisy:
        key = tl.load(keys + simulation).to(tl.uint64)
    for t in range(steps):
        for start in range(0, cells, block):
            # The hint, too small, keeps a thread's cells apart: with adjacent ones every table lookup would be preceded
            # by an exchange between threads.
            lane = tl.max_contiguous(start + tl.arange(0, block), 1)
            inside = lane < cells
            cell = tl.where(inside, lane, 0)
            units = hidden_units(channels(table, now, cell, width, states), weights1)
            own = tl.load(now + cell).to(tl.int32)
            best = tl.full((block,), float("-inf"), tl.float32)
            second = tl.full((block,), float("-inf"), tl.float32)
            chosen = tl.zeros((block,), tl.int32)
            for c in tl.range(0, states, loop_unroll_factor=unrolled):
                value = logit(units, weights2, c, own, identity_bias, stay)
                larger = value > best
                if noisy:
                    behind = tl.where(larger, best, value)
                    second = tl.where(behind > second, behind, second)
                best = tl.where(larger, value, best)
                chosen = tl.where(larger, c, chosen)
            if noisy:
                floor = best - REACH * temperature - tl.abs(best) * ROUNDING
                undecided = inside & (second >= floor)
                if tl.max(undecided.to(tl.int32), 0) > 0:
                    position = (cell.to(tl.int64) + t * cells) * states
                    top = tl.full((block,), float("-inf"), tl.float32)
                    for c in range(states):
                        value = logit(units, weights2, c, own, identity_bias, stay)
                        reached = undecided & (value >= floor)
                        if tl.max(reached.to(tl.int32), 0) > 0:
                            value = tl.math.div_rn(value, temperature) + gumbel(key, (position + c).to(tl.uint64))
                            larger = reached & (value > top)
                            top = tl.where(larger, value, top)
                            chosen = tl.where(larger, c, chosen)
            tl.store(now + cells + lane, chosen.to(tl.uint8), inside)
        now += cells
        tl.debug_barrier()  # the next step reads what other threads have written


def packed(rules: Rules) -> tuple[Any, Any, Any]:
    """Weights of `rules` as the kernel reads them, contiguous: (n, 3, 3, states, 4), (n, 16, 5) and (n, states, 17).

    The table is that of `Rules.table`, and its first place, with which sums begin, holds the bias too.
    """
    table = rules.conv_kernel[..., 1:-1, :].clone()
    table[..., -1, :] += rules.conv_kernel[..., 0, :]
    table[..., 0, :] += rules.conv_kernel[..., -1, :]
    table[:, 0, 0] += rules.conv_bias[:, None]
    hidden = torch.cat([rules.dense1_kernel.mT, rules.dense1_bias[:, :, None]], -1)
    output = torch.cat([rules.dense2_kernel.mT, rules.dense2_bias[:, :, None]], -1)
    return table.contiguous(), hidden.contiguous(), output.contiguous()


def launch(cells: int) -> tuple[int, int]:
    """Cells a block, and warps a program.

    A thread has 1, 2 or 4 cells. The loads of weights cost a block about half of what one more cell a thread does; the
    rest grows with the lanes, idle ones beyond the last cell included. Warps wait for one another after every step:
    only large grids get several.
    """
    warps = 1 if cells <= 1024 else 4
    each = min((4, 2, 1), key=lambda each: -(-cells // (32 * warps * each)) * (1 + 2 * each))
    return 32 * warps * each, warps


def constants(grid: int, states: int, temperature: float, identity_bias: float) -> dict[str, Any]:
    """What a kernel is compiled for, by the names of its arguments."""
    sides = range(min(4, states), min(8, states) + 1)
    return {
        "width": grid,  # `grid` is a word of Triton's
        "states": states,
        "block": launch(grid * grid)[0],
        "unrolled": max(sides, key=lambda side: (-(states % side), side)),  # states left over are computed one by one
        "noisy": bool(temperature > 0),
        "stay": bool(identity_bias != 0),
    }


def rollout(
    rules: Rules,
    state: Any,
    steps: int,
    temperature: float = 0.0,
    noise_keys: Any = None,
    identity_bias: float = 0.0,
) -> Any:
    """As `definition.rollout`: uint8 tensor (n, steps + 1, grid, grid), on the device of the tensors in `rules`.

    `state` and `noise_keys` are NumPy arrays. Any grid runs, in blocks of its cells, while steps x cells fit 31 bits.
    Every grid and number of states is compiled once, in seconds, and kept in Triton's cache on disk.
    """
    n, grid = state.shape[:2]
    device = rules.dense2_bias.device
    out = torch.empty((n, steps + 1, grid, grid), dtype=torch.uint8, device=device)
    out[:, 0] = torch.tensor(state, device=device)
    keys = signed(np.zeros(n) if noise_keys is None else noise_keys, device)
    if n and steps:
        with torch.cuda.device_of(out):
            rollout_kernel[(n,)](
                *packed(rules),
                out,
                keys,
                float(temperature),
                float(identity_bias),
                steps,
                **constants(grid, rules.states, temperature, identity_bias),
                **OPTIONS,
                num_warps=launch(grid * grid)[1],
            )
    return out


def signed(words: Any, device: Any) -> Any:
    """int64 tensor of the bits of uint64 NumPy `words`: torch has no arithmetic of unsigned words."""
    return torch.tensor(np.asarray(words, np.uint64).view(np.int64), device=device)


def mix(z: Any) -> Any:
    """As `harness.rng.mix`, of int64 tensors: sums and products wrap alike, shifts must not copy the sign."""
    z = z + as_signed(rng.GAMMA)
    z = (z ^ (z >> 30 & 2**34 - 1)) * as_signed(rng.MIX1)
    z = (z ^ (z >> 27 & 2**37 - 1)) * as_signed(rng.MIX2)
    return z ^ (z >> 31 & 2**33 - 1)


def as_signed(word: int) -> int:
    """The number that the 64 bits of `word` are in two's complement."""
    return (word ^ 2**63) - 2**63


@functools.cache
def weight_table(device: Any) -> Any:
    """`definition.weight_table` on a device, copied once."""
    return torch.tensor(definition.weight_table(), device=device)


def draw_rules(key: Any, states: int, device: Any) -> Rules:
    """As `definition.draw_rules`, of uint64 NumPy `key` (n,): float32 tensors on `device`."""
    device = torch.device(device)
    n, shapes = len(key), definition.kernel_shapes(states)
    sizes = [math.prod(shape) for shape in shapes]
    count = -(-sum(sizes) // 4)
    position = torch.arange(count, device=device) * as_signed(rng.GAMMA)
    words = mix(signed(key, device)[:, None] + position)
    bits = words[:, :, None] >> torch.arange(0, 64, 16, device=device) & 0xFFFF
    normal = weight_table(device)[bits.reshape(n, 4 * count)]
    kernels, first = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        kernels.append((normal[:, first : first + size] * float(definition.kernel_scale(shape))).reshape(n, *shape))
        first += size
    biases = [torch.zeros((n, width), device=device) for width in (definition.CONV, definition.HIDDEN, states)]
    return Rules(kernels[0], biases[0], kernels[1], biases[1], kernels[2], biases[2])


def patch_tokens(states: Any, alphabet: int, patch: int) -> Any:
    """As `tokens.patch_tokens`: int32 tensor (n, frames, patches) of `states`, uint8 tensor (n, frames, grid, grid)."""
    n, frames, grid, _ = states.shape
    side = grid // patch
    tokens = torch.zeros((n, frames, side, side), dtype=torch.int32, device=states.device)
    for k in range(patch * patch):
        tokens += states[..., k // patch :: patch, k % patch :: patch].to(torch.int32) * alphabet**k
    return tokens.reshape(n, frames, side * side)
