"""The results of a study as one value, the same whether they come from a store or from committed CSV files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd

from analysis import trials as flat
from analysis import verdicts as decisions
from analysis.cells import Cell, cells, labeller
from analysis.claims import Claims
from analysis.claims import claims as decided
from analysis.deviations import deviations, earlier_plans
from analysis.frame import (
    CURVE_FIELDS,
    DataError,
    axes_of,
    axis_columns,
    axis_values,
    check_key,
    empty_frame,
    read_study,
    readable,
    table,
)
from analysis.metrics import learned as learned_check
from analysis.metrics import listed
from analysis.metrics.benchmarks import benchmark_effects, benchmark_table
from analysis.metrics.budget import mrs_table, transfer_table
from analysis.metrics.effects import effect_table, pair_table
from analysis.metrics.endpoints import endpoints
from analysis.metrics.matching import Matching, matching_table, matchings, regret_table
from analysis.metrics.mechanism import mechanism_table
from analysis.metrics.noise import noise_table
from analysis.metrics.proxy import EarlySignal, early_signals, proxy_table
from analysis.metrics.response import Response, Surface, response_table, responses, surface_table, surfaces
from analysis.metrics.scaling import Scaling, multiplier_table, scaling_table, scalings
from analysis.metrics.speedup import speedup_curve
from analysis.published.beside import beside
from analysis.stored import check_manifest, check_plan

EXPORT = 1
"""The format of an exported directory."""


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that is known about a study: its registered plan, manifests by stage, and the frame; every other
    table follows from them."""

    plan: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    frame: pd.DataFrame
    missing: pd.DataFrame
    store: Path | None = None
    """Where stored pictures of automata may be found; an export has none."""
    earlier: tuple[dict[str, Any], ...] = ()
    """Plans that the study had before this one, oldest first."""
    metrics: tuple[listed.Metric, ...] = listed.METRICS
    """Metrics that are functions, those of a user among them."""

    @classmethod
    def from_store(cls, store: Path | str, study: str, metrics: Sequence[listed.Metric] = ()) -> Self:
        """Reads a store; `metrics` are a user's own (`analysis.own`). Raises DataError where the study is unknown or a
        stage damaged."""
        store = readable(store, study)
        plan, stages, frame, absent = read_study(store, study)
        earlier = tuple(earlier_plans(store, study, plan))
        return cls(plan, stages, frame, absent, store, earlier, listed.all_metrics(metrics, axis_columns(plan)))

    @classmethod
    def from_export(cls, directory: Path | str, metrics: Sequence[listed.Metric] = ()) -> Self:
        """Reads what `export` wrote; `metrics` as in `from_store`. Raises DataError where it is not there or is
        damaged."""
        path = Path(directory) / "study.json"
        try:
            meta = json.loads(path.read_bytes())
            plan = check_plan(path, meta["plan"])
            for manifest in meta["stages"].values():
                check_manifest(path, manifest)
            axes = {
                a: {str(axes_of(plan, p)[a]): axes_of(plan, p)[a] for p in plan["points"]} for a in axis_columns(plan)
            }
            texts = ("study", "arm", *axes, "phase", "flops_total", "differs_in", "schedule", "status", "stage")
            kinds = {**dict.fromkeys(texts, "str"), **dict.fromkeys(CURVE_FIELDS, "float64")}
            frame = pd.read_csv(
                path.parent / "frame.csv.gz", dtype=kinds, keep_default_na=False,
                na_values={c: [""] for c in CURVE_FIELDS},
            )  # fmt: skip
            for axis, values in axes.items():  # "0.30" is text on one axis and a number on another; the plan knows
                frame[axis] = axis_values([values.get(text) for text in frame[axis]])
            frame["flops_total"] = pd.Series([int(text) for text in frame["flops_total"]])  # may be beyond 64 bits
            frame = frame if len(frame) else empty_frame(plan)
            absent = table(meta["missing"], ["arm", *axis_columns(plan), "seed", "stage", "label"], plan)
            own = listed.all_metrics(metrics, axis_columns(plan))
            earlier = tuple(meta.get("earlier", ()))
            return cls(plan, meta["stages"], check_key(frame, plan), absent, earlier=earlier, metrics=own)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{directory}: no readable export ({error}); write it with analysis export") from None

    @property
    def study(self) -> str:
        return str(self.plan["study"])

    @cached_property
    def cells(self) -> list[Cell]:
        return cells(self.frame, self.plan, self.stages)

    @cached_property
    def labels(self) -> list[str]:
        """What every cell is called, in the order of `cells` and `effects`."""
        name = labeller(self.plan)
        return [name(cell.arm, cell.axes) for cell in self.cells]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        return pair_table(self.cells, self.plan, self.metrics)

    @cached_property
    def effects(self) -> pd.DataFrame:
        return effect_table(self.cells, self.plan, self.metrics)

    @cached_property
    def endpoint_cells(self) -> list[Cell]:
        """Cells read across several text budgets, each decayed; none where the study has too few."""
        return endpoints(self.cells)

    @cached_property
    def endpoint_effects(self) -> pd.DataFrame:
        """`effects` of `endpoint_cells`, free of the schedule's shape."""
        return effect_table(self.endpoint_cells, self.plan, self.metrics)

    @cached_property
    def learned(self) -> pd.DataFrame:
        return learned_check.learned(self.plan, self.stages)

    @cached_property
    def claims(self) -> Claims:
        """The registered claims, decided."""
        return decided(self.plan, self.versus, self.learned)

    def versus(self, arm: str, than: str) -> list[Cell]:
        """Cells of an arm against another."""
        if than not in self._against:
            self._against[than] = cells(self.frame, self.plan, self.stages, than)
        return [cell for cell in self._against[than] if cell.arm == arm]

    @cached_property
    def _against(self) -> dict[str, list[Cell]]:
        return {str(self.plan["baseline"]): self.cells}

    @cached_property
    def published(self) -> pd.DataFrame:
        """What others reported on the registered claims, beside the study's own estimates of the same measures."""
        return beside(self.plan, self.versus)

    @cached_property
    def benchmarks(self) -> pd.DataFrame:
        """Scores of every run on the study's benchmarks, those that wait included."""
        return benchmark_table(self.plan, self.stages)

    @cached_property
    def benchmark_effects(self) -> pd.DataFrame:
        """Gains in these scores over the baseline, exploratory."""
        return benchmark_effects(self.cells, self.plan)

    @cached_property
    def deviations(self) -> pd.DataFrame:
        return deviations(self.plan, self.earlier, self.stages)

    @cached_property
    def noise(self) -> pd.DataFrame:
        return noise_table(self.cells, self.labels)

    @cached_property
    def responses(self) -> list[Response]:
        """The loss gap against measured complexity, exploratory."""
        return responses(self.cells)

    @cached_property
    def surfaces(self) -> list[Surface]:
        """The loss gap over size and tokens before the text, exploratory."""
        return surfaces(self.cells)

    @cached_property
    def matchings(self) -> list[Matching]:
        """Gap by text and complexity, with the contrast of the claim that registers one."""
        said = [t for claim in self.plan.get("claims", []) for t in claim["tests"] if t["type"] == "Matching"]
        sides = [[str(d) for d in said[0][side]] for side in ("high", "low")] if said else [[], []]
        return matchings(self.cells, *sides)

    @cached_property
    def signals(self) -> list[EarlySignal]:
        """Small models and early losses against large models and final ones, exploratory."""
        return early_signals(self.cells)

    @cached_property
    def scalings(self) -> list[Scaling]:
        """The baseline's scaling law and what an arm's tokens are worth by it, secondary."""
        return scalings(self.cells)

    @cached_property
    def mechanisms(self) -> pd.DataFrame:
        return mechanism_table(self.cells, self.labels)

    @cached_property
    def mrs(self) -> pd.DataFrame:
        return mrs_table(self.cells)

    @cached_property
    def s_curve(self) -> pd.DataFrame:
        """S(L) of every cell with the baseline's text budget: label and the columns of `speedup_curve`."""
        found = []
        for name, cell in zip(self.labels, self.cells, strict=True):
            read = [(b, t) for _, t, b in cell.readable()]
            if read and cell.same_budget:
                found.append(speedup_curve(read).assign(arm=cell.arm, label=name))
        columns = ["arm", "label", "target_loss_nats", "speedup", "speedup_lo", "speedup_hi"]
        return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        return decisions.verdicts(self.effects, self.learned, self.plan, self.labels)

    @cached_property
    def trials(self) -> pd.DataFrame:
        return flat.trials(self.plan, self.stages)

    @cached_property
    def evals(self) -> pd.DataFrame:
        return flat.evals(self.frame, self.stages)

    @cached_property
    def cost(self) -> pd.DataFrame:
        return flat.cost(self.plan, self.trials)

    @cached_property
    def own_tables(self) -> dict[str, pd.DataFrame]:
        """The tables of metrics that are functions of tables."""
        return listed.tables(self.metrics, self)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of the study by the name of its file, units in the names of the columns."""
        found = {name: make(self) for name, make in TABLES.items()}
        return listed.beside(found, self.own_tables)


TABLES: dict[str, Callable[[Results], pd.DataFrame]] = {
    "frame": lambda r: r.frame,
    "trials": lambda r: r.trials,
    "evals": lambda r: r.evals,
    "pairs": lambda r: r.pairs,
    "effects": lambda r: pd.concat([r.effects, r.verdicts], axis=1),
    "endpoint_effects": lambda r: r.endpoint_effects,
    "claims": lambda r: r.claims.verdicts,
    "claim_rows": lambda r: r.claims.rows,
    "published": lambda r: r.published,
    "s_curve": lambda r: r.s_curve,
    "learned": lambda r: r.learned,
    "benchmarks": lambda r: r.benchmarks,
    "benchmark_effects": lambda r: r.benchmark_effects,
    "response": lambda r: response_table(r.responses),
    "surface": lambda r: surface_table(r.surfaces),
    "matching": lambda r: matching_table(r.matchings),
    "regret": lambda r: regret_table(r.matchings),
    "mrs": lambda r: r.mrs,
    "data_transferred": lambda r: transfer_table(r.cells, r.labels),
    "mechanism": lambda r: r.mechanisms,
    "proxy": lambda r: proxy_table(r.signals),
    "scaling_fit": lambda r: scaling_table(r.scalings),
    "data_multiplier": lambda r: multiplier_table(r.scalings),
    "noise": lambda r: r.noise,
    "deviations": lambda r: r.deviations,
    "missing": lambda r: r.missing,
    "cost": lambda r: r.cost,
}
"""What `Results.tables` has of every study, by the name of its file."""
