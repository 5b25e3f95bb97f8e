"""What it ran on, what it cost, and how to repeat it."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from analysis import numbers
from analysis.page import Block, Code, Details, Heading, Table, Text
from analysis.results import Results


def environment(results: Results) -> list[Block]:
    documents = list(results.stages.values())
    facts = [
        ("versions", _distinct(", ".join(f"{k} {v}" for k, v in d["versions"].items()) for d in documents)),
        ("hardware", _distinct(d["hardware"].get("gpu") or d["hardware"].get("cpu") for d in documents)),
        ("threads", _distinct(d.get("threads") for d in documents)),
        ("workers", _distinct(d.get("world") for d in documents)),
        ("executed", _distinct(d.get("executed") for d in documents if d["kind"] != "Evaluate")),
        ("commit", _distinct(d.get("commit") for d in documents)),
        ("time", f"{numbers.seconds(sum(d['wall_s'] for d in documents))} over all stages"),
    ]
    return [Heading("Environment", id="environment"), Table((), [[k, v] for k, v in facts], long=(1,))]


def repeat(results: Results) -> list[Block]:
    rows = [
        [d.get("kind", ""), digest[:12], numbers.tokens(float(d.get("tokens", math.nan))), d["status"],
         numbers.seconds(float(d["wall_s"]))]
        for digest, d in results.stages.items()
    ]  # fmt: skip
    return [
        Heading("Repeat it", id="repeat"),
        Code(
            f"python -m harness run search_spaces/{results.study}.py\npython -m analysis report STORE {results.study}"
        ),
        Text(f"Registered plan: {results.plan['hash']}", "note"),
        Details(f"{len(rows)} stages", [Table(["kind", "digest", "tokens", "status", "time"], rows, (2, 4))]),
    ]


def _distinct(values: Iterable[Any]) -> str:
    """Distinct values with how often each occurs, if there is more than one."""
    counts = Counter(str(v) for v in values if v is not None)
    if len(counts) <= 1:
        return next(iter(counts), numbers.NONE)
    return "; ".join(f"{value} ({n})" for value, n in counts.most_common())
