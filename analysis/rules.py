"""The rule of a registered claim in words, as a report shows it."""

from collections.abc import Mapping
from typing import Any

from analysis.contrasts import thresholds
from analysis.metrics.benchmarks import LOWER, named
from analysis.verdicts import LEAST_PAIRS

MEASURES = {
    "speedup": "the speedup in text tokens",
    "net_speedup_tokens": "the speedup with the tokens before the text on the bill",
    "net_speedup_flops": "the speedup in FLOPs, everything before the text on the bill",
    "gap": "the loss gap",
}


def rule(test: Mapping[str, Any], sesoi: float) -> str:
    """What supports a test and what contradicts it, in a sentence or two."""
    kind = test["type"]
    if kind == "Learned":
        return (
            f"Supported if the first stage of {test['arm']} beats the best simple predictor by 5 % of that predictor's "
            "loss on rules never trained on, contradicted if it surely does not."
        )
    if kind == "Beats":
        unit = "x" if test["measure"] != "gap" else " nats"
        above, least, below = (f"{value:g}{unit}" for value in thresholds(test, sesoi))
        published = test.get("published")
        meets = f", and meets the published {published[0]:g} to {published[1]:g}" if published else ""
        choose = test.get("choose")
        chosen = (
            f" The best {choose['axis']} is chosen on seeds {', '.join(map(str, choose['seeds']))} and tested on the "
            "others." if choose else ""
        )  # fmt: skip
        return (
            f"Supported if {MEASURES[test['measure']]} of {test['arm']} against {test['than']} lies above {above} with "
            f"its interval and is at least {least}{meets}; contradicted if it lies below {below} with its interval."
            f"{chosen}"
        )
    if kind == "Trend":
        return (
            f"Supported if {MEASURES[test['measure']]} of {test['arm']} against {test['than']} rises along "
            f"{test['along']}: the slope over seeds lies above {test['above']:g}; contradicted if it lies below "
            f"{test['below']:g}."
        )
    if kind == "Matching":
        high, low = (", ".join(map(str, test[side])) for side in ("high", "low"))
        return (
            f"One contrast: the slope of the loss gap on measured complexity, mean over {high} minus mean over {low}, "
            "over seeds. Supported above 0, contradicted below."
        )
    if kind == "Carries":
        others = ", ".join(test["others"])
        return (
            f"Supported if keeping {test['module']} has a main effect on the loss gap above 0 and above that of each "
            f"of {others}; contradicted if one of these lies below 0."
        )
    if kind == "Same":
        return (
            f"Supported if the interval of the loss gap between {test['arm']} and {test['other']} lies within "
            f"{test['within']:g} nats of 0, contradicted if it lies outside."
        )
    if kind == "Scores":
        k = test["k"] if test["metric"] == "pass" else None
        unit = " nats" if test["metric"] in LOWER else ""
        return (
            f"Supported if the gain of {test['arm']} over {test['than']} in {named(test['metric'], k)} on "
            f"{test['benchmark']}, paired by seed, lies above 0 with its interval and is at least "
            f"{test['at_least']:g}{unit}; contradicted if it lies below that with its interval."
        )
    return f"A test of the kind {kind}."


def common() -> str:
    """What holds for every claim."""
    return (
        f"Fewer than {LEAST_PAIRS} pairs carry no verdict; one cosine horizon allows an indication at most; a first "
        "stage that was not learned supports nothing; more diverged runs than on the other side leave it inconclusive. "
        "p values are two-sided and adjusted within the family (Holm, 5 %); a claim without a family is exploratory "
        "(false discovery rate, 10 %)."
    )
