"""Figures as a reader gets them: SVG that is whole, says its numbers, maps the pointer to data, and stays small."""

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import Results, figures
from analysis.figures.arms import _profile
from analysis.figures.coverage import CENSORED, DIVERGED, FINISHED, MISSING, REVERSE, UNREAD, pair_state
from analysis.figures.ends import _frontier
from analysis.figures.style import ROWS, VERTICES, drawing, log_ticks, rows_of
from analysis.metrics.budget import mrs_table
from analysis.metrics.matching import matching
from analysis.metrics.mechanism import triage
from analysis.metrics.proxy import early_signal
from analysis.metrics.response import response, surface
from analysis.page import Figures, html

from .cell_runs import cell, curve, loss, run, shifted
from .simulated import simulate
from .synthetic_store import GRID, Store, law

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    """The figure, after what holds for every one of them: it is whole, loads nothing and describes itself."""
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("tabindex") == "0" and "viewBox" in root.attrib
    assert root.find(f"{SVG}title") is not None
    json.loads(root.attrib["data-axes"])
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.endswith("href") or value.startswith("#")
            assert "url(" not in value or "url(#" in value
    assert "nan" not in {v for e in root.iter() for k, v in e.attrib.items() if k in ("d", "cx", "cy")}
    return root


def texts(root: ET.Element) -> list[str]:
    return ["".join(e.itertext()).strip() for e in root.iter(f"{SVG}text")]


def tips(root: ET.Element) -> list[str]:
    return [e.attrib["data-tip"] for e in root.iter() if "data-tip" in e.attrib]


@pytest.fixture(scope="module")
def results(demo: Path) -> Results:
    return Results.from_store(demo, "demo")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """45 cells in three panels."""
    bands, sizes = ((0.2, 0.3), (0.3, 0.4), (0.4, 0.5)), ("small", "middle", "large")
    budgets = (50_000, 100_000, 200_000, 400_000, 800_000)
    root = simulate(
        tmp_path_factory.mktemp("large"), bands=bands, sizes=sizes, budgets=budgets, seeds=2, evaluations=12
    )
    return Results.from_store(root, "simulated")


@pytest.fixture
def empty(store: Store) -> Results:
    store.point("scratch", {"seed": 0}, [store.train("scratch", 1000, [], done=False)])
    return Results.from_store(store.register("empty", ["seed"]), "empty")


OF_RESULTS: list[Callable[[Results], Any]] = [
    figures.loss_curves, figures.loss_gap, figures.speedup_by_loss, figures.speedup_forest, figures.decayed_endpoints,
    figures.cost_pareto, figures.controls, figures.performance_profile, figures.status_map, figures.learned_check,
    figures.learned_gain, figures.induction_probe,
]  # fmt: skip


@pytest.mark.parametrize("draw", OF_RESULTS)
def test_a_study_without_data_has_no_figure(draw: Callable[[Results], Any], empty: Results) -> None:
    assert draw(empty) in ([], None)


@pytest.mark.parametrize("draw", OF_RESULTS)
def test_every_figure_of_a_study_is_whole(draw: Callable[[Results], Any], results: Results) -> None:
    found = draw(results)
    found = [found] if isinstance(found, str) else found
    if draw in (figures.decayed_endpoints, figures.performance_profile):
        assert not found  # no arm of the demo has two text budgets, and two cells are no profile
        return
    assert found
    for svg in found:
        root = parsed(svg)
        assert tips(root) and len(svg) < 200_000
    assert draw(results) in (found, found[0]), "the same data give the same text"


def test_figures_of_nothing() -> None:
    for draw in (
        figures.complexity_response, figures.size_budget_surface, figures.mechanism_residuals, figures.early_signal,
        figures.domain_band_heatmap,
    ):  # fmt: skip
        assert draw([]) == []
    assert figures.substitution(mrs_table([])) is None
    assert figures.mechanism_residuals([("too few evaluations", None)]) == []


