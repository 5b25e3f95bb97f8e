"""The NCA source: exact against the released generator, one definition in two implementations, pure sequences."""

import hashlib
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
from harness.errors import InputError
from harness.sources import nca
from harness.sources.nca import NCA, Rules
from harness.specs import digest

REFERENCE = np.load(Path(__file__).parent / "data" / "nca_reference.npz")
SETTINGS = json.loads(REFERENCE["meta_json"].tobytes())
SMALL = NCA(states=2, grid=8, band=(0.08, 0.21))
ROLLOUTS = [nca.rollout_numpy, nca.rollout]


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
    got = nca.replay(
        rules,
        want["init_state"],
        want["trajectory"].shape[1] - 1,
        patch=meta["patch"],
        burn_in=meta["init_rollout_steps"],
        stride=meta["dT"],
        identity_bias=meta["identity_bias"],
    )
    np.testing.assert_array_equal(got.states, want["trajectory"])
    np.testing.assert_array_equal(got.tokens, want["tokens"])
    np.testing.assert_array_equal(got.inputs, want["train_seq"])
    np.testing.assert_array_equal(got.targets, want["train_targets"])
    np.testing.assert_array_equal(got.score_bytes, want["gzip_bytes"])
    np.testing.assert_allclose(got.score, want["gzip_score_f32"], rtol=1e-6)
    np.testing.assert_allclose(got.logits[:4], want["logits_t0"], atol=1e-6)


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_both_implementations_follow_the_released_trajectories(setting: str, rollout: Any) -> None:
    want, rules = reference(setting)
    steps = want["trajectory"].shape[1] - 1
    got = rollout(rules, want["init_state"], steps, identity_bias=SETTINGS[setting]["identity_bias"])
    np.testing.assert_array_equal(got, want["trajectory"])


@pytest.mark.parametrize("which", [0, 1])
def test_samples_are_the_releases_under_its_noise(which: int) -> None:
    temperature = float(REFERENCE["gumbel/temperatures"][which])
    got = nca.choose(REFERENCE["gumbel/logits"], temperature, REFERENCE["gumbel/noise"])
    np.testing.assert_array_equal(got, REFERENCE[f"gumbel/T{which}_sample"])


def test_replay_looks_beyond_the_steps_it_returns() -> None:
    want, rules = reference("c10g8p2")
    full = nca.replay(rules, want["init_state"], 66)
    short = nca.replay(rules, want["init_state"], 12)
    assert short.states.shape[1] == 13 and short.tokens.shape[1] == 3 * 18
    np.testing.assert_array_equal(short.inputs, full.inputs)
    np.testing.assert_array_equal(short.score_bytes, full.score_bytes)


# ---- one definition, two implementations


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 3),
    states=st.integers(2, 40),
    grid=st.integers(1, 13),
    temperature=st.sampled_from([0.0, 1e-6, 1e-3, 0.3, 50.0]),
    identity_bias=st.sampled_from([0.0, -0.5, 1e4]),
)
def test_compiled_rollout_equals_numpy_bit_by_bit(
    seed: int, n: int, states: int, grid: int, temperature: float, identity_bias: float
) -> None:
    random = np.random.default_rng(seed)
    rules = rough_rules(random, n, states)
    state = random.integers(0, states, (n, grid, grid)).astype(np.uint8)
    keys = random.integers(0, 2**64, n, np.uint64)
    args = (rules, state, 4, temperature, keys, identity_bias)
    np.testing.assert_array_equal(nca.rollout(*args), nca.rollout_numpy(*args))


@pytest.mark.parametrize("rollout", ROLLOUTS)
@pytest.mark.parametrize("layer", ["hidden", "output"])
def test_products_are_rounded_before_they_are_added(rollout: Any, layer: str) -> None:
    """a * a - (1 + 2**-11) with a = 1 + 2**-12 is 0 in float32, 2**-24 if fused; then state 1 would win the tie."""
    a, minus = np.float32(1 + 2**-12), np.float32(-(1 + 2**-11))
    rules = Rules(*(np.zeros_like(field) for field in nca.draw_rules(np.zeros(1, np.uint64), 2)))
    if layer == "hidden":
        rules.conv_bias[0, 0], rules.dense1_kernel[0, 0, 0], rules.dense1_bias[0, 0] = a, a, minus
        rules.dense2_kernel[0, 0, 1] = 1
    else:
        rules.dense1_bias[0, 0], rules.dense2_kernel[0, 0, 1], rules.dense2_bias[0, 1] = a, a, minus
    assert not rollout(rules, np.zeros((1, 8, 8), np.uint8), 1).any()


