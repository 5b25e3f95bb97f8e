"""A whole study with its store in a bucket: run, looked at from elsewhere, reported, exported, resumed."""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import analysis
from harness import failure, garbage, limits, loop, progress, resume, stages
from harness import plan as plans
from harness import space as spaces
from harness.__main__ import main
from harness.asking import asking
from harness.limits import Limit, Meter
from harness.progress import Teller
from harness.specs import State, Train, digest
from harness.store import KNOWN, Store, write_json
from harness.url import Url
from harness.watch import Watch
from harness.worker import Batch, Options, Stopped, Stream, Worker, read_here
from tests.object_store import Buckets
from tests.runs import KilledError, curve, killed_at

SPACE = '''
"""Does one thing help another?"""
from ray import tune
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32, init_std=0.1, embed_std=0.1)
TEXT = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)

def train(source, steps, seed):
    recipe = Recipe(lr=1e-2, batch=8, schedule="wsd", warmup=512)
    return Train(Corpus(source, seed), steps * 8 * 32, MODEL, recipe, seed, Evaluation(points=4, sequences=16))

def scratch(budget, seed):
    return train(TEXT, budget, seed)

def nca(budget, seed):
    return scratch(budget, seed).after(train(NCA(states=2, grid=4), 8, seed))

AXES = {{"budget": tune.grid_search([8, 12]), "seed": tune.grid_search([0])}}
study = Study("tiny", __doc__, scratch, [nca], AXES)
'''


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A study of two budgets, which share the beginning of a run."""
    (tmp_path / "words").mkdir()
    for i in range(30):
        text = f"word {i} of many words, and {i * i} more of them to read\n" * 12
        (tmp_path / "words" / f"{i:02d}.txt").write_text(text)
    path = tmp_path / "space.py"
    path.write_text(SPACE.format(text=str(tmp_path / "words")))
    return path


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """From now on this is another machine."""

    def move() -> None:
        monkeypatch.setenv("NCA_CACHE", str(tmp_path / "elsewhere"))
        KNOWN.clear()

    return move


@pytest.mark.slow
def test_a_study_runs_in_a_bucket_as_in_a_directory_and_is_read_from_elsewhere(
    remote: Store, store: Store, space: Path, elsewhere: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(remote.root)
    for place in (url, str(store.root)):
        assert main(["run", str(space), "--store", place, "--in-process"]) == 0
    capsys.readouterr()
    elsewhere()
    assert main(["status", str(space), "--store", url]) == 0
    status = capsys.readouterr().out.splitlines()
    assert main(["status", str(space), "--store", str(store.root)]) == 0
    same = capsys.readouterr().out.splitlines()
    done = [sorted(line for line in lines if line.startswith("done ")) for lines in (status, same)]
    assert done[0] == done[1] and status[0].startswith(f"tiny: {len(done[0])}/{len(done[0])} stages done")
    assert len(done[0]) > 6 and len(status) == len(same)

    assert main(["run", str(space), "--store", url, "--in-process"]) == 0
    assert "nothing to compute" in capsys.readouterr().out
    assert main(["report", str(space), "--store", url]) == 0
    assert f"and {remote.study('tiny') / 'report.html'}" in capsys.readouterr().out
    assert "Does one thing help another?" in (remote.study("tiny") / "report.html").read_text()

    there, here = analysis.load(url, "tiny"), analysis.load(str(store.root), "tiny")
    same = [c for c in there.columns if not c.endswith("_s") and c not in ("mfu", "data_wait", "memory_bytes")]
    assert len(there) > 10 and there[same].equals(here[same])
    assert analysis.Results.from_store(url, "tiny").store is not None
    with pytest.raises(analysis.DataError, match="no such study; this store has tiny"):
        analysis.load(url, "large")

    trained = next(d for d in (p.name for p in Path(store.root / "stages").iterdir()) if is_final(store, d))
    for place in (url, str(store.root)):
        assert main(["export", trained, str(space.parent / f"model-{place[0]}"), "--store", place]) == 0
    weights = [(space.parent / f"model-{p}" / "model.safetensors").read_bytes() for p in ("s", "/")]
    assert weights[0] == weights[1]


def is_final(store: Store, address: str) -> bool:
    manifest = store.manifest(address)
    return manifest is not None and manifest["kind"] == "Train" and "init" in manifest["parents"]


def kill(spec: Train, store: Store, at: int | None) -> None:
    """Run `spec`, with a checkpoint every step, until it is killed."""
    worker = Worker(options=Options(checkpoint_every_s=0.0), stream=killed_at(at, read_here()))
    stages.run_train(spec, store, worker)


def test_a_killed_stage_goes_on_from_the_bucket_on_another_machine(
    remote: Store, store: Store, generated: Train, elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    stages.run_here(generated, store)
    with pytest.raises(KilledError):
        kill(generated, remote, 7)
    shutil.rmtree(tmp_path / "cache")
    elsewhere()
    assert stages.committed_step(generated, remote) in (6, 7)  # the last one may still have been under way
    checkpoints = [place.name for place in resume.newest_first(remote.resume(digest(generated)))]
    assert len(checkpoints) == resume.KEPT
    assert {name.partition("/")[0] for name in find(remote, generated) if name.startswith("step-")} == {*checkpoints}
    kill(generated, remote, None)
    assert curve(remote, digest(generated)) == curve(store, digest(generated))
    assert weights(remote, generated) == weights(store, generated)
    assert not find(remote, generated)
    assert not list((tmp_path / "elsewhere").rglob("step-*"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("in_trial", [False, True])
def test_a_study_runs_on_ray_in_a_bucket_as_in_this_process(
    remote: Store,
    store: Store,
    space: Path,
    elsewhere: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    in_trial: bool,
) -> None:
    command = [sys.executable, "-m", "harness", "run", str(space), "--store", str(remote.root)]
    more = ["--cpus", "2", "--checkpoint-every", "0.5", *(["--in-trial"] if in_trial else [])]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = plans.make(spaces.load(str(space)))
    elsewhere()
    for address, stage in plan.stages.items():
        stages.run_here(stage, store)
        manifest = remote.manifest(address)
        assert manifest is not None
        assert manifest["executed"] == ("trial" if in_trial and isinstance(stage, Train) else "ray")
        if isinstance(stage, Train):
            assert curve(remote, address) == curve(store, address)
            if not isinstance(stage, State):
                assert weights(remote, stage) == weights(store, stage)
    assert main(["status", str(space), "--store", str(remote.root)]) == 0
    assert f"{len(plan.stages)}/{len(plan.stages)} stages done" in capsys.readouterr().out
    assert isinstance(remote.scratch, Url) and list(remote.scratch.find()) == []


def find(store: Store, spec: Train) -> list[str]:
    directory = store.resume(digest(spec))
    assert isinstance(directory, Url)
    return list(directory.find())


def weights(store: Store, spec: Train) -> bytes:
    attempt = store.open(digest(spec))
    assert attempt is not None
    return (attempt / "weights" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "cut", "altered"])
def test_a_damaged_checkpoint_in_a_bucket_is_passed_over(
    remote: Store, store: Store, generated: Train, damage: str
) -> None:
    stages.run_here(generated, store)
    with pytest.raises(KilledError):
        kill(generated, remote, 7)
    newest, _ = resume.newest_first(remote.resume(digest(generated)))
    shard = newest / next(name for name in find(remote, generated) if name.startswith(newest.name)).partition("/")[2]
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(content[:-3] if damage == "cut" else content[:-1] + b"\xff")
    manifest = stages.run_here(generated, remote)
    assert manifest["notes"] == [f"checkpoint {newest.name} is damaged ({shard.name}) and was passed over"]
    assert curve(remote, digest(generated)) == curve(store, digest(generated))


def test_a_checkpoint_that_cannot_be_sent_is_given_up_and_training_goes_on(
    bucket: Buckets, remote: Store, generated: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from harness import parallel

    monkeypatch.setattr("harness.copies.WAITS_S", (0.01,))
    directory = remote.resume("a stage")
    with parallel.process_group(1):
        saver = resume.Saver("a stage", 0, 1, "cpu")
        saver.save(directory, 3, {"w": torch.zeros(4)}, {})
        saver.wait()
        with bucket.proxy.cut_after(0):
            saver.save(directory, 6, {"w": torch.zeros(4)}, {})
            saver.wait()
        assert saver.failure is not None and saver.failure.startswith("no checkpoint at step 6: UrlError: ")
        assert resume.newest(directory, "a stage").step == 3
        saver.save(directory, 9, {"w": torch.zeros(4)}, {})
        saver.wait()
        assert saver.failure is None and resume.newest(directory, "a stage").step == 9
        saver.close()


# ---- what a running stage tells


def test_a_running_stage_is_seen_from_elsewhere(
    remote: Store, elsewhere: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SEND_EVERY_S", 0.05)
    teller = Teller(remote.resume("d1"), remote.begin("d1"))
    teller.rows([{"loss_nats": 3.0}, {"loss_nats": 2.0}])
    teller.rows([{"loss_nats": 1.5}])
    for step in range(100):
        teller.live({"step": step})
    elsewhere()
    deadline = time.monotonic() + 20
    told = progress.told(remote, ["d1", "d2"])
    while rows(told("d1")) != [3.0, 2.0, 1.5] or told("d1").live != {"step": 99}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        told = progress.told(remote, ["d1", "d2"])
    assert abs(told("d1").live_age_s) < 30
    assert told("d2") == progress.Told()
    teller.forget()
    assert progress.told(remote, ["d1"])("d1").live is None


def rows(told: progress.Told) -> list[float]:
    """Losses of the curve so far."""
    return [] if told.rows is None else [json.loads(row)["loss_nats"] for row in told.rows.read().splitlines()]


def test_telling_never_waits_for_a_network_that_is_gone(
    bucket: Buckets, remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SEND_EVERY_S", 0.05)
    monkeypatch.setattr(progress, "SEND_AGAIN_S", 0.05)
    teller = Teller(remote.resume("d1"), remote.begin("d1"))
    with bucket.proxy.cut_after(0):
        started = time.monotonic()
        for step in range(200):
            teller.live({"step": step})
        teller.rows([{"loss_nats": 1.0}])
        assert time.monotonic() - started < 0.5
        time.sleep(0.5)
    deadline = time.monotonic() + 30
    while rows(progress.told(remote, ["d1"])("d1")) != [1.0]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    teller.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "telling"]


# ---- limits, failures, what can go


def test_a_stage_in_a_bucket_that_is_told_to_stop_keeps_its_step(
    remote: Store, store: Store, generated: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NOTICE_S", 0.0)
    stages.run_here(generated, store)
    with Meter(Limit(hours=0.0), remote, remote.scratch / "stop" / "run") as meter:
        assert meter.reached == "0 h"
        options = Options(checkpoint_every_s=600.0, stop=meter.stop)
        slowly = slowed(0.1)
        with pytest.raises(Stopped):
            stop = asking(remote, lambda: options.stopping)
            stages.run_here(generated, remote, Worker(options=options, stop=stop, stream=slowly))
    assert not options.stopping
    assert 0 < stages.committed_step(generated, remote) < generated.steps
    assert not any(name.endswith("live.json") for name in find(remote, generated))
    stages.run_here(generated, remote)
    assert curve(remote, digest(generated)) == curve(store, digest(generated))


def test_a_trial_waits_for_an_object_store_that_is_away(
    bucket: Buckets, remote: Store, store: Store, generated: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.cluster import trial
    from harness.cluster.resources import Workers, resources

    real, tries = trial._run, list[int]()

    def counted(*args: Any) -> None:
        tries.append(1)
        real(*args)

    monkeypatch.setattr("harness.copies.WAITS_S", (0.01,))
    monkeypatch.setattr(trial, "AGAIN_S", 0.1)
    monkeypatch.setattr(trial, "_run", counted)
    address, of = digest(generated), resources({"CPU": 1.0}, Workers(), in_trial=True)
    results: list[dict[str, Any]] = []

    def run() -> None:
        one = trial.run({"stage": address}, {address: generated}, remote, {address: of}, Options(), "a run")
        results.append(one)

    remote.check()
    running = threading.Thread(target=run)
    with bucket.proxy.cut_after(20_000):  # while it publishes
        running.start()
        deadline = time.monotonic() + 120
        while len(tries) < 2:
            assert running.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
    running.join(60)
    assert [result["stage"] for result in results] == [1]
    stages.run_here(generated, store)
    assert curve(remote, address) == curve(store, address)


def test_a_trial_does_not_wait_for_ever_nor_for_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cluster import trial
    from harness.url import UrlError

    asked: list[tuple[type[Exception], type[Exception]]] = []

    def fails(error: type[Exception], cause: type[Exception]) -> None:
        asked.append((error, cause))
        raise error("store: is away") from cause("refused")

    monkeypatch.setattr(trial, "AGAIN_S", 0.01)
    monkeypatch.setattr(trial, "AWAY_S", 0.1)
    away, other = (UrlError, ConnectionRefusedError), (ValueError, ConnectionRefusedError)
    lacking = (UrlError, FileNotFoundError)
    for error in (away, lacking, other):
        with pytest.raises(error[0]):
            trial._patiently(functools.partial(fails, *error), Options())
    assert asked.count(away) > 3 and asked.count(lacking) == asked.count(other) == 1


def slowed(seconds: float) -> Stream:
    """A step takes so long."""

    def stream(*what: Any) -> Iterator[Batch]:
        for batch in read_here()(*what):
            time.sleep(seconds)
            yield batch

    return stream


def test_a_limit_counts_what_runs_in_a_bucket(remote: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TICK_THERE_S", 0.1)
    with Meter(Limit(cost=2.0, price=3600.0), remote, remote.scratch / "stop" / "run") as meter:
        meter.begins("d1", 2)
        time.sleep(0.3)
        assert meter.device_s == 0.0  # it waits for machines
        write_json(remote.resume("d1") / "start.json", {})
        deadline = time.monotonic() + 30
        while meter.device_s == 0.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while not meter.stop.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert meter.reached and meter.device_s >= 2.0
    assert not meter.stop.exists()


def test_a_run_without_time_begins_nothing_in_a_bucket(
    remote: Store, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(space), "--store", str(remote.root), "--in-process", "--max-hours", "0"]) == 4
    assert capsys.readouterr().out.splitlines()[-1].startswith("stopped at the limit of 0 h: 0 of ")
    assert isinstance(remote.scratch, Url) and not remote.scratch.find()


def test_a_stage_that_failed_in_a_bucket_is_told_and_tried_again(remote: Store, space: Path) -> None:
    plan = plans.make(spaces.load(str(space)))
    address = next(iter(plan.stages))
    failure.write(remote, address, "ValueError: on purpose\nTraceback\n")
    (failed,) = Watch(plan, remote).look().of("failed")
    assert (failed.digest, failed.note) == (address, "ValueError: on purpose")
    assert failure.read(remote, address) == failure.Failure("ValueError: on purpose", ("Traceback",))
    failure.clear(remote, plan.stages)
    assert failure.read(remote, address) is None and not Watch(plan, remote).look().of("failed")


def test_what_no_study_needs_goes_from_a_bucket(
    remote: Store, space: Path, capsys: pytest.CaptureFixture[str], elsewhere: Callable[[], None]
) -> None:
    plan = plans.make(spaces.load(str(space)))
    plans.register(plan, remote, {})
    needed, nobody, damaged = next(iter(plan.stages)), "f" * 64, "e" * 64
    for address in (needed, nobody, damaged):
        attempt = remote.begin(address)
        (attempt / "weights.bin").write_bytes(bytes(1000))
        remote.publish(address, attempt)
    remote.set_aside(damaged)
    (remote.stage(needed) / "lost" / "weights.bin").write_bytes(bytes(10))
    for address in (needed, nobody, list(plan.stages)[-1]):
        (remote.resume(address) / "step-000000003-x" / "state.json").write_bytes(b"{}")
    elsewhere()
    assert {g.why for g in garbage.survey(remote).garbage} == {garbage.DAMAGED}  # the rest is young
    found = garbage.survey(remote, quiet_s=-60.0)
    (aside,) = Url(str(remote.root / "damaged")).glob("*")
    assert found.bytes == 3010 + 6 + len((aside / "DONE").read_bytes())
    assert sorted((g.why, g.holding.digest) for g in found.garbage) == sorted(
        [
            (garbage.UNNEEDED, nobody),
            (garbage.ATTEMPTS, needed),
            (garbage.DAMAGED, damaged),
            (garbage.CHECKPOINTS, needed),
            (garbage.CHECKPOINTS, nobody),
        ]
    )
    assert main(["gc", "--remove", "--store", str(remote.root)]) == 0
    assert "B removed" in capsys.readouterr().out
    assert remote.has(nobody) and remote.has(needed) and not list((remote.root / "damaged").glob("*"))
    garbage.remove(garbage.survey(remote, quiet_s=-60.0).garbage, remote)
    assert isinstance(remote.root, Url) and isinstance(remote.scratch, Url)
    assert {name.split("/")[1] for name in remote.root.find() if name.startswith("stages/")} == {needed}
    assert len(list(remote.scratch.find())) == 1 and remote.damage(needed) == []


def test_copies_that_nobody_asks_for_go_and_come_again(
    remote: Store, space: Path, elsewhere: Callable[[], None]
) -> None:
    plan = plans.make(spaces.load(str(space)))
    plans.register(plan, remote, {})
    address = next(iter(plan.stages))
    attempt = remote.begin(address)
    (attempt / "weights.bin").write_bytes(bytes(1000))
    remote.publish(address, attempt)
    elsewhere()
    copy = remote.open(address)
    assert copy is not None and garbage.survey(remote).garbage == ()
    old = time.time() - 2 * garbage.QUIET_S
    for each in (*copy.rglob("*"), copy):
        os.utime(each, (old, old))
    assert remote.open(address) == copy  # asked for again
    assert garbage.survey(remote).garbage == ()
    os.utime(copy, (old, old))
    (found,) = garbage.survey(remote).garbage
    assert (found.why, found.holding.digest) == (garbage.COPIES, address)
    garbage.remove([found], remote)
    assert not copy.exists() and remote.has(address)
    assert remote.open(address) == copy and (copy / "weights.bin").stat().st_size == 1000


# ---- errors


@pytest.mark.parametrize("command", ["plan", "status", "run", "report"])
def test_a_store_that_cannot_be_reached_is_told_in_one_line_and_soon(
    space: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bucket: Buckets, command: str
) -> None:
    import s3fs

    monkeypatch.setattr("harness.copies.WAITS_S", (0.01,))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    started = time.monotonic()
    more = ["--in-process"] if command == "run" else []
    assert main([command, str(space), "--store", "s3://studies/x", *more]) == 2
    lines = capsys.readouterr().err.splitlines()
    s3fs.S3FileSystem.clear_instance_cache()
    assert len(lines) == 1 and "cannot be reached" in lines[0]
    assert time.monotonic() - started < 20


def test_an_endpoint_that_is_no_object_store_is_told(
    space: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bucket: Buckets, tmp_path: Path
) -> None:
    import http.server

    import s3fs

    class Nothing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_address[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        assert main(["status", str(space), "--store", "s3://studies/x"]) == 2
        server.shutdown()
    s3fs.S3FileSystem.clear_instance_cache()
    assert "no object store answers there; check the endpoint" in capsys.readouterr().err


def test_no_credentials_are_told_in_one_line(
    space: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bucket: Buckets, tmp_path: Path
) -> None:
    import s3fs

    monkeypatch.setattr("harness.copies.WAITS_S", (0.01,))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["run", str(space), "--store", "s3://studies/x", "--in-process"]) == 2
    lines = capsys.readouterr().err.splitlines()
    s3fs.S3FileSystem.clear_instance_cache()
    assert len(lines) == 1 and "no credentials" in lines[0]


def test_a_plan_that_changes_keeps_the_one_before(remote: Store, space: Path) -> None:
    plan = plans.make(spaces.load(str(space)))
    plans.register(plan, remote, {})
    first = json.loads((remote.study("tiny") / "points.json").read_text())
    changed = space.with_name("changed.py")  # a file is loaded once
    changed.write_text(space.read_text().replace("[8, 12]", "[8]"))
    plans.register(plans.make(spaces.load(str(changed))), remote, {})
    kept = remote.study("tiny") / f"points-{first['hash'][:12]}.json"
    assert json.loads(kept.read_text()) == first