def test_a_curve_shows_its_seeds_and_its_name(results: Results) -> None:
    [svg] = figures.loss_curves(results)
    said = tips(parsed(svg))
    for name in ("scratch", "nca, band 0.2-0.3", "scratch_longer"):
        assert {f"{name}\nseed {seed}" for seed in range(5)} | {f"{name}\nmean of 5 seeds"} <= set(said)


def test_the_tail_markers_are_the_speedups_above_the_target(results: Results) -> None:
    [svg] = figures.speedup_by_loss(results)
    found = [re.fullmatch(r"(.+)\n([\d.]+)x at (.+)", tip) for tip in tips(parsed(svg))]
    read = {(m[1], m[3].split(",")[0]): float(m[2]) for m in found if m}
    for i, name in ((0, "nca, band 0.2-0.3"), (1, "nca, band 0.3-0.4")):
        effect = results.effects.iloc[i]
        assert read[name, "the target"] == pytest.approx(effect["speedup"], abs=0.006)
        assert read[name, "0.005 nats above the target"] == pytest.approx(effect["speedup_5_mnats_up"], abs=0.01)
        assert read[name, "0.02 nats above the target"] == pytest.approx(effect["speedup_20_mnats_up"], abs=0.01)


@given(st.floats(1, 1e9), st.floats(1.1, 1e4), st.floats(-5, 5), st.booleans())
@settings(max_examples=6, deadline=None)
def test_the_data_attributes_map_a_place_to_its_value(low: float, ratio: float, y: float, log: bool) -> None:
    with drawing() as d:
        x = low * math.sqrt(ratio)
        d.points(d.axes, x, y, "series", ["tip"])
        if log:
            log_ticks(d.axes, "x", str)
        d.axes.set_xlim(low, low * ratio)
        d.readout(d.axes, "tokens", "nats")
        root = parsed(d.svg("t"))
    [axes] = json.loads(root.attrib["data-axes"])
    [circle] = [e for e in root.iter(f"{SVG}circle") if "data-tip" in e.attrib]
    left, top, width, height = axes["box"]
    share = (float(circle.attrib["cx"]) - left) / width
    (start, end, scale, form, _), (bottom, up, *_) = axes["x"], axes["y"]
    assert form == "tokens" and scale == ("log" if log else "linear")
    value = start * (end / start) ** share if log else start + share * (end - start)
    assert abs(math.log(value / x)) < 0.002 * math.log(ratio) + 0.002 * (ratio if not log else 1)
    share = 1 - (float(circle.attrib["cy"]) - top) / height
    assert bottom + share * (up - bottom) == pytest.approx(y, abs=0.005 * (up - bottom))


def test_what_names_say_cannot_break_a_figure() -> None:
    name = '<b>&"\'x="1.23456"'
    with drawing() as d:
        d.points(d.axes, 1, 1, name, [f"{name}\ntip"], label=name)
        d.legend(d.axes)
        root = parsed(d.svg(name))
    assert tips(root) == [f"{name}\ntip"] and name in texts(root)
    title = root.find(f"{SVG}title")
    assert title is not None and title.text == name


def test_long_lines_are_thinned_and_rounded() -> None:
    x = np.geomspace(1, 1e6, 20_000)
    with drawing() as d:
        d.line(d.axes, x, np.sin(x), "s", "tip")
        svg = d.svg("t")
    [line] = [e for e in parsed(svg).iter() if e.get("data-tip") == "tip"]
    paths = [e.attrib["d"] for e in line.iter(f"{SVG}path")]
    assert sum(path.count("L") + path.count("M") for path in paths) <= VERTICES
    assert not re.search(r"\.\d{3}", " ".join(paths))
    assert len(svg) < 40_000


