"""The files of a store, each read once and held against its checksum: plans, manifests and curves, as plain data.

No class of the harness is needed to understand them.
"""

import contextlib
import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json

from analysis.remote import local

FORMAT = 1
"""The format of points.json and manifest.json that this code reads."""
TOGETHER = 128
"""Stages whose files are read in one go."""
READERS = 4
"""Goes at once: a network file system answers several as fast as one."""
BLOCK_BYTES = 1 << 23
"""What is parsed as a piece; no line of a curve comes near it."""

T = TypeVar("T")


class DataError(ValueError):
    """A store or an export that cannot be read: one line that names the file and what is wrong with it."""


class Attempt(NamedTuple):
    """The attempt of a stage that counts, with the files that DONE vouches for."""

    directory: str
    files: dict[str, Any]


class Curves(NamedTuple):
    """Evaluations of many stages, one after the other: `values` are arrays (rows,) by field, NaN for null, and
    `rows[digest]` the place of a stage in them."""

    values: dict[str, np.ndarray]
    rows: dict[str, slice]


def readable(store: Path | str, study: str) -> Path:
    """A directory from which the study can be read: `store`, or a copy of a URL. Raises DataError for a URL that cannot
    be read."""
    try:
        return local(store, study)
    except Exception as error:
        raise DataError(f"{store}: cannot be read ({' '.join(str(error).split())})") from error


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep the cyclic garbage collector from looking through what is being read, again and again as it grows: it is a
    quarter of the time of 10,000 stages, and JSON has no cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def read_plan(store: Path | str, study: str) -> dict[str, Any]:
    """points.json of a study. Raises DataError where there is none or it is damaged."""
    directory = Path(store) / "studies"
    path = directory / study / "points.json"
    content = _bytes(str(path))
    if content is None:
        known = sorted(p.parent.name for p in directory.glob("*/points.json"))
        raise DataError(f"{path}: no such study; this store has {', '.join(known) or 'none'}")
    plan = parse(path, content)
    if not isinstance(plan.get("stages"), dict):
        raise DataError(f"{path}: stages is no dict; register the study again")
    return check_plan(path, plan)


PLAN = {"study": str, "baseline": object, "arms": list, "axes": list, "points": list, "hash": str}
"""Fields of a plan that everything else relies on."""


def check_plan(path: Path, plan: Any) -> dict[str, Any]:
    """`plan`, if it is one. Raises DataError, which names `path`."""
    known = plan if isinstance(plan, dict) else {}
    lacking = [name for name in PLAN if name not in known]
    if lacking:
        raise DataError(f"{path}: lacks {', '.join(lacking)}; register the study again")
    for name, kind in PLAN.items():
        if not isinstance(known[name], kind):
            raise DataError(f"{path}: {name} is no {kind.__name__}; register the study again")
    for i, point in enumerate(known["points"]):
        _check_point(path, i, point, len(known["points"]))
    return known


POINT = {"arm": str, "axes": dict, "stage": str, "chain": list, "tokens": list, "flops": list, "differs_in": list}
"""Fields of a point that everything else relies on."""


def _check_point(path: Path, i: int, point: Any, count: int) -> None:
    wrong = [n for n, kind in POINT.items() if not isinstance(point, dict) or not isinstance(point.get(n), kind)]
    if not wrong:
        base, benchmarks = point.get("baseline"), point.get("benchmarks")
        if base is not None and not (isinstance(base, int) and 0 <= base < count):
            wrong = ["baseline"]
        elif not point["chain"] or not len(point["chain"]) == len(point["tokens"]) == len(point["flops"]):
            wrong = ["chain"]
        elif benchmarks is not None and not isinstance(benchmarks, dict):
            wrong = ["benchmarks"]
    if wrong:
        raise DataError(f"{path}: point {i} has no usable {', '.join(wrong)}; register the study again")


def attempt(store: Path | str, digest: str) -> Path | None:
    """The directory of a finished stage, or None while it is not DONE. Raises DataError where it is damaged."""
    found = _attempt(str(store), digest)
    if found is None:
        return None
    if not os.path.isdir(found.directory):
        raise _gone(found)
    return Path(found.directory)


