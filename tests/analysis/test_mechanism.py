"""Curves made by one picture are recognised as that picture, with their parameter, with and without noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.metrics.mechanism import (
    KINDS,
    LEAST_POINTS,
    MECHANISM_COLUMNS,
    UNDECIDED,
    Mechanism,
    mechanism_table,
    triage,
)
from analysis.metrics.smoothing import Curve, smooth
from analysis.results import Results

from .synthetic_store import GRID, Store, law

TEXT = 1_000_000
TOKENS = np.round(GRID * TEXT)
WIDE = np.round(np.geomspace(1e3, 1e8, 400))
"""Tokens at which the law is as good as known."""

MADE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "multiplier": lambda tokens, p: law(p * tokens),
    "offset": lambda tokens, p: law(tokens + p),
    "vertical": lambda tokens, p: law(tokens) - p,
}


def baseline(noise: np.ndarray | float = 0.0) -> Curve:
    found = smooth(TOKENS, law(TOKENS) + noise)
    assert found is not None
    return found


def exact() -> Curve:
    """The law itself over the same tokens, so that only the picture is tested."""
    x = np.linspace(math.log(TOKENS[0]), math.log(TOKENS[-1]), 4096)
    return Curve(x, law(np.exp(x)))


def recognised(kind: str, parameter: float) -> Mechanism:
    found = triage([exact()], [(TOKENS, MADE[kind](TOKENS, parameter))])
    assert found is not None
    assert found.best == kind
    assert found.daic[kind] == 0 and all(v >= 2 for k, v in found.daic.items() if k != kind)
    return found


@settings(deadline=None, max_examples=15)
@given(st.one_of(st.floats(0.4, 0.8), st.floats(1.25, 3.0)))
def test_a_multiplier_is_recognised(speedup: float) -> None:
    found = recognised("multiplier", speedup)
    assert found.parameter["multiplier"] == pytest.approx(speedup, rel=1e-3)
    assert found.rms_nats["multiplier"] < 1e-4


@settings(deadline=None, max_examples=15)
@given(st.floats(5e4, 5e5))
def test_an_offset_is_recognised(more: float) -> None:
    found = recognised("offset", more)
    assert found.parameter["offset"] == pytest.approx(more, rel=1e-3)
    assert found.rms_nats["offset"] < 1e-4


@settings(deadline=None, max_examples=15)
@given(st.one_of(st.floats(0.02, 0.3), st.floats(-0.3, -0.02)))
def test_a_vertical_shift_is_recognised(shift: float) -> None:
    found = recognised("vertical", shift)
    assert found.parameter["vertical"] == pytest.approx(shift, rel=1e-3)
    assert found.rms_nats["vertical"] < 1e-4


@pytest.mark.parametrize(("kind", "parameter"), [("multiplier", 1.6), ("offset", 2e5), ("vertical", 0.12)])
def test_noise_does_not_change_the_picture(kind: str, parameter: float) -> None:
    rng, hits, estimates = np.random.default_rng(0), 0, []
    for _ in range(20):
        curves, runs = [], []
        for _ in range(5):
            noise = rng.normal(0, 0.008) + rng.normal(0, 0.006, (2, len(TOKENS)))
            curves.append(baseline(noise[0]))
            runs.append((TOKENS, MADE[kind](TOKENS, parameter) + noise[1]))
        found = triage(curves, runs)
        assert found is not None
        hits += found.best == kind
        estimates.append(found.parameter[kind])
    assert hits >= 18
    assert np.mean(estimates) == pytest.approx(parameter, rel=0.03)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(KINDS), st.floats(-0.4, 0.4))
def test_residuals_are_what_the_picture_leaves(kind: str, shift: float) -> None:
    found = triage([baseline()], [(TOKENS, law(1.2 * TOKENS) + shift * 0.1)])
    assert found is not None
    residual = found.residuals[kind]
    assert residual.shape == found.tokens.shape
    assert found.rms_nats[kind] == pytest.approx(math.sqrt((residual**2).mean()))
    at, p = np.log(found.tokens), found.parameter
    pictures = {
        "multiplier": baseline().at(at + math.log(p["multiplier"])),
        "offset": baseline().at(np.log(found.tokens + p["offset"])),
        "vertical": baseline().at(at) - p["vertical"],
    }
    treated = law(1.2 * found.tokens) + shift * 0.1
    assert residual == pytest.approx(treated - pictures[kind], abs=1e-9)  # never NaN: the baseline is not extrapolated


def test_where_there_is_no_effect_no_picture_is_named() -> None:
    found = triage([exact()], [(TOKENS, law(TOKENS))])
    assert found is not None
    assert found.best == UNDECIDED
    assert found.parameter["multiplier"] == pytest.approx(1, abs=1e-3)
    assert found.parameter["vertical"] == pytest.approx(0, abs=1e-3)


def test_an_arm_that_is_below_everything_cannot_be_read() -> None:
    assert triage([baseline()], [(TOKENS, np.full(len(TOKENS), 2.5))]) is None
    assert triage([baseline()], [(TOKENS[: LEAST_POINTS - 1], law(TOKENS[: LEAST_POINTS - 1]))]) is None
    assert triage([baseline()], [(np.array([0.0]), np.array([9.0]))]) is None


def test_an_arm_evaluated_at_other_tokens_is_read_as_well() -> None:
    at = np.round(np.geomspace(2e4, 9e5, 40))
    found = triage([exact()], [(at, law(1.5 * at)), (TOKENS, law(1.5 * TOKENS))])
    assert found is not None
    assert found.best == "multiplier" and found.parameter["multiplier"] == pytest.approx(1.5, rel=0.01)


def test_an_evaluation_before_the_first_step_or_not_finite_is_left_out() -> None:
    tokens, loss = np.r_[0.0, TOKENS], np.r_[8.0, law(1.5 * TOKENS)]
    loss[20] = np.nan
    found = triage([exact()], [(tokens, loss)])
    assert found is not None
    assert tokens[20] not in found.tokens and found.parameter["multiplier"] == pytest.approx(1.5, rel=1e-3)


def test_the_table_has_a_row_per_cell_that_can_be_read(store: Store) -> None:
    for seed in range(3):
        base = store.point("scratch", {"seed": seed}, [store.train(f"b {seed}", TEXT, law(TOKENS) + 0.01 * seed)])
        for arm, made in (("shift", law(TOKENS) - 0.1), ("times", law(1.6 * TOKENS))):
            digest = store.train(f"{arm} {seed}", TEXT, made + 0.01 * seed)
            store.point(arm, {"seed": seed}, [digest], base)
        longer = store.train(f"longer {seed}", 2 * TEXT, law(np.round(GRID * 2 * TEXT)) + 0.01 * seed)
        store.point("longer", {"seed": seed}, [longer], base)
        store.point("waits", {"seed": seed}, [store.train(f"waits {seed}", TEXT, [], done=False)], base)
    results = Results.from_store(store.register("s", ["seed"]), "s")
    table = mechanism_table(results.cells, results.labels)
    assert list(table.columns) == list(MECHANISM_COLUMNS)
    rows = table.set_index("arm")
    assert list(rows.index) == ["shift", "times", "longer"]
    assert rows.loc["shift", "best"] == "vertical" and rows.loc["shift", "shift_nats"] == pytest.approx(0.1, abs=2e-3)
    assert rows.loc["times", "best"] == "multiplier"
    assert rows.loc["times", "speedup_multiplier"] == pytest.approx(1.6, rel=0.01)
    assert rows.loc["longer", "best"] == "" and math.isnan(rows.loc["longer", "shift_nats"])
    assert (table["n_pairs"] == 3).all()
