"""Which package may import which: the arrows of the architecture, read from the source."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HARNESS = sorted((ROOT / "harness").rglob("*.py"))
ANALYSIS = sorted((ROOT / "analysis").rglob("*.py"))
SPACES = sorted((ROOT / "search_spaces").rglob("*.py"))
HEAVY = {"torch", "transformers", "datasets", "tokenizers", "safetensors", "pandas", "matplotlib", "numba", "ray"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def imports(path: Path, top_level: bool = False) -> tuple[str, ...]:
    """Dotted names that `path` imports, `ray.tune` for `from ray import tune`; those for type checkers left out."""
    return tuple(_imports(path, top_level))


def _imports(path: Path, top_level: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    hidden = {
        id(node)
        for outer in ast.walk(tree)
        if (top_level and isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
        for node in ast.walk(outer)
        if node is not outer
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{name(path)}:{node.lineno}: imports are absolute, since `ray submit` runs one file"
            )
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(package: str, imported: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


def test_the_reader_of_imports_sees_them_all(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import ray.data as d, os\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    from ray import tune\n"
    )
    assert imports(path) == ("ray.data", "os", "typing.TYPE_CHECKING", "ray.tune")
    assert imports(path, top_level=True) == ("ray.data", "os", "typing.TYPE_CHECKING")


@pytest.mark.parametrize("path", HARNESS + ANALYSIS + SPACES, ids=name)
def test_ray_is_known_to_the_cluster_alone(path: Path) -> None:
    ray = {i for i in imports(path) if within("ray", i)}
    if ROOT / "harness" / "cluster" in path.parents:
        return
    if path == ROOT / "harness" / "axes.py" or path in SPACES:
        ray = {i for i in ray if not within("ray.tune", i)}  # the vocabulary of axes
    assert ray == set()


@pytest.mark.parametrize("path", HARNESS, ids=name)
def test_the_domain_knows_neither_its_cluster_nor_its_analysis(path: Path) -> None:
    found = set(imports(path))
    entry = path == ROOT / "harness" / "__main__.py" or ROOT / "harness" / "commands" in path.parents
    if not entry:
        assert not {i for i in found if within("analysis", i)}
        assert not {i for i in found if within("harness.__main__", i) or within("harness.commands", i)}
    if not entry and ROOT / "harness" / "cluster" not in path.parents:
        assert not {i for i in found if within("harness.cluster", i)}
    assert not {i for i in found if within("search_spaces", i) or within("tests", i)}


@pytest.mark.parametrize("path", ANALYSIS, ids=name)
def test_the_analysis_reads_files_alone(path: Path) -> None:
    assert not {i for i in imports(path) if within("harness", i) or within("search_spaces", i)}


def test_values_are_standard_library() -> None:
    loaded = on_the_way_of(ROOT / "harness" / "specs.py", set())
    outside = {i for f in loaded for i in imports(f) if i.split(".")[0] not in sys.stdlib_module_names}
    assert {i for i in outside if not within("harness.errors", i) and i != "harness.modules"} == set()


def on_the_way_of(path: Path, seen: set[Path]) -> set[Path]:
    """`path` and the files of the harness that are loaded with it."""
    if path in seen:
        return seen
    seen.add(path)
    for imported in imports(path, top_level=True):
        parts = imported.split(".")
        if parts[0] != "harness":
            continue
        for end in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:end])
            for file in (base.with_suffix(".py"), base / "__init__.py"):
                if file.is_file():
                    on_the_way_of(file, seen)
    return seen


def test_nothing_heavy_is_loaded_to_plan() -> None:
    files: set[Path] = set()
    sources = [f"sources/{source}.py" for source in ("nca", "text", "shuffled", "iid", "copying", "dyck", "answers")]
    for entry in ("__main__.py", "reasoning/tasks.py", *sources):
        on_the_way_of(ROOT / "harness" / entry, files)
    loaded = {name(f) for f in files}
    assert {"harness/plan.py", "harness/space.py", "harness/specs.py", "harness/store.py"} <= loaded
    heavy = {(name(f), i) for f in files for i in imports(f, top_level=True) if i.split(".")[0] in HEAVY}
    assert heavy == set()


def test_no_two_files_import_each_other() -> None:
    loads = {f: on_the_way_of(f, set()) - {f} for f in HARNESS}
    assert {(name(a), name(b)) for a in HARNESS for b in loads[a] if a in loads[b]} == set()
