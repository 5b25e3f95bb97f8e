"""Neural cellular automata as a token source: random rules, their trajectories, a complexity band, patch tokens.

After Lee, Han, Kumar and Agrawal, "Training Language Models via Neural Cellular Automata", arXiv 2603.10055 (2026).
A rule is a small random network: one-hot state -> periodic 3x3 convolution to 4 channels -> 16 units, ReLU -> one
logit a state. All cells are updated at once; frames of the grid become patch tokens between delimiters.

Definition of the arithmetic: float32, every product rounded before it is added (no fused multiply-add), each sum
starting from its bias and taken in the order of the stored weights (places of the 3x3 kernel in raster order, then
channels); the first of equal maxima wins. `rollout_numpy` states it in elementwise operations, the same on every
machine; `nca_kernel` compiles it.
"""

import functools
import math
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from harness import rng
from harness.errors import InputError, require
from harness.sources import HELD_OUT

CONV, HIDDEN = 4, 16
"""Channels of the published rule network after its convolution and after its hidden layer."""
SCORE_FRAMES = 10
"""Frames whose patch tokens are compressed to score a rule; part of the score's definition, as are int32 tokens."""
CHUNK = 512
"""Simulations rolled out at a time: bounds memory, changes no result."""
BREADTH = 64
"""Candidates tried for all sequences of a chunk together before the stragglers are followed one by one."""
RULE, RUN, ENTRY = 1, 2, 3
"""What a sequence's random numbers are for: its own rules, or, with a bank, its start and noise and its entry."""


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
    """Standard Gumbel noise, float32, from uint64 `words`: -log(-log u), u the midpoint of 52 bits.

    The logarithms are taken in float64 and rounded, because float32 logarithms differ between libraries.
    """
    u = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return (-np.log(-np.log(u))).astype(np.float32)


def choose(logits: Any, temperature: float, noise: Any = None) -> Any:
    """uint8 next states from `logits` (..., states): their argmax, or argmax(logits / temperature + noise).

    With Gumbel `noise` the latter is a draw from softmax(logits / temperature) (the Gumbel-max trick).
    """
    if temperature:
        logits = logits / np.float32(temperature) + noise
    return logits.argmax(-1).astype(np.uint8)


def rollout_numpy(
    rules: Rules,
    state: Any,
    steps: int,
    temperature: float = 0.0,
    noise_keys: Any = None,
    identity_bias: float = 0.0,
) -> Any:
    """As `rollout`, in elementwise NumPy: the definition, and the fallback where numba cannot be used."""
    n, grid = state.shape[:2]
    draws = grid * grid * rules.states
    states = np.empty((n, steps + 1, grid, grid), np.uint8)
    states[:, 0] = state
    for t in range(steps):
        out = logits(rules, states[:, t], identity_bias)
        noise = gumbel(rng.words(noise_keys, draws, t * draws)).reshape(out.shape) if temperature else None
        states[:, t + 1] = choose(out, temperature, noise)
    return states


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
    compiled = _kernel()
    if compiled is None:
        return rollout_numpy(rules, state, steps, temperature, noise_keys, identity_bias)
    n, grid = state.shape[:2]
    out = np.empty((n, steps + 1, grid * grid), np.uint8)
    out[:, 0] = state.reshape(n, -1)
    compiled(
        rules.table(),
        *(np.ascontiguousarray(a, np.float32) for a in rules[1:4]),
        np.ascontiguousarray(rules.dense2_kernel.transpose(0, 2, 1), np.float32),
        np.ascontiguousarray(rules.dense2_bias, np.float32),
        neighbours(grid),
        out,
        np.float32(temperature),
        np.zeros(n, np.uint64) if noise_keys is None else noise_keys,
        np.float32(identity_bias),
    )
    return out.reshape(n, steps + 1, grid, grid)


