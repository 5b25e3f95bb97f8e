"""How complex a rule is: the gzip size of what it does."""

import functools
import zlib
from typing import Any

import numpy as np

from harness import rng

FRAMES = 10
"""Frames whose patch tokens are compressed to score a rule; part of the score's definition, as are int32 tokens."""


def score_bytes(patches: Any) -> Any:
    """int64 (n,): gzip size (level 9) of the int32 little-endian patch tokens of the first 10 of `patches`
    (n, frames, patches), delimiters left out. zlib's stream is gzip's with 12 bytes less of header and checksum."""
    data = patches[:, :FRAMES].astype("<i4")
    return np.array([len(zlib.compress(row.tobytes(), 9)) + 12 for row in data], np.int64)


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
