"""Packed token shards and their one reader. A split is one stream of tokens, every document followed by an end-of-text
token; it is cut into `.npy` shards only so that files stay of a size that is easy to move, and no cut can be seen by
whoever reads: windows run across documents and shards alike.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError, require
from harness.rng import key, permuted

SHARD_TOKENS = 2**26


class TokenWriter:
    """Appends token arrays to `<directory>/<split>-00000.npy`, `-00001.npy`, ... of at most `shard_tokens` each."""

    def __init__(self, directory: Path, split: str, dtype: Any, shard_tokens: int = SHARD_TOKENS) -> None:
        require(shard_tokens >= 1, "shard_tokens", shard_tokens, "use at least 1")
        self.tokens = 0
        """Tokens appended so far."""
        self._directory, self._split, self._dtype, self._limit = directory, split, dtype, shard_tokens
        self._pending: list[Any] = []
        self._count = 0
        self._shards = 0

    def append(self, tokens: Any) -> None:
        """Add `tokens`, integers (n,), to the end of the stream."""
        self.tokens += len(tokens)
        while len(tokens):
            piece = tokens[: self._limit - self._count]
            self._pending.append(np.asarray(piece, self._dtype))
            self._count += len(piece)
            tokens = tokens[len(piece) :]
            if self._count == self._limit:
                self.close()

    def close(self) -> None:
        """Write what is pending."""
        if self._count:
            np.save(self._directory / f"{self._split}-{self._shards:05d}.npy", np.concatenate(self._pending))
            self._pending, self._count = [], 0
            self._shards += 1


class _Stream:
    """The memory-mapped shards of one split, as one sequence of tokens."""

    def __init__(self, directory: Path, split: str) -> None:
        self.split = split
        self._shards = [np.load(path, mmap_mode="r") for path in sorted(directory.glob(f"{split}-*.npy"))]
        if not self._shards:
            raise InputError(f"artifact = {str(directory)!r}: holds no {split} shards; tokenise the text again")
        self._starts = np.cumsum([0] + [len(s) for s in self._shards])

    @property
    def tokens(self) -> int:
        return int(self._starts[-1])

    def windows(self, context: int) -> int:
        """How many windows of `context` inputs, each with the one token after it, tile the stream."""
        return (self.tokens - 1) // context

    def read(self, window: Any, context: int) -> tuple[Any, Any]:
        """Inputs and targets, int32 (n, context), of the windows numbered `window` (int64, (n,))."""
        out = np.empty((len(window), context + 1), np.int32)
        for row, start in zip(out, np.asarray(window, np.int64) * context, strict=True):
            filled = 0
            while filled < len(row):
                position = int(start) + filled
                shard = int(np.searchsorted(self._starts, position, side="right")) - 1
                offset = position - int(self._starts[shard])
                piece = self._shards[shard][offset : offset + len(row) - filled]
                row[filled : filled + len(piece)] = piece
                filled += len(piece)
        return out[:, :-1], out[:, 1:]


class TokenReader:
    """The `specs.Sequences` of a directory of shards.

    Window w is tokens [w * context, w * context + context], so windows tile a split and every token but the first is a
    target once. Reading is thread-safe (maps are read-only), and a pickled reader is its path, opened again.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._train, self._validation = _Stream(self.directory, "train"), _Stream(self.directory, "validation")
        self.token_bytes = np.load(self.directory / "token_bytes.npy")
        """UTF-8 bytes that each token id stands for, int64 (vocab_size,); 0 for special tokens."""

    def __reduce__(self) -> tuple[Callable[..., "TokenReader"], tuple[Path]]:
        return TokenReader, (self.directory,)

    def epoch(self, context: int) -> int:
        """Number of distinct training windows; InputError if there is none."""
        count = self._train.windows(context)
        way_out = f"the training split has {self._train.tokens} tokens, too few for one window; use more text"
        require(count >= 1, "Llama.context", context, way_out)
        return count

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """Training sequences `index` (int64, (n,)): inputs and targets, int32 (n, context), every target supervised.

        Sequence i is in epoch i // N of N windows, and every epoch has an order of its own that depends on `seed`.
        """
        count = self.epoch(context)
        epoch, place = np.divmod(np.asarray(index, np.int64), count)
        window = np.empty(len(place), np.int64)
        for e in np.unique(epoch):
            window[epoch == e] = permuted(place[epoch == e], count, int(key(seed, int(e))))
        return self._train.read(window, context)

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        """`count` validation windows, evenly spaced over the split: inputs and targets, int32 (count, context)."""
        fit = self._validation.windows(context)
        require(
            count <= fit,
            "Evaluation.sequences",
            count,
            f"the validation split has {self._validation.tokens} tokens, {fit} windows of {context}; "
            "ask for fewer, use a shorter context, or raise Text.held_out",
        )
        return self._validation.read(np.arange(count) * fit // count, context)
