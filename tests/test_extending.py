"""docs/extending.md: every block of it runs as it stands, and whoever errs while following it is told in one line."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.__main__ import main as analyse
from harness import plan as plans
from harness import space, stages
from harness.__main__ import main
from harness.errors import InputError
from harness.rng import permuted
from harness.sources import checking
from harness.sources.copying import Copy
from harness.sources.dyck import Dyck
from harness.sources.iid import IID
from harness.specs import Corpus, Sequences, Source, Train, differences, digest
from harness.store import Store

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "extending.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE))
KEPT_IN = {
    "A source": "ring.py",
    "A corpus": "ring.py",
    "An arm, and its control": "ring.py",
    "A claim": "ring.py",
    "A metric": "overtaking.py",
}
"""The file that the Python of a section belongs to."""
COMMANDS = {"harness": main, "analysis": analyse}


class Block(NamedTuple):
    """A fenced block of the guide."""

    section: str
    language: str
    text: str


BLOCKS = [
    Block(section, language, text)
    for section, content in SECTIONS.items()
    for language, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE)
]
SPACE, METRICS = (
    "\n".join(b.text for b in BLOCKS if b.language == "python" and KEPT_IN[b.section] == file)
    for file in ("ring.py", "overtaking.py")
)


def put(directory: Path, ring: str = SPACE, overtaking: str = METRICS) -> Path:
    """The files that a reader of the guide has."""
    (directory / "ring.py").write_text(ring)
    (directory / "overtaking.py").write_text(overtaking)
    notes = directory / "notes"
    notes.mkdir(exist_ok=True)
    for i in range(40):
        (notes / f"{i:02d}.txt").write_text(f"note {i}: {i * i} things to remember, and {i + 1} to forget\n" * 30)
    return directory


def call(line: str) -> int:
    """The exit code of a command of the guide, in this process."""
    python, _, package, *argv = shlex.split(line)
    assert python == "python"
    return COMMANDS[package](argv)


class Followed(NamedTuple):
    """What is there when the guide was followed to its end."""

    directory: Path
    codes: dict[str, int]
    results: analysis.Results


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    directory = put(tmp_path_factory.mktemp("guide"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.delenv("NCA_STORE", raising=False)
        lines = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]
        codes = {line: call(line) for line in lines}
        own = analysis.own.load("overtaking.py")
        yield Followed(directory, codes, analysis.Results.from_store("store", "rings", own))


# ---- the guide as it stands


def test_no_block_is_longer_than_thirty_lines() -> None:
    assert {block.section for block in BLOCKS} == set(KEPT_IN)
    assert {block.language for block in BLOCKS} == {"python", "sh"}  # all of which is run here
    assert GUIDE.count("```") == 2 * len(BLOCKS)
    for block in BLOCKS:
        assert len(block.text.splitlines()) <= 30, block.section
    for section in KEPT_IN:
        code = [line for b in BLOCKS if b.section == section for line in b.text.splitlines() if line.strip()]
        assert len(code) < 30, section


def test_every_command_of_the_guide_ends_well(followed: Followed) -> None:
    assert set(followed.codes.values()) == {0} and len(followed.codes) >= 5
    assert (followed.directory / "preview" / "RING" / "preview.html").is_file()


def test_the_source_gives_sequences_that_are_functions_of_their_numbers_and_trains(
    followed: Followed, store: Store
) -> None:
    source, _, module = space.load_value(str(followed.directory / "ring.py:RING"), "study")
    index = np.array([0, 5, 2**40, 7])
    inputs, targets = source.open().sequences(3, index, 50)
    assert inputs.dtype == targets.dtype == np.int32 and inputs.shape == targets.shape == (4, 50)
    for row in permuted(np.arange(4), 4, 1):
        alone = source.open().sequences(3, index[row : row + 1], 50)
        np.testing.assert_array_equal(alone[0][0], inputs[row])
        np.testing.assert_array_equal(alone[1][0], targets[row])
    assert (source.open().sequences(4, index, 50)[0] != inputs).any(1).all()
    assert (source.open().held_out(4, 50)[0] != source.open().sequences(0, np.arange(4), 50)[0]).any(1).all()
    spec = module.ring(0).init
    assert isinstance(spec, Train) and spec.corpus == Corpus(source, 0)
    manifest = stages.run_here(spec, store)
    assert manifest["status"] == "finished" and manifest["held_out"]["loss_nats"] < np.log(16)
    assert digest(source) == digest(type(source)(cells=16.0)) != digest(type(source)(cells=32))


def test_a_ring_follows_its_rule(followed: Followed) -> None:
    source, _, _ = space.load_value(str(followed.directory / "ring.py:RING"), "study")
    tokens = source.tokens(0, np.arange(20), 40)
    cells = (tokens[:, :, None] >> np.array([3, 2, 1, 0]) & 1).reshape(20, 10, 16)
    around = 4 * np.roll(cells, 1, 2) + 2 * cells + np.roll(cells, -1, 2)
    for sequence, (before, after) in enumerate(zip(around[:, :-1], cells[:, 1:], strict=True)):
        for pattern in range(8):
            assert len(np.unique(after[before == pattern])) <= 1, (sequence, pattern)


def test_the_corpora_are_values_that_plan_without_a_network(followed: Followed) -> None:
    stories, _, module = space.load_value(str(followed.directory / "ring.py:STORIES"), "study")
    assert stories.unresolved and stories.vocab_size == 50257
    assert not module.NOTES.unresolved and module.NOTES.resolved().content
    reading = Train(Corpus(stories), 65_536, module.MODEL, module.scratch(0).recipe)
    study = space.Study("stories", "?", arm_of(reading), [])
    assert list(plans.unresolved(plans.make(study)).values()) == [stories]


def arm_of(train: Train) -> space.Arm:
    def scratch() -> Train:
        return train

    return scratch


def test_the_control_differs_from_its_arm_in_the_source_alone(followed: Followed) -> None:
    plan = plans.make(space.load(str(followed.directory / "ring.py")))
    assert [len([p for p in plan.points if p.arm == arm]) for arm in ("scratch", "ring", "counts")] == [4, 4, 4]
    one, other = (next(p.train.init for p in plan.points if p.arm == arm) for arm in ("ring", "counts"))
    assert one is not None and other is not None
    assert differences(one, other) == ["corpus.source"]


def test_the_claim_has_a_verdict(followed: Followed) -> None:
    found = followed.results.claims
    (verdict,) = found.verdicts.to_dict("records")
    assert verdict["claim"] == "rules" and verdict["family"] == "rings" and verdict["verdict"] != "no verdict"
    assert list(found.rows["n"]) == [4, 4, 4]
    assert found.rows["estimate"].notna().all()


def test_the_metrics_stand_in_tables_export_and_report(followed: Followed) -> None:
    tables, out = followed.results.tables(), followed.directory / "tables"
    pairs, effects = tables["pairs"], tables["effects"]
    assert pairs["lead_at_half_nats"].notna().all() and len(pairs) == 8
    for arm, rows in pairs.groupby("arm"):
        (effect,) = effects[effects["arm"] == arm].to_dict("records")
        assert effect["lead_at_half_nats"] == pytest.approx(rows["lead_at_half_nats"].mean())
        assert effect["lead_at_half_nats_lo"] < effect["lead_at_half_nats"] < effect["lead_at_half_nats_hi"]
    text = followed.results.frame[followed.results.frame["phase"] == "pre-training"]
    assert list(tables["best_loss"]["loss_nats"]) == sorted(text.groupby("arm")["loss_nats"].min())
    for name in ("pairs", "effects", "best_loss"):
        assert list(pd.read_csv(out / f"{name}.csv")) == list(pd.read_parquet(out / f"{name}.parquet"))
        assert list(pd.read_csv(out / f"{name}.csv")) == list(tables[name])
    again = analysis.Results.from_export(out, followed.results.metrics[1:]).tables()
    for name in ("pairs", "effects", "best_loss"):
        pd.testing.assert_frame_equal(again[name], tables[name])
    for page in ("report.html", "report.md"):
        shown = (followed.directory / "store" / "studies" / "rings" / page).read_text("utf-8")
        assert "loss gap at half of the text, nats" in shown
        assert "The lowest loss of every arm, over seeds and evaluations (best_loss)" in shown


# ---- mistakes


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], str]:
    """What a command says of a `ring.py`: exit code 2, and one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NCA_STORE", raising=False)

    def told(command: str, ring: str) -> str:
        put(tmp_path, ring)
        capsys.readouterr()
        # A file that was loaded is kept by its path, and every test has one of its own.
        assert call(f"python -m harness {command.replace('ring.py', str(tmp_path / 'ring.py'))}") == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        assert "Traceback" not in "\n".join(lines)
        return lines[-1]

    return told


