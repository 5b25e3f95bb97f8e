"""Cells made by hand, of runs whose curves are known: no store is needed to test what is computed from cells."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from analysis.cells import Cell, Pair, Run
from analysis.metrics.smoothing import FINE, Curve


def curve(law: Callable[[np.ndarray], np.ndarray], tokens: float, first: float = 0.01) -> Curve:
    """A curve without noise that is `law` of tokens, from a share `first` of the tokens to all of them."""
    x = np.linspace(math.log(first * tokens), math.log(tokens), FINE)
    return Curve(x, law(np.exp(x)))


def run(
    law: Callable[[np.ndarray], np.ndarray], text: int = 1_000_000, *, stage: str = "", before: int = 0,
    params: int = 100_000, complexity: float = math.nan, domain: str = "web", schedule: str = "wsd",
    before_flops: int | None = None,
) -> Run:  # fmt: skip
    found = curve(law, text)
    return Run(
        stage=stage, tokens=np.exp(found.x), loss=found.loss, curve=found, diverged=False, text_tokens=text,
        flops_per_token=6.0 * params, before_tokens=before,
        before_flops=6 * params * before if before_flops is None else before_flops, schedule=schedule,
        bits_per_nat=0.5, machine=("a cpu", None, 1), domain=domain, tokenizer="bpe", validation="held out",
        params=params, complexity=complexity, bits_per_byte=1.0,
    )  # fmt: skip


def cell(arm: str, axes: dict[str, Any], pairs: Iterable[tuple[Run, Run]], first_seed: int = 0) -> Cell:
    """A cell of (treated, baseline) runs with seeds from `first_seed` on."""
    return Cell(arm, axes, [Pair(first_seed + i, t, b) for i, (t, b) in enumerate(pairs)], "init")


def loss(tokens: np.ndarray) -> np.ndarray:
    """A power law above an irreducible loss, nats."""
    return np.asarray(2.0 + (tokens / 1e6) ** -0.3)


def shifted(nats: float) -> Callable[[np.ndarray], np.ndarray]:
    """`loss`, `nats` lower throughout."""
    return lambda tokens: loss(tokens) - nats
