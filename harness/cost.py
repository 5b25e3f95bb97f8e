"""What a study costs before it runs: tokens, FLOPs, bytes, its longest chain, and what sharing saves by cause."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.plan import Plan
from harness.specs import Stage, State, Train, digest

WEIGHT_BYTES = 4
"""A published weight is a float32."""
STATE_WEIGHTS = 3
"""A state, and a resume checkpoint, is the model and two moments of every weight."""
CHECKPOINTS = 3
"""Resume checkpoints of a stage that runs: two are kept while a third is written."""


@dataclass(frozen=True)
class Cost:
    """Tokens, training FLOPs and published bytes."""

    tokens: int = 0
    flops: int = 0
    bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.flops + other.flops, self.bytes + other.bytes)


def cost(stages: Iterable[Stage], starts: Mapping[str, Stage] | None = None) -> Cost:
    """What `stages` cost, each run once, from the state in `starts` if there is one for it; of what they publish,
    weights are counted, and a state's moments."""
    tokens = flops = size = 0
    for stage in stages:
        if isinstance(stage, Train):
            start = (starts or {}).get(digest(stage))
            tokens += stage.tokens - (start.tokens if start is not None else 0)
            flops += stage.flops - (start.flops if start is not None else 0)
            size += (STATE_WEIGHTS if isinstance(stage, State) else 1) * weight_bytes(stage)
    return Cost(tokens, flops, size)


def weight_bytes(stage: Train) -> int:
    """Bytes of the weights of a training stage."""
    return WEIGHT_BYTES * stage.model.params(stage.io_width)


def cost_of(plan: Plan, left: Iterable[str]) -> Cost:
    """What the stages `left` of `plan` cost."""
    return cost((plan.stages[d] for d in left), {d: plan.stages[s] for d, s in plan.starts.items()})


@dataclass(frozen=True)
class Storage:
    """Bytes that a study takes while it runs; text that is tokenised is not counted."""

    weights: int
    """Published, and kept."""
    states: int
    """Published, and needed until the budgets that go on from them are there."""
    checkpoints: int
    """Of one running stage, the largest."""

    @property
    def peak(self) -> int:
        return self.weights + self.states + self.checkpoints


def storage(stages: Iterable[Stage]) -> Storage:
    """What `stages` take at most."""
    trains = [s for s in stages if isinstance(s, Train)]
    return Storage(
        weights=sum(weight_bytes(s) for s in trains if not isinstance(s, State)),
        states=sum(STATE_WEIGHTS * weight_bytes(s) for s in trains if isinstance(s, State)),
        checkpoints=CHECKPOINTS * STATE_WEIGHTS * max((weight_bytes(s) for s in trains), default=0),
    )


def alone(plan: Plan) -> Cost:
    """What it would cost to run every cell by itself: each arm's point with its whole chain and a baseline of its
    own, and each baseline point that belongs to no arm."""
    return sharing(plan)[0][1]


def sharing(plan: Plan) -> list[tuple[str, Cost]]:
    """What the study costs with nothing shared, and then with one thing more shared at a time, the plan's own cost at
    the end: (what is shared, cost). Differences between neighbours are what each cause saves; they add up."""
    plan = plan.complete or plan
    chains: dict[str, Cost] = {}

    def chain(train: Train) -> Cost:
        address = digest(train)
        if address not in chains:
            chains[address] = cost([train]) + (chain(train.init) if train.init is not None else Cost())
        return chains[address]

    def total(points: Iterable[int]) -> Cost:
        found = [chain(plan.points[i].train) for i in points]
        return Cost(sum(c.tokens for c in found), sum(c.flops for c in found), sum(c.bytes for c in found))

    arms = [i for i, base in enumerate(plan.baseline_of) if base is not None]
    baselines = [i for i, base in enumerate(plan.baseline_of) if base is None]
    paired = [base for base in plan.baseline_of if base is not None]
    single = set(baselines) - set(paired)
    distinct = {digest(point.train): i for i, point in enumerate(plan.points)}
    steps = [
        ("", total([*arms, *paired, *single])),
        ("shared baseline", total([*arms, *baselines])),
        ("equal points", total(distinct.values())),
        ("shared upstream", cost(s for s in plan.stages.values() if not isinstance(s, State))),
        ("nested budgets", cost_of(plan, plan.stages)),
    ]
    return [step for i, step in enumerate(steps) if step[0] != "equal points" or step[1] != steps[i - 1][1]]


def longest_chain(plan: Plan, hours: Mapping[str, float]) -> tuple[float, list[str]]:
    """The most hours, of those that each stage takes, that must pass one after another, and the digests of the stages
    in which they pass."""
    ends: dict[str, tuple[float, str | None]] = {}
    for address, needed in plan.needs.items():
        before = max(needed, key=lambda d: (ends[d][0], d), default=None)
        ends[address] = (hours.get(address, 0.0) + (ends[before][0] if before is not None else 0.0), before)
    last = max(ends, key=lambda d: (ends[d][0], d), default=None)
    total = ends[last][0] if last is not None else 0.0
    stages: list[str] = []
    while last is not None:
        if hours.get(last, 0.0) > 0:
            stages.append(last)
        last = ends[last][1]
    return total, stages[::-1]
