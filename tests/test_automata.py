"""Automata: exact against the released generator, one definition in several kernels, tokens, scores, replay."""

import functools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import rng
from harness.automata import compiled, definition, engine, tokens
from harness.automata.definition import Rules
from harness.errors import InputError
from harness.sources.nca import NCA
from harness.sources.replay import replay

REFERENCE = np.load(Path(__file__).parent / "data" / "nca_reference.npz")
SETTINGS = json.loads(REFERENCE["meta_json"].tobytes())
LANES = compiled.lanes(2)
ROLLOUTS = [definition.rollout, *(functools.partial(engine.rollout, lanes=lanes) for lanes in LANES)]


def reference(setting: str) -> tuple[dict[str, Any], Rules]:
    prefix = f"{setting}/"
    arrays = {name[len(prefix) :]: REFERENCE[name] for name in REFERENCE.files if name.startswith(prefix)}
    return arrays, Rules(*(arrays[name] for name in Rules._fields))


def decode(patches: Any, alphabet: int, patch: int, grid: int) -> Any:
    """The grids (n, frames, grid, grid) that patch tokens (n, frames, patches) stand for, cell by cell."""
    out = np.zeros((*patches.shape[:2], grid, grid), np.uint8)
    for y in range(grid):
        for x in range(grid):
            token = patches[:, :, (y // patch) * (grid // patch) + x // patch].astype(np.int64)
            out[:, :, y, x] = token // alphabet ** ((y % patch) * patch + x % patch) % alphabet
    return out


def rough_rules(random: np.random.Generator, n: int, states: int) -> Rules:
    """Weights among 0, +-1 and +-2**24: sums cancel and swallow, so that another order gives another state."""

    def draw(*shape: int) -> Any:
        return random.choice(np.array([0, 1, -1, 2**24, -(2**24)], np.float32), (n, *shape))

    return Rules(draw(3, 3, states + 2, 4), draw(4), draw(4, 16), draw(16), draw(16, states), draw(states))


# ---- against the released generator


@pytest.mark.parametrize("setting", SETTINGS)
def test_replay_gives_every_array_of_the_release(setting: str) -> None:
    meta, (want, rules) = SETTINGS[setting], reference(setting)
    got = replay(
        rules,
        want["init_state"],
        want["trajectory"].shape[1] - 1,
        patch=meta["patch"],
        burn_in=meta["init_rollout_steps"],
        stride=meta["dT"],
        identity_bias=meta["identity_bias"],
        with_logits=True,
    )
    np.testing.assert_array_equal(got.states, want["trajectory"])
    np.testing.assert_array_equal(got.tokens, want["tokens"])
    np.testing.assert_array_equal(got.inputs, want["train_seq"])
    np.testing.assert_array_equal(got.targets, want["train_targets"])
    np.testing.assert_array_equal(got.score_bytes, want["gzip_bytes"])
    np.testing.assert_allclose(got.score, want["gzip_score_f32"], rtol=1e-6)
    np.testing.assert_allclose(got.logits[:4, 0], want["logits_t0"], atol=1e-6)
    np.testing.assert_array_equal(got.logits.argmax(-1), got.states[:, 1:])


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_kernel_follows_the_released_trajectories(setting: str, rollout: Any) -> None:
    want, rules = reference(setting)
    steps = want["trajectory"].shape[1] - 1
    got = rollout(rules, want["init_state"], steps, identity_bias=SETTINGS[setting]["identity_bias"])
    np.testing.assert_array_equal(got, want["trajectory"])


@pytest.mark.parametrize("which", [0, 1])
def test_samples_are_the_releases_under_its_noise(which: int) -> None:
    temperature = float(REFERENCE["gumbel/temperatures"][which])
    got = definition.choose(REFERENCE["gumbel/logits"], temperature, REFERENCE["gumbel/noise"])
    np.testing.assert_array_equal(got, REFERENCE[f"gumbel/T{which}_sample"])


def test_replay_looks_beyond_the_steps_it_returns() -> None:
    want, rules = reference("c10g8p2")
    full = replay(rules, want["init_state"], 66)
    short = replay(rules, want["init_state"], 12)
    assert short.states.shape[1] == 13 and short.tokens.shape[1] == 3 * 18
    np.testing.assert_array_equal(short.inputs, full.inputs)
    np.testing.assert_array_equal(short.score_bytes, full.score_bytes)


# ---- one definition, several kernels


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 3),
    states=st.integers(2, 40),
    grid=st.integers(1, 13),
    temperature=st.sampled_from([0.0, 1e-6, 1e-3, 0.3, 50.0]),
    identity_bias=st.sampled_from([0.0, -0.5, 1e4]),
    biased=st.booleans(),
    lanes=st.sampled_from(LANES),
)
def test_compiled_rollout_equals_numpy_bit_by_bit(
    seed: int, n: int, states: int, grid: int, temperature: float, identity_bias: float, biased: bool, lanes: int
) -> None:
    random = np.random.default_rng(seed)
    rules = rough_rules(random, n, states)
    if not biased:
        rules = definition.unbiased(rules.conv_kernel, rules.dense1_kernel, rules.dense2_kernel)
    state = random.integers(0, states, (n, grid, grid)).astype(np.uint8)
    keys = random.integers(0, 2**64, n, np.uint64)
    args = (rules, state, 4, temperature, keys, identity_bias)
    lanes = lanes if lanes in compiled.lanes(states) else 8
    np.testing.assert_array_equal(engine.rollout(*args, lanes=lanes), definition.rollout(*args))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("states", [11, 15, 17, 256])
