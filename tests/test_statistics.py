"""Statistics of tokens: against values known by hand, and of the automata against those measured before."""

import math

import numpy as np
import pytest

from harness import statistics
from harness.sources.nca import NCA
from harness.statistics import Statistics, describe


def test_sequences_without_frames_by_hand() -> None:
    found = describe(np.array([[1, 1, 2, 2], [3, 1, 2, 1], [1, 1, 2, 2]], np.int32), None)
    assert (found.sequences, found.tokens, found.ids) == (3, 12, 3)
    assert found.distinct == pytest.approx(7 / 3) and found.distinct_median == 2
    assert found.duplicates == pytest.approx(1 / 3)
    assert found.repeated is found.still is None
    p = [6 / 12, 5 / 12, 1 / 12]
    assert found.unigram_bits == pytest.approx(-sum(q * math.log2(q) for q in p))


def test_delimiters_do_not_count() -> None:
    """Frames of three patches between 90 and 91, the last one cut."""
    tokens = np.array(
        [[90, 1, 2, 3, 91, 90, 1, 2, 4, 91, 90, 7, 2], [90, 5, 5, 5, 91, 90, 5, 5, 5, 91, 90, 5, 6]], np.int32
    )
    found = describe(tokens, 5)
    assert (found.tokens, found.ids) == (16, 7)
    assert found.distinct == (5 + 2) / 2
    assert found.repeated == (2 + 1 + 3 + 1) / 10  # the cut frame is compared as far as it goes
    assert found.still == 0.5


def test_one_frame_repeats_nothing() -> None:
    found = describe(np.array([[90, 1, 2, 91, 90]], np.int32), 4)
    assert found.repeated is found.still is None
    assert describe(np.array([[90, 1, 2, 91, 90, 1]], np.int32), 4).repeated == 1.0


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("ids", [50, 5000])
def test_the_slope_of_a_power_law_is_its_exponent(exponent: float, ids: int) -> None:
    counts = 1e9 * np.arange(1, ids + 1) ** -exponent
    counts[statistics.RANKS :] = 1  # what lies beyond the fitted ranks changes nothing
    assert statistics.zipf_slope(counts) == pytest.approx(-exponent)


def test_few_ids_have_no_slope() -> None:
    assert describe(np.array([[0, 1, 0, 1]], np.int32), None).zipf_slope is None


def test_uniform_tokens_have_the_entropy_of_their_alphabet() -> None:
    assert describe(np.arange(4096, dtype=np.int32).reshape(16, 256), None).unigram_bits == pytest.approx(12)


MEASURED = {  # duplicates, fixed point at the end, bits, slope, distinct (median), repeated; each with its rounding
    None: [(0.092, 1e-3), (0.142, 1e-3), (10.96, 0.01), (-0.76, 0.01), (225, 1), (0.203, 1e-3)],
    (0.2, 0.3): [(0, 0), (0.090, 1e-3), (9.18, 0.01), (-1.17, 0.01), (43, 1), (0.246, 1e-3)],
    (0.3, 0.4): [(0, 0), (0.033, 1e-3), (10.38, 0.01), (-0.91, 0.01), (95, 1), (0.136, 1e-3)],
    (0.4, 0.5): [(0, 0), (0.007, 1e-3), (11.46, 0.01), (-0.73, 0.01), (187, 1), (0.054, 1e-3)],
    (0.5, 1.0): [(0, 0), (0.0009, 1e-4), (12.64, 0.01), (-0.53, 0.01), (427, 1), (0.010, 1e-3)],
}
"""By band, of 1,024-token sequences of the paper's automata, temperature 0: what another implementation measured."""


def numbers(found: Statistics) -> list[float]:
    assert found.still is not None and found.zipf_slope is not None and found.repeated is not None
    slope, median = found.zipf_slope, found.distinct_median
    return [found.duplicates, found.still, found.unigram_bits, slope, median, found.repeated]


@pytest.mark.slow
@pytest.mark.parametrize("band", MEASURED)
def test_bands_have_the_statistics_measured_before(band: tuple[float, float] | None) -> None:
    """8,192 sequences. Both sides are samples of rules, so they may differ by 4 standard errors of a difference of two
    samples of this size, 4 sqrt(2) se, and by half a unit of the rounding. se comes from the spread of 16 batches."""
    tokens, _ = NCA(band=band).open().sequences(0, np.arange(8192), 1024)
    whole = numbers(describe(tokens, 38))
    batches = np.array([numbers(describe(batch, 38)) for batch in np.split(tokens, 16)])
    error = batches.std(0, ddof=1) / 4
    for name, value, se, (measured, unit) in zip(
        ("duplicates", "still", "bits", "slope", "distinct", "repeated"), whole, error, MEASURED[band], strict=True
    ):
        if name == "duplicates":  # a batch has fewer pairs: binomial
            se = (value * (1 - value) / len(tokens)) ** 0.5
        assert abs(value - measured) <= 4 * 2**0.5 * se + unit / 2, name
