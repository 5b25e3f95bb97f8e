"""The NCA source: pure sequences, bands, banks, refusals."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.automata import engine, score
from harness.automata.definition import Rules
from harness.errors import InputError
from harness.sources import nca
from harness.sources.nca import NCA
from harness.specs import digest

SMALL = NCA(states=2, grid=8, band=(0.08, 0.21))


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


@settings(max_examples=30)
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


def test_chunks_threads_and_stragglers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    want = SMALL.open().sequences(3, np.arange(40), 64)
    monkeypatch.setattr(engine, "CHUNK", 7)
    monkeypatch.setattr(nca, "BREADTH", 2)
    np.testing.assert_array_equal(SMALL.open().sequences(3, np.arange(40), 64), want)
    bank = replace(SMALL, rules=20).open().sequences(3, np.arange(40), 64)
    monkeypatch.setattr(engine, "_threads", 3)
    np.testing.assert_array_equal(SMALL.open().sequences(3, np.arange(40), 64), want)
    np.testing.assert_array_equal(replace(SMALL, rules=20).open().sequences(3, np.arange(40), 64), bank)


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


def test_frames_are_the_pictures_of_the_held_out_sequences() -> None:
    reader = SMALL.open()
    frames, scores = reader.frames(5, 3)
    inputs, _ = reader.held_out(5, 3 * 18)
    patches = inputs.reshape(5, 3, 18)[:, :, 1:-1]
    assert frames.shape == (5, 3, 8, 8) and frames.dtype == np.uint8 and scores.shape == (5,)
    np.testing.assert_array_equal(engine.patch_tokens(frames, 2, 2), patches)
    np.testing.assert_array_equal(reader.frames(5, 20)[1], scores)


# ---- rules


@pytest.mark.parametrize("band", [(0.0, 0.1), (0.2, 0.4), (0.5, 1.0)])
@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_every_trajectory_scores_inside_the_band(band: tuple[float, float], temperature: float) -> None:
    source = NCA(band=band, temperature=temperature)
    inputs, _ = source.open().sequences(0, np.arange(24), 380)
    patches = inputs.reshape(24, 10, 38)[:, :, 1:-1]
    ratio = score.score_bytes(patches) / 1440
    assert ((band[0] < ratio) & (ratio < band[1])).all()


def test_the_band_takes_the_first_candidate_inside() -> None:
    """An open band and one that cuts nothing off agree; a narrower band keeps the rules that it contains."""
    index = np.arange(40)
    every = NCA().open().sequences(0, index, 380)[0]
    np.testing.assert_array_equal(NCA(band=(0.0, 1.0)).open().sequences(0, index, 380)[0], every)
    ratio = score.score_bytes(every.reshape(40, 10, 38)[:, :, 1:-1]) / 1440
    kept = (ratio > 0.5) & (ratio < 1)
    high = NCA(band=(0.5, 1.0)).open().sequences(0, index, 380)[0]
    np.testing.assert_array_equal((high == every).all(1), kept)


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[bytes], set[bytes]]]:
    """The rules and the starts of every rollout since, newest last."""
    seen: list[tuple[set[bytes], set[bytes]]] = []
    rollout = engine.rollout

    def spy(rules: Rules, state: Any, *rest: Any) -> Any:
        seen.append(({w.tobytes() for w in rules.conv_kernel}, {grid.tobytes() for grid in state}))
        return rollout(rules, state, *rest)

    monkeypatch.setattr(engine, "rollout", spy)
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
    assert NCA().open().accepted(16)[0] == 1.0
    low, high = (NCA(band=b).open().accepted(600)[0] for b in ((0.0, 0.4), (0.5, 1.0)))
    both = NCA(band=(0.0, 1.0)).open().accepted(600)[0]
    assert 0 < low < 1 and 0 < high < 1 and low + high < both == 1.0


@pytest.mark.parametrize(
    ("band", "share", "bits", "copied"), [((0.3, 0.4), 0.092, 10.38, 0.136), ((0.5, 1.0), 0.460, 12.64, 0.010)]
)
def test_bands_look_as_they_did_over_65536_rules(
    band: tuple[float, float], share: float, bits: float, copied: float
) -> None:
    reader = NCA(band=band).open()
    assert abs(reader.accepted(2048)[0] - share) < 4 * (share * (1 - share) / 2048) ** 0.5
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
    assert NCA.version == 2
    assert got == ["bebcec0bf8e3ccd6", "cda363d5b3f5ae39", "4bc9a108a858479c", "dd3507285ba610d5"]


def test_flops_are_those_of_the_rollout() -> None:
    assert NCA().flops_per_token(1024) == 36 * 144 * (36 + 128 + 320) / 1024
    assert NCA(burn_in=0, stride=2).flops_per_token(38) == 2 * 144 * 484 / 38


def test_equal_settings_are_one_value() -> None:
    assert NCA(band=[0.5, 1]) == NCA(band=(0.5, 1.0))  # type: ignore[arg-type]
    assert digest(NCA(band=[0.5, 1])) == digest(NCA(band=(0.5, 1.0)))  # type: ignore[arg-type]
    assert digest(NCA(band=(0.5, 1.0))) != digest(NCA(band=(0.4, 1.0)))
    assert digest(NCA(candidates=5)) == digest(NCA())


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
        ({"rules": 300, "candidates": 200}, "NCA.rules = 300: a bank holds at most candidates = 200 rules"),
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


def test_the_complexity_of_what_is_trained_on_lies_in_the_band() -> None:
    share, low = NCA(band=(0.2, 0.4)).open().accepted(400)
    _, all_rules = NCA().open().accepted(400)
    assert 0 < share < 1 and low is not None and all_rules is not None and 0.2 < low < 0.4 < all_rules
    assert NCA(band=(0.99, 1.0)).open().accepted(16) == (0.0, None)