def test_equal_figures_in_a_page_share_no_id(results: Results) -> None:
    [svg] = figures.loss_curves(results)
    page = html("t", [Figures([(svg, "one"), (svg, "two")])])
    ids = re.findall(r' id="([^"]+)"', page)
    assert ids and len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


@given(st.text(alphabet="abc ,.-0", max_size=90))
@settings(deadline=None)
def test_names_of_rows_fit_on_two_lines(text: str) -> None:
    lines = rows_of(text).split("\n")
    assert len(lines) <= 2 and max(map(len, lines)) <= 28
    if len(text) <= 28:
        assert lines == [text]


# ---- many cells


def test_a_large_study_is_capped_and_says_so(large: Results) -> None:
    assert len(large.cells) == 45
    forest = parsed(figures.speedup_forest(large) or "")
    assert f"{45 - ROWS} more cells not drawn" in texts(forest)
    curves = figures.loss_curves(large)
    assert len(curves) == 3 and all("3 more arms not drawn" in texts(parsed(svg)) for svg in curves)
    assert {"size small", "size middle", "size large"} <= {t for svg in curves for t in texts(parsed(svg))}
    assert sum(len(svg) for svg in curves) < 250_000
    status = parsed(figures.status_map(large) or "")
    assert f"{45 - ROWS} more cells not drawn" in texts(status)


def test_cells_of_claims_are_drawn_first(large: Results) -> None:
    last = len(large.cells) - 1
    name = large.labels[last]
    for draw in (figures.speedup_forest, figures.status_map):
        assert not any(tip.startswith(f"{name}\n") for tip in tips(parsed(draw(large) or "")))
        assert any(tip.startswith(f"{name}\n") for tip in tips(parsed(draw(large, [last]) or "")))
    ahead = figures.loss_gap(large, [last])[0]
    assert "size large" in texts(parsed(ahead))


# ---- single figures


def test_the_forest_groups_by_text_where_there_are_several(store: Store) -> None:
    text = 1_000_000
    for domain in ("web", "math"):
        for seed in range(2):
            losses = law(np.round(GRID * text)) + 0.01 * seed
            at = store.point(
                "scratch", {"domain": domain, "seed": seed}, [store.train(f"a{domain}{seed}", text, losses)]
            )
            digest = store.train(f"b{domain}{seed}", text, losses - 0.05)
            store.point("nca", {"domain": domain, "seed": seed}, [digest], at)
    results = Results.from_store(store.register("s", ["domain", "seed"]), "s")
    stages = {}
    for digest, document in results.stages.items():
        domain = "web" if "web" in results.plan["stages"][digest]["label"] else "math"
        stages[digest] = document | {"spec": document["spec"] | {"corpus": {"source": {"dataset": domain}}}}
    shown = texts(parsed(figures.speedup_forest(replace(results, stages=stages)) or ""))
    assert [t for t in shown if t in ("web", "math", "nca")] == ["web", "nca", "math", "nca"]
    assert [t for t in texts(parsed(figures.speedup_forest(results) or "")) if t in ("web", "math")] == []


def test_endpoints_are_the_last_losses_of_decayed_runs(store: Store) -> None:
    for seed in range(2):
        for text in (50_000, 100_000, 200_000):
            losses = law(np.round(GRID * text)) + 0.01 * seed
            base = store.train(f"a{text}{seed}", text, losses, schedule="wsd", first=20.0)
            at = store.point("scratch", {"text": text, "seed": seed}, [base])
            nca = store.train(f"b{text}{seed}", text, losses - 0.05, schedule="wsd", first=20.0)
            store.point("nca", {"text": text, "seed": seed}, [nca], at)
    [svg] = figures.decayed_endpoints(Results.from_store(store.register("s", ["text", "seed"]), "s"))
    said = tips(parsed(svg))
    assert f"scratch\nseed 1\n0.2M tokens: {law(np.array(2e5)) + 0.01:.4f} nats" in said
    assert f"nca\nseed 0\n50k tokens: {law(np.array(5e4)) - 0.05:.4f} nats" in said
    assert sum("tokens: " in tip for tip in said) == 12


