"""The definition of a rollout, in elementwise NumPy: the same bits on every machine, and what every kernel must equal.

A rule is a small random network: one-hot state -> periodic 3x3 convolution to 4 channels -> 16 units, ReLU -> one
logit a state. All cells are updated at once.

Arithmetic: float32, every product rounded before it is added (no fused multiply-add), each sum starting from its bias
and taken in the order of the stored weights (places of the 3x3 kernel in raster order, then channels); the first of
equal maxima wins.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from harness import rng

CONV, HIDDEN = 4, 16
"""Channels of the published rule network after its convolution and after its hidden layer."""


class Rules(NamedTuple):
    """Weights of n rules, float32, in the layout of the paper's released code.

    The convolution sees states + 2 input channels, since the release pads its channel axis periodically too: channel 0
    repeats the last state, channel d + 1 is state d, channel states + 1 repeats state 0.
    """

    conv_kernel: Any
    """(n, 3, 3, states + 2, 4): row, column, input, output"""
    conv_bias: Any
    """(n, 4)"""
    dense1_kernel: Any
    """(n, 4, 16)"""
    dense1_bias: Any
    """(n, 16)"""
    dense2_kernel: Any
    """(n, 16, states)"""
    dense2_bias: Any
    """(n, states)"""

    @property
    def states(self) -> int:
        return int(self.dense2_bias.shape[1])

    def table(self) -> Any:
        """float32 (n, 9, states, 4): what a neighbour in each state adds to the channels, wrapped inputs folded in."""
        table = self.conv_kernel[..., 1:-1, :].astype(np.float32)
        table[..., -1, :] += self.conv_kernel[..., 0, :]
        table[..., 0, :] += self.conv_kernel[..., -1, :]
        return table.reshape(len(table), 9, self.states, CONV)


def neighbours(grid: int) -> Any:
    """uint32 (9, grid * grid): the flat cell at every place of the 3x3 kernel around each cell of a periodic grid."""
    cell = np.arange(grid * grid).reshape(grid, grid)
    places = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.stack([np.roll(cell, (-dy, -dx), (0, 1)).ravel() for dy, dx in places]).astype(np.uint32)


def logits(rules: Rules, state: Any, identity_bias: float = 0.0) -> Any:
    """float32 (n, grid, grid, states) of the next state of every cell; `state` uint8 (n, grid, grid).

    `identity_bias` is added to the logit of the state that the cell is in.
    """
    n, grid = state.shape[:2]
    flat, table, near = state.reshape(n, -1), rules.table(), neighbours(grid)
    row = np.arange(n)[:, None]
    conv = np.broadcast_to(rules.conv_bias[:, None], (n, grid * grid, CONV))
    for k in range(9):
        conv = conv + table[row, k, flat[:, near[k]]]
    hidden = rules.dense1_bias[:, None]
    for f in range(CONV):
        hidden = hidden + conv[..., f : f + 1] * rules.dense1_kernel[:, None, f]
    hidden = np.maximum(hidden, np.float32(0))
    out = rules.dense2_bias[:, None]
    for j in range(HIDDEN):
        out = out + hidden[..., j : j + 1] * rules.dense2_kernel[:, None, j]
    if identity_bias:
        out[row, np.arange(grid * grid), flat] += np.float32(identity_bias)
    return out.reshape(n, grid, grid, rules.states)


def gumbel(words: Any) -> Any:
    """Standard Gumbel noise, float32, from uint64 `words`: -log(-log u), u the midpoint of 52 bits."""
    u = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return (-rng.log(-rng.log(u))).astype(np.float32)


def choose(logits: Any, temperature: float, noise: Any = None) -> Any:
    """uint8 next states from `logits` (..., states): their argmax, or argmax(logits / temperature + noise).

    With Gumbel `noise` the latter is a draw from softmax(logits / temperature) (the Gumbel-max trick).
    """
    if temperature:
        logits = logits / np.float32(temperature) + noise
    return logits.argmax(-1).astype(np.uint8)


def rollout(
    rules: Rules,
    state: Any,
    steps: int,
    temperature: float = 0.0,
    noise_keys: Any = None,
    identity_bias: float = 0.0,
) -> Any:
    """Trajectories uint8 (n, steps + 1, grid, grid) of n rules, each from its own `state` uint8 (n, grid, grid).

    `noise_keys` uint64 (n,) is read at temperature > 0 only: the noise of (time, cell, state) is word
    (time * cells + cell) * states + state of the simulation's key.
    """
    n, grid = state.shape[:2]
    draws = grid * grid * rules.states
    states = np.empty((n, steps + 1, grid, grid), np.uint8)
    states[:, 0] = state
    for t in range(steps):
        out = logits(rules, states[:, t], identity_bias)
        noise = gumbel(rng.words(noise_keys, draws, t * draws)).reshape(out.shape) if temperature else None
        states[:, t + 1] = choose(out, temperature, noise)
    return states


def kernel_shapes(states: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the three kernels of a rule, in the order in which their weights are drawn."""
    return (3, 3, states + 2, CONV), (CONV, HIDDEN), (HIDDEN, states)


def kernel_scale(shape: tuple[int, ...]) -> Any:
    """Standard deviation, float32, of the weights of a kernel: LeCun's, fan-in ** -0.5."""
    return np.float32(math.prod(shape[:-1]) ** -0.5)


def weight_table() -> Any:
    """float32 (65536,): normals truncated at 2 standard deviations, of unit variance; 16 bits choose a weight."""
    return rng.normal_table(2.0)


def unbiased(conv: Any, dense1: Any, dense2: Any) -> Rules:
    """Rules of these kernels and zero biases."""
    n, states = len(conv), dense2.shape[-1]
    biases = [np.zeros((n, width), np.float32) for width in (CONV, HIDDEN, states)]
    return Rules(conv, biases[0], dense1, biases[1], dense2, biases[2])


def draw_rules(key: Any, states: int) -> Rules:
    """Random rules, one for each uint64 key: LeCun-normal kernels (truncated at 2 sd, variance 1 / fan-in), zero
    biases. Weight i is the entry of `weight_table` that the i-th 16 bits of the key's words choose, low bits first."""
    shapes = kernel_shapes(states)
    sizes = [math.prod(shape) for shape in shapes]
    bits = rng.words(key, -(-sum(sizes) // 4)).astype("<u8").view("<u2")
    normal = weight_table()[bits]
    kernels, first = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        kernels.append((normal[:, first : first + size] * kernel_scale(shape)).reshape(len(key), *shape))
        first += size
    return unbiased(*kernels)


def draw_start(key: Any, states: int, grid: int, start: str) -> Any:
    """uint8 (n, grid, grid), one initial grid for each uint64 key, each cell from 32 bits of its own.

    "uniform" scales them to a state. "shared_categorical" inverts the distribution function of softmax(z), z one
    N(0, 1) vector a simulation, with exponentials in float64.
    """
    n, cells = len(key), grid * grid
    bits = rng.words(key, -(-cells // 2)).astype("<u8").view("<u4")[:, :cells].astype(np.uint64)
    if start == "uniform":
        state = bits * np.uint64(states) >> np.uint64(32)
    else:
        z = rng.normal_table()[rng.words(key, states, cells) >> np.uint64(48)].astype(np.float64)
        below = np.cumsum(np.exp(z), -1)
        below /= below[:, -1:]
        u = (bits + 0.5) * 2.0**-32
        state = (u[:, :, None] >= below[:, None, :-1]).sum(-1)
    return state.astype(np.uint8).reshape(n, grid, grid)
