"""The training loop and the stages around it: what a run computes, and that one that was killed computes it too."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from harness import loop, metrics, model, resume, stages
from harness.errors import InputError
from harness.sources.copying import Copy
from harness.sources.dyck import Dyck
from harness.sources.iid import IID
from harness.sources.nca import NCA
from harness.sources.shuffled import Shuffled
from harness.specs import Corpus, Recipe, Sequences, Source, Train, Transfer, digest
from harness.store import Store
from harness.worker import Batch, Stream, Worker, read_here

CLOCKS = ("tokens_per_s", "data_wait", "train_s", "wait_s", "wall_s", "device_s")


def run(stage: Any, store: Store, **worker: Any) -> dict[str, Any]:
    """Run `stage` and, where it has one, the text that it reads."""
    source: Any = stage.corpus.source if isinstance(stage, Train) else stage
    if source is not stage and source.stored and store.open(digest(source)) is None:
        stages.run_here(source, store)
    return stages.run_here(stage, store, Worker(**worker))


def artifact(stage: Train, store: Store) -> Path:
    attempt = store.open(digest(stage))
    assert attempt is not None
    return attempt


def curve(stage: Train, store: Store) -> list[dict[str, Any]]:
    """The rows, without what clocks say."""
    rows = [json.loads(line) for line in (artifact(stage, store) / "curve.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]


def assert_close(got: list[dict[str, Any]], want: list[dict[str, Any]], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        assert {k for k, v in a.items() if v is None} == {k for k, v in b.items() if v is None}
        for name in (k for k, v in b.items() if v is not None):
            assert a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance), (b["step"], name)


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(params=["generated", "reading"])
def spec(request: pytest.FixtureRequest) -> Train:
    """A stage on automata, and one on text."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def places(tmp_path: Path) -> Callable[[str], Store]:
    return lambda name: Store(tmp_path / name)


# ---- what a run computes


def test_loss_falls_and_the_curve_says_how(spec: Train, store: Store) -> None:
    manifest = run(spec, store)
    rows = curve(spec, store)
    assert manifest["status"] == "finished"
    assert [row["step"] for row in rows] == spec.evaluation.steps(spec.steps)
    assert [row["tokens"] for row in rows] == [row["step"] * spec.step_tokens for row in rows]
    assert rows[0]["loss_nats"] == pytest.approx(math.log(spec.vocab_size), abs=0.3)  # before training
    assert rows[0]["train_loss_nats"] is None
    assert rows[-1]["loss_nats"] < rows[0]["loss_nats"] - 0.3
    assert rows[-1]["train_loss_nats"] == pytest.approx(rows[-1]["loss_nats"], abs=0.5)
    on_text = spec.corpus.source.stored
    assert all((row["loss_bits_per_byte"] is not None) == on_text for row in rows)
    assert all((row["induction_nats"] is not None) == on_text for row in rows)


def test_the_manifest_says_what_was_run(spec: Train, store: Store) -> None:
    manifest = run(spec, store)
    assert manifest == store.manifest(digest(spec))
    assert manifest["digest"] == digest(spec)
    assert (manifest["tokens"], manifest["flops"]) == (spec.tokens, spec.flops)
    assert manifest["sequences"] == spec.steps * spec.recipe.batch
    assert (manifest["world"], manifest["threads"], manifest["executed"]) == (1, 1, "in_process")
    assert manifest["scales"] == pytest.approx({"embeddings_std": 0.1, "blocks_std": 0.1}, rel=0.1)
    assert manifest["params"] == sum(t.numel() for t in stages.read_weights(store, digest(spec)).values())
    assert set(manifest["parents"]) == ({"tokens"} if spec.corpus.source.stored else set())
    assert store.damage(digest(spec)) == []


def test_a_generated_stage_says_what_it_would_take_to_have_learnt_it(generated: Train, store: Store) -> None:
    held_out = run(generated, store)["held_out"]
    assert 0 < held_out["ngram2_nats"] <= held_out["unigram_nats"] + 0.1 < math.log(generated.vocab_size)
    assert len(held_out["loss_by_frame"]) == len(held_out["accuracy_by_frame"]) == 6
    assert held_out["loss_by_frame"][0] is None
    assert held_out["targets"] < 16 * 32  # patch tokens after the first frame
    pictures = np.load(artifact(generated, store) / "frames.npz")
    assert pictures["frames"].shape == (stages.PICTURES, stages.PICTURE_FRAMES, 4, 4)
    assert pictures["scores"].shape == (stages.PICTURES,)


