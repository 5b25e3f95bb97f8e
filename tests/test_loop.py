"""The training loop and the stages around it: what a run computes, and that one that was killed computes it too."""

import contextlib
import hashlib
import json
import math
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness import layout, loop, metrics, model, resume, schedule, stages, tracking
from harness.errors import InputError
from harness.layout import Layout
from harness.sources.copying import Copy
from harness.sources.dyck import Dyck
from harness.sources.iid import IID
from harness.sources.nca import NCA
from harness.sources.shuffled import Shuffled
from harness.specs import Corpus, Recipe, Sequences, Source, Train, Transfer, digest
from harness.store import Store
from harness.worker import Batch, Options, Stream, Worker, read_here
from tests import runs
from tests.runs import KilledError, killed_at


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
    return runs.curve(store, digest(stage))


def assert_close(got: list[dict[str, Any]], want: list[dict[str, Any]], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        assert {k for k, v in a.items() if v is None} == {k for k, v in b.items() if v is None}
        for name in (k for k, v in b.items() if v is not None):
            got_values, want_values = ([v or 0.0 for v in x] if isinstance(x, list) else x for x in (a[name], b[name]))
            assert got_values == pytest.approx(want_values, rel=tolerance, abs=tolerance), (b["step"], name)


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
    assert [row["step"] for row in rows] == spec.evaluation_steps
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
    run(generated, split, options=Options(Layout(micro_batch=micro)))
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


def kill(spec: Train, store: Store, step: int) -> None:
    with contextlib.suppress(KilledError):
        run(spec, store, stream=killed_at(step, read_here()), options=Options(checkpoint_every_s=0))
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
    at = generated.evaluation_steps[2]

    def report(row: dict[str, Any]) -> None:
        if row["step"] == at:
            raise KilledError

    with pytest.raises(KilledError):
        run(generated, resumed, report=report, options=Options(checkpoint_every_s=0))
    assert stages.committed_step(generated, resumed) == at - 1
    run(generated, resumed)
    assert_equal_runs(generated, whole, resumed)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(spec: Train, places: Callable[[str], Store]) -> None:
    whole, resumed = places("whole"), places("resumed")
    run(spec, whole)
    kill(spec, resumed, 7)
    newest = Path(next(resume.newest_first(resumed.resume(digest(spec)))))
    tensors = next(newest.glob("shard-*"))
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x55")
    assert stages.committed_step(spec, resumed) == 6
    run(spec, resumed)
    assert_equal_runs(spec, whole, resumed)


def test_resuming_with_other_micro_batches_is_allowed(generated: Train, places: Callable[[str], Store]) -> None:
    whole, resumed = places("whole"), places("resumed")
    run(generated, whole)
    kill(generated, resumed, 5)
    run(generated, resumed, options=Options(Layout(micro_batch=2)))
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
    inputs, targets = (torch.from_numpy(a).long() for a in (data.inputs, data.targets))
    with torch.no_grad():
        theirs = loaded.eval()(input_ids=inputs).logits
    loss = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), targets.flatten())
    assert float(loss) == pytest.approx(curve(spec, store)[-1]["loss_nats"], rel=1e-6)
    own = model.build(spec.model, spec.vocab_size)
    own.load_state_dict(stages.read_weights(store, digest(spec)), strict=not tied)
    with torch.no_grad():
        assert torch.equal(model.logits(own.eval(), inputs, "fp32"), theirs)


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


# ---- what it tells


def test_every_row_says_how_fast_it_was_and_what_it_took(spec: Train, store: Store) -> None:
    manifest = run(spec, store)
    rows = [json.loads(line) for line in (artifact(spec, store) / "curve.jsonl").read_text().splitlines()]
    assert rows[0]["mfu"] is None and rows[0]["grad_norm"] is None
    assert all(row["grad_norm"] > 0 for row in rows[1:])
    flops = spec.model.flops_per_token(spec.io_width)
    for row in rows[1:]:
        assert row["mfu"] == pytest.approx(row["tokens_per_s"] * flops / manifest["peak_flops"])
        assert 2**20 < row["memory_bytes"] <= manifest["memory_bytes"]
    frames = spec.corpus.source.frame_tokens
    assert all(("accuracy_by_frame" in row) == (frames is not None) for row in rows)
    if frames is not None:
        assert rows[-1]["loss_by_frame"] == manifest["held_out"]["loss_by_frame"]
    assert manifest["layout"] == {"sharding": "ddp", "micro_batch": 8, "recompute": False, "compile": False}


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """It reads its environment once a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
def test_a_curve_is_mirrored_to_weights_and_biases_when_asked(
    generated: Train, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    manifest = run(generated, store, options=Options(wandb="a-project", study="a study"))
    assert manifest["notes"] == []
    (logged,) = tmp_path.glob(f"wandb/offline-run-*/run-{digest(generated)[:32]}.wandb")
    text = logged.read_bytes()
    for word in (b"a-project", b"a study", b"loss_nats", b"accuracy_by_frame/03", b"tokens"):
        assert word in text


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A server that knows no key, as W&B's does when one has expired; the requests that it got."""
    requests: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 the name is the library's

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("fresh_wandb")
def test_a_key_that_has_expired_is_told_once_a_study_and_costs_nothing(
    generated: Train, store: Store, refusing: list[str]
) -> None:
    said = store.scratch / "no-wandb.txt"
    options = Options(wandb="a-project", study="a study", wandb_trouble=said)
    manifest = run(generated, store, options=options)
    assert manifest["status"] == "finished"
    assert len(manifest["notes"]) == 1 and manifest["notes"][0].startswith("no Weights & Biases: ")
    asked = [path for path in refusing if path == "/graphql"]
    assert asked
    second = run(replace(generated, seed=6), store, options=options)
    assert second["status"] == "finished" and second["notes"] == []
    assert [path for path in refusing if path == "/graphql"] == asked
    assert tracking.trouble(said) == manifest["notes"][0]
    said.unlink()
    assert len(run(replace(generated, seed=7), store, options=options)["notes"]) == 1


