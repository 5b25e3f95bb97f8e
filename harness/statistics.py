"""Statistics of token sequences, those that automata are compared with text by: how often tokens come, how many
different ones a sequence holds, how much of a frame stays. Pure NumPy.

Where a source has frames only patch tokens count: the delimiters say nothing about it.
"""

from typing import Any, NamedTuple

import numpy as np

RANKS = 1000
"""Ranks of the Zipf fit: beyond them the frequencies of a sample of a few million tokens are mostly noise."""


class Statistics(NamedTuple):
    """What `describe` finds; None where a number is not defined."""

    sequences: int
    tokens: int
    """Tokens counted: of frames only patches, the cut one at the end of a sequence among them."""
    ids: int
    """Distinct ids among them."""
    zipf_slope: float | None
    unigram_bits: float
    distinct: float
    """Different tokens in a sequence, mean."""
    distinct_median: float
    duplicates: float
    """Share of the sequences that repeat an earlier one."""
    repeated: float | None
    """Share of tokens equal to the same patch of the frame before; None without frames, as the next."""
    still: float | None
    """Share of sequences that end at a fixed point: their last whole frame is the one before it."""


def describe(tokens: Any, frame: int | None) -> Statistics:
    """Statistics of the sequences `tokens`, int (n, context), whose frames have `frame` tokens with both delimiters."""
    patches = tokens[:, patch_places(tokens.shape[1], frame)]
    counted, different = counts(patches), distinct(patches)
    return Statistics(
        sequences=len(tokens),
        tokens=patches.size,
        ids=len(counted),
        zipf_slope=zipf_slope(counted),
        unigram_bits=unigram_bits(counted),
        distinct=float(different.mean()),
        distinct_median=float(np.median(different)),
        duplicates=duplicates(patches),
        repeated=repeated(tokens, frame),
        still=still(tokens, frame),
    )


def patch_places(context: int, frame: int | None) -> Any:
    """bool (context,): where a sequence that begins with a frame of `frame` tokens has no delimiter."""
    place = np.arange(context)
    return np.ones(context, bool) if frame is None else (place % frame != 0) & (place % frame != frame - 1)


def counts(tokens: Any) -> Any:
    """int64 (ids,): how often every id that occurs in `tokens` does, descending."""
    return np.sort(np.unique(tokens, return_counts=True)[1])[::-1]


def zipf_slope(counts: Any) -> float | None:
    """Slope of ln frequency on ln rank over the first 1000 ranks, by least squares; None for fewer than 3 ids. `counts`
    as `counts` gives them."""
    if len(counts) < 3:
        return None
    y = np.log(counts[:RANKS])
    x = np.log(np.arange(1, len(y) + 1))
    x = x - x.mean()
    return float(x @ y / (x @ x))


def unigram_bits(counts: Any) -> float:
    """Entropy of the frequencies, bits a token (plug-in estimate: low where ids outnumber the sample)."""
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


def distinct(tokens: Any) -> Any:
    """int64 (n,): the number of different tokens in every row of `tokens` (n, m)."""
    ordered = np.sort(tokens, axis=1)
    return 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)


def duplicates(tokens: Any) -> float:
    """Share of the rows of `tokens` (n, m) that are equal to one above them."""
    return 1 - len({row.tobytes() for row in np.ascontiguousarray(tokens)}) / len(tokens)


def repeated(tokens: Any, frame: int | None) -> float | None:
    """Share of patch tokens, after the first frame, that are equal to the same patch of the frame before; None without
    frames or with one frame alone."""
    if frame is None or tokens.shape[1] < frame + 2:
        return None
    same = tokens[:, frame:] == tokens[:, :-frame]
    return float(same[:, patch_places(tokens.shape[1], frame)[frame:]].mean())


def still(tokens: Any, frame: int | None) -> float | None:
    """Share of sequences whose last whole frame is equal to the one before it; None with fewer than two."""
    if frame is None or tokens.shape[1] < 2 * frame:
        return None
    whole = tokens.shape[1] // frame * frame
    return float((tokens[:, whole - frame : whole] == tokens[:, whole - 2 * frame : whole - frame]).all(1).mean())