@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_no_state_beyond_the_last_wins(lanes: int, states: int, temperature: float) -> None:
    """Blocks of states are padded; where all logits are negative a padding of zeros would be the largest."""
    random = np.random.default_rng(states)
    rules = definition.draw_rules(rng.keys(np.arange(4), states), states)
    rules = rules._replace(dense2_kernel=-np.abs(rules.dense2_kernel))
    state = random.integers(0, states, (4, 6, 6)).astype(np.uint8)
    args = (rules, state, 8, temperature, rng.keys(np.arange(4), 1))
    lanes = lanes if lanes in compiled.lanes(states) else 8
    np.testing.assert_array_equal(engine.rollout(*args, lanes=lanes), definition.rollout(*args))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_kernels_agree_over_100000_drawn_rules(temperature: float) -> None:
    """Drawn rules meet near-ties as training does: all widths roll out the same, a sixteenth of them NumPy too."""
    for chunk in range(25):
        keys = rng.keys(np.arange(chunk * 4096, (chunk + 1) * 4096), 11)
        rules, start = engine.draw_rules(keys, 10), definition.draw_start(keys, 10, 12, "uniform")
        want, *others = (engine.rollout(rules, start, 36, temperature, keys, lanes=lanes) for lanes in LANES)
        for got in others:
            assert (got == want).all()
        few = slice(0, 256)
        slow = definition.rollout(Rules(*(a[few] for a in rules)), start[few], 36, temperature, keys[few])
        assert (slow == want[few]).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**63), n=st.integers(0, 5), states=st.integers(2, 30))
def test_compiled_draws_equal_numpy(seed: int, n: int, states: int) -> None:
    key = rng.keys(np.arange(n), seed)
    for got, want in zip(engine.draw_rules(key, states), definition.draw_rules(key, states), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(2, 1, 5), (2, 2, 6), (2, 3, 6), (2, 5, 5), (10, 3, 6), (15, 2, 4), (256, 1, 3)]),
    context=st.integers(1, 40),
)
def test_compiled_tokens_equal_numpy(seed: int, shape: tuple[int, int, int], context: int) -> None:
    alphabet, patch, grid = shape
    frames = -(-(context + 1) // ((grid // patch) ** 2 + 2))
    states = np.random.default_rng(seed).integers(0, alphabet, (2, frames, grid, grid)).astype(np.uint8)
    patches = engine.patch_tokens(states, alphabet, patch)
    np.testing.assert_array_equal(patches, tokens.patch_tokens(states, alphabet, patch))
    start = alphabet ** (patch * patch)
    want = tokens.supervised(tokens.framed(patches, start), patches.shape[2] + 2, context)
    np.testing.assert_array_equal(engine.supervised(patches, start, context), want)


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("layer", ["hidden", "output"])
def test_products_are_rounded_before_they_are_added(rollout: Any, layer: str) -> None:
    """a * a - (1 + 2**-11) with a = 1 + 2**-12 is 0 in float32, 2**-24 if fused; then state 1 would win the tie."""
    a, minus = np.float32(1 + 2**-12), np.float32(-(1 + 2**-11))
    rules = Rules(*(np.zeros_like(field) for field in definition.draw_rules(np.zeros(1, np.uint64), 2)))
    if layer == "hidden":
        rules.conv_bias[0, 0], rules.dense1_kernel[0, 0, 0], rules.dense1_bias[0, 0] = a, a, minus
        rules.dense2_kernel[0, 0, 1] = 1
    else:
        rules.dense1_bias[0, 0], rules.dense2_kernel[0, 0, 1], rules.dense2_bias[0, 1] = a, a, minus
    assert not rollout(rules, np.zeros((1, 8, 8), np.uint8), 1).any()


def test_a_machine_without_numba_warns_once_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    source = NCA(states=2, grid=8, band=(0.08, 0.21))
    want = source.open().sequences(0, np.arange(4), 64)
    monkeypatch.setitem(sys.modules, "harness.automata.compiled", None)
    monkeypatch.delattr("harness.automata.compiled")
    engine.compiled.cache_clear()
    try:
        with pytest.warns(UserWarning, match="numba cannot be used"):
            got = source.open().sequences(0, np.arange(4), 64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            source.open().sequences(0, np.arange(1), 64)
    finally:
        engine.compiled.cache_clear()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_sampling_follows_the_softmax(temperature: float) -> None:
    """A rule without inputs has the same logits in every cell: its next states are draws of one distribution."""
    rules = Rules(*(np.zeros_like(field) for field in definition.draw_rules(np.zeros(1, np.uint64), 4)))
    rules.dense2_bias[0] = [0.0, 0.5, -1.0, 1.5]
    states = engine.rollout(rules, np.zeros((1, 20, 20), np.uint8), 100, temperature, np.array([7], np.uint64))[:, 1:]
    share = np.bincount(states.ravel(), minlength=4) / states.size
    p = np.exp(rules.dense2_bias[0] / temperature)
    p /= p.sum()
    assert np.abs(share - p).max() < 4 * np.sqrt(0.25 / states.size)


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_states_far_behind_are_sampled_as_often_as_the_softmax_says(rollout: Any) -> None:
    """The kernel skips the noise of states that cannot win; one 9 temperatures behind still wins 1 in 8,000 times."""
    rules = Rules(*(np.zeros_like(field) for field in definition.draw_rules(np.zeros(1, np.uint64), 2)))
    rules.dense2_bias[0, 1] = -9
    states = rollout(rules, np.zeros((1, 128, 128), np.uint8), 40, 1.0, np.array([1], np.uint64))[:, 1:]
    mean = states.size / (1 + np.exp(9.0))
    assert abs(int(states.sum()) - mean) < 4 * mean**0.5


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(2, 1, 5), (2, 2, 6), (2, 3, 6), (2, 5, 5), (10, 3, 6), (15, 2, 4), (256, 1, 3)]),
)
def test_tokens_decode_to_the_grid(seed: int, shape: tuple[int, int, int]) -> None:
    alphabet, patch, grid = shape
    states = np.random.default_rng(seed).integers(0, alphabet, (2, 3, grid, grid)).astype(np.uint8)
    patches = tokens.patch_tokens(states, alphabet, patch)
    assert patches.dtype == np.int32 and patches.min() >= 0 and patches.max() < alphabet ** (patch * patch)
    np.testing.assert_array_equal(decode(patches, alphabet, patch, grid), states)


