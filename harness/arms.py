"""The stages that the studies of the claims are made of, as functions of a scale: what two studies both make has one
address, so it is computed once.

`domain` and `size` are names in the scale, its first unless given; `text` is the share of the longest text budget.
A claim about the loss gap is asked at the longest budget alone.
"""

from dataclasses import replace
from typing import Any

from harness.scales import Scale, Size, Tuned
from harness.sources.nca import NCA
from harness.specs import Corpus, Llama, Recipe, Source, Train, Transfer

OTHER_ORDER = 1000
"""Added to the seed of a first stage on text: where both stages have the same text, they read it in unlike orders."""


def scratch(
    scale: Scale, seed: int, text: float = 1.0, domain: str | None = None, size: str | None = None, more: int = 0
) -> Train:
    """Text from scratch, with `more` tokens beyond its budget."""
    of = _size(scale, size)
    return _text(scale, of.scratch, int(text * of.text_tokens) + more, seed, domain)


def treated(
    scale: Scale, warm: Train, seed: int, text: float = 1.0, domain: str | None = None, size: str | None = None,
    transfer: Transfer | None = None, recipe: dict[str, Any] | None = None,
) -> Train:  # fmt: skip
    """Text after the first stage `warm`; `recipe` changes settings of the recipe, `transfer` what crosses."""
    of = _size(scale, size)
    found = _text(scale, of.treated, int(text * of.text_tokens), seed, domain)
    return replace(found, recipe=replace(found.recipe, **(recipe or {}))).after(warm, transfer)


def first(
    scale: Scale, source: Source, seed: int, tokens: int | None = None, size: str | None = None,
    recipe: dict[str, Any] | None = None, model: dict[str, Any] | None = None,
) -> Train:  # fmt: skip
    """A first stage on a generated `source`; `recipe` and `model` change settings of either."""
    of = _size(scale, size)
    count = of.nca_tokens if tokens is None else tokens
    shape: Llama = replace(of.synthetic.model, **(model or {}))
    chosen: Recipe = replace(of.synthetic.recipe(count), **(recipe or {}))
    return Train(Corpus(source, seed, epochs=scale.epochs), count, shape, chosen, seed, scale.evaluation)


def first_on_text(scale: Scale, seed: int, tokens: int, size: str | None = None) -> Train:
    """A first stage on natural text, trained as text is from scratch."""
    of = _size(scale, size)
    corpus = Corpus(scale.warm_text, seed + OTHER_ORDER, epochs=scale.epochs)
    return Train(corpus, tokens, of.scratch.model, of.scratch.recipe(tokens), seed, scale.evaluation)


def automata(scale: Scale, domain: str | None = None, **changes: Any) -> NCA:
    """The automata of the NCA arm for a text; `changes` are settings of `NCA`."""
    return replace(scale.automata, **{"band": scale.band_for[domain or scale.domain], **changes})


def nca(
    scale: Scale, seed: int, text: float = 1.0, domain: str | None = None, size: str | None = None,
    transfer: Transfer | None = None, **changes: Any,
) -> Train:  # fmt: skip
    """The NCA arm: text after a first stage on automata; `changes` are settings of `NCA`."""
    warm = first(scale, automata(scale, domain, **changes), seed, size=size)
    return treated(scale, warm, seed, text, domain, size, transfer)


def _text(scale: Scale, how: Tuned, tokens: int, seed: int, domain: str | None) -> Train:
    corpus = Corpus(scale.texts[domain or scale.domain], seed, epochs=scale.epochs)
    return Train(corpus, tokens, how.model, how.recipe(tokens), seed, scale.evaluation)


def _size(scale: Scale, size: str | None) -> Size:
    return scale.sizes[size or scale.size]
