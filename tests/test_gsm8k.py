"""How answers are read from worked solutions, and where shots come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InputError
from harness.reasoning.gsm8k import answer_of, solved_problems
from harness.reasoning.tasks import GSM8K


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("She has 48/2 = 24 clips.\n#### 72", "72", "72"),
        ("#### 1,234", "1234", "1234"),
        ("#### 1,234,567.50", "1234567.5", "1234567.5"),
        ("#### -3", "-3", "-3"),
        ("#### +3", "3", "3"),
        ("#### \N{MINUS SIGN}12", "-12", "-12"),
        ("#### $18", "18", "18"),
        ("#### -$5", "-5", "-5"),
        ("#### 18.00", "18", "18"),
        ("#### .5", "0.5", "0.5"),
        ("#### 0012", "12", "12"),
        ("#### -0", "0", "0"),
        ("#### 72.", "72", "72"),
        ("#### 5 apples\n#### 7", "5", "5"),
        ("####10", "10", "10"),
        ("#### 10%", "10", "10"),
        ("#### the answer is 4", None, "4"),
        ("####", None, None),
        ("", None, None),
        ("The answer is 42.", None, "42"),
        ("First 3, then 10-3 = 7", None, "7"),
        ("it is 10-3", None, "3"),
        ("so -3", None, "-3"),
        ("no number", None, None),
        ("costs $1,200 and $3", None, "3"),
        ("1,2345", None, "2345"),
    ],
)
def test_answers_are_read_as_people_write_them(text: str, marked: str | None, last: str | None) -> None:
    assert answer_of(text) == marked
    assert answer_of(text, "last_number") == last


@given(value=st.integers(-(10**9), 10**9), decimals=st.integers(0, 3))
def test_any_way_to_write_a_number_is_the_same_answer(value: int, decimals: int) -> None:
    written = f"{value:,}" + (f".{'0' * decimals}" if decimals else "")
    assert answer_of(f"so it is\n#### {written}") == str(value)
    assert answer_of(f"it is {written}", "last_number") == str(value)


def rows(*names: str) -> list[dict[str, str]]:
    return [{"question": f"How many {name}?", "answer": "#### 1"} for name in names]


def test_shots_are_of_the_training_split_and_depend_on_the_seed() -> None:
    train, test = rows(*"abcdefgh"), rows("x", "y")
    chosen = [solved_problems(train, test, 3, seed) for seed in range(6)]
    assert chosen[0] == solved_problems(train, test, 3, 0)
    assert len({repr(each) for each in chosen}) > 3
    assert all(row in train for each in chosen for row in each)
    assert solved_problems(train, test, 5, 0)[:3] == chosen[0]
    assert solved_problems(train, test, 0, 0) == []


def test_a_test_problem_as_a_shot_is_refused() -> None:
    # The release takes its shots from the test split.
    train = rows("a", "b")
    for test in (rows("a"), [{"question": "how  many A?\n", "answer": "#### 1"}]):
        with pytest.raises(InputError, match=r"shots = 2: 'How many a\?' is a test problem"):
            solved_problems(train, test, 2, 0)
    with pytest.raises(InputError, match="shots = 3: there are 2 training problems"):
        solved_problems(train, [], 3, 0)
    with pytest.raises(InputError, match=r"GSM8K\.train = .*: is the test split"):
        GSM8K(train=GSM8K().test)