def test_weights_are_lecun_normal_and_biases_zero() -> None:
    rules = definition.draw_rules(np.arange(400, dtype=np.uint64), 10)
    for kernel, fan_in in ((rules.conv_kernel, 108), (rules.dense1_kernel, 4), (rules.dense2_kernel, 16)):
        scaled = kernel.astype(np.float64) * fan_in**0.5
        assert abs(scaled.mean()) < 5 / scaled.size**0.5 and abs(scaled.var() - 1) < 0.05
        assert 2.2 < np.abs(scaled).max() < 2 / 0.8796256610342398
    assert not any(bias.any() for bias in (rules.conv_bias, rules.dense1_bias, rules.dense2_bias))


def test_starts_are_uniform_or_share_one_distribution_a_simulation() -> None:
    keys = rng.keys(np.arange(400), 5)
    uniform = definition.draw_start(keys, 7, 12, "uniform")
    assert np.abs(np.bincount(uniform.ravel(), minlength=7) / uniform.size - 1 / 7).max() < 0.01
    shared = definition.draw_start(keys, 7, 12, "shared_categorical")
    counts = np.stack([(shared == c).sum((1, 2)) for c in range(7)], 1) / 144
    within = np.stack([(uniform == c).sum((1, 2)) for c in range(7)], 1) / 144
    assert counts.std(0).min() > 3 * within.std(0).max()  # logits N(0, 1) spread the shares far beyond chance
    assert np.abs(counts.mean(0) - 1 / 7).max() < 0.03
    z = rng.normal_table()[rng.words(keys, 7, 144) >> np.uint64(48)].astype(np.float64)
    softmax = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert np.abs(counts - softmax).mean() < 0.03


def test_replay_refuses_what_does_not_fit() -> None:
    want, rules = reference("c2g12p2")
    with pytest.raises(InputError, match=r"state = 2: cells lie in 0 \.\. 1"):
        replay(rules, want["init_state"] + 1, 5)
    with pytest.raises(InputError, match=r"Rules\.conv_kernel = .*: want"):
        replay(rules._replace(conv_kernel=rules.conv_kernel[:, :, :, :3]), want["init_state"], 5)
    with pytest.raises(InputError, match=r"steps = 0: use at least 1"):
        replay(rules, want["init_state"], 0)
    with pytest.raises(InputError, match=r"noise_keys = None: "):
        replay(rules, want["init_state"], 5, temperature=0.1)
    with pytest.raises(InputError, match=r"NCA\.grid = 12: use a multiple of patch = 5"):
        replay(rules, want["init_state"], 5, patch=5)
