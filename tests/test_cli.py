"""The command line, without Ray: what it prints, what it refuses, and what it makes good."""

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness import plan as plans
from harness import resume, stages
from harness.__main__ import main, parser
from harness.space import load as load_space
from harness.store import Store
from harness.watch import Watch
from tests.runs import interruptible

SPACE = '''
"""Does one thing help another?"""
from ray import tune
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer

MODEL = Llama(depth=1, width=16, heads={heads}, mlp=24, context=32, init_std=0.1, embed_std=0.1)
TEXT = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)
MEASURED = Evaluation(points=8, sequences=16)

def scratch(seed):
    return Train(Corpus(TEXT, seed), {tokens}, MODEL, Recipe(lr={lr}, batch=8), seed, MEASURED)

def warm(seed):
    return Train(Corpus({source}, seed), 8 * 8 * 32, MODEL, Recipe(lr={warm_lr}, batch=8), seed, MEASURED)

def nca(seed):
    return scratch(seed).after(warm(seed))

study = Study("tiny", __doc__, scratch, {arms}, {{"seed": tune.grid_search({seeds})}})
'''


run_here = stages.run_here  # the one that tests replace


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text."""
    folder = tmp_path_factory.mktemp("words")
    for i in range(30):
        (folder / f"{i:02d}.txt").write_text(f"word {i} of many words, and {i * i} more of them to read\n" * 12)
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, words: Path) -> Callable[..., Path]:
    """Writes a search space with the settings given."""

    def write(**values: object) -> Path:
        settings = {"text": str(words), "lr": "1e-2", "warm_lr": "1e-2", "tokens": "12 * 8 * 32", "arms": "[nca]"}
        settings |= {"source": "NCA(states=2, grid=4)", "heads": "2", "seeds": "[0, 1]"}
        path = tmp_path_factory.mktemp("study") / "space.py"
        path.write_text(SPACE.format(**settings | {k: str(v) for k, v in values.items()}))
        return path

    return write


@pytest.fixture
def call(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    return lambda command, target, *options: main([command, str(target), "--store", str(store.root), *options])


@pytest.fixture
def refused(call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs what must be refused: exit code 2, one line, nothing begun; returns the line."""

    def refused(target: object, *options: str, commands: tuple[str, ...] = ("plan", "run")) -> str:
        for command in commands:
            capsys.readouterr()
            more = ["--in-process"] if command == "run" else []
            assert call(command, target, *options, *more) == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1, lines
            assert lines[0].startswith("error: ")
        assert not store.root.exists() or not list(store.root.glob("stages/*")), "something was started"
        return lines[0].removeprefix("error: ")

    return refused


# ---- plan


def test_plan_shows_arms_stages_cost_and_what_sharing_saves(
    space: Callable[..., Path], call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", space()) == 0
    out = capsys.readouterr().out
    assert "Does one thing help another?" in out
    assert "points  4" in out
    assert "stages  7 distinct (6 training), 0 in the store" in out  # a text, two of each of scratch, warm and nca
    assert "2.05k -> 3.07k" in out
    assert "tokens  16.4k" in out
    assert "sharing saves" in out
    assert not store.root.exists()  # planning writes nothing


QUIET = """
import runpy, sys
sys.argv = ["harness", "plan", {target!r}, "--store", {store!r}]
try:
    runpy.run_module("harness", run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
import ray
assert not ray.is_initialized()
print("LOADED", sorted(set(sys.modules) & {{"torch", "transformers", "datasets", "numba"}}))
"""


def test_plan_starts_no_ray_and_imports_nothing_heavy(space: Callable[..., Path], store: Store) -> None:
    program = QUIET.format(target=str(space()), store=str(store.root))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_python_m_harness_is_the_command(space: Callable[..., Path], store: Store) -> None:
    command = [sys.executable, "-m", "harness", "plan", str(space(lr="-1.0")), "--store", str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["error: scratch seed=0: Recipe.lr = -1.0: use a positive number"]


# ---- bad input


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"source": "NCA(band=(0.4, 0.3))"}, "NCA.band = (0.4, 0.3): "),
        ({"source": "NCA(band=(-0.1, 0.3))"}, "NCA.band = (-0.1, 0.3): "),
        ({"source": "NCA(band=(0.5, 1.5))"}, "NCA.band = (0.5, 1.5): "),
        ({"source": "NCA(states=10, grid=12, patch=4)"}, "NCA.states, NCA.patch = (10, 4): "),
        ({"source": "NCA(grid=7, patch=2)"}, "NCA.grid = 7: "),
        ({"tokens": "255"}, "Train.tokens = 255: one step is 8 x 32 = 256 tokens"),
        ({"arms": "[lambda seed, band: scratch(seed)]"}, "axis 'band' is not in Study.over, which has seed"),
        ({"lr": "float('nan')"}, "Recipe.lr = nan: "),
        ({"text": "/no/such/place"}, "Text.files = '/no/such/place': does not exist"),
    ],
    ids=["band reversed", "band below", "band above", "ids", "patch", "budget", "axis", "nan", "text"],
)
def test_bad_settings_are_refused_in_one_line(
    space: Callable[..., Path], refused: Callable[..., str], values: dict[str, str], line: str
) -> None:
    assert line in refused(space(**values))


