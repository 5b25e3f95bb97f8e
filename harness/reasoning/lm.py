"""A trained stage as transformers loads it: what it gives to a text, and what it goes on with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from harness import model as models
from harness import rng
from harness.errors import InputError, require
from harness.sources.tokenizer import from_json


@dataclass(frozen=True)
class LM:
    """A model on a device, with the tokenizer of its text. `end` is end-of-text, before and after every text in
    training: every prompt begins with it. `vocab` is the number of ids that stand for a token."""

    net: Any
    tokenizer: Any
    end: int
    vocab: int
    context: int
    device: str = "cpu"
    precision: str = "fp32"

    def prompt(self, text: str) -> list[int]:
        """Ids of end-of-text and `text`."""
        return [self.end, *self.encode(text)]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def load(directory: Path, device: str = "cpu", precision: str = "fp32") -> LM:
    """The model that `harness.export` wrote to `directory`.

    Raises InputError where it has no tokenizer, or the weights are not exactly those that the configuration names: a
    head of its own that is left out would be read as a tied one."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would run through what is shown of a study
    tokens = directory / "tokenizer.json"
    require(
        tokens.is_file(), "model", str(directory), "has no tokenizer: its tokens stand for no text; tune it on text"
    )
    net, report = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True, local_files_only=True)
    wrong = {name: sorted(map(str, found)) for name, found in report.items() if found}
    if wrong:
        raise InputError(f"model = {str(directory)!r}: its weights are not those of its configuration: {wrong}")
    tokenizer = from_json(tokens.read_text("utf-8"))
    vocab = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    config = net.config
    return LM(
        net.eval().to(device), tokenizer, config.eos_token_id, vocab, config.max_position_embeddings, device, precision
    )


class Scored(NamedTuple):
    """What a model gives to a text that follows another."""

    logprob: float
    """Natural logarithm of its probability."""
    tokens: int
    hits: int
    """Tokens that are the most likely one at their place."""


def score(lm: LM, pairs: Sequence[tuple[str, str]], rows: int = 8) -> list[Scored | None]:
    """The log-probability of the second text of every pair after the first; None where both do not fit into the
    context. The texts are encoded apart, as in training on answers."""
    import torch

    encoded = [(lm.prompt(before), lm.encode(after)) for before, after in pairs]
    found: list[Scored | None] = [None] * len(pairs)
    fits = [i for i, (a, b) in enumerate(encoded) if b and len(a) + len(b) <= lm.context + 1]
    fits.sort(key=lambda i: len(encoded[i][0]) + len(encoded[i][1]))  # alike in length side by side
    for low in range(0, len(fits), rows):
        part = fits[low : low + rows]
        longest = max(len(encoded[i][0]) + len(encoded[i][1]) for i in part) - 1
        inputs = np.full((len(part), longest), lm.end, np.int64)
        targets = np.full((len(part), longest), -100, np.int64)
        for row, i in enumerate(part):
            before, after = encoded[i]
            ids = before + after
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, len(before) - 1 : len(ids) - 1] = after
        wanted = torch.from_numpy(targets).to(lm.device)
        with torch.no_grad(), models.precision(lm.device.split(":")[0], lm.precision):
            hidden = lm.net.model(input_ids=torch.from_numpy(inputs).to(lm.device), use_cache=False).last_hidden_state
            place = wanted >= 0
            logits = lm.net.lm_head(hidden[place]).float()
        nats = torch.nn.functional.cross_entropy(logits, wanted[place], reduction="none").double().cpu().numpy()
        hits = (logits.argmax(-1) == wanted[place]).cpu().numpy()
        ends = np.cumsum([len(encoded[i][1]) for i in part])[:-1]
        for i, own, right in zip(part, np.split(nats, ends), np.split(hits, ends), strict=True):
            found[i] = Scored(-float(own.sum()), len(own), int(right.sum()))
    return found


class Drawn(NamedTuple):
    """What a model went on with."""

    text: str
    tokens: int
    end: Literal["end", "stop", "length"]
    """Why it ended: end-of-text, a stop string, or no more tokens allowed."""


