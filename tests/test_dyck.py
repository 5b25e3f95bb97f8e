"""Dyck words: every prefix can be closed, every word is, and every type of bracket takes part."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.sources.dyck import Dyck
from harness.specs import digest


def depths(row: list[int], source: Dyck) -> list[int]:
    """Brackets open after every token of a sequence; refuses a closer that nothing open allows."""
    open_brackets: list[int] = []
    found = []
    for token in row:
        assert 0 <= token < 2 * source.k
        if token < source.k:
            open_brackets.append(token)
        elif source.interleaved:
            open_brackets.remove(token - source.k)  # raises where none of its type is open
        else:
            assert open_brackets.pop() == token - source.k
        found.append(len(open_brackets))
    return found


SOURCES = st.builds(
    Dyck,
    k=st.integers(1, 6),
    depth=st.none() | st.integers(1, 5),
    interleaved=st.booleans(),
    length=st.none() | st.integers(1, 30).map(lambda half: 2 * half),
    opening=st.floats(0, 1),
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), source=SOURCES, context=st.integers(1, 70), data=st.data())
def test_a_sequence_depends_on_settings_seed_and_number_only(
    seed: int, source: Dyck, context: int, data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
    inputs, targets = source.open().sequences(seed, np.array(index), context)
    for row in data.draw(st.permutations(range(len(index)))):
        one = source.open().sequences(seed, np.array([index[row]]), context)
        np.testing.assert_array_equal(one[0][0], inputs[row])
        np.testing.assert_array_equal(one[1][0], targets[row])
    np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (len(index), context)
    if source.length is not None:
        longer, _ = source.open().sequences(seed, np.array(index), context + 13)
        np.testing.assert_array_equal(longer[:, :context], inputs)


@given(source=SOURCES, context=st.integers(1, 90))
def test_every_prefix_can_be_closed_and_every_word_is(source: Dyck, context: int) -> None:
    inputs, targets = source.open().sequences(3, np.arange(4), context)
    count = context + 1
    length = source.length or count + count % 2
    for row in np.concatenate([inputs, targets[:, -1:]], 1).tolist():
        depth = depths(row, source)
        assert max(depth) <= min(source.depth or count, length // 2)
        assert all(d == 0 for d in depth[length - 1 :: length])
        assert all(d <= length - (t + 1) % length for t, d in enumerate(depth))  # what is left closes what is open


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("k", [1, 2, 64])
def test_every_type_of_bracket_is_opened_at_any_depth(k: int, interleaved: bool) -> None:
    source = Dyck(k=k, depth=16, interleaved=interleaved)
    inputs, _ = source.open().sequences(0, np.arange(100), 512)
    opened = np.bincount(inputs[inputs < k], minlength=k)
    assert opened.min() > 0.75 * opened.mean() and opened.max() < 1.25 * opened.mean()
    nested = inputs[:, 1:][(inputs[:, :-1] < k) & (inputs[:, 1:] < k)]  # opened while another was open
    assert len(np.unique(nested)) == k


def test_a_bracket_opens_with_the_given_probability_where_it_has_the_choice() -> None:
    for opening in (0.0, 0.3, 0.5, 1.0):
        source = Dyck(k=3, length=400, opening=opening)
        choices = []
        for row in source.open().sequences(0, np.arange(60), 200)[0].tolist():
            before = [0, *depths(row, source)]
            choices += [token < 3 for token, d in zip(row, before, strict=False) if 0 < d < 200]
        assert np.mean(choices) == pytest.approx(opening, abs=5 * 0.5 / len(choices) ** 0.5 * (0 < opening < 1))


@pytest.mark.parametrize("interleaved", [False, True])
def test_the_depth_limit_is_reached_and_none_means_none(interleaved: bool) -> None:
    for limit in (1, 2, 7):
        source = Dyck(k=4, depth=limit, interleaved=interleaved)
        rows = source.open().sequences(0, np.arange(20), 200)[0].tolist()
        assert max(max(depths(row, source)) for row in rows) == limit
    deep = Dyck(k=4, interleaved=interleaved, opening=1.0)
    row = deep.open().sequences(0, np.arange(1), 199)[0][0].tolist()
    assert max(depths(row, deep)) == 100  # half of the word


def test_interleaved_closes_any_open_bracket_with_equal_chance() -> None:
    source = Dyck(k=1000, depth=4, interleaved=True, opening=1.0, length=8)  # four open, then four close
    inputs, targets = source.open().sequences(0, np.arange(20_000), 7)
    words = np.concatenate([inputs, targets[:, -1:]], 1)
    distinct = words[[len(set(w)) == 4 for w in words[:, :4].tolist()]]
    order = [tuple(w[:4].index(c - 1000) for c in w[4:]) for w in distinct.tolist()]
    counts = np.array([order.count(p) for p in itertools.permutations(range(4))])
    assert np.abs(counts / counts.sum() - 1 / 24).max() < 5 * (1 / 24 / counts.sum()) ** 0.5
    nested, _ = Dyck(k=1000, depth=4, opening=1.0, length=8).open().sequences(0, np.arange(50), 8)
    np.testing.assert_array_equal(nested[:, 4:], nested[:, 3::-1] + 1000)


def test_a_word_as_long_as_the_context_differs_from_a_longer_one_in_its_closing_alone() -> None:
    reader = Dyck(k=4, depth=3).open()
    short, longer = (reader.sequences(0, np.arange(50), context)[0] for context in (63, 127))
    np.testing.assert_array_equal(short[:, :60], longer[:, :60])  # at most three are open, so three close
    assert (short != longer[:, :63]).any()


def test_golden_tokens() -> None:
    # A change here changes what stages were trained on: raise Dyck.version.
    nested, mixed = (Dyck(3, 4, interleaved, 16, 0.6).open() for interleaved in (False, True))
    assert nested.sequences(7, np.array([5]), 16)[0][0].tolist() == [2, 5, 2, 5, 2, 5, 2, 2, 2, 0, 3, 5, 1, 4, 5, 5]
    assert mixed.sequences(7, np.array([5]), 16)[0][0].tolist() == [2, 5, 2, 5, 2, 5, 2, 2, 2, 0, 5, 3, 1, 5, 4, 5]


def test_one_type_nested_and_interleaved_are_one_language() -> None:
    nested, mixed = (Dyck(k=1, interleaved=v).open().sequences(0, np.arange(9), 99) for v in (False, True))
    np.testing.assert_array_equal(nested, mixed)


def test_held_out_sequences_are_no_training_sequences() -> None:
    reader = Dyck(k=4).open()
    held_out = reader.held_out(20, 60)[0]
    np.testing.assert_array_equal(reader.held_out(5, 60)[0], held_out[:5])
    for seed in (0, 2**63 - 1):
        assert (reader.sequences(seed, np.arange(20), 60)[0] != held_out).any(1).all()
    assert reader.epoch(60) is None and reader.token_bytes is None


def test_the_value_says_what_it_is() -> None:
    assert (Dyck().k, Dyck().depth, Dyck().vocab_size, Dyck().frame_tokens) == (128, None, 256, None)
    assert digest(Dyck(k=4.0, depth=3.0, length=8.0)) == digest(Dyck(k=4, depth=3, length=8))  # type: ignore[arg-type]
    others = [Dyck(k=2), Dyck(depth=9), Dyck(interleaved=True), Dyck(length=8), Dyck(opening=0.4)]
    assert len({digest(v) for v in (Dyck(), *others)}) == 6


@pytest.mark.parametrize(
    ("name", "bad", "way_out"),
    [
        *(("k", bad, "use a whole number of at least 1") for bad in (0, -1, 1.5, 2**30, True)),
        *(("depth", bad, "use a whole number of at least 1") for bad in (0, -1, 2.5)),
        *(("length", bad, "a balanced word has an even number of tokens, at least 2") for bad in (7, 1, 0, -2, 2.5)),
        ("interleaved", 1, "use True or False"),
        *(("opening", bad, "use a probability in") for bad in (-0.1, 1.1, float("nan"))),
    ],
)
def test_bad_settings_are_refused_in_one_line(name: str, bad: Any, way_out: str) -> None:
    with pytest.raises(InputError) as refused:
        Dyck(**{name: bad})
    assert str(refused.value).startswith(f"Dyck.{name} = {bad!r}: {way_out}")
    assert "\n" not in str(refused.value)