def test_heads_that_do_not_divide_the_width_are_refused(
    space: Callable[..., Path], refused: Callable[..., str]
) -> None:
    assert refused(space(heads=3)).startswith("space.py: Llama.heads = 3: must divide width = 16")


def test_text_that_is_empty_or_binary_is_refused(
    space: Callable[..., Path], refused: Callable[..., str], tmp_path: Path
) -> None:
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.touch()
    binary.write_bytes(b"\x00\x01\x02")
    assert "empty.txt': holds no text" in refused(space(text=empty))
    assert "binary" in refused(space(text=binary))


def test_an_unknown_dataset_is_refused_before_anything_runs(
    space: Callable[..., Path], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    def unknown(*args: object, **kwargs: object) -> None:
        raise HFValidationError("no such thing\nat all")

    monkeypatch.setattr(HfApi, "repo_info", unknown)
    path = space()
    path.write_text(re.sub(r"Text\.local\('.*?'", "Text('un/known'", path.read_text()))
    assert "Text.dataset = 'un/known': " in refused(path, commands=("run",))


def test_files_that_hold_no_study_are_refused(refused: Callable[..., str], space: Callable[..., Path]) -> None:
    path = space()
    assert "there is no such file" in refused(path.with_name("none.py"))
    path.with_name("README.md").write_text("text\n")
    assert "is no Python file" in refused(path.with_name("README.md"))
    assert refused(f"{path}:other").endswith("there is no 'other'; studies in this file: study")
    path.with_name("plain.py").write_text("number = 1\n")
    assert "there is no 'study'" in refused(path.with_name("plain.py"))
    path.with_name("broken.py").write_text("number = 1\ndef\n")
    assert f"{path.with_name('broken.py')}:2: invalid syntax" in refused(path.with_name("broken.py"))


def test_a_store_that_cannot_be_written_is_refused(
    space: Callable[..., Path], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store.root.with_name("file")
    file.write_text("")
    path = space()
    for place, why in ((file, "is no directory"), (file / "store", "cannot be written")):
        assert main(["run", str(path), "--store", str(place), "--in-process"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"error: store = '{place}': {why}")


def test_what_is_to_stand_beside_is_read_before_anything_runs(
    space: Callable[..., Path], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(space()), "--store", str(store.root), "--in-process", "--beside", "nope"]) == 2
    assert capsys.readouterr().err.startswith("error: --beside = nope: no readable export")
    assert not list((store.root / "stages").glob("*"))


def test_an_output_that_nobody_reads_ends_it_without_a_word(space: Callable[..., Path], store: Store) -> None:
    Path(store.root).mkdir()
    command = [sys.executable, "-m", "harness", "status", str(space()), "--store", str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None and told.stderr is not None
        told.stdout.close()
        assert (told.stderr.read(), told.wait()) == ("", 141)


def test_a_store_without_room_is_refused(
    space: Callable[..., Path], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.store.shutil.disk_usage", lambda path: types.SimpleNamespace(free=10))
    assert "GB are free" in refused(space(), commands=("run",))


def test_a_budget_beyond_the_text_is_refused_before_training(
    space: Callable[..., Path], call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", space(tokens="10_000_000", arms="[]"), "--in-process") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # seeds
    assert all(line.startswith("failed: ") and "Train.tokens = " in line and "Corpus(epochs=" in line for line in lines)
    assert not list(Path(store.root).rglob("curve.jsonl"))
    assert call("run", space(tokens="10_000_000"), "--in-process") == 2  # the text is there by now
    assert capsys.readouterr().err.startswith("error: Train.tokens = ")


@pytest.mark.parametrize(
    "workers", ["0", "4:2", "0:2", ":2", "2:", "1:2:3", "two", "-1", "1.5", "", "2/3", "1/0", "4@1M", "1,2"]
)
def test_a_number_of_workers_that_is_none_is_refused(
    space: Callable[..., Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call("run", space(), f"--workers={workers}")
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"--workers: '.*' (is none of N, MIN:MAX and 1/N|has a MIN above its MAX)", said)


def test_workers_are_a_number_a_range_or_a_share_by_parameters() -> None:
    from harness.cluster.resources import Workers

    def workers(text: str) -> tuple[Workers, ...]:
        found: tuple[Workers, ...] = parser().parse_args(["run", "FILE", "--workers", text]).workers
        return found

    assert parser().parse_args(["run", "FILE"]).workers == (Workers(),)
    assert workers("4") == (Workers(4, 4),)
    assert workers("2:16") == (Workers(16, 2),)
    assert workers("1/4,1@50M,4:8@1.5B") == (Workers(per_gpu=4), Workers(params=50e6), Workers(8, 4, params=1.5e9))


# ---- run


class Ran(NamedTuple):
    """A store in which the study was run, and what was printed."""

    root: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, space: Callable[..., Path]) -> Ran:
    root = tmp_path_factory.mktemp("ran") / "store"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["run", str(space()), "--store", str(root), "--in-process"]) == 0
    return Ran(root, out.getvalue(), err.getvalue())


@pytest.fixture
def finished(ran: Ran, store: Store, space: Callable[..., Path]) -> Path:
    """The search space of a study that was run in `store`."""
    shutil.copytree(ran.root, store.root)
    return space()


def test_run_computes_every_stage_and_reports(ran: Ran) -> None:
    assert ran.err == ""
    assert len(list(ran.root.glob("stages/*/DONE"))) == 7
    report = Path(ran.out.splitlines()[-1].removeprefix("report: "))
    assert report.is_file()
    assert "no verdict (2 pairs, 4 needed)" in ran.out
    assert "Does one thing help another?" in report.read_text()


def test_a_second_run_computes_nothing_and_says_so(
    finished: Path,
    call: Callable[..., int],
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(store.root).glob("stages/**/*")}
    monkeypatch.setattr(stages, "run_here", lambda *args: pytest.fail("a stage was run"))
    assert call("run", finished, "--in-process") == 0
    assert "nothing to compute: all 7 stages of tiny are in" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in Path(store.root).glob("stages/**/*")} == before


def test_a_study_that_grows_computes_only_what_is_new(
    finished: Path, space: Callable[..., Path], call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []

    def noted(stage: Any, store: Store, *how: Any) -> object:
        started.append(stage)
        return run_here(stage, store)

    monkeypatch.setattr(stages, "run_here", noted)
    assert call("run", space(seeds="[0, 1, 2]"), "--in-process") == 0
    assert [stage.seed for stage in started] == [2, 2, 2]  # scratch, warm and nca


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("weights/model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x55")),
        ("curve.jsonl", lambda p: p.write_bytes(p.read_bytes()[:-9])),
        ("manifest.json", Path.unlink),
        ("../DONE", lambda p: p.write_bytes(b"{")),
    ],
    ids=["altered", "cut", "missing", "marker"],
)
def test_a_damaged_stage_is_named_set_aside_and_made_anew(
    finished: Path,
    call: Callable[..., int],
    store: Store,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: Callable[[Path], object],
) -> None:
    manifests = {p.parent.parent.name: json.loads(p.read_text()) for p in store.root.glob("stages/*/*/manifest.json")}
    digest = next(d for d, m in manifests.items() if m["kind"] == "Train" and "init" in m["parents"])
    before = {name: t.clone() for name, t in stages.read_weights(store, digest).items()}  # not the file's memory
    attempt = store.open(digest)
    assert attempt is not None
    damage((attempt / file).resolve())
    assert call("run", finished, "--in-process") == 0
    named = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged: ")]
    assert len(named) == 1
    assert digest[:12] in named[0]
    assert file.removeprefix("../").split("/")[0] in named[0]
    assert len(list(Path(store.root / "damaged").iterdir())) == 1
    assert store.damage(digest) == []
    after = stages.read_weights(store, digest)
    assert all((before[name] == after[name]).all() for name in before)


def test_what_is_interrupted_exits_with_130_and_goes_on(
    space: Callable[..., Path],
    call: Callable[..., int],
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def third(stage: object, store: Store, *how: Any) -> object:
        if len(list(store.root.glob("stages/*/DONE"))) == 2:
            raise KeyboardInterrupt
        return run_here(stage, store)

    path = space()
    with monkeypatch.context() as patch:
        patch.setattr(stages, "run_here", third)
        assert call("run", path, "--in-process") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert len(list(store.root.glob("stages/*/DONE"))) == 2
    assert call("run", path, "--in-process") == 0
    assert len(list(store.root.glob("stages/*/DONE"))) == 7


LONG = '''
"""Does it end?"""
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32)

def scratch():
    return Train(Corpus(NCA(states=2, grid=4)), 10**6 * 8 * 32, MODEL, Recipe(1e-2, 8), 0, Evaluation(2, 8))

study = Study("long", __doc__, scratch, [])
'''


@pytest.mark.parametrize(
    ("how", "heard"),
    [
        ("--in-process", True),
        ("--in-process", False),
        pytest.param("--in-trial", False, marks=[pytest.mark.ray, pytest.mark.slow]),
        pytest.param("--cpus=1", True, marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_ctrl_c_saves_the_step_of_a_running_stage(tmp_path: Path, store: Store, how: str, heard: bool) -> None:
    (tmp_path / "long.py").write_text(LONG)
    plan = plans.make(load_space(str(tmp_path / "long.py")))
    (address,) = plan.stages
    command = [sys.executable, "-m", "harness", "run", str(tmp_path / "long.py"), "--store", str(store.root), how]
    steps = [0]
    for _ in range(2):
        with interruptible([*command, "--checkpoint-every", "600"]) as process:
            live = store.resume(address) / "live.json"
            while not (live.exists() and json.loads(live.read_text())["step"] > steps[-1]):
                assert process.poll() is None
                time.sleep(0.05)
            assert process.stdout is not None and process.stderr is not None
            if not heard:
                process.stderr.close()
            process.send_signal(signal.SIGINT)
            said = process.stdout.read().splitlines()
            assert process.wait(60) == 130
            assert "interrupted: 0 of 1 stages done, the same command goes on" in said
            if heard:
                err = process.stderr.read()
                assert "stages that train save their step and stop" in err and "Traceback" not in err
        assert {view.state for view in Watch(plan, store).look().stages} == {"waiting"}
        assert not list(store.scratch.glob("stop/*"))
        steps.append(resume.newest(store.resume(address)).step)
        assert steps[-1] > steps[-2]


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path: Path, store: Store) -> None:
    (tmp_path / "long.py").write_text(LONG)
    options = ["run", str(tmp_path / "long.py"), "--store", str(store.root), "--in-process"]
    deaf = f"from harness import __main__, loop; loop.NOTICE_S = 1e9; raise SystemExit(__main__.main({options!r}))"
    with interruptible([sys.executable, "-c", deaf]) as process:
        while not list(store.resume("").glob("*/live.json")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "once more to end at once" not in (said := process.stderr.readline()):
            assert said
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from here" in err and "Traceback" not in err


@pytest.mark.parametrize("option", ["--workers=2", "--concurrent=2", "--cpus=2", "--in-trial", "--generator-gpus=.5"])
def test_what_is_for_a_cluster_is_refused_in_process(
    space: Callable[..., Path], refused: Callable[..., str], option: str
) -> None:
    said = refused(space(), option, commands=("run",))
    assert said.startswith(f"{option.partition('=')[0]}: --in-process runs one stage after another")


def test_a_diverged_stage_fails_the_run_and_blocks_only_what_needs_it(
    space: Callable[..., Path], call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space(warm_lr="1e30")
    for _ in range(2):
        assert call("run", path, "--in-process") == 1
        assert "diverged" in capsys.readouterr().err
        assert len(list(store.root.glob("stages/*/DONE"))) == 5  # the text, scratch and what diverged


# ---- status and report


def test_status_says_what_is_done_and_what_waits(
    space: Callable[..., Path], call: Callable[..., int], ran: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("status", space()) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].startswith("tiny: 0/7 stages done, 0 running")
    assert said.err == f"store = {str(store.root)!r}: there is none yet; --store or NCA_STORE names another\n"
    shutil.copytree(ran.root, store.root)
    assert call("status", space()) == 0
    head, gaps, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("tiny: 7/7 stages done, 0 running")
    assert re.fullmatch(r"loss gap .*: nca [+-]\d\.\d{3} \(2 of 2 pairs, 3.07k tokens\)", gaps)
    assert all(line.startswith("done ") for line in lines[:7])
    promised, spent = lines[7:]
    assert re.fullmatch(r"promised  [\d.]+ device-seconds for 6 training stages at 400 TFLOP/s a device .*", promised)
    assert re.fullmatch(r"spent     [\d.]+ device-seconds on 6 of them, .*: [\d.]+ times the promise", spent)


def test_status_tells_money_where_a_price_was_given(
    space: Callable[..., Path], call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space(arms="[]", seeds="[0]")
    assert call("run", path, "--in-process", "--tflops", "1e-5", "--price", "3600") == 0
    out = capsys.readouterr().out
    registered = json.loads((store.study("tiny") / "points.json").read_text())["promise"]
    (seconds,) = (3600 * hours for hours in registered["stages"].values())
    assert registered["money"] == pytest.approx(seconds)  # a money a second
    assert f"money   {seconds:,.2f} at 3600 a device-hour" in out
    assert call("status", path) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    manifest = next(m for d in registered["stages"] if (m := store.manifest(d)))
    assert line == f"money     {manifest['wall_s']:,.2f} spent of {seconds:,.2f}, at 3600 a device-hour"


def test_a_promise_is_of_what_was_left_and_is_kept(
    finished: Path, space: Callable[..., Path], call: Callable[..., int], store: Store
) -> None:
    def promised() -> dict[str, Any]:
        return json.loads((store.study("tiny") / "points.json").read_text())["promise"]

    first = promised()
    assert (len(first["stages"]), first["found"]) == (6, 0)
    assert call("run", finished, "--in-process", "--tflops", "7") == 0
    assert promised() == first
    grown = space(seeds="[0, 1, 2]")
    assert call("run", grown, "--in-process") == 0
    second = promised()
    assert (len(second["stages"]), second["found"]) == (3, 6)
    assert "measured on 6 stages of this store" in second["rate"]
    took = sum(m["wall_s"] for d in second["stages"] if (m := store.manifest(d))) / 3600
    assert 0.2 < took / second["device_hours"] < 5  # stages like those that were measured


@pytest.mark.parametrize("option", ["--tflops", "--price"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much", ""])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_rate_or_price_that_is_none_is_refused(
    space: Callable[..., Path],
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    command: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(command, space(), f"{option}={value}")
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{option}: {value!r} is not a number above 0")


def test_plan_says_what_tells_a_stage_from_the_stored(
    finished: Path, space: Callable[..., Path], call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan", finished) == 0
    assert "not in the store:" not in capsys.readouterr().out  # all are
    changed = space(warm_lr="2e-2")
    assert call("plan", changed) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "not in the store:" in line]
    assert lines == [
        "not in the store: 2 stages differ from the nearest stored Train in recipe.lr 0.02 here, 0.01 there",
        "not in the store: 2 stages differ from the nearest stored Train in init.recipe.lr 0.02 here, 0.01 there",
    ]
    assert call("plan", changed, "--why") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "not in the store:" in line]
    assert len(lines) == 4
    assert re.search(r": [0-9a-f]{12} NCA 2.05k seed 0: recipe.lr 0.02 here, 0.01 in [0-9a-f]{12}$", lines[0])


def test_report_is_made_again_from_the_store_alone(
    finished: Path, call: Callable[..., int], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (page,) = Path(store.study("tiny")).glob("*.html")
    page.unlink()
    assert call("report", finished) == 0
    assert page.is_file()
    assert str(page) in capsys.readouterr().out


def test_report_before_any_run_is_refused_in_one_line(space: Callable[..., Path], refused: Callable[..., str]) -> None:
    refused(space(), commands=("report",))


def test_the_store_can_be_named_in_the_environment(
    space: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NCA_STORE", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(space(arms="[]")), "--in-process"]) == 0
    assert list((tmp_path / "elsewhere").glob("stages/*/DONE"))
