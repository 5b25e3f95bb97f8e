"""The Ray side: same results as in process, whatever is killed, and nothing started that cannot fit."""

import contextlib
import functools
import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import tune

from harness import failure, resume, space
from harness import plan as plans
from harness.cluster import starts
from harness.cluster.resources import Workers, allot, resources
from harness.errors import InputError
from harness.limits import Limit, Meter
from harness.reasoning import shards
from harness.reasoning.spec import Evaluate, Means
from harness.sources.answers import Answers
from harness.specs import State, Train, digest
from harness.stages import run_here
from harness.store import Store
from harness.url import Url, UrlError
from harness.worker import Batch, Options, Worker, read_here
from tests.runs import curve
from tests.test_evaluate import ROW

STUDY = '''
"""Is a study run by Ray the study run here?"""
import os
import signal
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar
import numpy as np
from ray import tune
from harness.reasoning import tasks
from harness.reasoning.tasks import GSM8K, Benchmark, HumanEval, Tuning
from harness.sources.answers import Answers
from harness.sources.nca import NCA
from harness.sources.rows import Rows, Template
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer

TEXT = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)
MODEL = Llama(depth=2, width=16, heads=2, mlp=32, context=32)
EVALUATION = Evaluation(points=4, sequences=4)


@dataclass(frozen=True)
class Counting:
    """A source that lives in this file alone; `broken` makes it fail, `deadly` ends the process that trains on it."""
    version: ClassVar[int] = 1
    stored: ClassVar[bool] = False
    broken: bool = False
    deadly: bool = False
    vocab_size: ClassVar[int] = 18
    frame_tokens: ClassVar[None] = None
    token_bytes: ClassVar[None] = None

    def open(self, artifact=None):
        return self

    def epoch(self, context):
        return None

    def sequences(self, seed, index, context):
        if self.broken:
            raise RuntimeError("this source is broken on purpose")
        tokens = (np.asarray(index)[:, None] + np.arange(context + 1)) % 18
        return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)

    def held_out(self, count, context):
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return Counting().sequences(0, np.arange(count) + 10**6, context)


@dataclass(frozen=True)
class Noted(Counting):
    """Writes down which process trains on it, and takes a second until there were two."""

    def held_out(self, count, context):
        with open({log!r} + ".pids", "a+") as f:
            print(os.getpid(), file=f, flush=True)
            f.seek(0)
            if len(set(f)) < 2:
                time.sleep(1)
        return super().held_out(count, context)


def train(source, steps, seed):
    return Train(Corpus(source, seed, epochs=99), steps * 8 * 32, MODEL, Recipe(lr=3e-3, batch=8), seed, EVALUATION)


def scratch(seed):
    return train(TEXT, {steps}, seed)


def nca(seed):
    return scratch(seed).after(train(NCA(states=2, grid=4, patch=2, band=(0.05, 0.9)), {steps}, seed))


def counting(seed):
    return scratch(seed).after(train(Counting(), {steps}, seed), Transfer(blocks="permuted"))


def broken(seed):
    return scratch(seed).after(train(Counting(broken=True), {steps}, seed))


def noted(seed):
    return train(Noted(), 1, seed).after(train(Counting(), 1, 0))


def deadly(seed):
    return scratch(seed).after(train(Counting(deadly=True), {steps}, seed))


def growing(budget, seed):
    recipe = Recipe(lr=3e-3, batch=8, schedule="wsd", warmup=512)
    return replace(scratch(seed), tokens=budget * 8 * 32, recipe=recipe)


def grown(budget, seed):
    automata = Corpus(NCA(states=2, grid=4, patch=2), seed)
    return growing(budget, seed).after(replace(growing(budget, seed), corpus=automata))


KNOWN = Answers(Rows.local({known!r}), TEXT, Template("{{question}} ="), held_out=0.2)


def tuned(seed):
    return tasks.tune(scratch(seed), KNOWN, 24, Tuning(2, Recipe(lr=3e-3, batch=8)), seed, EVALUATION)


def tuned_nca(seed):
    return replace(tuned(seed), init=nca(seed))


@dataclass(frozen=True)
class Logged(GSM8K):
    """Writes down what it is asked, and by whom."""

    def answer(self, lm, problems, stage, means):
        with open({log!r}, "a") as f:
            f.write("".join(f"{{os.getpid()}} {{p.name}}\\n" for p in problems))
        time.sleep({slow})
        return super().answer(lm, problems, stage, means)


ASKED = Logged(Rows.local({test!r}), None, Template("{{question}} ="), max_tokens=4)
SUMS = {{"sums": Benchmark(ASKED, 2, 1.0)}}
asked = Study("asked", __doc__, tuned, [tuned_nca], {{"seed": tune.grid_search([3])}}, benchmarks=SUMS)
once = replace(asked, name="once", arms=[])
CODE = {{"code": Benchmark(HumanEval(Rows.local({code!r}), max_tokens=4), 2, 1.0)}}
code = Study("code", __doc__, scratch, [], {{"seed": tune.grid_search([3])}}, benchmarks=CODE)
study = Study("twin", __doc__, scratch, [nca, counting], {{"seed": tune.grid_search([0])}})
BUDGETS = {{"budget": tune.grid_search([10, 16]), "seed": tune.grid_search([0])}}
nested = Study("nested", __doc__, growing, [grown], BUDGETS)
partly = Study("partly", __doc__, scratch, [broken], {{"seed": tune.grid_search([1])}})
fan = Study("fan", __doc__, noted, [], {{"seed": tune.grid_search(list(range(12)))}})
dying = Study("dying", __doc__, scratch, [deadly], {{"seed": tune.grid_search([1])}})
long = Study("long", __doc__, scratch, [nca], {{"seed": tune.grid_search([2])}})
'''


