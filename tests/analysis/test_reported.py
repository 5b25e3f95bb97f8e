"""Reported results as data, and beside a study's own in tables and reports."""

import json
import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import Results, export, write
from analysis.published.beside import HERE, OWN
from analysis.published.compare import compare_file
from analysis.published.reported import COLUMNS, IN_WORDS, OBTAINED, UNITS, reported
from analysis.sections.published import MEASURES

from .synthetic_store import GRID, Store, law

ROOT = Path(__file__).parents[2]
OPENWEBTEXT = ROOT / "results" / "published" / "openwebtext.csv"


def claim(name: str, measure: str, **test: Any) -> dict[str, Any]:
    """A claim as points.json has it, with one test."""
    known = {"type": "Beats", "arm": "nca", "than": "scratch", "measure": measure}
    return {"type": "Claim", "id": name, "text": "?", "tests": [known | test], "family": name, "needs": "any"}


CLAIMS = [
    claim("C1", "gap"),
    claim("C2", "speedup"),
    claim("C2-net", "net_speedup_flops"),
    claim("C7", "gap", type="Trend", along="band", above=0.0, below=0.0),
]


def registered(root: Path, study: str, said: list[dict[str, Any]]) -> None:
    """Puts claims into the plan of a study."""
    path = root / "studies" / study / "points.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": said}))


