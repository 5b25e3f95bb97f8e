"""Byte-level BPE tokenizers, trained here or pretrained: the values that name them, and what their ids stand for.

Only the standard library and NumPy are imported to make and hash them.
"""

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from harness.errors import InputError, require, whole, whole_fields
from harness.sources import first_line, hub
from harness.sources.files import File, check_unchanged, keep_path_apart, sha256
from harness.specs import IDENTITY_FREE

LONGEST_RUN = 2**12
"""Characters without white space after which a text to train on is cut: finding merges takes the square of a word's
length, half a minute at 160,000 letters."""


def in_pieces(text: str) -> Iterator[str]:
    """`text`, cut within runs of more than LONGEST_RUN characters without white space."""
    start = 0
    if len(text) > LONGEST_RUN:
        for run in re.finditer(r"\S+", text):
            for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
                yield text[start:cut]
                start = cut
    yield text[start:]


@dataclass(frozen=True)
class BPE:
    """A byte-level BPE of `vocab` ids, trained on the training split alone; id 0 is <|endoftext|>.

    `vocab` is nominal: a text too small for that many merges leaves the last ids unused.
    """

    end_of_text: ClassVar[str] = "<|endoftext|>"

    vocab: int

    def __post_init__(self) -> None:
        vocab = whole("BPE.vocab", self.vocab, 257, 2**31)  # 256 bytes and end-of-text
        object.__setattr__(self, "vocab", vocab)

    @property
    def unresolved(self) -> tuple[str, ...]:
        return ()

    def resolved(self, network: bool = True) -> Self:
        return self

    def train(self, texts: Iterable[str]) -> str:
        """The tokenizer trained on `texts`, as the JSON of the `tokenizers` library."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,
            special_tokens=[self.end_of_text],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator((piece for text in texts for piece in in_pieces(text)), trainer)
        return tokenizer.to_str()


@dataclass(frozen=True)
class Pretrained:
    """A byte-level BPE with a name: a model on the hub, or the path of a tokenizer.json or of a directory with one.

    `vocab`, the number of its ids, is part of the value, so that a plan needs no network; it is checked when the
    tokenizer is loaded. `end_of_text` is the token put after every document. A path is kept in `path`, which is no part
    of the identity; `content` (SHA-256 of the file) is.
    """

    name: str
    vocab: int
    revision: str | None = None
    end_of_text: str = "<|endoftext|>"
    content: str | None = None
    path: str | None = field(default=None, metadata=IDENTITY_FREE)

    def __post_init__(self) -> None:
        require(1 <= self.vocab <= 2**31, "Pretrained.vocab", self.vocab, "use the number of ids of the tokenizer")
        whole_fields(self, vocab=1)
        keep_path_apart(self, "name", "path")

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The name if its commit on the hub is still open."""
        return () if self.path is not None or hub.is_commit(self.revision) else (self.name,)

    def resolved(self, network: bool = True) -> Self:
        """The same tokenizer with the content hash of its file or, with `network`, its commit on the hub filled in."""
        if self.path is None:
            if not (network and self.unresolved):
                return self
            return replace(self, revision=hub.commit("model", self.name, self.revision, "Pretrained.name"))
        return replace(self, content=self.content or sha256(self._file()), path=os.path.abspath(self.path))

    def _file(self) -> File:
        path = Path(self.path or "").expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        require(path.is_file(), "Pretrained.name", str(path), "does not exist; name a tokenizer.json or a hub model")
        return File.at(path, path.name, is_text=False)

    def load(self) -> str:
        """The tokenizer as the JSON of the `tokenizers` library.

        Raises InputError if it cannot be read, is not the one that was registered, has another vocabulary size than
        declared, no end-of-text token, or is not byte-level (then the bytes that a token stands for are unknown).
        """
        tokenizer_json = self._read()
        self._check(tokenizer_json)
        return tokenizer_json

    def _read(self) -> str:
        if self.path is None:
            import huggingface_hub

            try:
                path = huggingface_hub.hf_hub_download(self.name, "tokenizer.json", revision=self.revision)
            except Exception as e:  # not found, gated, offline: whatever the hub's client and its transport raise
                raise InputError(
                    f"Pretrained.name = {self.name!r}: {first_line(e)}; name a model with tokenizer.json"
                ) from e
            return Path(path).read_text("utf-8")
        file = self._file()
        check_unchanged("Pretrained.content", self.content, sha256(file), file.path)
        return Path(file.path).read_text("utf-8")

    def _check(self, tokenizer_json: str) -> None:
        name = self.path or self.name
        try:
            tokenizer = from_json(tokenizer_json)
        except Exception as e:  # the library raises bare Exception for JSON that is no tokenizer
            raise InputError(f"Pretrained.name = {name!r}: is not a tokenizer.json ({first_line(e)})") from e
        size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        require(size == self.vocab, "Pretrained.vocab", self.vocab, f"{name} has {size} ids; declare that number")
        if tokenizer.token_to_id(self.end_of_text) is None:
            special = ", ".join(t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special) or "none"
            raise InputError(
                f"Pretrained.end_of_text = {self.end_of_text!r}: {name} lacks it; special tokens: {special}"
            )
        steps = json.loads(tokenizer_json)
        byte_level = '"ByteLevel"' in json.dumps([steps.get("pre_tokenizer"), steps.get("decoder")])
        require(
            byte_level, "Pretrained.name", name, "is not a byte-level BPE, so bytes cannot be counted; use one, as gpt2"
        )


@functools.lru_cache(maxsize=2)
def from_json(tokenizer_json: str) -> Any:
    """The tokenizer, set to read all text as text: no truncation, and special tokens spelt out are not special."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def token_bytes(tokenizer_json: str, vocab: int) -> Any:
    """UTF-8 bytes that each id stands for, int64 (vocab,): one a character in byte-level BPE, 0 for special tokens."""
    tokenizer = from_json(tokenizer_json)
    out = np.zeros(vocab, np.int64)
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        out[number] = len(token)
    for number, added in tokenizer.get_added_tokens_decoder().items():
        out[number] = 0 if added.special else len(added.content.encode())
    return out