MEANS = Means()


def generated(plan: plans.Plan) -> str:
    """The digest of the first stage that trains on generated sequences."""
    return next(
        d for d, s in plan.stages.items() if isinstance(s, Train) and s.init is None and not s.corpus.source.stored
    )


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from harness.cluster import connection, sweep

    connection.connect(2)
    yield sweep
    ray.shutdown()


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("space")
    texts = directory / "text"
    texts.mkdir()
    rng = np.random.default_rng(0)
    names = [f"name_{i}" for i in range(40)]
    for i in range(20):
        lines = [f"{rng.choice(names)} = {rng.choice(names)} + {rng.integers(100)}" for _ in range(120)]
        (texts / f"{i}.py").write_text("\n".join(lines))
    for name, first, count in (("known", 0, 60), ("test", 60, 100)):
        rows = [{"question": f"name_{i % 40}", "answer": f"{i % 9}\n#### {i % 9}"} for i in range(first, first + count)]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "code.jsonl").write_text(json.dumps(ROW | {"prompt": "def add(a, b):\n"}) + "\n")  # fits the context
    for name, steps, slow in (("spaces", 24, 0.0), ("long", 400, 0.2)):
        settings = {name: str(directory / f"{name}.jsonl") for name in ("known", "test", "code")}
        log = str(directory / f"{name}.log")
        source = STUDY.format(text=str(texts), steps=steps, slow=slow, log=log, **settings)
        (directory / f"{name}.py").write_text(source)
    return directory / "spaces.py"


def run(
    sweep: Any, target: str, store: Store, workers: int = 1, every: float = 60.0, in_trial: bool = False,
    means: Means = MEANS,
) -> tuple[plans.Plan, Any]:  # fmt: skip
    from harness.cluster.connection import most_resources

    study = space.load(target)
    plan = plans.make(study)
    allotment = allot(most_resources(), plan.stages, (Workers(workers, workers),), in_trial=in_trial)
    return plan, sweep.run(plan, store, allotment, Options(checkpoint_every_s=every, starts=plan.starts, means=means))


def weights(store: Store, address: str) -> bytes:
    attempt = store.open(address)
    assert attempt is not None
    return (attempt / "weights" / "model.safetensors").read_bytes()


@pytest.mark.ray
@pytest.mark.parametrize("in_trial", [False, True])
def test_ray_and_this_process_give_the_same_curves_bit_for_bit(
    ray_here: Any, space_file: Path, tmp_path: Path, in_trial: bool
) -> None:
    remote, here = Store(tmp_path / "remote"), Store(tmp_path / "here")
    plan, outcome = run(ray_here, str(space_file), remote, in_trial=in_trial)
    assert outcome.computed == set(plan.stages) and not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        mine, theirs = here.manifest(address), remote.manifest(address)
        assert mine is not None and theirs is not None
        assert mine["executed"] == "in_process"
        if isinstance(stage, Train):
            assert theirs["executed"] == ("trial" if in_trial else "ray")
            assert curve(remote, address) == curve(here, address)
            assert weights(remote, address) == weights(here, address)
            assert theirs["sequence_hash"] == mine["sequence_hash"]
    _, again = run(ray_here, str(space_file), remote)
    assert again.computed == set()


