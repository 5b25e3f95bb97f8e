"""Studies: arms and axes, the points that they make, and the files that they are read from."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import tune

from harness.errors import InputError
from harness.sources.nca import NCA
from harness.space import Point, Study, load
from harness.specs import Corpus, Llama, Recipe, Train

BANDS = [(0.2, 0.3), (0.3, 0.4)]


def run(depth: int = 1, seed: int = 0, lr: float = 1e-3, band: Any = None) -> Train:
    model = Llama(depth=depth, width=16, heads=2, mlp=24, context=40)
    return Train(Corpus(NCA(grid=8, band=band)), 1024, model, Recipe(lr=lr, batch=8), seed)


def scratch(depth, seed):
    return run(depth, seed)


def nca(band, seed, depth):
    return run(depth, seed).after(run(depth, seed, band=band))


def searched(lr, seed):
    return run(seed=seed, lr=lr)


def deeper(lr, seed):
    return run(2, seed, lr)


def complexity(**changes: Any) -> Study:
    axes = {"depth": tune.grid_search([1, 2]), "band": tune.grid_search(BANDS), "seed": tune.grid_search([0, 1, 2])}
    values: dict[str, Any] = {"name": "s", "question": "?", "baseline": scratch, "arms": [nca], "over": axes}
    return Study(**(values | changes))


def search(lr: Any, samples: int = 1, **more: Any) -> Study:
    axes = {"lr": lr, "seed": tune.grid_search([0, 1, 2])} | more
    return Study("s", "?", searched, [deeper], axes, num_samples=samples)


def of(points: list[Point], arm: str) -> list[Point]:
    return [p for p in points if p.arm == arm]


# ---- arms and axes


def test_an_arm_runs_once_for_every_setting_of_the_axes_that_it_names() -> None:
    points = complexity().points()
    settings_of = {arm: [dict(p.axes) for p in of(points, arm)] for arm in ("scratch", "nca")}
    for depth, seed in itertools.product([1, 2], [0, 1, 2]):
        # no `band` among its parameters: one run serves both
        assert settings_of["scratch"].count({"depth": depth, "seed": seed}) == 1
        for band in BANDS:
            assert settings_of["nca"].count({"depth": depth, "band": band, "seed": seed}) == 1
    assert len(points) == 6 + 12


def test_values_reach_the_parameters_of_their_name() -> None:
    for point in of(complexity().points(), "nca"):
        axes = dict(point.axes)
        assert (point.train.model.depth, point.train.seed) == (axes["depth"], axes["seed"])
        assert point.train.init is not None
        assert point.train.init.corpus.source == NCA(grid=8, band=axes["band"])


def test_every_point_is_paired_with_the_baseline_at_the_same_axes() -> None:
    study = complexity()
    points = study.points()
    for point, base in zip(points, study.pairs(points), strict=True):
        if point.arm == "scratch":
            assert base is None
        else:
            assert base is not None
            axes = dict(point.axes)
            assert dict(points[base].axes) == {"depth": axes["depth"], "seed": axes["seed"]}
            assert points[base].arm == "scratch"


def test_an_arm_that_lacks_an_axis_of_the_baseline_has_no_pair() -> None:
    def seeds_only(seed: int) -> Train:
        return run(seed=seed)

    study = complexity(arms=[nca, seeds_only])
    with pytest.raises(InputError, match=r"^arm seeds_only = \['depth'\]: .*scratch"):
        study.pairs(study.points())


def test_a_constant_is_an_axis_of_one_value() -> None:
    study = complexity(over={"depth": 2, "band": (0.2, 0.3), "seed": tune.grid_search([0, 1])})
    assert {p.train.model.depth for p in study.points()} == {2}
    assert len(study.points()) == 4


def test_a_default_is_used_where_the_grid_lacks_the_axis_and_gives_way_where_it_has_it() -> None:
    def arm(seed: int, depth: int = 2) -> Train:
        return run(depth, seed)

    over = {"seed": tune.grid_search([0, 1])}
    assert {p.train.model.depth for p in Study("s", "?", arm, [], over).points()} == {2}
    over |= {"depth": tune.grid_search([1, 3])}
    assert {p.train.model.depth for p in Study("s", "?", arm, [], over).points()} == {1, 3}


# ---- sampled axes


@pytest.mark.parametrize("lr", [tune.choice([1e-4, 3e-4, 1e-3, 3e-3, 1e-2]), tune.loguniform(1e-4, 1e-2)])
def test_a_sampled_axis_has_one_draw_a_sample_that_arms_and_seeds_share(lr: Any) -> None:
    study = search(lr, samples=3)
    points = study.points()
    drawn = {}
    for arm in ("searched", "deeper"):
        by_seed = {s: [dict(p.axes)["lr"] for p in of(points, arm) if dict(p.axes)["seed"] == s] for s in (0, 1, 2)}
        assert by_seed[0] == by_seed[1] == by_seed[2]
        drawn[arm] = by_seed[0]
    assert drawn["searched"] == drawn["deeper"]
    assert None not in [p for p, point in zip(study.pairs(points), points, strict=True) if point.arm == "deeper"]


@given(samples=st.integers(1, 12))
@settings(max_examples=12, deadline=None)
def test_a_continuous_axis_has_as_many_draws_as_samples_and_more_samples_keep_the_first(samples: int) -> None:
    def draws(count: int) -> list[float]:
        return list(dict.fromkeys(dict(p.axes)["lr"] for p in search(tune.loguniform(1e-4, 1e-2), count).points()))

    assert len(draws(samples)) == samples
    assert draws(samples) == draws(samples + 1)[:-1]
    assert all(1e-4 <= lr <= 1e-2 for lr in draws(samples))


def test_another_axis_changes_no_draw() -> None:
    def arm(lr: float, seed: int, wd: float) -> Train:
        return run(seed=seed, lr=lr)

    plain = search(tune.loguniform(1e-4, 1e-2), samples=3)
    over = {"wd": tune.uniform(0.0, 0.1)} | dict(plain.over)
    more = Study("s", "?", arm, [], over, num_samples=3)
    assert {dict(p.axes)["lr"] for p in more.points()} == {dict(p.axes)["lr"] for p in plain.points()}
    assert len({dict(p.axes)["wd"] for p in more.points()}) == 3


def test_points_are_the_same_whenever_they_are_asked_for() -> None:
    assert search(tune.loguniform(1e-4, 1e-2), 4).points() == search(tune.loguniform(1e-4, 1e-2), 4).points()


def test_samples_of_a_grid_are_the_grid() -> None:
    assert complexity(num_samples=3).points() == complexity().points()


# ---- refused


def takes_all(seed: int, *rest: int) -> Train:
    return run(seed=seed)


def takes_names(seed: int, **rest: int) -> Train:
    return run(seed=seed)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"over": {"depth": 1, "seed": 0}}, r"^arm nca: axis 'band' is not in Study\.over, which has depth, seed$"),
        ({"over": {}}, r"^arm scratch: axis 'depth' is not in Study\.over, which has none$"),
        (
            {"arms": [], "over": {"depth": 1, "seed": 0, "bnad": 1}},
            r"^Study\.over = 'bnad': no arm names this axis; arms name depth, seed$",
        ),
        (
            {"arms": [], "over": {"depth": tune.randint(3, 1), "seed": 0}},
            r"^Study\.over\['depth'\] = \(3, 1\): give the lower bound first",
        ),
        ({"arms": [takes_all]}, r"^arm takes_all: parameter 'rest' is no axis"),
        ({"arms": [takes_names]}, r"^arm takes_names: parameter 'rest' is no axis"),
        ({"arms": [scratch]}, r"^Study\.arms = \['scratch', 'scratch'\]: "),
        ({"name": "a/b"}, r"^Study\.name = 'a/b': "),
        ({"name": ""}, r"^Study\.name = '': "),
        ({"num_samples": 0}, r"^Study\.num_samples = 0: "),
        ({"sesoi": 1.0}, r"^Study\.sesoi = 1\.0: "),
        ({"sesoi": math.inf}, r"^Study\.sesoi = inf: use a number"),
        ({"sesoi": "x"}, r"^Study\.sesoi = 'x': use a number"),
        ({"name": 3}, r"^Study\.name = 3: "),
        ({"question": None}, r"^Study\.question = None: "),
        ({"num_samples": "3"}, r"^Study\.num_samples = '3': "),
        (
            {"over": {"depth": 1, "band": (0.2, 0.3), "seed": [0, 1]}},
            r"^Study\.over\['seed'\] = \[0, 1\]: .*grid_search",
        ),
        ({"over": ["seed"]}, r"^Study\.over = \['seed'\]: give a dict"),
        ({"benchmarks": [1]}, r"^Study\.benchmarks = \[1\]: give a dict"),
        ({"callbacks": 3}, r"^Study\.callbacks = 3: give a list"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as refused:
        complexity(**changes)
    assert "\n" not in str(refused.value)


def test_an_empty_axis_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Study\.over = .*yields no points"):
        complexity(over={"depth": 1, "band": (0.2, 0.3), "seed": tune.grid_search([])}).points()


def test_a_setting_that_an_arm_refuses_is_named() -> None:
    study = complexity(over={"depth": 1, "band": tune.grid_search([(0.2, 0.3), (0.4, 0.3)]), "seed": 7})
    with pytest.raises(InputError, match=r"^nca band=\(0\.4, 0\.3\) seed=7 depth=1: NCA\.band = ") as refused:
        study.points()
    assert "\n" not in str(refused.value)


def test_an_arm_that_returns_something_else_is_refused() -> None:
    def forgot(seed: int) -> Train:
        run(seed=seed)  # no return
        return None  # type: ignore[return-value]

    with pytest.raises(InputError, match=r"^arm forgot returned None: an arm returns a Train$"):
        Study("s", "?", forgot, [], {"seed": 0}).points()


# ---- files

FILE = """
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

