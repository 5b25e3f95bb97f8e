"""How far the arms of a study are from its baseline now: the newest paired differences, before any smoothing, intervals
or verdict."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.plan import Plan
from harness.specs import digest

Curve = Mapping[int, float]
"""Held-out loss (nats) by tokens."""


@dataclass(frozen=True)
class Gap:
    """An arm against the baseline, at the newest tokens that both of a pair have."""

    arm: str
    nats: float
    """The baseline's loss less the arm's, over the pairs: above 0 the arm is better."""
    pairs: int
    of: int
    """Pairs that the study has."""
    tokens: tuple[int, int]
    """Fewest and most of the pairs."""


class Gaps:
    """Compares again only the pairs of which a curve is another object than it was."""

    def __init__(self, plan: Plan) -> None:
        stages = [digest(point.train) for point in plan.points]
        self.pairs: dict[str, list[tuple[str, str]]] = {}
        for point, stage, base in zip(plan.points, stages, plan.baseline_of, strict=True):
            if base is not None:
                self.pairs.setdefault(point.arm, []).append((stage, stages[base]))
        self.known: dict[tuple[str, str], tuple[Curve, Curve, tuple[int, float] | None]] = {}

    def newest(self, curves: Mapping[str, Curve]) -> list[Gap]:
        """One gap for every arm that has a pair to compare, in the order of the arms; `curves` by stage."""
        found = []
        for arm, pairs in self.pairs.items():
            newest = [gap for pair in pairs if (gap := self._newest(pair, curves)) is not None]
            if newest:
                tokens = [at for at, _ in newest]
                mean = sum(nats for _, nats in newest) / len(newest)
                found.append(Gap(arm, mean, len(newest), len(pairs), (min(tokens), max(tokens))))
        return found

    def _newest(self, pair: tuple[str, str], curves: Mapping[str, Curve]) -> tuple[int, float] | None:
        """(tokens, nats) of a pair; before the first token there is nothing to compare."""
        if pair[0] not in curves or pair[1] not in curves:
            return None
        arm, base = curves[pair[0]], curves[pair[1]]
        known = self.known.get(pair)
        if known is None or known[0] is not arm or known[1] is not base:
            at = max(arm.keys() & base.keys(), default=0)
            known = self.known[pair] = (arm, base, (at, base[at] - arm[at]) if at > 0 else None)
        return known[2]
