"""Every rule reads as the test that it stands for."""

from typing import Any

import pytest

from analysis.rules import common, rule

BEATS: dict[str, Any] = {"type": "Beats", "arm": "nca", "than": "scratch", "measure": "speedup"}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (BEATS, ["speedup in text tokens of nca against scratch lies above 1x", "at least 1.1x", "below 1.1x with"]),
        (BEATS | {"above": 1.2, "published": [1.4, 1.6]}, ["above 1.2x", "published 1.4 to 1.6"]),
        (BEATS | {"measure": "gap"}, ["the loss gap", "above 0 nats", "at least 0.01 nats", "below 0.01 nats"]),
        (BEATS | {"choose": {"axis": "band", "seeds": [0, 1]}}, ["The best band is chosen on seeds 0, 1"]),
        (BEATS | {"measure": "net_speedup_flops"}, ["in FLOPs, everything before the text on the bill"]),
        ({"type": "Learned", "arm": "nca"}, ["first stage of nca", "rules never trained on"]),
        (
            BEATS | {"type": "Trend", "along": "rules", "measure": "gap", "above": 0, "below": 0},
            ["rises along rules"],
        ),
        ({"type": "Matching", "high": ["web", "math"], "low": ["code"]}, ["mean over web, math minus mean over code"]),
        ({"type": "Carries", "module": "attention", "others": ["mlp", "norms"]}, ["keeping attention", "mlp, norms"]),
        ({"type": "Same", "arm": "hot", "other": "nca", "within": 0.01}, ["within 0.01 nats of 0"]),
    ],
)  # fmt: skip
def test_a_rule_in_words(test: dict[str, Any], words: list[str]) -> None:
    said = rule(test, 1.1)
    assert all(word in said for word in words) and said.endswith(".")
    assert "Supported" in said and "ontradicted" in said


def test_what_holds_for_all() -> None:
    assert "Fewer than 4 pairs" in common()
