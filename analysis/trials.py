"""Stages and evaluations as flat tables, a row each, and what they cost beside what was promised: the tables from which
anyone's own tools can start."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.frame import axes_of, axis_columns, axis_values, phases, spent_flops

TRIAL_COLUMNS = (
    "trial_id", "parent_id", "kind", "phase", "arm", "seed", "seed_data", "n_params_nonemb", "domain", "tokens",
    "syn_tokens", "text_tokens_max", "schedule", "peak_lr", "decay_frac", "status", "stop_reason", "flops",
    "gen_flops", "flops_total", "wall_s", "device_s", "device", "spec_hash",
)  # fmt: skip
"""Columns of `trials`; those of the axes stand after arm."""

WHOLE = ("seed", "seed_data", "n_params_nonemb")
"""Columns of `trials` that a stage may lack."""

CLOCKS = ("setup_s", "train_s", "wait_s", "first_batch_s", "evaluate_s", "checkpoint_s")
"""Where the seconds of a training stage went, in its manifest; they count on through restarts."""

COST_COLUMNS = (
    "kind", "phase", "arm", "stages", "stages_finished", "tokens", "flops", "gen_flops", "wall_s", "device_s",
    "promised_stages", "promised_device_s", "spent_of_promised_device_s", "promised_of_spent_device_s", "price_per_h",
    "spent_money", "promised_money",
)  # fmt: skip


def trials(plan: dict[str, Any], stages: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per distinct stage of a study: those of its points, finished or not (`status` "missing"), then those that
    they read, such as tokenised text. TRIAL_COLUMNS, with a column an axis after `arm`.

    A stage that several arms share names them all, joined by "; ", and an axis that its points do not agree on is
    None. `tokens` are the stage's own, `syn_tokens` those of the chain up to it that came before the text,
    `text_tokens_max` its own if it is the text stage. `flops` and `gen_flops` (generation) are its own and
    `flops_total` those of the chain up to it, generation included; `device_s` counts a second of each device.
    `peak_lr` is per step, `decay_frac` the share of the horizon over which `wsd` falls.
    """
    axes = {axis: f"{axis}_axis" if axis in TRIAL_COLUMNS else axis for axis in axis_columns(plan)}
    found: dict[str, dict[str, Any]] = {}
    for point in plan["points"]:
        values = axes_of(plan, point)
        before = flops_before = 0
        parent = ""
        for i, (phase, digest) in enumerate(zip(phases(point["chain"]), point["chain"], strict=True)):
            document = stages.get(digest)
            if digest not in found:
                text = digest == point["stage"]
                row = {"trial_id": digest, "parent_id": parent, "phase": phase, "arms": {}, "seed": values["seed"]}
                row |= {axis: values[axis] for axis in axes}
                row["tokens"] = document["tokens"] if document else point["tokens"][i]
                row["syn_tokens"] = before if text else before + row["tokens"]
                row["text_tokens_max"] = row["tokens"] if text else 0
                row |= _described(document)
                row |= {} if document else {"flops": point["flops"][i], "gen_flops": 0}
                row["flops_total"] = flops_before + row["flops"] + row["gen_flops"]
                found[digest] = row
            row = found[digest]
            row["arms"][point["arm"]] = None
            row |= {axis: None for axis in axes if row[axis] != values[axis]}
            before, flops_before, parent = before + row["tokens"], row["flops_total"], digest
    for digest, document in sorted(stages.items()):
        if digest not in found:
            nothing: dict[str, Any] = {
                "parent_id": "",
                "phase": "",
                "arms": {},
                "seed": None,
                "syn_tokens": 0,
                "text_tokens_max": 0,
            }
            row = {"trial_id": digest, **nothing, **dict.fromkeys(axes), **_described(document)}
            row["tokens"] = document.get("tokens") or 0
            row["flops_total"] = row["flops"] + row["gen_flops"]
            found[digest] = row
    device = _device_seconds(stages)
    for digest, row in found.items():
        row["arm"], row["device_s"] = "; ".join(row.pop("arms")), device.get(digest)
    rows = list(found.values())
    columns: dict[str, Any] = {}
    for name in TRIAL_COLUMNS:
        column = [row[name] for row in rows]
        columns[name] = _whole(column) if name in WHOLE else pd.Series(column, dtype=None if rows else object)
        if name == "arm":
            columns |= {to: axis_values([row[axis] for row in rows]) for axis, to in axes.items()}
    return pd.DataFrame(columns).astype(dict.fromkeys(("peak_lr", "decay_frac", "wall_s", "device_s"), float))


