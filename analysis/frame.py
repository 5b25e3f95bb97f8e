"""The one table everything else is computed from: points of a study joined with the curves of their stages."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.stored import Curves, DataError, attempt, no_collection, read_curves, read_plan, read_stages, readable

__all__ = ["DataError", "attempt", "read_plan", "readable"]

MEASURES = (
    "step", "tokens", "tokens_total", "flops_total", "params", "loss_nats", "loss_bits_per_byte", "accuracy",
    "induction_nats", "train_loss_nats", "grad_norm", "wall_s", "device_s", "tokens_per_s", "mfu", "data_wait",
    "memory_bytes", "differs_in", "schedule", "status", "stage",
)  # fmt: skip
"""Columns of the frame after study, arm, axes, seed and phase."""

CURVE_FIELDS = (
    "loss_nats", "loss_bits_per_byte", "accuracy", "induction_nats", "train_loss_nats", "grad_norm", "wall_s",
    "device_s", "tokens_per_s", "mfu", "data_wait", "memory_bytes",
)  # fmt: skip


class Study(NamedTuple):
    """What a store knows of a study, every file read once."""

    plan: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    """Manifests of finished stages by digest."""
    frame: pd.DataFrame
    missing: pd.DataFrame


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


def read_study(store: Path | str, study: str) -> Study:
    """Everything about a study in a directory. Raises DataError where a stage is damaged or half written."""
    with no_collection():
        return _read_study(store, study)


def _read_study(store: Path | str, study: str) -> Study:
    plan = read_plan(store, study)
    attempts, documents = read_stages(store, plan["stages"])
    whole = [point for point in plan["points"] if all(digest in documents for digest in point["chain"])]
    trained = dict.fromkeys(digest for point in whole for digest in point["chain"])
    curves = read_curves({digest: attempts[digest] for digest in trained}, CURVE_FIELDS)
    for point in whole:
        digest = point["stage"]
        measured, budget = curves.values["tokens"][curves.rows[digest]][-1], documents[digest]["tokens"]
        if measured < budget and documents[digest]["status"] == "finished":
            path = f"{attempts[digest].directory}/curve.jsonl"
            raise DataError(f"{path}: ends at {measured} of {budget} tokens; delete the stage's DONE and run it again")
    return Study(plan, documents, _frame(plan, whole, documents, curves), _missing(plan, documents))


def manifests(store: Path | str, study: str) -> dict[str, dict[str, Any]]:
    """Manifests of the study's finished stages by digest. Raises DataError where one is damaged."""
    store = readable(store, study)
    return read_stages(store, read_plan(store, study)["stages"])[1]


def missing(store: Path | str, study: str) -> pd.DataFrame:
    """One row per point that the frame lacks: arm, axes, seed, and the first stage of its chain that is not DONE."""
    store = readable(store, study)
    plan = read_plan(store, study)
    return _missing(plan, [digest for digest in plan["stages"] if attempt(store, digest) is not None])


def _missing(plan: dict[str, Any], done: Iterable[str]) -> pd.DataFrame:
    there = set(done)
    rows = []
    for point in plan["points"]:
        waiting = [d for d in point["chain"] if d not in there]
        if waiting:
            label = plan["stages"].get(waiting[0], {}).get("label", "")
            rows.append({"arm": point["arm"], **axes_of(plan, point), "stage": waiting[0], "label": label})
    return table(rows, ["arm", *axis_columns(plan), "seed", "stage", "label"], plan)


def load(store: Path | str, study: str) -> pd.DataFrame:
    """The frame: one row per (study, arm, axes..., seed, phase, tokens); points that are not finished are absent.
    `store` is a directory, or the URL of one in an object store.

    `phase` is "pre-training" for the last stage of a chain and "pre-pre-training" before it (numbered where there
    are several). `tokens` counts within the stage; `tokens_total` and `flops_total` include every stage before it,
    the latter also the FLOPs of generating synthetic tokens. A loss that was not finite is NaN.
    Raises DataError where a stage is damaged or half written.
    """
    return read_study(readable(store, study), study).frame


def table(rows: list[dict[str, Any]], columns: list[str], plan: dict[str, Any]) -> pd.DataFrame:
    """A table of `rows`. An axis that some rows do not name keeps its values as they are, with None: 6 stays 6."""
    frame = pd.DataFrame(rows, columns=columns)
    for axis in axis_columns(plan):
        frame[axis] = axis_values([row.get(axis) for row in rows])
    return frame


def empty_frame(plan: dict[str, Any]) -> pd.DataFrame:
    """The frame of a study of which nothing is finished."""
    return table([], [*key_columns(plan)[:-1], *MEASURES], plan).astype(dict.fromkeys(CURVE_FIELDS, float))


