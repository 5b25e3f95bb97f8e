"""Validation curves from a file that anyone can write: a CSV with a row per evaluation, or the JSON of plotted curves.

A file that cannot be compared fairly is refused in one line that names the place, the value and the way out.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.frame import DataError

NEEDED = ("arm", "tokens", "loss_nats")
OPTIONAL = ("seed", "synthetic_tokens", "validation", "tokenizer", "bits_per_byte", "loss_bits_per_byte")
BITS = ("bits_per_byte", "loss_bits_per_byte")
"""Two names of one column."""
SHOWN = 40
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One run's evaluations at ascending `tokens` (n,): `loss` nats (n,), not finite where it diverged, and
    `bits_per_byte` (n,), NaN where unknown."""

    seed: str
    tokens: np.ndarray
    loss: np.ndarray
    bits_per_byte: np.ndarray


@dataclass(frozen=True, eq=False)
class Arm:
    """The runs of an arm, one a seed."""

    name: str
    runs: tuple[Measured, ...]
    synthetic_tokens: float
    """Tokens before the text; NaN if unknown."""
    tokenizer: str
    """"" if unknown."""


@dataclass(frozen=True, eq=False)
class CurveFile:
    """Arms by name in the order of the file, and what a reader should know about the file itself."""

    arms: dict[str, Arm]
    remarks: tuple[str, ...]


Row = tuple[str, Mapping[str, Any]]
"""Where it stands in the file, and its values by column."""


def read_curves(path: Path | str) -> CurveFile:
    """Reads a CSV with the columns arm, tokens (of text) and loss_nats (per token), and where known seed,
    synthetic_tokens (before the text, constant per arm), validation (name or digest of the set), tokenizer and
    bits_per_byte; or a JSON object {"tokens_per_iteration", SET: {ARM: {"iteration": [...], "loss_nats": [...]}}}.

    Raises DataError where the file cannot be read or its curves cannot be compared.
    """
    path = Path(path)
    text = _text(path)
    if not text.strip():
        raise DataError(f"{path}: is empty; it needs a first line {','.join(NEEDED)} and a row per evaluation")
    if path.suffix == ".json" or text.lstrip().startswith("{"):
        rows, unread = _json_rows(path, text), list[str]()
    else:
        rows, unread = _csv_rows(path, text)
    if not rows:
        raise DataError(f"{path}: has no rows below its first line; add a row per evaluation")
    _one_validation_set(path, rows)
    names = ", ".join(name or '""' for name in unread)
    remarks = (f"columns that mean nothing here were not read: {names}",) if unread else ()
    return CurveFile(_arms(path, rows), remarks)


