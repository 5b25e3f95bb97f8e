"""The definition compiled by numba: the same float32 operations in the same order, so equal bits.

What is not obvious here is the inner loop. Numba vectorises neither a table lookup by state nor three layers that must
stay in registers, so `layers` writes that part as LLVM vector IR: one vector lane a cell, `lanes` cells at a time.

* First layer. A neighbour in state s adds row s of a table of four channels. With AVX-512 a table of up to 16 states is
  one register a channel, and a permutation instruction looks up 16 cells at once (16 lanes). Elsewhere each cell adds
  its nine rows of four channels as 128-bit vectors, and the rows are transposed to lanes over cells (8 or 4 lanes).
* The other layers multiply a vector of cells by one broadcast weight. The sums of some states, a block, stay in
  registers; larger alphabets take several blocks, each of which computes the hidden units anew.
* Products are rounded before they are added: IR without the `contract` flag is never fused.

What the code is specialised for (lanes, states a block) travels as the length of a tuple of zeros: numba compiles one
version for each type, dispatch stays ordinary, and versions are kept in numba's cache on disk.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from harness import rng
from harness.automata.definition import CONV, HIDDEN

FLOAT, INT, BYTE, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(8), ir.IntType(64)
PERMUTED = 16
"""Lanes, and states, of the AVX-512 permutation."""
REGISTERS = {PERMUTED: 16, 8: 10, 4: 10}
"""Most states whose sums stay in registers, beside 4 channels and a hidden unit, by lanes: 32 vector registers with
AVX-512, else 16."""
LINE = 16
"""Floats in a line of the cache."""
BIAS0, WEIGHT1, BIAS1 = 0, CONV, CONV + CONV * HIDDEN
"""Where the parameters lie that all blocks share: 4, [4][16] and 16 floats."""
SHARED = BIAS1 + HIDDEN
GAMMA, MIX1, MIX2 = np.uint64(rng.GAMMA), np.uint64(rng.MIX1), np.uint64(rng.MIX2)
S12, S16, S27, S30, S31 = np.uint64(12), np.uint64(16), np.uint64(27), np.uint64(30), np.uint64(31)
LOW16 = np.uint64(0xFFFF)
# The largest Gumbel draw of 52 bits lies 40.4 above the smallest: a state further behind cannot win, and needs no draw.
REACH, ROUNDING = np.float32(41), np.float32(1e-6)
LN2, SQRT_HALF = rng.LN2, np.int64(rng.SQRT_HALF)
LAYERS = (
    "table", "shared", "output", "cells", "west", "east", "grid", "states", "first", "state", "leading", "chosen",
    "second", "logits", "padded", "identity_bias", "lanes", "block", "general",
)  # fmt: skip
"""The arguments of `layers` by name."""
kernel = njit(cache=True, nogil=True, error_model="numpy")


@functools.cache
def lanes(states: int) -> tuple[int, ...]:
    """Numbers of lanes that the instructions allow for which numba compiles, the fastest first."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    enabled = set(features.split(","))
    if "+avx512f" in enabled:
        return (PERMUTED, 8, 4) if states <= PERMUTED else (8, 4)
    return (8, 4) if "+avx2" in enabled else (4,)