@pytest.fixture(scope="module")
def claimed(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("claimed") / "store"
    shutil.copytree(demo, root)
    registered(root, "demo", CLAIMS)
    return root


def test_every_row_is_well_formed() -> None:
    found = reported()
    assert tuple(found.columns) == COLUMNS and len(found)
    assert set(found["claim"]) <= {f"C{i}" for i in range(15)} | {"C2-net"}
    assert set(found["unit"]) <= set(UNITS) and set(found["obtained"]) <= set(OBTAINED)
    assert set(found["measure"]) <= set(MEASURES)
    words = found["measure"] == IN_WORDS
    assert np.isfinite(found.loc[~words, "value"]).all() and found.loc[words, "value"].isna().all()
    assert (found.loc[words, "note"] != "").all() and (found["unit"] == "").tolist() == words.tolist()
    assert (found["study"] != "").all() and (found["source"] != "").all()
    ranges = found[found["value_to"].notna()]
    assert len(ranges) and (ranges["value_to"] > ranges["value"]).all()
    assert not found.duplicated().any()
    # What can be estimated here has the unit in which it is.
    units = {"perplexity_change": "%", "text_needed": "%"}
    for row in found[found["measure"].isin(OWN)].itertuples():
        assert row.unit == units.get(str(row.measure), "x")


def test_an_arm_ends_at_one_perplexity_whatever_the_claim() -> None:
    ends = reported().query("measure == 'perplexity'")
    assert ends.groupby(["study", "corpus", "arm"])["value"].nunique().eq(1).all()
    assert set(ends.groupby("corpus")["arm"].nunique()) == {4}


def test_what_was_computed_can_be_computed_again() -> None:
    found = reported()
    ends = found.query("measure == 'perplexity'").drop_duplicates(["corpus", "arm"]).set_index(["corpus", "arm"])
    computed = found[found["obtained"] == "computed from printed end points"]
    assert len(computed) == 6
    for row in computed.itertuples():
        ratio = ends.loc[(row.corpus, row.arm), "value"] / ends.loc[(row.corpus, row.baseline), "value"]
        assert row.value == pytest.approx(100 * (ratio - 1), abs=0.005)
    plotted = found[(found["corpus"] == "OpenWebText") & found["obtained"].str.endswith("plotted curves")]
    assert set(plotted["claim"]) == {"C1", "C2", "C2-net", "C3", "C4"}
    for row in plotted.itertuples():
        read = {a.arm: a for a in compare_file(OPENWEBTEXT, str(row.baseline)).arms}[str(row.arm)]
        name = {"perplexity_change": "perplexity_change_pct"}.get(str(row.measure), str(row.measure))
        assert row.value == pytest.approx(getattr(read, name), abs=0.01), row.measure


def test_data_is_installed_with_its_package() -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    data = [p for p in (ROOT / "analysis").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert data
    for path in data:
        package = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        assert any(path.match(pattern) for pattern in said.get(package, [])), path


def test_own_estimates_are_those_of_the_claims(claimed: Path) -> None:
    results = Results.from_store(claimed, "demo")
    table, rows = results.published, results.claims.rows
    own = table[table["obtained"] == HERE].set_index(["claim", "measure", "arm"])
    for claim, measure, name in (("C1", "perplexity_change", "loss gap"), ("C2", "speedup", "speedup")):
        for _, row in rows[(rows["claim"] == claim) & (rows["measure"] == name)].iterrows():
            mine = own.loc[(claim, measure, row["row"].removesuffix(" against scratch"))]
            seen = np.array([mine.value, mine.value_lo, mine.value_hi])
            said = np.array([row.estimate, row.estimate_lo, row.estimate_hi])
            want = said if name == "speedup" else 100 * np.expm1(-said)[[0, 2, 1]]
            np.testing.assert_allclose(seen, want, rtol=1e-9)
            assert mine.value_lo < mine.value < mine.value_hi and mine.seeds == 5
    for i, label in enumerate(results.labels[:2]):
        effect = results.effects.iloc[i]
        assert own.loc[("C2", "speedup_20_mnats_up", label), "value"] == pytest.approx(effect.speedup_20_mnats_up)
        assert own.loc[("C2", "text_needed", label), "value"] == pytest.approx(100 / effect.speedup)
        net = own.loc[("C2-net", "net_speedup_tokens", label), "value"]
        assert net == pytest.approx(effect.net_speedup_tokens, rel=0.01)
    assert not len(own.loc[own.index.get_level_values("claim") == "C7"])


def test_a_report_shows_what_was_reported_beside_what_was_found(claimed: Path, tmp_path: Path) -> None:
    page = write(claimed, "demo", tmp_path).read_text()
    twin = (tmp_path / "report.md").read_text()
    for said in (page, twin):
        assert said.count("Published, and here") == len(CLAIMS)
        assert "one run an arm at 1.6B parameters, no seeds, and so no interval. This study: 5 pairs of seeds" in said
    section = twin[twin.index("## C2:") : twin.index("## C2-net:")]
    lines = [line for line in section.splitlines() if line.startswith(("| Lee", "| this study"))]
    first = [line.split(" | ") for line in lines if "| speedup of nca" in line]
    assert [cells[1].split()[0] for cells in first] == ["1.49x", "1.41x", "1.62x", "1.50x", "1.00x"]
    assert "[1.49, 1.52]" in first[3][1] and first[3][4] == "5"
    assert "55 to 86 %" in section and "This study estimates none of these measures." in twin
    assert "slightly worse, at 56 tokens per parameter" in twin


def test_a_study_without_claims_shows_nothing_of_it(demo: Path, tmp_path: Path) -> None:
    assert Results.from_store(demo, "demo").published.empty
    assert "Lee et al." not in write(demo, "demo", tmp_path).read_text()
    assert "Published" not in (tmp_path / "report.md").read_text()


def test_a_claim_of_ones_own_has_nothing_reported(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "store")
    registered(tmp_path / "store", "demo", [claim("mine", "speedup")])
    assert Results.from_store(tmp_path / "store", "demo").published.empty


def test_a_study_of_nothing_finished_says_so(store: Store, tmp_path: Path) -> None:
    text = 100_000
    at = store.point("scratch", {"seed": 0}, [store.train("a", text, law(np.round(GRID * text)))])
    store.point("nca", {"seed": 0}, [store.train("b", text, [], done=False)], at)
    root = store.register("s", ["seed"])
    registered(root, "s", [claim("C1", "gap")])
    own = Results.from_store(root, "s").published.query("obtained == @HERE")
    assert own["seeds"].tolist() == [0] and own["value"].isna().all()
    assert own["note"].tolist() == ["no pair of nca and scratch is finished"]
    write(root, "s", tmp_path)
    assert "This study has no finished pair to compare yet." in (tmp_path / "report.md").read_text()


def test_it_survives_a_round_trip(claimed: Path, tmp_path: Path) -> None:
    stored = Results.from_store(claimed, "demo").published
    pd.testing.assert_frame_equal(stored, Results.from_export(export(claimed, "demo", tmp_path)).published)
    kinds: dict[str, Any] = {"keep_default_na": False, "na_values": {c: [""] for c in stored.select_dtypes("number")}}
    written = pd.read_csv(tmp_path / "published.csv", **kinds)
    assert written["claim"].tolist() == stored["claim"].tolist()
    np.testing.assert_allclose(written["value"], stored["value"])
    assert math.isnan(written["value_lo"].iloc[0]) and written["note"].tolist() == stored["note"].tolist()
