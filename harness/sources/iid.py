"""A control: i.i.d. tokens with the unigram of another source, so that there is nothing to learn but counts."""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harness import rng
from harness.errors import require, whole_fields
from harness.sources import HELD_OUT
from harness.specs import Sequences, Source

SAMPLE = 2**64 - 2
"""The seed of the sequences that a unigram is estimated from: above all training seeds, and not the held-out set's."""


@dataclass(frozen=True)
class IID:
    """Tokens drawn independently from the unigram of `source`, a generated source: the counts of ids in the first
    `sample_context` tokens of `sample` of its sequences.

    Where the source has frames, patch tokens are counted and drawn; delimiters and supervised positions are the
    source's, which has them at the same places in every sequence. Without frames all tokens are drawn and all targets
    supervised. A longer context begins with a shorter one's tokens. Every reader generates the sample once, when it is
    first asked for tokens.
    """

    version: ClassVar[int] = 1
    stored: ClassVar[bool] = False

    source: Source
    sample: int = 4096
    sample_context: int = 1024

    def __post_init__(self) -> None:
        require(
            not self.source.stored,
            "IID.source",
            type(self.source).__name__,
            "is read from a store; use a generated source, such as NCA",
        )
        whole_fields(self, sample=1, sample_context=1)
        require(
            self.sample_context >= (self.frame_tokens or 1),
            "IID.sample_context",
            self.sample_context,
            f"use at least the {self.frame_tokens} tokens of one frame",
        )

    @property
    def vocab_size(self) -> int:
        return self.source.vocab_size

    @property
    def frame_tokens(self) -> int | None:
        return self.source.frame_tokens

    def open(self, artifact: Any = None) -> "IIDSequences":
        return IIDSequences(self, self.source.open())


class IIDSequences:
    """Reader of an `IID` over the reader of its source. Sequence i is a pure function of (settings, seed, i)."""

    def __init__(self, source: IID, reader: Sequences) -> None:
        self.source, self.reader = source, reader
        self._layouts: dict[int, tuple[Any, Any]] = {}  # by context

    @property
    def token_bytes(self) -> Any | None:
        return self.reader.token_bytes

    @functools.cached_property
    def unigram(self) -> tuple[Any, Any]:
        """The ids that occur in the sample, int32 ascending, and how many of its tokens have an id up to each, int64:
        an exact distribution function, of the size of what occurs and not of the vocabulary."""
        context = self.source.sample_context
        tokens, _ = self.reader.sequences(SAMPLE, np.arange(self.source.sample), context)
        ids, counts = np.unique(tokens[:, self._drawn(context)], return_counts=True)
        return ids, counts.cumsum()

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        ids, up_to = self.unigram
        words = rng.words(rng.keys(index, seed, rng.named_seed("IID")), context + 1)
        # Inverse distribution function in integers; the remainder favours an id by less than its count / 2**64.
        place = (words % np.uint64(up_to[-1])).astype(np.int64)
        tokens = ids[np.searchsorted(up_to, place, side="right")]
        if self.source.frame_tokens is None:
            return tokens[:, :-1], tokens[:, 1:]
        delimiters, hidden = self._layout(context)
        tokens = np.where(self._drawn(context + 1), tokens, delimiters)
        return tokens[:, :-1], np.where(hidden, np.int32(-100), tokens[:, 1:])

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        return self.sequences(HELD_OUT, np.arange(count), context)

    def epoch(self, context: int) -> int | None:
        """None: sequences never repeat by design."""
        return None

    def _drawn(self, count: int) -> Any:
        """bool (count,): which tokens of a sequence are drawn; with frames all but the first and last of each."""
        frame = self.source.frame_tokens
        if frame is None:
            return np.ones(count, bool)
        place = np.arange(count) % frame
        return (place != 0) & (place != frame - 1)

    def _layout(self, context: int) -> tuple[Any, Any]:
        """Of a sequence of the source: its tokens, int32 (context + 1,), whose delimiters are kept, and which of its
        targets are not supervised, bool (context,)."""
        if context not in self._layouts:
            tokens, targets = self.reader.sequences(SAMPLE, np.arange(1), context + 1)
            self._layouts[context] = tokens[0], targets[0, :context] == -100
        return self._layouts[context]