def test_a_machine_without_numba_warns_once_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    want = SMALL.open().sequences(0, np.arange(4), 64)
    monkeypatch.setitem(sys.modules, "harness.sources.nca_kernel", None)
    monkeypatch.delattr("harness.sources.nca_kernel", raising=False)
    nca._kernel.cache_clear()
    try:
        with pytest.warns(UserWarning, match="numba cannot be used"):
            got = SMALL.open().sequences(0, np.arange(4), 64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SMALL.open().sequences(0, np.arange(1), 64)
    finally:
        nca._kernel.cache_clear()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_sampling_follows_the_softmax(temperature: float) -> None:
    """A rule without inputs has the same logits in every cell: its next states are draws of one distribution."""
    rules = Rules(*(np.zeros_like(field) for field in nca.draw_rules(np.zeros(1, np.uint64), 4)))
    rules.dense2_bias[0] = [0.0, 0.5, -1.0, 1.5]
    states = nca.rollout(rules, np.zeros((1, 20, 20), np.uint8), 100, temperature, np.array([7], np.uint64))[:, 1:]
    share = np.bincount(states.ravel(), minlength=4) / states.size
    p = np.exp(rules.dense2_bias[0] / temperature)
    p /= p.sum()
    assert np.abs(share - p).max() < 4 * np.sqrt(0.25 / states.size)


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_states_far_behind_are_sampled_as_often_as_the_softmax_says(rollout: Any) -> None:
    """The kernel skips the noise of states that cannot win; one 9 temperatures behind still wins 1 in 8,000 times."""
    rules = Rules(*(np.zeros_like(field) for field in nca.draw_rules(np.zeros(1, np.uint64), 2)))
    rules.dense2_bias[0, 1] = -9
    states = rollout(rules, np.zeros((1, 128, 128), np.uint8), 40, 1.0, np.array([1], np.uint64))[:, 1:]
    mean = states.size / (1 + np.exp(9.0))
    assert abs(int(states.sum()) - mean) < 4 * mean**0.5


# ---- sequences


SOURCES = st.builds(
    NCA,
    states=st.integers(2, 5),
    grid=st.sampled_from([4, 6]),
    patch=st.sampled_from([1, 2]),
    temperature=st.sampled_from([0.0, 1e-3]),
    start=st.sampled_from(["uniform", "shared_categorical"]),
    burn_in=st.integers(0, 3),
    stride=st.integers(1, 2),
    band=st.sampled_from([None, (0.05, 0.6)]),
    rules=st.sampled_from([None, 1, 3]),
)


@settings(max_examples=30, deadline=None)
@given(
    source=SOURCES,
    seed=st.integers(0, 2**63 - 1),
    index=st.lists(st.integers(0, 2**40), min_size=1, max_size=6),
    context=st.integers(1, 90),
    data=st.data(),
)
def test_a_sequence_depends_on_settings_seed_and_number_only(
    source: NCA, seed: int, index: list[int], context: int, data: st.DataObject
) -> None:
    inputs, targets = source.open().sequences(seed, np.array(index), context)
    order = data.draw(st.permutations(range(len(index))))
    reader = source.open()
    for row in order:
        one = reader.sequences(seed, np.array([index[row]]), context)
        np.testing.assert_array_equal(one[0][0], inputs[row])
        np.testing.assert_array_equal(one[1][0], targets[row])
    longer, _ = reader.sequences(seed, np.array(index), context + 7)
    np.testing.assert_array_equal(longer[:, :context], inputs)
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (len(index), context)
    assert (0 <= inputs).all() and (inputs < source.vocab_size).all()


def test_chunks_and_stragglers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    want = SMALL.open().sequences(3, np.arange(40), 64)
    monkeypatch.setattr(nca, "CHUNK", 7)
    monkeypatch.setattr(nca, "BREADTH", 2)
    np.testing.assert_array_equal(SMALL.open().sequences(3, np.arange(40), 64), want)


def test_targets_are_the_next_tokens_after_the_first_frame() -> None:
    source = NCA()
    inputs, targets = source.open().sequences(0, np.arange(4), 1024)
    assert source.frame_tokens == 38 and source.vocab_size == 10_002
    assert ((targets != -100).sum(1) == 987).all() and (targets[:, :37] == -100).all()
    np.testing.assert_array_equal(targets[:, 37:-1], inputs[:, 38:])
    assert (inputs[:, ::38] == 10_000).all() and (inputs[:, 37::38] == 10_001).all()


@pytest.mark.parametrize("context", [17, 18, 35, 36])
def test_the_last_target_is_known_at_every_context(context: int) -> None:
    _, targets = SMALL.open().sequences(0, np.arange(3), context)
    longer, _ = SMALL.open().sequences(0, np.arange(3), context + 1)
    if context >= SMALL.frame_tokens:
        np.testing.assert_array_equal(targets[:, -1], longer[:, -1])
    else:
        assert (targets == -100).all()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(2, 1, 5), (2, 2, 6), (2, 3, 6), (2, 5, 5), (10, 3, 6), (15, 2, 4), (256, 1, 3)]),
)
def test_tokens_decode_to_the_grid(seed: int, shape: tuple[int, int, int]) -> None:
    alphabet, patch, grid = shape
    states = np.random.default_rng(seed).integers(0, alphabet, (2, 3, grid, grid)).astype(np.uint8)
    tokens = nca.patch_tokens(states, alphabet, patch)
    assert tokens.dtype == np.int32 and tokens.min() >= 0 and tokens.max() < alphabet ** (patch * patch)
    np.testing.assert_array_equal(decode(tokens, alphabet, patch, grid), states)