def evals(frame: pd.DataFrame, stages: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """One row per evaluation of a text stage: trial_id, text_tokens, step, is_decayed, val_loss_nats,
    val_bits_per_byte, accuracy. `is_decayed` is true of the last one of a run whose schedule has come to its end."""
    text = frame[frame["phase"] == "pre-training"].drop_duplicates(["stage", "tokens"])
    ends = {digest: document["tokens"] for digest, document in stages.items() if _decays(document)}
    return pd.DataFrame(
        {
            "trial_id": text["stage"],
            "text_tokens": text["tokens"],
            "step": text["step"],
            "is_decayed": text["tokens"] == text["stage"].map(ends),
            "val_loss_nats": text["loss_nats"],
            "val_bits_per_byte": text["loss_bits_per_byte"],
            "accuracy": text["accuracy"],
        }
    ).reset_index(drop=True)


def cost(plan: dict[str, Any], found: pd.DataFrame) -> pd.DataFrame:
    """What a study has taken so far, a row per kind of stage, phase and arm of `found` (its `trials`), each stage
    counted once: COST_COLUMNS. Beside it what `run` promised when the study was registered, of the stages that it
    then lacked: their device-seconds; what those of them that are finished took, and were promised to take. NaN where
    nothing was promised, and for money where no price was named."""
    promise = plan.get("promise")
    promise = promise if isinstance(promise, dict) and isinstance(promise.get("stages"), dict) else {"stages": {}}
    price = float("nan") if promise.get("price") is None else float(promise["price"])
    promised = found["trial_id"].map({digest: 3600.0 * hours for digest, hours in promise["stages"].items()})
    promised = promised.astype(float)
    done = found["status"] != "missing"
    spent = found.assign(
        stages=1,
        stages_finished=done.astype(int),
        promised_stages=promised.notna().astype(int),
        promised_device_s=promised,
        spent_of_promised_device_s=found["device_s"].where(promised.notna()),
        promised_of_spent_device_s=promised.where(done),
    )
    for name in ("tokens", "flops", "gen_flops"):
        spent[name] = spent[name].where(done, 0)
    keys, sums = list(COST_COLUMNS[:3]), list(COST_COLUMNS[3:-3])
    table = spent.groupby(keys, sort=False, dropna=False)[sums].sum().reset_index()
    unpromised = table["promised_stages"] == 0
    table.loc[unpromised, [name for name in sums if name.endswith("promised_device_s")]] = float("nan")
    table.loc[unpromised, "promised_of_spent_device_s"] = float("nan")
    table["price_per_h"] = price
    table["spent_money"] = price * table["device_s"] / 3600
    table["promised_money"] = price * table["promised_device_s"] / 3600
    return table[list(COST_COLUMNS)]


def domain(source: dict[str, Any]) -> str:
    """What a source is called: a dataset by its name, local text by the start of its content's hash, anything else by
    its type."""
    if source.get("dataset") not in (None, "."):
        return str(source["dataset"]) + (f"/{source['config']}" if source.get("config") else "")
    kind = str(source.get("type", ""))
    return f"{kind} {str(source['content'])[:8]}" if source.get("content") else kind


def _described(document: dict[str, Any] | None) -> dict[str, Any]:
    """Columns of `trials` that a manifest alone fills."""
    if document is None:
        return {"kind": "Train", "status": "missing", "stop_reason": "", "device": "", "domain": "",
                "schedule": "", "spec_hash": "", "seed_data": None, "n_params_nonemb": None, "peak_lr": None,
                "decay_frac": None, "wall_s": None}  # fmt: skip
    spec = document.get("spec") or {}
    recipe, corpus = spec.get("recipe") or {}, spec.get("corpus") or {}
    hardware = document.get("hardware") or {}
    training, generation = spent_flops(document)
    return {
        "kind": document["kind"],
        "status": document["status"],
        "stop_reason": "" if document["status"] == "finished" else document["status"],
        "domain": domain(corpus.get("source") or ({} if recipe else spec)),
        "seed_data": corpus.get("seed"),
        "n_params_nonemb": document.get("params_body"),
        "schedule": recipe.get("schedule", ""),
        "peak_lr": recipe.get("lr"),
        "decay_frac": recipe.get("decay") if recipe.get("schedule") == "wsd" else None,
        "flops": training,
        "gen_flops": generation,
        "wall_s": document.get("wall_s"),
        "device": str(hardware.get("gpu") or hardware.get("cpu") or ""),
        "spec_hash": document.get("digest", ""),
    }


def _whole(values: list[Any]) -> pd.Series:
    """A column of whole numbers, some of them unknown."""
    return pd.Series(values, dtype="Int64") if all(v is None or type(v) is int for v in values) else axis_values(values)


def _decays(document: dict[str, Any]) -> bool:
    """Whether the schedule of a training stage has come to its end with its last step."""
    recipe = (document.get("spec") or {}).get("recipe") or {}
    horizon = recipe.get("horizon")
    whole = document["status"] == "finished" and (horizon is None or document["tokens"] >= horizon)
    return whole and recipe.get("schedule") in ("cosine", "wsd")


def _device_seconds(stages: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Device-seconds by stage. `wall_s` is of the last start of the workers alone, the clocks of all of them that left
    a checkpoint, and those of a stage that went on from a state include the state's."""
    found = {}
    for digest, document in stages.items():
        clocks = _sum(document, CLOCKS)
        if document.get("start") is not None:
            start = stages.get(document["start"])
            clocks = 0.0 if start is None else clocks - _sum(start, [name for name in CLOCKS if name != "setup_s"])
        seconds = max(float(document.get("wall_s") or 0.0), clocks)
        found[digest] = seconds * float(document.get("world") or 1)
    return found


def _sum(document: dict[str, Any], names: Iterable[str]) -> float:
    return sum(float(document.get(name) or 0.0) for name in names)
