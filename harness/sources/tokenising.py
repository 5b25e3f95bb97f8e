"""From a `Text` to its artifact, token shards: a few pure functions (`train_tokenizer`, `encode_block`, `write`), so
that a cluster may encode the parts anywhere, in any order. `tokenise` is the same in one process.

A part is encoded block by block. Where a text is large, every block is kept in a working place that all machines see
until the artifact is published, so that a restart encodes only what is not there yet.
"""

import hashlib
import io
import json
import os
import re
import secrets
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.copies import tried
from harness.errors import InputError
from harness.progress import Count
from harness.sources.formats import Document, Dropped
from harness.sources.text import SPLITS, Part, Text, check_splits, documents, parts, split_of
from harness.sources.tokenizer import Pretrained, from_json, token_bytes
from harness.tokens import TokenWriter
from harness.url import Place, Url
from harness.worker import Stopped

BPE_TRAINING_BYTES = 200_000_000
"""A tokenizer is trained on the first documents of the training split, until they reach this many UTF-8 bytes."""
BATCH_CHARACTERS = 2**20
"""About 1 MB of documents are encoded at once: enough for every core, little enough to hold."""
AHEAD = 2
"""Batches that the library encodes while another is packed."""
BLOCK_CHARACTERS = 2**25
"""About 32 MB of documents are a block: seconds of work, which is what a restart does again at most."""
PIECE_CHARACTERS = 2**20
"""Longer documents are encoded in pieces, because what the library holds a token is many times the text."""
NEAR = 2**14
"""A piece may end so many characters early, where its end changes no token."""
CONTAMINATED, REFUSED = 0.01, 0.5
"""Shares of validation documents that are in the training split too, above which one is told, and it is refused."""
WHITESPACE = b" \t\r\n\f\v"


def train_tokenizer(text: Text) -> str:
    """The tokenizer of `text` as the JSON of the `tokenizers` library: trained on the training split, or loaded.

    Raises InputError if a pretrained one is not as it was declared.
    """
    if isinstance(text.tokenizer, Pretrained):
        return text.tokenizer.load()
    return text.tokenizer.train(training_texts(text))


def training_texts(text: Text) -> Iterator[str]:
    """The documents that a tokenizer of `text` is trained on."""
    left = BPE_TRAINING_BYTES
    for part in parts(text):
        for document in documents(text, part):
            if split_of(text, document.name) == "train":
                yield document.text
                left -= len(document.text.encode())
                if left <= 0:
                    return


def _dtype(vocab: int) -> Any:
    return np.dtype(np.uint16 if vocab <= 2**16 else np.uint32)


@dataclass(frozen=True)
class Block:
    """Documents that follow one another in a part, and how many empty ones stood among them."""

    documents: list[Document]
    empty: int


def blocks(text: Text, part: Part) -> Iterator[Block]:
    """The documents of `part` in blocks of about `BLOCK_CHARACTERS`, always the same."""
    dropped, before = Dropped(), 0
    for group in _groups(documents(text, part, dropped), BLOCK_CHARACTERS):
        yield Block(group, dropped.empty - before)
        before = dropped.empty
    if dropped.empty > before:
        yield Block([], dropped.empty - before)