def test_frames_are_the_pictures_of_the_held_out_sequences() -> None:
    reader = SMALL.open()
    frames, scores = reader.frames(5, 3)
    inputs, _ = reader.held_out(5, 3 * 18)
    patches = inputs.reshape(5, 3, 18)[:, :, 1:-1]
    assert frames.shape == (5, 3, 8, 8) and frames.dtype == np.uint8 and scores.shape == (5,)
    np.testing.assert_array_equal(frames, decode(patches, 2, 2, 8))
    np.testing.assert_array_equal(reader.frames(5, 20)[1], scores)


# ---- rules


@pytest.mark.parametrize("band", [(0.0, 0.1), (0.2, 0.4), (0.5, 1.0)])
@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_every_trajectory_scores_inside_the_band(band: tuple[float, float], temperature: float) -> None:
    source = NCA(band=band, temperature=temperature)
    inputs, _ = source.open().sequences(0, np.arange(24), 380)
    patches = inputs.reshape(24, 10, 38)[:, :, 1:-1]
    score = nca.score_bytes(patches) / 1440
    assert ((band[0] < score) & (score < band[1])).all()


def test_the_band_takes_the_first_candidate_inside() -> None:
    """An open band and one that cuts nothing off agree; a narrower band keeps the rules that it contains."""
    index = np.arange(40)
    every = NCA().open().sequences(0, index, 380)[0]
    np.testing.assert_array_equal(NCA(band=(0.0, 1.0)).open().sequences(0, index, 380)[0], every)
    score = nca.score_bytes(every.reshape(40, 10, 38)[:, :, 1:-1]) / 1440
    kept = (score > 0.5) & (score < 1)
    high = NCA(band=(0.5, 1.0)).open().sequences(0, index, 380)[0]
    np.testing.assert_array_equal((high == every).all(1), kept)


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[bytes], set[bytes]]]:
    """The rules and the starts of every rollout since, newest last."""
    seen: list[tuple[set[bytes], set[bytes]]] = []
    rollout = nca.rollout

    def spy(rules: Rules, state: Any, *rest: Any) -> Any:
        seen.append(({w.tobytes() for w in rules.conv_kernel}, {grid.tobytes() for grid in state}))
        return rollout(rules, state, *rest)

    monkeypatch.setattr(nca, "rollout", spy)
    return seen


@pytest.mark.parametrize("source", [SMALL, NCA(band=(0.3, 1.0), rules=4)])
def test_held_out_rules_are_no_training_rules(source: NCA, rolled: list[tuple[set[bytes], set[bytes]]]) -> None:
    reader = source.open()
    reader.held_out(64, 64)
    reader.frames(64, 10)
    held = set().union(*(rules for rules, _ in rolled))
    rolled.clear()
    for seed in (0, 1, 2**63 - 1):
        reader.sequences(seed, np.arange(64), 64)
    assert held.isdisjoint(set().union(*(rules for rules, _ in rolled)))


