"""From states to tokens: patches of a frame between delimiters, and what a trainer is fed."""

from typing import Any

import numpy as np


def patch_tokens(states: Any, alphabet: int, patch: int) -> Any:
    """int32 (..., patches) of `states` (..., grid, grid): patches in raster order, each read as a number in base
    `alphabet` whose least significant digit is its first cell in raster order."""
    side = states.shape[-1] // patch
    tokens = np.zeros((*states.shape[:-2], side, side), np.int32)
    for k in range(patch * patch):
        tokens += states[..., k // patch :: patch, k % patch :: patch] * np.int32(alphabet**k)
    return tokens.reshape(*tokens.shape[:-2], side * side)


def framed(patches: Any, start: int) -> Any:
    """int32 (n, frames * (patches + 2)): every frame of `patches` (n, frames, patches) between the delimiters `start`
    and `start` + 1."""
    n, frames, _ = patches.shape
    delimiter = np.full((n, frames, 1), start, np.int32)
    return np.concatenate([delimiter, patches, delimiter + np.int32(1)], -1).reshape(n, -1)


def supervised(tokens: Any, frame: int, context: int) -> tuple[Any, Any]:
    """`inputs` and `targets` int32 (n, context): targets are the next tokens, -100 within the first frame, whose
    tokens nothing before them determines. `tokens` (n, more than context) has `frame` tokens a frame."""
    inputs = tokens[:, :context].astype(np.int32)
    targets = tokens[:, 1 : context + 1].astype(np.int32)
    targets[:, : frame - 1] = -100
    return inputs, targets