def read_stages(store: Path | str, digests: Iterable[str]) -> tuple[dict[str, Attempt], dict[str, dict[str, Any]]]:
    """Attempts and manifests of the finished stages among `digests`, in their order. Raises DataError where one is
    damaged."""
    root = str(store)

    def read(part: Sequence[str]) -> list[tuple[str, Attempt, dict[str, Any]]]:
        found = [(digest, _attempt(root, digest)) for digest in part]
        return [(digest, done, _manifest(done)) for digest, done in found if done is not None]

    found = _in_parts(read, list(digests))
    return {digest: done for digest, done, _ in found}, {digest: document for digest, _, document in found}


def read_curves(attempts: Mapping[str, Attempt], fields: Sequence[str]) -> Curves:
    """The curves of published training stages: step, tokens, loss_nats and `fields`; other fields are passed over.
    Raises DataError where one is damaged, empty, or its tokens do not ascend."""
    names = list(dict.fromkeys(["step", "tokens", "loss_nats", *fields]))
    schema = pa.schema([(name, pa.int64() if name in ("step", "tokens") else pa.float64()) for name in names])

    def read(part: Sequence[tuple[str, Attempt]]) -> list[tuple[pa.Table, list[int]]]:
        return [_tables([done for _, done in part], schema)]

    parts = _in_parts(read, list(attempts.items()))
    table = pa.concat_tables([part for part, _ in parts]) if parts else schema.empty_table()
    counts = np.array([n for _, lengths in parts for n in lengths], int)
    ends = np.cumsum(counts)
    rows = {d: slice(int(e - n), int(e)) for d, n, e in zip(attempts, counts, ends, strict=True)}
    return Curves({name: table[name].to_numpy() for name in names}, rows)


