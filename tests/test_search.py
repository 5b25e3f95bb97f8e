"""Searches: every arm tuned as hard as the others, on what the study is not judged by, and registered with it."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from harness import __main__ as cli
from harness import plan as plans
from harness import space, winners
from harness.axes import at_edge
from harness.errors import InputError
from harness.metrics import held_out
from harness.search import Search
from harness.sources.nca import NCA
from harness.sources.text import Text
from harness.space import Study, Trial
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer, digest
from harness.stages import open_reader, run_here
from harness.store import Store

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32, init_std=0.1, embed_std=0.1)
SOURCE = NCA(states=2, grid=4, patch=2)
EVALUATION = Evaluation(points=4, sequences=8)


def train(seed: int, lr: float, **more: Any) -> Train:
    return Train(Corpus(SOURCE, seed), 10 * 8 * 32, MODEL, Recipe(lr=lr, batch=8), seed, EVALUATION, **more)


def scratch(seed, lr):
    return train(seed, lr)


def nca(seed, lr):
    return scratch(seed, lr).after(train(seed, 1e-2))


def permuted(lr, seed):
    return scratch(seed, lr).after(train(seed, 1e-2), Transfer(blocks="permuted"))


SEEDS = {"seed": tune.grid_search([0, 1])}
GRID = Search({"lr": tune.grid_search([1e-4, 1e-2, 1e3])}, seeds=[100])


def study(search: Search | None = GRID, **changes: Any) -> Study:
    values: dict[str, Any] = {"baseline": scratch, "arms": [nca], "over": SEEDS}
    return Study("s", "?", search=search, **(values | changes))


def tuned(study: Study) -> winners.Tuning:
    tuning = winners.work_out(study)
    assert tuning is not None
    return tuning


def of(trials: list[Trial], arm: str) -> list[Trial]:
    return [t for t in trials if t.cell.arm == arm]


def pretended(tuning: winners.Tuning, loss: Callable[[Trial], winners.Told], store: Store) -> dict[str, Any]:
    winners.address(tuning, store).unlink(missing_ok=True)  # else the first that were found count
    return winners.conclude(tuning, [(t, loss(t)) for t in tuning.trials], store)


# ---- what is tried


def test_every_arm_is_tried_at_the_same_draws_as_often_as_the_others() -> None:
    trials = study(Search({"lr": tune.loguniform(1e-4, 1e-1)}, [100, 101], trials=5), arms=[nca, permuted]).trials()
    settings = [[(t.setting["lr"], t.seed) for t in of(trials, arm)] for arm in ("scratch", "nca", "permuted")]
    assert settings[0] == settings[1] == settings[2]
    assert len(settings[0]) == 10
    assert len({lr for lr, _ in settings[0]}) == 5
    assert [t.point.train.recipe.lr for t in of(trials, "nca")] == [lr for lr, _ in settings[1]]


def test_the_study_is_searched_on_seeds_and_sequences_of_its_own() -> None:
    trials = study().trials()
    assert {t.point.train.seed for t in trials} == {100} == {t.point.train.corpus.seed for t in trials}
    assert {t.point.train.evaluation.skip for t in trials} == {EVALUATION.sequences}
    with pytest.raises(InputError, match=r"Search.seeds = \[1\]: are seeds of the study too"):
        study(replace(GRID, seeds=[100, 1]))


@pytest.mark.parametrize("count", [3, 8])
def test_what_is_skipped_is_what_the_study_measures(text: Text, store: Store, count: int) -> None:
    text = text.resolved()
    run_here(text, store)
    for source in (text, SOURCE):
        spec = Train(Corpus(source), 256, MODEL, Recipe(lr=1e-2, batch=8), 0, Evaluation(sequences=count))
        trial = replace(spec, evaluation=Evaluation(sequences=count, skip=count))
        reader = open_reader(spec, store)
        mine, others = held_out(spec, reader)[0], held_out(trial, reader)[0]
        assert mine.shape == others.shape == (count, 32)
        if source is text:
            assert not {row.tobytes() for row in mine} & {row.tobytes() for row in others}
        else:  # small automata repeat themselves, so their sequences are known by number
            np.testing.assert_array_equal(others, reader.held_out(2 * count, 32)[0][count:])


def test_a_held_out_set_that_is_too_small_for_both_is_refused(text: Text, store: Store) -> None:
    text = text.resolved()
    run_here(text, store)
    spec = Train(Corpus(text), 256, MODEL, Recipe(lr=1e-2, batch=8), 0, Evaluation(sequences=9, skip=10**6))
    with pytest.raises(InputError, match=r"Evaluation.s\w+ = 1000000"):
        run_here(spec, store)


def test_a_trial_can_have_a_share_of_the_budget_with_its_schedule() -> None:
    def warmed(seed, lr):
        recipe = Recipe(lr=lr, batch=8, warmup=1024, horizon=20 * 256)
        return replace(nca(seed, lr), recipe=recipe, init=train(seed, 1e-2))

    trial = study(replace(GRID, tokens=0.5), arms=[warmed]).trials()[-1].point.train
    assert (trial.tokens, trial.recipe.warmup, trial.recipe.horizon) == (5 * 256, 512, 10 * 256)
    assert trial.init is not None and trial.init.tokens == 5 * 256


def test_an_arm_is_searched_at_every_setting_of_its_axes_but_those_that_are_fixed() -> None:
    def deep(seed, lr, depth):
        return replace(train(seed, lr), model=replace(MODEL, depth=depth))

    over = {**SEEDS, "depth": tune.grid_search([1, 2, 3])}
    cells = {t.cell.label() for t in study(baseline=deep, arms=[], over=over).trials()}
    assert cells == {"deep depth=1", "deep depth=2", "deep depth=3"}
    fixed = study(replace(GRID, at={"depth": 2}), baseline=deep, arms=[], over=over)
    assert {(t.cell.label(), t.point.train.model.depth) for t in fixed.trials()} == {("deep", 2)}


def warm_only(seed, warm_lr):
    return train(seed, 1e-2).after(train(seed, warm_lr))


def both(seed, lr, warm_lr):
    return scratch(seed, lr).after(train(seed, warm_lr))


def test_a_searched_parameter_can_be_of_any_stage() -> None:
    over = {"lr": tune.loguniform(1e-3, 1e-1), "warm_lr": tune.loguniform(1e-3, 1e-1)}
    trials = study(Search(over, [100], trials=4), arms=[both]).trials()
    assert len(of(trials, "both")) == len(of(trials, "scratch")) == 4
    chains = [list(t.point.train.chain()) for t in of(trials, "both")]
    assert len({warm.recipe.lr for warm, _ in chains}) == 4


def fixed(seed):
    return train(seed, 1e-2)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: study(arms=[fixed]), "arm fixed names none: all are tuned"),
        (lambda: study(over={**SEEDS, "lr": 1e-3}), "Search.over = 'lr': is an axis of the study"),
        (lambda: study(baseline=warm_only, arms=[both], search=replace(GRID, over={
            "lr": tune.grid_search([1e-3, 1e-2]), "warm_lr": tune.grid_search([1e-3, 1e-2])
        })), "arms get unequal numbers of trials"),
        (lambda: study(replace(GRID, over={**GRID.over, "lrr": tune.grid_search([1.0])})), "'lrr': no arm names this"),
        (lambda: study(replace(GRID, over={"lrr": tune.grid_search([1.0])})), "nor in Search.over, which has lrr"),
        (lambda: Search({"lr": tune.loguniform(2, 1)}, [1]), r"Search.over\['lr'\] = \(2, 1\): give the lower"),
        (lambda: Search({}, [1]), "name what is searched"),
        (lambda: Search({"lr": tune.grid_search([1.0])}, [1], trials=9), "a grid is tried whole"),
        (lambda: Search({"lr": tune.loguniform(1, 2)}, [-1]), "Search.seeds = -1"),
        (lambda: Search({"lr": tune.loguniform(1, 2)}, []), "at least one seed"),
        (lambda: Search({"lr": tune.loguniform(1, 2)}, [1], trials=0), "Search.trials = 0"),
        (lambda: Search({"lr": tune.loguniform(1, 2)}, [1, 2], scheduler=object()), "give one seed"),
        (lambda: Search({"lr": tune.grid_search([1.0])}, [1], search_alg=object()), "needs a range"),
        (lambda: study(Search({"lr": tune.grid_search([(1, 2)])}, [5])), "search numbers, strings or booleans"),
        (lambda: study(replace(GRID, at={"deep": 1})), "Search.at = 'deep'"),
        (lambda: study(replace(GRID, tokens=0)), "use a share"),
        (lambda: study().points(), "its search has not run"),
    ],
)  # fmt: skip
def test_what_would_not_be_a_fair_search_is_refused_in_one_line(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        make()
    assert "\n" not in str(error.value)


# ---- the hash


def test_the_hash_is_of_all_that_decides_what_is_found() -> None:
    from ray.tune.schedulers import ASHAScheduler

    drawn = Search({"lr": tune.loguniform(1e-4, 1e-1)}, [100], trials=3)
    searches = [
        GRID,
        replace(GRID, seeds=[101]),
        replace(GRID, tokens=0.5),
        replace(GRID, over={"lr": tune.grid_search([1e-4, 1e-2])}),
        drawn,
        replace(drawn, trials=4),
        replace(drawn, over={"lr": tune.loguniform(1e-4, 1.0)}),
        replace(drawn, scheduler=ASHAScheduler(time_attr="tokens", max_t=9999, grace_period=10)),
        replace(drawn, scheduler=ASHAScheduler(time_attr="tokens", max_t=9999, grace_period=20)),
    ]
    hashes = [tuned(study(search)).hash for search in searches]
    assert len(set(hashes)) == len(searches)
    assert hashes == [tuned(study(search)).hash for search in searches]
    assert tuned(study(arms=[nca, permuted])).hash not in hashes
    assert tuned(study(callbacks=[object()])).hash == hashes[0]
    assert tuned(study(over={"seed": tune.grid_search([7, 8, 9])})).hash == hashes[0]  # more seeds, the same search


# ---- what is found


def told_by_lr(best: dict[str, float]) -> Callable[[Trial], winners.Told]:
    def told(trial: Trial) -> winners.Told:
        return winners.Told("finished", abs(np.log(trial.setting["lr"] / best[trial.cell.arm])), 2560)

    return told


def test_every_arm_gets_its_winner_and_the_plan_its_hash(store: Store) -> None:
    asked = study(replace(GRID, over={"lr": tune.grid_search([1e-3, 1e-2, 1e-1])}))
    tuning = tuned(asked)
    assert winners.found(tuning, store) is None
    plain = plans.make(study(None, over={**SEEDS, "lr": 1e-2})).registered
    assert "search" not in plain
    registered = []
    for best in ({"scratch": 1e-2, "nca": 1e-3}, {"scratch": 1e-2, "nca": 1e-2}):
        pretended(tuning, told_by_lr(best), store)
        plan = plans.make(asked, winners=winners.found(tuning, store))
        for point in plan.points:
            assert point.train.recipe.lr == best[point.arm]
            assert point.train.evaluation == EVALUATION
            assert [name for name, _ in point.axes] == ["seed"]
        assert plan.baseline_of == (None, None, 0, 1)
        registered.append(plan.registered)
    search = registered[0]["search"]
    assert search["hash"] == tuning.hash and search["seeds"] == [100] and search["trials"] == 3
    assert [(w["arm"], w["best"]) for w in search["winners"]] == [("scratch", {"lr": 1e-2}), ("nca", {"lr": 1e-3})]
    assert registered[0]["points"][2]["differs_in"] == ["recipe.lr", "init", "transfer"]
    assert registered[0]["hash"] != registered[1]["hash"]
    # the same points from another search are another plan
    other = tuned(study(replace(GRID, over={"lr": tune.grid_search([1e-3, 1e-2, 1e-1])}, seeds=[102])))
    pretended(other, told_by_lr({"scratch": 1e-2, "nca": 1e-2}), store)
    again = plans.make(other.study, winners=winners.found(other, store)).registered
    assert again["points"] == registered[1]["points"] and again["hash"] != registered[1]["hash"]


def test_of_two_drivers_that_find_unlike_winners_the_first_is_believed(store: Store) -> None:
    tuning = tuned(study(replace(GRID, over={"lr": tune.grid_search([1e-3, 1e-2])})))
    first = pretended(tuning, told_by_lr({"scratch": 1e-2, "nca": 1e-3}), store)
    told = told_by_lr({"scratch": 1e-3, "nca": 1e-3})
    assert winners.conclude(tuning, [(t, told(t)) for t in tuning.trials], store) == first
    assert winners.read(tuning, store) == first


def test_a_search_that_goes_on_keeps_its_promise(store: Store) -> None:
    tuning = tuned(study())
    for hours in (2.0, 1.0):
        winners.register(tuning, store, {}, {"device_hours": hours})
    registered = json.loads((store.study("s") / plans.SEARCH).read_text())
    assert registered["promise"] == {"device_hours": 2.0}
    winners.register(tuning, store, {})
    assert json.loads((store.study("s") / plans.SEARCH).read_text()) == registered


def test_what_diverged_or_was_cut_loses_and_seeds_are_averaged(store: Store) -> None:
    tuning = tuned(study(Search({"lr": tune.grid_search([1e-3, 1e-2, 1e-1])}, [100, 101]), arms=[]))
    losses = {(1e-3, 100): 1.0, (1e-3, 101): 4.0, (1e-2, 100): 2.0, (1e-2, 101): 2.0, (1e-1, 100): 0.5}

    def told(trial: Trial) -> winners.Told:
        loss = losses.get((trial.setting["lr"], trial.seed))
        return winners.Told("finished", loss, 2560) if loss else winners.Told("diverged")

    (cell,) = pretended(tuning, told, store)["cells"]
    assert (cell["best"], cell["loss_nats"], cell["at_edge"]) == ({"lr": 1e-2}, 2.0, [])
    assert len(cell["trials"]) == 6
    assert all(t["stage"] == digest(own.point.train) for t, own in zip(cell["trials"], tuning.trials, strict=True))
    (cell,) = pretended(tuning, lambda t: told(t) if t.setting["lr"] < 1e-2 else winners.Told("cut", 0.1, 9), store)[
        "cells"
    ]
    assert cell["best"] == {"lr": 1e-3} and cell["at_edge"] == ["lr"]
    with pytest.raises(InputError, match="search of scratch: no setting finished"):
        pretended(tuning, lambda t: winners.Told("cut", 1.0, 9), store)


@pytest.mark.parametrize(
    ("axis", "inside", "outside"),
    [
        (tune.loguniform(1e-4, 1e-2), [1.7e-4, 1e-3, 6e-3], [1e-4, 1.5e-4, 7e-3, 1e-2]),
        (tune.qloguniform(1e-4, 1e-2, 1e-5), [1e-3], [1e-4, 1e-2]),
        (tune.uniform(0, 1), [0.2, 0.8], [0.05, 0.95]),
        (tune.randint(1, 101), [50], [2, 100]),
        (tune.grid_search([3e-3, 1e-3, 1e-2]), [3e-3], [1e-3, 1e-2]),
        (tune.choice([1, 2, 3]), [2], [1, 3]),
        (tune.choice(["cosine", "wsd"]), ["cosine", "wsd"], []),
        (0.1, [0.1], []),
    ],
)  # fmt: skip
def test_a_winner_at_the_edge_is_known(axis: Any, inside: list[Any], outside: list[Any]) -> None:
    assert not any(at_edge(axis, value) for value in inside)
    assert all(at_edge(axis, value) for value in outside)


# ---- the commands

FILE = '''
"""Which arm?"""
from dataclasses import replace
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from harness.search import Search
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train

MODEL = Llama(depth=1, width=16, heads=2, mlp=24, context=32, init_std=0.1, embed_std=0.1)
BUDGET = {steps} * 8 * 32


def train(states, seed, lr):
    corpus = Corpus(NCA(states=states, grid=4, patch=2), seed)
    return Train(corpus, BUDGET, MODEL, Recipe(lr=lr, batch=8), seed, Evaluation(points=8, sequences=8))


def scratch(seed, lr):
    return train(2, seed, lr)


def nca(seed, lr):
    return scratch(seed, lr).after(train(3, seed, 1e-2))


SEEDS = {{"seed": tune.grid_search([0])}}
GRID = Search({{"lr": tune.grid_search([1e-4, 1e-2, 1e3])}}, seeds=[100])
study = Study("tiny", __doc__, scratch, [nca], SEEDS, search=GRID)
FEWER = replace(GRID, over={{"lr": tune.grid_search([1e-2, 1e3])}})
narrow = Study("narrow", __doc__, scratch, [nca], SEEDS, search=FEWER)
LR = {{"lr": tune.loguniform(1e-4, 1e-1)}}
ASHA = ASHAScheduler(time_attr="tokens", max_t=BUDGET, grace_period=BUDGET // 16, reduction_factor=2)
halved = Study("halved", __doc__, scratch, [nca], SEEDS, search=Search(LR, seeds=[100], trials=5, scheduler=ASHA))
'''


def file(directory: Path, steps: int = 12, more: str = "") -> Path:
    path = directory / "tiny.py"
    path.write_text(FILE.format(steps=steps) + more)
    return path


def registered(store: Store, name: str) -> dict[str, Any]:
    return json.loads((store.study(name) / "points.json").read_text())


def watcher(path: Path, store: Store) -> subprocess.Popen[str]:
    """`status --watch`, which has looked once."""
    command = [sys.executable, "-m", "harness", "status", str(path), "--store", str(store.root), "--watch", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    line = next(line for line in process.stdout if "there is none yet" not in line)
    assert line.startswith("tiny-search: 0/7 stages done")
    return process


@pytest.mark.parametrize("place", ["store", pytest.param("remote", marks=pytest.mark.slow)])
def test_a_search_and_its_study_run_here(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    place: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store: Store = request.getfixturevalue(place)
    path = file(tmp_path)
    given = ["--store", str(store.root)]
    assert cli.main(["plan", str(path), *given]) == 0
    shown = capsys.readouterr().out
    assert "tiny-search" in shown and "follows from the winners" in shown
    assert "8 distinct" not in shown and "7 distinct (7 training)" in shown  # 3 + 3 trials and one warm start
    assert cli.main(["report", str(path), *given]) == 2

    watching = watcher(path, store)
    assert cli.main(["search", str(path), "--in-process", *given]) == 0
    shown = capsys.readouterr().out
    assert "lr=0.01" in shown and "at the edge" not in shown
    assert not (store.study("tiny") / "points.json").exists()
    tuning = tuned(space.load(str(path)))
    searched = json.loads((store.study("tiny") / "points-search.json").read_text())
    assert searched["hash"] == tuning.hash and searched["stages"].keys() == tuning.plan.stages.keys()
    record = winners.read(tuning, store)
    assert record is not None
    for cell in record["cells"]:
        assert cell["best"] == {"lr": 1e-2}
        losses = {t["setting"]["lr"]: t["loss_nats"] for t in cell["trials"] if t["status"] == "finished"}
        assert losses[1e-2] == min(losses.values()) == cell["loss_nats"]
        for trial in cell["trials"]:
            manifest = store.manifest(trial["stage"])
            assert manifest is not None and manifest["held_out"]["loss_nats"] == trial["loss_nats"]

    def never(*args: Any) -> None:
        raise AssertionError("a finished search runs again")

    with monkeypatch.context() as patched:
        patched.setattr("harness.stages.run_here", never)
        assert cli.main(["search", str(path), "--in-process", *given]) == 0
    assert cli.main(["plan", str(path), *given]) == 0
    assert "3 distinct" in capsys.readouterr().out.replace("tiny-search", "")
    assert cli.main(["run", str(path), "--in-process", *given]) == 0
    assert "3 stages computed" in capsys.readouterr().out
    said, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0 and "\ntiny: 3/3 stages done" in said
    assert registered(store, "tiny")["search"]["hash"] == tuning.hash
    # a search that overlaps pays for nothing that is there; `run` runs it first
    with monkeypatch.context() as patched:
        patched.setattr("harness.stages.run_here", never)
        assert cli.main(["run", f"{path}:narrow", "--in-process", *given]) == 0
    assert registered(store, "narrow")["search"]["hash"] != tuning.hash
    assert [p["stage"] for p in registered(store, "narrow")["points"]] == [
        p["stage"] for p in registered(store, "tiny")["points"]
    ]


def test_watching_ends_with_a_search_that_found_nothing(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(
        tmp_path, more="\nhot = replace(study, name='hot', search=Search({'lr': tune.grid_search([1e30])}, [100]))\n"
    )
    given = [f"{path}:hot", "--store", str(store.root)]
    assert cli.main(["search", *given, "--in-process"]) == 2
    assert "no setting finished" in capsys.readouterr().err
    monkeypatch.setattr("harness.commands.status.WINNERS_S", 0.3)
    assert cli.main(["status", *given, "--watch", "0.1"]) == 1
    assert "ended without winners" in capsys.readouterr().err


def test_a_search_that_stops_trials_needs_ray(tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path)
    assert cli.main(["search", f"{path}:halved", "--in-process", "--store", str(store.root)]) == 2
    assert "--in-process = True" in capsys.readouterr().err


def test_a_study_without_a_search_has_nothing_to_search(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, more="\nplain = Study('plain', __doc__, scratch, [], {**SEEDS, 'lr': 1e-2})\n")
    assert cli.main(["search", f"{path}:plain", "--store", str(store.root)]) == 2
    assert "has nothing to search" in capsys.readouterr().err


def test_schedulers_that_change_a_trial_are_refused() -> None:
    from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

    from harness.cluster.search import check

    drawn = Search({"lr": tune.loguniform(1e-4, 1e-1)}, [100], trials=3)
    other = PopulationBasedTraining(hyperparam_mutations={"lr": [1.0]})
    with pytest.raises(InputError, match=r"Search.scheduler = 'PopulationBasedTraining'"):
        check(replace(drawn, scheduler=other))
    with pytest.raises(InputError, match="leave metric and mode out"):
        check(replace(drawn, scheduler=ASHAScheduler(metric="loss_nats", mode="min")))
    check(replace(drawn, scheduler=ASHAScheduler()))


# ---- on Ray


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from harness.cluster import connection

    connection.connect(2)
    yield ray
    ray.shutdown()


@pytest.mark.ray
def test_ray_finds_what_is_found_here(ray_here: Any, tmp_path: Path) -> None:
    path = file(tmp_path)
    found = []
    for where in ("ray", "here"):
        store = Store(tmp_path / where)
        how = ["--in-trial"] if where == "ray" else ["--in-process"]
        assert cli.main(["search", str(path), *how, "--store", str(store.root)]) == 0
        record = winners.read(tuned(space.load(str(path))), store)
        assert record is not None
        found.append({name: value for name, value in record.items() if name != "finished"})
    assert found[0] == found[1]


@pytest.mark.ray
def test_trials_that_wait_for_machines_end_with_the_run(ray_here: Any, tmp_path: Path, store: Store) -> None:
    from harness.cluster import search as searching
    from harness.cluster.connection import most_resources
    from harness.cluster.resources import allot
    from harness.limits import Limit, Meter
    from harness.worker import Options

    tuning = tuned(space.load(f"{file(tmp_path)}:halved"))
    for address in searching._shared(tuning).stages:
        run_here(tuning.plan.stages[address], store)
    holding = ray_here.remote(num_cpus=2)(Holding).remote()
    ray_here.get(holding.there.remote())
    allotment = allot(most_resources(), tuning.plan.stages, in_trial=True)
    try:
        with Meter(Limit(), store, store.scratch / "stop" / "run") as meter:
            threading.Timer(8.0, meter.interrupt).start()
            began = time.monotonic()
            _, outcome = searching.run(tuning, store, allotment, Options(stop=meter.stop), {}, meter)
    finally:
        ray_here.kill(holding)
    assert meter.interrupted and time.monotonic() - began < 40 and not outcome.failed


class Holding:
    """Holds what Ray gives it."""

    def there(self) -> None:
        pass


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # some twenty stages, each with workers of its own
@pytest.mark.parametrize("how", [[], ["--in-trial"]], ids=["workers", "in-trial"])
def test_a_search_that_stops_trials_and_its_study_share_a_store(
    ray_here: Any, tmp_path: Path, store: Store, how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{file(tmp_path, steps=40)}:halved"
    given = ["--store", str(store.root), *how]
    assert cli.main(["run", path, *given]) in (0, 1)  # one seed: no more than tables
    tuning = tuned(space.load(path))
    record = winners.read(tuning, store)
    assert record is not None
    for cell, trials in zip(record["cells"], tuning.cells.values(), strict=True):
        assert [t["stage"] for t in cell["trials"]] == [digest(t.point.train) for t in trials]
        became = {t["status"] for t in cell["trials"]}
        assert became <= {"finished", "cut"}
        for trial in cell["trials"]:
            done = store.open(trial["stage"]) is not None
            assert done == (trial["status"] == "finished")
            assert (trial["tokens"] == 40 * 256) == done
        best = min(t["loss_nats"] for t in cell["trials"] if t["status"] == "finished")
        assert cell["loss_nats"] == best
    assert "cut" in {t["status"] for cell in record["cells"] for t in cell["trials"]}
    # every stage of the study ran to its end
    registered_plan = registered(store, "halved")
    assert registered_plan["search"]["hash"] == tuning.hash
    for address in registered_plan["stages"]:
        manifest = store.manifest(address)
        assert manifest is not None and manifest["tokens"] == 40 * 256
    capsys.readouterr()
    assert cli.main(["run", path, *given]) in (0, 1)
    assert "nothing to compute" in capsys.readouterr().out
    if how:  # as if it had been interrupted at its very end: what is done is held against the rest, not done again
        kept = {t["stage"]: t["loss_nats"] for c in record["cells"] for t in c["trials"] if t["status"] == "finished"}
        attempts = {stage: store.open(stage) for stage in kept}
        winners.address(tuning, store).unlink()
        assert cli.main(["search", path, *given]) == 0
        again = winners.read(tuning, store)
        assert again is not None
        now = {t["stage"]: t["loss_nats"] for c in again["cells"] for t in c["trials"] if t["status"] == "finished"}
        assert kept.items() <= now.items()
        assert {stage: store.open(stage) for stage in kept} == attempts


@pytest.mark.ray
@pytest.mark.slow
def test_a_searcher_of_tune_suggests_what_is_tried(ray_here: Any, tmp_path: Path, store: Store) -> None:
    pytest.importorskip("optuna")
    more = """