PREVIEW, PLAN = "preview ring.py:RING --sequences 8", "plan ring.py"
SHAPE = "4 sequences of 1024 tokens are int32 (4, 1024)"
PAIR = """
    def sequences(self, seed, index, context):
        tokens = self.tokens(seed, index, context + 1)
        {}

    def held_out(self, count, context):
        {}
"""
HELD_OUT = "return self.sequences(2**64 - 1, np.arange(count), context)"
METHODS = "\n\n\nRING = Ring()"
MISTAKES = {
    "wrong dtype": (PREVIEW, ".astype(np.int32)", "", [f"Ring.sequences, inputs = 'int64': {SHAPE}; end with .astype"]),
    "float": (PREVIEW, "np.int32", "np.float32", ["Ring.sequences, inputs = 'float32'", "int32"]),
    "wrong shape": (PREVIEW, ":count]", ":100]", [f"Ring.sequences, inputs = (4, 99): {SHAPE}; return that shape"]),
    "flat": (PREVIEW, ".astype(np.int32)", ".astype(np.int32).ravel()", ["ring.py:", "Ring: IndexError: too many"]),
    "short targets": (
        PREVIEW, METHODS, PAIR.format("return tokens[:, :-1], tokens[:, 2:]", HELD_OUT) + METHODS,
        [f"Ring.sequences, targets = (4, 1023): {SHAPE}; return that shape"],
    ),
    "one array": (
        PREVIEW, METHODS, PAIR.format("return tokens", HELD_OUT) + METHODS,
        ["Ring.sequences = 'ndarray': return two arrays, inputs and targets"],
    ),
    "no targets": (
        PREVIEW, METHODS, PAIR.format("return tokens[:, :-1], 0 * tokens[:, 1:] - 100", HELD_OUT) + METHODS,
        ["Ring.sequences, targets = -100: none is supervised"],
    ),
    "held out are trained on": (
        PREVIEW, METHODS,
        PAIR.format("return tokens[:, :-1], tokens[:, 1:]", "return self.sequences(0, np.arange(count), context)")
        + METHODS,
        ["Ring.held_out = the first sequences of seed 0", "harness.sources.HELD_OUT"],
    ),
    "id too high": (
        PREVIEW, "vocab_size: ClassVar[int] = 16", "vocab_size: ClassVar[int] = 15",
        ["Ring.sequences, inputs = 15: vocab_size is 15, so ids are 0 to 14; mend the tokens or vocab_size"],
    ),
    "negative id": (PREVIEW, "[8, 4, 2, 1]", "[8, 4, 2, -1]", ["Ring.sequences, inputs = -1: vocab_size is 16"]),
    "a state": (
        PREVIEW, "rng.words(rng.keys(index, seed, rng.named_seed(\"Ring\")), 2)",
        "np.random.default_rng(seed).integers(0, 2**62, (len(index), 2))",
        ["Ring.sequences, sequence = 1: asked for alone it is another than among others", "rng.keys"],
    ),
    "a misspelt name": (PREVIEW, "rng.words", "rng.wrds", ["ring.py:19: Ring: AttributeError: module 'harness.rng'"]),
    "no version": (
        PLAN, "    version: ClassVar[int] = 1\n", "",
        ["Corpus.source = Ring(cells=16): Ring has no version; write `version: ClassVar[int] = 1`, raised whenever"],
    ),
    "no version, previewed": (PREVIEW, "    version: ClassVar[int] = 1\n", "", ["'RING' is no source: Ring has no"]),
    "version as a setting": (PLAN, "version: ClassVar[int]", "version: int", ["its version is a setting; write `ver"]),
    "no vocabulary": (PLAN, "    vocab_size: ClassVar[int] = 16\n", "", ["Ring has no vocab_size; give the number of"]),
    "vocabulary of a method": (
        PLAN, "vocab_size: ClassVar[int] = 16", "vocab_size = lambda self: 16", ["Ring.vocab_size = <bound method"],
    ),
    "not frozen": (PLAN, "@dataclass(frozen=True)", "@dataclass", ["write @dataclass(frozen=True)"]),
    "no dataclass": (PLAN, "@dataclass(frozen=True)\n", "", ["write @dataclass(frozen=True)"]),
    "a class": (PLAN, "RING = Ring()", "RING = Ring", ["is a class; write its settings too, as in NCA()"]),
    "a class, previewed": (PREVIEW, "RING = Ring()", "RING = Ring", ["is a class; write its settings too"]),
    "no tokens": (PREVIEW, "def tokens", "def token", ["ring.py", "NotImplementedError: Ring has no `tokens`"]),
    "no dataset": (PLAN, '.with_name("notes")', '.with_name("nodes")', ["Text.files = ", "nodes': does not exist"]),
    "an arm that returns nothing": (
        PLAN, "    return warmed(seed, RING)", "    warmed(seed, RING)",
        ["arm ring returned None: an arm returns a Train"],
    ),
    "an axis that is not there": (
        PLAN, "def ring(seed):", "def ring(seed, width):", ["axis 'width' is not in Study.over, which has seed"],
    ),
    "a claim about no arm": (
        PLAN, 'Beats("ring", "counts"', 'Beats("ring", "count"',
        ["claim rules = 'count': the study has no such arm; it has scratch, ring, counts"],
    ),
    "a claim about nothing measured": (PLAN, '"scratch", "gap")', '"scratch", "loss")', ["Beats.measure = 'loss'"]),
    "a claim that is no list": (PLAN, "claims=[finds_rules]", "claims=finds_rules", ["give a list of claims"]),
    "a test alone": (PLAN, "claims=[finds_rules]", 'claims=[Learned("ring")]', ["give a list of claims"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(mistake: str, told: Callable[[str, str], str]) -> None:
    command, right, wrong, words = MISTAKES[mistake]
    assert SPACE.count(right) >= 1
    line = told(command, SPACE.replace(right, wrong))
    for said in words:
        assert said in line, line


def test_a_mistake_that_a_preview_would_have_told_ends_a_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ring = SPACE.replace("[8, 4, 2, 1]", "[9, 4, 2, 1]")
    file = put(tmp_path, ring) / "ring.py"
    stage = digest(space.load_value(str(file), "study")[2].ring(0).init)
    assert call(f"python -m harness run {file} --in-process --store here --stage {stage[:12]}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = "Ring.sequences, inputs = 16: vocab_size is 16, so ids are 0 to 15; mend the tokens or vocab_size"
    assert line.startswith("failed: ") and line.endswith(f": {said}")


def test_generators_on_other_machines_hold_a_source_to_it_too(tmp_path: Path) -> None:
    from harness.cluster.data import Generate

    file = put(tmp_path, SPACE.replace("[8, 4, 2, 1]", "[9, 4, 2, 1]")) / "ring.py"
    spec = space.load_value(str(file), "study")[2].ring(0).init
    with pytest.raises(InputError, match=r"^Ring\.sequences, inputs = 16: vocab_size is 16, so ids are 0 to 15"):
        Generate(spec, 1, 0)({"block": np.array([0])})


def test_a_reader_that_lacks_a_member_is_refused() -> None:
    class Reader:
        sequences = held_out = epoch = None

    with pytest.raises(InputError, match=r"^Copy\.open = Reader: has no token_bytes; derive Copy from .*Generated"):
        checking.look(Copy(), cast(Sequences, Reader()), 64)


@pytest.mark.parametrize("source", [Copy(), Dyck(k=3), IID(Dyck(k=3), sample=8)])
def test_the_sources_of_the_harness_are_as_they_must_be(source: Source) -> None:
    checking.look(source, source.open(), 80)


WRONG_METRICS = {
    "raises": ("frame.phase", "frame.phse", ["overtaking.py:9: metric best_loss: AttributeError: 'DataFrame' object"]),
    "raises of a pair": ("curve.end", "curve.last", ["overtaking.py:3: metric lead_at_half_nats: AttributeError"]),
    "no number": (
        "return baseline.curve.at(half) - treated.curve.at(half)", "return 'ahead'",
        ["overtaking.py:1: metric lead_at_half_nats gave 'ahead' of a pair: return a number, or NaN"],
    ),
    "no table": (
        'return best.sort_values("loss_nats", ignore_index=True)', "return best.loss_nats.min()",
        ["overtaking.py:7: metric best_loss gave a float64: return a pandas DataFrame"],
    ),
    "columns without names": (
        'return best.sort_values("loss_nats", ignore_index=True)', "return best.T.reset_index(drop=True)",
        ["metric best_loss gave the columns", "use names, each once"],
    ),
    "a parameter that is nothing": ("def best_loss(frame)", "def best_loss(data)", ["there is no 'data'; name"]),
    "no parameter": ("def best_loss(frame)", "def best_loss()", ["best_loss names nothing"]),
    "the name of a column": ("lead_at_half_nats", "dloss_nats", ["dloss_nats is a column already; name the metric"]),
    "the name of another metric": ("lead_at_half_nats", "auc_gain_nats", ["metric is named auc_gain_nats"]),
    "the name of a table": ("best_loss", "noise", ["noise is a table already; name the metric otherwise"]),
    "no list": ("metrics = [", "measures = [", ["has no list of functions named 'metrics'"]),
    "no function": ("best_loss]", "'best_loss']", ["'best_loss' is no metric; use a function with a name"]),
    "no Python": ("metrics = [", "metrics = ]", ["overtaking.py:14: "]),
    "a file that raises": ("metrics = [", "metrics = nothing + [", ["overtaking.py:", "NameError: name 'nothing'"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_METRICS)
def test_a_mistake_in_a_metric_is_told_in_one_line(
    mistake: str, followed: Followed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong, words = WRONG_METRICS[mistake]
    file, store = tmp_path / "overtaking.py", followed.directory / "store"
    file.write_text(METRICS.replace(right, wrong))
    capsys.readouterr()
    assert analyse(["export", str(store), "rings", str(tmp_path / "out"), "--metrics", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for said in words:
        assert said in line, line


def test_metrics_are_held_up_before_a_study_runs(
    followed: Followed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "effects.py").write_text("def effects(frame):\n    return frame\n\n\nmetrics = [effects]\n")
    wrong = ("nothing.py", followed.directory / "ring.py", followed.directory / "overtaking.py:none")
    for given in map(str, (*wrong, tmp_path / "effects.py")):
        capsys.readouterr()
        argv = ["run", str(followed.directory / "ring.py"), "--store", str(tmp_path / "s"), "--metrics", given]
        assert main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and given.rpartition("/")[2] in line
    assert not (tmp_path / "s" / "studies").exists()


def test_a_metric_with_the_name_of_an_axis_is_refused(followed: Followed) -> None:
    def seeds_axis(treated, baseline):
        return 0.0

    store = followed.directory / "store"
    results = analysis.Results.from_store(store, "rings", [seeds_axis])
    assert (results.effects["seeds_axis"] == 0).all()
    with pytest.raises(analysis.DataError, match=r"^metric seeds_axis: is an axis of the study; name the metric other"):
        analysis.metrics.listed.all_metrics([seeds_axis], ["band", "seeds_axis"])


def test_a_metric_with_the_name_of_a_table_is_refused(followed: Followed) -> None:
    def noise(frame):
        return frame

    results = analysis.Results.from_store(followed.directory / "store", "rings", [noise])
    with pytest.raises(analysis.DataError, match=r"^metric noise: is a table already; name the metric otherwise"):
        results.tables()


def test_a_mean_is_of_all_pairs_or_of_none(followed: Followed) -> None:
    def sometimes(treated, baseline):
        return treated.loss[-1] if treated.loss[-1] > followed.results.pairs["treated_loss_nats"].median() else None

    results = analysis.Results.from_store(followed.directory / "store", "rings", [sometimes])
    holes = results.pairs.groupby("arm", sort=False)["sometimes"].apply(lambda v: v.isna().any())
    assert results.pairs["sometimes"].isna().any()
    assert list(results.effects["sometimes"].isna()) == list(holes)
