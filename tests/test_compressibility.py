"""Gzip ratios of text, on the scale of rules and on its own."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from harness import compressibility
from harness.automata import score
from harness.errors import InputError
from harness.sources.text import Text, documents, parts
from harness.sources.tokenising import tokenise


def test_bytes_have_the_size_that_gzip_gives() -> None:
    data = b"to be or not to be, that is the question. " * 30
    assert compressibility.of_bytes(data) == len(gzip.compress(data, 9, mtime=0)) / len(data)


def test_windows_are_scored_as_rules_are() -> None:
    tokens = np.random.default_rng(0).integers(0, 300, (3, 1024), np.int32)
    found = compressibility.of_tokens(tokens)
    assert found.shape == (6,)  # two windows of 360 a sequence, the rest left out
    raw = tokens[1, 360:720].astype("<i4").tobytes()
    assert found[3] == len(gzip.compress(raw, 9, mtime=0)) / 1440
    assert compressibility.of_tokens(tokens, patches=16).shape == (18,)


def test_a_tokenised_text_on_every_scale(text: Text, tmp_path: Path) -> None:
    text = text.resolved()
    tokenise(text, tmp_path)
    whole = [d.text for part in parts(text) for d in documents(text, part)]
    reader = text.open(tmp_path)
    found = compressibility.of_text(reader, whole, text.vocab_size, windows=8)
    assert [found[k]["count"] for k in ("tokens", "bytes", "documents")] == [8, 8, 8]
    tokens, _ = reader.sequences(0, np.arange(8), 360)
    assert found["tokens"]["mean"] == pytest.approx(compressibility.of_tokens(tokens).mean())
    assert found["tokens"]["normalised"]["mean"] == pytest.approx(found["tokens"]["mean"] / score.iid_ratio(300, 36))
    for scale in ("tokens", "bytes", "documents"):
        quantiles = list(found[scale]["quantiles"].values())
        assert quantiles == sorted(quantiles) and 0 < quantiles[0] and quantiles[-1] < 1.1
    assert found["documents"]["mean"] == pytest.approx(
        np.mean([compressibility.of_bytes(whole[i * 40 // 8].encode()) for i in range(8)])
    )
    json.dumps(found, allow_nan=False)
    every = compressibility.of_text(reader, whole, text.vocab_size)
    assert every["documents"]["count"] == 40
    assert every["tokens"]["count"] == reader.epoch(360)


def test_too_little_text(text: Text, tmp_path: Path) -> None:
    text = text.resolved()
    tokenise(text, tmp_path)
    with pytest.raises(InputError, match="empty"):
        compressibility.of_text(text.open(tmp_path), [""], text.vocab_size)
    assert compressibility.of_text(text.open(tmp_path), ["a short one"], text.vocab_size)["bytes"] is None
