"""The copy task: random strings, each written twice."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from harness import rng
from harness.errors import require, whole
from harness.sources.generated import Generated

LETTERS, LENGTHS = 0, 1
"""Words of a sequence's key: what each of its streams of random numbers is for."""


@dataclass(frozen=True)
class Copy(Generated):
    """Consecutive items START w COPY w, where w are i.i.d. uniform symbols out of `alphabet`, their number uniform over
    `length` = (least, most); the last item is cut at the context.

    Ids: symbols are 0 to alphabet - 1, START is `alphabet` and COPY the id after it. Supervised are the symbols of the
    second w alone, which the first determines; the first w is noise, and so is where it ends. A longer context begins
    with a shorter one's tokens.
    """

    version: ClassVar[int] = 1

    alphabet: int = 64
    length: tuple[int, int] = (8, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alphabet", whole("Copy.alphabet", self.alphabet, 2, 2**31 - 3))  # ids fit int32
        pair = tuple(self.length) if isinstance(self.length, list | tuple) else ()
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and v == v // 1 for v in pair)
        require(
            len(pair) == 2 and numbers and 1 <= pair[0] <= pair[1] < 2**31,
            "Copy.length",
            self.length,
            "use (least, most), two whole numbers of symbols with 1 <= least <= most",
        )
        object.__setattr__(self, "length", (int(pair[0]), int(pair[1])))

    @property
    def vocab_size(self) -> int:
        """Symbols and the two delimiters."""
        return self.alphabet + 2

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """int32 (n, context) inputs and targets. Raises InputError if a sequence might end before its first copy."""
        alphabet, (least, most) = self.alphabet, self.length
        require(
            context >= most + 2,
            "Copy.length",
            self.length,
            f"a context of {context} tokens may end before the first copy; use at least {most + 2}, or shorter strings",
        )
        key = rng.words(rng.keys(index, seed, rng.named_seed("Copy")), 2)
        count = context + 1
        place = np.arange(count)
        items = -(-count // (2 * least + 2))  # no sequence has more
        length = rng.words(key[:, LENGTHS], items) % np.uint64(most - least + 1) + np.uint64(least)
        size = 2 * length.astype(np.int64) + 2
        start = size.cumsum(1) - size
        # The item at every place is the number of items that start up to it; those behind the end are lost in a
        # column that is cut off.
        starts = np.zeros((len(key), count + 1), np.int64)
        np.put_along_axis(starts, np.minimum(start, count), 1, 1)
        item = starts[:, :count].cumsum(1) - 1
        offset = place - np.take_along_axis(start, item, 1)
        half = np.take_along_axis(size, item, 1) // 2  # START w, and COPY w
        letters = (rng.words(key[:, LETTERS], count) % np.uint64(alphabet)).astype(np.int32)
        copied = offset > half
        tokens = np.take_along_axis(letters, place - np.where(copied, half, 0), 1)
        tokens[offset == 0] = alphabet
        tokens[offset == half] = alphabet + 1
        return tokens[:, :-1], np.where(copied[:, 1:], tokens[:, 1:], np.int32(-100))
