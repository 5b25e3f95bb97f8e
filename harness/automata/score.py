"""How complex a rule is: the gzip size of what it does."""

from typing import Any

import numpy as np

from harness.automata import engine

FRAMES = 10
"""Frames whose patch tokens are compressed to score a rule; part of the score's definition, as are int32 tokens."""
GZIP_BYTES = 18
"""Header and trailer that a gzip file (RFC 1952) adds to a deflate stream."""


def score_bytes(patches: Any) -> Any:
    """int64 (n,): gzip size (level 9) of the int32 little-endian patch tokens of the first 10 of `patches`
    (n, frames, patches), delimiters left out."""
    frames = patches[:, :FRAMES]
    data = np.ascontiguousarray(frames, "<i4").view(np.uint8).reshape(len(frames), frames.shape[1] * frames.shape[2] * 4)
    return engine.deflate_bytes(data) + GZIP_BYTES


def ratio(patches: Any) -> Any:
    """float64 (n,): `score_bytes` over the raw size of what it compresses."""
    return score_bytes(patches) / (FRAMES * patches.shape[2] * 4)
