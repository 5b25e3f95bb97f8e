"""Curves that someone else measured: what is read from them, and how a file that cannot be read fairly is refused."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.frame import DataError
from analysis.published.compare import Comparison, compare_file
from analysis.published.files import read_curves
from analysis.published.text import document, text

from .synthetic_store import GRID, law

OPENWEBTEXT = Path(__file__).parents[2] / "results" / "published" / "openwebtext.csv"
TOKENS = np.round(GRID * 1e6)


def write(path: Path, rows: Iterable[Sequence[Any]], header: str = "arm,tokens,loss_nats") -> Path:
    path.write_text("\n".join([header, *(",".join(str(v) for v in row) for row in rows)]) + "\n")
    return path


def curve(arm: str, loss: np.ndarray, tokens: np.ndarray = TOKENS, *more: Any) -> list[tuple[Any, ...]]:
    return [(arm, f"{t:.0f}", f"{v:.6f}", *more) for t, v in zip(tokens, loss, strict=True)]


def compared(path: Path, baseline: str = "scratch") -> dict[str, Comparison]:
    return {c.arm: c for c in compare_file(path, baseline).arms}


def refused(capsys: pytest.CaptureFixture[str], path: Path, baseline: str = "scratch") -> str:
    """The one line on stderr with which the command ends at exit code 2."""
    assert main(["curves", str(path), "--baseline", baseline]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert str(path) in err
    return err


# The published curves of OpenWebText, held to figures that are on record. They were read by joining the published
# points, so that they have to come out to the digits given; what a smoother reads is near and not the same.


def test_openwebtext_reads_as_on_record() -> None:
    nca = compared(OPENWEBTEXT)["nca"]
    assert nca.estimator == "interpolation" and nca.n_pairs == 1
    assert nca.speedup == pytest.approx(1.49, abs=0.005)
    assert nca.speedup_first_crossing == pytest.approx(1.47, abs=0.005)
    assert nca.speedup_5_mnats_up == pytest.approx(1.36, abs=0.005)
    assert nca.speedup_20_mnats_up == pytest.approx(1.29, abs=0.005)
    assert nca.net_speedup_tokens == pytest.approx(1.45, abs=0.005)
    assert nca.loss_gap_nats == pytest.approx(0.059, abs=0.0005)
    assert nca.perplexity_change_pct == pytest.approx(-5.7, abs=0.05)
    assert nca.gap_after_20_pct_nats == pytest.approx(0.0591, abs=0.00005)
    assert nca.gap_after_20_pct_sd_nats == pytest.approx(0.0005, abs=0.00005)
    assert nca.flat_tail and nca.tail_sensitivity == pytest.approx(1.49 / 1.29, abs=0.01)
    assert nca.verdict == "indicative: faster"
    assert math.isnan(nca.speedup_lo)


def test_openwebtext_fits_a_vertical_shift_and_no_offset() -> None:
    found = compared(OPENWEBTEXT)["nca"].mechanism
    assert found is not None
    assert found.best == "vertical"
    assert found.parameter["vertical"] == pytest.approx(0.0606, abs=0.0005)
    assert found.rms_nats["offset"] > 4 * found.rms_nats["vertical"]


def test_the_other_arms_of_openwebtext() -> None:
    arms = compared(OPENWEBTEXT)
    assert arms["dyck"].verdict == "indicative: faster" and arms["dyck"].speedup == pytest.approx(1.25, abs=0.01)
    assert arms["c4"].verdict == "no verdict" and arms["c4"].speedup < 1
    assert math.isnan(arms["c4"].net_speedup_tokens)


@pytest.mark.parametrize("points", [6, 8])
def test_a_curve_of_few_published_points_reads_nearly_the_same(tmp_path: Path, points: int) -> None:
    rows = []
    for name, arm in read_curves(OPENWEBTEXT).arms.items():
        kept = np.round(np.linspace(2, 18, points)).astype(int)
        rows += curve(name, arm.runs[0].loss[kept], arm.runs[0].tokens[kept])
    found = compared(write(tmp_path / "few.csv", rows))["nca"]
    assert found.speedup == pytest.approx(1.49, abs=0.03) and found.verdict == "indicative: faster"


def test_json_of_plotted_curves_reads_as_the_csv(tmp_path: Path) -> None:
    arms = read_curves(OPENWEBTEXT).arms
    curves = {
        name: {
            "iteration": [float(t) / 524288 for t in a.runs[0].tokens],
            "loss_nats": list(map(float, a.runs[0].loss)),
        }
        for name, a in arms.items()
    }
    path = tmp_path / "curves.json"
    path.write_text(json.dumps({"tokens_per_iteration": 524288, "source": "s", "owt": curves}))
    assert compared(path)["nca"].speedup == pytest.approx(compared(OPENWEBTEXT)["nca"].speedup, rel=1e-9)
    assert math.isnan(compared(path)["nca"].net_speedup_tokens)


def test_the_command_prints_json_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curves", str(OPENWEBTEXT), "--baseline", "scratch", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["baseline"] == "scratch"
    nca = {a["arm"]: a for a in found["arms"]}["nca"]
    assert nca["speedup"] == pytest.approx(1.49, abs=0.005) and nca["speedup_lo"] is None
    assert nca["mechanism"]["best"] == "vertical"


def test_the_command_prints_a_table_that_fits_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    long = "an arm with a name that nobody would give it in earnest and somebody will"
    rows = curve("scratch", law(TOKENS)) + curve(long, law(1.5 * TOKENS))
    for path in (OPENWEBTEXT, write(tmp_path / "long.csv", rows)):
        assert main(["curves", str(path), "--baseline", "scratch"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 120
        assert "no interval" in " ".join(" ".join(lines).split())
        verdicts = [line for line in lines if line.endswith(("indicative: faster", "no verdict"))]
        assert {line[lines[0].index("verdict") - 1] for line in verdicts} == {" "}


# What is read from curves that are made.


@pytest.mark.parametrize("speedup", [1.5, 0.7])
def test_a_known_speedup_comes_out_with_and_without_noise(tmp_path: Path, speedup: float) -> None:
    rng = np.random.default_rng(0)
    for noise, estimator, tolerance in ((0.0, "interpolation", 0.01), (0.01, "LOESS", 0.1)):
        both = [law(s * TOKENS) + rng.normal(0, noise, len(TOKENS)) for s in (1, speedup)]
        found = compared(write(tmp_path / "c.csv", curve("scratch", both[0]) + curve("nca", both[1])))["nca"]
        assert found.estimator == estimator
        assert found.speedup == pytest.approx(speedup, rel=tolerance)
        assert found.verdict == f"indicative: {'faster' if speedup > 1 else 'slower'}"


def test_seeds_are_paired_and_give_an_interval(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = []
    for seed in range(4):
        rows += curve("scratch", law(TOKENS) + 0.01 * seed, TOKENS, seed)
    for seed in (3, 1, 2, 0, 9):
        rows += curve("nca", law(1.5 * TOKENS) + 0.01 * seed + 0.001 * (seed % 2), TOKENS, seed)
    path = write(tmp_path / "c.csv", rows, "arm,tokens,loss_nats,seed")
    found = compared(path)["nca"]
    assert found.n_pairs == 4 and found.estimator == "LOESS, paired t"
    assert found.speedup_lo < 1.5 < found.speedup_hi and found.speedup_lo > 1.4
    assert found.verdict == "indicative: faster"
    assert any("seeds without a run of scratch" in r and "9" in r for r in found.remarks)


def test_seeds_that_leave_the_question_open_carry_no_verdict(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = []
    for seed, speedup in enumerate((0.8, 1.3, 1.5)):
        rows += curve("scratch", law(TOKENS), TOKENS, seed) + curve("nca", law(speedup * TOKENS), TOKENS, seed)
    found = compared(write(tmp_path / "c.csv", rows, "arm,tokens,loss_nats,seed"))["nca"]
    assert found.verdict == "no verdict" and found.speedup_lo < 1 < found.speedup_hi


def test_diverged_seeds_are_counted_and_cap_the_verdict(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = []
    for seed in range(4):
        loss = law(1.5 * TOKENS) + 0.01 * seed
        loss[-1] = math.inf if seed == 2 else loss[-1]
        rows += curve("scratch", law(TOKENS) + 0.01 * seed, TOKENS, seed) + curve("nca", loss, TOKENS, seed)
    found = compared(write(tmp_path / "c.csv", rows, "arm,tokens,loss_nats,seed"))["nca"]
    assert (found.n_pairs, found.n_diverged, found.verdict) == (3, 1, "inconclusive")
    assert found.speedup == pytest.approx(1.5, rel=0.01)


@pytest.mark.parametrize("bad", ["nan", "NaN", "inf", "-inf", "Infinity"])
def test_a_loss_that_is_not_finite_is_a_run_that_diverged(tmp_path: Path, bad: str) -> None:
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(1.5 * TOKENS)) + curve("fine", law(1.2 * TOKENS))
    rows[len(TOKENS) + 9] = ("nca", rows[len(TOKENS) + 9][1], bad)
    arms = compared(write(tmp_path / "c.csv", rows))
    assert arms["nca"].verdict == "diverged" and math.isnan(arms["nca"].speedup)
    assert arms["fine"].speedup == pytest.approx(1.2, rel=0.02)


def test_a_baseline_that_diverged_leaves_nothing_to_reach(tmp_path: Path) -> None:
    rows = curve("scratch", np.where(TOKENS > 5e5, np.nan, law(TOKENS))) + curve("nca", law(TOKENS))
    found = compared(write(tmp_path / "c.csv", rows))["nca"]
    assert found.verdict == "no verdict" and "scratch diverged" in found.reason


def test_few_evaluations_are_said_and_not_read(tmp_path: Path) -> None:
    few = TOKENS[[0, 5, 10, 20, -1]]
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(few), few) + [("nca", 0, 9.0)]
    found = compared(write(tmp_path / "c.csv", rows))["nca"]
    assert found.verdict == "too few evaluations" and "5 of nca" in found.reason
    six = np.r_[few, 5e5]
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(1.4 * six), six)
    assert compared(write(tmp_path / "c.csv", rows))["nca"].speedup == pytest.approx(1.4, rel=0.1)


def test_an_arm_below_the_target_at_once_gives_a_bound(tmp_path: Path) -> None:
    flat = 2.8 - 0.01 * np.arange(len(TOKENS))
    rows = curve("scratch", law(TOKENS)) + curve("nca", flat) + curve("bad", flat + 8)
    arms = compared(write(tmp_path / "c.csv", rows))
    assert arms["nca"].left_censored and arms["nca"].speedup == pytest.approx(TOKENS[-1] / TOKENS[0])
    assert "or less" in arms["nca"].reason and arms["nca"].verdict == "indicative: faster"
    assert arms["bad"].left_censored and "or more" in arms["bad"].reason
    assert arms["bad"].verdict == "indicative: slower"


def test_an_absurd_loss_is_read_for_what_it_is(tmp_path: Path) -> None:
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(TOKENS) + 1e5)
    found = compared(write(tmp_path / "c.csv", rows))["nca"]
    assert found.perplexity_change_pct == math.inf and found.verdict == "indicative: slower"


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(1.5 * TOKENS))
    straight = compared(write(tmp_path / "a.csv", rows))["nca"]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert compared(write(tmp_path / "b.csv", shuffled))["nca"].speedup == straight.speedup


def test_a_long_stretch_without_evaluations_is_remarked_on(tmp_path: Path) -> None:
    kept = (TOKENS < 1.2e5) | (TOKENS > 9e5)
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(1.5 * TOKENS)[kept], TOKENS[kept])
    found = compare_file(write(tmp_path / "c.csv", rows), "scratch")
    assert any("no evaluation between" in r for r in found.arms[0].remarks) and not found.remarks
    swapped = compare_file(tmp_path / "c.csv", "nca")
    assert any("nca has no evaluation between" in r for r in swapped.remarks)
    assert "no evaluation between" in " ".join(text(found).split())


def test_unlike_budgets_carry_no_verdict_and_compare_where_both_are(tmp_path: Path) -> None:
    longer = np.round(GRID * 2e6)
    rows = curve("scratch", law(TOKENS)) + curve("nca", law(longer) - 0.05, longer)
    found = compared(write(tmp_path / "c.csv", rows))["nca"]
    assert found.verdict == "no verdict" and "budgets" in found.reason
    assert found.loss_gap_nats == pytest.approx(0.05, abs=0.002)


def test_a_baseline_with_tokens_of_its_own_counts_them(tmp_path: Path) -> None:
    rows = curve("dyck", law(TOKENS), TOKENS, 200_000) + curve("nca", law(1.5 * TOKENS), TOKENS, 100_000)
    found = compared(write(tmp_path / "c.csv", rows, "arm,tokens,loss_nats,synthetic_tokens"), "dyck")["nca"]
    assert found.net_speedup_tokens == pytest.approx(1.2 / (1 / 1.5 + 0.1), rel=0.01)
    assert any("200k" in r or "0.2M" in r for r in found.remarks)


def test_other_tokenizers_compare_in_bits_per_byte_alone(tmp_path: Path) -> None:
    header = "arm,tokens,loss_nats,tokenizer,loss_bits_per_byte"
    rows = [
        *((*r, "bpe", f"{float(r[2]) / 3:.6f}") for r in curve("scratch", law(TOKENS))),
        *((*r, "bytes", f"{float(r[2]) / 3 - 0.1:.6f}") for r in curve("nca", law(TOKENS))),
    ]
    path = write(tmp_path / "c.csv", rows, header)
    found = compared(path)["nca"]
    assert found.gap_bits_per_byte == pytest.approx(0.1, abs=1e-5)
    assert math.isnan(found.speedup) and math.isnan(found.loss_gap_nats) and found.verdict == "no verdict"
    [arm] = json.loads(document(compare_file(path, "scratch")))["arms"]
    assert arm["speedup"] is None and arm["loss_gap_nats"] is None and arm["perplexity_change_pct"] is None


# What is refused, each in one line with a way out.

GOOD = curve("scratch", law(TOKENS)) + curve("nca", law(1.5 * TOKENS))


def with_row(index: int, *row: Any) -> list[Sequence[Any]]:
    """The good file with one other row; it stands in row `index` + 2, the first line being row 1."""
    rows: list[Sequence[Any]] = list(GOOD)
    rows[index] = row
    return rows


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("nca", "many", "2.5"), ["row 42", "tokens", "'many'"]),
        (("nca", "5e5", "low"), ["row 42", "loss_nats", "'low'"]),
        (("nca", "5e5", ""), ["row 42", "loss_nats is empty"]),
        (("nca", "-5", "2.5"), ["row 42", "tokens is -5"]),
        (("nca", "nan", "2.5"), ["row 42", "tokens is nan"]),
        (("nca", "inf", "2.5"), ["row 42", "tokens is inf"]),
        (("nca", "555", "0"), ["row 42", "loss_nats is 0"]),
        (("nca", "555", "-2.5"), ["row 42", "loss_nats is -2.5"]),
        (("", "555", "2.5"), ["row 42", "arm is empty"]),
        (("nca", "1,000", "2.5"), ["row 42", "4 fields"]),
        (("nca", GOOD[41][1], "2.5"), ["row 43", "nca was already evaluated at", "row 42"]),
    ],
)
def test_a_wrong_value_is_named_with_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: Sequence[str], said: list[str]
) -> None:
    err = refused(capsys, write(tmp_path / "c.csv", with_row(40, *row)))
    assert all(part in err for part in said), err


def test_files_that_are_no_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in refused(capsys, tmp_path / "absent.csv")
    assert "is a directory" in refused(capsys, tmp_path)
    path = tmp_path / "c.csv"
    for content, said in [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "is no CSV"),
        (b",,,\n", "lacks the columns arm, tokens, loss_nats"),
        (b"arm,tokens\nscratch,1\n", "lacks the column loss_nats; it has arm, tokens"),
        (b"arm;tokens;loss_nats\nscratch;1;2\n", "lacks the columns"),
        (b"arm,tokens,loss_nats\n", "no rows"),
        (b"arm,tokens,loss_nats,tokens\n", "names column tokens twice"),
        (b"{", "is no JSON"),
        (b'{"tokens_per_iteration": 5}', "exactly one validation set, has none"),
        (b'{"tokens_per_iteration": 5, "a": {}, "b": {}}', "has a, b"),
        (b'{"a": {"scratch": {"iteration": [1], "loss_nats": [2.0]}}}', "tokens_per_iteration"),
        (b'{"tokens_per_iteration": 5, "a": {"scratch": {"iteration": [1], "loss_nats": []}}}', "a.scratch"),
        (b'{"tokens_per_iteration": 5, "a": {"s": {"iteration": ["x"], "loss_nats": [1]}}}', "a.s, entry 0: iteration"),
    ]:
        path.write_bytes(content)
        assert said in refused(capsys, path)


def test_an_unknown_baseline_lists_the_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "c.csv", GOOD)
    assert "has no arm 'base'; it has scratch, nca" in refused(capsys, path, "base")
    alone = write(tmp_path / "alone.csv", curve("scratch", law(TOKENS)))
    assert "no arm besides" in refused(capsys, alone)


def test_losses_that_do_not_compare_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [(*row, "web" if row[0] == "scratch" else "math") for row in GOOD]
    err = refused(capsys, write(tmp_path / "c.csv", sets, "arm,tokens,loss_nats,validation"))
    assert "'web' (scratch" in err and "'math' (nca" in err
    tokenizers = [(*row, f"of {row[0]}") for row in GOOD]
    err = refused(capsys, write(tmp_path / "c.csv", tokenizers, "arm,tokens,loss_nats,tokenizer"))
    assert "of nca" in err and "of scratch" in err and "bits_per_byte" in err
    budgets = [(*row, i) for i, row in enumerate(GOOD)]
    err = refused(capsys, write(tmp_path / "c.csv", budgets, "arm,tokens,loss_nats,synthetic_tokens"))
    assert "row 3" in err and "synthetic_tokens" in err


def test_a_column_that_is_not_read_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", [(*row, 1) for row in GOOD], "arm,tokens,loss_nats,synthetic_token")
    found = compare_file(path, "scratch")
    assert any("synthetic_token" in r for r in found.remarks) and "synthetic_token" in text(found)


def test_a_table_saved_by_a_spreadsheet_reads_as_well(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", GOOD)
    before = compared(path)["nca"].speedup
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \r\n").replace(b"arm,", b"arm , "))
    assert compared(path)["nca"].speedup == before


WRONG = [
    "",
    "scratch",
    "nca",
    "0",
    "1",
    "nan",
    "inf",
    "-1",
    "1e400",
    "1_0",
    "5e5",
    '"',
    "\x00",
    "a,b",
    "\n",
    "∞",
    "1e-300",
]
SMALL = [row for row in GOOD if float(row[1]) % 2 == 0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 3), st.sampled_from(WRONG)), max_size=6),
    st.integers(0, len(SMALL)),
    st.sampled_from(["seed", "tokenizer", "bits_per_byte", "synthetic_tokens", "validation", "other"]),
)
def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path: Path, wrong: list[tuple[int, int, str]], kept: int, column: str
) -> None:
    rows = [[*row, "1"] for row in SMALL]
    for row, field, value in wrong:
        rows[row][field] = value
    path = write(tmp_path / "c.csv", rows[len(SMALL) - kept :], f"arm,tokens,loss_nats,{column}")
    try:
        found = compare_file(path, "scratch")
    except DataError as error:
        said = str(error)
        assert said.startswith(str(path)) and "\n" not in said
        return
    json.loads(document(found), parse_constant=pytest.fail)
    assert max(map(len, text(found).splitlines())) <= 120