@pytest.mark.ray
@pytest.mark.slow
def test_budgets_that_share_their_beginning_give_the_curves_of_runs_of_their_own(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    remote, here = Store(tmp_path / "remote"), Store(tmp_path / "here")
    plan, outcome = run(ray_here, f"{space_file}:nested", remote)
    assert outcome.computed == set(plan.stages)
    assert sum(isinstance(stage, State) for stage in plan.stages.values()) == 2
    for address, stage in plan.stages.items():
        if isinstance(stage, State):
            continue
        run_here(stage, here)
        if isinstance(stage, Train):
            manifest = remote.manifest(address)
            assert manifest is not None and manifest["start"] == plan.starts.get(address)
            assert curve(remote, address) == curve(here, address)
            assert weights(remote, address) == weights(here, address)


def samples(store: Store, address: str) -> bytes:
    found = store.read(address, "samples.jsonl")
    assert found is not None
    return found


@pytest.mark.ray
@pytest.mark.timeout(900)  # nine stages
@pytest.mark.parametrize("in_trial", [pytest.param(False, marks=pytest.mark.slow), True])
def test_tuning_and_benchmarks_on_ray_are_those_of_this_process(
    ray_here: Any, space_file: Path, tmp_path: Path, in_trial: bool
) -> None:
    remote, here = Store(tmp_path / "remote"), Store(tmp_path / "here")
    plan, outcome = run(ray_here, f"{space_file}:asked", remote, in_trial=in_trial)
    assert outcome.computed == set(plan.stages) and not outcome.failed
    kinds = [type(stage).__name__ for stage in plan.stages.values()]
    assert (kinds.count("Evaluate"), kinds.count("Answers"), kinds.count("Train")) == (2, 1, 5)
    for address, stage in plan.stages.items():
        run_here(stage, here)
        mine, theirs = here.manifest(address), remote.manifest(address)
        assert mine is not None and theirs is not None
        if isinstance(stage, Evaluate):
            assert theirs["executed"]["on"] == ("trial" if in_trial else "ray")
            assert samples(remote, address) == samples(here, address)
            assert theirs["scores"] == mine["scores"] and theirs["problems"] == 100
        if isinstance(stage, Train):
            assert curve(remote, address) == curve(here, address)
            assert weights(remote, address) == weights(here, address)
        if isinstance(stage, Answers):
            assert theirs["executed"] == "ray" and theirs["train"] == mine["train"]
    assert not list(remote.resume("").glob("*/samples-*"))


@pytest.mark.ray
@pytest.mark.slow
def test_leave_to_run_generated_code_comes_to_the_workers(ray_here: Any, space_file: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan, outcome = run(ray_here, f"{space_file}:code", store)
    (address,) = (d for d, stage in plan.stages.items() if isinstance(stage, Evaluate))
    assert set(outcome.failed) == {address} and "code that would be run" in outcome.failed[address]
    _, outcome = run(ray_here, f"{space_file}:code", store, means=Means(allow_code=True))
    manifest = store.manifest(address)
    assert outcome.computed == {address} and manifest is not None
    assert manifest["scores"]["ended"] == {"failed": 2}


def log_of(target: str) -> list[tuple[str, str]]:
    """(process, problem) of everything that was asked."""
    log = Path(target.partition(":")[0]).with_suffix(".log")
    return [(line.split()[0], line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.ray
@pytest.mark.slow
def test_an_evaluation_goes_on_with_the_shards_that_are_left_whoever_is_killed(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    import psutil

    target = f"{space_file.parent / 'long.py'}:once"
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan = plans.make(space.load(target))
    (address,) = (d for d, stage in plan.stages.items() if isinstance(stage, Evaluate))
    for d, stage in plan.stages.items():
        for each in (store, here):
            if d != address:
                run_here(stage, each)
    begun = shards.answer_here(plan.stages[address], cut(plan.stages[address])[:1], store, Means(threads=1))
    assert sum(begun) == 32  # as a driver that was killed leaves it
    before = len(log_of(target))
    killed: list[str] = []

    def kill() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not killed:
            time.sleep(0.05)
            # Of two at work, the one that has done one shard.
            if len(list(store.resume(address).glob("samples-*"))) < 2:
                continue
            for process in psutil.process_iter(["cmdline"]):
                if not killed and any("ray::Examinee" in part for part in process.info["cmdline"] or []):
                    process.send_signal(signal.SIGKILL)
                    killed.append(str(process.pid))

    thread = threading.Thread(target=kill)
    thread.start()
    _, outcome = run(ray_here, target, store)
    thread.join()
    assert killed and outcome.computed == {address} and not outcome.failed
    asked = log_of(target)[before:]
    assert not {problem for _, problem in asked} & {str(i) for i in range(32)}
    assert {process for process, _ in asked} > set(killed)
    assert len(asked) < 68 + 33  # at most the shard that it was at was begun again
    run_here(plan.stages[address], here)
    assert samples(store, address) == samples(here, address)


def cut(stage: Evaluate) -> list[shards.Shard]:
    return shards.cut(stage.task.read(0, 0))


@pytest.mark.ray
def test_a_store_that_a_node_does_not_see_is_refused_with_its_address(
    ray_here: Any, store: Store, remote: Store
) -> None:
    from harness.cluster import nodes

    store.check()
    nodes.check(store)
    assert not list(Path(store.scratch).iterdir())  # no probe stays
    # Ray's processes were started before the variables of the bucket were set: what this process sees, they do not.
    with pytest.raises(InputError, match=r"^store = 's3://.*': node [\d.]+ does not see it \(.*\); use a directory"):
        nodes.check(remote)
    assert isinstance(remote.scratch, Url) and remote.scratch.find() == {}


@pytest.mark.ray
def test_a_process_that_starts_for_a_stage_gets_work_although_others_are_free_before_it(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    _, outcome = run(ray_here, f"{space_file}:fan", Store(tmp_path / "store"), in_trial=True)
    assert not outcome.failed
    assert len(set((space_file.parent / "spaces.log.pids").read_text().split())) > 1


def test_a_trial_that_waits_for_longer_than_a_start_gets_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.experiment import Trial

    from harness.cluster.schedulers import START_S, KeepStarting

    clock = itertools.count(0, START_S / 2 + 1)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    trials = [Trial("stage", stub=True) for _ in range(3)]
    trials[0].set_status(Trial.RUNNING)
    scheduler, controller = KeepStarting(), SimpleNamespace(get_trials=lambda: trials)
    for trial in trials[:2]:
        scheduler.on_trial_add(controller, trial)  # at 0 and 16
    scheduler.on_trial_add(controller, trials[2])  # at 32
    assert scheduler.choose_trial_to_run(controller) is trials[1]  # at 48
    scheduler.on_trial_add(controller, trials[1])  # again at 64: its machine went
    trials[2].set_status(Trial.TERMINATED)
    assert scheduler.choose_trial_to_run(controller) is None  # at 80


def test_whatever_waits_ends_and_callbacks_hear_of_what_began(store: Store) -> None:
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import MedianStoppingRule

    from harness.cluster.schedulers import ending

    ended: list[tuple[str, Any]] = []
    meter = Meter(Limit(), store, store.scratch / "stop")
    scheduler = ending(MedianStoppingRule(), meter)
    trials = [Trial("stage", stub=True) for _ in range(4)]
    controller = SimpleNamespace(
        get_trials=lambda: trials,
        stop_trial=lambda trial: ended.append(("stopped", trial)),
        search_alg=SimpleNamespace(on_trial_complete=lambda _: None),
        _tune_controller=SimpleNamespace(_schedule_trial_stop=lambda trial: ended.append(("silently", trial))),
    )
    for trial in trials:
        trial.init_local_path = lambda: None
    for trial in trials[:3]:
        trial.set_status(Trial.RUNNING)
    scheduler.choose_trial_to_run(controller)
    assert not ended
    trials[0].set_status(Trial.PAUSED)
    trials[1].set_status(Trial.PENDING)  # its machine went
    meter.reached = "1 h"
    assert scheduler.choose_trial_to_run(controller) is None
    assert ended == [("stopped", trials[0]), ("stopped", trials[1]), ("silently", trials[3])]


@pytest.mark.ray
def test_others_compute_while_some_of_what_a_worker_needs_is_in_use(
    ray_here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from harness.cluster import train

    monkeypatch.setattr(train, "BETWEEN_S", 0.1)
    cpus, gpus = resources({"CPU": 2.0}, Workers()), resources({"CPU": 2.0, "GPU": 1.0}, Workers())
    holding: Any = ray.remote(num_cpus=1)(Rank).remote()
    ray.get(holding.started.remote())
    deadline = time.monotonic() + 30
    while not train.others_compute(cpus):
        assert time.monotonic() < deadline
    assert not train.others_compute(gpus)  # there are none, so none will become free
    ray.kill(holding)
    while train.others_compute(cpus):
        assert time.monotonic() < deadline


@pytest.mark.ray
@pytest.mark.parametrize(
    ("workers", "in_trial"), [(Workers(), False), (Workers(2, fewest=1), False), (Workers(), True)]
)
def test_stages_that_wait_for_machines_end_with_the_run(
    ray_here: Any, space_file: Path, tmp_path: Path, workers: Workers, in_trial: bool
) -> None:
    import ray

    from harness.cluster.connection import most_resources

    store = Store(tmp_path / "store")
    plan = plans.make(space.load(f"{space_file}:fan"))
    for stage in plan.stages.values():
        if not isinstance(stage, Train):
            run_here(stage, store)
    holding: Any = ray.remote(num_cpus=2)(Rank).remote()
    ray.get(holding.started.remote())
    allotment = allot(most_resources(), plan.stages, (workers,), in_trial=in_trial)
    plan = replace(plan, study=replace(plan.study, callbacks=[Strict()]))
    try:
        with Meter(Limit(), store, store.scratch / "stop" / "run") as meter:
            threading.Timer(8.0, meter.interrupt).start()
            began = time.monotonic()
            outcome = ray_here.run(plan, store, allotment, Options(stop=meter.stop), meter)
    finally:
        ray.kill(holding)
    assert meter.interrupted and time.monotonic() - began < 40
    assert not outcome.failed and not outcome.computed and outcome.left(plan.stages)


def test_machines_are_waited_for_while_others_compute(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    from harness.cluster import failures, train

    spec, stop = small(units=1, rows=32, steps=4), tmp_path / "stop"
    others, waits = itertools.chain([True] * 2 * starts.LIMIT, itertools.repeat(False)), list[int]()

    def wait() -> str | None:
        waits.append(1)
        raise ControllerError(WorkerGroupStartupTimeoutError(2))

    of = resources({"CPU": 2.0}, Workers())
    monkeypatch.setattr(train, "others_compute", lambda of: next(others))
    with pytest.raises(failures.StageFailed, match="its workers could not be started at step 0: "):
        train._fit(spec, store, of, Options(stop=stop), wait)
    assert len(waits) == 2 * starts.LIMIT + 1
    stop.touch()
    assert train._fit(spec, store, of, Options(stop=stop), wait) == failures.STOPPED


def test_text_that_waits_for_a_machine_ends_with_the_run_and_text_that_is_encoded_does_not() -> None:
    from harness.cluster.data import until_stopped
    from harness.worker import Stopped

    come = threading.Event()

    def rows() -> Iterator[int]:
        yield 1
        come.wait()
        yield 2

    found = until_stopped(rows(), lambda: True, lambda: False)
    assert next(found) == 1
    with pytest.raises(Stopped, match="waited for a machine"):
        next(found)
    threading.Timer(3.0, come.set).start()
    assert list(until_stopped(rows(), lambda: True, lambda: True)) == [1, 2]


def test_a_stage_whose_end_cannot_be_read_is_handed_out_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cluster import sweep
    from harness.outcome import standing

    stages: dict[str, Any] = {digest(s): s for s in (small(units=1, rows=32, steps=4, seed=seed) for seed in range(3))}
    plan = plans.Plan(None, (), (), stages, {})  # type: ignore[arg-type]
    outcome, meter = standing(plan.needs, store), Meter(Limit(), store, store.scratch / "stop")
    allotment = allot({"CPU": 1.0}, stages, in_trial=True)
    searcher = sweep.StageSearcher(plan, list(stages), outcome, store, allotment, meter)

    def away(*_: object) -> None:
        raise UrlError("store: is away")

    first = searcher.suggest("t1")["stage"]
    monkeypatch.setattr(Store, "manifest", away)
    searcher.on_trial_complete("t1", {}, error=True)
    assert outcome.failed == {first: "stopped"}
    second = searcher.suggest("t2")["stage"]
    searcher.on_trial_complete("t2", {"stage": 1, "status": "finished"})
    assert outcome.computed == {second}
    third = searcher.suggest("t3")["stage"]
    searcher.on_trial_complete("t3", {"stage": 0})
    assert searcher.suggest("t4")["stage"] == third and len({first, second, third}) == 3


@pytest.mark.ray
@pytest.mark.parametrize("in_trial", [False, True])
def test_a_failed_stage_blocks_only_what_needs_it(
    ray_here: Any, space_file: Path, tmp_path: Path, in_trial: bool
) -> None:
    store = Store(tmp_path / "store")
    plan, outcome = run(ray_here, f"{space_file}:partly", store, in_trial=in_trial)
    by_label = {plans.label(s): d for d, s in plan.stages.items()}
    failed = next(d for label, d in by_label.items() if label.startswith("Counting"))
    assert set(outcome.failed) == {failed}
    assert "this source is broken on purpose" in outcome.failed[failed]
    assert outcome.blocked == {digest(p.train) for p in plan.points if p.arm == "broken"}
    assert outcome.computed == set(plan.stages) - {failed} - outcome.blocked
    told = failure.read(store, failed)
    assert told is not None and told.reason == outcome.failed[failed]
    assert 'raise RuntimeError("this source is broken on purpose")' in "".join(told.last(20))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # five starts of two workers
@pytest.mark.parametrize("in_trial", [False, True])
def test_a_stage_whose_workers_die_again_and_again_gives_up(
    ray_here: Any, space_file: Path, tmp_path: Path, in_trial: bool
) -> None:
    workers = 1 if in_trial else 2
    plan, outcome = run(ray_here, f"{space_file}:dying", Store(tmp_path / "store"), workers, in_trial=in_trial)
    deadly = next(d for d, s in plan.stages.items() if plans.label(s).startswith("Counting"))
    assert outcome.failed.keys() == {deadly}  # in brackets, what the other worker met when it was left alone
    assert outcome.failed[deadly].startswith("its workers died 5 times at step 0 without a checkpoint in between (")
    assert len(outcome.computed) == len(plan.stages) - 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it copies its own settings
def test_the_cpus_of_workers_that_fail_as_they_start_come_back(ray_here: Any, tmp_path: Path) -> None:
    import ray
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig

    class Unreadable:
        """What cannot be read where it is sent."""

        def __reduce__(self) -> Any:
            return int, ("unreadable",)

    class Trial:
        def fit(self, name: str) -> str:
            from harness.cluster.trainer import Trainer

            settings = RunConfig(
                name=name, storage_path=str(tmp_path), failure_config=FailureConfig(controller_failure_limit=0)
            )
            trainer = Trainer(
                functools.partial(print, Unreadable()),
                scaling_config=ScalingConfig(num_workers=2),
                run_config=settings,
                stopping=lambda: False,
            )
            try:
                trainer.fit()
            except ControllerError as e:
                return str(e)
            return "it ran"

    trial: Any = ray.remote(num_cpus=0)(Trial).remote()
    for name in ("once", "again"):  # each takes all CPUs
        assert "unreadable" in ray.get(trial.fit.remote(name))


class Strict(tune.Callback):
    """Knows only trials that began, as loggers do."""

    def __init__(self) -> None:
        self.began: dict[str, bool] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.began[trial.trial_id] = True

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        assert self.began[trial.trial_id]

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        assert self.began[trial.trial_id]


class Rank:
    def started(self) -> float:
        import psutil

        return float(psutil.Process().create_time())

    def asks(self) -> None:
        from harness.cluster import spares

        spares.start()


@pytest.mark.ray
def test_a_rank_finds_a_process_that_was_started_ahead(ray_here: Any) -> None:
    import psutil
    import ray

    from harness.cluster import spares

    def processes() -> set[int]:
        return {p.pid for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::")}

    ranks: Any = ray.remote(num_cpus=1, runtime_env={"env_vars": spares.environment()})(Rank)
    first = ranks.remote()
    ray.get(first.started.remote())
    before = processes()
    ray.get(first.asks.remote())
    deadline = time.monotonic() + 60
    while not processes() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    ray.kill(first)
    time.sleep(0.5)
    asked = time.time()
    second = ranks.remote()
    assert ray.get(second.started.remote()) < asked - 0.5
    ray.kill(second)


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_worker_goes_on_where_it_was_and_gives_the_same_curve(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    import psutil

    target = f"{space_file.parent / 'long.py'}:long"
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan = plans.make(space.load(target))
    warm = generated(plan)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not killed:
            time.sleep(0.05)
            if not list(store.resume(warm).glob("step-*")) or store.open(warm) is not None:
                continue
            for process in psutil.process_iter(["cmdline"]):
                if any("RayTrainWorker" in part for part in process.info["cmdline"] or []):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    _, outcome = run(ray_here, target, store, every=0.5)
    thread.join()
    assert killed and not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        if isinstance(stage, Train):
            assert curve(store, address) == curve(here, address)
            assert weights(store, address) == weights(here, address)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_stops_at_its_limit_goes_on_and_gives_the_same_curves(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    from harness.cluster.connection import most_resources

    target = f"{space_file.parent / 'long.py'}:long"
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan = plans.make(space.load(target))
    allotment = allot(most_resources(), plan.stages)
    with Meter(Limit(hours=1.0), store, store.scratch / "stop" / "first") as meter:

        def enough() -> None:
            while not (store.resume(generated(plan)) / "live.json").exists():
                time.sleep(0.05)
            meter.limit = Limit(hours=0.0)

        threading.Thread(target=enough, daemon=True).start()
        options = Options(checkpoint_every_s=600, starts=plan.starts, stop=meter.stop)
        outcome = ray_here.run(plan, store, allotment, options, meter)
    assert meter.reached and not outcome.failed and not outcome.blocked
    stopped = [d for d in outcome.left(plan.stages) if resume.newest(store.resume(d)).step]
    assert stopped, "no stage was stopped in the middle"
    assert all(store.open(d) is None and not (store.resume(d) / "live.json").exists() for d in stopped)
    steps = {d: resume.newest(store.resume(d)).step for d in stopped}
    assert all(0 < step < plan.stages[d].steps for d, step in steps.items())
    _, outcome = run(ray_here, target, store)
    assert outcome.left(plan.stages) == [] and not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        if isinstance(stage, Train):
            assert curve(store, address) == curve(here, address)
            assert weights(store, address) == weights(here, address)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stage_that_another_driver_begins_goes_on_there(ray_here: Any, space_file: Path, tmp_path: Path) -> None:
    target = f"{space_file.parent / 'long.py'}:long"
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan = plans.make(space.load(target))
    warm = generated(plan)
    from torch.distributed.checkpoint.api import CheckpointException

    other: list[str] = []

    def take_over() -> None:
        while not list(store.resume(warm).glob("step-*")):
            time.sleep(0.05)
        starts.begin(store.resume(warm), "another driver", 1, 1)
        while store.open(warm) is None:
            # For two seconds both train. What one begins from, the other may remove: it begins again.
            with contextlib.suppress(OSError, CheckpointException):
                run_here(plan.stages[warm], store, Worker(executed="the other"))
        other.append(warm)

    thread = threading.Thread(target=take_over, daemon=True)
    thread.start()
    _, outcome = run(ray_here, target, store, every=0.5)
    thread.join()
    assert other and not outcome.failed
    executed = {d: m["executed"] for d in plan.stages if (m := store.manifest(d)) is not None}
    assert executed == {d: "the other" if d == warm else "ray" for d in plan.stages}
    for address, stage in plan.stages.items():
        run_here(stage, here)
        if isinstance(stage, Train):
            assert curve(store, address) == curve(here, address)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_every_sequence_once_and_agree_with_one(
    ray_here: Any, space_file: Path, tmp_path: Path
) -> None:
    store, here = Store(tmp_path / "store"), Store(tmp_path / "here")
    plan, outcome = run(ray_here, str(space_file), store, workers=2)
    assert not outcome.failed
    for address, stage in plan.stages.items():
        run_here(stage, here)
        if isinstance(stage, Train):
            theirs, mine = store.manifest(address), here.manifest(address)
            assert theirs is not None and mine is not None and theirs["world"] == 2
            assert theirs["sequence_hash"] == mine["sequence_hash"]
            losses = [[row["loss_nats"] for row in curve(s, address)] for s in (store, here)]
            np.testing.assert_allclose(losses[0], losses[1], atol=2e-4)


def small(units: int, rows: int, steps: int, depth: int = 1, seed: int = 0) -> Train:
    """A stage of `steps` steps whose batch is `units` parts of `rows` sequences."""
    from harness.sources.copying import Copy
    from harness.specs import Corpus, Llama, Recipe

    model = Llama(depth=depth, width=4, heads=1, mlp=4, context=8)
    return Train(Corpus(Copy(8, (2, 3))), steps * units * rows * 8, model, Recipe(lr=1.0, batch=units * rows), seed)


class Blocks:
    """The blocks of one rank, as a shard of a dataset gives them."""

    def __init__(self, blocks: list[dict[str, Any]]) -> None:
        self.blocks = blocks

    def iter_batches(self, **_: Any) -> Iterator[dict[str, Any]]:
        return iter(self.blocks)


class Opened:
    """A shard of a dataset, whose blocks can be read to the end when who asked for them has enough."""

    def __init__(self, shard: Any) -> None:
        self.shard = shard

    def iter_batches(self, **options: Any) -> Iterator[dict[str, Any]]:
        self.blocks = iter(self.shard.iter_batches(**options))
        return self.blocks


def check_shares(shares: list[list[Batch]], spec: Train, units: int, first: int) -> None:
    """`shares` has the batches of every rank: together each step's own sequences, once, as evenly as units allow."""
    batch, world = spec.recipe.batch, len(shares)
    assert [len(share) for share in shares] == [spec.steps - first] * world
    for step, parts in enumerate(zip(*shares, strict=True), first):
        held = np.sort(np.concatenate([part.index for part in parts])).tolist()
        assert held == list(range(step * batch, (step + 1) * batch))
        allowed = Worker(world=world, units=units).rows(batch)
        assert all(len(part.index) in allowed for part in parts)
        assert len(allowed) <= 2 and min(allowed) > 0


@given(
    units=st.integers(1, 6),
    data=st.data(),
    first=st.integers(0, 5),
    steps=st.integers(6, 40),
    rows=st.integers(1, 3),
)
def test_every_world_size_up_to_the_units_trains_each_steps_own_sequences(
    units: int, data: Any, first: int, steps: int, rows: int
) -> None:
    from harness.cluster.data import Generate, blocks_of, stream_shard

    world = data.draw(st.integers(1, units))
    spec = small(units, rows, steps)
    generate = Generate(spec, units, first)
    reader = spec.corpus.source.open()
    count = blocks_of(spec, units, first, vary=units > 1)
    kept = count // world * world  # Ray drops what does not go round evenly
    shards = [[generate({"block": np.array([b])}) for b in range(rank, kept, world)] for rank in range(world)]
    assert len({len(block["index"]) for shard in shards for block in shard}) == 1
    for make in (
        lambda rank: stream_shard(lambda: Blocks(shards[rank]), units, rank, world),
        lambda rank: read_here(rank, world, units),
    ):
        shares = [list(make(rank)(spec, reader, first)) for rank in range(world)]
        check_shares(shares, spec, units, first)
        for share in shares:
            for part in share:
                inputs, targets = reader.sequences(spec.corpus.seed, part.index, 8)
                assert (part.inputs == inputs).all() and (part.targets == targets).all()


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, as it copies its own settings
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ray_deals_the_blocks_out_as_the_ranks_expect(ray_here: Any, world: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from harness.cluster import data

    spec, first = small(units=4, rows=2, steps=50), 3
    data.configure()
    shards = data.sequences(spec, first, resources({"CPU": 4.0}, Workers(4, fewest=1))).streaming_split(
        world, equal=True
    )
    reader = spec.corpus.source.open()

    def share(rank: int) -> list[Batch]:
        shard = Opened(shards[rank])
        batches = list(data.stream_shard(lambda: shard, 4, rank, world)(spec, reader, first))
        for _ in shard.blocks:  # padding: a thread of Ray's would wait for it until Ray ends, and complain then
            pass
        return batches

    with ThreadPoolExecutor(world) as pool:
        check_shares(list(pool.map(share, range(world))), spec, 4, first)


ONE = Workers()


def at_once(cluster: dict[str, float], workers: Workers = ONE, concurrent: int | None = None) -> int:
    """Stages of `workers` that run at once."""
    stages = {str(seed): small(units=1, rows=32, steps=4, seed=seed) for seed in range(20)}
    return allot(cluster, stages, (workers,), concurrent).at_once(stages)


def test_a_cluster_that_cannot_fit_one_stage_is_refused_with_the_numbers() -> None:
    gpus = {"CPU": 64.0, "GPU": 8.0}
    with pytest.raises(InputError, match=r"workers = 3: one stage needs 3 CPU and the cluster has 2"):
        resources({"CPU": 2.0}, Workers(3, fewest=3))
    assert at_once({"CPU": 2.0}) == 2
    assert at_once(gpus, Workers(4, fewest=4)) == 2
    assert at_once(gpus, Workers(4, fewest=4), concurrent=1) == 1
    assert at_once({"CPU": 16.0, "memory": 4e9}) == 2
    shared = resources({"CPU": 16.0, "GPU": 2.0}, Workers(), generator_gpus=0.25)
    assert shared.footprint(1) == {"CPU": 2.0, "GPU": 1.0}
    with pytest.raises(InputError, match=r"^generator_gpus = 0\.25: use 0: the cluster has no GPU$"):
        resources({"CPU": 16.0}, Workers(), generator_gpus=0.25)
    with pytest.raises(InputError, match=r"^generator_gpus = 1\.0: use a share of a worker's GPU in \[0, 1\)$"):
        resources({"CPU": 16.0, "GPU": 2.0}, Workers(), generator_gpus=1.0)
    with pytest.raises(InputError, match="needs 4 GPU and the cluster has 1"):
        resources({"CPU": 64.0, "GPU": 1.0}, Workers(4, fewest=4))


def test_stages_that_go_on_with_fewer_workers_are_admitted_by_the_fewest() -> None:
    with pytest.raises(InputError, match=r"workers = 3:4: one stage needs 3 CPU and the cluster has 2"):
        resources({"CPU": 2.0}, Workers(4, fewest=3))
    assert resources({"CPU": 2.0}, Workers(4, fewest=1)).elastic
    assert not resources({"CPU": 2.0}, Workers(2, fewest=2)).elastic
    assert at_once({"CPU": 2.0}, Workers(4, fewest=1)) == 1
    gpus = {"CPU": 64.0, "GPU": 12.0}
    assert at_once(gpus, Workers(8, fewest=8)) == 1
    assert at_once(gpus, Workers(8, fewest=4)) == 2  # one of 8, one of 4
    assert at_once(gpus, Workers(8, fewest=5)) == 1
    assert resources(gpus, Workers(8, fewest=1)).generators_for(3) == 3


def test_small_stages_share_a_gpu_and_large_ones_get_many() -> None:
    box = {"CPU": 16.0, "GPU": 2.0}
    assert at_once(box, Workers(per_gpu=4)) == 8
    with pytest.raises(InputError, match=r"^workers = '1/4': use whole workers: the cluster has no GPU$"):
        resources({"CPU": 16.0}, Workers(per_gpu=4))
    stages = {"small": small(units=1, rows=8, steps=4), "large": small(units=1, rows=8, steps=4, depth=40)}
    params = stages["large"].model.params(stages["large"].io_width)
    allotment = allot(box, stages, (Workers(per_gpu=4), Workers(2, fewest=2, params=params)))
    assert (allotment.of["small"].gpu_share, allotment.of["small"].workers) == (0.25, 1)
    assert (allotment.of["large"].gpu_share, allotment.of["large"].workers) == (1.0, 2)
    assert not allotment.fits(["small"], "large") and not allotment.fits(["large"], "small")
    assert allotment.fits([], "large")


def test_stages_in_their_trials_hold_no_generators() -> None:
    box = {"CPU": 16.0, "GPU": 2.0}
    assert resources(box, Workers(), in_trial=True).footprint(1) == {"CPU": 1.0, "GPU": 1.0}
    stage = {"two": small(units=2, rows=8, steps=4)}
    assert not allot(box, stage, (Workers(2, fewest=2),), in_trial=True).of["two"].in_trial
    assert allot(box, stage, in_trial=True).of["two"].in_trial


def test_evaluations_share_what_is_free_and_keep_it(space_file: Path) -> None:
    plan = plans.make(space.load(f"{space_file}:asked"))
    asked = [d for d, stage in plan.stages.items() if isinstance(stage, Evaluate)]
    train = next(d for d, stage in plan.stages.items() if isinstance(stage, Train))
    alone = allot({"CPU": 6.0}, plan.stages)
    assert (alone.of[asked[0]].workers, alone.of[asked[0]].min_workers) == (6, 1)
    assert alone.sharing([], asked[0], 1).of[asked[0]].workers == 6
    assert alone.sharing([train], asked[0], 1).of[asked[0]].workers == 5
    assert alone.sharing([train], asked[0], 9).of[asked[0]].workers == 1
    both = alone.sharing([], asked[0], 2)
    assert both.of[asked[0]].workers == 3 and both.fits(asked[:1], asked[1])
    assert both.sharing(asked[:1], asked[1], 1).of[asked[1]].workers == 3
    one = allot({"CPU": 6.0}, plan.stages, concurrent=1)
    assert one.sharing([], asked[0], 2).of[asked[0]].workers == 6
    gpus = allot({"CPU": 16.0, "GPU": 2.0}, plan.stages, (Workers(per_gpu=4),))
    assert gpus.of[asked[0]].workers == 8 and gpus.of[asked[0]].footprint(8) == {"CPU": 2.0, "GPU": 2.0}
    trial = allot({"CPU": 6.0}, plan.stages, in_trial=True).of[asked[0]]
    assert (trial.in_trial, trial.workers, trial.shares) == (True, 1, False)


def test_workers_that_do_not_divide_the_batch_are_refused(space_file: Path) -> None:
    plan = plans.make(space.load(str(space_file)))
    with pytest.raises(InputError, match=r"workers = 3: does not divide Recipe.batch = 8"):
        allot({"CPU": 8.0}, plan.stages, (Workers(3, fewest=3),))