CONTROLS = [
    Shuffled(NCA(states=2, grid=4)),
    IID(NCA(states=2, grid=4), sample=64, sample_context=32),
    IID(Copy(8, (2, 6)), sample=64, sample_context=32),
    Copy(8, (2, 6)),
    Dyck(4),
    Dyck(4, depth=3, interleaved=True, length=8),
]


@pytest.mark.parametrize("source", CONTROLS, ids=["shuffled", "iid with frames", "iid", "copy", "dyck", "shuffle dyck"])
def test_a_stage_on_any_control_runs_and_says_what_it_would_take_to_have_learnt_it(
    source: Source, generated: Train, store: Store
) -> None:
    spec = replace(generated, corpus=Corpus(source, 3), tokens=4 * 8 * 32)
    manifest = run(spec, store)
    held_out = manifest["held_out"]
    assert manifest["status"] == "finished"
    assert 0 < held_out["ngram2_nats"] < 2 * math.log(spec.vocab_size)
    assert 0 < held_out["unigram_nats"] < math.log(spec.vocab_size) + 0.1
    assert (held_out["copy_nats"] is None) == (source.frame_tokens is None)
    assert 0 < held_out["targets"] <= 16 * 32
    assert (manifest["acceptance"], (artifact(spec, store) / "frames.npz").exists()) == (None, False)


def test_two_runs_are_bit_equal(spec: Train, places: Callable[[str], Store]) -> None:
    first, second = places("first"), places("second")
    run(spec, first)
    run(spec, second)
    assert curve(spec, first) == curve(spec, second)
    assert same_weights(stages.read_weights(first, digest(spec)), stages.read_weights(second, digest(spec)))


def test_the_sequences_are_those_of_the_source(spec: Train, store: Store) -> None:
    manifest = run(spec, store)
    reader = stages.open_reader(spec, store)
    total = 0
    for index in range(spec.steps * spec.recipe.batch):  # every sequence of the budget, exactly once
        inputs, _ = reader.sequences(spec.corpus.seed, np.array([index]), spec.model.context)
        row = index.to_bytes(8, "little") + inputs[0].astype("<i4").tobytes()
        total += int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little")
    assert manifest["sequence_hash"] == f"{total % 2**64:016x}"


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_micro_batches_change_nothing_but_rounding(
    generated: Train, places: Callable[[str], Store], micro: int
) -> None:
    whole, split = places("whole"), places("split")
    run(generated, whole)
    run(generated, split, micro_batch=micro)
    assert_close(curve(generated, split), curve(generated, whole), 1e-4)


def test_precision_is_the_recipes(generated: Train, places: Callable[[str], Store]) -> None:
    half = replace(generated, recipe=replace(generated.recipe, precision="bf16"))
    run(generated, places("fp32"))
    run(half, places("bf16"))
    fp32, bf16 = curve(generated, places("fp32"))[-1], curve(half, places("bf16"))[-1]
    assert fp32["loss_nats"] != bf16["loss_nats"]
    assert fp32["loss_nats"] == pytest.approx(bf16["loss_nats"], abs=0.05)
    weights = stages.read_weights(places("bf16"), digest(half))
    assert {t.dtype for t in weights.values()} == {torch.float32}


def test_weight_decay_is_on_matrices_alone(generated: Train) -> None:
    net = model.build(generated.model, generated.vocab_size)
    groups = loop.make_optimizer(generated, net).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {n for n, p in net.named_parameters() if id(p) not in decayed} == {
        n for n in model.weights(net) if model.module_of(n) == "norms"
    }


# ---- killed and run again


class KilledError(Exception):
    pass


