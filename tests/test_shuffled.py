"""The shuffled control: same counts, same frame structure and targets, no order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.sources.nca import NCA
from harness.sources.shuffled import Shuffled
from harness.specs import digest

SOURCE = NCA(states=4, grid=6, patch=2, burn_in=2)  # 11 tokens a frame
WHAT = st.sampled_from(["tokens", "frames"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), what=WHAT, context=st.integers(1, 70), data=st.data())
def test_a_sequence_depends_on_settings_seed_and_number_only(
    seed: int, what: Any, context: int, data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
    source = Shuffled(SOURCE, what)
    inputs, targets = source.open().sequences(seed, np.array(index), context)
    for row in data.draw(st.permutations(range(len(index)))):
        one = source.open().sequences(seed, np.array([index[row]]), context)
        np.testing.assert_array_equal(one[0][0], inputs[row])
        np.testing.assert_array_equal(one[1][0], targets[row])
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (len(index), context)


@pytest.mark.parametrize("what", ["tokens", "frames"])
@pytest.mark.parametrize("context", [5, 33, 50])
def test_targets_are_the_next_tokens_where_the_source_supervises(what: Any, context: int) -> None:
    plain = SOURCE.open().sequences(0, np.arange(4), context)
    inputs, targets = Shuffled(SOURCE, what).open().sequences(0, np.arange(4), context)
    np.testing.assert_array_equal(targets == -100, plain[1] == -100)
    shown = targets[:, :-1] != -100
    np.testing.assert_array_equal(targets[:, :-1][shown], inputs[:, 1:][shown])
    for delimiter in (4**4, 4**4 + 1):
        np.testing.assert_array_equal(inputs == delimiter, plain[0] == delimiter)


def frames(inputs: Any) -> Any:
    return inputs.reshape(len(inputs), -1, 11)[:, :, 1:-1]


def test_tokens_permutes_every_frame_by_itself() -> None:
    plain = frames(SOURCE.open().sequences(0, np.arange(50), 55)[0])
    mixed = frames(Shuffled(SOURCE).open().sequences(0, np.arange(50), 55)[0])
    np.testing.assert_array_equal(np.sort(mixed), np.sort(plain))
    assert (mixed != plain).mean() > 0.5
    frozen = NCA(states=4, grid=6, identity_bias=1e3)  # every frame repeats the last: a shared permutation would too
    torn = frames(Shuffled(frozen).open().sequences(0, np.arange(50), 55)[0])
    assert (torn[:, 1:] != torn[:, :-1]).any(-1).mean() > 0.9


def test_frames_permutes_whole_frames() -> None:
    plain = frames(SOURCE.open().sequences(0, np.arange(50), 54)[0][:, :44])  # 54 inputs and a target: five frames
    full = frames(SOURCE.open().sequences(0, np.arange(50), 55)[0])
    mixed = frames(Shuffled(SOURCE, "frames").open().sequences(0, np.arange(50), 54)[0][:, :44])
    for row in range(50):
        assert {f.tobytes() for f in mixed[row]} <= {f.tobytes() for f in full[row]}
    assert (mixed != plain).any((1, 2)).mean() > 0.5


def test_held_out_sequences_are_the_sources_shuffled() -> None:
    plain = frames(SOURCE.open().held_out(20, 55)[0])
    reader = Shuffled(SOURCE).open()
    np.testing.assert_array_equal(np.sort(frames(reader.held_out(20, 55)[0])), np.sort(plain))
    np.testing.assert_array_equal(reader.held_out(5, 55)[0], reader.held_out(20, 55)[0][:5])
    assert reader.epoch(55) is None and reader.token_bytes is None


def test_the_value_stands_beside_its_source() -> None:
    shuffled = Shuffled(SOURCE)
    assert (shuffled.vocab_size, shuffled.frame_tokens) == (SOURCE.vocab_size, SOURCE.frame_tokens)
    assert shuffled.flops_per_token(64) == SOURCE.flops_per_token(64)
    assert len({digest(v) for v in (SOURCE, shuffled, Shuffled(SOURCE, "frames"))}) == 3


@dataclass(frozen=True)
class Frameless:
    stored = False
    frame_tokens = None


def test_bad_settings_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^Shuffled\.what = 'words': use 'tokens' or 'frames'$"):
        Shuffled(SOURCE, "words")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^Shuffled\.source = 'Frameless': has no frames"):
        Shuffled(Frameless())  # type: ignore[arg-type]
