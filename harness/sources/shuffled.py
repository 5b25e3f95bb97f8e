"""A control: the tokens of another source with their structure in space or in time destroyed, their counts kept."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from harness import rng
from harness.errors import require
from harness.sources import HELD_OUT
from harness.specs import Sequences, Source


@dataclass(frozen=True)
class Shuffled:
    """`source`, a generated source with frames, in pseudorandom order: `what` = "tokens" permutes the patch tokens of
    every frame by a permutation of its own (delimiters stay in place), "frames" the frames of a sequence in time.

    Vocabulary, frame length and the positions that are supervised stay those of `source`. Sequence i stays a pure
    function of (settings, seed, i); with "frames" also of the context, whose frames are the ones permuted.
    """

    version: ClassVar[int] = 1
    stored: ClassVar[bool] = False

    source: Source
    what: Literal["tokens", "frames"] = "tokens"

    def __post_init__(self) -> None:
        require(self.what in ("tokens", "frames"), "Shuffled.what", self.what, "use 'tokens' or 'frames'")
        require(
            self.source.frame_tokens is not None and not self.source.stored,
            "Shuffled.source",
            type(self.source).__name__,
            "has no frames to shuffle; use a generated source of grids, such as NCA",
        )

    @property
    def vocab_size(self) -> int:
        return self.source.vocab_size

    @property
    def frame_tokens(self) -> int:
        assert self.source.frame_tokens is not None  # checked at construction
        return self.source.frame_tokens

    def flops_per_token(self, context: int) -> float:
        """FLOPs of generation a kept token: those of `source`, 0 where it states none."""
        return getattr(self.source, "flops_per_token", lambda context: 0.0)(context)

    def open(self, artifact: Any = None) -> "ShuffledSequences":
        return ShuffledSequences(self, self.source.open())


class ShuffledSequences:
    """Reader of a `Shuffled` over the reader of its source, whose sequences at a longer context must begin with those
    at a shorter one."""

    def __init__(self, source: Shuffled, reader: Sequences) -> None:
        self.source, self.reader = source, reader

    @property
    def token_bytes(self) -> Any | None:
        return self.reader.token_bytes

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        return self._shuffle(self.reader.sequences(seed, index, self._whole(context)), seed, index, context)

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        return self._shuffle(self.reader.held_out(count, self._whole(context)), HELD_OUT, np.arange(count), context)

    def epoch(self, context: int) -> int | None:
        return self.reader.epoch(self._whole(context))

    def _whole(self, context: int) -> int:
        """Tokens of the whole frames that hold `context` inputs and the last one's target."""
        return -(-(context + 1) // self.source.frame_tokens) * self.source.frame_tokens

    def _shuffle(self, read: tuple[Any, Any], seed: int, index: Any, context: int) -> tuple[Any, Any]:
        tokens, targets = read
        frames = tokens.reshape(len(tokens), -1, self.source.frame_tokens).copy()
        key = rng.keys(index, seed, rng.named_seed("Shuffled", self.source.what))
        if self.source.what == "tokens":
            patches = frames[:, :, 1:-1]
            order = rng.words(key, patches.shape[1] * patches.shape[2]).reshape(patches.shape).argsort(-1)
            frames[:, :, 1:-1] = np.take_along_axis(patches, order, -1)
        else:
            order = rng.words(key, frames.shape[1]).argsort(-1)
            frames = np.take_along_axis(frames, order[:, :, None], 1)
        tokens = frames.reshape(len(tokens), -1)
        hidden = targets[:, :context] == -100
        return tokens[:, :context], np.where(hidden, np.int32(-100), tokens[:, 1 : context + 1])
