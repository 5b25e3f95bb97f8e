"""What a model must beat to have learnt a synthetic task: predictors that need no learning in context.

All are fitted on training sequences and scored, in nats a target, on the held-out targets.
"""

import itertools
from typing import Any

import numpy as np

from harness.metrics import is_patch


def fit_and_score(
    train: tuple[Any, Any], held_out: tuple[Any, Any], vocab: int, frame_tokens: int | None
) -> dict[str, float | None]:
    """`unigram_nats`, `ngram2_nats` (two tokens of context) and, with frames, `copy_nats` and `copy_accuracy` (the
    same patch of the previous frame). `train` and `held_out` are (inputs, targets), int32 (n, context); with frames
    only patch tokens count, since delimiters cost a transformer nothing and a unigram much."""
    fit, score = _contexts(*train, frame_tokens), _contexts(*held_out, frame_tokens)
    # Only the ids that occur are numbered, so that histories of large vocabularies stay within 64 bits.
    seen = np.unique(np.concatenate([*fit.values(), *score.values()]))
    fit, score = ({k: np.searchsorted(seen, v) for k, v in d.items()} for d in (fit, score))
    unigram = np.bincount(fit["target"], minlength=len(seen)) + 0.5
    unigram = unigram / (len(fit["target"]) + 0.5 * vocab)
    out: dict[str, float | None] = {
        "unigram_nats": float(-np.log(unigram[score["target"]]).mean()),
        "ngram2_nats": _ngram2(fit, score, unigram),
        "copy_nats": None,
        "copy_accuracy": None,
    }
    if frame_tokens is not None:
        same, other = fit["target"] == fit["copy"], unigram[fit["target"]]
        weight = max(np.linspace(0.0, 0.99, 100), key=lambda w: float(np.log(w * same + (1 - w) * other).sum()))
        hit = score["target"] == score["copy"]
        out["copy_nats"] = float(-np.log(weight * hit + (1 - weight) * unigram[score["target"]]).mean())
        out["copy_accuracy"] = float(hit.mean())
    return out


def _contexts(inputs: Any, targets: Any, frame_tokens: int | None) -> dict[str, Any]:
    """Every counted target with what stands before it, int64 (targets,) each."""
    context = targets.shape[1]
    counted = targets >= 0
    counted[:, 0] = False  # no second token of context
    if frame_tokens is not None:
        counted &= is_patch(context, frame_tokens)
    row, position = np.nonzero(counted)
    tokens = inputs.astype(np.int64)
    found = {
        "target": targets[row, position].astype(np.int64),
        "last": tokens[row, position],
        "second": tokens[row, position - 1],
    }
    if frame_tokens is not None:
        found["copy"] = tokens[row, position + 1 - frame_tokens]
    return found


def _ngram2(fit: dict[str, Any], score: dict[str, Any], unigram: Any) -> float:
    """Interpolated trigram, bigram and unigram (Jelinek and Mercer, 1980): counts from the first 9/10 of the fitting
    targets, mixture weights from the rest."""
    vocab = len(unigram)
    cut = len(fit["target"]) * 9 // 10
    counted = {k: v[:cut] for k, v in fit.items()}
    tuning = {k: v[cut:] for k, v in fit.items()}

    def probabilities(data: dict[str, Any]) -> Any:
        one = data["last"]
        two = data["second"] * vocab + data["last"]
        orders = []
        for history, known in ((one, counted["last"]), (two, counted["second"] * vocab + counted["last"])):
            joint = _count(known * vocab + counted["target"], history * vocab + data["target"])
            seen = _count(known, history)
            orders.append(np.where(seen > 0, joint / np.maximum(seen, 1), unigram[data["target"]]))
        return np.stack([orders[1], orders[0], unigram[data["target"]]])

    tune = probabilities(tuning)
    grid = [w for w in itertools.product(np.linspace(0, 1, 11), repeat=2) if sum(w) < 0.999]
    weights = max(grid, key=lambda w: float(np.log(w[0] * tune[0] + w[1] * tune[1] + (1 - sum(w)) * tune[2]).sum()))
    p = probabilities(score)
    return float(-np.log(weights[0] * p[0] + weights[1] * p[1] + (1 - sum(weights)) * p[2]).mean())


def _count(known: Any, asked: Any) -> Any:
    """How often each of `asked` occurs in `known`."""
    values, counts = np.unique(known, return_counts=True)
    place = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    return np.where(values[place] == asked, counts[place], 0)