@pytest.mark.parametrize("size", [1, 5])
def test_a_bank_holds_its_number_of_rules(size: int, rolled: list[tuple[set[bytes], set[bytes]]]) -> None:
    def bank(seed: int) -> set[bytes]:
        NCA(rules=size, band=(0.3, 1.0)).open().sequences(seed, np.arange(60), 64)
        rules, starts = rolled[-1]
        assert len(starts) == 60
        return rules

    first = bank(0)
    assert len(first) == size
    assert bank(0) == first
    assert bank(1).isdisjoint(first)


def test_a_band_without_rules_is_refused_with_the_measured_share() -> None:
    source = NCA(states=2, grid=4, band=(0.97, 0.99), candidates=200)
    with pytest.raises(InputError, match=r"NCA\.band = \(0\.97, 0\.99\): accepted 0 of \d+ candidates, .* none of 200"):
        source.open().sequences(0, np.arange(2), 64)


def test_acceptance_is_a_share_of_fresh_candidates() -> None:
    assert NCA().open().acceptance(16) == 1.0
    low, high = (NCA(band=b).open().acceptance(600) for b in ((0.0, 0.4), (0.5, 1.0)))
    both = NCA(band=(0.0, 1.0)).open().acceptance(600)
    assert 0 < low < 1 and 0 < high < 1 and low + high < both == 1.0


def test_weights_are_lecun_normal_and_biases_zero() -> None:
    rules = nca.draw_rules(np.arange(400, dtype=np.uint64), 10)
    for kernel, fan_in in ((rules.conv_kernel, 108), (rules.dense1_kernel, 4), (rules.dense2_kernel, 16)):
        scaled = kernel.astype(np.float64) * fan_in**0.5
        assert abs(scaled.mean()) < 5 / scaled.size**0.5 and abs(scaled.var() - 1) < 0.05
        assert 2.2 < np.abs(scaled).max() < 2 / 0.8796256610342398
    assert not any(bias.any() for bias in (rules.conv_bias, rules.dense1_bias, rules.dense2_bias))


def test_starts_are_uniform_or_share_one_distribution_a_simulation() -> None:
    keys = rng.keys(np.arange(400), 5)
    uniform = nca.draw_start(keys, 7, 12, "uniform")
    assert np.abs(np.bincount(uniform.ravel(), minlength=7) / uniform.size - 1 / 7).max() < 0.01
    counts = np.stack([(nca.draw_start(keys, 7, 12, "shared_categorical") == c).sum((1, 2)) for c in range(7)], 1) / 144
    within = np.stack([(uniform == c).sum((1, 2)) for c in range(7)], 1) / 144
    assert counts.std(0).min() > 3 * within.std(0).max()  # logits N(0, 1) spread the shares far beyond chance
    assert np.abs(counts.mean(0) - 1 / 7).max() < 0.03
    z = rng.normal_table()[rng.words(keys, 7, 144) >> np.uint64(48)].astype(np.float64)
    softmax = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert np.abs(counts - softmax).mean() < 0.03


@pytest.mark.parametrize(
    ("band", "share", "bits", "copied"), [((0.3, 0.4), 0.092, 10.38, 0.136), ((0.5, 1.0), 0.460, 12.64, 0.010)]
)
def test_bands_look_as_they_did_over_65536_rules(
    band: tuple[float, float], share: float, bits: float, copied: float
) -> None:
    reader = NCA(band=band).open()
    assert abs(reader.acceptance(2048) - share) < 4 * (share * (1 - share) / 2048) ** 0.5
    inputs, _ = reader.sequences(0, np.arange(512), 26 * 38)
    patches = inputs.reshape(512, 26, 38)[:, :, 1:-1]
    p = np.bincount(patches.ravel()) / patches.size
    assert abs(-(p[p > 0] * np.log2(p[p > 0])).sum() - bits) < 0.3
    assert abs((patches[:, 1:] == patches[:, :-1]).mean() - copied) < 0.2 * copied


# ---- the value


