"""Every claim's study at the laptop's scale, end to end at a small part of its budget: in this process, one store for
all, so that what they share runs once."""

import html
from pathlib import Path

import pytest

from analysis.results import Results
from harness.__main__ import main
from harness.space import load

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"
NAMES = ("paper", "c0", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c11", "c12", "c13")
REDUCED = """
from harness.space import load
from tests.runs import reduced

study = reduced(load({target!r}), by=160, seeds=2)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_study_of_the_laptop_ends_with_a_report_and_a_row_a_test(name: str, place: Path, tmp_path: Path) -> None:
    target = f"{SPACES / name}.py:laptop"
    file = tmp_path / f"{name}.py"
    file.write_text(REDUCED.format(target=target))
    assert main(["run", str(file), "--store", str(place), "--in-process"]) == 0
    study = load(target)
    results = Results.from_store(place, study.name)
    assert results.missing.empty
    found = results.claims
    assert list(found.verdicts["claim"]) == [claim.id for claim in study.claims]
    learned = found.rows["measure"].str.startswith("gain over")
    assert set(found.rows[learned]["n"]) <= {2}
    assert set(found.rows[~learned]["n"]) <= {0, 2}  # 0: what cannot be read of so short a run
    assert found.rows[~learned]["verdict"].str.startswith("no verdict").all()  # two pairs are too few
    assert (found.rows["n"] == 2).any()
    page = html.unescape((place / "studies" / study.name / "report.html").read_text("utf-8"))
    for claim in study.claims:
        assert claim.id in page and claim.text in page
