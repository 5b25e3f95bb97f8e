"""How complex a rule is: the gzip size of what it does."""

from typing import Any

import numpy as np

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