def test_golden_tokens() -> None:
    """If this fails on purpose, raise `NCA.version`: stored artifacts were made from other tokens."""
    sources = [
        NCA(),
        SMALL,
        NCA(band=(0.5, 1.0), temperature=1e-3, start="shared_categorical"),
        NCA(states=3, grid=6, patch=3, burn_in=0, stride=2, rules=2, identity_bias=0.5),
    ]
    got = [hashlib.sha256(s.open().sequences(1, np.arange(4), 256)[0].astype("<i4")).hexdigest()[:16] for s in sources]
    assert NCA.version == 1
    assert got == ["bebcec0bf8e3ccd6", "cda363d5b3f5ae39", "4bc9a108a858479c", "dd3507285ba610d5"]


def test_flops_are_those_of_the_rollout() -> None:
    assert NCA().flops_per_token(1024) == 36 * 144 * (36 + 128 + 320) / 1024
    assert NCA(burn_in=0, stride=2).flops_per_token(38) == 2 * 144 * 484 / 38


def test_equal_settings_are_one_value() -> None:
    assert NCA(band=[0.5, 1]) == NCA(band=(0.5, 1.0))  # type: ignore[arg-type]
    assert digest(NCA(band=[0.5, 1])) == digest(NCA(band=(0.5, 1.0)))  # type: ignore[arg-type]
    assert digest(NCA(band=(0.5, 1.0))) != digest(NCA(band=(0.4, 1.0)))


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ({"states": 1}, "NCA.states = 1: "),
        ({"states": 257, "patch": 1}, "NCA.states = 257: "),
        ({"states": 11, "grid": 12, "patch": 3}, r"NCA.states, NCA.patch = \(11, 3\): .*int32"),
        ({"patch": 0}, "NCA.patch = 0: "),
        ({"grid": 9}, "NCA.grid = 9: use a multiple of patch = 2"),
        ({"grid": 0}, "NCA.grid = 0: "),
        ({"temperature": -1.0}, "NCA.temperature = -1.0: "),
        ({"temperature": 1e-20}, "NCA.temperature = 1e-20: use 0"),
        ({"temperature": float("nan")}, "NCA.temperature = nan: "),
        ({"start": "zeros"}, "NCA.start = 'zeros': use 'uniform' or 'shared_categorical'"),
        ({"burn_in": -1}, "NCA.burn_in = -1: "),
        ({"stride": 0}, "NCA.stride = 0: "),
        ({"band": (0.5, 0.3)}, r"NCA.band = \(0.5, 0.3\): "),
        ({"band": (0.5, 0.5)}, r"NCA.band = \(0.5, 0.5\): "),
        ({"band": (-0.1, 0.3)}, r"NCA.band = \(-0.1, 0.3\): "),
        ({"band": (0.5, 1.2)}, r"NCA.band = \(0.5, 1.2\): "),
        ({"band": (0.5,)}, r"NCA.band = \(0.5,\): "),
        ({"rules": 0}, "NCA.rules = 0: "),
        ({"identity_bias": float("inf")}, "NCA.identity_bias = inf: "),
        ({"candidates": 0}, "NCA.candidates = 0: "),
    ],
)
def test_bad_settings_are_refused_in_one_line(bad: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as error:
        NCA(**bad)
    assert "\n" not in str(error.value)


def test_the_largest_vocabulary_fits() -> None:
    source = NCA(states=10, grid=6, patch=3)
    inputs, _ = source.open().sequences(0, np.arange(8), 64)
    assert source.vocab_size == 10**9 + 2 and inputs.min() >= 0 and inputs.max() == 10**9 + 1


def test_replay_refuses_what_does_not_fit() -> None:
    want, rules = reference("c2g12p2")
    with pytest.raises(InputError, match=r"state = 2: cells lie in 0 \.\. 1"):
        nca.replay(rules, want["init_state"] + 1, 5)
    with pytest.raises(InputError, match=r"Rules\.conv_kernel = .*: want"):
        nca.replay(rules._replace(conv_kernel=rules.conv_kernel[:, :, :, :3]), want["init_state"], 5)
    with pytest.raises(InputError, match=r"noise_keys = None: "):
        nca.replay(rules, want["init_state"], 5, temperature=0.1)
    with pytest.raises(InputError, match=r"NCA\.grid = 12: use a multiple of patch = 5"):
        nca.replay(rules, want["init_state"], 5, patch=5)
