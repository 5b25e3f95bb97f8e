"""How far to trust it: deviations from the plan, noise, what differs in a pair, what is missing."""

from collections import Counter

import pandas as pd

from analysis import figures, numbers
from analysis.page import Block, Details, Figures, Heading, Table, Text, folded
from analysis.results import Results
from analysis.sections.opening import claimed_cells


def deviations(results: Results) -> list[Block]:
    table = results.deviations
    head = Heading("Deviations from the registered plan", id="deviations")
    if table.empty:
        return [head, Text("None: the plan was registered before the first stage had ended and has not changed since.")]
    rows = [[str(r.registered)[:19].replace("T", " "), r.change, r.what, str(r.results_seen),
             "deviation" if r.deviation else "no deviation"] for _, r in table.iterrows()]  # fmt: skip
    said = "A change is a deviation if results of the plan before it could have been seen."
    columns = ("registered (UTC)", "change", "what", "points finished by then", "")
    return [head, Text(said), Table(columns, rows, (3,), (2,), ("deviation",))]


def noise(results: Results) -> list[Block]:
    table = results.noise
    if table.empty:
        return []
    rows = [
        [
            r.label, str(r.n_pairs), f"{r.seed_sd_baseline_nats:.4f}", f"{r.seed_sd_treated_nats:.4f}",
            f"{r.pair_sd_nats:.4f}", f"{r.pair_corr:.2f}" if r.pair_corr == r.pair_corr else numbers.NONE,
            f"{r.evaluation_sd_nats:.4f}", f"{r.detectable_nats:.4f}",
        ]
        for _, r in table.iterrows()
    ]  # fmt: skip
    base = results.plan["baseline"]
    header = ("arm", "pairs", f"sd of {base}", "sd of arm", "sd within pairs", "correlation", "sd of an evaluation",
              "gap that would show")  # fmt: skip
    return [
        Heading("How noisy it is", id="noise"),
        Text("Standard deviations over seeds in nats, and the loss gap that these pairs would show with 80 % power."),
        *folded(Table(header, rows, range(1, 8))),
    ]


def differences(results: Results) -> list[Block]:
    groups: dict[str, list[str]] = {}
    for cell in results.cells:
        groups.setdefault(cell.differs_in or "nothing", []).append(cell.arm)
    rows = [[", ".join(dict.fromkeys(arms)), fields] for fields, arms in groups.items()]
    return [
        Heading("What differs in each pair", id="differences"),
        Text(f"Every other field of the two runs is equal: the arm against {results.plan['baseline']}."),
        Table(["arm", "fields that differ"], rows, (), (1,)),
    ]


def status(results: Results) -> list[Block]:
    counts = Counter(d["status"] for d in results.stages.values())
    done = ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"
    found: list[Block] = [
        Heading("Status", id="status"),
        Text(f"Stages: {done}. Points not finished: {len(results.missing)}."),
    ]
    drawn = figures.status_map(results, claimed_cells(results))
    if drawn:
        found.append(Figures([(drawn, "Every pair: cells by seeds, and what can be read from it.")]))
    diverged = [(d, m) for d, m in results.stages.items() if m["status"] == "diverged"]
    if diverged:
        labels = results.plan.get("stages", {})
        listed = [[labels.get(d, {}).get("label", m.get("kind", "")), d[:12]] for d, m in diverged]
        found.append(Details(f"{len(diverged)} diverged", [Table(("stage", "digest"), listed)]))
    if len(results.missing):
        texts = results.missing.assign(stage=results.missing["stage"].str[:12]).astype(object)
        rows = [[numbers.NONE if pd.isna(v) else str(v) for v in row] for row in texts.to_numpy()]
        found.append(Details("Points that wait", [Table(list(results.missing.columns), rows)]))
    return found
