"""Balanced brackets: the Dyck language of k types, nested, or the shuffle of k Dyck languages of one type each."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harness import rng
from harness.errors import require, whole, whole_fields
from harness.sources.generated import Generated

COIN, KIND, CHOICE = 0, 1, 2
"""Words of a sequence's key: what each of its streams of random numbers is for."""


@dataclass(frozen=True)
class Dyck(Generated):
    """Words of `k`-Dyck, by default as the NCA paper's baseline (arXiv 2603.10055): 128 types of brackets, any depth.

    A word is written from left to right. A bracket opens with probability `opening`, its type uniform over all `k`,
    unless `depth` are open (None: no limit) or what is left of the word is needed to close those that are; with none
    open, one opens. Else one closes: the newest, or, `interleaved` (k-shuffle-Dyck), any of those that are open, all
    with equal chance; the tokens of each type are then a Dyck word of their own.

    A sequence is words of `length` tokens one after the other, the last cut at the context, so that a longer context
    begins with a shorter one's tokens. With `length` None it is one word that is as long as the context and its last
    target, one more where that is odd: what comes before the closing at its end is the same in a longer context.

    Ids: openers are 0 to k - 1, the closer of type i is k + i. All targets are supervised.
    """

    version: ClassVar[int] = 1

    k: int = 128
    depth: int | None = None
    interleaved: bool = False
    length: int | None = None
    opening: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", whole("Dyck.k", self.k, 1, 2**30 - 1))  # ids fit int32
        if self.depth is not None:
            whole_fields(self, depth=1)
        require(isinstance(self.interleaved, bool), "Dyck.interleaved", self.interleaved, "use True or False")
        if self.length is not None:
            even = isinstance(self.length, int | float) and self.length % 2 == 0 and self.length >= 2
            require(
                even, "Dyck.length", self.length, "a balanced word has an even number of tokens, at least 2; or None"
            )
            whole_fields(self, length=2)
        require(0 <= self.opening <= 1, "Dyck.opening", self.opening, "use a probability in [0, 1]")

    @property
    def vocab_size(self) -> int:
        """Openers and closers."""
        return 2 * self.k

    def tokens(self, seed: int, index: Any, count: int) -> Any:
        """int32 (n, count). With `length` None a sequence is a function of `count` too."""
        length = self.length or count + count % 2
        deepest = min(self.depth or length, length // 2, count)
        key = rng.words(rng.keys(index, seed, rng.named_seed("Dyck")), 3)
        # A word's upper 53 bits against the probability in units of 2**-53, so that integers alone are compared.
        heads = rng.words(key[:, COIN], count) >> np.uint64(11) < np.uint64(self.opening * 2.0**53)
        kinds = (rng.words(key[:, KIND], count) % np.uint64(self.k)).astype(np.int32)
        choice = (rng.words(key[:, CHOICE], count) >> np.uint64(1)).astype(np.int64) if self.interleaved else None
        row = np.arange(len(key))
        open_kinds = np.zeros((len(key), deepest), np.int32)  # the first `depth` of every row: a stack, or a bag
        depth = np.zeros(len(key), np.int64)
        tokens = np.empty((len(key), count), np.int32)
        for t in range(count):
            left = length - t % length  # at a depth of `left`, of equal parity, all of them must close
            opens = (depth == 0) | (heads[:, t] & (depth < min(deepest, left)))
            newest = depth - 1
            closes = newest if choice is None else choice[:, t] % np.maximum(depth, 1)
            place = np.where(opens, depth, closes)
            kind = np.where(opens, kinds[:, t], open_kinds[row, place])
            # What opens goes on top; what closes gives its place to the top.
            open_kinds[row, place] = np.where(opens, kind, open_kinds[row, newest])
            tokens[:, t] = np.where(opens, kind, kind + self.k)
            depth += np.where(opens, 1, -1)
        return tokens
