"""Gzip ratios of text on the scale on which rules are scored, so that a band can be chosen for a corpus.

The paper (arXiv 2603.10055) prints one ratio for each of its corpora and finds the best band near it, but does not say
what of the text it compressed, tokens or bytes, or how much at once. Ratios depend on all of that, so both are here.
"""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.automata import score
from harness.errors import require
from harness.specs import Sequences

PATCHES = 36
"""Patches of a frame of the paper's automata: a score compresses 10 frames of them, 360 tokens, 1,440 bytes."""
WINDOWS = 2048
"""Windows, pieces and documents that a ratio of text is taken over, at most: a standard error of .001 to .003."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PUBLISHED = {"code": (0.32, "30-40 %"), "math": (0.58, "50 %+"), "web": (0.70, "50 %+")}
"""The paper's corpora: gzip ratio of the text, and the band of automata that helped most."""


def summary(ratios: Any, iid: float | None = None) -> dict[str, Any]:
    """Count, mean and quantiles of `ratios` (n,), and the same over `iid`, the ratio of i.i.d. tokens, where given."""
    found: dict[str, Any] = {"count": len(ratios), "mean": float(np.mean(ratios))}
    found["quantiles"] = {f"{q:g}": float(np.quantile(ratios, q)) for q in QUANTILES}
    if iid is not None:
        found["iid"] = iid
        found["normalised"] = summary(np.asarray(ratios) / iid)
    return found


def of_tokens(tokens: Any, patches: int = PATCHES) -> Any:
    """float64 (windows,): the ratio of every window of as many tokens as a score compresses, scored as a rule is (int32
    little-endian), of the sequences `tokens` (n, context); what is left at the end of a sequence is left out."""
    size = score.FRAMES * patches
    fit = tokens.shape[1] // size
    return score.ratio(tokens[:, : fit * size].reshape(-1, score.FRAMES, patches))


def of_bytes(data: bytes) -> float:
    """Gzip size (level 9; zlib's and 12 bytes, as in `score`) of `data` over its own."""
    return (len(zlib.compress(data, 9)) + 12) / len(data)


def of_text(
    reader: Sequences, documents: Iterable[str], vocab: int, patches: int = PATCHES, windows: int = WINDOWS
) -> dict[str, Any]:
    """Ratios of a text, by what is compressed (`summary` each; None where the text has too little for it):

    - "tokens": windows of 10 x `patches` tokens of `reader`, whose sequences lie in pseudorandom places of the corpus;
      normalised by i.i.d. tokens of `vocab` ids;
    - "bytes": pieces of as many UTF-8 bytes as such a window of tokens has, out of `documents`, one after the other;
    - "documents": whole documents, UTF-8.

    Each is taken over at most `windows`, evenly spaced where there are more. `documents` should be in no order that
    follows what is in them, or be all of the corpus.
    """
    size = score.FRAMES * patches
    epoch = reader.epoch(size)
    count = windows if epoch is None else min(windows, epoch)
    require(count > 0, "windows", count, f"the text has fewer than the {size} tokens of one window; use more text")
    tokens, _ = reader.sequences(0, np.arange(count), size)
    whole = [d.encode() for d in documents if d]
    require(bool(whole), "documents", 0, "the text is empty")
    stream = b"".join(whole)
    starts = spaced(len(stream) // (4 * size), windows) * (4 * size)
    pieces = [of_bytes(stream[start : start + 4 * size]) for start in starts]
    return {
        "tokens": summary(of_tokens(tokens, patches), score.iid_ratio(vocab, patches)),
        "bytes": summary(pieces) if pieces else None,
        "documents": summary([of_bytes(whole[i]) for i in spaced(len(whole), windows)]),
    }


def spaced(count: int, most: int) -> Any:
    """int64: all of range(`count`), or `most` of them, evenly spaced."""
    return np.arange(count) if count <= most else np.arange(most) * count // most
