"""How often the intervals and verdicts of the analysis are right, on simulated studies whose truth is known.

    python -m benchmarks.calibration [--simulations N] [--scenarios A,B] [--seeds 3,5,8] [--workers N]
                                     [--csv FILE] [--json FILE] [--markdown FILE]

Every simulated pair of runs goes through the estimator and the decision rule that a study goes through. The figures do
not depend on the number of workers: each block of simulations has a random stream of its own.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.metrics.effects import headline_columns
from analysis.metrics.intervals import t_p_value, welch
from analysis.metrics.smoothing import Curve
from analysis.metrics.speedup import headline, read_pair, speedup_p_values
from analysis.verdicts import ALPHA, LEAST_PAIRS, decide
from benchmarks.scenarios import TEXT, Noise, Scenario, fitted, scenarios

STUDY = Path(__file__).resolve().parent.parent / "results" / "crossover"
SIMULATIONS = 4000
SEEDS = (3, 5, 8)
SESOI = 1.05
RULES = {
    "readings": "t interval of the pairs' ln S",
    "welch": "inverted Welch",
    "chosen": "either, Welch where the pairs' correlation is below 0.2",
}
"""What the analysis could use instead."""
BLOCK = 100
"""Simulations that share a random stream, and that a worker takes at once."""
RANDOM = 20261123
SUPPORTED, CONTRADICTED, NO_GAIN = "supported", "contradicted", "indicative: no gain"


class Block(NamedTuple):
    """Simulations `start` to `start + simulations` of a scenario at a number of seeds."""

    scenario: Scenario
    seeds: int
    start: int
    simulations: int


def simulate(block: Block) -> pd.DataFrame:
    """One row a simulation: ln_speedup, low, high, verdict, jackknife (ln S read from the arms' mean curves, less the
    bias that leaving out a pair at a time shows), and the p values by each of RULES of the truth and of no effect."""
    scenario = block.scenario
    name = [ord(c) for c in scenario.key]
    rng = np.random.default_rng([RANDOM, *name, block.seeds, block.start])
    tokens, truth = TEXT * np.array(scenario.shares), scenario.ln_speedup
    laws = np.stack([scenario.baseline(tokens / TEXT), scenario.treated(tokens / TEXT)])
    losses = laws + scenario.noise.draw(rng, np.log(tokens), block.simulations, block.seeds)
    return pd.DataFrame([_simulation(scenario, truth, tokens, each) for each in losses])


def _simulation(scenario: Scenario, truth: float, tokens: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """What the analysis makes of the `losses` (seeds, 2, n) of a cell."""
    baselines, treated = ([c for run in losses if (c := scenario.read(tokens, run[side]))] for side in (0, 1))
    found = headline(baselines, treated, math.log(SESOI))
    columns = headline_columns(found)
    adjusted = {f"{p}_adj": columns[p] for p in ("p", "p_sesoi")}  # Holm's over one cell
    verdict = decide(CELL | columns | adjusted | {"n_pairs": len(losses)}, "", SESOI, "baseline", "treated").verdict
    mean, low, high = found.ln_speedup
    row = {"ln_speedup": mean, "low": low, "high": high, "verdict": verdict}
    row["jackknife"] = _jackknife(baselines, treated)
    readings = [r.ln_speedup for r in found.readings]
    apart = speedup_p_values(baselines, treated, (truth, 0.0), welch)
    for name, null, p_welch in zip(("truth", "none"), (truth, 0.0), apart.tolist(), strict=True):
        p_readings = t_p_value(readings, null)
        row |= {f"readings_{name}": p_readings, f"welch_{name}": p_welch}
        row[f"chosen_{name}"] = p_welch if found.correlation < 0.2 else p_readings
    return row


def _jackknife(baselines: list[Curve], treated: list[Curve]) -> float:
    """ln S of the mean curves with Quenouille's (1956) correction of its bias."""
    n = len(baselines)
    without = [_of_means(baselines[:i] + baselines[i + 1 :], treated[:i] + treated[i + 1 :]) for i in range(n)]
    return n * _of_means(baselines, treated) - (n - 1) * float(np.mean(without))