def block(states: int, lanes: int) -> int:
    """States whose sums are held in registers at a time: as few and as equal blocks as `REGISTERS` allow."""
    blocks = -(-states // REGISTERS[lanes])
    return -(-states // blocks)


class Vectors:
    """LLVM vector instructions on `lanes` float32 cells; pointers are to elements, offsets in elements."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.builder, self.lanes = builder, lanes
        self.floats, self.ints, self.bytes = (ir.VectorType(kind, lanes) for kind in (FLOAT, INT, BYTE))

    def at(self, pointer: Any, offset: Any) -> Any:
        return self.builder.gep(pointer, [offset if isinstance(offset, ir.Value) else LONG(offset)])

    def load(self, pointer: Any, offset: Any, kind: Any, align: int) -> Any:
        value = self.builder.load(self.builder.bitcast(self.at(pointer, offset), kind.as_pointer()))
        value.align = align
        return value

    def store(self, value: Any, pointer: Any, offset: Any) -> None:
        place = self.builder.bitcast(self.at(pointer, offset), value.type.as_pointer())
        self.builder.store(value, place).align = 1

    def shuffle(self, a: Any, b: Any, order: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT, len(order)), order))

    def splat(self, scalar: Any, kind: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        return self.shuffle(self.builder.insert_element(undefined, scalar, INT(0)), undefined, [0] * self.lanes)

    def broadcast(self, pointer: Any, offset: Any) -> Any:
        return self.splat(self.builder.load(self.at(pointer, offset)), self.floats)

    def plus(self, total: Any, term: Any) -> Any:
        """`total` + `term`; a total of None is a bias of 0, and 0 + x is x."""
        return term if total is None else self.builder.fadd(total, term)

    def neighbours(self, cells: Any, west: Any, east: Any, first: Any, grid: Any) -> list[Any]:
        """The states, bytes, at the nine places of the kernel around the lanes from cell `first`; see `layers`."""
        add, sub, select = self.builder.add, self.builder.sub, self.builder.select
        none = ir.Constant(self.bytes, [0] * self.lanes)
        edges = [self.builder.icmp_signed("!=", self.load(edge, first, self.bytes, 1), none) for edge in (west, east)]
        row, found = add(first, grid), []  # `cells` begins with room for one row
        for _ in range(3):
            before, here, after = (self.load(cells, add(row, LONG(dx)), self.bytes, 1) for dx in (-1, 0, 1))
            wrapped_west = self.load(cells, sub(add(row, grid), LONG(1)), self.bytes, 1)
            wrapped_east = self.load(cells, add(sub(row, grid), LONG(1)), self.bytes, 1)
            found += [select(edges[0], wrapped_west, before), here, select(edges[1], wrapped_east, after)]
            row = add(row, grid)
        return found

    def permuted_channels(self, table: Any, near: list[Any], bias: list[Any]) -> list[Any]:
        """The four channels of every lane, from the states `near` it; `table` is [9][4][16]."""
        module, name = self.builder.module, "llvm.x86.avx512.permvar.sf.512"
        lookup = module.globals.get(name)
        if lookup is None:
            lookup = ir.Function(module, ir.FunctionType(self.floats, [self.floats, self.ints]), name)
        sums = list(bias)
        for k, states in enumerate(near):
            index = self.builder.zext(states, self.ints)
            for f in range(CONV):
                row = self.load(table, (k * CONV + f) * PERMUTED, self.floats, 4)
                sums[f] = self.plus(sums[f], self.builder.call(lookup, [row, index]))
        return sums

    def row_channels(self, table: Any, near: list[Any], bias: Any, states: Any) -> list[Any]:
        """The same from rows of four channels, `table` [9][states][4], one cell at a time and then transposed."""
        four = ir.VectorType(FLOAT, CONV)
        sums = [bias] * self.lanes
        for k, found in enumerate(near):
            rows = self.builder.mul(states, LONG(k))
            index = self.builder.zext(found, ir.VectorType(LONG, self.lanes))
            for lane in range(self.lanes):
                row = self.builder.add(self.builder.extract_element(index, LONG(lane)), rows)
                entry = self.load(table, self.builder.mul(row, LONG(CONV)), four, 4)
                sums[lane] = self.plus(sums[lane], entry)
        while len(sums) > 1:
            wide = list(range(2 * sums[0].type.count))
            sums = [self.shuffle(sums[i], sums[i + 1], wide) for i in range(0, len(sums), 2)]
        joined, undefined = sums[0], ir.Constant(sums[0].type, ir.Undefined)
        return [self.shuffle(joined, undefined, [CONV * i + f for i in range(self.lanes)]) for f in range(CONV)]


@intrinsic
def _layers(
    context: Any,
    table: Any,
    shared: Any,
    output: Any,
    cells: Any,
    west: Any,
    east: Any,
    grid: Any,
    states: Any,
    first: Any,
    state: Any,
    leading: Any,
    chosen: Any,
    second: Any,
    logits: Any,
    padded: Any,
    identity_bias: Any,
    lanes: Any,
    block: Any,
    general: Any,
) -> Any:
    """Hold the logits of one block of states, from `state` on, against the largest so far, for `lanes` cells from flat
    cell `first`: `leading` (padded cells,) float32 and `chosen`, uint8, its state.

    `cells` is the grid of bytes with its last row before it, its first row after it, and room around both. Seen flat,
    the neighbour to the west is the cell before, but for cells in the first column, where `west` (padded cells,) is
    not 0: theirs is a row less one cell ahead; and so on for `east`. `output` is the block's [16][block] weights and
    biases. With `general` of 2 biases and `identity_bias` are added, and `second`, the largest but one, and `logits`
    (states, padded cells) are kept; with 1 all biases are 0, as those of drawn rules are, and the sums begin without.
    """

    def generate(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(name: str) -> Any:
            i = LAYERS.index(name)
            return target.make_array(signature.args[i])(target, builder, args[i]).data

        def value(name: str) -> Any:
            return args[LAYERS.index(name)]

        v, width, add, mul = Vectors(builder, lanes.count), block.count, builder.add, builder.mul
        tables, common, weights, start = data("table"), data("shared"), data("output"), value("first")
        near = v.neighbours(data("cells"), data("west"), data("east"), start, value("grid"))

        def bias(pointer: Any, offset: int) -> Any:
            return v.broadcast(pointer, offset) if general.count > 1 else None

        if lanes.count == PERMUTED:
            channels = v.permuted_channels(tables, near, [bias(common, BIAS0 + f) for f in range(CONV)])
        else:
            row = v.load(common, BIAS0, ir.VectorType(FLOAT, CONV), 4) if general.count > 1 else None
            channels = v.row_channels(tables, near, row, value("states"))
        zero = ir.Constant(v.floats, [0.0] * v.lanes)
        sums = [bias(weights, HIDDEN * width + c) for c in range(width)]
        for j in range(HIDDEN):
            hidden = bias(common, BIAS1 + j)
            for f in range(CONV):
                weight = v.broadcast(common, WEIGHT1 + f * HIDDEN + j)
                hidden = v.plus(hidden, builder.fmul(channels[f], weight))
            hidden = builder.select(builder.fcmp_ordered(">", hidden, zero), hidden, zero)
            for c in range(width):
                sums[c] = v.plus(sums[c], builder.fmul(hidden, v.broadcast(weights, j * width + c)))
        best = v.load(data("leading"), start, v.floats, 4)
        winner = builder.zext(v.load(data("chosen"), start, v.bytes, 1), v.ints)
        number = v.splat(builder.trunc(value("state"), INT), v.ints)
        if general.count > 1:
            following = v.load(data("second"), start, v.floats, 4)
            stay = v.splat(value("identity_bias"), v.floats)
            own = builder.zext(near[4], v.ints)
        for c in range(width):
            if general.count > 1:
                sums[c] = builder.fadd(sums[c], builder.select(builder.icmp_signed("==", own, number), stay, zero))
                v.store(sums[c], data("logits"), add(start, mul(add(value("state"), LONG(c)), value("padded"))))
                behind = builder.select(builder.fcmp_ordered(">", sums[c], best), best, sums[c])
                following = builder.select(builder.fcmp_ordered(">", behind, following), behind, following)
            larger = builder.fcmp_ordered(">", sums[c], best)
            winner = builder.select(larger, number, winner)
            best = builder.select(larger, sums[c], best)
            number = add(number, ir.Constant(v.ints, [1] * v.lanes))
        if general.count > 1:
            v.store(following, data("second"), start)
        v.store(best, data("leading"), start)
        v.store(builder.trunc(winner, v.bytes), data("chosen"), start)
        return target.get_dummy_value()

    arguments = (
        table, shared, output, cells, west, east, grid, states, first, state, leading, chosen, second, logits, padded,
        identity_bias, lanes, block, general,
    )  # fmt: skip
    return types.void(*arguments), generate


layers: Any = _layers  # the compiler gives the first argument


@intrinsic
def _copied(context: Any, target: Any, at: Any, source: Any, start: Any, count: Any) -> Any:
    """target[at : at + count] = source[start : start + count], which do not overlap; a loop over few bytes is slow."""

    def generate(built: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, of = (built.make_array(signature.args[i])(built, builder, args[i]).data for i in (0, 2))
        cgutils.raw_memcpy(builder, builder.gep(to, [args[1]]), builder.gep(of, [args[3]]), args[4], LONG(1))
        return built.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


copied: Any = _copied


@kernel
def same(a: Any, b: Any) -> bool:
    """Whether two grids are equal: most differ in their first cells."""
    for i in range(len(a)):  # noqa: SIM110 (numba compiles no generator)
        if a[i] != b[i]:
            return False
    return True


@kernel
def log(x: float) -> float:
    """As `harness.rng.log`."""
    bits = np.float64(x).view(np.int64)
    exponent = (bits - SQRT_HALF) >> 52
    m = np.int64(bits - (exponent << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    total = 1.0 / 17
    total = total * z + 1.0 / 15
    total = total * z + 1.0 / 13
    total = total * z + 1.0 / 11
    total = total * z + 1.0 / 9
    total = total * z + 1.0 / 7
    total = total * z + 1.0 / 5
    total = total * z + 1.0 / 3
    total = total * z + 1.0
    return exponent * LN2 + 2.0 * s * total


@kernel
def word(key: np.uint64, position: int) -> np.uint64:
    """As `harness.rng.words`."""
    z = key + np.uint64(position) * GAMMA + GAMMA
    z = (z ^ (z >> S30)) * MIX1
    z = (z ^ (z >> S27)) * MIX2
    return z ^ (z >> S31)


@kernel
def gumbel(key: np.uint64, position: int) -> np.float32:
    """As `definition.gumbel` of word `position` of `key`."""
    u = (np.float64(word(key, position) >> S12) + 0.5) * 2.0**-52
    return np.float32(-log(-log(u)))


@kernel
def sample(
    logits: Any, states: int, i: int, floor: np.float32, temperature: np.float32, key: np.uint64, position: int
) -> int:
    """argmax(logits / temperature + noise) of cell `i`, over the states whose logit is at least `floor`."""
    best, chosen = np.float32(-np.inf), 0
    for c in range(states):
        if logits[c, i] >= floor:
            value = logits[c, i] / temperature + gumbel(key, position + c)
            if value > best:
                best, chosen = value, c
    return chosen


@kernel
def rollout(
    conv_kernel: Any,
    conv_bias: Any,
    dense1_kernel: Any,
    dense1_bias: Any,
    dense2_kernel: Any,
    dense2_bias: Any,
    out: Any,
    grid: int,
    temperature: np.float32,
    keys: Any,
    identity_bias: np.float32,
    lanes: Any,
    block: Any,
    general: Any,
) -> None:
    """Fill out[:, 1:] from out[:, 0]; `out` uint8 (n, steps + 1, cells), weights as in `Rules`, keys uint64 (n,)."""
    cells, states = out.shape[2], dense2_kernel.shape[2]
    width, wide = len(lanes), len(block)
    blocks, padded = -(-states // wide), -(-cells // width) * width
    around = np.zeros(padded + 4 * grid + 1, np.uint8)  # lanes beyond the last cell read on; nothing uses their results
    west, east = np.zeros(padded, np.uint8), np.zeros(padded, np.uint8)
    for y in range(0, cells, grid):
        west[y], east[y + grid - 1] = 1, 1
    shared = np.empty(SHARED, np.float32)
    output = np.empty((blocks, HIDDEN * wide + wide), np.float32)
    room = np.zeros(9 * CONV * (PERMUTED if width == PERMUTED else states) + LINE, np.float32)
    table = room[-room.ctypes.data // 4 % LINE :]  # a register's 16 states in one line of the cache
    logits = np.empty((blocks * wide, padded) if len(general) > 1 else (1, 1), np.float32)
    leading, second = np.empty(padded, np.float32), np.empty(padded, np.float32)
    chosen = np.empty(padded, np.uint8)
    for r in range(out.shape[0]):
        fold(conv_kernel[r], table, width == PERMUTED)
        for f in range(CONV):
            shared[BIAS0 + f] = conv_bias[r, f]
            for j in range(HIDDEN):
                shared[WEIGHT1 + f * HIDDEN + j] = dense1_kernel[r, f, j]
        for j in range(HIDDEN):
            shared[BIAS1 + j] = dense1_bias[r, j]
        for c in range(blocks * wide):  # NaN is never larger: states beyond the last do not win
            for j in range(HIDDEN):
                output[c // wide, j * wide + c % wide] = dense2_kernel[r, j, c] if c < states else np.nan
            output[c // wide, HIDDEN * wide + c % wide] = dense2_bias[r, c] if c < states else np.nan
        for t in range(out.shape[1] - 1):
            now, following = out[r, t], out[r, t + 1]
            copied(around, grid, now, cells - grid, grid)
            copied(around, 2 * grid, now, 0, cells)
            copied(around, 2 * grid + cells, now, 0, grid)
            for i in range(padded):
                leading[i], second[i], chosen[i] = -np.inf, -np.inf, 0
            for b in range(blocks):
                weights = output[b]
                for i in range(0, cells, width):
                    layers(
                        table, shared, weights, around, west, east, grid, states, i, b * wide, leading, chosen, second,
                        logits, padded, identity_bias, lanes, block, general,
                    )  # fmt: skip
            if len(general) > 1 and temperature > 0:
                for i in range(cells):
                    floor = leading[i] - REACH * temperature - abs(leading[i]) * ROUNDING
                    if second[i] >= floor:
                        chosen[i] = sample(logits, states, i, floor, temperature, keys[r], (t * cells + i) * states)
            copied(following, 0, chosen, 0, cells)
            if temperature == 0:
                period = 1 if same(following, now) else 2 if t > 0 and same(following, out[r, t - 1]) else 0
                if period:  # what follows repeats
                    for later in range(t + 2, out.shape[1]):
                        copied(out[r, later], 0, out[r, later - period], 0, cells)
                    break


@kernel
def fold(weights: Any, table: Any, permuted: bool) -> None:
    """`definition.Rules.table` of one rule, laid out as `layers` looks it up: [9][4][16] if `permuted`, else
    [9][states][4]."""
    states = weights.shape[2] - 2
    for k in range(9):
        for c in range(states):
            for f in range(CONV):
                value = weights[k // 3, k % 3, c + 1, f]
                if c == states - 1:
                    value += weights[k // 3, k % 3, 0, f]
                if c == 0:
                    value += weights[k // 3, k % 3, states + 1, f]
                table[(k * CONV + f) * PERMUTED + c if permuted else (k * states + c) * CONV + f] = value


@kernel
def draw_kernels(keys: Any, normal: Any, scales: Any, kernels: Any) -> None:
    """Fill the three float32 arrays `kernels` (n, size) of `definition.draw_rules`, each scaled by its of `scales`."""
    for r in range(len(keys)):
        position, bits = 0, np.uint64(0)
        for weights, scale in zip(kernels, scales):  # noqa: B905 (numba knows no strict)
            row = weights[r]
            for i in range(len(row)):
                bits = bits >> S16 if position & 3 else word(keys[r], position >> 2)
                row[i] = normal[bits & LOW16] * scale
                position += 1


@kernel
def patch_sums(now: Any, grid: int, alphabet: int, patch: int, sums: Any) -> None:
    """Fill `sums` int32 (cells,): at the first cell of a patch stands its token, elsewhere what nobody reads."""
    for i in range(len(now)):
        sums[i] = now[i]
    power = np.int32(1)
    for k in range(1, patch * patch):
        power *= np.int32(alphabet)
        ahead = now[k // patch * grid + k % patch :]
        for i in range(len(ahead)):
            sums[i] += power * np.int32(ahead[i])


@kernel
def patch_tokens(states: Any, grid: int, alphabet: int, patch: int, out: Any) -> None:
    """Fill `out` int32 (n, frames, patches) with the tokens of `states` uint8 (n, frames, cells)."""
    side = grid // patch
    sums = np.empty(states.shape[2], np.int32)
    for r in range(states.shape[0]):
        for t in range(states.shape[1]):
            patch_sums(states[r, t], grid, alphabet, patch, sums)
            for y in range(side):
                for x in range(side):
                    out[r, t, y * side + x] = sums[(y * grid + x) * patch]


@kernel
def supervised(patches: Any, start: int, inputs: Any, targets: Any) -> None:
    """As `tokens.supervised` of `tokens.framed`, into `inputs` and `targets` int32 (n, context)."""
    n, frames, count = patches.shape
    frame, context = count + 2, inputs.shape[1]
    stream = np.empty(frames * frame, np.int32)
    for r in range(n):
        for t in range(frames):
            stream[t * frame], stream[(t + 1) * frame - 1] = start, start + 1
            row = stream[t * frame + 1 :]
            for i in range(count):
                row[i] = patches[r, t, i]
        for i in range(context):
            inputs[r, i] = stream[i]
        for i in range(min(frame - 1, context)):
            targets[r, i] = -100
        for i in range(frame - 1, context):
            targets[r, i] = stream[i + 1]
