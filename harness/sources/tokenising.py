"""From a `Text` to its artifact, token shards: a few pure functions (`train_tokenizer`, `encode`, `write`), so that a
cluster may encode the parts anywhere, in any order. `tokenise` is the same in one process.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.sources.formats import Document
from harness.sources.text import SPLITS, Part, Text, check_splits, documents, parts, split_of
from harness.sources.tokenizer import Pretrained, from_json, token_bytes
from harness.tokens import TokenWriter

BPE_TRAINING_BYTES = 200_000_000
"""A tokenizer is trained on the first documents of the training split, until they reach this many UTF-8 bytes."""
BATCH_CHARACTERS = 2**20
"""About 1 MB of documents are encoded at once: enough for every core, little enough to hold."""


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


def encode(text: Text, tokenizer_json: str, part: Part) -> dict[str, Any]:
    """The tokens of one part. For each of `SPLITS`: "<split>" uint16 or uint32 (n,), end-of-text after every document;
    "<split>_bytes", UTF-8 bytes; "<split>_texts" uint64 (documents,), a hash of each document's text.
    """
    tokenizer, dtype = from_json(tokenizer_json), _dtype(text.vocab_size)
    end = np.array([tokenizer.token_to_id(text.tokenizer.end_of_text)], dtype)
    tokens: dict[str, list[Any]] = {split: [np.empty(0, dtype)] for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[int]] = {split: [] for split in SPLITS}
    for batch in _batches(documents(text, part)):
        encodings = tokenizer.encode_batch_fast([d.text for d in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            split, data = split_of(text, document.name), document.text.encode()
            tokens[split] += [np.array(encoding.ids, dtype), end]
            size[split] += len(data)
            texts[split].append(int.from_bytes(hashlib.sha256(data).digest()[:8], "little"))
    out: dict[str, Any] = {"part": part.index}
    for split in SPLITS:
        out[split] = np.concatenate(tokens[split])
        out[f"{split}_bytes"] = size[split]
        out[f"{split}_texts"] = np.array(texts[split], np.uint64)
    return out


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    """`found` in lists of about `BATCH_CHARACTERS`."""
    batch: list[Document] = []
    size = 0
    for document in found:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write(text: Text, tokenizer_json: str, encoded: Iterable[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """Write the artifact of `text` to `directory`, from what `encode` gave for its parts, in their order.

    Returns the summary for the manifest; "contamination" counts validation documents whose exact text is in train too.
    Raises InputError if a split has no document.
    """
    dtype = _dtype(text.vocab_size)
    writers = {split: TokenWriter(directory, split, dtype) for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[Any]] = {split: [np.empty(0, np.uint64)] for split in SPLITS}
    for piece in encoded:
        for split in SPLITS:
            writers[split].append(piece[split])
            size[split] += int(piece[f"{split}_bytes"])
            texts[split].append(np.asarray(piece[f"{split}_texts"], np.uint64))
    summary: dict[str, Any] = {}
    found = {split: np.concatenate(texts[split]) for split in SPLITS}
    for split in SPLITS:
        writers[split].close()
        summary[split] = {"tokens": writers[split].tokens, "bytes": size[split], "documents": len(found[split])}
    check_splits(text, {split: len(found[split]) for split in SPLITS})
    (directory / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    np.save(directory / "token_bytes.npy", token_bytes(tokenizer_json, text.vocab_size))
    contamination = int(np.isin(found["validation"], found["train"]).sum())
    return summary | {"vocab_size": text.vocab_size, "dtype": dtype.name, "contamination": contamination}


def tokenise(text: Text, directory: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Write the artifact of `text` to `directory` in this process; calls `progress(parts done, parts)`."""
    tokenizer_json = train_tokenizer(text)
    cut = parts(text)

    def encoded() -> Iterator[dict[str, Any]]:
        for part in cut:
            yield encode(text, tokenizer_json, part)
            if progress is not None:
                progress(part.index + 1, len(cut))

    return write(text, tokenizer_json, encoded(), Path(directory))
