"""The one table everything else is computed from: points of a study joined with the curves of their stages.

Reads the files of a store as data; no class of the harness is needed to understand them.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

FORMAT = 1
"""The format of points.json and manifest.json that this code reads."""

MEASURES = (
    "step", "tokens", "tokens_total", "flops_total", "params", "loss_nats", "loss_bits_per_byte", "accuracy",
    "induction_nats", "train_loss_nats", "wall_s", "device_s", "tokens_per_s", "data_wait", "differs_in", "schedule",
    "status", "stage",
)  # fmt: skip
"""Columns of the frame after study, arm, axes, seed and phase."""

CURVE_FIELDS = (
    "loss_nats", "loss_bits_per_byte", "accuracy", "induction_nats", "train_loss_nats", "wall_s", "device_s",
    "tokens_per_s", "data_wait",
)  # fmt: skip


class DataError(ValueError):
    """A store or an export that cannot be read: one line that names the file and what is wrong with it."""


def axis_column(axis: str) -> str:
    """The column of an axis: its name, or `<name>_axis` where a column of the frame already has that name."""
    return f"{axis}_axis" if axis in (*MEASURES, "study", "arm", "phase") else axis


def axis_columns(plan: dict[str, Any]) -> list[str]:
    """The columns of a study's axes in order, without the seed."""
    return [axis_column(axis) for axis in plan["axes"] if axis != "seed"]


def key_columns(plan: dict[str, Any]) -> list[str]:
    """The columns that together name a row of the frame exactly once."""
    return ["study", "arm", *axis_columns(plan), "seed", "phase", "tokens"]


def axis_value(value: Any) -> Any:
    """An axis value fit for a table: numbers and strings as they are, (0.2, 0.3) as "0.2-0.3", objects by name."""
    if isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return "-".join(f"{v:g}" for v in value)
    if isinstance(value, list):
        return ", ".join(str(axis_value(v)) for v in value)
    if isinstance(value, dict):
        fields = ", ".join(f"{k}={axis_value(v)}" for k, v in value.items() if k not in ("type", "version"))
        return f"{value.get('type', '')}({fields})"
    return value


def axes_of(plan: dict[str, Any], point: dict[str, Any]) -> dict[str, Any]:
    """Axis columns of a point, the seed last; an axis that its arm does not name is None."""
    found = {axis_column(a): axis_value(point["axes"].get(a)) for a in plan["axes"] if a != "seed"}
    return {**found, "seed": point["axes"].get("seed", 0)}


def read_plan(store: Path | str, study: str) -> dict[str, Any]:
    """points.json of a study. Raises DataError where there is none or it is damaged."""
    directory = Path(store) / "studies"
    path = directory / study / "points.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in directory.glob("*/points.json"))
        raise DataError(f"{path}: no such study; this store has {', '.join(known) or 'none'}")
    plan = _json(path, path.read_bytes())
    lacking = [k for k in ("study", "baseline", "arms", "axes", "points", "stages", "hash") if k not in plan]
    if lacking:
        raise DataError(f"{path}: lacks {', '.join(lacking)}; register the study again")
    return plan


def attempt(store: Path | str, digest: str) -> Path | None:
    """The directory of a finished stage, or None while it is not DONE. Raises DataError where it is damaged."""
    done = Path(store) / "stages" / digest / "DONE"
    if not done.is_file():
        return None
    directory = done.parent / str(_json(done, done.read_bytes(), ("attempt", "files"))["attempt"])
    if not directory.is_dir():
        raise DataError(
            f"{directory}: DONE names this attempt, but it is not there; delete DONE and run the stage again"
        )
    return directory


def manifests(store: Path | str, study: str) -> dict[str, dict[str, Any]]:
    """Manifests of the study's finished stages by digest. Raises DataError where one is damaged."""
    found = {}
    for digest in read_plan(store, study)["stages"]:
        directory = attempt(store, digest)
        if directory is not None:
            found[digest] = _json(
                directory / "manifest.json", _published(directory, "manifest.json"), ("kind", "status")
            )
    return found


def missing(store: Path | str, study: str) -> pd.DataFrame:
    """One row per point that the frame lacks: arm, axes, seed, and the first stage of its chain that is not DONE."""
    plan = read_plan(store, study)
    done = {d for d in plan["stages"] if attempt(store, d) is not None}
    rows = []
    for point in plan["points"]:
        waiting = [d for d in point["chain"] if d not in done]
        if waiting:
            label = plan["stages"].get(waiting[0], {}).get("label", "")
            rows.append({"arm": point["arm"], **axes_of(plan, point), "stage": waiting[0], "label": label})
    return table(rows, ["arm", *axis_columns(plan), "seed", "stage", "label"], plan)


