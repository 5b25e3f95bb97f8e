"""The kernel for CUDA devices against the definition: on a device where there is one, else in Triton's interpreter."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import rng
from harness.automata import definition, engine, tokens
from harness.automata.definition import Rules
from harness.sources.nca import NCA

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported
triton = pytest.importorskip("triton")
from harness.automata import cuda  # noqa: E402

FEW = 4 if DEVICE == "cpu" else 64  # the interpreter takes a third of a second for a block of cells and step
ROOT = Path(__file__).parents[1]
REFERENCE = np.load(Path(__file__).parent / "data" / "nca_reference.npz")


def on_device(rules: Rules) -> Rules:
    return Rules(*(torch.tensor(weights, device=DEVICE) for weights in rules))


def rollout(rules: Rules, *args: Any) -> Any:
    got = cuda.rollout(on_device(rules), *args)
    assert got.device.type == DEVICE and got.dtype == torch.uint8
    return got.cpu().numpy()


def rough_rules(random: np.random.Generator, n: int, states: int) -> Rules:
    """Weights among 0, +-1 and +-2**24: sums cancel and swallow, so that another order gives another state."""

    def draw(*shape: int) -> Any:
        return random.choice(np.array([0, 1, -1, 2**24, -(2**24)], np.float32), (n, *shape))

    return Rules(draw(3, 3, states + 2, 4), draw(4), draw(4, 16), draw(16), draw(16, states), draw(states))


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 2),
    states=st.integers(2, 20),
    grid=st.integers(1, 13),
    temperature=st.sampled_from([0.0, 1e-4, 1e-3, 0.3]),
    identity_bias=st.sampled_from([0.0, -0.5, 1e4]),
    weights=st.sampled_from(["rough", "rough, unbiased", "drawn"]),
)
def test_rollout_equals_the_definition_bit_by_bit(
    seed: int, n: int, states: int, grid: int, temperature: float, identity_bias: float, weights: str
) -> None:
    random = np.random.default_rng(seed)
    keys = random.integers(0, 2**64, n, np.uint64)
    rules = definition.draw_rules(keys, states) if weights == "drawn" else rough_rules(random, n, states)
    if weights == "rough, unbiased":
        rules = definition.unbiased(rules.conv_kernel, rules.dense1_kernel, rules.dense2_kernel)
    state = random.integers(0, states, (n, grid, grid)).astype(np.uint8)
    args = (rules, state, 2, temperature, keys, identity_bias)
    np.testing.assert_array_equal(rollout(*args), definition.rollout(*args))


@pytest.mark.parametrize("temperature", [0.0, 1e-3])
@pytest.mark.parametrize(("n", "grid", "states", "steps"), [(1, 33, 2, 1), (500, 12, 10, 50), (4, 128, 256, 3)])
def test_large_rollouts_equal_the_compiled_ones(n: int, grid: int, states: int, steps: int, temperature: float) -> None:
    """Grids of more than 1,024 cells are run by several warps."""
    if n > 1 and DEVICE == "cpu":
        pytest.skip("a device is needed: the interpreter takes minutes")
    keys = rng.keys(np.arange(n), 3)
    rules, state = definition.draw_rules(keys, states), definition.draw_start(keys, states, grid, "uniform")
    args = (rules, state, steps, temperature, keys)
    np.testing.assert_array_equal(rollout(*args), engine.rollout(*args))


def test_rollout_follows_the_released_trajectories() -> None:
    rules = Rules(*(REFERENCE[f"c10g8p2/{name}"][:FEW] for name in Rules._fields))
    want = REFERENCE["c10g8p2/trajectory"][:FEW, :FEW]
    np.testing.assert_array_equal(rollout(rules, want[:, 0], want.shape[1] - 1), want)


def test_nothing_and_no_steps_are_rolled_out_too() -> None:
    rules = definition.draw_rules(np.arange(2, dtype=np.uint64), 3)
    state = np.ones((2, 4, 4), np.uint8)
    np.testing.assert_array_equal(rollout(rules, state, 0), state[:, None])
    assert rollout(Rules(*(weights[:0] for weights in rules)), state[:0], 5).shape == (0, 6, 4, 4)


@pytest.mark.parametrize("layer", ["hidden", "output"])
def test_products_are_rounded_before_they_are_added(layer: str) -> None:
    """a * a - (1 + 2**-11) with a = 1 + 2**-12 is 0 in float32, 2**-24 if fused; then state 1 would win the tie."""
    a, minus = np.float32(1 + 2**-12), np.float32(-(1 + 2**-11))
    rules = Rules(*(np.zeros_like(field) for field in definition.draw_rules(np.zeros(1, np.uint64), 2)))
    if layer == "hidden":
        rules.conv_bias[0, 0], rules.dense1_kernel[0, 0, 0], rules.dense1_bias[0, 0] = a, a, minus
        rules.dense2_kernel[0, 0, 1] = 1
    else:
        rules.dense1_bias[0, 0], rules.dense2_kernel[0, 0, 1], rules.dense2_bias[0, 1] = a, a, minus
    assert not rollout(rules, np.zeros((1, 8, 8), np.uint8), 1).any()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**63), n=st.integers(0, 5), states=st.integers(2, 30))
def test_drawn_rules_equal_the_definition(seed: int, n: int, states: int) -> None:
    key = rng.keys(np.arange(n), seed)
    for got, want in zip(cuda.draw_rules(key, states, DEVICE), definition.draw_rules(key, states), strict=True):
        assert got.device.type == DEVICE and got.dtype == torch.float32
        np.testing.assert_array_equal(got.cpu().numpy(), want)


@pytest.mark.parametrize(("alphabet", "patch", "grid"), [(2, 1, 5), (2, 5, 5), (10, 3, 6), (15, 2, 4), (256, 1, 3)])
def test_tokens_equal_the_definition(alphabet: int, patch: int, grid: int) -> None:
    states = np.random.default_rng(alphabet).integers(0, alphabet, (2, 3, grid, grid)).astype(np.uint8)
    got = cuda.patch_tokens(torch.tensor(states, device=DEVICE), alphabet, patch)
    assert got.device.type == DEVICE and got.dtype == torch.int32
    np.testing.assert_array_equal(got.cpu().numpy(), tokens.patch_tokens(states, alphabet, patch))


COMPILE = """
import subprocess
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from harness.automata import cuda

