"""Two studies side by side: which cells are the same, how far apart their effects are, what differs in the plans."""

import math
from pathlib import Path

import numpy as np
import pytest

from analysis import DataError, Results, export
from analysis.__main__ import main
from analysis.compare import compare, read, text

from .simulated import BANDS, Band, simulate
from .synthetic_store import GRID, Store, law

COMMITTED = Path(__file__).parents[2] / "results" / "crossover"


def weak(band: Band, size: str, budget: int) -> float:
    return 1.2


def strong(band: Band, size: str, budget: int) -> float:
    return 1.5


@pytest.fixture(scope="module")
def weaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weak")
    return simulate(root, study="weak", bands=BANDS[:2], sizes=["small"], effect=weak, evaluations=24)


@pytest.fixture(scope="module")
def stronger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strong")
    return simulate(root, study="strong", arms=("nca", "copy"), bands=BANDS[1:3], sizes=["small"], effect=strong,
                    evaluations=24, noise=0.004)  # fmt: skip


def test_cells_are_matched_and_the_known_difference_lies_in_the_interval(weaker: Path, stronger: Path) -> None:
    found = compare(*read([str(weaker), "weak", str(stronger), "strong"]))
    [cell] = found.cells.to_dict("records")
    assert cell["arm"] == "nca" and (cell["n_pairs_a"], cell["n_pairs_b"]) == (5, 5)
    assert cell["speedup_ratio"] == pytest.approx(1.5 / 1.2, rel=0.03)
    assert cell["speedup_ratio"] == pytest.approx(cell["speedup_b"] / cell["speedup_a"])
    assert 1 < cell["speedup_ratio_lo"] < 1.5 / 1.2 < cell["speedup_ratio_hi"] and cell["p_speedup"] < 0.01
    end = np.array([1.024e6])
    gap = float((law(1.2 * end) - law(1.5 * end))[0])
    assert cell["dloss_difference_nats"] == pytest.approx(gap, abs=0.006)
    assert cell["dloss_difference_nats_lo"] < gap < cell["dloss_difference_nats_hi"]
    assert len(found.only[0]) == 1 and len(found.only[1]) == 3
    said = "\n".join(found.plans)
    assert "arms: nothing more | copy" in said and "values of band: 0.2-0.3 | 0.4-0.5" in said


def test_a_study_beside_itself_differs_in_nothing(weaker: Path, tmp_path: Path) -> None:
    out = export(weaker, "weak", tmp_path / "e")
    found = compare(*read([str(weaker), "weak", str(out)]))
    assert found.plans == [] and found.only == ([], [])
    assert found.shared_stages == found.shared_finished == 5 + 2 * 2 * 5
    np.testing.assert_allclose(found.cells["speedup_ratio"], 1)
    np.testing.assert_allclose(found.cells["p_dloss"], 1)
    assert (found.cells["shared_stages"] == 10).all()
    assert "weak (1)" in text(found) and "intervals of cells that share runs are too wide" in text(found)


def one_pair(store: Store, study: str, axes: dict[str, object], factor: float, budget: int = 1_000_000) -> Results:
    at = np.round(GRID * 1_000_000)
    base = store.point("scratch", {"seed": 0}, [store.train(f"{study} a", 1_000_000, law(at))])
    own = np.round(GRID * budget)
    digest = store.train(f"{study} b", budget, law(own * factor))
    store.point("nca", {**axes, "seed": 0}, [digest], base)
    return Results.from_store(store.register(study, [*axes, "seed"]), study)


def test_an_axis_that_one_study_lacks_is_passed_over(tmp_path: Path) -> None:
    a = one_pair(Store(tmp_path / "a"), "a", {}, 1.2)
    b = one_pair(Store(tmp_path / "b"), "b", {"depth": 6}, 1.5)
    [cell] = compare(a, b).cells.to_dict("records")
    assert cell["speedup_ratio"] == pytest.approx(1.25, rel=0.02)
    assert math.isnan(cell["speedup_ratio_lo"]) and math.isnan(cell["p_speedup"])
    assert "axes: nothing more | depth" in compare(a, b).plans


def test_values_of_an_axis_that_both_have_must_agree(tmp_path: Path) -> None:
    a = one_pair(Store(tmp_path / "a"), "a", {"depth": 3}, 1.2)
    b = one_pair(Store(tmp_path / "b"), "b", {"depth": 6}, 1.5)
    found = compare(a, b)
    assert found.cells.empty and found.only == (["nca, depth 3"], ["nca, depth 6"])
    assert text(found).startswith("No cell is in both studies.")


def test_speedups_are_not_compared_where_budgets_differ(tmp_path: Path) -> None:
    a = one_pair(Store(tmp_path / "a"), "a", {}, 1.2)
    b = one_pair(Store(tmp_path / "b"), "b", {}, 1.2, budget=1_200_000)
    [cell] = compare(a, b).cells.to_dict("records")
    assert math.isnan(cell["speedup_ratio"]) and cell["dloss_difference_nats"] > 0
    assert "text tokens: nothing more | 1.2M" in compare(a, b).plans


def test_a_cell_without_runs_is_listed_without_estimates(tmp_path: Path) -> None:
    a = one_pair(Store(tmp_path / "a"), "a", {}, 1.2)
    empty = Store(tmp_path / "b")
    base = empty.point("scratch", {"seed": 0}, [empty.train("a", 1_000_000, [], done=False)])
    empty.point("nca", {"seed": 0}, [empty.train("b", 1_000_000, [], done=False)], base)
    found = compare(a, Results.from_store(empty.register("b", ["seed"]), "b"))
    [cell] = found.cells.to_dict("records")
    assert cell["n_pairs_b"] == 0 and math.isnan(cell["dloss_difference_nats"])
    assert "-" in text(found)


def test_the_terminal_table_fits(weaker: Path, stronger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(weaker), "weak", str(stronger), "strong"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    assert "nca, band 0.3-0.4" in out and "The plans differ (1 | 2):" in out
    assert main(["compare", str(COMMITTED), str(COMMITTED)]) == 0


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ([str(COMMITTED)], "names 1 studies"),
        ([str(COMMITTED), "nowhere"], "of a store the study is not named"),
        ([str(COMMITTED), "nowhere", "nothing"], "no such study"),
        ([str(COMMITTED)] * 3, "names 3 studies"),
    ],
)
def test_bad_input_is_one_line(places: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *places]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    with pytest.raises(DataError):
        read(places)


def test_recipes_that_differ_are_told() -> None:
    own, other = (Results.from_export(place) for place in (COMMITTED, COMMITTED.parent / "c0_laptop"))
    assert "recipes: warmup 450560 | nothing more" in compare(own, other).plans
    assert compare(own, own).plans == []