def scratch(seed):
    model = Llama(depth=1, width=16, heads=2, mlp=24, context=40)
    return Train(Corpus(NCA(grid=8)), 1024, model, Recipe(lr=1e-3, batch=8), seed)

study = Study({name!r}, "?", scratch, [], {{"seed": 0}})
other = Study("other", "?", scratch, [], {{"seed": 1}})
number = 3
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str, name: str = "space.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return write


def test_a_file_has_a_study_and_any_others_by_name(write: Callable[..., Path]) -> None:
    path = write(FILE.format(name="mine"))
    assert load(str(path)).name == "mine"
    assert load(f"{path}:study").name == "mine"
    assert load(f"{path}:other").name == "other"


def test_files_of_one_name_do_not_collide(write: Callable[..., Path]) -> None:
    first, second = (write(FILE.format(name="a"), "one/space.py"), write(FILE.format(name="b"), "two/space.py"))
    studies = [load(str(first)), load(str(second))]
    assert [s.name for s in studies] == ["a", "b"]
    modules = {s.baseline.__module__ for s in studies}
    assert len(modules) == 2
    assert load(str(first)).name == "a"


def refusal(target: object) -> str:
    with pytest.raises(InputError) as refused:
        load(str(target))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.py").startswith(f"{tmp_path / 'none.py'}: there is no such file")
    assert "there is no such file" in refusal(tmp_path)
    assert "there is no such file" in refusal(f"{tmp_path / 'none.py'}:study")