def _of_means(baselines: list[Curve], treated: list[Curve]) -> float:
    means = (Curve(arm[0].x, np.mean([c.loss for c in arm], axis=0)) for arm in (baselines, treated))
    return read_pair(*means).ln_speedup


CELL = {
    "n_diverged_baseline": 0,
    "n_diverged_treated": 0,
    "gap_kind": "shared budget",
    "text_tokens": TEXT,
    "treated_text_tokens": TEXT,
    "syn_tokens": 0.0,
    "net_speedup_tokens": math.nan,
    "schedule_kind": "wsd",
}
"""What the decision rule reads beside a headline: one cell without faults, on decayed runs."""


def run(blocks: Sequence[Block], workers: int) -> Iterator[pd.DataFrame]:
    """The simulations of every block, in order."""
    if workers <= 1:
        yield from map(simulate, blocks)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a worker a core; set before it loads NumPy
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(simulate, blocks)


def calibrate(chosen: Sequence[Scenario], simulations: int, seeds: Sequence[int], workers: int) -> pd.DataFrame:
    """One row per scenario and number of seeds, as `summary` says."""
    cells = [(s, n) for s in chosen for n in seeds]
    starts = range(0, simulations, BLOCK)
    blocks = [Block(s, n, start, min(BLOCK, simulations - start)) for s, n in cells for start in starts]
    began, results, rows = time.monotonic(), run(blocks, workers), []
    for scenario, n in cells:
        rows.append(summary(scenario, n, pd.concat([next(results) for _ in starts], ignore_index=True)))
        print(f"{scenario.key}, {n} seeds: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def summary(scenario: Scenario, seeds: int, found: pd.DataFrame) -> dict[str, Any]:
    """A row of the table. The true speedup; bias and root mean square error in percent of the estimate and of
    the jackknife; the share of intervals that hold the truth, their median width (ln) and the
    share with an open end; the shares of verdicts. By RULES the same coverage, and the share that finds an effect of
    interest."""
    truth = scenario.ln_speedup
    error = found["ln_speedup"] - truth
    row = {
        "scenario": scenario.key,
        "what": scenario.what,
        "noise": scenario.level,
        "seeds": seeds,
        "simulations": len(found),
        "true_speedup": math.exp(truth),
        "bias_pct": 100 * math.expm1(error.mean()),
        "rmse_pct": 100 * math.sqrt((error**2).mean()),
        "jackknife_bias_pct": 100 * math.expm1((found["jackknife"] - truth).mean()),
        "jackknife_rmse_pct": 100 * math.sqrt(((found["jackknife"] - truth) ** 2).mean()),
        "coverage": ((found["low"] <= truth) & (truth <= found["high"])).mean(),
        "width_ln": (found["high"] - found["low"]).median(),
        "open_ends": (~np.isfinite(found["high"] - found["low"])).mean(),
        "supported": (found["verdict"] == SUPPORTED).mean(),
        "contradicted": (found["verdict"] == CONTRADICTED).mean(),
        "no_gain": (found["verdict"] == NO_GAIN).mean(),
    }
    for rule in RULES:
        rejected = found[f"{rule}_none"] < ALPHA
        row[f"{rule}_coverage"] = (found[f"{rule}_truth"] >= ALPHA).mean()
        row[f"{rule}_supported"] = (rejected & (found["ln_speedup"] >= math.log(SESOI))).mean()
    return row


# ---- what is asked of the figures


class Target(NamedTuple):
    """What is asked of a figure of some scenarios, and the figure at every number of seeds that it is asked at."""

    of: str
    name: str
    asked: str
    figures: dict[int, float]
    met: bool


FAMILIES = {
    "A to K": "A to K",
    "mid": "mid noise",
    "high": "high noise",
    "harness": "the harness's own noise",
    "endpoints": "decayed endpoints",
}
COVERAGE, WORST, BIAS, FALSE_SUPPORT, FALSE_CONTRADICTION = (94.0, 96.0), 93.0, 0.5, 2.5, 5.0
"""Percent."""


def targets(table: pd.DataFrame) -> list[Target]:
    """The targets, as far as `table`, a row per scenario and number of seeds, has what they are asked of."""
    found = []
    for family, name in FAMILIES.items():
        rows = table[table["scenario"].str.len() == 1 if family == "A to K" else table["noise"] == family]
        coverage = (100 * rows["coverage"]).groupby(rows["seeds"])
        bias = rows["bias_pct"].abs()[rows["seeds"] == 5].groupby(rows["seeds"])
        found += [
            Target(name, "mean coverage", "94 to 96 %", *_held(coverage.mean(), *COVERAGE)),
            Target(name, "worst coverage", f"at least {WORST:g} %", *_held(coverage.min(), WORST, 100.0)),
            Target(name, "mean absolute bias", f"at most {BIAS:g} %", *_held(bias.mean(), 0.0, BIAS)),
        ]
        if family == "A to K":
            continue
        decided, speedup = rows["seeds"] >= LEAST_PAIRS, rows["true_speedup"].round(6)
        null, least = rows[decided & (speedup == 1)], rows[decided & (speedup == SESOI)]
        # To say that the smallest effect of interest is excluded is the same error, whatever else is said.
        shares = [
            ("supported at no effect", FALSE_SUPPORT, 100 * null["supported"], null["seeds"]),
            (
                "contradicted at 1.05",
                FALSE_CONTRADICTION,
                100 * (least["contradicted"] + least["no_gain"]),
                least["seeds"],
            ),
        ]
        for what, most, share, seeds in shares:
            chance = by_chance(most, int(table["simulations"].min()))
            asked = f"at most {most:g} % (and {chance:.1f} by chance)"
            found.append(Target(name, what, asked, *_held(share.groupby(seeds).max(), 0.0, most + chance)))
    return [target for target in found if target.figures]


def by_chance(percent: float, simulations: int) -> float:
    """By how much (percent) a share that is `percent` exceeds it in `simulations` in no more than one case of 20."""
    return float(100 * stats.binom.ppf(0.95, simulations, percent / 100) / simulations - percent)


def _held(figures: pd.Series, low: float, high: float) -> tuple[dict[int, float], bool]:
    values = {int(n): float(v) for n, v in figures.items()}
    return values, all(low <= v <= high for v in values.values())


# ---- the page


def markdown(table: pd.DataFrame, noise: Noise) -> str:
    """The page of the results: what was asked, the noise that was fitted, and every figure."""
    seeds = sorted(table["seeds"].unique())
    counted = " / ".join(map(str, seeds))
    asked = [(t.of, t.name, t.asked, _over(t.figures, seeds), "yes" if t.met else "**no**") for t in targets(table)]
    return PAGE.format(
        simulations=table["simulations"].min(),
        targets=_grid(("scenarios", "figure", "asked", f"at {counted} seeds", "met"), asked),
        noise=_grid(
            ("offset of a run", "drift", "evaluation", "correlation of a pair's offsets"),
            [[f"{v:.4f}" for v in (noise.seed_sd, noise.drift_sd, noise.eval_sd)] + [f"{noise.shared:.2f}"]],
        ),
        rows=_grid(COLUMNS, [_row(row) for _, row in table.iterrows()]),
        rules=_grid(
            ("noise", "seeds", "as shipped", *RULES.values(), "supported at no effect, in this order"), _rules(table)
        ),
    )


def _over(figures: dict[int, float], seeds: Sequence[int]) -> str:
    return " / ".join(f"{figures[n]:.2f}" if n in figures else "-" for n in seeds)


COLUMNS = (
    "scenario", "what", "noise", "seeds", "true S", "bias, %", "rmse, %", "jackknife: bias, %", "rmse, %",
    "coverage, %",
    "width, 100 ln S", "open ends, %", "supported, %", "contradicted, %", "no gain, %",
)  # fmt: skip


def _row(row: pd.Series) -> list[Any]:
    """A row of the table as text, as COLUMNS are."""
    percent = [
        f"{100 * row[c]:.1f}" for c in ("coverage", "width_ln", "open_ends", "supported", "contradicted", "no_gain")
    ]
    error = [f"{row['bias_pct']:+.2f}", f"{row['rmse_pct']:.2f}"]
    error += [f"{row['jackknife_bias_pct']:+.2f}", f"{row['jackknife_rmse_pct']:.2f}"]
    return [
        row["scenario"], row["what"], row["noise"], row["seeds"], f"{row['true_speedup']:.3f}", *error,
        *percent,
    ]  # fmt: skip


def _rules(table: pd.DataFrame) -> list[list[Any]]:
    """Per noise and number of seeds: mean and worst coverage as shipped and by RULES, and their false support."""
    columns = ("", *(f"{rule}_" for rule in RULES))
    lines = []
    for (noise, n), rows in table.groupby(["noise", "seeds"], sort=False):
        null = rows[rows["true_speedup"].round(6) == 1]
        covered = [100 * rows[f"{c}coverage"] for c in columns]
        claimed = " / ".join(f"{100 * null[f'{c}supported'].max():.1f}" for c in columns)
        shown = claimed if len(null) and n >= LEAST_PAIRS else "-"
        lines.append([noise, n, *(f"{c.mean():.1f} ({c.min():.1f})" for c in covered), shown])
    return lines


PAGE = """# How often the analysis is right

Written by `make calibration`, here with `--simulations {simulations}`: so many simulated studies per scenario and
number of seeds, each read by the estimator and judged by the decision rule that a study meets
(`analysis.metrics.speedup.headline`, `analysis.verdicts.decide`; one cell, decayed runs). All figures stand in
`results/calibration.csv`.

A pair of runs is two laws of the loss, whose speedup S is known, and noise: an offset that the pair shares in part, a
drift along the curve, an error of every evaluation (`benchmarks/scenarios.py`). A to K are laws of many shapes. Then
follow no effect (S = 1) and the smallest effect of interest (S = 1.05) at high noise, at the harness's own noise on
the harness's own curve, and read from 5 decayed endpoints at mid noise.

## Targets

Coverage is that of the 95 % interval of S. At 3 seeds there is no verdict. "Contradicted at 1.05" counts every verdict
that excludes 1.05. A share that is as asked can come out higher by chance; how much higher in one case of 20 is given.

{targets}

## The harness's own noise

Fitted to the 15 runs from scratch of `results/crossover` (arms scratch, wide and longer, 5 seeds each), from a tenth of
their text on. Standard deviations in nats:

{noise}

The estimate is biased towards 1 at this noise. The runs have one cosine, whose curve is steep in the middle and level
at its end: a smoother is off where a curve bends so much, and noise moves a crossing further on the level side. The
jackknife of the arms' mean curves (below) takes most of it away, and pays with a larger error near S = 1, where it
matters most. The interval tests losses and covers S all the same. Decayed endpoints have no such bias.

## Every scenario

{rows}

## Other intervals on the same simulations

Mean coverage in percent, the worst scenario in brackets; then the highest share (%) that finds an effect of interest
where there is none. To choose between pairing and Welch by a correlation measured on the same few pairs covers too
little: it takes the paired interval just where chance made it narrow. A t interval of the pairs' ln S covers too little
where the curve bends within the noise. Welch covers too much where pairs are alike, at the price of power.

{rules}
"""


def _grid(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(v) for v in line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help=f"of each cell (default {SIMULATIONS})")
    parser.add_argument("--scenarios", help="A,B,... (default all)")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="(default 3,5,8)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default one a core)")
    parser.add_argument("--study", type=Path, default=STUDY, help="export whose noise is the harness's own")
    for kind in ("csv", "json", "markdown"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE")
    args = parser.parse_args()
    known = {s.key: s for s in scenarios(args.study)}
    keys = args.scenarios.split(",") if args.scenarios else list(known)
    unknown = [k for k in keys if k not in known]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    seeds = [int(n) for n in args.seeds.split(",")]
    table = calibrate([known[k] for k in keys], args.simulations, seeds, args.workers)
    shown = [
        "scenario",
        "seeds",
        "true_speedup",
        "bias_pct",
        "coverage",
        "width_ln",
        "supported",
        "contradicted",
        "no_gain",
    ]
    print(table[shown].round(4).to_string(index=False))
    for t in targets(table):
        figures = ", ".join(f"{v:.2f} at {n}" for n, v in t.figures.items())
        print(f"{'met   ' if t.met else 'MISSED'}  {t.of}: {t.name} {figures} seeds ({t.asked})")
    if args.csv:
        table.to_csv(args.csv, index=False, float_format="%.6g")
    if args.json:
        args.json.write_text(json.dumps(table.to_dict("records"), indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(table, fitted(args.study)[1]), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
