"""Questions with their answers as a source, to fine-tune on: the prompt is read, the answer alone is a target.

An `Answers` is itself a stage, whose artifact (tokens of every example) every run on the same examples shares. One
example is one sequence, padded with end-of-text. Only the standard library and NumPy are imported to make and hash one.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from harness.errors import InputError, require, whole_fields
from harness.rng import key, named_seed, permuted
from harness.sources.rows import Rows, Template
from harness.sources.text import SPLITS, Text
from harness.sources.tokenizer import BPE, from_json, token_bytes
from harness.specs import Source

TEXT = "text."
"""Before the names of commits that belong to the text."""
UNSUPERVISED = -100
PROMPT, ANSWER = Template("Question: {question}\nAnswer:"), Template(" {answer}")


class Example(NamedTuple):
    """A question and its answer as text: the model reads `prompt` and is to go on with `answer`."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Answers:
    """The examples that `prompt` and `answer`, templates over the fields of a row, make of `rows`.

    `text` is the text of pre-training, whose tokenizer is used: ids mean to a model what they meant in pre-training, so
    a stage that keeps its embeddings must come from a stage on that tokenizer. A sequence is end-of-text, prompt,
    answer, end-of-text, and targets are the answer and the end-of-text after it. `held_out` is the share of examples in
    the validation split, chosen by a hash of the prompt; `examples` keeps only the first that many. Examples that do
    not fit into a stage's context whole are left out, and the stage's manifest counts them.
    """

    version: ClassVar[int] = 1
    stored: ClassVar[bool] = True

    rows: Rows
    text: Text
    prompt: Template = PROMPT
    answer: Template = ANSWER
    held_out: float = 0.05
    examples: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "answer"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Template(given))
        require(0 < self.held_out < 1, "Answers.held_out", self.held_out, "use a share of examples in (0, 1)")
        if self.examples is not None:
            whole_fields(self, examples=2)

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size

    @property
    def frame_tokens(self) -> None:
        return None

    @property
    def reads(self) -> dict[str, Any]:
        """The stages whose artifacts the tokens are made with."""
        return {"tokenizer": self.text}

    def check_init(self, before: Source) -> None:
        """Raise InputError unless embeddings that were trained on `before` know the tokens of this source."""
        theirs = before.text if isinstance(before, Answers) else before
        require(
            isinstance(theirs, Text) and _tokens_of(theirs) == _tokens_of(self.text),
            "Answers.text",
            type(before).__name__,
            "the embeddings that are kept were trained on other tokens; give the text of pre-training as Answers.text, "
            "or add 'embeddings' to Transfer.reinit",
        )

    def open(self, artifact: Any = None) -> "AnswerReader":
        """The reader of the examples in the directory `artifact`."""
        return AnswerReader(artifact)

    @property
    def unresolved(self) -> tuple[str, ...]:
        return (*self.rows.unresolved, *self.text.unresolved)

    def resolved(self, network: bool = True) -> Self:
        """The same examples with everything that identifies them filled in. Raises InputError as `Rows` and `Text`."""
        return replace(self, rows=self.rows.resolved(network), text=self.text.resolved(network))

    @property
    def revisions(self) -> dict[str, str | None]:
        """The commits on the hub that these examples name."""
        return self.rows.revisions | {TEXT + name: v for name, v in self.text.revisions.items()}

    def with_revisions(self, revisions: dict[str, str | None]) -> Self:
        """The same examples at commits that were looked up before."""
        text = {name.removeprefix(TEXT): v for name, v in revisions.items() if name.startswith(TEXT)}
        return replace(self, rows=self.rows.with_revisions(revisions), text=self.text.with_revisions(text))

    def read(self) -> Iterator[Example]:
        """The examples, in the order of the rows."""
        for number, row in enumerate(islice(self.rows.read(), self.examples)):
            where = f"row {number}"
            yield Example(self.prompt.fill(row, where), self.answer.fill(row, where))

    def split_of(self, example: Example) -> str:
        """The split of an example: examples with one prompt are never on both sides."""
        return "validation" if named_seed("held out", example.prompt) < self.held_out * 2**63 else "train"


def _tokens_of(text: Text) -> Any:
    """Equal for two texts whose token ids mean the same."""
    return text if isinstance(text.tokenizer, BPE) else text.tokenizer