from ray.tune.search.optuna import OptunaSearch
suggested = Study("suggested", __doc__, scratch, [nca], SEEDS,
                  search=Search(LR, seeds=[100], trials=3, search_alg=OptunaSearch(seed=0)))
"""
    path = f"{file(tmp_path, more=more)}:suggested"
    assert cli.main(["search", path, "--in-trial", "--store", str(store.root)]) == 0
    record = winners.read(tuned(space.load(path)), store)
    assert record is not None
    for cell in record["cells"]:
        assert len({t["setting"]["lr"] for t in cell["trials"]}) == 3
        assert all(store.open(t["stage"]) is not None for t in cell["trials"])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--in-trial"]], ids=["workers", "in-trial"])
def test_callbacks_of_tune_see_every_curve(
    ray_here: Any, tmp_path: Path, store: Store, how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    more = f"""
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune import Callback

class Rows(Callback):
    def on_trial_result(self, iteration, trials, trial, result, **info):
        with open({str(tmp_path / "rows")!r}, "a") as f:
            print(trial.config["stage"], trial.config["label"], result["tokens"], result["loss_nats"], sep="|", file=f)

seen = Study("seen", __doc__, scratch, [nca], {{**SEEDS, "lr": 1e-2}}, callbacks=[
    WandbLoggerCallback(project="p", dir={str(tmp_path)!r}, mode="offline"), Rows(),
])
unseen = replace(seen, callbacks=())
"""
    path = f"{file(tmp_path, more=more)}:seen"
    cli.main(["run", path, *how, "--store", str(store.root)])
    study = space.load(path)
    assert plans.make(study).registered == plans.make(replace(study, callbacks=())).registered
    told: dict[str, list[tuple[int, float]]] = {}
    for line in (tmp_path / "rows").read_text().splitlines():
        stage, label, tokens, loss = line.split("|")
        assert label.startswith("NCA")
        told.setdefault(stage, []).append((int(tokens), float(loss)))
    assert len(told) == 3
    for stage, seen in told.items():
        attempt = store.open(stage)
        assert attempt is not None
        rows = [json.loads(line) for line in (attempt / "curve.jsonl").read_text().splitlines()]
        assert [tokens for tokens, _ in seen] == [row["tokens"] for row in rows]
        assert [loss for _, loss in seen[:-1]] == [row["loss_nats"] for row in rows[:-1]]
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 3
    assert all(list(run.glob("run-*.wandb")) for run in runs)