def check_key(frame: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """The same frame; raises DataError if two rows have one key."""
    twice = frame.duplicated(key_columns(plan))
    if twice.any():
        row = frame.loc[twice, key_columns(plan)].iloc[0].to_dict()
        raise DataError(f"study {plan['study']}: two rows for {row}; register the study again with distinct points")
    return frame


def axis_values(values: Sequence[Any]) -> pd.Series:
    """Values of an axis as a column. With None among them they are kept as they are: 6 stays 6."""
    return pd.Series(values, dtype=object if any(v is None for v in values) else None)


def phases(chain: Iterable[str]) -> list[str]:
    """The name of every stage of a chain, in order."""
    before = len(list(chain)) - 1
    names = ["pre-pre-training"] if before == 1 else [f"pre-pre-training {i + 1}" for i in range(before)]
    return [*names, "pre-training"]


class _Part(NamedTuple):
    """One stage of one point."""

    point: int
    phase: str
    stage: str
    tokens_before: int
    flops_before: int


def _frame(
    plan: dict[str, Any],
    points: Sequence[dict[str, Any]],
    documents: Mapping[str, dict[str, Any]],
    curves: Curves,
) -> pd.DataFrame:
    """The frame of `points` whose stages are all finished, column by column."""
    parts = list(_parts(points, documents))
    if not parts:
        return empty_frame(plan)
    places = [curves.rows[part.stage] for part in parts]
    lengths = np.array([place.stop - place.start for place in places])
    part_of = np.repeat(np.arange(len(parts)), lengths)
    row = np.arange(lengths.sum()) + np.repeat(
        np.array([place.start for place in places]) - np.cumsum(lengths) + lengths, lengths
    )
    axes = [axes_of(plan, point) for point in points]
    of_part = {
        "study": [plan["study"]] * len(parts),
        "arm": [points[part.point]["arm"] for part in parts],
        "seed": [axes[part.point]["seed"] for part in parts],
        "phase": [part.phase for part in parts],
        "params": [documents[part.stage]["params"] for part in parts],
        "differs_in": ["; ".join(points[part.point]["differs_in"]) for part in parts],
        "schedule": [documents[part.stage]["spec"]["recipe"]["schedule"] for part in parts],
        "status": [documents[part.stage]["status"] for part in parts],
        "stage": [part.stage for part in parts],
    }
    short = {name: pd.Series(values) for name, values in of_part.items()}
    short |= {axis: axis_values([axes[part.point][axis] for part in parts]) for axis in axis_columns(plan)}
    found: dict[str, Any] = {name: v.take(part_of).reset_index(drop=True) for name, v in short.items()}
    found |= {name: curves.values[name][row] for name in ("step", "tokens", *CURVE_FIELDS)}
    found["tokens_total"] = found["tokens"] + np.repeat([part.tokens_before for part in parts], lengths)
    spent = _flops_at(documents, curves)
    found["flops_total"] = pd.Series([part.flops_before + flops for part in parts for flops in spent[part.stage]])
    frame = pd.DataFrame({name: found[name] for name in (*key_columns(plan)[:-1], *MEASURES)})
    # Tokens ascend within a stage, so that rows can only be equal where the keys of two parts are.
    keys = pd.DataFrame({name: short[name] for name in key_columns(plan)[:-1]})
    return check_key(frame, plan) if keys.duplicated().any() else frame


def _parts(points: Sequence[dict[str, Any]], documents: Mapping[str, dict[str, Any]]) -> Iterable[_Part]:
    for i, point in enumerate(points):
        tokens = flops = 0
        for phase, digest in zip(phases(point["chain"]), point["chain"], strict=True):
            yield _Part(i, phase, digest, tokens, flops)
            tokens += documents[digest]["tokens"]
            flops += sum(spent_flops(documents[digest]))


def _flops_at(documents: Mapping[str, dict[str, Any]], curves: Curves) -> dict[str, list[int]]:
    """FLOPs of a stage, generation included, at its evaluations, by digest. In whole numbers of Python: the products
    are beyond 64 bits."""
    found = {}
    for digest, place in curves.rows.items():
        flops, tokens = sum(spent_flops(documents[digest])), documents[digest]["tokens"] or 1
        found[digest] = [round(flops * measured / tokens) for measured in curves.values["tokens"][place].tolist()]
    return found


def spent_flops(document: dict[str, Any]) -> tuple[int, int]:
    """FLOPs of training, and of generating its tokens, that a stage has taken by its manifest. That names those of the
    whole budget, also where the run diverged before its end."""
    training, generation = int(document.get("flops") or 0), int(document.get("generation_flops") or 0)
    budget = (document.get("spec") or {}).get("tokens")
    if document["status"] == "finished" or not budget:
        return training, generation
    done = document["tokens"]
    return round(training * done / budget), round(generation * done / budget)
