"""A store in an object store, read as if it were a directory: a copy of the files that an analysis needs."""

import functools
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

EARLIER = re.compile(r"points-[0-9a-f]{12}(-[0-9]+)?\.json")
"""Under which name a plan is kept when its study is registered anew."""
NEEDED = ("manifest.json", "curve.jsonl", "frames.npz")
"""Files of a stage that are read here."""


def local(store: Path | str, study: str) -> Path:
    """`store`, if it is a directory; of a URL that fsspec knows, a directory with what belongs to `study` now.

    Raises OSError or ImportError where the URL cannot be read."""
    if "://" not in str(store):
        return Path(store)
    import fsspec

    fs, root = fsspec.core.url_to_fs(str(store).rstrip("/"), use_listings_cache=False)
    copy = _directory(str(store))
    plans = [f"{name}/points.json" for name in _names(fs, f"{root}/studies")]
    plans += [f"{study}/{name}" for name in _names(fs, f"{root}/studies/{study}") if EARLIER.fullmatch(name)]
    _bring(fs, root, copy, [f"studies/{name}" for name in plans])
    try:
        stages = list(json.loads((copy / "studies" / study / "points.json").read_bytes())["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return copy  # what is wrong with it is said by those who read it
    markers = [f"stages/{digest}/DONE" for digest in stages]
    for marker in markers:
        (copy / marker).unlink(missing_ok=True)
    _bring(fs, root, copy, markers)
    wanted = []
    for place in [copy / name for name in markers if (copy / name).is_file()]:
        try:
            done = json.loads(place.read_bytes())
            attempt = place.parent / str(done["attempt"])
            wanted += [attempt / name for name in NEEDED if name in done["files"]]
        except (ValueError, KeyError, TypeError):
            continue
        attempt.mkdir(exist_ok=True)
    # What DONE names never changes.
    _bring(fs, root, copy, [p.relative_to(copy).as_posix() for p in wanted if not p.is_file()])
    return copy


def _bring(fs: Any, root: str, copy: Path, names: Iterable[str]) -> None:
    """Copy the files of `names` that are there, many at once."""
    names = list(names)
    found = fs.cat([f"{root}/{name}" for name in names], on_error="return") if names else {}
    for name in names:
        content = found.get(f"{root}/{name}")
        if isinstance(content, FileNotFoundError) or content is None:
            continue
        if isinstance(content, Exception):
            raise content
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)


def _names(fs: Any, directory: str) -> list[str]:
    try:
        return [path.rstrip("/").rpartition("/")[2] for path in fs.ls(directory, detail=False)]
    except FileNotFoundError:
        return []


@functools.cache
def _directory(store: str) -> Path:
    """This process's copy of `store`, removed when the process ends."""
    directory = tempfile.TemporaryDirectory(prefix="nca-store-")
    _kept.append(directory)
    return Path(directory.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []
