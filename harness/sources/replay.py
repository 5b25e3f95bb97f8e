"""Replay: everything that the generator derives from given weights, to hold any rule against another implementation."""

from typing import Any, NamedTuple

import numpy as np

from harness.automata import engine, score
from harness.automata.definition import CONV, Rules, logits
from harness.automata.tokens import framed, supervised
from harness.errors import require
from harness.sources.nca import NCA


class Replay(NamedTuple):
    """What `replay` returns, for n rules."""

    states: Any
    """uint8 (n, steps + 1, grid, grid): t = 0, 1, ..."""
    tokens: Any
    """int32 (n, frames * frame_tokens): the frames at t = burn_in, burn_in + stride, ... up to `steps`"""
    inputs: Any
    """int32 (n, context)"""
    targets: Any
    """int32 (n, context), -100 where not supervised"""
    score_bytes: Any
    """int64 (n,): gzip size of the first 10 frames"""
    score: Any
    """float64 (n,): gzip size over raw size"""
    logits: Any
    """float32 (n, steps, grid, grid, states): those at t decide the states at t + 1; None unless asked for"""


def replay(
    rules: Rules,
    state: Any,
    steps: int,
    *,
    patch: int = 2,
    burn_in: int = 10,
    stride: int = 1,
    context: int = 1024,
    temperature: float = 0.0,
    noise_keys: Any = None,
    identity_bias: float = 0.0,
    with_logits: bool = False,
) -> Replay:
    """Everything that the generator derives from given weights, to hold it against another implementation.

    `rules` as in `Rules`, `state` uint8 (n, grid, grid). Frames that the context or the score needs beyond `steps` are
    rolled out too, but not returned. Raises InputError if shapes and settings do not fit.
    """
    require(steps >= 1, "steps", steps, "use at least 1")
    n, grid = state.shape[:2]
    settings = NCA(rules.states, grid, patch, temperature, burn_in=burn_in, stride=stride, identity_bias=identity_bias)
    kernel = (n, 3, 3, rules.states + 2, CONV)
    require(rules.conv_kernel.shape == kernel, "Rules.conv_kernel", rules.conv_kernel.shape, f"want {kernel}")
    require(int(state.max()) < rules.states, "state", int(state.max()), f"cells lie in 0 .. {rules.states - 1}")
    require(temperature == 0 or noise_keys is not None, "noise_keys", noise_keys, "give n uint64 keys to sample with")
    frames = max(settings.frames_for(context), score.FRAMES)
    last = max(steps, settings.times(frames).stop - 1)
    states = engine.rollout(rules, state, last, temperature, noise_keys, identity_bias)
    patches = engine.patch_tokens(states[:, burn_in::stride], rules.states, patch)
    tokens = framed(patches, settings.start_token)
    shown = max(0, (steps - burn_in) // stride + 1)
    return Replay(
        states[:, : steps + 1],
        tokens[:, : shown * settings.frame_tokens],
        *supervised(tokens, settings.frame_tokens, context),
        score.score_bytes(patches),
        score.ratio(patches),
        np.stack([logits(rules, states[:, t], identity_bias) for t in range(steps)], 1) if with_logits else None,
    )
