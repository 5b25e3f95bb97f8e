"""The preview: numbers of every kind of source, files, and what is refused."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import figures
from harness import preview, preview_page
from harness.__main__ import main
from harness.automata import engine, score
from harness.sources.copying import Copy
from harness.sources.dyck import Dyck
from harness.sources.iid import IID
from harness.sources.nca import NCA
from harness.sources.shuffled import Shuffled
from harness.sources.text import Text
from harness.specs import Corpus, Source, digest

SPACE = """
from harness.sources.copying import Copy
from harness.sources.nca import NCA
from harness.sources.shuffled import Shuffled
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

automata = NCA(states=2, grid=8, band=(0.08, 0.21))
in_vain = NCA(states=2, grid=4, band=(0.97, 0.99), candidates=100)
shuffled = Shuffled(automata)
copies = Copy()
corpus = Corpus(automata, 3)
words = Text.local({text!r}, tokenizer=BPE(300), held_out=0.2)
number = 3

def scratch():
    return Train(Corpus(words), 4096, Llama(depth=1, width=16, heads=2, mlp=24, context=64), Recipe(lr=1e-2, batch=8))

def warm():
    return scratch().after(Train(Corpus(automata), 4096, scratch().model, scratch().recipe))

def cold():
    return scratch().after(Train(Corpus(copies), 4096, scratch().model, scratch().recipe))

