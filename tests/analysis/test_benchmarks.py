"""Benchmarks of a study: scores as the harness writes them, gains by seed, and what is said of them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import DataError, Results, export, write
from analysis.metrics.benchmarks import scores
from harness.reasoning import choices
from harness.reasoning.gsm8k import GSM8K
from harness.reasoning.humaneval import HumanEval
from harness.reasoning.passk import plain, rate
from harness.reasoning.spec import Evaluate
from harness.reasoning.tasks import task
from harness.specs import canonical

from .synthetic_store import GRID, Store, law

TEXT = 1_000_000
LOSS = law(np.round(GRID * TEXT))
PROBLEMS = 40
SAMPLES = 2
TRAINED = {"type": "Train", "corpus": {"source": {"type": "Text"}}, "init": None}
"""What an evaluation asks of a training stage."""
ANSWERS = Evaluate(TRAINED, GSM8K(), samples=SAMPLES, temperature=0.8)
OPTIONS = Evaluate(TRAINED, task("bigbench-lite"), samples=4)


def answered(solved: int, nats: float = 1.0, stage: Evaluate = ANSWERS) -> dict[str, Any]:
    """Scores of GSM8K where every sample of `solved` problems is right."""
    records = [
        {
            "gold": "5", "too_long": False, "answer": {"logprob": -10 * nats, "tokens": 10, "hits": 3},
            "samples": [{"marked": "5" if i < solved else None, "last_number": "5", "end": "end"}] * stage.samples,
        }
        for i in range(PROBLEMS)
    ]  # fmt: skip
    return stage.task.scores(records, stage)


def chosen(right: float) -> dict[str, Any]:
    """Scores of questions with four options, on the first of which lies the probability `right`."""
    logprob = [math.log(right), *[math.log((1 - right) / 3)] * 3]
    record = {"options": list("abcd"), "right": [0], "too_long": False, "logprob": logprob, "tokens": [1] * 4}
    return choices.scores([record] * PROBLEMS, 4)


class Lab:
    """A store of two arms whose runs are evaluated."""

    def __init__(self, root: Path, schedule: str = "wsd") -> None:
        self.store, self.schedule = Store(root), schedule

    def pair(
        self, seed: int, scored: tuple[dict[str, Any] | None, dict[str, Any] | None], stage: Evaluate = ANSWERS,
        other: Evaluate | None = None, name: str = "gsm8k", status: str = "finished", **axes: Any,
    ) -> None:  # fmt: skip
        """A run of scratch and one of nca with their scores; None for one that is not evaluated yet."""
        at = None
        for arm, found in zip(("scratch", "nca"), scored, strict=True):
            said = f"{arm} {seed} {axes}"
            how = status if arm == "nca" else "finished"
            digest = self.store.train(said, TEXT, LOSS + 0.001 * seed, schedule=self.schedule, status=how)
            spec = canonical(stage if arm == "scratch" else other or stage)
            of = self.store.evaluate(f"{name} of {said}", digest, spec, found or {}, PROBLEMS, found is not None)
            at = self.store.point(arm, {**axes, "seed": seed}, [digest], at, {name: of})

    def results(self, *claims: dict[str, Any], axes: tuple[str, ...] = ()) -> Results:
        root = self.store.register("lab", [*axes, "seed"], self.schedule)
        path = root / "studies" / "lab" / "points.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": list(claims)}))
        return Results.from_store(root, "lab")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "store")


def claim(**test: Any) -> dict[str, Any]:
    known = {"type": "Scores", "arm": "nca", "than": "scratch", "benchmark": "gsm8k", "metric": "pass", "k": 1}
    return {"type": "Claim", "id": "C10", "text": "?", "family": "C10", "needs": "any",
            "tests": [known | {"at_least": 0.01} | test]}  # fmt: skip


def test_the_table_has_a_row_for_every_score(lab: Lab) -> None:
    lab.pair(0, (answered(10), answered(20, nats=0.5)))
    lab.pair(1, (answered(10), None))
    table = lab.results().benchmarks
    assert table["arm"].tolist().count("nca") == 6 + 1  # pass@1 and 2, no_answer, cut_off, answer_nats twice; waiting
    found = table.set_index(["arm", "seed", "metric", "k"]).sort_index()
    one = found.loc[("nca", 0, "pass", 1)]
    assert one.score == 0.5 and one.score_lo < 0.5 < one.score_hi and one.problems == PROBLEMS
    assert (one.task, one.engine, one.samples, one.temperature, one.status) == ("GSM8K", "harness", 2, 0.8, "finished")
    assert math.isnan(one.chance) and math.isnan(one.normalised)
    nats = table[(table["metric"] == "answer_nats") & (table["arm"] == "nca")]
    assert nats["score"].tolist() == [0.5] and nats["k"].isna().all() and nats["score_lo"].isna().all()
    assert table[table["status"] == "waiting"][["arm", "seed", "benchmark", "metric"]].to_numpy().tolist() == [
        ["nca", 1, "gsm8k", ""]
    ]


def test_scores_of_choices_stand_beside_chance_at_the_same_k(lab: Lab) -> None:
    lab.pair(0, (chosen(0.25), chosen(0.6)), OPTIONS, name="bigbench-lite")
    table = lab.results().benchmarks
    draws = table[table["metric"] == "pass"].set_index(["arm", "k"])
    assert draws.loc[("scratch", 4), "chance"] == pytest.approx(1 - 0.75**4)
    assert draws.loc["scratch", "normalised"].abs().max() < 1e-12  # a guesser reads 0 at every k
    assert draws.loc[("nca", 2), "score"] == pytest.approx(1 - 0.4**2)
    best = table[table["metric"] == "accuracy_sum"].set_index("arm").loc["nca"]
    assert best.score == 1 and best.chance == 0.25 and best.normalised == 1


def test_scores_of_other_tasks_and_engines() -> None:
    code = Evaluate(TRAINED, HumanEval(), samples=1)
    records = [{"too_long": False, "samples": [{"status": s}]} for s in ("passed", "failed")]
    manifest = {"spec": canonical(code), "problems": 2, "scores": code.task.scores(records, code)}
    [only] = scores(manifest)
    assert only[:3] == ("pass", 1, 0.5)
    rates = {"acc_norm,none": plain(rate([1, 1, 0, 0])), "acc,none": plain(rate([1, 0, 0, 0]))}
    found = scores({"scores": rates})  # as lm-evaluation-harness names them
    assert [s.metric for s in found] == ["acc,none", "acc_norm,none"] and [s.score for s in found] == [0.25, 0.5]
    assert found[0].low < 0.25 < found[0].high


def test_gains_are_paired_by_seed(lab: Lab) -> None:
    for seed, (low, high) in enumerate([(2, 8), (10, 15), (20, 27), (28, 34), (33, 40)]):
        lab.pair(seed, (answered(low, 2.0), answered(high, 1.0 + 0.01 * seed)))
    effects = lab.results().benchmark_effects.set_index(["metric", "k"])
    gained = effects.loc[("pass", 1)]
    assert gained.gain == pytest.approx(np.mean([6, 5, 7, 6, 7]) / PROBLEMS)
    assert 0 < gained.gain_lo < gained.gain < gained.gain_hi and gained.gain_hi - gained.gain_lo < 0.06
    assert gained.score - gained.baseline_score == pytest.approx(gained.gain)
    assert gained.n_pairs == 5 and gained.verdict == "indicative: better"
    nats = effects.xs("answer_nats").iloc[0]
    assert nats.gain == pytest.approx(0.98) and nats.verdict == "indicative: better"  # of a loss less is better
    assert "no_answer" not in effects.index


def test_few_pairs_have_an_estimate_and_no_verdict(lab: Lab) -> None:
    for seed in range(3):
        lab.pair(seed, (answered(10 + seed), answered(20)))
    lab.pair(3, (answered(10), None))
    row = lab.results(claim()).benchmark_effects.iloc[0]
    assert (row.n_planned, row.n_pairs) == (4, 3) and row.gain == pytest.approx(9 / PROBLEMS)
    assert row.verdict == "no verdict (3 pairs, 4 needed)"


def test_runs_that_all_score_the_same_are_not_told_apart(lab: Lab) -> None:
    for seed in range(5):
        lab.pair(seed, (answered(0), answered(0)))
    results = lab.results(claim())
    effect = results.benchmark_effects.iloc[0]
    assert effect.verdict == "no verdict" and effect.score == 0 and math.isnan(effect.gain)
    row = results.claims.rows.iloc[0]
    assert row.verdict == "no verdict" and "every run scores 0, so gsm8k cannot tell them apart" in row.reason


def test_unlike_evaluations_and_diverged_runs_are_not_compared(lab: Lab) -> None:
    shots = Evaluate(TRAINED, GSM8K(), samples=SAMPLES, temperature=0.8, shots=4)
    for seed in range(4):
        lab.pair(seed, (answered(10), answered(20, stage=shots)), other=shots)
        lab.pair(seed + 10, (chosen(0.3), chosen(0.6)), OPTIONS, name="bigbench-lite", status="diverged")
    effects = lab.results().benchmark_effects.set_index("benchmark")
    assert effects.loc["gsm8k", "reason"].iloc[0] == "Settings of the evaluations differ."
    assert effects.loc["bigbench-lite", "n_pairs"] == 0
    assert effects.loc["bigbench-lite", "reason"] == "No pair is evaluated on bigbench-lite."


@pytest.mark.parametrize(("gained", "verdict"), [(8, "supported"), (0, "inconclusive"), (-8, "contradicted")])
def test_a_claim_about_a_benchmark_is_decided(lab: Lab, gained: int, verdict: str) -> None:
    for seed, more in enumerate((0, 1, -1, 0, 1)):
        lab.pair(seed, (answered(10 + seed), answered(10 + seed + gained + more)))
    results = lab.results(claim())
    row = results.claims.rows.iloc[0]
    assert row.verdict == verdict, row.reason
    assert row.measure == "gain in pass@1 on gsm8k" and row.unit == "share" and row.n == 5


def test_a_benchmark_that_some_points_are_asked_counts_at_these_alone(lab: Lab) -> None:
    for seed in range(4):
        lab.pair(seed, (answered(10 + seed), answered(20 + seed + seed % 2)), task="gsm8k")
        lab.pair(seed, (chosen(0.3), chosen(0.5 + 0.01 * seed)), OPTIONS, name="bigbench-lite", task="bigbench-lite")
    results = lab.results(claim(), axes=("task",))
    asked = results.benchmark_effects[["task_axis", "benchmark"]].drop_duplicates().to_numpy().tolist()
    assert asked == [["gsm8k", "gsm8k"], ["bigbench-lite", "bigbench-lite"]]
    assert results.claims.rows["row"].tolist() == ["nca, task gsm8k against scratch, gsm8k"]
    assert results.claims.verdicts["verdict"].tolist() == ["supported"]


def test_one_cosine_horizon_allows_an_indication(tmp_path: Path) -> None:
    lab = Lab(tmp_path, "cosine")
    for seed in range(4):
        lab.pair(seed, (answered(10 + seed), answered(20 + seed + seed % 2)))
    assert lab.results(claim()).claims.verdicts["verdict"].tolist() == ["indicative: for"]


def test_a_claim_waits_for_its_benchmark(lab: Lab) -> None:
    for seed in range(4):
        lab.pair(seed, (answered(1), None))
    for benchmark, lacking in (("gsm8k", "no pair is evaluated on gsm8k"), ("arc", "no such evaluations are planned")):
        rows = lab.results(claim(benchmark=benchmark)).claims.rows
        assert rows["verdict"].tolist() == ["no verdict"] and lacking in rows["reason"].iloc[0]
    for seed in range(4, 8):
        lab.pair(seed, (answered(1), answered(2)))
    rows = lab.results(claim(k=64)).claims.rows
    assert "gsm8k has no such score" in rows["reason"].iloc[0]


def test_a_report_shows_scores_gains_and_what_waits(lab: Lab, tmp_path: Path) -> None:
    for seed in range(4):
        lab.pair(seed, (chosen(0.3), chosen(0.5 + 0.01 * seed)), OPTIONS, name="bigbench-lite")
    lab.pair(4, (chosen(0.3), None), OPTIONS, name="bigbench-lite")
    lab.results(claim(benchmark="bigbench-lite"))
    page = write(tmp_path / "store", "lab", tmp_path).read_text()
    twin = (tmp_path / "report.md").read_text()
    assert '<h2 id="reasoning">Reasoning</h2>' in page and "## Reasoning" in twin
    section = twin[twin.index("## Reasoning") :]
    assert "9 of 10 evaluations are finished." in section and "**Evaluations that wait: 1**" in section
    assert (
        "| nca | +0.185 [+0.175, +0.194] | bigbench-lite pass@4 Choices |" in section
        and "chance 0.684, normalised +0.825" in section
    )
    assert "Supported if the gain of nca over scratch in pass@1 on bigbench-lite" in twin
    assert "the released evaluation takes its shots from the test set" in twin  # what was reported on C10
    assert section.index("| nca | 4 | bigbench-lite |") > section.index("Evaluations that wait")


def test_a_study_without_benchmarks_shows_none(demo: Path, tmp_path: Path) -> None:
    results = Results.from_store(demo, "demo")
    assert results.benchmarks.empty and results.benchmark_effects.empty
    assert "Reasoning" not in write(demo, "demo", tmp_path).read_text()


def test_a_study_of_the_baseline_alone_shows_its_scores(store: Store, tmp_path: Path) -> None:
    digest = store.train("a", TEXT, LOSS)
    of = store.evaluate("e", digest, canonical(ANSWERS), answered(7), PROBLEMS)
    store.point("scratch", {"seed": 0}, [digest], benchmarks={"gsm8k": of})
    write(store.register("s", ["seed"]), "s", tmp_path)
    assert "| scratch | 0 | gsm8k GSM8K | pass@1 | 0.175 [" in (tmp_path / "report.md").read_text()


def test_tables_survive_a_round_trip_whatever_an_axis_is_called(lab: Lab, tmp_path: Path) -> None:
    for seed in range(2):
        for shots in (1, 2):
            lab.pair(seed, (answered(10), answered(20) if seed else None), shots=shots)
    stored = lab.results(axes=("shots",))
    assert sorted(set(stored.benchmarks["shots_axis"])) == [1, 2] and set(stored.benchmarks["shots"].dropna()) == {0}
    read = Results.from_export(export(tmp_path / "store", "lab", tmp_path / "e"))
    for name in ("benchmarks", "benchmark_effects", "trials", "cost"):
        pd.testing.assert_frame_equal(getattr(stored, name), getattr(read, name))
        assert len(pd.read_csv(tmp_path / "e" / f"{name}.csv")) == len(getattr(stored, name))
    assert set(stored.cost["kind"]) == {"Train", "Evaluate"}
    twin = write(tmp_path / "store", "lab", tmp_path / "r").with_suffix(".md").read_text()
    assert "| nca, shots 2 |" in twin


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"scores": {"pass": {"1": 3}}}, "its scores cannot be read"),
        ({"scores": None}, "its scores cannot be read"),
        ({"scores": {"pass": {"one": {"mean": 0.1}}}}, "its scores cannot be read"),
    ],
)
def test_scores_that_are_none_are_named(damage: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        scores({"digest": "d", "spec": canonical(ANSWERS), "problems": 3} | damage)


def test_a_damaged_plan_or_manifest_is_named(lab: Lab) -> None:
    lab.pair(0, (answered(1), answered(2)))
    lab.store.points[0]["benchmarks"] = ["gsm8k"]
    with pytest.raises(DataError, match="point 0 has no usable benchmarks"):
        lab.results()
    lab.store.points.clear()
    digest = lab.store.train("b", TEXT, LOSS)
    spec = canonical(ANSWERS)
    bad = lab.store.evaluate("bad", digest, spec, {}, PROBLEMS)
    place = lab.store.root / "stages" / bad
    manifest = json.loads((place / "attempt-1" / "manifest.json").read_text())
    del manifest["scores"]
    (place / "attempt-1" / "manifest.json").write_text(json.dumps(manifest))
    done = json.loads((place / "DONE").read_text())
    done["files"] = {}
    (place / "DONE").write_text(json.dumps(done))
    lab.store.point("scratch", {"seed": 0}, [digest], benchmarks={"gsm8k": bad})
    with pytest.raises(DataError, match=r"manifest.json: lacks scores"):
        lab.results()
