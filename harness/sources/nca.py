"""Neural cellular automata as a token source: random rules, their trajectories, a complexity band, patch tokens.

After Lee, Han, Kumar and Agrawal, "Training Language Models via Neural Cellular Automata", arXiv 2603.10055 (2026).
`harness.automata` says what a rule is and runs it; here stand the settings, and which rule a sequence gets.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from harness import rng
from harness.automata import engine, score
from harness.automata.definition import CONV, HIDDEN, draw_start
from harness.errors import InputError, require, whole_fields
from harness.sources import HELD_OUT
from harness.specs import IDENTITY_FREE

BREADTH = 64
"""Candidates tried for all sequences of a chunk together before the stragglers are followed one by one."""
RULE, RUN, ENTRY = 1, 2, 3
"""What a sequence's random numbers are for: its own rules, or, with a bank, its start and noise and its entry."""


@dataclass(frozen=True)
class NCA:
    """Sequences of automaton frames, by default of the paper's size: one fresh rule for every sequence.

    `temperature` 0 takes the likeliest next state (the release's 1e-4 and the paper's 1e-3 draw it); `start` gives
    i.i.d. uniform cells or, as the release, one N(0, 1) logit vector a simulation from which all its cells are drawn.
    `burn_in` steps are dropped, then every `stride`-th state is a frame. A rule is accepted if the gzip ratio of the
    first ten frames of its own trajectory lies strictly inside `band` (None: every rule). `rules`: a fixed bank of
    that many accepted rules, of which each sequence runs one, chosen at random, from a start of its own; None: the
    rule of a sequence is the first of its own candidates to be accepted, and the trajectory that was scored is the
    one that is trained on. `candidates` tried in vain for one sequence, or one rule of the bank, refuse the band; they
    decide no token, so they are no part of the identity.
    """

    version: ClassVar[int] = 2
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
    candidates: int = field(default=100_000, metadata=IDENTITY_FREE)

    def __post_init__(self) -> None:
        whole_fields(self, states=2, grid=1, patch=1, burn_in=0, stride=1, candidates=1)
        if self.rules is not None:
            whole_fields(self, rules=1)
        require(self.states <= 256, "NCA.states", self.states, "use 2 to 256")
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
        require(math.isfinite(self.identity_bias), "NCA.identity_bias", self.identity_bias, "use a finite number")
        require(
            self.rules is None or self.rules <= self.candidates,
            "NCA.rules",
            self.rules,
            f"a bank holds at most candidates = {self.candidates} rules; raise candidates, or None for fresh rules",
        )
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
    def start_token(self) -> int:
        """The delimiter that begins a frame; the one that ends it is one above."""
        return self.states ** (self.patch**2)

    @property
    def frame_tokens(self) -> int:
        return (self.grid // self.patch) ** 2 + 2

    def frames_for(self, context: int) -> int:
        """Frames that hold `context` inputs and the last one's target."""
        return -(-(context + 1) // self.frame_tokens)

    def times(self, frames: int) -> slice:
        """The steps at which the first `frames` frames are taken."""
        return slice(self.burn_in, self.burn_in + self.stride * (frames - 1) + 1, self.stride)

    def accepts(self, ratio: Any) -> Any:
        """bool (n,): whether each gzip `ratio` lies strictly inside the band."""
        low, high = self.band or (-math.inf, math.inf)
        return (low < ratio) & (ratio < high)

    def flops_per_token(self, context: int) -> float:
        """FLOPs of generation a kept token, trials of rejected rules left out: steps x cells x (36 table additions +
        2 x 4 x 16 + 2 x 16 x states) / context, a multiply-add counted as 2."""
        cell = 9 * CONV + 2 * CONV * HIDDEN + 2 * HIDDEN * self.states
        return (self.times(self.frames_for(context)).stop - 1) * self.grid**2 * cell / context

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
        if s.rules is not None:
            self._fill_bank(seed, self._entries(seed, index))
        inputs = np.empty((len(index), context), np.int32)
        targets = np.empty_like(inputs)

        def fill(rows: slice) -> None:
            patches = self._patches(*self._trials(seed, index[rows]), s.frames_for(context))
            inputs[rows], targets[rows] = engine.supervised(patches, s.start_token, context)

        engine.in_chunks(fill, len(index))
        return inputs, targets

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        """The first `count` sequences of rules (in bank mode: of a bank) that no training seed reaches."""
        return self.sequences(HELD_OUT, np.arange(count), context)

    def epoch(self, context: int) -> None:
        """Sequences never repeat by design."""

    def frames(self, count: int, length: int) -> tuple[Any, Any]:
        """uint8 (count, length, grid, grid) frames of the first held-out sequences, and the gzip ratios (count,) of
        their first ten frames."""
        index = np.arange(count)
        if self.source.rules is not None:
            self._fill_bank(HELD_OUT, self._entries(HELD_OUT, index))
        states = self._states(*self._trials(HELD_OUT, index), max(length, score.FRAMES))
        patches = engine.patch_tokens(states, self.source.states, self.source.patch)
        return states[:, :length], score.ratio(patches)

    def scores(self, count: int) -> Any:
        """float64 (count,): gzip ratios of fresh candidates, whether the band accepts them or not."""
        first = rng.words(rng.keys(np.arange(count), HELD_OUT, RULE), 1)[:, 0]
        found = np.empty(count)

        def fill(rows: slice) -> None:
            found[rows] = self._scores(first[rows])

        engine.in_chunks(fill, count)
        return found

    def accepted(self, count: int) -> tuple[float, float | None]:
        """Of `count` fresh candidates the share whose score lies in the band, and the mean score of those."""
        scores = self.scores(count)
        kept = scores if self.source.band is None else scores[self.source.accepts(scores)]
        return len(kept) / count, float(kept.mean()) if len(kept) else None

    def _trials(self, seed: int, index: Any) -> tuple[Any, Any]:
        """uint64 (n,), (n,): the trials that give the rule, and the start and noise, of every sequence."""
        if self.source.rules is None:
            trial = self._accepted(seed, index)
            return trial, trial
        bank = self._bank[seed]
        return np.array([bank[int(e)] for e in self._entries(seed, index)], np.uint64), rng.keys(index, seed, RUN)

    def _entries(self, seed: int, index: Any) -> Any:
        """uint64 (n,): the entry of the bank that every sequence runs."""
        high = rng.words(rng.keys(index, seed, ENTRY), 1)[:, 0] >> np.uint64(32)
        return high * np.uint64(self.source.rules or 1) >> np.uint64(32)

    def _fill_bank(self, seed: int, entries: Any) -> None:
        """Find the rules of those `entries` of the bank that were not used before."""
        bank = self._bank.setdefault(seed, {})
        missing = np.array([e for e in np.unique(entries) if int(e) not in bank], np.int64)
        found = np.empty(len(missing), np.uint64)

        def fill(rows: slice) -> None:
            found[rows] = self._accepted(seed, missing[rows])

        engine.in_chunks(fill, len(missing))
        bank.update(zip(missing.tolist(), found.tolist(), strict=True))

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
        """bool (n,): whether the trajectory of each trial scores inside the band."""
        return self.source.accepts(self._scores(trial))

    def _scores(self, trial: Any) -> Any:
        """float64 (n,): the gzip ratio of each trial's own trajectory."""
        return score.ratio(self._patches(trial, trial, score.FRAMES))

    def _patches(self, rule: Any, run: Any, frames: int) -> Any:
        """int32 (n, frames, patches): the patch tokens of `_states`."""
        s = self.source
        return engine.patches(
            *self._draw(rule, run), s.times(frames), s.states, s.patch, s.temperature, s.identity_bias
        )

    def _states(self, rule: Any, run: Any, frames: int) -> Any:
        """uint8 (n, frames, grid, grid): the rule of trials `rule`, from the start and with the noise of `run`."""
        s, times = self.source, self.source.times(frames)
        rule_keys, start, noise_keys = self._draw(rule, run)
        rules = engine.draw_rules(rule_keys, s.states)
        return engine.rollout(rules, start, times.stop - 1, s.temperature, noise_keys, s.identity_bias)[:, times]

    def _draw(self, rule: Any, run: Any) -> tuple[Any, Any, Any]:
        """Keys of the rules, starts, and keys of the noise."""
        s, keys = self.source, rng.words(run, 3)
        return rng.words(rule, 1)[:, 0], draw_start(keys[:, 1], s.states, s.grid, s.start), keys[:, 2]