def encode(tokenizer: Any, end: int, prompt: str, answer: str) -> tuple[list[int], int]:
    """Token ids of end-of-text, prompt, answer, end-of-text; and the number of them that are prompt. The two texts are
    encoded apart, so that the ids of a prompt are the same whatever answer follows."""
    before = [end, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    return [*before, *tokenizer.encode(answer, add_special_tokens=False).ids, end], len(before)


def write(source: Answers, directory: Path, tokenizer_json: str) -> dict[str, Any]:
    """Write the artifact of `source` to `directory`. Returns the summary for the manifest: of every split the examples,
    tokens, bytes of answers and the longest sequences; "contamination" counts validation examples whose exact text is
    in train too. Raises InputError if a split has no example."""
    tokenizer = from_json(tokenizer_json)
    end = tokenizer.token_to_id(source.text.tokenizer.end_of_text)
    found: dict[str, list[tuple[list[int], int]]] = {split: [] for split in SPLITS}
    size = dict.fromkeys(SPLITS, 0)
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for example in source.read():
        split = source.split_of(example)
        found[split].append(encode(tokenizer, end, *example))
        size[split] += len(example.answer.encode())
        texts[split].append(hashlib.sha256("\0".join(example).encode()).hexdigest())
    total = sum(map(len, found.values()))
    summary: dict[str, Any] = {}
    dtype = np.dtype(np.uint16 if source.vocab_size <= 2**16 else np.uint32)
    for split, examples in found.items():
        way_out = f"of {total} examples none falls in the {split} split; use more examples or another share"
        require(bool(examples), "Answers.held_out", source.held_out, way_out)
        lengths = np.array([len(ids) for ids, _ in examples], np.int64)
        np.save(directory / f"{split}-tokens.npy", np.concatenate([np.array(ids, dtype) for ids, _ in examples]))
        np.save(directory / f"{split}-starts.npy", np.concatenate([[0], lengths.cumsum()]))
        np.save(directory / f"{split}-prompts.npy", np.array([prompt for _, prompt in examples], np.int64))
        summary[split] = {
            "examples": len(examples),
            "tokens": int(lengths.sum()),
            "answer_bytes": size[split],
            "longest": {f"{share:.0%}": int(np.quantile(lengths, share, method="higher")) for share in (0.5, 0.95, 1)},
        }
    (directory / "tokenizer.json").write_text(tokenizer_json, "utf-8")
    np.save(directory / "token_bytes.npy", token_bytes(tokenizer_json, source.vocab_size))
    contamination = sum(text in set(texts["train"]) for text in texts["validation"])
    return summary | {"vocab_size": source.vocab_size, "dtype": dtype.name, "contamination": contamination, "end": end}


class _Split:
    """The examples of one split: one array of tokens, and where each example and its answer begin."""

    def __init__(self, directory: Path, split: str) -> None:
        self.tokens, self.starts, self.prompts = (
            np.load(directory / f"{split}-{part}.npy", mmap_mode="r") for part in ("tokens", "starts", "prompts")
        )

    def fitting(self, context: int) -> Any:
        """int64 (n,): the examples that fit into `context` inputs, with at least one target, in order."""
        return np.flatnonzero(np.diff(self.starts) <= context + 1)

    def read(self, example: Any, context: int) -> tuple[Any, Any]:
        """Inputs and targets, int32 (n, context), of the examples numbered `example` (int64, (n,)). The token that
        ends every example fills what is left."""
        inputs = np.full((len(example), context), self.tokens[-1], np.int32)
        targets = np.full((len(example), context), UNSUPERVISED, np.int32)
        for row, number in enumerate(example):
            tokens = self.tokens[self.starts[number] : self.starts[number + 1]]
            count, prompt = len(tokens) - 1, int(self.prompts[number])
            inputs[row, :count] = tokens[:-1]
            targets[row, prompt - 1 : count] = tokens[prompt:]
        return inputs, targets


class AnswerReader:
    """The `specs.Sequences` of a directory of examples. A pickled reader is its path, opened again."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        try:
            self._train, self._validation = (_Split(self.directory, split) for split in SPLITS)
        except FileNotFoundError as e:
            raise InputError(f"artifact = {str(directory)!r}: holds no examples; tokenise them again") from e
        self.token_bytes = np.load(self.directory / "token_bytes.npy")
        """UTF-8 bytes that each token id stands for, int64 (vocab_size,); 0 for special tokens."""

    def __reduce__(self) -> tuple[Callable[..., "AnswerReader"], tuple[Path]]:
        return AnswerReader, (self.directory,)

    def prompts(self) -> Iterator[str]:
        """The prompts of the training examples."""
        tokenizer = from_json((self.directory / "tokenizer.json").read_text("utf-8"))
        split = self._train
        for start, prompt in zip(split.starts, split.prompts, strict=False):  # the last start is the end
            yield tokenizer.decode(split.tokens[start + 1 : start + prompt].tolist(), skip_special_tokens=False)

    def epoch(self, context: int) -> int:
        """Number of training examples that fit into `context`; InputError if none does."""
        count = len(self._train.fitting(context))
        way_out = f"none of {len(self._train.prompts)} training examples fits; use a longer context"
        require(count >= 1, "Llama.context", context, way_out)
        return count

    def dropped(self, context: int) -> dict[str, int]:
        """Examples of each split that do not fit into `context`, which are in no sequence."""
        splits = {"train": self._train, "validation": self._validation}
        return {name: len(split.prompts) - len(split.fitting(context)) for name, split in splits.items()}

    def sequences(self, seed: int, index: Any, context: int) -> tuple[Any, Any]:
        """Training sequences `index` (int64, (n,)): inputs and targets, int32 (n, context), -100 on prompt and padding.

        Sequence i is in epoch i // N of N examples, and every epoch has an order of its own that depends on `seed`.
        """
        fitting = self._train.fitting(context)
        count = self.epoch(context)
        epoch, place = np.divmod(np.asarray(index, np.int64), count)
        chosen = np.empty(len(place), np.int64)
        for e in np.unique(epoch):
            chosen[epoch == e] = permuted(place[epoch == e], count, int(key(seed, int(e))))
        return self._train.read(fitting[chosen], context)

    def held_out(self, count: int, context: int) -> tuple[Any, Any]:
        """`count` validation examples, evenly spaced over those that fit: inputs, targets, int32 (count, context)."""
        fitting = self._validation.fitting(context)
        require(
            count <= len(fitting),
            "Evaluation.sequences",
            count,
            f"the validation split has {len(self._validation.prompts)} examples, of which {len(fitting)} fit into "
            f"{context} tokens; ask for fewer, use a longer context, or raise Answers.held_out",
        )
        return self._validation.read(fitting[np.arange(count) * len(fitting) // count], context)