@functools.cache
def _kernel() -> Callable[..., None] | None:
    try:
        from harness.sources import nca_kernel
    except (ImportError, RuntimeError) as error:  # numba raises the latter where no directory can hold its cache
        warnings.warn(f"numba cannot be used ({error}): NCA rollouts run in NumPy, 20 times slower", stacklevel=3)
        return None
    return nca_kernel.rollout


def patch_tokens(states: Any, alphabet: int, patch: int) -> Any:
    """int32 (..., patches) of `states` (..., grid, grid): patches in raster order, each read as a number in base
    `alphabet` whose least significant digit is its first cell in raster order."""
    side = states.shape[-1] // patch
    tokens = np.zeros((*states.shape[:-2], side, side), np.int32)
    for k in range(patch * patch):
        tokens += states[..., k // patch :: patch, k % patch :: patch] * np.int32(alphabet**k)
    return tokens.reshape(*tokens.shape[:-2], side * side)


def framed(patches: Any, alphabet: int, patch: int) -> Any:
    """int32 (n, frames * (patches + 2)): every frame of `patches` (n, frames, patches) between its delimiters."""
    n, frames, _ = patches.shape
    start = np.full((n, frames, 1), alphabet ** (patch * patch), np.int32)
    return np.concatenate([start, patches, start + np.int32(1)], -1).reshape(n, -1)


def supervised(tokens: Any, frame: int, context: int) -> tuple[Any, Any]:
    """`inputs` and `targets` int32 (n, context): targets are the next tokens, -100 within the first frame, whose
    tokens nothing before them determines. `tokens` (n, more than context) has `frame` tokens a frame."""
    inputs = tokens[:, :context].astype(np.int32)
    targets = tokens[:, 1 : context + 1].astype(np.int32)
    targets[:, : frame - 1] = -100
    return inputs, targets


def score_bytes(patches: Any) -> Any:
    """int64 (n,): gzip size (level 9) of the int32 little-endian patch tokens of the first 10 of `patches`
    (n, frames, patches), delimiters left out. zlib's stream is gzip's with 12 bytes less of header and checksum."""
    data = patches[:, :SCORE_FRAMES].astype("<i4")
    return np.array([len(zlib.compress(row.tobytes(), 9)) + 12 for row in data], np.int64)


class Replay(NamedTuple):
    """What `replay` returns, for n rules."""

    states: Any
    """uint8 (n, steps + 1, grid, grid): t = 0, 1, ..."""
    tokens: Any
    """int32 (n, frames * frame_tokens): the frames at t = burn_in, burn_in + stride, ... up to `steps`"""
    inputs: Any
    """int32 (n, context)"""
    targets: Any
    """int32 (n, context), -100 where not supervised"""
    score_bytes: Any
    """int64 (n,): gzip size of the first 10 frames"""
    score: Any
    """float64 (n,): gzip size over raw size"""
    logits: Any
    """float32 (n, grid, grid, states) at t = 0"""


def replay(
    rules: Rules,
    state: Any,
    steps: int,
    *,
    patch: int = 2,
    burn_in: int = 10,
    stride: int = 1,
    context: int = 1024,
    temperature: float = 0.0,
    noise_keys: Any = None,
    identity_bias: float = 0.0,
) -> Replay:
    """Everything that the generator derives from given weights, to hold it against another implementation.

    `rules` as in `Rules`, `state` uint8 (n, grid, grid). Frames that the context or the score needs beyond `steps` are
    rolled out too, but not returned. Raises InputError if shapes and settings do not fit.
    """
    n, grid = state.shape[:2]
    settings = NCA(rules.states, grid, patch, temperature, burn_in=burn_in, stride=stride, identity_bias=identity_bias)
    kernel = (n, 3, 3, rules.states + 2, CONV)
    require(rules.conv_kernel.shape == kernel, "Rules.conv_kernel", rules.conv_kernel.shape, f"want {kernel}")
    require(int(state.max()) < rules.states, "state", int(state.max()), f"cells lie in 0 .. {rules.states - 1}")
    require(temperature == 0 or noise_keys is not None, "noise_keys", noise_keys, "give n uint64 keys to sample with")
    last = max(steps, settings.time(settings.frames_for(context) - 1), settings.time(SCORE_FRAMES - 1))
    states = rollout(rules, state, last, temperature, noise_keys, identity_bias)
    patches = patch_tokens(states[:, burn_in::stride], rules.states, patch)
    size = score_bytes(patches)
    tokens = framed(patches, rules.states, patch)
    shown = max(0, (steps - burn_in) // stride + 1)
    return Replay(
        states[:, : steps + 1],
        tokens[:, : shown * settings.frame_tokens],
        *supervised(tokens, settings.frame_tokens, context),
        size,
        size / settings.score_raw_bytes,
        logits(rules, state, identity_bias),
    )


@dataclass(frozen=True)
class NCA:
    """Sequences of automaton frames, by default of the paper's size: one fresh rule for every sequence.

    `temperature` 0 takes the likeliest next state (the release's 1e-4 and the paper's 1e-3 draw it); `start` gives
    i.i.d. uniform cells or, as the release, one N(0, 1) logit vector a simulation from which all its cells are drawn.
    `burn_in` steps are dropped, then every `stride`-th state is a frame. A rule is accepted if the gzip ratio of the
    first ten frames of its own trajectory lies strictly inside `band` (None: every rule). `rules`: a fixed bank of
    that many accepted rules, of which each sequence runs one, chosen at random, from a start of its own; None: the
    rule of a sequence is the first of its own candidates to be accepted, and the trajectory that was scored is the
    one that is trained on. `candidates` tried in vain for one sequence refuse the band.
    """

    version: ClassVar[int] = 1
    stored: ClassVar[bool] = False

    states: int = 10
    grid: int = 12
    patch: int = 2
    temperature: float = 0.0
    start: Literal["uniform", "shared_categorical"] = "uniform"
    burn_in: int = 10
    stride: int = 1
    band: tuple[float, float] | None = None
    rules: int | None = None
    identity_bias: float = 0.0
    candidates: int = 10_000

    def __post_init__(self) -> None:
        require(2 <= self.states <= 256, "NCA.states", self.states, "use 2 to 256")
        require(self.patch >= 1, "NCA.patch", self.patch, "use at least 1")
        require(
            self.grid >= self.patch and self.grid % self.patch == 0,
            "NCA.grid",
            self.grid,
            f"use a multiple of patch = {self.patch}",
        )
        require(
            self.states ** (self.patch**2) + 2 < 2**31,
            "NCA.states, NCA.patch",
            (self.states, self.patch),
            "states ** patch**2 + 2 token ids must fit int32; use fewer states or a smaller patch",
        )
        require(
            self.temperature == 0 or 1e-6 <= self.temperature < math.inf,
            "NCA.temperature",
            self.temperature,
            "use 0 (argmax) or at least 1e-6, below which float32 logits swallow the noise",
        )
        starts = ("uniform", "shared_categorical")
        require(self.start in starts, "NCA.start", self.start, "use 'uniform' or 'shared_categorical'")
        require(self.burn_in >= 0, "NCA.burn_in", self.burn_in, "use 0 or more steps")
        require(self.stride >= 1, "NCA.stride", self.stride, "use at least 1")
        require(self.rules is None or self.rules >= 1, "NCA.rules", self.rules, "use at least 1 rule, or None")
        require(math.isfinite(self.identity_bias), "NCA.identity_bias", self.identity_bias, "use a finite number")
        require(self.candidates >= 1, "NCA.candidates", self.candidates, "use at least 1")
        if self.band is not None:
            band = tuple(self.band) if isinstance(self.band, list | tuple) else ()
            require(
                len(band) == 2 and 0 <= band[0] < band[1] <= 1,
                "NCA.band",
                self.band,
                "use (low, high) with 0 <= low < high <= 1, a range of gzip ratios",
            )
            object.__setattr__(self, "band", band)

    @property
    def vocab_size(self) -> int:
        """Patches and the two frame delimiters."""
        return self.states ** (self.patch**2) + 2

    @property
    def frame_tokens(self) -> int:
        return (self.grid // self.patch) ** 2 + 2

    @property
    def score_raw_bytes(self) -> int:
        """Bytes of the int32 patch tokens that a rule's score compresses."""
        return SCORE_FRAMES * (self.frame_tokens - 2) * 4

    def frames_for(self, context: int) -> int:
        """Frames that hold `context` inputs and the last one's target."""
        return -(-(context + 1) // self.frame_tokens)

    def time(self, frame: int) -> int:
        """Step at which a frame is taken."""
        return self.burn_in + self.stride * frame

    def flops_per_token(self, context: int) -> float:
        """FLOPs of generation a kept token, trials of rejected rules left out: steps x cells x (36 table additions +
        2 x 4 x 16 + 2 x 16 x states) / context, a multiply-add counted as 2."""
        cell = 9 * CONV + 2 * CONV * HIDDEN + 2 * HIDDEN * self.states
        return self.time(self.frames_for(context) - 1) * self.grid**2 * cell / context

    def open(self, artifact: Any = None) -> "NCASequences":
        return NCASequences(self)


class NCASequences:
    """Reader of an `NCA`. Sequence i is a pure function of (settings, seed, i).

    A trial is one uint64 key, from whose words 0, 1 and 2 the weights, the start and the noise of a simulation are
    drawn: trial c of a sequence is word c of the sequence's key.
    """

    def __init__(self, source: NCA) -> None:
        self.source = source
        self._bank: dict[int, dict[int, int]] = {}  # by seed: accepted trial of the bank's entries used so far

    token_bytes = None

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """int32 (n, context) inputs and targets. Raises InputError if the band accepts no candidate of a sequence."""
        s = self.source
        index = np.asarray(index, np.int64)
        inputs = np.empty((len(index), context), np.int32)
        targets = np.empty_like(inputs)
        for rows in _chunks(len(index)):
            states = self._simulate(*self._trials(seed, index[rows]), s.time(s.frames_for(context) - 1))
            tokens = framed(patch_tokens(states[:, s.burn_in :: s.stride], s.states, s.patch), s.states, s.patch)
            inputs[rows], targets[rows] = supervised(tokens, s.frame_tokens, context)
        return inputs, targets

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        """The first `count` sequences of rules (in bank mode: of a bank) that no training seed reaches."""
        return self.sequences(HELD_OUT, np.arange(count), context)

    def epoch(self, context: int) -> None:
        """Sequences never repeat by design."""

    def frames(self, count: int, length: int) -> tuple[Any, Any]:
        """uint8 (count, length, grid, grid) frames of the first held-out sequences, and the gzip ratios (count,) of
        their first ten frames."""
        s = self.source
        trials = self._trials(HELD_OUT, np.arange(count))
        states = self._simulate(*trials, s.time(max(length, SCORE_FRAMES) - 1))[:, s.burn_in :: s.stride]
        return states[:, :length], score_bytes(patch_tokens(states, s.states, s.patch)) / s.score_raw_bytes

    def acceptance(self, count: int) -> float:
        """Share of `count` fresh candidates whose score lies in the band."""
        first = rng.words(rng.keys(np.arange(count), HELD_OUT, RULE), 1)[:, 0]
        return float(np.mean(np.concatenate([self._accepts(first[rows]) for rows in _chunks(count)])))

    def _trials(self, seed: int, index: Any) -> tuple[Any, Any]:
        """uint64 (n,), (n,): the trials that give the rule, and the start and noise, of every sequence."""
        rules = self.source.rules
        if rules is None:
            trial = self._accepted(seed, index)
            return trial, trial
        entry = (rng.words(rng.keys(index, seed, ENTRY), 1)[:, 0] >> np.uint64(32)) * np.uint64(rules) >> np.uint64(32)
        bank = self._bank.setdefault(seed, {})
        missing = np.array([e for e in np.unique(entry) if int(e) not in bank], np.int64)
        for rows in _chunks(len(missing)):
            bank.update(zip(missing[rows].tolist(), self._accepted(seed, missing[rows]).tolist(), strict=True))
        return np.array([bank[int(e)] for e in entry], np.uint64), rng.keys(index, seed, RUN)

    def _accepted(self, seed: int, index: Any) -> Any:
        """uint64 (n,): for every index the first of its trials that the band accepts."""
        key = rng.keys(index, seed, RULE)
        trial = rng.words(key, 1)[:, 0]
        if self.source.band is None:
            return trial
        pending, tried = np.arange(len(key)), 0
        for c in range(min(BREADTH, self.source.candidates)):
            trial[pending] = rng.words(key[pending], 1, c)[:, 0]
            tried += len(pending)
            pending = pending[~self._accepts(trial[pending])]
            if not len(pending):
                return trial
        accepted = len(key) - len(pending)
        for row in pending:
            for c in range(BREADTH, self.source.candidates, BREADTH):
                block = rng.words(key[row : row + 1], min(BREADTH, self.source.candidates - c), c)[0]
                hits = np.flatnonzero(self._accepts(block))
                tried += len(block) if not len(hits) else int(hits[0]) + 1
                if len(hits):
                    trial[row] = block[hits[0]]
                    accepted += 1
                    break
            else:
                raise InputError(
                    f"NCA.band = {self.source.band!r}: accepted {accepted} of {tried} candidates, and none of "
                    f"{self.source.candidates} for one sequence; choose another band or raise NCA.candidates"
                )
        return trial

    def _accepts(self, trial: Any) -> Any:
        """bool (n,): whether the trajectory of each trial scores strictly inside the band."""
        s = self.source
        if s.band is None:
            return np.ones(len(trial), bool)
        states = self._simulate(trial, trial, s.time(SCORE_FRAMES - 1))
        score = score_bytes(patch_tokens(states[:, s.burn_in :: s.stride], s.states, s.patch)) / s.score_raw_bytes
        return (score > s.band[0]) & (score < s.band[1])

    def _simulate(self, rule: Any, run: Any, steps: int) -> Any:
        """uint8 (n, steps + 1, grid, grid): the rule of trials `rule`, from the start and with the noise of `run`."""
        s = self.source
        keys = rng.words(run, 3)
        rules = draw_rules(rng.words(rule, 1)[:, 0], s.states)
        start = draw_start(keys[:, 1], s.states, s.grid, s.start)
        return rollout(rules, start, steps, s.temperature, keys[:, 2], s.identity_bias)


def draw_rules(key: Any, states: int) -> Rules:
    """Random rules, one for each uint64 key: LeCun-normal kernels (truncated at 2 sd, variance 1 / fan-in), zero
    biases. Each weight is an entry of `rng.normal_table` that 16 bits choose."""
    n = len(key)
    shapes = [(3, 3, states + 2, CONV), (CONV, HIDDEN), (HIDDEN, states)]
    sizes = [math.prod(shape) for shape in shapes]
    bits = rng.words(key, -(-sum(sizes) // 4)).astype("<u8").view("<u2")
    normal = rng.normal_table(2.0)[bits]
    kernels, first = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        scale = np.float32(math.prod(shape[:-1]) ** -0.5)
        kernels.append((normal[:, first : first + size] * scale).reshape(n, *shape))
        first += size
    zeros = [np.zeros((n, width), np.float32) for width in (CONV, HIDDEN, states)]
    return Rules(kernels[0], zeros[0], kernels[1], zeros[1], kernels[2], zeros[2])


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


def _chunks(count: int) -> list[slice]:
    return [slice(i, i + CHUNK) for i in range(0, count, CHUNK)]