# ---- settings


def test_dropout_is_drawn_by_sequence_whatever_the_batch_and_the_restarts(
    generated: Train, places: Callable[[str], Store]
) -> None:
    spec = replace(generated, recipe=replace(generated.recipe, attention_dropout=0.3))
    run(generated, places("without"))
    manifest = run(spec, places("with"))
    assert manifest["layout"]["micro_batch"] == 1
    assert curve(spec, places("with"))[0] == curve(generated, places("without"))[0]  # none in evaluation
    assert curve(spec, places("with"))[-1]["loss_nats"] != curve(generated, places("without"))[-1]["loss_nats"]
    kill(spec, places("resumed"), 5)
    run(spec, places("resumed"))
    assert_equal_runs(spec, places("with"), places("resumed"))
    other = replace(spec, seed=6)
    run(other, places("with"))
    assert curve(other, places("with"))[-1] != curve(spec, places("with"))[-1]


def test_a_wider_embedding_and_head_serve_two_vocabularies(generated: Train, reading: Train, store: Store) -> None:
    wide = replace(generated.model, io_width=320)
    first = replace(generated, model=wide)
    later = replace(reading, model=wide).after(first, Transfer(reinit=()))
    assert run(first, store)["params"] == wide.params(320)
    assert run(later, store)["status"] == "finished"
    weights = stages.read_weights(store, digest(later))
    assert weights["model.embed_tokens.weight"].shape == (320, 16)
    with pytest.raises(InputError, match=r"^Llama.io_width = 17: the corpus has a vocabulary of 18 tokens"):
        replace(generated, model=replace(wide, io_width=17))


# ---- bad input


def test_a_checkpoint_of_another_stage_is_refused_before_training(generated: Train, store: Store) -> None:
    kill(generated, store, 4)
    other = replace(generated, seed=6)
    shutil.copytree(store.resume(digest(generated)), store.resume(digest(other)))
    with pytest.raises(InputError, match=r"^checkpoint = .*: is of stage [0-9a-f]{64}, not of [0-9a-f]{64}; remove it"):
        run(other, store)
    assert stages.committed_step(generated, store) == 4


def test_weights_of_another_shape_are_refused_before_training(generated: Train, store: Store) -> None:
    later = replace(generated, seed=6).after(generated, Transfer(reinit=()))
    run(generated, store)
    weights = stages.read_weights(store, digest(generated))
    weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, artifact(generated, store) / "weights" / "model.safetensors")
    with pytest.raises(
        InputError, match=r"^weights of [0-9a-f]{12}: model.norm.weight = \(3,\): this stage needs \(16,\)"
    ):
        run(later, store)
    assert store.open(digest(later)) is None


def test_too_little_memory_is_told_before_training(
    generated: Train, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "machine_memory", lambda: 2.0**17)
    with pytest.raises(InputError, match=r"^memory = 0.00 GiB: a rank needs 0.00 GiB for even one sequence"):
        run(generated, store)
    assert store.open(digest(generated)) is None


def test_a_full_disk_costs_a_checkpoint_and_no_more(generated: Train, places: Callable[[str], Store]) -> None:
    whole, full = places("whole"), places("full")
    run(generated, whole)
    kill(generated, full, 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row: dict[str, Any]) -> None:
        """As if the disk were full from the second evaluation on, until the stage ends."""
        if row["step"] == generated.evaluation_steps[2]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with contextlib.suppress(KilledError):
            run(generated, full, report=fill, stream=killed_at(9, read_here()), options=Options(checkpoint_every_s=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 3 <= stages.committed_step(generated, full) < 9
    run(generated, full)
    assert_equal_runs(generated, whole, full)


def test_the_turns_of_the_schedule_are_kept(generated: Train, store: Store) -> None:
    recipe = replace(generated.recipe, schedule="wsd", warmup=2 * generated.step_tokens, decay=0.25)
    spec = replace(generated, recipe=recipe)
    assert schedule.marks(spec) == {2, 9}
    with contextlib.suppress(KilledError):
        run(spec, store, stream=killed_at(11, read_here()), options=Options(checkpoint_every_s=3600))
    assert [p.name for p in resume.newest_first(store.resume(digest(spec)))] == ["step-000000009", "step-000000002"]


def test_a_notice_saves_at_once(generated: Train, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "NOTICE_S", 0.0)
    asked: list[bool] = []

    def notice() -> bool:
        asked.append(len(asked) == 4)
        return asked[-1]

    options = Options(checkpoint_every_s=3600)
    with contextlib.suppress(KilledError):
        run(generated, store, stream=killed_at(7, read_here()), options=options, notice=notice)
    assert len(asked) == 7
    assert stages.committed_step(generated, store) == 5


def test_a_stage_that_follows_another_goes_on_as_if_it_had_not_been_killed(
    generated: Train, reading: Train, places: Callable[[str], Store]
) -> None:
    spec = reading.after(generated, Transfer(reinit=("embeddings", "norms[0]"), blocks="resampled"))
    for store in (places("whole"), places("resumed")):
        run(generated, store)
    run(spec, places("whole"))
    kill(spec, places("resumed"), 6)
    run(spec, places("resumed"))
    assert_equal_runs(spec, places("whole"), places("resumed"))