@given(st.lists(st.tuples(st.floats(1, 1e3), st.floats(0, 10)), min_size=1, max_size=20))
def test_nothing_undercuts_the_frontier_of_cost(points: list[tuple[float, float]]) -> None:
    edge = _frontier(points)
    assert set(edge) <= set(points)
    for cost, value in points:
        assert any(c <= cost and v <= value for c, v in edge)
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(edge))


def test_costs_count_what_came_before(results: Results) -> None:
    [svg] = figures.cost_pareto(results)
    said = " ".join(tips(parsed(svg)))
    # 1000 FLOPs a token: 1M of text from scratch, and 0.2M before it with ten million for their generation.
    assert "1e+09 FLOPs" in said and "1.21e+09 FLOPs" in said


def test_the_profile_is_a_share_of_cells() -> None:
    cells = [{"0": 0.1, "1": 0.1}, {"0": 0.3, "1": 0.3}, {"0": -0.2, "1": -0.2}, {"1": 0.05}]
    at = np.array([-1.0, 0.0, 0.075, 0.2, 1.0])
    mean, low, high = _profile(cells, at)
    np.testing.assert_allclose(mean, [1, 0.75, 0.5, 0.25, 0])
    assert (low <= mean + 1e-12).all() and (high[1:] >= mean[1:] - 0.5).all() and high[0] == low[0] == 1


def test_states_of_pairs() -> None:
    base, short = run(loss, stage="b"), run(loss, 500_000)
    far = run(lambda tokens: loss(tokens) - 3.0)
    states = {
        FINISHED: (run(shifted(0.1)), base),
        REVERSE: (run(shifted(-0.1)), base),
        CENSORED: (far, base),
        DIVERGED: (replace(base, diverged=True, curve=None), base),
        UNREAD: (short, base),
    }
    for state, pair in states.items():
        made = cell("nca", {}, [pair])
        assert pair_state(made, made.pairs[0]) == state
    made = cell("nca", {}, [(base, base)])
    assert pair_state(made, replace(made.pairs[0], treated=None)) == MISSING


def test_a_status_map_counts_what_is_missing(store: Store) -> None:
    text = 1_000_000
    losses = law(np.round(GRID * text))
    for seed in range(3):
        at = store.point("scratch", {"seed": seed}, [store.train(f"a{seed}", text, losses)])
        store.point("nca", {"seed": seed}, [store.train(f"b{seed}", text, losses - 0.1, done=seed != 1)], at)
    svg = figures.status_map(Results.from_store(store.register("s", ["seed"]), "s"))
    assert sorted(tips(parsed(svg or ""))) == ["nca\nseed 0: read", "nca\nseed 1: not finished", "nca\nseed 2: read"]


def test_a_response_shows_its_optimum_or_why_there_is_none() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0.1, 0.7, 6)
    peaked = response(x, 0.05 - (x - 0.4) ** 2 + rng.normal(0, 0.002, (5, 6)), "nca", "nca, web")
    flat = response(x, rng.normal(0, 0.01, (5, 6)), "nca", "nca, code")
    few = response(x[:3], rng.normal(0, 0.01, (4, 3)), "nca", "few")
    drawn = [texts(parsed(svg)) for svg in figures.complexity_response([peaked, flat, few])]
    assert any(t.startswith(("optimum 0.4", "optimum 0.39")) for t in drawn[0])
    assert any(t.startswith("optimum not located") for t in drawn[1])
    assert "optimum not located: 3 bands, 5 needed" in drawn[2]
    assert sum("complexity" in tip for tip in tips(parsed(figures.complexity_response([peaked])[0]))) == 6 * 6


