"""The copy task: every string written twice, the second time as the target."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import baselines
from harness.errors import InputError
from harness.sources.copying import Copy
from harness.sources.iid import IID
from harness.specs import digest

SOURCE = Copy(alphabet=5, length=(2, 6))


def parse(tokens: list[int], alphabet: int) -> tuple[list[list[int]], list[bool]]:
    """The whole strings of a sequence, and of every token whether it is a symbol of a second copy; refuses all that is
    not START w COPY w, cut anywhere."""
    strings: list[list[int]] = []
    copied = [False] * len(tokens)
    at = 0
    while at < len(tokens):
        assert tokens[at] == alphabet
        at += 1
        string = []
        while at < len(tokens) and tokens[at] < alphabet:
            string.append(tokens[at])
            at += 1
        if at == len(tokens):
            break
        assert tokens[at] == alphabet + 1
        strings.append(string)
        second = tokens[at + 1 : at + 1 + len(string)]
        assert second == string[: len(second)]
        copied[at + 1 : at + 1 + len(second)] = [True] * len(second)
        at += 1 + len(string)
    return strings, copied


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), context=st.integers(8, 70), data=st.data())
def test_a_sequence_depends_on_settings_seed_and_number_only(seed: int, context: int, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
    inputs, targets = SOURCE.open().sequences(seed, np.array(index), context)
    for row in data.draw(st.permutations(range(len(index)))):
        one = SOURCE.open().sequences(seed, np.array([index[row]]), context)
        np.testing.assert_array_equal(one[0][0], inputs[row])
        np.testing.assert_array_equal(one[1][0], targets[row])
    longer = SOURCE.open().sequences(seed, np.array(index), context + 13)
    np.testing.assert_array_equal(longer[0][:, :context], inputs)
    np.testing.assert_array_equal(longer[1][:, :context], targets)
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (len(index), context)


@given(alphabet=st.integers(2, 9), least=st.integers(1, 9), more=st.integers(0, 9), context=st.integers(20, 90))
def test_every_string_is_followed_by_itself_and_the_copy_alone_is_supervised(
    alphabet: int, least: int, more: int, context: int
) -> None:
    reader = Copy(alphabet, (least, least + more)).open()
    tokens, _ = reader.sequences(1, np.arange(6), context + 1)
    _, targets = reader.sequences(1, np.arange(6), context)
    for row, target in zip(tokens.tolist(), targets.tolist(), strict=True):
        strings, copied = parse(row, alphabet)
        assert all(least <= len(string) <= least + more for string in strings)
        assert target == [t if second else -100 for t, second in zip(row[1:], copied[1:], strict=True)]
        assert any(t >= 0 for t in target)


def test_strings_are_uniform_in_length_and_symbols() -> None:
    tokens, _ = SOURCE.open().sequences(0, np.arange(300), 200)
    strings = [string for row in tokens.tolist() for string in parse(row, 5)[0][:12]]  # twelve are never cut
    lengths = np.bincount([len(string) for string in strings], minlength=7)
    symbols = np.bincount([symbol for string in strings for symbol in string])
    for counts in (lengths[2:], symbols):
        assert len(counts) == 5
        assert np.abs(counts / counts.sum() - 0.2).max() < 5 * 0.4 / counts.sum() ** 0.5
    assert len({tuple(s) for s in strings if len(s) == 6}) > 400


def test_strings_of_one_length_stand_at_fixed_places() -> None:
    tokens, targets = Copy(alphabet=50, length=(3, 3)).open().sequences(0, np.arange(20), 15)
    assert (tokens[:, [0, 8]] == 50).all() and (tokens[:, [4, 12]] == 51).all()
    np.testing.assert_array_equal(tokens[:, 1:4], tokens[:, 5:8])
    np.testing.assert_array_equal(np.flatnonzero((targets >= 0).all(0)), [4, 5, 6, 12, 13, 14])


def test_golden_tokens() -> None:
    # A change here changes what stages were trained on: raise Copy.version.
    tokens = [5, 4, 0, 1, 2, 4, 4, 6, 4, 0, 1, 2, 4, 4, 5, 2, 4, 3, 6, 2]
    assert SOURCE.open().sequences(7, np.array([5]), 20)[0][0].tolist() == tokens


def test_held_out_sequences_are_no_training_sequences() -> None:
    reader = SOURCE.open()
    held_out = reader.held_out(20, 60)[0]
    np.testing.assert_array_equal(reader.held_out(5, 60)[0], held_out[:5])
    for seed in (0, 2**63 - 1):
        assert (reader.sequences(seed, np.arange(20), 60)[0] != held_out).any(1).all()
    assert reader.epoch(60) is None and reader.token_bytes is None


def test_counting_predicts_no_copy() -> None:
    reader = Copy(alphabet=16, length=(4, 8)).open()
    found = baselines.fit_and_score(reader.sequences(0, np.arange(500), 64), reader.held_out(100, 64), 18, None)
    assert found["unigram_nats"] == pytest.approx(np.log(16), abs=0.02)
    assert found["ngram2_nats"] == pytest.approx(np.log(16), abs=0.05)
    assert found["copy_nats"] is None


def test_the_value_says_what_it_is() -> None:
    assert (SOURCE.vocab_size, SOURCE.frame_tokens) == (7, None)
    assert digest(Copy(5, [2.0, 6])) == digest(SOURCE)  # type: ignore[arg-type]
    assert len({digest(v) for v in (SOURCE, Copy(6, (2, 6)), Copy(5, (3, 6)), Copy(5, (2, 7)))}) == 4


def test_a_context_that_might_hold_no_copy_is_refused() -> None:
    for source in (SOURCE, IID(SOURCE, sample=2, sample_context=7)):
        with pytest.raises(
            InputError, match=r"^Copy\.length = \(2, 6\): a context of 7 tokens may end before the first"
        ):
            source.open().held_out(1, 7)


@pytest.mark.parametrize(
    "length", [(0, 3), (4, 3), (1.5, 3), (2, 2.5), (1, 2, 3), (2,), 3, "ab", (True, 3), (1, float("nan"))]
)
def test_lengths_that_are_none_are_refused_in_one_line(length: Any) -> None:
    with pytest.raises(InputError, match=r"^Copy\.length = .*: use \(least, most\)") as refused:
        Copy(length=length)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("alphabet", [1, 0, -1, 2.5, 2**31 - 2, True])
def test_alphabets_that_are_none_are_refused_in_one_line(alphabet: Any) -> None:
    with pytest.raises(InputError, match=r"^Copy\.alphabet = .*: use a whole number of at least 2 and at most"):
        Copy(alphabet=alphabet)
