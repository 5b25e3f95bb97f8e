"""How long tokenising the text of a study takes, by what texts of the same store took."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.sources.text import Text
from harness.specs import Stage

GPT2_TOKENS, GPT2_BYTES_PER_TOKEN = 50_257, 4.4
"""The vocabulary of GPT-2, and how much English is a token of it."""
BYTE_TOKENS = 256
"""The vocabulary that has nothing but single bytes."""


@dataclass(frozen=True)
class TextRate:
    """What tokenising reached, reading and packing included."""

    bytes_per_s: float
    hardware: str
    """What it ran on."""
    count: int
    """How many texts were measured."""


def bytes_per_token(vocabulary: int) -> float:
    """About how much text is a token of a byte-level BPE of so many tokens, for the room that tokens take. From single
    bytes to GPT-2's it grows with the root of the logarithm of the vocabulary. Python's standard library has 1.5, 2.2,
    2.8, 3.3 and 4.1 at 300, 512, 1,024, 2,048 and 8,192 tokens; this says 1.6, 2.2, 2.7, 3.1 and 3.8."""
    grown = math.log(max(vocabulary, BYTE_TOKENS) / BYTE_TOKENS) / math.log(GPT2_TOKENS / BYTE_TOKENS)
    return 1 + (GPT2_BYTES_PER_TOKEN - 1) * math.sqrt(grown)


def measured(manifests: Iterable[dict[str, Any]]) -> TextRate | None:
    """The rate of the texts that `manifests` tell of, of those on the hardware that ran the newest of them; None where
    there are none. What a run before a restart had done is counted neither as text nor as time."""
    texts = [m for m in manifests if m.get("kind") == Text.__name__ and _seconds(m) > 0 and _bytes(m) > 0]
    if not texts:
        return None
    hardware = _hardware(max(texts, key=lambda m: str(m.get("started", ""))))
    texts = [m for m in texts if _hardware(m) == hardware]
    return TextRate(sum(map(_bytes, texts)) / sum(map(_seconds, texts)), hardware, len(texts))


def _seconds(manifest: dict[str, Any]) -> float:
    return float(manifest.get("wall_s") or 0.0)


def _bytes(manifest: dict[str, Any]) -> int:
    try:
        return int(manifest["train"]["bytes"] + manifest["validation"]["bytes"] - manifest.get("found_bytes", 0))
    except (KeyError, TypeError):
        return 0


def _hardware(manifest: dict[str, Any]) -> str:
    return str((manifest.get("hardware") or {}).get("cpu") or "unknown hardware")


def lines(left: Mapping[str, Stage], rate: TextRate | None, price: float | None = None) -> Iterator[str]:
    """A line for every text in `left`, the stages that a store lacks by digest: its size, hours, money at `price` an
    hour of one device that waits for it, and the room that its tokens take."""
    from harness.plan import si

    for text in left.values():
        if not isinstance(text, Text):
            continue
        name = text.dataset if text.files is None else text.files
        if text.size is None or text.documents is not None:
            yield f"{name}: how much text it is, and how long tokenising takes, is not known"
            continue
        room = text.size / bytes_per_token(text.vocab_size) * (2 if text.vocab_size <= 2**16 else 4)
        size = f"{name}: {si(text.size)}B to tokenise, about {si(room)}B of tokens, twice that until they are packed"
        if rate is None:
            yield f"{size}; how long it takes is not known (no text is tokenised in this store yet)"
            continue
        hours = text.size / rate.bytes_per_s / 3600
        took = f"{hours:,.1f} hours" if hours >= 0.1 else f"{hours * 3600:.3g} seconds"
        money = f", {price * hours:,.2f} for each device that waits" if price is not None else ""
        yield (
            f"{size}; {took}{money} at {si(rate.bytes_per_s)}B/s, measured on {rate.count} texts of this store "
            f"({rate.hardware})"
        )