def _text(path: Path) -> str:
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name the file with the curves")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name a CSV with the columns {', '.join(NEEDED)}") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is no CSV: byte {error.start} is not UTF-8 text; save the table as CSV in UTF-8"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _csv_rows(path: Path, text: str) -> tuple[list[Row], list[str]]:
    """The rows, and the names of columns that are not read."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next((r for r in reader if any(field.strip() for field in r)), [])]
        lacking = [name for name in NEEDED if name not in header]
        if lacking:
            found = _short(", ".join(header))
            raise DataError(
                f"{path}: row {reader.line_num}: lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}; it "
                f"has {found}. The first line names the columns, with commas between them"
            )
        twice = [name for name in (*NEEDED, *OPTIONAL) if header.count(name) > 1]
        if twice:
            raise DataError(f"{path}: row {reader.line_num}: names column {twice[0]} twice; keep one of them")
        rows: list[Row] = []
        for line in reader:
            if not any(field.strip() for field in line):
                continue
            if len(line) != len(header):
                raise DataError(
                    f"{path}: row {reader.line_num}: has {len(line)} fields where the first line names "
                    f"{len(header)}: {_short(','.join(line))}; write one value a column, numbers without commas"
                )
            rows.append((f"row {reader.line_num}", dict(zip(header, (field.strip() for field in line), strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}: row {reader.line_num}: is no CSV ({error}); save the table as CSV") from None
    return rows, [name for name in header if name not in (*NEEDED, *OPTIONAL)]


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({error}); write it again, or give a CSV") from None
    wanted = '{"tokens_per_iteration": N, SET: {ARM: {"iteration": [...], "loss_nats": [...]}}}'
    sets = {k: v for k, v in document.items() if isinstance(v, dict)} if isinstance(document, dict) else {}
    if len(sets) != 1:
        have = ", ".join(sets) or "none"
        raise DataError(f"{path}: needs curves on exactly one validation set, has {have}; its form is {wanted}")
    per_iteration = _number(path, "the top level", "tokens_per_iteration", document.get("tokens_per_iteration"))
    [(name, arms)] = sets.items()
    rows: list[Row] = []
    for arm, curve in arms.items():
        iterations, losses = (curve.get(k) if isinstance(curve, dict) else None for k in ("iteration", "loss_nats"))
        if not isinstance(iterations, list) or not isinstance(losses, list) or len(iterations) != len(losses):
            raise DataError(f"{path}: {name}.{arm}: needs the lists iteration and loss_nats, equally long")
        shared = {key: curve[key] for key in ("synthetic_tokens", "tokenizer") if curve.get(key) is not None}
        for i, (iteration, loss) in enumerate(zip(iterations, losses, strict=True)):
            where = f"{name}.{arm}, entry {i}"
            tokens = per_iteration * _number(path, where, "iteration", iteration)
            known = {"arm": arm, "tokens": tokens, "loss_nats": math.nan if loss is None else loss}
            rows.append((where, {**shared, **known}))
    return rows


def _one_validation_set(path: Path, rows: Iterable[Row]) -> None:
    first: dict[str, str] = {}
    for where, row in rows:
        name = str(row.get("validation", ""))
        if name and name not in first:
            first[name] = f"{name!r} ({row['arm']}, {where})"
    if len(first) > 1:
        raise DataError(
            f"{path}: losses on different validation sets do not compare: {', '.join(first.values())}; keep the rows "
            "of one set"
        )


def _arms(path: Path, rows: Iterable[Row]) -> dict[str, Arm]:
    found: dict[str, dict[str, dict[float, tuple[str, float, float]]]] = {}
    shared: dict[tuple[str, str], tuple[Any, ...]] = {}
    for where, row in rows:
        arm, seed = str(row["arm"]), str(row.get("seed", ""))
        if not arm:
            raise DataError(f"{path}: {where}: arm is empty; name the arm in every row")
        tokens = _number(path, where, "tokens", row["tokens"])
        if not math.isfinite(tokens) or (tokens < 1 and tokens != 0):
            given = _short(row["tokens"])
            raise DataError(f"{path}: {where}: tokens is {given}; give the number of text tokens trained on")
        synthetic = _known(path, where, "synthetic_tokens", row)
        if synthetic < 0 or math.isinf(synthetic):
            raise DataError(
                f"{path}: {where}: synthetic_tokens is {row['synthetic_tokens']}; give a count, or leave it empty"
            )
        for column, value in (("synthetic_tokens", synthetic), ("tokenizer", row.get("tokenizer", ""))):
            if value == "" or value != value:  # an empty field says nothing, not something else
                continue
            before, place = shared.setdefault((arm, column), (value, where))
            if before != value:
                raise DataError(
                    f"{path}: {where}: {column} is {_short(value)} for {arm}, but {_short(before)} in {place}; an arm "
                    "has one, so give the other an arm of its own"
                )
        evaluations = found.setdefault(arm, {}).setdefault(seed, {})
        if tokens in evaluations:
            raise DataError(
                f"{path}: {where}: {arm} was already evaluated at {tokens:.15g} tokens in {evaluations[tokens][0]}; "
                "remove one, or tell runs apart in a column seed"
            )
        evaluations[tokens] = (where, _loss(path, where, row), _bits(path, where, row))
    return {
        arm: Arm(
            arm,
            tuple(_measured(seed, evaluations) for seed, evaluations in runs.items()),
            float(shared.get((arm, "synthetic_tokens"), (math.nan,))[0]),
            str(shared.get((arm, "tokenizer"), ("",))[0]),
        )
        for arm, runs in found.items()
    }


def _measured(seed: str, evaluations: dict[float, tuple[str, float, float]]) -> Measured:
    tokens = sorted(evaluations)
    loss, bits = np.array([evaluations[t][1:] for t in tokens]).T
    return Measured(seed, np.array(tokens), loss, bits)


def _loss(path: Path, where: str, row: Mapping[str, Any]) -> float:
    """Nats; one that is not finite stays, for it says that the run diverged."""
    loss = _number(path, where, "loss_nats", row["loss_nats"])
    if loss <= 0 and math.isfinite(loss):
        raise DataError(
            f"{path}: {where}: loss_nats is {row['loss_nats']}; a loss in nats per token is above 0, so leave out rows "
            "that were not measured"
        )
    return math.inf if math.isinf(loss) else loss


def _bits(path: Path, where: str, row: Mapping[str, Any]) -> float:
    for column in BITS:
        bits = _known(path, where, column, row)
        if math.isfinite(bits):
            if bits <= 0:
                raise DataError(f"{path}: {where}: {column} is {row[column]}; bits per byte are above 0")
            return bits
    return math.nan


def _known(path: Path, where: str, column: str, row: Mapping[str, Any]) -> float:
    """The number in a column that may be lacking or empty; then NaN."""
    return math.nan if row.get(column, "") == "" else _number(path, where, column, row[column])


def _number(path: Path, where: str, column: str, value: Any) -> float:
    if value is None or value == "":
        raise DataError(f"{path}: {where}: {column} is empty; fill it in, or leave the row out")
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        way = "write a plain number such as 9017753600 or 2.685"
        raise DataError(f"{path}: {where}: {column} is {_short(value)!r}, no number; {way}") from None


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
