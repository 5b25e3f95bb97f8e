"""The ratio of i.i.d. tokens, by which raw ratios of different alphabets are made to compare."""

import numpy as np
import pytest

from harness.automata import score


@pytest.mark.parametrize(("alphabet", "patches", "found"), [(16, 16, 0.27), (10_000, 36, 0.66)])
def test_iid_ratios_are_those_measured_before(alphabet: int, patches: int, found: float) -> None:
    """Two states on an 8 x 8 grid, ten on 12 x 12, both in 2 x 2 patches. The numbers from before are of zlib's bare
    stream, 12 bytes shorter than gzip's, and rounded to .01."""
    wrapper = 12 / (score.FRAMES * patches * 4)
    assert abs(score.iid_ratio(alphabet, patches) - wrapper - found) <= 0.005


def test_the_draws_are_enough() -> None:
    """Other draws give the same mean within five standard errors, which are below a thousandth."""
    tokens = np.random.default_rng(0).integers(0, 10_000, (256, score.FRAMES, 36), np.int32)
    other = score.ratio(tokens)
    error = other.std() / 16
    assert error < 5e-4
    assert abs(other.mean() - score.iid_ratio(10_000, 36)) < 5 * 2**0.5 * error


def test_more_ids_compress_less() -> None:
    ratios = [score.iid_ratio(n**4, 36) for n in (2, 3, 10, 15)]
    assert ratios == sorted(ratios) and 0 < ratios[0] and ratios[-1] < 1
    assert 0 < score.iid_ratio(1, 36) < 0.05
