"""Kill whatever can die while a study runs, again and again, and hold what comes out against an undisturbed run.

    python -m tests.chaos [--kills 50] [--seed 0] [--store DIR] [--study search_spaces/smoke.py]

The victims: generator actors, training workers, whole machines (a replacement joins later), and the driver, which is
started again. A kill counts if it hit a live process of a stage that was getting on. A study that ends before all kills
are made is begun anew in a fresh store. The exit code is 1 if a curve differs from that of one process by more than its
clocks, if the sequences of a stage differ, or if a stage stands still.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from harness import plan as plans
from harness import resume, space
from harness.specs import Train
from harness.store import Store
from tests.runs import curve

ROOT = Path(__file__).resolve().parent.parent
VICTIMS = ("generator", "worker", "machine", "driver")
FRESH_S = 3.0
"""A stage whose live line is younger than this is getting on; the line is written once a second."""
STILL_S = 180.0
"""A stage that stands still for so long hangs."""

# Machines that are gone are missed after seconds; no token, since nothing listens outside this machine.
os.environ |= {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
}


class Machines:
    """A Ray cluster on this machine: a head that only drives, and machines of one CPU. For the main thread alone."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": True})
        self.up = [self.add() for _ in range(count)]

    def __enter__(self) -> "Machines":
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def join(self) -> None:
        self.up.append(self.add())

    def take(self, machine: Any) -> None:
        """SIGKILL everything that runs on `machine`, at once, as when its power goes."""
        self.up.remove(machine)
        for process in tree(raylet(machine)):
            kill(process)
        self.cluster.remove_node(machine, allow_graceful=False)

    def drain(self, machine: Any, within_s: float) -> None:
        """Tell Ray that `machine` will be taken away, as a cloud's notice does."""
        import ray._raylet
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        client = ray._raylet.GcsClient(address=self.address)
        deadline = int((time.time() + within_s) * 1000)
        accepted, why = client.drain_node(machine.node_id, reason, "test", deadline)
        assert accepted, why

    def processes(self) -> Iterator[psutil.Process]:
        """Everything that runs on the cluster, the head included."""
        for machine in (self.cluster.head_node, *self.up):
            yield from tree(raylet(machine))

    def named(self, title: str) -> list[psutil.Process]:
        """The processes of the actors of class `title`; Ray puts it into their command lines."""
        return [p for p in self.processes() if command(p).startswith(f"ray::{title}")]

    def workers(self, digest: str) -> list[psutil.Process]:
        """The training workers of a stage: they stand in a directory with its name."""
        return [p for p in self.named("RayTrainWorker") if where(p).name == digest]

    def machine_of(self, process: psutil.Process) -> Any:
        """The machine, of those that may be taken, on which `process` runs; None if it is the head."""
        above = {p.pid for p in process.parents()}
        return next((m for m in self.up if raylet(m).pid in above), None)


def raylet(machine: Any) -> psutil.Process:
    return psutil.Process(machine.all_processes["raylet"][0].process.pid)


def tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def where(process: psutil.Process) -> Path:
    try:
        return Path(process.cwd())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return Path()


