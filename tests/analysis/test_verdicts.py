"""The decision rule, case by case, and the learned check that it leans on."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.results import Results
from analysis.verdicts import decide, worst

from .synthetic_store import GRID, LEARNED, Store, law

CLEAR: dict[str, Any] = {
    "n_pairs": 5,
    "n_diverged_treated": 0,
    "n_diverged_baseline": 0,
    "gap_kind": "shared budget",
    "text_tokens": 6e5,
    "treated_text_tokens": 6e5,
    "syn_tokens": 2e5,
    "dloss_nats": 0.1,
    "dloss_nats_lo": 0.09,
    "dloss_nats_hi": 0.11,
    "speedup": 1.5,
    "speedup_lo": 1.4,
    "speedup_hi": 1.6,
    "net_speedup_tokens": 1.2,
    "p_adj": 0.001,
    "p_sesoi_adj": 0.001,
    "schedule_kind": "wsd",
}
WORSE = {"speedup": 0.56, "speedup_lo": 0.5, "speedup_hi": 0.6, "net_speedup_tokens": 0.4}
NULL = {"speedup": 1.0, "speedup_lo": 0.98, "speedup_hi": 1.02, "p_adj": 0.9}


@pytest.mark.parametrize(
    ("changes", "learned", "verdict", "says"),
    [
        ({}, "yes", "supported", "nca needs 67 % of the text of scratch: it helps, even with"),
        ({}, "", "supported", "it helps"),
        ({"net_speedup_tokens": 0.9}, "yes", "supported", "but not once the 0.2M tokens before it are counted"),
        ({}, "no", "inconclusive", "not learned"),
        ({}, "one run", "inconclusive", "rests on one run"),
        ({"schedule_kind": "cosine"}, "yes", "indicative: faster", "one cosine horizon"),
        ({"schedule_kind": "cosine / wsd"}, "yes", "indicative: faster", "it helps"),
        ({"schedule_kind": "wsd, undecayed"}, "yes", "indicative: faster", "it helps"),
        (WORSE, "yes", "contradicted", "At 0.6M text tokens nca needs 1.79 times the text of scratch: it hurts."),
        (WORSE, "no", "contradicted", "its first stage was not learned"),
        (WORSE | {"schedule_kind": "cosine"}, "yes", "indicative: slower", "it hurts"),
        (NULL, "yes", "indicative: no gain", "a speedup of 1.05 is excluded"),
        ({"speedup": 1.03, "p_sesoi_adj": 0.2}, "yes", "inconclusive", "less than the 1.05"),
        ({"p_adj": 0.2, "p_sesoi_adj": 0.4, "speedup_lo": 0.9}, "yes", "inconclusive", "[0.90, 1.60]"),
        ({"speedup": 0.97, "p_adj": 0.3, "p_sesoi_adj": 0.2}, "yes", "inconclusive", "leaves the question open"),
        ({"n_pairs": 3}, "yes", "no verdict (3 pairs, 4 needed)", "too few pairs"),
        ({"n_pairs": 1}, "yes", "no verdict (1 pair, 4 needed)", "too few pairs"),
        ({"n_pairs": 0, "speedup": np.nan}, "yes", "no verdict (0 pairs, 4 needed)", "No pair"),
        ({"n_diverged_treated": 1}, "yes", "inconclusive", "diverged in 1 of its runs and scratch in 0"),
        ({"n_diverged_treated": 1, "n_diverged_baseline": 1}, "yes", "supported", "it helps"),
        ({"gap_kind": "own ends", "treated_text_tokens": 8e5}, "yes", "no verdict (text budgets differ)", "only these"),
    ],
)
def test_the_rule(changes: dict[str, Any], learned: str, verdict: str, says: str) -> None:
    found = decide(CLEAR | changes, learned, 1.05, "scratch", "nca")
    assert found.verdict == verdict
    assert says in found.reason and found.reason.endswith(".") and "\n" not in found.reason


def test_the_worst_of_several_stages_counts() -> None:
    assert worst(["yes", "no", "one run"]) == "no"
    assert worst(["yes", "one run"]) == "one run"
    assert worst([]) == ""


def check(store: Store, losses: list[float], held_out: dict[str, Any] | None = None) -> pd.Series:
    text = 100_000
    for seed, loss in enumerate(losses):
        warm = store.train(f"warm {seed}", 1000, GRID, held_out=(held_out or LEARNED) | {"loss_nats": loss})
        digest = store.train(f"nca {seed}", text, law(np.round(GRID * text)), init=warm)
        store.point("nca", {"seed": seed}, [warm, digest])
    table = Results.from_store(store.register("s", ["seed"]), "s").learned
    assert len(table) == 1
    return table.iloc[0]


def test_learned_means_that_the_whole_interval_clears_five_percent(store: Store) -> None:
    row = check(store, [1.9, 1.92, 1.88])
    assert (row["learned"], row["best"], row["best_nats"]) == ("yes", "order-2 n-gram", 2.3)
    assert row["gain_nats"] == pytest.approx(0.4) and row["needed_nats"] == pytest.approx(0.115)
    assert row["gain_nats_lo"] < 0.4 < row["gain_nats_hi"]


@pytest.mark.parametrize("losses", [[2.2, 2.21, 2.19], [1.5, 2.2, 2.3], [1.9, float("nan"), 1.9]])
def test_not_learned(store: Store, losses: list[float]) -> None:
    held_out = LEARNED | {"copy_nats": None}
    row = check(store, losses, held_out)
    assert row["learned"] == "no"


def test_one_run_has_no_interval_and_no_claim(store: Store) -> None:
    assert check(store, [1.9])["learned"] == "one run"


def test_a_text_warm_up_has_nothing_to_check(store: Store) -> None:
    warm = store.train("warm", 1000, GRID)
    store.point("text", {"seed": 0}, [warm, store.train("nca", 1000, GRID, init=warm)])
    assert Results.from_store(store.register("s", ["seed"]), "s").learned.empty
