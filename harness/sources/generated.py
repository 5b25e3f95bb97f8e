"""What most generated sources have in common: no frames, every token a target, sequences that never repeat.

A source that is so states its `version`, its `vocab_size` and `tokens`; docs/extending.md has one from the start.
"""

from typing import Any, ClassVar

import numpy as np

from harness.sources import HELD_OUT


class Generated:
    """A source without state, which is its own reader: a frozen dataclass derives from it and gives `version`,
    `vocab_size` and `tokens`."""

    stored: ClassVar[bool] = False

    def tokens(self, seed: int, index: Any, count: int) -> Any:
        """int32 (n, count): the first `count` tokens of the sequences numbered `index` (int64, (n,)). A pure function
        of the settings, `seed` and the number: `rng.keys(index, seed, rng.named_seed(<name>))` gives a key a sequence,
        and `rng.words` its random numbers."""
        raise NotImplementedError(f"{type(self).__name__} has no `tokens`")

    @property
    def frame_tokens(self) -> int | None:
        """Sequences have no frames."""
        return None

    @property
    def token_bytes(self) -> Any | None:
        """Tokens stand for no text."""
        return None

    def open(self, artifact: Any = None) -> Any:
        """The source is its own reader."""
        return self

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """int32 (n, context) inputs and targets, every target supervised."""
        tokens = self.tokens(seed, index, context + 1)
        return tokens[:, :-1], tokens[:, 1:]

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        """The first sequences of a seed that no training stage has."""
        return self.sequences(HELD_OUT, np.arange(count), context)

    def epoch(self, context: int) -> int | None:
        """None: sequences never repeat by design."""
        return None