def killed_at(step: int) -> Stream:
    """A stream that ends as a killed process does, when `step` asks for its batch."""

    def stream(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
        for i, batch in enumerate(read_here()(spec, reader, first_step), first_step):
            if i == step:
                raise KilledError
            yield batch

    return stream


def kill(spec: Train, store: Store, step: int) -> None:
    with contextlib.suppress(KilledError):
        run(spec, store, stream=killed_at(step), checkpoint_every_s=0)
        pytest.fail("was not killed")


def assert_equal_runs(spec: Train, whole: Store, resumed: Store) -> None:
    assert curve(spec, resumed) == curve(spec, whole)
    assert same_weights(stages.read_weights(resumed, digest(spec)), stages.read_weights(whole, digest(spec)))
    a, b = whole.manifest(digest(spec)), resumed.manifest(digest(spec))
    assert a is not None and b is not None
    for name in ("sequence_hash", "sequences", "tokens", "held_out", "scales"):
        assert a[name] == b[name], name


def test_a_killed_run_goes_on_as_if_it_had_not_been(spec: Train, places: Callable[[str], Store]) -> None:
    whole, resumed = places("whole"), places("resumed")
    run(spec, whole)
    for step in (0, 3, 4, 11):
        kill(spec, resumed, step)
        assert stages.committed_step(spec, resumed) == step
        assert resumed.open(digest(spec)) is None
    run(spec, resumed)
    assert_equal_runs(spec, whole, resumed)
    assert stages.committed_step(spec, resumed) == 0  # what was kept to resume from is gone


def test_a_run_killed_while_it_reports_goes_on(generated: Train, places: Callable[[str], Store]) -> None:
    whole, resumed = places("whole"), places("resumed")
    run(generated, whole)
    at = generated.evaluation.steps(generated.steps)[2]

    def report(row: dict[str, Any]) -> None:
        if row["step"] == at:
            raise KilledError

    with pytest.raises(KilledError):
        run(generated, resumed, report=report, checkpoint_every_s=0)
    assert stages.committed_step(generated, resumed) == at - 1
    run(generated, resumed)
    assert_equal_runs(generated, whole, resumed)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(spec: Train, places: Callable[[str], Store]) -> None:
    whole, resumed = places("whole"), places("resumed")
    run(spec, whole)
    kill(spec, resumed, 7)
    newest = next(resume.newest_first(resumed.resume(digest(spec))))
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x55")
    assert stages.committed_step(spec, resumed) == 6
    run(spec, resumed)
    assert_equal_runs(spec, whole, resumed)


def test_resuming_with_other_micro_batches_is_allowed(generated: Train, places: Callable[[str], Store]) -> None:
    whole, resumed = places("whole"), places("resumed")
    run(generated, whole)
    kill(generated, resumed, 5)
    run(generated, resumed, micro_batch=2)
    assert_close(curve(generated, resumed), curve(generated, whole), 1e-4)


# ---- from one stage to the next


def test_a_stage_starts_where_the_one_before_it_ended(generated: Train, store: Store) -> None:
    later = replace(generated, seed=6).after(generated, Transfer(reinit=()))
    run(generated, store)
    manifest = run(later, store)
    assert curve(later, store)[0]["loss_nats"] == pytest.approx(curve(generated, store)[-1]["loss_nats"], rel=1e-6)
    assert manifest["parents"] == {"init": digest(generated)}


def test_a_chain_from_automata_to_text_runs(generated: Train, reading: Train, store: Store) -> None:
    for transfer in (Transfer(), Transfer(blocks="permuted"), Transfer(blocks="resampled")):
        spec = reading.after(generated, transfer)
        if store.open(digest(generated)) is None:
            run(generated, store)
        assert run(spec, store)["status"] == "finished"


@pytest.mark.parametrize("tied", [True, False])
def test_published_weights_are_a_model_of_transformers(reading: Train, store: Store, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    spec = replace(reading, model=replace(reading.model, tied=tied))
    run(spec, store)
    reader = stages.open_reader(spec, store)
    data = metrics.HeldOut(*reader.held_out(spec.evaluation.sequences, spec.model.context), reader.token_bytes)
    loaded = AutoModelForCausalLM.from_pretrained(artifact(spec, store) / "weights")
    assert loaded.config.tie_word_embeddings == tied
    sums = metrics.evaluate(loaded, data, "fp32", 0, 1, "cpu", 16)
    assert sums.loss_nats == pytest.approx(curve(spec, store)[-1]["loss_nats"], rel=1e-6)
    own = model.build(spec.model, spec.vocab_size)
    own.load_state_dict(stages.read_weights(store, digest(spec)), strict=not tied)
    tokens = torch.from_numpy(data.inputs[:2]).long()
    assert torch.equal(model.logits(own.eval(), tokens, "fp32"), model.logits(loaded.eval(), tokens, "fp32"))


# ---- what goes wrong


def test_a_loss_that_is_not_finite_ends_the_stage_as_diverged(generated: Train, store: Store) -> None:
    spec = replace(generated, recipe=Recipe(lr=1e30, batch=8))
    manifest = run(spec, store)
    assert manifest["status"] == "diverged"
    assert manifest["tokens"] < spec.tokens
    assert not (artifact(spec, store) / "weights").exists()
    text = (artifact(spec, store) / "curve.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert curve(spec, store)[0]["loss_nats"] is not None
    assert curve(spec, store)[-1]["loss_nats"] is None
    assert manifest["held_out"]["loss_nats"] is None


def test_a_budget_beyond_the_epochs_is_refused_before_training(reading: Train, store: Store) -> None:
    run(reading.corpus.source, store)
    reader = stages.open_reader(reading, store)
    epoch = reader.epoch(reading.model.context)
    assert epoch is not None and epoch >= reading.steps * reading.recipe.batch
    steps = 2 * epoch // reading.recipe.batch + 1
    spec = replace(reading, tokens=steps * reading.step_tokens)
    trained: list[dict[str, Any]] = []
    with pytest.raises(InputError, match=rf"^Train\.tokens = {spec.tokens}: .*Corpus\(epochs=3\)$") as refused:
        run(spec, store, report=trained.append)
    assert "\n" not in str(refused.value)
    assert trained == []
    assert store.open(digest(spec)) is None
    stages.check_budget(replace(spec, corpus=replace(spec.corpus, epochs=3)), reader)
    with pytest.raises(InputError):
        stages.check_budget(replace(spec, corpus=replace(spec.corpus, epochs=2)), reader)


def test_generated_sequences_have_no_epoch(generated: Train, store: Store) -> None:
    stages.check_budget(replace(generated, tokens=10**15), stages.open_reader(generated, store))


def shifted(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
    return read_here()(spec, reader, first_step + 1)


def short(spec: Train, reader: Sequences, first_step: int) -> Iterator[Batch]:
    for batch, _ in zip(read_here()(spec, reader, first_step), range(5), strict=False):
        yield batch


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (shifted, "step 0 got sequences"),
        (short, "the data ended after step 5 of 12"),
        (read_here(0, 2), "step 0 got sequences"),
    ],
    ids=["shifted", "short", "half"],
)
def test_data_that_is_not_the_stages_is_never_trained_on(
    generated: Train, store: Store, stream: Stream, message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        run(generated, store, stream=stream)
    assert store.open(digest(generated)) is None


# ---- several ranks


def rank(number: int, world: int, spec: Train, root: Path) -> None:
    """One of `world` processes of a stage, on gloo."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{root / 'rendezvous'}", rank=number, world_size=world
    )
    stages.run_train(spec, Store(root), Worker(rank=number, world=world, stream=read_here(number, world)))
    torch.distributed.destroy_process_group()


def test_two_ranks_compute_what_one_does(generated: Train, places: Callable[[str], Store]) -> None:
    one, two = places("one"), places("two")
    two.root.mkdir()
    run(generated, one)
    spawn(rank, (2, generated, two.root), nprocs=2)
    assert_close(curve(generated, two), curve(generated, one), 1e-5)
    alone, shared = one.manifest(digest(generated)), two.manifest(digest(generated))
    assert alone is not None and shared is not None
    assert shared["world"] == 2
    assert shared["sequence_hash"] == alone["sequence_hash"]
    weights = [stages.read_weights(store, digest(generated)) for store in (one, two)]
    for name in weights[0]:
        assert torch.allclose(weights[0][name], weights[1][name], atol=1e-3), name