def test_a_syntax_error_is_placed(write: Callable[..., Path]) -> None:
    path = write("a = 1\n\ndef broken(:\n")
    assert refusal(path).startswith(f"{path}:3: ")


def test_a_syntax_error_in_what_a_file_imports_is_placed_there(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    helper = write("def broken(:\n", "broken_helper.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(write("a = 1\n\nimport broken_helper\n")).startswith(f"{helper}:1: ")


def test_an_exception_is_placed_at_the_line_of_the_file(write: Callable[..., Path]) -> None:
    path = write("import json\n\n\nvalue = json.loads('{')\n")
    assert refusal(path).startswith(f"{path}:4: JSONDecodeError: ")
    assert refusal(write("import nowhere_to_be_found\n", "b.py")).endswith("No module named 'nowhere_to_be_found'")


def test_an_exception_of_several_lines_is_told_in_one(write: Callable[..., Path]) -> None:
    assert "first" in refusal(write("raise ValueError('first\\nsecond')\n"))


def test_bad_settings_in_a_file_are_named(write: Callable[..., Path]) -> None:
    path = write("from harness.specs import Llama\nLlama(width=10, heads=3)\n")
    assert refusal(path).startswith("space.py: Llama.heads = 3: ")


def test_a_file_without_the_study_lists_those_it_has(write: Callable[..., Path]) -> None:
    path = write(FILE.format(name="mine"))
    assert refusal(f"{path}:nothing") == f"{path}:nothing: there is no 'nothing'; studies in this file: study, other"
    assert refusal(f"{path}:number") == f"{path}:number: 'number' is a int; studies in this file: study, other"
    assert refusal(write("a = 1\n", "empty.py")).endswith("there is no 'study'; studies in this file: none")