def sample(
    lm: LM,
    prompts: Sequence[Sequence[int]],
    keys: Any,
    max_tokens: int,
    temperature: float = 0.0,
    stop: Sequence[str] = (),
) -> list[Drawn]:
    """What `lm` goes on with after every one of `prompts` (ids), at most `max_tokens` and as far as the context goes,
    up to the first of the `stop` strings, which is left out.

    At temperature 0 the most likely token; else the token at position t is drawn by word t of the row's entry in `keys`
    (uint64, (rows,)), so that a row does not depend on the rows beside it, but for the rounding of products."""
    import torch
    from transformers import GenerationConfig

    rooms = [min(max_tokens, lm.context - len(prompt)) for prompt in prompts]
    require(min(rooms) >= 1, "prompt", max(map(len, prompts)), f"fills the context of {lm.context} tokens")
    width = max(map(len, prompts))
    inputs = torch.full((len(prompts), width), lm.end, dtype=torch.long)
    mask = torch.zeros_like(inputs)
    for row, prompt in enumerate(prompts):
        inputs[row, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, width - len(prompt) :] = 1
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max(rooms), eos_token_id=lm.end, pad_token_id=lm.end, bos_token_id=lm.end
    )
    tail = max((len(s.encode()) for s in stop), default=0) + 3  # a token is a byte at least

    def choose(ids: Any, scores: Any) -> Any:
        scores[:, lm.vocab :] = -torch.inf  # rows of the head that stand for no token
        if temperature == 0:
            return scores
        chosen = draw(scores, temperature, rng.words(keys, 1, ids.shape[1] - width)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def stopped(ids: Any, scores: Any, **_: Any) -> Any:
        made = ids[:, width:][:, -tail:].tolist()
        found = [any(s in text for s in stop) for text in map(lm.decode, made)]
        return torch.tensor(found, device=ids.device)

    with torch.no_grad(), models.precision(lm.device.split(":")[0], lm.precision):
        made = lm.net.generate(
            input_ids=inputs.to(lm.device),
            attention_mask=mask.to(lm.device),
            generation_config=config,
            logits_processor=[choose],
            stopping_criteria=[stopped] if stop else [],
        )[:, width:].tolist()
    return [_cut(lm, ids[:room], stop) for ids, room in zip(made, rooms, strict=True)]


def draw(scores: Any, temperature: float, words: Any) -> Any:
    """int64 (rows,): one token a row of `scores`, logits (rows, vocab), by the inverse of its cumulative distribution
    at `words`, uint64 (rows,)."""
    import torch

    uniform = torch.from_numpy((words >> np.uint64(11)).astype(np.float64) * 2.0**-53).to(scores.device)
    mass = torch.softmax(scores.double() / temperature, -1).cumsum(-1)
    return torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True)[:, 0].clamp_(max=mass.shape[1] - 1)


def _cut(lm: LM, ids: list[int], stop: Sequence[str]) -> Drawn:
    ended = lm.end in ids
    ids = ids[: ids.index(lm.end)] if ended else ids
    text = lm.decode(ids)
    first = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
    if first is not None:
        return Drawn(text[:first], len(ids), "stop")
    return Drawn(text, len(ids), "end" if ended else "length")


def sample_all(
    lm: LM,
    prompts: Sequence[str],
    problems: Sequence[str],
    samples: int,
    seed: int,
    max_tokens: int,
    temperature: float,
    stop: Sequence[str],
    rows: int,
) -> list[list[Drawn] | None]:
    """`samples` continuations of every prompt, `rows` at a time; None where a prompt leaves no room. Sample j of a
    problem is a pure function of `seed`, the problem's name in `problems` and j."""
    ids = [lm.prompt(prompt) for prompt in prompts]
    found: list[list[Drawn] | None] = [[] if len(i) < lm.context else None for i in ids]
    todo = [(i, j) for i, own in enumerate(found) if own is not None for j in range(samples)]
    for part in _parts(todo, rows):
        keys = np.concatenate([rng.keys(np.array([j]), seed, rng.named_seed("sample", problems[i])) for i, j in part])
        for (i, _), drawn in zip(
            part, sample(lm, [ids[i] for i, _ in part], keys, max_tokens, temperature, stop), strict=True
        ):
            own = found[i]
            assert own is not None
            own.append(drawn)
    return found


def _parts(todo: list[Any], size: int) -> Iterator[list[Any]]:
    for low in range(0, len(todo), size):
        yield todo[low : low + size]