def _groups(found: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """`found` in lists of about so many `characters`."""
    group: list[Document] = []
    size = 0
    for document in found:
        group.append(document)
        size += len(document.text)
        if size >= characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def pieces(document: str) -> list[str]:
    """`document` cut into pieces of at most `PIECE_CHARACTERS`, each of which is encoded alone.

    A cut is before a single space between two ASCII letters, where byte-level tokenizers begin a token anyway, so that
    the tokens are those of the whole. Only where no such place is near, a piece ends in the middle of something.
    """
    cut, start = [], 0
    while len(document) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        places = re.finditer("(?<=[A-Za-z]) (?=[A-Za-z])", document[max(start, end - NEAR) : end + 1])
        last = max((m.start() for m in places), default=None)
        end = end if last is None else max(start, end - NEAR) + last
        cut.append(document[start:end])
        start = end
    return [*cut, document[start:]]


def encode_block(text: Text, tokenizer_json: str, block: Block) -> dict[str, Any]:
    """The tokens of `block`. For each of `SPLITS`: "<split>" uint16 or uint32 (n,), end-of-text after every document;
    "<split>_bytes", UTF-8 bytes; "<split>_texts" uint64 (documents,), a hash of each document's text without its
    whitespace and in lower case. "empty", the documents that were empty.
    """
    tokenizer, dtype = from_json(tokenizer_json), _dtype(text.vocab_size)
    end = np.array([tokenizer.token_to_id(text.tokenizer.end_of_text)], dtype)
    tokens: dict[str, list[Any]] = {split: [np.empty(0, dtype)] for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[int]] = {split: [] for split in SPLITS}
    for batch, encodings in _encoded(tokenizer, _groups(block.documents, BATCH_CHARACTERS)):
        for document, of_pieces in zip(batch, encodings, strict=True):
            split, data = split_of(text, document.name), document.text.encode()
            tokens[split] += [np.fromiter(ids, dtype, len(ids)) for ids in of_pieces]
            tokens[split].append(end)
            size[split] += len(data)
            plain = data.lower().translate(None, WHITESPACE) or data
            texts[split].append(int.from_bytes(hashlib.sha256(plain).digest()[:8], "little"))
    out: dict[str, Any] = {"empty": block.empty}
    for split in SPLITS:
        out[split] = np.concatenate(tokens[split])
        out[f"{split}_bytes"] = size[split]
        out[f"{split}_texts"] = np.array(texts[split], np.uint64)
    return out


def _encoded(
    tokenizer: Any, batches: Iterable[list[Document]]
) -> Iterator[tuple[list[Document], Iterator[Iterator[list[int]]]]]:
    """Every batch with, for every document, the ids of its pieces. The library has the next batches while whoever asks
    is busy with one, so that no core waits for the last document of a batch."""

    def ids(counts: list[int], future: Future[Any]) -> Iterator[Iterator[list[int]]]:
        encodings = iter(future.result())
        return ((next(encodings).ids for _ in range(count)) for count in counts)

    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[tuple[list[Document], list[int], Future[Any]]] = deque()
        for batch in batches:
            cut = [pieces(d.text) for d in batch]
            flat = [piece for one in cut for piece in one]
            future = pool.submit(tokenizer.encode_batch_fast, flat, add_special_tokens=False)
            waiting.append((batch, [len(one) for one in cut], future))
            if len(waiting) > AHEAD:
                batch, counts, future = waiting.popleft()
                yield batch, ids(counts, future)
        for batch, counts, future in waiting:
            yield batch, ids(counts, future)


def encode(text: Text, tokenizer_json: str, part: Part) -> dict[str, Any]:
    """The tokens of a whole part, as `encode_block` gives those of a block."""
    found = [encode_block(text, tokenizer_json, block) for block in blocks(text, part)]
    found = found or [encode_block(text, tokenizer_json, Block([], 0))]
    arrays = {name for split in SPLITS for name in (split, f"{split}_texts")}
    return {
        name: np.concatenate([f[name] for f in found]) if name in arrays else sum(f[name] for f in found)
        for name in found[0]
    }


# ---- blocks that outlive a restart


@dataclass(frozen=True)
class Encoded:
    """A part and its blocks in the working place."""

    part: int
    blocks: int
    found: int
    """How many of them, the first ones, were there before."""
    whole: bool = True
    """Whether they are all that the part has; else whoever encoded it was told to stop."""


def encode_missing(
    text: Text, tokenizer_json: str, part: Part, work: Place, stop: Callable[[], bool] = lambda: False
) -> Encoded:
    """Encode the blocks of `part` that are not in `work`, and put them there; `stop`, asked after each of them, ends
    that. A part that is whole is not even read."""
    whole = work / f"{part.index:06d}.json"
    if tried(whole.exists):
        count = int(json.loads(tried(whole.read_bytes))["blocks"])
        return Encoded(part.index, count, count)
    count = found = 0
    for block in blocks(text, part):
        place = _block(work, part.index, count)
        if found == count and tried(place.exists):
            found += 1
        else:
            content = io.BytesIO()
            np.savez(content, **encode_block(text, tokenizer_json, block))
            _put(place, content.getvalue())
            if stop():  # never before a block: each try gets further, however long it read
                return Encoded(part.index, count + 1, found, whole=False)
        count += 1
    _put(whole, json.dumps({"blocks": count}).encode())
    return Encoded(part.index, count, found)


def kept(encoded: Encoded, work: Place) -> Iterator[dict[str, Any]]:
    """The blocks of a part that lie in `work`, as `encode_block` gave them, with "found", whether they were there
    before. Raises OSError for one that is damaged; it is removed then, so that the next try makes it anew. Raises
    Stopped for a part that is not whole."""
    if not encoded.whole:
        raise Stopped(f"stopped after block {encoded.blocks} of part {encoded.part}")
    for number in range(encoded.blocks):
        place = _block(work, encoded.part, number)
        try:
            with np.load(io.BytesIO(tried(place.read_bytes))) as found:
                yield {**found, "found": number < encoded.found}
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as e:
            for damaged in (work / f"{encoded.part:06d}.json", place):
                damaged.unlink(missing_ok=True)
            raise OSError(f"{place}: is damaged; it is removed and made anew at the next try") from e


def kept_tokenizer(text: Text, work: Place | None) -> str:
    """The tokenizer of `text`; the one in `work`, once it is there."""
    if work is None:
        return train_tokenizer(text)
    place = work / "tokenizer.json"
    if not tried(place.exists):
        _put(place, train_tokenizer(text).encode())
    return tried(lambda: place.read_text("utf-8"))


def _block(work: Place, part: int, number: int) -> Place:
    return work / f"{part:06d}-{number:06d}.npz"


def _put(place: Place, content: bytes) -> None:
    """Write a file whole or not at all."""
    if isinstance(place, Url):
        tried(lambda: place.write_bytes(content))
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


# ---- the artifact


def write(text: Text, tokenizer_json: str, encoded: Iterable[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """Write the artifact of `text` to `directory`, from what `encode_block` gave for its blocks, in their order.

    Returns the summary for the manifest; "contamination" counts validation documents whose text, apart from whitespace
    and case, is in train too, "empty" documents that were dropped, "found_bytes" the text that a run before had
    encoded. Raises InputError if a split has no document, or more than `REFUSED` of the validation documents are in
    train.
    """
    dtype = _dtype(text.vocab_size)
    writers = {split: TokenWriter(directory, split, dtype) for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[Any]] = {split: [np.empty(0, np.uint64)] for split in SPLITS}
    empty = found_bytes = 0
    for piece in encoded:
        empty += int(piece["empty"])
        for split in SPLITS:
            writers[split].append(piece[split])
            size[split] += int(piece[f"{split}_bytes"])
            found_bytes += int(piece[f"{split}_bytes"]) if piece.get("found") else 0
            texts[split].append(np.asarray(piece[f"{split}_texts"], np.uint64))
    summary: dict[str, Any] = {}
    count = {split: sum(len(t) for t in texts[split]) for split in SPLITS}
    for split in SPLITS:
        writers[split].close()
        summary[split] = {"tokens": writers[split].tokens, "bytes": size[split], "documents": count[split]}
    check_splits(text, count)
    summary |= {"empty": empty, "found_bytes": found_bytes, "contamination": _contamination(texts)}
    overlap = summary["contamination"] / count["validation"]
    if overlap > REFUSED:
        raise InputError(
            f"Text = {text.dataset or text.files!r}: {contamination(summary)}, so the loss on them would be memory; "
            "take copies out of the text"
        )
    (directory / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    np.save(directory / "token_bytes.npy", token_bytes(tokenizer_json, text.vocab_size))
    return summary | {"vocab_size": text.vocab_size, "dtype": dtype.name}


def _contamination(texts: dict[str, list[Any]]) -> int:
    """How many hashes of validation documents are among those of train."""
    held_out = np.concatenate(texts["validation"])
    in_train = np.zeros(len(held_out), bool)
    for some in texts["train"]:
        in_train |= np.isin(held_out, some)
    return int(in_train.sum())


def contamination(summary: dict[str, Any]) -> str | None:
    """In words, from a manifest, that validation documents are in train too; None where it is at most `CONTAMINATED` of
    them."""
    copies = int(summary.get("contamination") or 0)
    of = int((summary.get("validation") or {}).get("documents") or 0)
    if copies <= CONTAMINATED * of:
        return None
    return f"{copies} of {of} validation documents are in the training split too ({copies / of:.0%})"


def tokenise(
    text: Text,
    directory: Path,
    progress: Count = lambda done, of: None,
    work: Place | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Write the artifact of `text` to `directory` in this process; calls `progress(parts done, parts)`. What is done is
    kept in `work`, if that is given, and taken from there. Raises Stopped when `stop`, asked before parts and after
    blocks, says to stop."""
    tokenizer_json = kept_tokenizer(text, work)
    cut = parts(text)

    def of(part: Part) -> Iterator[dict[str, Any]]:
        if work is None:
            yield from (encode_block(text, tokenizer_json, block) for block in blocks(text, part))
        else:
            yield from kept(encode_missing(text, tokenizer_json, part, work, stop), work)

    return write(text, tokenizer_json, in_turn(map(of, cut), len(cut), progress, stop), Path(directory))


def in_turn(
    encoded: Iterable[Iterable[dict[str, Any]]], count: int, progress: Count, stop: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """The blocks of `count` parts, one part after another; calls `progress(parts done, parts)`. Raises Stopped when
    `stop`, asked before the blocks of each, says to stop."""
    for number, of_part in enumerate(encoded):
        if stop():
            raise Stopped(f"stopped before part {number}")
        yield from of_part
        progress(number + 1, count)
