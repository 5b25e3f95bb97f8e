"""pass@k, chance at k and their intervals, against cases worked out by hand and by counting."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InputError
from harness.reasoning.chance import chance, normalised
from harness.reasoning.passk import ks, pass_at_k, rate, wilson


def test_pass_at_k_of_cases_worked_out_by_hand() -> None:
    # n = 5, c = 2: 1 - C(3, k) / C(5, k) is 2/5, 1 - 3/10, 1 - 1/10, 1, 1.
    want = [0.4, 0.7, 0.9, 1.0, 1.0]
    assert [float(pass_at_k(5, 2, k)) for k in range(1, 6)] == pytest.approx(want, abs=1e-15)
    assert pass_at_k([10, 10, 4], [0, 10, 1], 4).tolist() == [0.0, 1.0, 1.0]


@given(n=st.integers(1, 8), data=st.data())
def test_it_is_the_share_of_the_subsets_that_hold_a_right_one(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([i < c for i in range(n)], k))
    assert float(pass_at_k(n, c, k)) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@given(k=st.integers(1, 12), p=st.floats(0.01, 0.99))
def test_it_is_unbiased(k: int, p: float) -> None:
    n = 12
    c = np.arange(n + 1)
    binomial = np.array([math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in c])
    assert float((binomial * pass_at_k(n, c, k)).sum()) == pytest.approx(1 - (1 - p) ** k, abs=1e-9)


def test_many_samples_do_not_overflow() -> None:
    assert float(pass_at_k(100_000, 1, 1000)) == pytest.approx(0.01, rel=1e-9)
    assert float(pass_at_k(100_000, 0, 1000)) == 0.0


@pytest.mark.parametrize(
    ("n", "c", "k", "why"),
    [
        ([8, 4], [1, 1], 5, "k = 5: a problem has 4 samples"),
        (4, 1, 0, "k = 0"),
        (4, 5, 1, "correct = 5"),
        (4, -1, 1, "correct = -1"),
        (4.0, 1, 1, "samples = 'float64'"),
        (np.array([], int), np.array([], int), 1, "at least one problem"),
    ],
)
def test_what_cannot_be_estimated_is_refused(n: Any, c: Any, k: int, why: str) -> None:
    with pytest.raises(InputError, match=why):
        pass_at_k(n, c, k)


def test_a_uniform_guesser_among_four_reads_nothing_at_every_k() -> None:
    guesser = {k: 1 - 0.75**k for k in (1, 2, 4)}
    assert [float(normalised(guesser[k], chance(4, k))) for k in guesser] == pytest.approx([0, 0, 0], abs=1e-12)
    # With the chance of one guess under every k, as others have done, it seems to know something.
    assert [round(float(normalised(guesser[k], chance(4))), 2) for k in guesser] == [0, 0.25, 0.58]


@given(m=st.integers(2, 20), k=st.integers(1, 50))
def test_chance_is_between_one_guess_and_certainty(m: int, k: int) -> None:
    assert 1 / m - 1e-12 <= float(chance(m, k)) <= 1
    assert float(chance(m)) == pytest.approx(1 / m)
    assert float(normalised(1.0, chance(m, k))) == pytest.approx(1.0)


def test_guesses_are_among_two_at_least() -> None:
    with pytest.raises(InputError, match="a choice is among at least 2"):
        chance([4, 1])


def test_intervals_against_known_values() -> None:
    # 8 of 10: mean .8, standard error .4216 / sqrt(10), t(9) = 2.2622
    found = rate([1] * 8 + [0] * 2)
    assert (found.mean, found.problems) == (0.8, 10)
    assert found.low == pytest.approx(0.8 - 2.2622 * 0.42164 / 10**0.5, abs=1e-4)
    assert found.high == 1.0
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    # No right answer among 10 problems is no certainty: Wilson's upper bound is z^2 / (n + z^2).
    assert rate([0.0] * 10)[:3] == pytest.approx((0, 0, 3.8415 / 13.8415), abs=1e-4)
    with pytest.raises(InputError, match="at least one problem"):
        rate([])


def test_ks() -> None:
    assert [ks(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]