study = Study("one", "q", scratch, [warm])
two = Study("two", "q", scratch, [warm, cold])
"""


@pytest.fixture
def space(tmp_path: Path, text: Text, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NCA_STORE", raising=False)
    path = tmp_path / "space.py"
    path.write_text(SPACE.format(text=text.files))
    return path


# ---- numbers


def test_the_numbers_of_automata() -> None:
    source = NCA(states=2, grid=8, band=(0.08, 0.21))
    found, frames = preview.measure("a", source, 96)
    reader = source.open()
    candidates = reader.scores(96)
    share = source.accepts(candidates).mean()
    assert 0 < share == found["acceptance"]["share"] < 1
    assert found["acceptance"]["error"] == pytest.approx((share * (1 - share) / 96) ** 0.5)
    assert found["gzip"]["candidates"]["mean"] == pytest.approx(candidates.mean())
    assert found["gzip"]["sequences"]["quantiles"]["0.05"] > 0.08
    assert found["gzip"]["sequences"]["quantiles"]["0.95"] < 0.21
    assert found["gzip"]["sequences"]["iid"] == score.iid_ratio(16, 16)
    assert found["statistics"]["tokens"] == 96 * (
        56 * 16 + 15
    )  # of 1,024 tokens, 57 frames of 18 but for the last's end
    assert (found["alphabet"], found["patches"], found["statistics"]["ids"]) == (16, 16, 16)
    assert sum(found["histogram"]["sequences"]) == pytest.approx(1)
    assert frames is not None and frames[0].shape == (preview.RULES, preview.TIMES, 8, 8)
    assert found["tokens_per_s"] > 0
    json.dumps(found, allow_nan=False)


def test_threads_change_nothing_but_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "BLOCK", 7)
    measured = []
    for threads in (1, 2):
        monkeypatch.setattr(engine, "_threads", threads)
        measured.append(preview.measure("a", NCA(states=2, grid=4), 40)[0])
    one, two = measured
    for found in (one, two):
        del found["tokens_per_s"], found["threads"]
    assert one == two


AUTOMATA = NCA(states=2, grid=4, patch=2)


@pytest.mark.parametrize(
    "source", [Shuffled(AUTOMATA), Shuffled(AUTOMATA, "frames"), IID(AUTOMATA, sample=64), Dyck(k=4), Copy()], ids=repr
)
def test_sources_without_scores_show_what_they_have(source: Source) -> None:
    found, frames = preview.measure("s", source, 48)
    assert frames is None and found["acceptance"] is None and "candidates" not in found["gzip"]
    assert (found["statistics"]["repeated"] is None) == (source.frame_tokens is None)
    assert found["gzip"]["sequences"]["count"] == (48 * 2 if source.frame_tokens is None else 48)
    cells = dict(preview.rows([found]))
    assert "gzip ratio, mean" in cells and "acceptance" not in cells and all(any(c) for c in cells.values())


def test_large_frames_get_a_context_that_holds_ten() -> None:
    found, _ = preview.measure("a", NCA(states=2, grid=24, patch=2), 8)
    assert found["context"] == 10 * 146
    assert found["gzip"]["sequences"]["iid"] == score.iid_ratio(16, 144)


def test_a_text_is_measured_in_windows_of_the_size_of_a_score(text: Text) -> None:
    found, reader = preview.measure_text("t", text, 100, 16)
    assert found["text"]["tokens"]["count"] == reader.epoch(160)
    assert found["statistics"]["sequences"] == reader.epoch(1024) < 100
    assert found["text"]["whole"] and found["text"]["tokens_read"] == len(reader.tokens)
    assert found["gzip"]["sequences"]["iid"] == score.iid_ratio(300, 16)
    windows, _ = reader.sequences(0, np.arange(reader.epoch(160)), 160)
    assert len({w.tobytes() for w in windows}) == len(windows)  # each once
    json.dumps(found, allow_nan=False)


def test_a_large_corpus_is_sampled(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.sources import text as texts

    monkeypatch.setattr(texts, "PART_BYTES", 500)
    monkeypatch.setattr(preview, "TEXT_BYTES", 20 * 2**20)
    found, _ = preview.measure_text("t", text, 4, 16)
    assert not found["text"]["whole"] and found["text"]["sampled_documents"] < 25


def test_colours_are_those_of_the_report() -> None:
    assert preview_page.STATES == figures.STATES
    assert preview_page.palette(3).shape == (4, 3)
    assert len(np.unique(preview_page.palette(200), axis=0)) > 150


# ---- the command


def call(*argv: object) -> int:
    return main(["preview", *map(str, argv)])


def check_page(out: Path) -> str:
    html = (out / "preview.html").read_text("utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html) and "url(http" not in html  # nothing outside it
    assert "<script" not in html and html.count("<svg") == 2
    return html


def test_a_preview_of_automata_beside_a_text(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    target = f"{space}:automata"
    assert call(target, "--sequences", 40, "--threads", 1, "--beside", f"{space}:words") == 0
    out = Path("preview/automata")
    printed = capsys.readouterr()
    assert "acceptance" in printed.out and "Zipf slope" in printed.out and "words" in printed.out
    assert "sequences" in printed.err  # progress
    found = json.loads((out / "preview.json").read_text())
    assert [m["name"] for m in found["measured"]] == ["automata", "words"]
    assert found["measured"][1]["patches"] == 16 and found["published"]["web"][0] == 0.7
    gif = Image.open(io.BytesIO((out / "preview.gif").read_bytes()))
    assert getattr(gif, "n_frames", 1) > 1 and gif.size[0] == gif.size[1]
    assert Image.open(io.BytesIO((out / "preview.png").read_bytes())).size[0] == 1200
    html = check_page(out)
    assert html.count("data:image/gif") == html.count("data:image/png") == 1
    assert "do not say on which scale" in html and "58 %" in html


def test_a_preview_without_frames_leaves_no_animation_of_another(space: Path) -> None:
    assert call(f"{space}:automata", "--sequences", 8, "--out", "here") == 0
    assert (Path("here") / "preview.gif").exists()
    assert call(f"{space}:copies", "--sequences", 8, "--out", "here") == 0
    assert sorted(p.name for p in Path("here").iterdir()) == ["preview.html", "preview.json", "preview.png"]
    check_page(Path("here"))


def test_a_text_can_be_the_subject_and_a_path_beside(space: Path) -> None:
    Path("one.txt").write_text("a single document, which is none the less a corpus; " * 400)
    assert call(f"{space}:words", "--sequences", 8, "--beside", "one.txt") == 0
    found = json.loads(Path("preview/words/preview.json").read_text())["measured"]
    assert [m["name"] for m in found] == ["words", "one.txt"]
    assert found[0]["text"] and found[1]["text"]["sampled_documents"] == 1
    assert found[1]["alphabet"] == preview.BESIDE_VOCAB


def test_corpora_and_studies_stand_for_their_one_generated_source(space: Path) -> None:
    want = NCA(states=2, grid=8, band=(0.08, 0.21))
    for target in (f"{space}:automata", f"{space}:corpus", f"{space}:study", str(space)):
        assert digest(preview.find(target)[1]) == digest(want)
    assert preview.generated(Corpus(want)) == [want]


@pytest.fixture
def refused(space: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refused(*argv: Any) -> str:
        capsys.readouterr()
        assert call(*argv, "--sequences", 8) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return refused


def test_what_is_no_source_is_refused_with_those_that_are(refused: Callable[..., str], space: Path) -> None:
    known = "sources in this file: automata, in_vain, shuffled, copies, words"
    assert known in refused(f"{space}:number") and "'number' is a value of type int" in refused(f"{space}:number")
    assert f"there is no 'nothing'; {known}" in refused(f"{space}:nothing")
    assert "'two' has 2 generated sources" in refused(f"{space}:two")
    assert "no such file" in refused("absent.py:automata")
    assert "Text" in refused(f"{space}:automata", "--beside", f"{space}:copies")
    assert not Path("preview").exists()  # refused before anything is made


def test_a_band_that_accepts_nothing(refused: Callable[..., str], space: Path) -> None:
    assert "NCA.band = (0.97, 0.99)" in refused(f"{space}:in_vain")


def test_texts_that_hold_nothing(refused: Callable[..., str], space: Path) -> None:
    assert "does not exist" in refused(f"{space}:automata", "--beside", "absent")
    Path("empty").mkdir()
    Path("empty/a.txt").touch()
    assert "holds no text" in refused(f"{space}:automata", "--beside", "empty")
    Path("rows.jsonl").write_text('{"text": null}\n')
    assert "holds no documents" in refused(f"{space}:automata", "--beside", "rows.jsonl")
    Path("short.txt").write_text("a few words")
    assert "too few for one sequence of 1024" in refused(f"{space}:automata", "--beside", "short.txt")


def test_directories_that_are_not_for_previews(
    refused: Callable[..., str], space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"{space}:automata"
    Path("taken").write_text("")
    assert "cannot be written" in refused(target, "--out", "taken")
    Path("results/stages").mkdir(parents=True)
    assert "store of results" in refused(target, "--out", "results")
    assert "store of results" in refused(target, "--out", "results/stages/mine")
    assert "store of results" in refused(target, "--out", "store/mine")
    monkeypatch.setenv("NCA_STORE", "elsewhere")
    assert "store of results" in refused(target, "--out", "elsewhere")
