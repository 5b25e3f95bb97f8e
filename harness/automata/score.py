"""How complex a rule is: the gzip size of what it does."""

import functools
from typing import Any

import numpy as np

from harness import rng
from harness.automata import engine

FRAMES = 10
"""Frames whose patch tokens are compressed to score a rule; part of the score's definition, as are int32 tokens."""
GZIP_BYTES = 18
"""Header and trailer that a gzip file (RFC 1952) adds to a deflate stream."""


def score_bytes(patches: Any) -> Any:
    """int64 (n,): gzip size (level 9) of the int32 little-endian patch tokens of the first 10 of `patches`
    (n, frames, patches), delimiters left out."""
    frames = patches[:, :FRAMES]
    data = (
        np.ascontiguousarray(frames, "<i4").view(np.uint8).reshape(len(frames), frames.shape[1] * frames.shape[2] * 4)
    )
    return engine.deflate_bytes(data) + GZIP_BYTES


def ratio(patches: Any) -> Any:
    """float64 (n,): `score_bytes` over the raw size of what it compresses."""
    return score_bytes(patches) / (FRAMES * patches.shape[2] * 4)


IID_DRAWS = 256
"""Draws whose mean is `iid_ratio`: one scatters by .002 to .008 at the sizes in use, the mean by .0005 at most."""


@functools.cache
def iid_ratio(alphabet: int, patches: int) -> float:
    """Mean `ratio` of 10 frames of `patches` i.i.d. tokens, uniform over `alphabet` ids: what no structure scores.

    Raw ratios do not carry over between alphabets (few ids compress by their number alone), so a ratio over this one
    stands beside each: 1 is no structure that gzip sees. 256 draws from fixed keys: the same number everywhere.
    """
    words = rng.words(rng.keys(np.arange(IID_DRAWS), rng.named_seed("iid_ratio"), alphabet), FRAMES * patches)
    tokens = (words % np.uint64(alphabet)).astype(np.int32)
    return float(ratio(tokens.reshape(IID_DRAWS, FRAMES, patches)).mean())
