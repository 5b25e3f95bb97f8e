"""Which code runs an automaton: the kernels for CPUs or for a CUDA device, or NumPy where neither can be used. All
give equal bits.

Where it runs is a setting of the process, as torch's number of threads is: no value that names a sequence holds it.
"""

import functools
import math
import subprocess
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from harness.automata import definition, tokens
from harness.automata.definition import Rules

ZLIB_BYTES = 6
"""Header and trailer that a zlib stream (RFC 1950) adds to a deflate stream."""
CHUNK, DEVICE_CHUNK = 512, 8192
"""Simulations run at a time, on a CPU and on a device that runs thousands side by side: bounds memory."""
_threads, _device = 1, "cpu"


def set_threads(count: int) -> None:
    """Let generated sources of this process use `count` threads. Changes no result."""
    global _threads  # noqa: PLW0603
    _threads = count


def threads() -> int:
    """As `set_threads` set them; 1 at first."""
    return _threads


def set_device(name: str) -> None:
    """Let automata of this process run on "cpu" or on a CUDA device, "cuda" or "cuda:1". Changes no result."""
    global _device  # noqa: PLW0603
    _device = name


def in_chunks(work: Callable[[slice], None], count: int) -> None:
    """Call `work` for slices that make up range(count), on the threads of `set_threads`."""
    size = CHUNK if on_device() is None else DEVICE_CHUNK
    chunks = [slice(i, i + size) for i in range(0, count, size)]
    if _threads == 1 or len(chunks) == 1:
        for chunk in chunks:
            work(chunk)
    else:
        with ThreadPoolExecutor(_threads) as pool:
            list(pool.map(work, chunks))


def patches(
    rule_keys: Any,
    state: Any,
    noise_keys: Any,
    times: slice,
    alphabet: int,
    patch: int,
    temperature: float,
    identity_bias: float,
) -> Any:
    """int32 (n, frames, patches): the patch tokens, at `times`, of trajectories of drawn rules from `state`; see
    `draw_rules`, `rollout` and `patch_tokens`."""
    kernels = on_device()
    if kernels is None:
        rules = draw_rules(rule_keys, alphabet)
        states = rollout(rules, state, times.stop - 1, temperature, noise_keys, identity_bias)
        return patch_tokens(states[:, times], alphabet, patch)
    rules = kernels.draw_rules(rule_keys, alphabet, _device)
    states = kernels.rollout(rules, state, times.stop - 1, temperature, noise_keys, identity_bias)
    return kernels.patch_tokens(states[:, times], alphabet, patch).cpu().numpy()


def rollout(
    rules: Rules,
    state: Any,
    steps: int,
    temperature: float = 0.0,
    noise_keys: Any = None,
    identity_bias: float = 0.0,
    lanes: int | None = None,
) -> Any:
    """As `definition.rollout`. `lanes` cells are run at a time, by default as many as this machine is fastest with."""
    kernels = compiled()
    if kernels is None:
        return definition.rollout(rules, state, steps, temperature, noise_keys, identity_bias)
    n, grid = state.shape[:2]
    out = np.empty((n, steps + 1, grid * grid), np.uint8)
    out[:, 0] = state.reshape(n, -1)
    lanes = lanes or kernels.lanes(rules.states)[0]
    biased = any(np.count_nonzero(bias) for bias in (rules.conv_bias, rules.dense1_bias, rules.dense2_bias))
    kernels.rollout(
        *(np.ascontiguousarray(weights, np.float32) for weights in rules),
        out,
        grid,
        np.float32(temperature),
        np.zeros(n, np.uint64) if noise_keys is None else noise_keys,
        np.float32(identity_bias),
        (0,) * lanes,
        (0,) * kernels.block(rules.states, lanes),
        (0,) * (2 if temperature or identity_bias or biased else 1),
    )
    return out.reshape(n, steps + 1, grid, grid)


def draw_rules(key: Any, states: int) -> Rules:
    """As `definition.draw_rules`."""
    kernels = compiled()
    if kernels is None:
        return definition.draw_rules(key, states)
    shapes = definition.kernel_shapes(states)
    drawn = tuple(np.empty((len(key), *shape), np.float32) for shape in shapes)
    flat = tuple(kernel.reshape(len(key), math.prod(shape)) for kernel, shape in zip(drawn, shapes, strict=True))
    scales = tuple(definition.kernel_scale(shape) for shape in shapes)
    kernels.draw_kernels(np.asarray(key, np.uint64), definition.weight_table(), scales, flat)
    return definition.unbiased(*drawn)


def patch_tokens(states: Any, alphabet: int, patch: int) -> Any:
    """As `tokens.patch_tokens`, of `states` (n, frames, grid, grid)."""
    kernels = compiled()
    if kernels is None:
        return tokens.patch_tokens(states, alphabet, patch)
    n, frames, grid, _ = states.shape
    out = np.empty((n, frames, (grid // patch) ** 2), np.int32)
    kernels.patch_tokens(states.reshape(n, frames, grid * grid), grid, alphabet, patch, out)
    return out


def supervised(patches: Any, start: int, context: int) -> tuple[Any, Any]:
    """As `tokens.supervised` of `tokens.framed`."""
    kernels = compiled()
    if kernels is None:
        return tokens.supervised(tokens.framed(patches, start), patches.shape[2] + 2, context)
    inputs = np.empty((len(patches), context), np.int32)
    targets = np.empty_like(inputs)
    kernels.supervised(patches, start, inputs, targets)
    return inputs, targets


def deflate_bytes(data: Any) -> Any:
    """int64 (n,): bytes of the deflate stream (zlib, level 9) of every row of `data` uint8 (n, length).

    Compiled, the size is classic zlib's on every machine; NumPy has none, and what Python is linked to is asked.
    """
    if compiled() is not None:
        from harness.automata import deflate

        if data.shape[1] <= deflate.LONGEST:
            return deflate.deflate_bytes(data)
    return np.array([len(zlib.compress(row.tobytes(), 9)) - ZLIB_BYTES for row in data], np.int64)


@functools.cache
def compiled() -> Any:
    """The module of compiled kernels, or None, said once, on a machine where numba cannot be used."""
    try:
        from harness.automata import compiled
    except (ImportError, RuntimeError) as error:  # numba raises the latter where no directory can hold its cache
        warnings.warn(f"numba cannot be used ({error}): automata run in NumPy, many times slower", stacklevel=3)
        return None
    return compiled


def on_device() -> Any:
    """The module of kernels for the device of `set_device`; None for the CPU."""
    return None if _device == "cpu" else _on_device(_device)


@functools.cache
def _on_device(device: str) -> Any:
    """The module, or None, said once, where there is no such device or nothing to build its kernels with."""
    try:
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("torch sees no CUDA device")
        from harness.automata import cuda

        probe = cuda.draw_rules(np.zeros(1, np.uint64), 2, device)
        cuda.rollout(probe, np.zeros((1, 2, 2), np.uint8), 1).cpu()
    except (ImportError, RuntimeError, subprocess.CalledProcessError) as error:
        why = str(error).partition("\n")[0]  # CUDA's advice to those who debug it follows
        warnings.warn(f"{device} cannot be used ({why}): automata run on the CPU", stacklevel=4)
        return None
    return cuda