POINTERS = {"tables": "*fp32", "hidden": "*fp32", "output": "*fp32", "out": "*u8", "keys": "*i64"}
SCALARS = {"temperature": "fp32", "identity_bias": "fp32", "steps": "i32"}
for capability, temperature in ((80, 0.0), (80, 0.3), (90, 0.0), (90, 0.3)):
    constants = cuda.constants(12, 10, temperature, identity_bias=temperature)
    signature = {**POINTERS, **SCALARS, **dict.fromkeys(constants, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(POINTERS))}
    source = ASTSource(cuda.rollout_kernel, signature, constants, aligned)
    options = {**cuda.OPTIONS, "num_warps": cuda.launch(12 * 12)[1]}
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    name = f"{capability} {temperature}"
    Path(f"{name}.cubin").write_bytes(kernel.asm["cubin"])
    Path(f"{name}.ptx").write_text(kernel.asm["ptx"])
    with open(f"{name}.usage", "w") as file:
        subprocess.run([triton.knobs.nvidia.cuobjdump.path, "-res-usage", f"{name}.cubin"], stdout=file, check=True)
"""


@pytest.mark.skipif(
    not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists(), reason="ptxas is needed"
)
def test_every_operation_of_the_machine_code_rounds_as_ieee_754_says(tmp_path: Path) -> None:
    """Compiling for a device needs none, but a process in which Triton does not interpret."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", COMPILE]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rounded = {f"{operation}.rn.{kind}" for operation in ("add", "sub", "mul", "div") for kind in ("f32", "f64")}
    # Older versions of Triton flush quotients below 2**-126 to 0; they would vanish in the noise that is added to them.
    rounded.add("div.rn.ftz.f32")
    for capability in (80, 90):
        for temperature, kinds in ((0.0, {"add", "mul"}), (0.3, {"add", "sub", "mul", "div"})):
            path = tmp_path / f"{capability} {temperature}.ptx"
            code = path.read_text()
            used = set(re.findall(r"\b((?:add|sub|mul|div|fma|mad|rcp|sqrt|ex2|lg2)\.[a-z0-9.]*f(?:32|64))\b", code))
            assert used <= rounded and {name.split(".")[0] for name in used} == kinds
            assert "ld.global.v4.b32" in code, "four channels are one load"
            usage = path.with_suffix(".usage").read_text()
            assert " STACK:0 " in usage and " LOCAL:0 " in usage, "registers are spilled"


def test_sequences_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    source = NCA(states=2, grid=4, band=(0.05, 0.6), burn_in=2)
    want = source.open().sequences(0, np.arange(FEW), 40)
    monkeypatch.setattr(engine, "on_device", lambda: cuda)
    monkeypatch.setattr(engine, "_device", DEVICE)
    np.testing.assert_array_equal(source.open().sequences(0, np.arange(FEW), 40), want)


def test_a_device_that_is_not_there_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_device", "cuda:63")
    with pytest.warns(UserWarning, match="cuda:63 cannot be used .*: automata run on the CPU"):
        assert engine.on_device() is None
    assert engine.on_device() is None
