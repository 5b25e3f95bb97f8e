"""What the analysis takes: loading, tables and report of a simulated study, on a store that it writes first.

    python -m benchmarks.analysis [--curves 10000] [--json FILE]
    python -m benchmarks.analysis --stages 500

Every part runs in a process of its own, whose peak memory it is. Run on an idle machine.
"""

import argparse
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis import Results, load, write
from tests.analysis.simulated import BUDGETS, SIZES, simulate

STUDY = "simulated"
SEEDS = 5
PER_CELL = 2 * SEEDS
"""Stages of a cell: the automata and the text of every seed."""


def store(root: Path, stages: int) -> int:
    """Write a study of about `stages` stages; returns how many evaluations its text stages have."""
    budgets = BUDGETS if stages >= 1000 else BUDGETS[:2]
    sizes = list(SIZES) if stages >= 1000 else list(SIZES)[:2]
    bands = max(1, math.ceil(stages / PER_CELL / len(sizes) / len(budgets)))
    simulate(
        root,
        study=STUDY,
        bands=[(0.2 + 0.8 * i / bands, 0.2 + 0.8 * (i + 1) / bands) for i in range(bands)],
        sizes=sizes,
        budgets=budgets,
        seeds=SEEDS,
        effect=lambda band, size, budget: 1.5 - abs(band[0] - 0.4) + 0.05 * math.log(budget / BUDGETS[0]),
    )
    return len(list((root / "stages").iterdir()))


def loaded(root: Path) -> dict[str, float]:
    return {"load_s": _seconds(lambda: load(root, STUDY))}


def tabled(root: Path) -> dict[str, float]:
    results = Results.from_store(root, STUDY)
    return {"tables_s": _seconds(results.tables)}


def reported(root: Path) -> dict[str, float]:
    page = root / "report"
    seconds = _seconds(lambda: write(root, STUDY, page))
    return {"report_s": seconds, "report_mb": sum(p.stat().st_size for p in page.iterdir()) / 1e6,
            "report_html_mb": (page / "report.html").stat().st_size / 1e6}  # fmt: skip


PARTS: dict[str, Callable[[Path], dict[str, float]]] = {"load": loaded, "tables": tabled, "report": reported}


def measured(part: str, root: Path) -> dict[str, float]:
    """The figures of a part in a fresh process, with its peak memory and the time of its processors."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_child, (part, str(root)))
    return {f"{part}_{name}" if not name.startswith(part) else name: value for name, value in found.items()}


def _child(part: str, root: str) -> dict[str, float]:
    clock = time.process_time()
    found = PARTS[part](Path(root))
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return {**found, "cpu_s": time.process_time() - clock, "peak_gib": peak / 2**30}


def _seconds(what: Callable[[], Any]) -> float:
    clock = time.perf_counter()
    what()
    return time.perf_counter() - clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--curves", "--stages", dest="stages", type=int, default=10_000, help="stages to publish")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of load, tables, report")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        clock = time.perf_counter()
        found: dict[str, float] = {"stages": store(root, options.stages)}
        found["write_s"] = time.perf_counter() - clock
        for part in options.parts.split(","):
            found |= measured(part, root)
    for name, value in found.items():
        print(f"{name:18} {value:10.3g}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