def load(store: Path | str, study: str) -> pd.DataFrame:
    """The frame: one row per (study, arm, axes..., seed, phase, tokens); points that are not finished are absent.

    `phase` is "pre-training" for the last stage of a chain and "pre-pre-training" before it (numbered where there
    are several). `tokens` counts within the stage; `tokens_total` and `flops_total` include every stage before it,
    the latter also the FLOPs of generating synthetic tokens. A loss that was not finite is NaN.
    Raises DataError where a stage is damaged or half written.
    """
    plan = read_plan(store, study)
    documents = manifests(store, study)
    curves: dict[str, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    for point in plan["points"]:
        if any(digest not in documents for digest in point["chain"]):
            continue
        for digest in point["chain"]:
            if digest not in curves:
                curves[digest] = _curve(store, digest)
        rows += _point_rows(plan, point, documents, curves)
    frame = table(rows, [*key_columns(plan)[:-1], *MEASURES], plan)
    frame[list(CURVE_FIELDS)] = frame[list(CURVE_FIELDS)].astype(float)
    return check_key(frame, plan)


def table(rows: list[dict[str, Any]], columns: list[str], plan: dict[str, Any]) -> pd.DataFrame:
    """A table of `rows`. An axis that some rows do not name keeps its values as they are, with None: 6 stays 6."""
    frame = pd.DataFrame(rows, columns=columns)
    for axis in axis_columns(plan):
        values = [row.get(axis) for row in rows]
        frame[axis] = pd.Series(values, dtype=object if None in values else None, index=frame.index)
    return frame


def check_key(frame: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """The same frame; raises DataError if two rows have one key."""
    twice = frame.duplicated(key_columns(plan))
    if twice.any():
        row = frame.loc[twice, key_columns(plan)].iloc[0].to_dict()
        raise DataError(f"study {plan['study']}: two rows for {row}; register the study again with distinct points")
    return frame


def phases(chain: Iterable[str]) -> list[str]:
    """The name of every stage of a chain, in order."""
    before = len(list(chain)) - 1
    names = ["pre-pre-training"] if before == 1 else [f"pre-pre-training {i + 1}" for i in range(before)]
    return [*names, "pre-training"]


def _point_rows(
    plan: dict[str, Any],
    point: dict[str, Any],
    documents: dict[str, dict[str, Any]],
    curves: dict[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    rows = []
    tokens_before = flops_before = 0
    for phase, digest in zip(phases(point["chain"]), point["chain"], strict=True):
        document = documents[digest]
        flops = document["flops"] + document.get("generation_flops", 0)
        for measured in curves[digest]:
            rows.append(
                {
                    "study": plan["study"],
                    "arm": point["arm"],
                    **axes_of(plan, point),
                    "phase": phase,
                    "step": measured["step"],
                    "tokens": measured["tokens"],
                    "tokens_total": tokens_before + measured["tokens"],
                    "flops_total": flops_before + round(flops * measured["tokens"] / document["tokens"]),
                    "params": document["params"],
                    **{name: measured.get(name) for name in CURVE_FIELDS},
                    "differs_in": "; ".join(point["differs_in"]),
                    "schedule": document["spec"]["recipe"]["schedule"],
                    "status": document["status"],
                    "stage": digest,
                }
            )
        tokens_before += document["tokens"]
        flops_before += flops
    return rows


def _curve(store: Path | str, digest: str) -> list[dict[str, Any]]:
    directory = attempt(store, digest)
    assert directory is not None
    path = directory / "curve.jsonl"
    lines = _published(directory, "curve.jsonl").splitlines()
    rows = [_json(path, line, ("step", "tokens", "loss_nats")) for line in lines if line.strip()]
    if not rows:
        raise DataError(f"{path}: has no evaluation; delete the stage's DONE and run it again")
    if any(b["tokens"] <= a["tokens"] for a, b in itertools.pairwise(rows)):
        raise DataError(f"{path}: its tokens do not ascend; delete the stage's DONE and run it again")
    return rows


def _published(directory: Path, name: str) -> bytes:
    """The bytes of a file, equal to those that DONE vouches for."""
    path = directory / name
    if not path.is_file():
        raise DataError(f"{path}: the stage is DONE without it; delete its DONE and run it again")
    content = path.read_bytes()
    done = directory.parent / "DONE"
    promised = _json(done, done.read_bytes(), ("attempt", "files"))["files"].get(name, {}).get("sha256")
    if promised is not None and promised != hashlib.sha256(content).hexdigest():
        raise DataError(f"{path}: differs from the checksum in DONE; delete DONE and run the stage again")
    return content


def _json(path: Path, content: bytes, fields: Iterable[str] = ()) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); it was damaged or half written") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}, not an object; it was damaged")
    lacking = [name for name in fields if name not in value]
    if lacking:
        raise DataError(f"{path}: lacks {', '.join(lacking)}; it was damaged or written by another version")
    if value.get("format", FORMAT) != FORMAT:
        raise DataError(f"{path}: format {value['format']}, this analysis reads format {FORMAT}; use its version")
    return value