def born(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


def kill(process: psutil.Process) -> bool:
    """Whether `process` was alive until now."""
    try:
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return alive


class Driver:
    """`python -m harness run`, as a process of its own on a running cluster."""

    def __init__(self, study: str, store: Store, address: str, log: Path, *options: str) -> None:
        self.command = [sys.executable, "-m", "harness", "run", study, "--store", str(store.root), *options]
        self.env = {**os.environ, "RAY_ADDRESS": address}
        self.log = log
        self.start()

    def start(self) -> None:
        with open(self.log, "a") as log:
            self.process = psutil.Popen(self.command, cwd=ROOT, env=self.env, stdout=log, stderr=log)

    def ended(self) -> int | None:
        """Its exit code, once it has one."""
        code: int | None = self.process.poll()
        return code

    def wait(self, timeout: float) -> int:
        code: int = self.process.wait(timeout)
        return code

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        if self.ended() is None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Progress:
    """How far a stage is, from the store alone."""

    step: int
    """Of the last live line; 0 before one."""
    age: float
    """Seconds since the live line."""
    attempts: int
    done: bool


def progress(store: Store, digest: str) -> Progress:
    attempts = len([p for p in Path(store.stage(digest)).glob("*") if p.is_dir()])
    try:
        live = store.resume(digest) / "live.json"
        step, age = int(json.loads(live.read_text()).get("step", 0)), time.time() - live.stat().st_mtime
    except (OSError, ValueError):
        step, age = 0, float("inf")
    return Progress(step, age, attempts, store.open(digest) is not None)


def sequence_hash(store: Store, digest: str) -> str:
    manifest = store.manifest(digest)
    assert manifest is not None, f"stage {digest} is not done"
    return str(manifest["sequence_hash"])


def differences(plan: plans.Plan, store: Store, reference: Store) -> list[str]:
    """One line for every training stage that is not as in `reference`."""
    wrong = []
    for digest, stage in plan.stages.items():
        if not isinstance(stage, Train):
            continue
        name = f"{digest[:12]} {plans.label(stage)}"
        if store.open(digest) is None:
            wrong.append(f"{name}: not done")
        elif curve(store, digest) != curve(reference, digest):
            wrong.append(f"{name}: its curve differs")
        elif sequence_hash(store, digest) != sequence_hash(reference, digest):
            wrong.append(f"{name}: its sequences differ")
    return wrong


def begun_anew(plan: plans.Plan, store: Store, kills: "list[Kill]") -> list[str]:
    """One line for every stage that was begun more often than it was under way when something was killed."""
    wrong = []
    for digest, stage in plan.stages.items():
        allowed = 1 + sum(digest in made.begun for made in kills)
        if (attempts := progress(store, digest).attempts) > allowed:
            wrong.append(f"{digest[:12]} {plans.label(stage)}: begun {attempts} times instead of {allowed} at most")
    return wrong


@dataclass
class Kill:
    """One kill that counts, and how long until its stage (after one of the driver: any stage) was further than then."""

    number: int
    victim: str
    pid: int
    stage: str
    step: int
    committed: int
    at: float
    moving: dict[str, Progress]
    """Every stage that was getting on."""
    begun: set[str]
    """Every stage that was begun and not done."""
    recovery_s: float | None = None

    def recovered(self, store: Store, machines: Machines) -> bool:
        watched = self.moving if self.victim == "driver" else {self.stage: self.moving[self.stage]}
        return any(self.further(progress(store, digest), then, machines) for digest, then in watched.items())

    def further(self, now: Progress, then: Progress, machines: Machines) -> bool:
        if now.done:
            return True
        if now.step <= then.step or time.time() - now.age <= self.at:
            return False
        if self.victim == "generator":  # the worker has some blocks yet
            return any(born(generator) > self.at for generator in machines.named("MapWorker"))
        # What was killed may have written a last line just before; whoever comes after it begins an attempt.
        return now.attempts > then.attempts

    def line(self) -> str:
        return json.dumps({k: v for k, v in vars(self).items() if k not in ("moving", "begun")})


class Hang(Exception):
    """A stage stood still."""


@dataclass
class Campaign:
    """Random kills on one cluster, until there are enough."""

    machines: Machines
    plan: plans.Plan
    kills: int
    victims: list[str]
    rng: random.Random
    log: Path
    done: list[Kill] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    """When replacements join."""
    moved: dict[str, tuple[tuple[int, int], float]] = field(default_factory=dict)
    """Where every stage was when it was last seen to get on, and when that was."""

    def run(self, driver: Driver, store: Store) -> int:
        """The driver's exit code, after as many of the kills as came before the study was done. Raises Hang."""
        self.moved.clear()
        pending: Kill | None = None
        pause = time.monotonic() + self.rng.uniform(1, 5)
        while True:
            time.sleep(0.2)
            while self.joins and time.monotonic() >= self.joins[0]:
                self.joins.pop(0)
                self.machines.join()
            self.check_moving(store)
            if (code := driver.ended()) is not None:
                self.settle(pending)
                return code
            if pending is not None and pending.recovered(store, self.machines):
                pending.recovery_s = time.time() - pending.at
                self.settle(pending)
                pending, pause = None, time.monotonic() + self.rng.uniform(1, 5)
            elif pending is None and len(self.done) < self.kills and time.monotonic() >= pause:
                pending = self.strike(driver, store)

    def settle(self, made: Kill | None) -> None:
        """Count a kill, and write it down."""
        if made is not None:
            self.done.append(made)
            with open(self.log, "a") as log:
                log.write(made.line() + "\n")
            print(row(made), flush=True)

    def check_moving(self, store: Store) -> None:
        """Raise Hang if a stage that was begun stands still."""
        for digest in self.plan.stages:
            now = progress(store, digest)
            if now.done or not now.attempts:
                self.moved.pop(digest, None)
                continue
            place = (now.attempts, now.step)
            if self.moved.get(digest, (None, 0.0))[0] != place:
                self.moved[digest] = (place, time.monotonic())
            elif time.monotonic() - self.moved[digest][1] > STILL_S:
                raise Hang(f"stage {digest[:12]} stood still at step {now.step} for {STILL_S:g} s")

    def strike(self, driver: Driver, store: Store) -> Kill | None:
        """Kill one victim, if there is one, of a stage that is getting on: of the kind that was killed least so far."""
        stages = {d: progress(store, d) for d in self.plan.stages}
        moving = {d: now for d, now in stages.items() if self.gets_on(now)}
        begun = {d for d, now in stages.items() if now.attempts and not now.done}
        killed = Counter(made.victim for made in self.done)
        for victim in sorted(self.victims, key=lambda victim: (killed[victim], self.rng.random())):
            candidates = list(self.candidates(victim, list(moving), driver))
            self.rng.shuffle(candidates)
            for stage, process, strike in candidates:
                at, pid = time.time(), process.pid
                committed = resume.newest(store.resume(stage)).step
                if progress(store, stage).done or not strike():
                    continue
                return Kill(len(self.done) + 1, victim, pid, stage, moving[stage].step, committed, at, moving, begun)
        return None

    @staticmethod
    def gets_on(now: Progress) -> bool:
        return now.step > 0 and now.age < FRESH_S and not now.done

    def candidates(
        self, victim: str, moving: list[str], driver: Driver
    ) -> Iterator[tuple[str, psutil.Process, Callable[[], bool]]]:
        """(stage, process, how to kill it) of every possible `victim`."""
        for stage in moving:
            for worker in self.machines.workers(stage):
                machine = self.machines.machine_of(worker)
                if victim == "worker":
                    yield stage, worker, partial(kill, worker)
                elif victim == "machine" and machine is not None and len(self.machines.up) > 1:
                    yield stage, raylet(machine), partial(self.take, machine)
                elif victim == "driver":
                    yield stage, driver.process, partial(self.restart, driver)
        generated = [d for d in moving if not self.plan.stages[d].corpus.source.stored]
        if victim == "generator" and generated:
            for generator in self.machines.named("MapWorker"):
                yield self.rng.choice(generated), generator, partial(kill, generator)

    def take(self, machine: Any) -> bool:
        self.machines.take(machine)
        self.joins.append(time.monotonic() + self.rng.uniform(3, 12))
        return True

    @staticmethod
    def restart(driver: Driver) -> bool:
        if not kill(driver.process):
            return False
        driver.process.wait()
        driver.start()
        return True


def row(made: Kill) -> str:
    took = f"{made.recovery_s:7.1f}" if made.recovery_s is not None else "      -"
    place = f"{made.stage[:12]}  {made.step:>6}  {made.committed:>9}"
    return f"{made.number:>4}  {made.victim:<9}  {made.pid:>8}  {place}  {took}"


def summary(kills: list[Kill]) -> str:
    lines = ["victim     kills  recovery_s: median  90 %    max"]
    for victim in VICTIMS:
        took = sorted(k.recovery_s for k in kills if k.victim == victim and k.recovery_s is not None)
        count = sum(k.victim == victim for k in kills)
        if took:
            worst = took[min(len(took) - 1, round(0.9 * len(took)))]
            lines.append(f"{victim:<9}  {count:>5}  {statistics.median(took):>18.1f} {worst:>5.1f}  {took[-1]:>5.1f}")
        else:
            lines.append(f"{victim:<9}  {count:>5}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--victims", default=",".join(VICTIMS), help=f"(default {','.join(VICTIMS)})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("chaos"), help="a directory for stores and logs")
    parser.add_argument("--study", default="search_spaces/smoke.py", metavar="FILE[:NAME]")
    parser.add_argument("--concurrent", type=int, help="stages at once (default: as many as fit)")
    args = parser.parse_args()
    victims: list[str] = args.victims.split(",")
    if not set(victims) <= set(VICTIMS):
        parser.error(f"--victims {args.victims}: choose from {', '.join(VICTIMS)}")
    base: Path = args.store.resolve()
    base.mkdir(parents=True, exist_ok=True)
    plan = plans.make(space.load(args.study))
    reference = Store(base / "reference")
    here = [sys.executable, "-m", "harness", "run", args.study, "--store", str(reference.root), "--in-process"]
    with open(base / "reference.log", "a") as log:
        subprocess.run(here, cwd=ROOT, stdout=log, stderr=log, check=True)
    started = time.monotonic()
    wrong: list[str] = []
    with Machines(2) as machines:
        campaign = Campaign(machines, plan, args.kills, victims, random.Random(args.seed), base / "kills.jsonl")
        campaign.log.unlink(missing_ok=True)
        print("   #  victim          pid  stage           step  committed  recovery_s", flush=True)
        while len(campaign.done) < args.kills and not wrong:
            store = Store(base / f"store-{len(list(base.glob('store-*[0-9]')))}")
            options = ("--checkpoint-every", "2", *(("--concurrent", str(args.concurrent)) if args.concurrent else ()))
            before = len(campaign.done)
            with Driver(args.study, store, machines.address, base / "driver.log", *options) as driver:
                try:
                    if code := campaign.run(driver, store):
                        wrong.append(f"the driver ended with {code}: see {base / 'driver.log'}")
                except Hang as hang:
                    wrong.append(str(hang))
            wrong += differences(plan, store, reference)
            if victims == ["driver"]:  # Ray itself starts the workers of a stage anew after other deaths
                wrong += begun_anew(plan, store, campaign.done[before:])
            if not wrong:
                shutil.rmtree(store.scratch, ignore_errors=True)
    print(f"\n{summary(campaign.done)}\n{len(campaign.done)} kills in {(time.monotonic() - started) / 60:.0f} minutes")
    print("\n".join(wrong) or "every curve and every sequence is that of the undisturbed run")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
