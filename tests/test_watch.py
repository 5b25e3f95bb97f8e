"""What a watcher sees of a study, and what a run leaves to be seen: from the store alone, without Ray."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import cost, failure, gaps, loop, plan, resume, screen, space, stages
from harness import curve as curves
from harness.__main__ import main
from harness.errors import InputError
from harness.limits import Limit, Meter
from harness.specs import digest
from harness.store import Store
from harness.watch import StageView, StudyView, Watch
from harness.worker import Options, Stopped, Worker, read_here
from tests.runs import KilledError, curve, interruptible, killed_at

SPACE = '''
"""Does one thing help another?"""
import dataclasses
from ray import tune
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32, init_std=0.1, embed_std=0.1)


@dataclasses.dataclass(frozen=True)
class Broken(NCA):
    def open(self, artifact):
        raise ValueError("this source is broken on purpose")


def train(source, steps, seed, lr=1e-2):
    return Train(Corpus(source, seed), steps * 8 * 32, MODEL, Recipe(lr=lr, batch=8), seed, Evaluation(4, 16))


def scratch(seed):
    return train(NCA(states=2, grid=4, patch=2), 12, seed)


def warm(seed):
    return scratch(seed).after(train(NCA(states=3, grid=4, patch=2), 6, seed))


def wild(seed):
    return scratch(seed).after(train(NCA(states=2, grid=4, patch=2), 8, seed, lr=1e30))


def broken(seed):
    return scratch(seed).after(train(Broken(states=2, grid=4, patch=2), 8, seed))


AXES = {"seed": tune.grid_search([0, 1])}
study = Study("sound", __doc__, scratch, [warm], AXES)
mixed = Study("mixed", __doc__, scratch, [warm, wild, broken], AXES)
'''


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("study") / "space.py"
    path.write_text(SPACE)
    return str(path)


def stage(made: plan.Plan, arm: str, seed: int, first: bool = False) -> str:
    """The stage of a point, or the one before it."""
    (train,) = [p.train for p in made.points if (p.arm, dict(p.axes)["seed"]) == (arm, seed)]
    assert not first or train.init is not None
    return digest(train.init if first else train)


def kill(made: plan.Plan, store: Store, address: str, at: int, **options: Any) -> None:
    """Work on a stage and leave it as a killed process does."""
    worker = Worker(stream=killed_at(at, read_here()), options=Options(**options))
    with contextlib.suppress(KilledError):
        stages.run_here(made.stages[address], store, worker)


@dataclass(frozen=True)
class Mixed:
    """A study with a stage in every state: of seed 0 "scratch" and what "warm" and "wild" follow are computed, "warm"
    runs, what "broken" follows has failed; of seed 1 "scratch" is computed and what "warm" follows was begun."""

    made: plan.Plan
    store: Store

    def look(self) -> StudyView:
        return Watch(self.made, self.store).look()

    def state(self, arm: str, seed: int, first: bool = False) -> StageView:
        (view,) = [v for v in self.look().stages if v.digest == stage(self.made, arm, seed, first)]
        return view


@pytest.fixture(scope="module")
def computed(target: str, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    made, store = plan.make(space.load(f"{target}:mixed")), Store(tmp_path_factory.mktemp("mixed") / "store")
    for address in (
        stage(made, "scratch", 0),
        stage(made, "scratch", 1),
        stage(made, "warm", 0, first=True),
        stage(made, "wild", 0, first=True),
    ):
        stages.run_here(made.stages[address], store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "LIVE_EVERY_S", 0.0)
        kill(made, store, stage(made, "warm", 0), 8, checkpoint_every_s=0.0)
        kill(made, store, stage(made, "warm", 1, first=True), 4, checkpoint_every_s=0.0)
    os.utime(store.resume(stage(made, "warm", 1, first=True)) / "live.json", (0, 0))
    failure.write(store, stage(made, "broken", 0, first=True), "ValueError: on purpose\nTraceback\n\n  in a line\n")
    return Mixed(made, store)


@pytest.fixture
def mixed(computed: Mixed, tmp_path: Path) -> Mixed:
    """`computed`, to be changed; what runs does so now."""
    for place in (computed.store.root, computed.store.scratch):
        shutil.copytree(place, tmp_path / place.name)
    store = Store(tmp_path / "store")
    Path(store.resume(stage(computed.made, "warm", 0)) / "live.json").touch()
    return Mixed(computed.made, store)


# ---- what is seen


def test_every_state_is_known_from_the_store_alone(mixed: Mixed) -> None:
    view = mixed.look()
    assert view.counts == {"done": 3, "running": 1, "waiting": 6, "diverged": 1, "failed": 1, "blocked": 2}
    for arm, seed, first, state in [
        ("scratch", 0, False, "done"),
        ("warm", 0, False, "running"),
        ("warm", 1, True, "waiting"),  # its live line is old
        ("warm", 1, False, "waiting"),
        ("wild", 0, True, "diverged"),
        ("wild", 0, False, "blocked"),
        ("broken", 0, True, "failed"),
        ("broken", 0, False, "blocked"),
        ("broken", 1, True, "waiting"),
    ]:
        assert mixed.state(arm, seed, first).state == state, (arm, seed, first)
    assert mixed.state("broken", 0, first=True).note == "ValueError: on purpose"
    assert "diverged" in str(mixed.state("wild", 0, first=True).note)
    assert not view.over


def test_what_a_stage_has_done_is_seen_whether_it_runs_or_waits(mixed: Mixed) -> None:
    running, waiting = mixed.state("warm", 0), mixed.state("warm", 1, first=True)
    assert (running.tokens, running.of) == (8 * 8 * 32, 12 * 8 * 32)
    assert running.train_loss_nats is not None and running.loss_nats is not None and running.device_s > 0
    assert waiting.tokens == 4 * 8 * 32  # of its newest checkpoint
    done = mixed.state("scratch", 0)
    assert done.share == 1 and done.loss_nats == curve(mixed.store, done.digest)[-1]["loss_nats"]


def test_progress_counts_flops_and_not_stages(mixed: Mixed) -> None:
    view = mixed.look()
    whole = cost.cost_of(mixed.made, mixed.made.stages).flops
    parts = [("scratch", 0, False, 1.0), ("scratch", 1, False, 1.0), ("warm", 0, True, 1.0), ("wild", 0, True, 1.0)]
    parts += [("warm", 0, False, 8 / 12), ("warm", 1, True, 4 / 6)]
    flops = sum(
        share * cost.cost_of(mixed.made, [stage(mixed.made, arm, seed, first)]).flops
        for arm, seed, first, share in parts
    )
    assert view.share == pytest.approx(flops / whole)


def test_a_failure_is_forgotten_when_the_stage_is_tried_again(mixed: Mixed) -> None:
    address = stage(mixed.made, "broken", 0, first=True)
    failure.clear(mixed.store, [address])
    assert mixed.look().counts["failed"] == 0
    assert mixed.state("broken", 0).state == "waiting"
    failure.write(mixed.store, address, "KeyError: 'again'")
    live = mixed.store.resume(address) / "live.json"
    live.write_text(json.dumps({"step": 3}))
    os.utime(live, (time.time() + 1, time.time() + 1))  # another driver works on it
    assert mixed.state("broken", 0, first=True).state == "running"


def test_a_stage_that_begins_is_seen_by_its_driver_before_its_first_live_line(mixed: Mixed) -> None:
    mixed.store.begin(stage(mixed.made, "wild", 1, first=True))
    assert Watch(mixed.made, mixed.store).look().counts["running"] == 1
    assert Watch(mixed.made, mixed.store, since=time.time() - 60).look().counts["running"] >= 2


def test_a_computed_stage_is_read_once_and_a_curve_when_it_has_changed(
    mixed: Mixed, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Watch(mixed.made, mixed.store)
    before = seen.look()
    read: list[str] = []
    whole = Path.read_text

    def noted(path: Path, *how: Any) -> str:
        read.append(path.name)
        return whole(path, *how)

    monkeypatch.setattr(Path, "read_text", noted)
    assert seen.look().stages == before.stages
    assert "manifest.json" not in read and "curve.jsonl" not in read and len(read) <= 3 * 3  # the three that were begun
    attempt = mixed.store.latest_attempt(stage(mixed.made, "warm", 0))
    assert attempt is not None
    row = json.loads((attempt / "curve.jsonl").read_text().splitlines()[-1]) | {"loss_nats": 1.5, "tokens": 9 * 256}
    with open(attempt / "curve.jsonl", "a") as f:
        f.write(json.dumps(row) + "\n" + '{"step": 10, "tok')  # a row that is being written
    read.clear()
    (view,) = seen.look().of("running")
    assert view.loss_nats == 1.5 and read.count("curve.jsonl") == 1


def test_time_left_is_told_at_once_from_what_runs(mixed: Mixed) -> None:
    live = mixed.store.resume(stage(mixed.made, "warm", 0)) / "live.json"
    live.write_text(json.dumps(json.loads(live.read_text()) | {"tokens_per_s": 256.0}))
    view = mixed.look()
    assert view.tokens_per_s == 256.0
    # Steps left of "warm" of both seeds and of the other arms of seed 1; FLOPs a step differ with the vocabulary.
    assert view.seconds_left == pytest.approx(4 + (2 + 12) + 2 * (8 + 12), rel=0.1)


def test_gaps_are_paired_at_the_newest_tokens_of_both(mixed: Mixed) -> None:
    gap, *others = mixed.look().gaps
    assert not others
    base = {row["tokens"]: row["loss_nats"] for row in curve(mixed.store, stage(mixed.made, "scratch", 0))}
    attempt = mixed.store.latest_attempt(stage(mixed.made, "warm", 0))
    assert attempt is not None
    rows = [json.loads(line) for line in (attempt / "curve.jsonl").read_text().splitlines()]
    arm = {row["tokens"]: row["loss_nats"] for row in rows}
    at = max(base.keys() & arm.keys())
    assert 0 < at < 3072
    assert gap == gaps.Gap("warm", base[at] - arm[at], 1, 2, (at, at))


def test_gaps_are_means_over_pairs(target: str) -> None:
    made = plan.make(space.load(target))
    curves_of = {
        stage(made, "scratch", 0): {0: 9.0, 10: 4.0, 20: 3.0},
        stage(made, "warm", 0): {0: 5.0, 10: 3.5, 20: 2.0, 30: 1.0},
        stage(made, "scratch", 1): {0: 9.0, 10: 4.0},
        stage(made, "warm", 1): {0: 5.0, 10: 4.5},
    }
    (gap,) = gaps.Gaps(made).newest(curves_of)
    assert gap == gaps.Gap("warm", 0.25, 2, 2, (10, 20))
    assert gaps.Gaps(made).newest({d: {0: 1.0} for d in curves_of}) == []


MANY = """
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train
from ray import tune
MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)
def scratch(seed): return Train(Corpus(NCA(grid=4), seed), 8192, MODEL, Recipe(lr=1e-2, batch=8), seed)
def other(seed): return Train(Corpus(NCA(grid=4), seed), 8192, MODEL, Recipe(lr=2e-2, batch=8), seed)
study = Study("many", "?", scratch, [other], {"seed": tune.grid_search(range(1500))})
"""


def test_three_thousand_stages_are_told(mixed: Mixed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "many.py").write_text(MANY)
    made, store = plan.make(space.load(str(tmp_path / "many.py"))), Store(tmp_path / "many")
    whole = mixed.store.open(stage(mixed.made, "scratch", 0))
    assert whole is not None
    text = {name: (whole / name).read_text() for name in ("manifest.json", "curve.jsonl")}
    for address in list(made.stages)[:2000]:
        attempt = store.stage(address) / "attempt"
        attempt.mkdir(parents=True)
        for name, content in text.items():
            (attempt / name).write_text(content)
        (store.stage(address) / "DONE").write_text('{"attempt": "attempt"}')
    assert main(["status", str(tmp_path / "many.py"), "--store", str(store.root)]) == 0
    assert capsys.readouterr().out.startswith("many: 2000/3000 stages done")


# ---- what is drawn


def drawn(view: StudyView, width: int, *told: str) -> Console:
    console = Console(record=True, width=width, height=40, file=io.StringIO())
    console.print(screen.Screen(view, told))
    return console


@pytest.mark.parametrize("width", [60, 100])
def test_the_view_has_everything_and_fits(mixed: Mixed, width: int) -> None:
    view = mixed.look()
    noted = tuple(replace(v, note="checkpoint 4 is damaged") if v.state == "running" else v for v in view.stages)
    text = drawn(replace(view, stages=noted), width, "Ray dashboard http://127.0.0.1:8265").export_text()
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    for words in ("mixed", "3 done", "1 running", "6 waiting", "1 diverged", "1 failed", "2 blocked", "of the FLOPs"):
        assert words in " ".join(" ".join(lines[:5]).split())
    for words in ("http://127.0.0.1:8265", "tokens/s", "67 %", "ValueError: on purpose", "is damaged", "1 of 2"):
        assert words in text
    shown = 12 if width == 100 else 8
    for address in (
        stage(mixed.made, "warm", 0),
        stage(mixed.made, "broken", 0, True),
        stage(mixed.made, "scratch", 1),
    ):
        assert address[:shown] in text
    assert ("memory" in text) == (width == 100)


def test_more_stages_than_a_terminal_has_lines_are_cut(mixed: Mixed) -> None:
    view = mixed.look()
    (one,) = view.of("running")
    many = tuple(replace(one, digest=f"{i:064d}") for i in range(100))
    lines = drawn(replace(view, stages=(*view.stages, *many)), 100).export_text().splitlines()
    assert len(lines) <= 40
    assert any(re.fullmatch(r"and \d+ more", line.strip()) for line in lines)


def test_a_log_gets_lines_and_the_gaps_when_they_change(mixed: Mixed) -> None:
    told: list[str] = []
    console = Console(file=io.StringIO())
    live = screen.Live(Watch(mixed.made, mixed.store), every_s=0.01, console=console, tell=told.append)
    live.show(until=lambda view: len(told) >= 4)
    assert [line.startswith("mixed: 3/14 stages done, 1 running") for line in told] == [True, False, True, True]
    assert told[1].startswith("loss gap to the baseline, nats") and "1 of 2 pairs" in told[1]
    assert "67 % NCA 3.07k seed 0 after NCA train loss" in told[0]


# ---- status


def status(target: str, store: Store, *options: str) -> list[str]:
    return ["status", target, "--store", str(store.root), *options]


def test_status_tells_what_runs_first_and_counts_what_waits(
    mixed: Mixed, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(status(f"{target}:mixed", mixed.store)) == 0
    head, gap, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("mixed: 3/14 stages done, 1 running, 1 diverged, 1 failed, 2 blocked, ")
    assert "warm" in gap
    assert [line.split()[0] for line in lines] == ["running", "failed", "diverged", *3 * ["done"], "waiting", "blocked"]
    assert lines[1].endswith("! ValueError: on purpose")
    assert lines[-2].split()[1:3] == ["6", "stages"]
    assert main(status(f"{target}:mixed", mixed.store, "--all")) == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert words.count("waiting") == 6 and words.count("blocked") == 2


def test_watching_ends_when_nothing_is_left(mixed: Mixed, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    made, store = plan.make(space.load(target)), mixed.store
    for address in made.stages:
        stages.run_here(made.stages[address], store)
    assert main(status(target, store, "--watch", "0.1")) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("sound: 6/6 stages done, 0 running")
    failed = stage(mixed.made, "broken", 0, first=True)
    assert failed in mixed.made.stages
    for address, words in {d: "it failed" for d in mixed.made.stages if store.open(d) is None}.items():
        failure.write(store, address, words)
    assert main(status(f"{target}:mixed", store, "--watch", "0.1")) == 1


def test_watching_ends_with_ctrl_c(mixed: Mixed, target: str) -> None:
    command = [sys.executable, "-m", "harness", *status(f"{target}:mixed", mixed.store, "--watch", "0.2")]
    with interruptible(command) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("mixed: 3/14 stages done")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == ""


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "often"])
def test_an_interval_that_is_none_is_refused(target: str, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["status", target, f"--watch={seconds}"])
    assert "is not a number above 0" in capsys.readouterr().err


# ---- one stage


def run(target: str, store: Store, *options: str) -> int:
    return main(["run", target, "--store", str(store.root), "--in-process", *options])


def test_one_stage_is_run_with_what_it_needs(target: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan.make(space.load(target))
    address = stage(made, "warm", 1)
    assert run(target, store, "--stage", address[:10]) == 0
    assert store.done(made.stages) == {address, stage(made, "warm", 1, first=True)}
    assert "2 stages computed" in capsys.readouterr().out
    assert run(target, store, "--stage", address) == 0
    assert "nothing to compute" in capsys.readouterr().out
    assert run(target, store) == 0
    assert len(store.done(made.stages)) == 6


def test_a_digest_of_no_stage_or_of_many_is_refused(
    target: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(target, store, "--stage", "xyz") == 2
    assert capsys.readouterr().err.startswith("error: --stage = 'xyz': no stage of sound starts so; `status --all`")
    assert run(target, store, "--stage", "") == 2


def test_what_a_failed_stage_tells_has_the_command_that_runs_it_alone(
    target: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        run(f"{target}:mixed", store)
    err = capsys.readouterr().err.splitlines()
    address = stage(plan.make(space.load(f"{target}:mixed")), "broken", 0, first=True)
    found = failure.read(store, address)
    assert found is not None and found.reason == "ValueError: this source is broken on purpose"
    assert found.last(2)[0].strip() == 'raise ValueError("this source is broken on purpose")'
    (line,) = [line for line in err if "under a debugger: " in line]
    command = shlex.split(line.partition("under a debugger: ")[2])
    assert command[:6] == ["python", "-m", "pdb", "-m", "harness", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "pdb", "-c", "continue", *command[3:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    assert "ValueError: this source is broken on purpose" in told
    assert "post mortem" in told
    assert f"{Path(target).name}(15)open()" in told  # the debugger stands where it was raised


# ---- limits


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-hours", "-1"], "--max-hours = -1.0: use a number of at least 0"),
        (["--max-cost", "3"], "--price = None: --max-cost needs the price of a device-hour"),
        (["--max-cost", "nan", "--price", "1"], "--max-cost = nan: "),
    ],
)
def test_limits_that_are_none_are_refused(
    target: str, store: Store, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(target, store, *options) == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")
    assert not store.root.exists()


def test_a_run_without_time_begins_nothing_and_says_so(
    target: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(target, store, "--max-hours", "0") == 4
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "stopped at the limit of 0 h: 0 of 6 stages done, the same command goes on"
    assert not list(store.root.glob("stages/*"))
    assert not list(store.scratch.glob("stop/*"))


def same_curves(made: plan.Plan, one: Store, other: Store) -> bool:
    def weights(store: Store, address: str) -> bytes:
        attempt = store.open(address)
        assert attempt is not None
        return (attempt / "weights" / "model.safetensors").read_bytes()

    return all(curve(one, d) == curve(other, d) and weights(one, d) == weights(other, d) for d in made.stages)


def test_a_study_in_small_pieces_is_the_same_bit_for_bit(
    target: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan.make(space.load(target))
    whole = Store(tmp_path / "whole")
    for address in made.stages:
        stages.run_here(made.stages[address], whole)
    monkeypatch.setattr(loop, "NOTICE_S", 0.0)
    codes, kept = list[int](), 0
    while not codes or codes[-1] == 4:
        assert len(codes) < 100
        codes.append(run(target, store, "--max-hours", "6e-5", "--checkpoint-every", "600"))
        kept += len(list(store.scratch.glob("resume/*/step-*")))
        assert not list(store.scratch.glob("resume/*/live.json"))
    assert codes[-1] == 0 and len(codes) > 3
    assert kept > 0, "no stage was stopped in the middle"
    assert same_curves(made, whole, store)


def test_a_stage_that_is_told_to_stop_keeps_its_step(
    target: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NOTICE_S", 0.0)
    made = plan.make(space.load(target))
    address, asked = stage(made, "scratch", 0), list[int]()

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 5

    with pytest.raises(Stopped, match="step 5"):
        stages.run_here(made.stages[address], store, Worker(stop=stop, options=Options(checkpoint_every_s=600)))
    assert resume.newest(store.resume(address)).step == 5
    assert Watch(made, store, since=0.0).look().counts["done"] == 0
    stages.run_here(made.stages[address], store, Worker(stop=lambda: False))
    assert len(asked) == 5 and store.open(address) is not None


def test_a_trial_that_is_told_to_stop_keeps_its_step_and_what_fails_there_is_written_down(
    target: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.cluster import trial
    from harness.cluster.resources import Workers, resources

    made = plan.make(space.load(f"{target}:mixed"))
    of = dict.fromkeys(made.stages, resources({"CPU": 1.0}, Workers(), in_trial=True))

    def work(address: str, stop: Path) -> dict[str, Any]:
        store.check()
        options = Options(stop=stop, checkpoint_every_s=600)
        return trial.run({"stage": address}, made.stages, store, of, options, "a run")

    monkeypatch.setattr(loop, "NOTICE_S", 0.0)
    monkeypatch.setattr(curves, "LIVE_EVERY_S", 0.0)
    address, stop = stage(made, "scratch", 0), tmp_path / "stop"

    def tell() -> None:
        while not (store.resume(address) / "live.json").exists():
            time.sleep(0.001)
        stop.touch()

    telling = threading.Thread(target=tell)
    telling.start()
    result = work(address, stop)
    telling.join()
    assert result == {"stage": 0, "status": "stopped"}
    assert 0 < resume.newest(store.resume(address)).step < 12
    assert not (store.resume(address) / "live.json").exists()
    assert work(stage(made, "scratch", 1), stop) == {"stage": 0, "status": "stopped"}  # it is not begun
    assert not store.stage(stage(made, "scratch", 1)).exists()
    result = work(address, tmp_path / "never")
    assert (result["stage"], result["status"]) == (1, "finished")
    whole = Store(tmp_path / "whole")
    stages.run_here(made.stages[address], whole)
    assert curve(whole, address) == curve(store, address)
    result = work(stage(made, "broken", 0, first=True), tmp_path / "never")
    assert result == {"stage": 0, "failed": "ValueError: this source is broken on purpose"}
    found = failure.read(store, stage(made, "broken", 0, first=True))
    assert found is not None and found.reason == "ValueError: this source is broken on purpose"


def test_cost_is_the_device_time_of_the_stages_that_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.limits.TICK_S", 0.01)
    limit = Limit(cost=2.0, price=3600.0)  # two device-seconds
    with Meter(limit, store, store.scratch / "stop" / "run") as meter:
        meter.begins("a" * 64, 8)
        time.sleep(0.3)
        assert meter.device_s == 0  # it waits for its machines
        store.begin("a" * 64)
        began = time.monotonic()
        while not meter.stop.exists():
            assert time.monotonic() - began < 20
            time.sleep(0.005)
        assert meter.device_s >= 2 and time.monotonic() - began > 0.15
        assert meter.reached == "2, 0.000556 device-hours at 3600"
    assert not meter.stop.exists()


def test_live_lines_say_how_many_devices_a_stage_has(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.limits.TICK_S", 0.01)
    with Meter(Limit(cost=1e9, price=1.0), store, store.scratch / "stop") as meter:
        meter.begins("a" * 64, 1000)
        store.resume("a" * 64).mkdir(parents=True)
        (store.resume("a" * 64) / "live.json").write_text('{"world": 2}')
        time.sleep(0.3)
        meter.ends("a" * 64)
        counted = meter.device_s
        assert 0.2 < counted < 30
        time.sleep(0.1)
        assert meter.device_s == counted


def test_a_run_of_two_parts_has_one_limit(store: Store) -> None:
    limit = Limit(hours=1.0, cost=1.0, price=1.0)
    with Meter(limit, store, store.scratch / "stop" / "search") as first:
        first.device_s = 3599.0
        first._begun -= 1800
        assert first.reached is None
    with Meter(limit, store, store.scratch / "stop" / "run", after=first) as second:
        assert second.reached is None and second.used() == "0.50 of 1 h, cost 1.00 of 1"
        first.device_s = 3601.0
    with Meter(limit, store, store.scratch / "stop" / "run", after=first) as third:
        assert third.reached == "1, 1 device-hours at 1"


def test_an_interruption_of_the_first_part_of_a_run_holds_for_the_second(store: Store) -> None:
    with Meter(Limit(), store, store.scratch / "stop" / "search") as first:
        first.interrupt()
    with Meter(Limit(), store, store.scratch / "stop" / "run", after=first) as second:
        assert second.interrupted and second.stop.exists()


def test_no_limit_is_no_limit() -> None:
    assert Limit().reached(1e9, 1e9) is None and Limit().used(1.0, 1.0) is None
    with pytest.raises(InputError):
        Limit(cost=1.0)
