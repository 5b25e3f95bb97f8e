"""Stages on a CUDA device: what the CPU computes, gone on with where they were cut off, compiled or not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import stages
from harness.layout import Layout
from harness.reasoning import run
from harness.reasoning.spec import Evaluate, Means, resolved
from harness.reasoning.tasks import GSM8K
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer
from harness.store import Store
from harness.worker import Options, Worker, read_here
from tests.runs import KilledError, killed_at
from tests.test_evaluate import sums, table
from tests.test_loop import assert_close, curve

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # torch.compile warns of itself
]

EAGER = Options(Layout(compile=False), checkpoint_every_s=0)


def on_device(spec: Train, store: Store, options: Options = EAGER, killed: int | None = None) -> dict[str, Any]:
    stream = killed_at(killed, read_here())
    return stages.run_here(spec, store, Worker(device="cuda:0", options=options, stream=stream))


@pytest.fixture
def stores(tmp_path: Path) -> Any:
    return lambda name: Store(tmp_path / name)


def test_a_stage_computes_what_it_does_on_a_cpu(generated: Train, stores: Any) -> None:
    here, there = stages.run_here(generated, stores("cpu")), on_device(generated, stores("cuda"))
    assert_close(curve(generated, stores("cuda")), curve(generated, stores("cpu")), 1e-4)
    assert there["sequence_hash"] == here["sequence_hash"] and there["scales"] == here["scales"]
    assert there["hardware"]["gpu"] == torch.cuda.get_device_name()


def test_text_after_automata_computes_what_it_does_on_a_cpu(generated: Train, reading: Train, stores: Any) -> None:
    after = replace(reading, init=generated, transfer=Transfer(blocks="permuted"))
    for spec in (reading.corpus.source, generated, after):
        stages.run_here(spec, stores("cpu"))
    stages.run_here(reading.corpus.source, stores("cuda"))
    for spec in (generated, after):
        on_device(spec, stores("cuda"))
    assert_close(curve(after, stores("cuda")), curve(after, stores("cpu")), 1e-3)


def test_a_killed_stage_goes_on(generated: Train, stores: Any) -> None:
    on_device(generated, stores("whole"))
    for step in (0, 4, 5):
        with pytest.raises(KilledError):
            on_device(generated, stores("killed"), killed=step)
    assert stages.committed_step(generated, stores("killed")) == 5
    on_device(generated, stores("killed"))
    assert_close(curve(generated, stores("killed")), curve(generated, stores("whole")), 1e-5)


def test_micro_batches_recomputation_and_compiled_blocks_change_no_result(generated: Train, stores: Any) -> None:
    on_device(generated, stores("whole"))
    for layout in (
        Layout(micro_batch=3, compile=False),
        Layout(recompute=True, compile=False),
        Layout(compile=True),
        Layout(micro_batch=3, recompute=True, compile=True),
    ):
        name = f"{layout.micro_batch} {layout.recompute} {layout.compile}"
        on_device(generated, stores(name), Options(layout))
        assert_close(curve(generated, stores(name)), curve(generated, stores("whole")), 1e-4)


def test_bfloat16_is_float32_but_for_rounding(generated: Train, stores: Any) -> None:
    half = replace(generated, recipe=replace(generated.recipe, precision="bf16"))
    whole, compiled = on_device(generated, stores("fp32")), on_device(half, stores("bf16"), Options())
    assert compiled["layout"]["compile"] is True
    assert compiled["held_out"]["loss_nats"] == pytest.approx(whole["held_out"]["loss_nats"], rel=2e-2)


def test_attention_dropout_trains(generated: Train, store: Store) -> None:
    spec = replace(generated, recipe=replace(generated.recipe, attention_dropout=0.1))
    assert on_device(spec, store)["status"] == "finished"


def test_answers_are_those_of_a_cpu(text: Any, reading: Train, tmp_path: Path, stores: Any) -> None:
    shape: Llama = replace(reading.model, context=96, tied=False)
    recipe = Recipe(lr=1e-2, batch=8)
    spec = Train(Corpus(text.resolved(), 1), 4 * 8 * 96, shape, recipe, evaluation=Evaluation(points=2, sequences=4))
    for name in ("cpu", "cuda"):
        stages.run_here(spec.corpus.source, stores(name))
        stages.run_here(spec, stores(name))
    asked = Evaluate(spec, resolved(GSM8K(table(tmp_path / "asked.jsonl", sums(5)), None, max_tokens=12)))
    there = run.evaluate(asked, stores("cuda"), Means(rows=4, device="cuda:0"))
    here = run.evaluate(asked, stores("cpu"), Means(rows=4))
    assert (there["hardware"]["gpu"], here["hardware"]["gpu"]) == (torch.cuda.get_device_name(), None)
    assert there["scores"]["answer_nats"] == pytest.approx(here["scores"]["answer_nats"], rel=1e-4)
