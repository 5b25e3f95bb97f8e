"""The i.i.d. control: the source's counts, its frames and targets, and nothing else of it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.sources.dyck import Dyck
from harness.sources.iid import IID, SAMPLE
from harness.sources.nca import NCA
from harness.sources.shuffled import Shuffled
from harness.specs import digest

AUTOMATA = NCA(states=4, grid=6, patch=2, burn_in=2)  # 11 tokens a frame, delimiters 256 and 257
FRAMED = IID(AUTOMATA, sample=64, sample_context=55)
FRAMELESS = IID(Dyck(k=3, length=8), sample=64, sample_context=40)
SOURCES = st.sampled_from([FRAMED, FRAMELESS])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), source=SOURCES, context=st.integers(1, 70), data=st.data())
def test_a_sequence_depends_on_settings_seed_and_number_only(
    seed: int, source: IID, context: int, data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
    inputs, targets = source.open().sequences(seed, np.array(index), context)
    for row in data.draw(st.permutations(range(len(index)))):
        one = source.open().sequences(seed, np.array([index[row]]), context)
        np.testing.assert_array_equal(one[0][0], inputs[row])
        np.testing.assert_array_equal(one[1][0], targets[row])
    longer = source.open().sequences(seed, np.array(index), context + 13)[0]
    np.testing.assert_array_equal(longer[:, :context], inputs)
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (len(index), context)


@pytest.mark.parametrize("context", [5, 33, 50])
def test_with_frames_delimiters_and_supervised_targets_are_the_sources(context: int) -> None:
    plain = AUTOMATA.open().sequences(0, np.arange(4), context)
    inputs, targets = FRAMED.open().sequences(0, np.arange(4), context)
    np.testing.assert_array_equal(targets == -100, plain[1] == -100)
    shown = targets[:, :-1] != -100
    np.testing.assert_array_equal(targets[:, :-1][shown], inputs[:, 1:][shown])
    for delimiter in (256, 257):
        np.testing.assert_array_equal(inputs == delimiter, plain[0] == delimiter)
        np.testing.assert_array_equal(targets == delimiter, plain[1] == delimiter)


def test_without_frames_every_target_is_the_next_token() -> None:
    inputs, targets = FRAMELESS.open().sequences(0, np.arange(4), 40)
    np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])
    assert (targets >= 0).all()


def patches(inputs: Any) -> Any:
    return inputs.reshape(len(inputs), -1, 11)[:, :, 1:-1]


def test_the_unigram_is_the_count_of_the_sources_own_patches() -> None:
    reader = FRAMED.open()
    sample = patches(AUTOMATA.open().sequences(SAMPLE, np.arange(64), 55)[0])
    ids, up_to = reader.unigram
    np.testing.assert_array_equal(np.bincount(sample.ravel())[ids], np.diff(up_to, prepend=0))
    assert up_to[-1] == sample.size == 64 * 5 * 9
    assert reader.unigram is reader.unigram  # worked out once
    assert 2**63 <= SAMPLE < 2**64 - 1  # neither a training seed nor the held-out set's


def test_tokens_follow_the_unigram_wherever_they_stand() -> None:
    reader = FRAMED.open()
    ids, up_to = reader.unigram
    share = np.diff(up_to, prepend=0) / up_to[-1]
    drawn = patches(reader.sequences(0, np.arange(4000), 55)[0])
    assert set(np.unique(drawn)) <= set(ids)
    for part in (drawn, drawn[:, 0], drawn[:, :, 4]):
        found = np.bincount(part.ravel(), minlength=257)[ids] / part.size
        assert np.abs(found - share).max() < 6 * np.sqrt(share.max() / part.size)


def test_tokens_say_nothing_of_each_other() -> None:
    frozen = IID(NCA(states=4, grid=6, identity_bias=1e3), sample=64, sample_context=55)  # every frame repeats the last
    reader = frozen.open()
    drawn = patches(reader.sequences(0, np.arange(2000), 55)[0])
    by_chance = float(((np.diff(reader.unigram[1], prepend=0) / reader.unigram[1][-1]) ** 2).sum())
    for a, b in ((drawn[:, 1:], drawn[:, :-1]), (drawn[:, :, 1:], drawn[:, :, :-1]), (drawn[1:], drawn[:-1])):
        assert float((a == b).mean()) == pytest.approx(by_chance, abs=6 * (by_chance / a.size) ** 0.5)


def test_a_vocabulary_of_a_thousand_million_ids_costs_what_occurs_in_it() -> None:
    source = IID(NCA(states=177, grid=4, patch=2), sample=8, sample_context=48)
    assert source.vocab_size > 9e8
    inputs, _ = source.open().sequences(0, np.arange(3), 48)
    assert 0 <= inputs.min() and inputs.max() < source.vocab_size
    assert len(source.open().unigram[0]) <= 8 * 48


def test_golden_tokens() -> None:
    # A change here changes what stages were trained on: raise IID.version (or, if its tokens changed, Dyck's).
    tokens = [4, 4, 3, 2, 2, 1, 3, 4, 1, 3, 4, 3, 2, 4, 0, 1]
    assert FRAMELESS.open().sequences(7, np.array([5]), 16)[0][0].tolist() == tokens


def test_held_out_sequences_are_no_training_sequences() -> None:
    reader = FRAMED.open()
    held_out = reader.held_out(20, 55)[0]
    np.testing.assert_array_equal(reader.held_out(5, 55)[0], held_out[:5])
    for seed in (0, 2**63 - 1):
        assert (reader.sequences(seed, np.arange(20), 55)[0] != held_out).any(1).all()
    assert reader.epoch(55) is None and reader.token_bytes is None


def test_it_can_stand_over_and_under_another_control() -> None:
    over = IID(Shuffled(AUTOMATA), sample=64, sample_context=55).open()
    for found, want in zip(over.unigram, FRAMED.open().unigram, strict=True):
        np.testing.assert_array_equal(found, want)  # a permutation within frames keeps their counts
    under = Shuffled(FRAMED).open().sequences(0, np.arange(3), 55)[0]
    plain = FRAMED.open().sequences(0, np.arange(3), 55)[0]
    np.testing.assert_array_equal(np.sort(patches(under)), np.sort(patches(plain)))


def test_the_value_stands_beside_its_source() -> None:
    assert (FRAMED.vocab_size, FRAMED.frame_tokens) == (AUTOMATA.vocab_size, 11)
    assert (FRAMELESS.vocab_size, FRAMELESS.frame_tokens) == (6, None)
    assert IID(AUTOMATA, sample=64.0) == IID(AUTOMATA, sample=64)  # type: ignore[arg-type]
    values = [AUTOMATA, FRAMED, replace(FRAMED, sample=65), replace(FRAMED, sample_context=56)]
    assert len({digest(v) for v in values}) == 4


@dataclass(frozen=True)
class Stored:
    stored = True
    frame_tokens = None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"source": Stored()}, r"^IID\.source = 'Stored': is read from a store; use a generated source, such as NCA$"),
        ({"sample": 0}, r"^IID\.sample = 0: use a whole number"),
        ({"sample": 1.5}, r"^IID\.sample = 1\.5: use a whole number"),
        ({"sample_context": 0}, r"^IID\.sample_context = 0: use a whole number"),
        ({"sample_context": 10}, r"^IID\.sample_context = 10: use at least the 11 tokens of one frame$"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as refused:
        IID(**({"source": AUTOMATA} | settings))
    assert "\n" not in str(refused.value)
