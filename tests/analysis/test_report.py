"""What leaves the analysis: tables that survive a round trip, and pages that need nothing but themselves."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import DataError, Results, export, verdict_table, write
from analysis.__main__ import main
from analysis.figures import automata

from .synthetic_store import GRID, Store, law

VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what the page loads and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def exported(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(demo, "demo", tmp_path_factory.mktemp("export") / "demo")


def test_an_export_gives_the_same_tables_as_its_store(demo: Path, exported: Path) -> None:
    stored, read = Results.from_store(demo, "demo"), Results.from_export(exported)
    for name in ("frame", "effects", "pairs", "learned", "verdicts", "missing"):
        pd.testing.assert_frame_equal(getattr(stored, name), getattr(read, name))
    published = pd.read_csv(exported / "effects.csv")
    np.testing.assert_allclose(published["speedup"], read.effects["speedup"])
    assert list(published["verdict"]) == list(read.verdicts["verdict"])


def test_axis_values_survive_a_round_trip(store: Store, tmp_path: Path) -> None:
    text = 100_000
    losses = law(np.round(GRID * text))
    for i, value in enumerate([2, "1.0", "a", None, True, [0.2, 0.3]]):
        store.point("scratch", {"knob": value, "seed": 0}, [store.train(f"{i}", text, losses)])
    root = store.register("s", ["knob", "seed"])
    read = Results.from_export(export(root, "s", tmp_path / "e"))
    pd.testing.assert_frame_equal(Results.from_store(root, "s").frame, read.frame)


def test_a_damaged_export_is_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable export"):
        Results.from_export(tmp_path)
    whole = json.loads((exported / "study.json").read_text())
    point, manifest = whole["plan"]["points"][0], next(iter(whole["stages"]))
    for damaged, said in (
        ([1], "no readable export"),
        ({"plan": 3}, "lacks study, baseline"),
        (whole | {"plan": whole["plan"] | {"points": [point | {"axes": None}]}}, "point 0 has no usable axes"),
        (whole | {"stages": {manifest: {"kind": "Train"}}}, "lacks status"),
    ):
        (tmp_path / "study.json").write_text(json.dumps(damaged))
        with pytest.raises(DataError, match=said):
            Results.from_export(tmp_path)
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    frame = tmp_path / "frame.csv.gz"
    frame.write_bytes(frame.read_bytes()[:-100])
    with pytest.raises(DataError, match="no readable export"):
        Results.from_export(tmp_path)


def test_the_page_holds_everything_it_shows(demo: Path, exported: Path, tmp_path: Path) -> None:
    path = write(demo, "demo", tmp_path, beside=[exported])
    text = path.read_text()
    page = Page(text)
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in page.loads)
    assert not re.search(r"@import|url\((?!#)", text)
    assert page.tags.count("script") == 1 and "link" not in page.tags
    assert len(set(page.ids)) == len(page.ids), "two elements share an id"
    assert len(text) < 5_000_000
    assert page.tags.count("svg") >= 9 and page.tags.count("img") >= 8
    for shown in ("supported", "1.50x", "[1.49, 1.52]", "Beside it", "nca, band 0.2-0.3", "Repeat it", "f" * 64):
        assert shown in text
    twin = (tmp_path / "report.md").read_text()
    assert "| nca, band 0.2-0.3 | 5 of 5 | +0.115 [+0.112, +0.118] | 1.50x [1.49, 1.52] |" in twin
    assert text.index("1.50x") < text.index("<svg"), "the verdicts come before the figures"


def test_what_a_study_says_cannot_break_the_page(store: Store, tmp_path: Path) -> None:
    text = 100_000
    losses = law(np.round(GRID * text))
    index = store.point("scratch", {"seed": 0}, [store.train("a", text, losses)])
    store.point("<b>&nca | x", {"seed": 0}, [store.train("b", text, losses - 0.1)], index)
    root = store.register("s", ["seed"])
    page = Page(write(root, "s", tmp_path).read_text())
    assert "b" not in page.tags
    assert "<b>&nca \\| x" in (tmp_path / "report.md").read_text()


def test_a_study_of_nothing_and_a_study_half_done_have_a_page(store: Store, tmp_path: Path) -> None:
    store.point("scratch", {"seed": 0}, [store.train("scratch", 1000, [], done=False)])
    assert "compares nothing" in write(store.register("empty", ["seed"]), "empty", tmp_path).read_text()
    store.point("nca", {"seed": 0}, [store.train("nca", 1000, GRID[::-1])], 0)
    half = write(store.register("half", ["seed"]), "half", tmp_path).read_text()
    assert "No pair is finished yet" in half and "no verdict (0 pairs, 4 needed)" in half


def test_a_study_all_diverged_has_a_page(store: Store, tmp_path: Path) -> None:
    for seed in range(2):
        at = store.point("scratch", {"seed": seed}, [store.train(f"a{seed}", 100_000, GRID * 0 + 9, first=8.0)])
        bad = store.train(f"b{seed}", 100_000, GRID * np.nan, first=float("nan"), status="diverged")
        store.point("nca", {"seed": seed}, [bad], at)
    text = write(store.register("s", ["seed"]), "s", tmp_path).read_text()
    assert "Diverged runs, which carry no estimate (arm, baseline): nca (2, 2)." in text


def test_the_terminal_table_fits_and_aligns(demo: Path, store: Store) -> None:
    text = verdict_table(Results.from_store(demo, "demo"))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert {line.index("5 of 5") for line in lines[2:5]} == {lines[0].index("pairs")}
    long = "an_arm_whose_name_would_push_every_other_column_off_the_screen_of_a_terminal_that_is_120_wide"
    index = store.point("scratch", {"seed": 0}, [store.train("a", 1000, GRID[::-1])])
    store.point(long, {"seed": 0}, [store.train("b", 1000, GRID[::-1])], index)
    assert max(map(len, verdict_table(Results.from_store(store.register("s", ["seed"]), "s")).splitlines())) <= 120


def test_pictures_of_automata_show_states_in_time(store: Store) -> None:
    frames = np.zeros((2, 3, 4, 4), np.uint8)
    frames[0, 1:] = 1
    warm = store.train("warm", 1000, GRID, frames=frames, held_out={"loss_nats": 1.0, "unigram_nats": 2.0})
    store.point("nca", {"seed": 0}, [warm, store.train("nca", 1000, GRID, init=warm)])
    results = Results.from_store(store.register("s", ["seed"]), "s")
    [(name, strips)] = automata(results)
    assert name == "nca" and [score for score, _ in strips] == pytest.approx([0.1, 0.2])
    assert strips[0][1] != strips[1][1] and strips[0][1].startswith("data:image/png;base64,")


def test_the_command_line(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(demo), "demo", "--out", str(tmp_path / "r")]) == 0
    assert "supported" in capsys.readouterr().out and (tmp_path / "r" / "report.html").is_file()
    assert main(["export", str(demo), "demo", str(tmp_path / "e")]) == 0
    names = {p.name for p in (tmp_path / "e").iterdir()}
    assert names >= {"effects.csv", "frame.csv.gz", "learned.csv", "pairs.csv", "study.json"}
    capsys.readouterr()
    assert main(["report", str(demo), "nothing"]) == 2
    error = capsys.readouterr().err
    assert "no such study" in error and error.count("\n") == 1