def test_a_heatmap_holds_means_and_the_contrast() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0.2, 0.7, 4)
    y = np.stack([slope * x + rng.normal(0, 0.001, (5, 4)) for slope in (0.1, -0.1)], axis=1)
    found = matching(x, y, ["web", "code"], ["web"], ["code"], "nca", "nca")
    root = parsed(figures.domain_band_heatmap([found])[0])
    said = " ".join(texts(root))
    for value in y.mean(axis=0).ravel():
        assert f"{value:+.3f}" in said
    assert f"slope of web less that of code: {found.contrast.mean:+.3f}" in said and "one-sided p" in said
    assert len(tips(root)) == 8


def test_a_surface_labels_what_was_measured_and_says_why_it_has_no_fit() -> None:
    sizes, budgets = np.meshgrid([1e6, 4e6, 16e6], [5e4, 1e5, 2e5, 4e5], indexing="ij")
    rng = np.random.default_rng(0)
    y = 0.05 - 0.02 * np.log(budgets.ravel() / 1.4e5) ** 2 + rng.normal(0, 0.001, (4, 12))
    fitted = surface(sizes.ravel(), budgets.ravel(), y, "nca", "nca")
    alone = surface(sizes.ravel()[:4], budgets.ravel()[:4], y[:, :4], "nca", "one size")
    shown = [parsed(svg) for svg in figures.size_budget_surface([fitted, alone])]
    labels = texts(shown[0])
    assert {f"{v:+.3f}" for v in y.mean(axis=0)} <= set(labels) and "best budget, 95 % interval" in labels
    assert sum("best budget" in tip for tip in tips(shown[0])) == 3
    assert any(t.startswith("no fit: 1 size") for t in texts(shown[1]))


def test_substitution_names_budgets_and_bounds() -> None:
    budgets = [0, 1e5, 2e5, 4e5]
    rows = [
        {"arm": "nca", "group": "nca", "syn_tokens_from": a, "syn_tokens_to": b, "mrs": m, "mrs_lo": m - 0.2,
         "mrs_hi": m + 0.2, "n_pairs": 5}
        for a, b, m in zip(budgets, budgets[1:], (2.0, 1.0, 0.5), strict=False)
    ]  # fmt: skip
    said = tips(parsed(figures.substitution(pd.DataFrame(rows)) or ""))
    assert "nca\n0.1M to 0.2M tokens before\n+1.00 [0.80, 1.20], 5 pairs" in said and len(said) == 3


def test_residuals_of_the_picture_that_holds_are_named() -> None:
    at = np.geomspace(2e4, 1e6, 40)
    found = triage([curve(loss, 1e6)], [(at, loss(1.5 * at))])
    assert found is not None and found.best == "multiplier"
    [svg] = figures.mechanism_residuals([("nca", found)])
    shown = texts(parsed(svg))
    assert any(t.startswith("multiplier 1.50x: rms 0.0") and t.endswith("dAIC 0.0") for t in shown)
    assert "treated loss minus picture, millinats" in shown


def test_an_early_signal_says_accuracy_and_ceiling() -> None:
    rng = np.random.default_rng(0)
    effect = np.linspace(0, 0.05, 5)
    small, large = (effect + rng.normal(0, 0.001, (4, 5)) for _ in range(2))
    found = early_signal(small, large, list("abcde"), "web", "early", "late")
    root = parsed(figures.early_signal([found])[0])
    said = " ".join(texts(root))
    assert "100 % of pairs of arms ordered alike" in said and "by a perfect proxy" in said and "Spearman 1.00" in said
    assert len(tips(root)) == 5 * (4 + 1)


def test_controls_join_the_pairs_of_a_seed(results: Results) -> None:
    [svg] = figures.controls(results, ["scratch_longer"])
    root = parsed(svg)
    assert sum("mean" in tip for tip in tips(root)) == 3 and "scratch_longer," in texts(root)
    for seed in range(5):
        assert sum(e.get("data-series") == f"seed {seed}" for e in root.iter(f"{SVG}circle")) == 3