def parse(path: Path | str, content: bytes, fields: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON object that has `fields`; raises DataError, which names `path`, where `content` is something else."""
    try:
        value = _loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); it was damaged or half written") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}, not an object; it was damaged")
    lacking = [name for name in fields if name not in value]
    if lacking:
        raise DataError(f"{path}: lacks {', '.join(lacking)}; it was damaged or written by another version")
    if value.get("format", FORMAT) != FORMAT:
        raise DataError(f"{path}: format {value['format']}, this analysis reads format {FORMAT}; use its version")
    return value


def _loads(content: bytes) -> Any:
    """A JSON value, by orjson where it gives what json gives: it is three times as fast."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return json.loads(content)  # a NaN, or what json says better
    return json.loads(content) if _rounded(value) else value


def _rounded(value: Any) -> bool:
    """Whether orjson made a float of a whole number beyond 64 bits; only FLOPs are so large."""
    if not isinstance(value, dict):
        return False
    numbers = [value.get("flops"), value.get("generation_flops")]
    points = value.get("points")
    for point in points if isinstance(points, list) else ():
        flops = point.get("flops") if isinstance(point, dict) else None
        numbers += flops if isinstance(flops, list) else []
    return any(isinstance(number, float) for number in numbers)


def _in_parts(read: Callable[[Sequence[Any]], list[T]], items: list[Any]) -> list[T]:
    """`read` of parts of `items`, several at once; what they return, in order. The first error in that order is
    raised."""
    parts = [items[i : i + TOGETHER] for i in range(0, len(items), TOGETHER)]
    if len(parts) <= 1:
        return [found for part in parts for found in read(part)]
    with ThreadPoolExecutor(READERS) as pool:
        return [found for some in pool.map(read, parts) for found in some]


def _bytes(path: str) -> bytes | None:
    """The content of a file; None where it is not there."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _attempt(root: str, digest: str) -> Attempt | None:
    stage = f"{root}/stages/{digest}"
    content = _bytes(f"{stage}/DONE")
    if content is None:
        return None
    done = parse(f"{stage}/DONE", content, ("attempt", "files"))
    if not isinstance(done["files"], dict) or not all(isinstance(f, dict) for f in done["files"].values()):
        raise DataError(f"{stage}/DONE: its files are no object of objects; run its study again, which makes it anew")
    return Attempt(f"{stage}/{done['attempt']}", done["files"])


def _published(done: Attempt, name: str) -> bytes:
    """The bytes of a file, equal to those that DONE vouches for."""
    path = f"{done.directory}/{name}"
    content = _bytes(path)
    if content is None:
        if not os.path.isdir(done.directory):
            raise _gone(done)
        raise DataError(f"{path}: the stage is DONE without it; run its study again, which makes it anew")
    promised = done.files.get(name, {}).get("sha256")
    if promised is not None and promised != hashlib.sha256(content).hexdigest():
        raise DataError(f"{path}: differs from the checksum in DONE; run its study again, which makes it anew")
    return content


def _gone(done: Attempt) -> DataError:
    say = "DONE names this attempt, but it is not there; run its study again, which makes it anew"
    return DataError(f"{done.directory}: {say}")


TRAINED = ("tokens", "flops", "params", "spec", "held_out", "hardware", "threads", "wall_s", "versions")
"""Fields of the manifest of a training stage that everything else relies on."""


EVALUATED = ("spec", "problems", "scores")
"""The same of an evaluation."""


def _manifest(done: Attempt) -> dict[str, Any]:
    path = f"{done.directory}/manifest.json"
    content = _published(done, "manifest.json")
    return check_manifest(path, parse(path, content))


def check_manifest(path: Path | str, document: Any) -> dict[str, Any]:
    """`document`, if it has what a manifest of its kind has. Raises DataError, which names `path`."""
    known = document if isinstance(document, dict) else {}
    kind = known.get("kind")
    lacking = [name for name in ("kind", "status", *(EVALUATED if kind == "Evaluate" else ())) if name not in known]
    if kind == "Train":
        lacking += [name for name in TRAINED if known.get(name) is None]
    if kind == "Train" and not lacking and "schedule" not in (known["spec"].get("recipe") or {}):
        lacking = ["spec.recipe.schedule"]
    if lacking:
        raise DataError(f"{path}: lacks {', '.join(lacking)}; it was damaged or written by another version")
    return known


def _tables(attempts: Sequence[Attempt], schema: pa.Schema) -> tuple[pa.Table, list[int]]:
    """The curves of `attempts` in one table, and how many rows each has."""
    paths = [f"{done.directory}/curve.jsonl" for done in attempts]
    contents = [_published(done, "curve.jsonl").rstrip(b"\n") for done in attempts]
    counts = [content.count(b"\n") + 1 if content else 0 for content in contents]
    for path, content in zip(paths, contents, strict=True):
        if not content.strip():
            raise DataError(f"{path}: has no evaluation; delete the stage's DONE and run it again")
    options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pa.json.read_json(
            pa.BufferReader(b"\n".join(contents)),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=options,
        )
    except pa.ArrowInvalid:
        table = None
    if table is None or len(table) != sum(counts) or table["step"].null_count or table["tokens"].null_count:
        # Slower, but it says which file and why; or it finds nothing wrong: blank lines, a NaN.
        read = [_rows(path, content, schema.names) for path, content in zip(paths, contents, strict=True)]
        counts = [len(rows) for rows in read]
        table = pa.Table.from_pylist([row for rows in read for row in rows], schema)
    starts = np.r_[0, np.cumsum(counts)]
    owner = np.repeat(np.arange(len(counts)), counts)
    if table["loss_nats"].null_count:  # null, or not there?
        for i in np.unique(owner[table["loss_nats"].is_null().to_numpy()]):
            _rows(paths[i], contents[i], schema.names)
    tokens = table["tokens"].to_numpy()
    falls = np.flatnonzero((np.diff(tokens) <= 0) & (np.diff(owner) == 0))
    if len(falls):
        path = paths[int(np.searchsorted(starts, falls[0], "right")) - 1]
        raise DataError(f"{path}: its tokens do not ascend; delete the stage's DONE and run it again")
    return table, counts


def _rows(path: str, content: bytes, names: Sequence[str]) -> list[dict[str, Any]]:
    """The fields `names` of a curve, line by line. Raises DataError where a line is no evaluation."""
    rows = [parse(path, line, ("step", "tokens", "loss_nats")) for line in content.splitlines() if line.strip()]
    found = [{name: row.get(name) for name in names} for row in rows]
    for name, value in ((name, value) for row in found for name, value in row.items()):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        if not (whole or (name not in ("step", "tokens") and (value is None or isinstance(value, float)))):
            raise DataError(f"{path}: {name} is {value!r}; it was damaged or written by another version")
    return found
