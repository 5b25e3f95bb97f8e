"""The learning rate of a step."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.schedule import lr_at
from harness.sources.nca import NCA
from harness.specs import Corpus, Llama, Recipe, Train

STEP = 8 * 32


def stage(steps: int = 100, **recipe: Any) -> Train:
    model = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
    return Train(Corpus(NCA(grid=8)), steps * STEP, model, Recipe(**({"lr": 0.5, "batch": 8} | recipe)))


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_warmup_rises_evenly_to_the_full_rate(schedule: Any) -> None:
    spec = stage(warmup=10 * STEP, schedule=schedule)
    assert [lr_at(spec, s) for s in range(10)] == pytest.approx([0.05 * (s + 1) for s in range(10)])
    assert lr_at(spec, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_both_schedules_end_at_the_final_rate_and_stay_there(schedule: Any, final: float) -> None:
    spec = stage(warmup=10 * STEP, schedule=schedule, final_lr=final)
    assert lr_at(spec, 100) == pytest.approx(0.5 * final)
    assert lr_at(spec, 200) == pytest.approx(0.5 * final)


def test_cosine_is_half_way_at_the_middle() -> None:
    spec = stage(warmup=20 * STEP, final_lr=0.2)
    assert lr_at(spec, 60) == pytest.approx(0.5 * 0.6)
    assert lr_at(spec, 40) == pytest.approx(0.5 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))))


def test_wsd_is_constant_and_then_falls_as_one_minus_the_root() -> None:
    spec = stage(warmup=10 * STEP, schedule="wsd", decay=0.2)
    assert {lr_at(spec, s) for s in range(10, 81)} == {0.5}
    for s in range(80, 100):
        assert lr_at(spec, s) == pytest.approx(0.5 * (1 - math.sqrt((s - 80) / 20)))


@given(
    steps=st.integers(1, 60),
    warmup=st.integers(0, 60),
    final=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "wsd"]),
    decay=st.floats(0.01, 1),
)
def test_a_rate_lies_between_zero_and_the_full_one_and_never_rises_again(
    steps: int, warmup: int, final: float, schedule: str, decay: float
) -> None:
    spec = stage(steps, warmup=warmup * STEP, final_lr=final, schedule=schedule, decay=decay)
    rates = [lr_at(spec, s) for s in range(steps)]
    assert all(0 < r <= 0.5 * (1 + 1e-12) for r in rates[: max(1, steps - 1)])
    fall = rates[warmup:]
    assert fall == sorted(fall, reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_a_stage_that_stops_before_its_horizon_is_the_beginning_of_the_whole(schedule: Any) -> None:
    whole = stage(100, warmup=10 * STEP, schedule=schedule)
    part = replace(whole, tokens=30 * STEP, recipe=replace(whole.recipe, horizon=whole.tokens))
    assert [lr_at(part, s) for s in range(30)] == [lr_at(whole, s) for s in range(30)]


def test_the_papers_checkpoint_ends_with_the_warmup() -> None:
    spec = stage(10, warmup=10 * STEP, horizon=100 * STEP)
    assert lr_at(spec, spec.steps - 1) == 0.5
