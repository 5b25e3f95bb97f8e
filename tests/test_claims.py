"""Claims: said in a study, checked against its arms and axes, registered with its plan."""

import json
from typing import Any, cast

import pytest

from harness import claims, plan
from harness.claims import Beats, Choose, Claim, Same, Scores, Trend
from harness.errors import InputError
from harness.sources.dyck import Dyck
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

ANY: Any = str
MODEL = Llama(depth=1, width=16, heads=2, mlp=32, context=32)


def scratch(seed: int) -> Train:
    return Train(Corpus(Dyck(k=2), seed), 256, MODEL, Recipe(lr=1e-3, batch=2), seed)


def nca(seed: int, band: float) -> Train:
    return scratch(seed).after(Train(Corpus(Dyck(k=3), seed), 256, MODEL, Recipe(lr=band, batch=2), seed))


def study(*said: Claim, **options: Any) -> Study:
    over = {"seed": 0, "band": 1e-3}
    return Study("demo", "?", scratch, [nca], over, claims=said, **options)


def test_claims_are_registered_with_the_plan_and_change_its_hash() -> None:
    without, with_claim = plan.make(study()).registered, plan.make(study(claims.speedup())).registered
    assert "claims" not in without and without["hash"] != with_claim["hash"]
    (found,) = json.loads(json.dumps(with_claim["claims"]))
    assert found["id"] == "C2" and found["family"] == "F1" and found["needs"] == "any"
    assert found["tests"][0]["type"] == "Beats" and found["tests"][0]["published"] == [1.4, 1.6]
    other = plan.make(study(claims.speedup(), claims.perplexity())).registered
    assert other["hash"] != with_claim["hash"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((claims.structure(controls=["shuffled"]),), "'shuffled': the study has no such arm; it has scratch, nca"),
        ((Claim("X", "?", [Trend("nca", "scratch", "size")]),), "'size': the study has no such axis"),
        (
            (Claim("X", "?", [Scores("nca", "scratch", "gsm8k")]),),
            "'gsm8k': the study has no such benchmark",
        ),
        ((claims.speedup(), claims.speedup()), "give every claim an id of its own"),
        ((Claim("X", "?", [Beats("nca", "scratch", choose=Choose("k", [1]))]),), "'k': the study has no such axis"),
    ],
)
def test_a_claim_about_what_the_study_lacks_is_refused(said: tuple[Claim, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        study(*said)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Claim("X", "?", []), "give at least one test"),
        (lambda: Claim("", "?", [Same("a", "b")]), "give the claim a name"),
        (lambda: Claim(cast(Any, 3), "?", [Same("a", "b")]), "Claim.id = 3: give the claim a name"),
        (lambda: Claim("X", cast(Any, None), [Same("a", "b")]), "claim X: text = None: "),
        (lambda: Claim("X", "?", cast(Any, ["nca"])), "claim X: tests = \\['nca'\\]: give a list of tests"),
        (lambda: Claim("X", "?", cast(Any, Same("a", "b"))), "claim X: tests = Same.*: give a list of tests"),
        (lambda: Claim("X", "?", [Same("a", "b")], needs=ANY("most")), "use 'all' or 'any'"),
        (lambda: Beats("a", "a"), "an arm cannot beat itself"),
        (lambda: Beats("a", "b", ANY("loss")), "use one of"),
        (lambda: Same("a", "b", 0.0), "use nats above 0"),
        (lambda: Choose("band", []), "name the seeds to choose by"),
        (lambda: Scores("a", "a", "gsm8k"), "an arm cannot beat itself"),
        (lambda: Scores("a", "b", "gsm8k", k=0), "use a whole number of at least 1"),
        (lambda: Scores("a", "b", "gsm8k", at_least=0.0), "use a gain above 0"),
        (lambda: claims.matching([], ["code"]), "name levels on both sides"),
    ],
)
def test_bad_claims(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_every_claim_of_the_paper_is_there_by_its_number() -> None:
    made = [
        claims.learned(), claims.perplexity(), claims.speedup(), claims.beats_text(), claims.beats_dyck(),
        claims.structure(), claims.attention(), claims.matching(["web"], ["code"]), claims.token_scaling(),
        claims.size_scaling(), claims.reasoning(), claims.not_the_schedule(), claims.rule_diversity(),
        claims.nuisances(["hot"]),
    ]  # fmt: skip
    assert [c.id for c in made] == [f"C{i}" for i in range(14)]
    assert all(c.family for c in made)


def test_reasoning_rests_on_the_loss_and_on_benchmarks_that_are_named() -> None:
    assert claims.reasoning().tests == (Beats("nca", "scratch", "gap", at_least=0.01, below=0.01),)
    assert claims.reasoning("a", "b", ["gsm8k"]).tests[1:] == (Scores("a", "b", "gsm8k"),)
