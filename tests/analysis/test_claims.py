"""Claims decided from a store: every test on data whose answer is known, and the rule in its cases."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.claims import Claims, claims, decide
from analysis.contrasts import Contrast
from analysis.metrics.intervals import Interval
from analysis.results import Results
from analysis.verdict_table import verdict_table

from .synthetic_store import GRID, LEARNED, Store, law

TEXT, SYNTHETIC = 1_000_000, 200_000
GRIDS = np.round(GRID * TEXT)


class Lab:
    """A store in which arms have known effects. Runs of a seed share their noise."""

    def __init__(self, root: Path, seeds: int = 5, schedule: str = "wsd") -> None:
        self.store, self.seeds, self.schedule = Store(root), seeds, schedule
        self.rng = np.random.default_rng(1)
        self.shared = self.rng.normal(0, 0.006, seeds)
        self.scratch: dict[Any, int] = {}

    def noise(self, seed: int) -> float:
        return float(self.shared[seed] + self.rng.normal(0, 0.001))

    def baseline(self, text: int = TEXT, **axes: Any) -> None:
        for seed in range(self.seeds):
            name = f"scratch {axes} {seed} {text}"
            digest = self.store.train(name, text, self.law(text) + self.noise(seed), schedule=self.schedule)
            self.scratch[json.dumps([axes, seed])] = self.store.point("scratch", {**axes, "seed": seed}, [digest])

    def law(self, text: int) -> np.ndarray:
        return law(np.round(GRID * text))

    def arm(
        self, name: str, down: float = 0.0, speedup: float = 1.0, text: int = TEXT, over: tuple[str, ...] = (),
        first: bool = True, learned: bool = True, complexity: float | None = None, status: str = "finished",
        **axes: Any,
    ) -> None:  # fmt: skip
        """Runs of an arm whose loss lies `down` nats below scratch's, or that is `speedup` faster; `over` are the axes
        that scratch has too."""
        for seed in range(self.seeds):
            label, chain = f"{name} {axes} {seed} {text}", []
            if first:
                held_out = LEARNED | {"loss_nats": (1.9 if learned else 2.25) + float(self.rng.normal(0, 0.005))}
                chain.append(self.store.train(f"warm {label}", SYNTHETIC, np.linspace(2.8, 1.9, len(GRID)),
                                              held_out=held_out, schedule="cosine"))  # fmt: skip
                self.complexity(chain[0], complexity)
            loss = law(np.round(GRID * text) * speedup) - down + self.noise(seed)
            init = chain[0] if chain else None
            chain.append(self.store.train(label, text, loss, init=init, schedule=self.schedule, status=status))
            shared = {axis: axes[axis] for axis in over}
            baseline = self.scratch.get(json.dumps([shared, seed]))
            self.store.point(name, {**axes, "seed": seed}, chain, baseline)

    def complexity(self, digest: str, value: float | None) -> None:
        if value is not None:
            directory = self.store.root / "stages" / digest / "attempt-1"
            manifest = json.loads((directory / "manifest.json").read_text()) | {"complexity": value}
            (directory / "manifest.json").write_text(json.dumps(manifest))
            done = json.loads((directory.parent / "DONE").read_text())
            del done["files"]["manifest.json"]
            (directory.parent / "DONE").write_text(json.dumps(done))

    def decide(self, *tests: dict[str, Any], axes: tuple[str, ...] = (), **claim: Any) -> Claims:
        root = self.store.register("lab", [*axes, "seed"], self.schedule)
        path = root / "studies" / "lab" / "points.json"
        said = {"type": "Claim", "id": "X", "text": "?", "tests": list(tests), "family": "F", "needs": "all"} | claim
        path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": [said]}))
        results = Results.from_store(root, "lab")
        return results.claims


def beats(arm: str = "nca", than: str = "scratch", measure: str = "gap", **other: Any) -> dict[str, Any]:
    return {"type": "Beats", "arm": arm, "than": than, "measure": measure} | other


def verdict(found: Claims) -> str:
    return str(found.verdicts["verdict"].iloc[0])


def test_a_known_speedup_supports_and_its_absence_contradicts(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    lab.arm("nca", speedup=1.5)
    found = lab.decide(beats(measure="speedup", above=1.2, at_least=1.2, below=1.4, published=[1.4, 1.6]))
    (row,) = found.rows.to_dict("records")
    assert verdict(found) == row["verdict"] == "supported" and row["n"] == 5 and row["learned"] == "yes"
    assert row["estimate_lo"] < 1.5 < row["estimate_hi"] and "published 1.4 to 1.6" in row["reason"]
    far = lab.decide(beats(measure="speedup", above=1.2, at_least=1.2, below=2.4, published=[2.5, 3]))
    # Below what was published, but there is a gain, and one horizon cannot bound it from above.
    assert verdict(far) == "indicative: against"
    net = lab.decide(beats(measure="net_speedup_tokens"))
    assert net.rows["estimate"].iloc[0] == pytest.approx(1 / (1 / 1.5 + 0.2), rel=0.02)


def test_a_gap_between_two_treated_arms(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    lab.arm("nca", down=0.05)
    lab.arm("shuffled", down=0.02)
    lab.arm("permuted", down=0.05)
    found = lab.decide(beats(than="shuffled"), beats(than="permuted"))
    assert list(found.rows["verdict"]) == ["supported", "contradicted"] and verdict(found) == "contradicted"
    assert found.rows["estimate"].iloc[0] == pytest.approx(0.03, abs=0.003)
    either = lab.decide(beats(than="shuffled"), beats(than="permuted"), needs="any")
    assert verdict(either) == "supported" and "1 of 2 supported, 1 of 2 contradicted" in either.verdicts["reason"][0]
    assert (found.rows["p_above_adj"] >= found.rows["p_above"]).all()


def test_what_is_chosen_on_some_seeds_is_tested_on_the_others(tmp_path: Path) -> None:
    lab = Lab(tmp_path, seeds=7)
    lab.baseline()
    for band, down in (("low", 0.01), ("high", 0.04)):
        lab.arm("nca", down=down, band=band)
    found = lab.decide(beats(choose={"axis": "band", "seeds": [0, 1, 2]}), axes=("band",))
    (row,) = found.rows.to_dict("records")
    assert row["n"] == 4 and row["estimate"] == pytest.approx(0.04, abs=0.003) and row["verdict"] == "supported"
    assert row["row"] == "nca, band high against scratch, band chosen on seeds 0, 1, 2"


def test_a_first_stage_that_was_not_learned_supports_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    lab.arm("nca", down=0.05, learned=False)
    found = lab.decide(beats(), {"type": "Learned", "arm": "nca"})
    assert list(found.rows["verdict"]) == ["inconclusive", "contradicted"]
    assert "was not learned" in found.rows["reason"][0]


def test_one_cosine_horizon_is_an_indication(tmp_path: Path) -> None:
    lab = Lab(tmp_path, schedule="cosine")
    lab.baseline()
    lab.arm("nca", down=0.05)
    lab.arm("worse", down=-0.05)
    found = lab.decide(beats(), beats("worse"))
    assert list(found.rows["verdict"]) == ["indicative: for", "indicative: against"]
    assert verdict(found) == "indicative: against"


def test_endpoints_of_several_budgets_are_read_across_them(tmp_path: Path) -> None:
    lab = Lab(tmp_path, schedule="cosine")
    for text in (300_000, 450_000, 600_000, 800_000, 1_000_000):
        lab.baseline(text, tokens=text)
        lab.arm("nca", speedup=1.4, text=text, tokens=text, over=("tokens",))
    found = lab.decide(beats(measure="speedup"), axes=("tokens",))
    (row,) = found.rows.to_dict("records")
    assert row["horizons"] == 5 and row["verdict"] == "supported" and row["row"] == "nca against scratch"
    assert row["estimate"] == pytest.approx(1.4, rel=0.03)
    (gap,) = lab.decide(beats(), axes=("tokens",)).rows.to_dict("records")
    assert gap["row"] == "nca, tokens 1M against scratch"


def test_trends_rise_with_an_axis(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    for rules, down in ((1, 0.0), (100, 0.02), (10_000, 0.04)):
        lab.arm("nca", down=down, rules=rules)
    trend = {
        "type": "Trend",
        "arm": "nca",
        "than": "scratch",
        "along": "rules",
        "measure": "gap",
        "above": 0,
        "below": 0,
    }
    found = lab.decide(trend, axes=("rules",))
    (row,) = found.rows.to_dict("records")
    assert row["verdict"] == "supported" and row["estimate"] == pytest.approx(0.02 / np.log(100), abs=0.001)


def test_the_matching_contrast(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    for domain, slope in (("web", 0.1), ("code", -0.1)):
        lab.baseline(domain=domain)
        for band, x in (("low", 0.3), ("mid", 0.4), ("high", 0.6)):
            lab.arm("nca", down=slope * x, complexity=x, band=band, domain=domain, over=("domain",))
    test = {"type": "Matching", "arm": "nca", "than": "scratch", "band": "band", "domain": "domain"}
    found = lab.decide(test | {"high": ["web"], "low": ["code"]}, axes=("band", "domain"))
    (row,) = found.rows.to_dict("records")
    assert row["verdict"] == "supported" and row["estimate"] == pytest.approx(0.2, abs=0.02)
    against = lab.decide(test | {"high": ["code"], "low": ["web"]}, axes=("band", "domain"))
    assert verdict(against) == "contradicted"
    absent = lab.decide(test | {"high": ["math"], "low": ["code"]}, axes=("band", "domain"))
    assert verdict(absent) == "no verdict" and "needs two bands for each of math" in absent.rows["reason"][0]


def test_the_module_that_carries_the_gain(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    for attention in ("kept", "new"):
        for mlp in ("kept", "new"):
            down = 0.05 * (attention == "kept") + 0.01 * (mlp == "kept")
            lab.arm("nca", down=down, attention=attention, mlp=mlp)
    test = {
        "type": "Carries",
        "arm": "nca",
        "than": "scratch",
        "module": "attention",
        "others": ["mlp"],
        "kept": "kept",
    }
    found = lab.decide(test, axes=("attention", "mlp"))
    assert list(found.rows["verdict"]) == ["supported"] * 2
    np.testing.assert_allclose(found.rows["estimate"], [0.05, 0.04], atol=0.002)
    other = lab.decide(test | {"module": "mlp", "others": ["attention"]}, axes=("attention", "mlp"))
    assert list(other.rows["verdict"]) == ["supported", "contradicted"]


def test_sameness_is_shown_not_assumed(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    lab.arm("nca", down=0.03)
    lab.arm("hot", down=0.0302)
    lab.arm("other", down=0.0)
    same = {"type": "Same", "arm": "hot", "other": "nca", "within": 0.01}
    found = lab.decide(same, same | {"arm": "other"}, same | {"within": 0.0003})
    assert list(found.rows["verdict"]) == ["supported", "contradicted", "inconclusive"]


def test_seeds_that_are_missing_and_runs_that_diverged(tmp_path: Path) -> None:
    lab = Lab(tmp_path, seeds=3)
    lab.baseline()
    lab.arm("nca", down=0.05)
    lab.arm("wild", down=0.05, status="diverged")
    found = lab.decide(beats(), beats("wild"), beats("absent"))
    assert list(found.rows["verdict"]) == ["no verdict (3 of 4 pairs)", "no verdict", "no verdict"]
    assert verdict(found) == "no verdict"
    assert "no such points are planned" in found.rows["reason"][2]


ROW = Contrast("nca", "speedup", "x", 5, Interval(1.5, 1.4, 1.6), 1.0, 1.05, 1.05, 0.001, 0.001)


@pytest.mark.parametrize(
    ("change", "p", "learned", "expected"),
    [
        ({}, (0.001, 0.001), "yes", "supported"),
        ({}, (0.001, 0.001), "", "supported"),
        ({}, (0.001, 0.001), "one run", "inconclusive"),
        ({}, (0.06, 0.001), "yes", "inconclusive"),
        ({"estimate": Interval(1.04, 1.01, 1.07)}, (0.01, 0.3), "yes", "inconclusive"),
        ({"estimate": Interval(1.0, 0.97, 1.03)}, (0.9, 0.01), "yes", "indicative: against"),
        ({"estimate": Interval(0.8, 0.7, 0.9)}, (0.01, 0.001), "yes", "contradicted"),
        ({"published": (1.7, 2.0)}, (0.001, 0.001), "yes", "inconclusive"),
        ({"n": 3}, (0.001, 0.001), "yes", "no verdict (3 of 4 pairs)"),
        ({"lacking": "nothing ran"}, (0.001, 0.001), "yes", "no verdict"),
    ],
)
def test_the_rule(change: dict[str, Any], p: tuple[float, float], learned: str, expected: str) -> None:
    assert decide(replace(ROW, **change), learned, *p, "F").verdict == expected


def test_a_terminal_shows_claims_before_cells(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    lab.arm("nca", down=0.05)
    lab.decide(beats(), text="It helps.")
    text = verdict_table(Results.from_store(tmp_path, "lab"))
    assert (
        text.startswith("X (supported): It helps. nca against scratch: loss gap +0.05")
        and "\nCells, exploratory:" in text
    )
    assert max(map(len, text.splitlines())) <= 120


def test_an_exploratory_claim_says_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    lab.arm("nca", down=0.05)
    found = lab.decide(beats(), family="")
    assert verdict(found) == "exploratory: supported" and "false discovery rate" in found.rows["reason"][0]


def test_a_test_of_another_version_is_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.baseline()
    with pytest.raises(ValueError, match="this version knows"):
        lab.decide({"type": "Oracle", "arm": "nca"})


def test_a_study_without_claims_has_empty_tables() -> None:
    import pandas as pd

    found = claims({"axes": [], "points": []}, lambda *_: [], pd.DataFrame(columns=["arm", "learned"]))
    assert found.verdicts.empty and found.rows.empty
