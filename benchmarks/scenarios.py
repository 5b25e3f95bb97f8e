"""Pairs of runs whose true speedup is known: laws of the loss, a model of the noise, and the noise that a study had."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from analysis import Results
from analysis.metrics.smoothing import Curve, quadratic, smooth
from analysis.metrics.speedup import read_pair

TEXT = 1e9
"""Tokens of both arms' text budget."""
EVALUATIONS = tuple(np.unique(np.r_[np.geomspace(0.01, 0.08, 8), np.linspace(0.1, 1, 24)]).tolist())
"""Where a run is evaluated, as shares of its text."""
ENDPOINTS = (0.3, 0.45, 0.6, 0.8, 1.0)
"""Budgets of decayed endpoints, as shares of the text."""
FITTED_FROM = 0.1
"""Share of the text from which the noise of a study is fitted: before, the learning rate still warms up."""

ARMS = ("scratch", "wide", "longer")
"""The arms of results/crossover that are trained from scratch, its baseline first."""

Law = Callable[[np.ndarray], np.ndarray]
"""Loss (nats) as a function of the share of the text."""


@dataclass(frozen=True)
class PowerLaw:
    """floor + (end - floor) (multiplier share + offset)^-exponent, in nats: a speedup of `multiplier`, or a head start
    of `offset` budgets."""

    floor: float
    end: float
    exponent: float
    multiplier: float = 1.0
    offset: float = 0.0

    def __call__(self, share: np.ndarray) -> np.ndarray:
        return self.floor + (self.end - self.floor) * (self.multiplier * share + self.offset) ** -self.exponent


@dataclass(frozen=True)
class Measured:
    """A smoothed curve: `loss` (nats) at ln share `x`, reached `multiplier` times as fast; beyond its ends it goes on
    as straight in ln tokens as it is there."""

    x: tuple[float, ...]
    loss: tuple[float, ...]
    multiplier: float = 1.0

    def __call__(self, share: np.ndarray) -> np.ndarray:
        x, loss, at = np.array(self.x), np.array(self.loss), np.log(self.multiplier * share)
        inside = np.clip(at, x[0], x[-1])
        slope = np.where(at < x[0], (loss[1] - loss[0]) / (x[1] - x[0]), (loss[-1] - loss[-2]) / (x[-1] - x[-2]))
        return np.interp(inside, x, loss) + slope * (at - inside)


STEPS = 4000
WARMUP = 80


@dataclass(frozen=True)
class Annealed:
    """A run on one cosine: it falls with the learning rate summed up, `multiplier` times as fast, and again as the
    rate decays. L = L0 + A S1^-alpha - C S2 of Tissue, Wang and Wang (2024), "Scaling law with learning rate
    annealing"."""

    multiplier: float = 1.0

    def __call__(self, share: np.ndarray) -> np.ndarray:
        summed, annealed = _cosine()
        loss = 2.1 + 1.05 * (self.multiplier * summed) ** -0.35 - 0.35 * annealed
        return np.interp(np.log(share), np.log(np.arange(1, STEPS + 1) / STEPS), loss)


@lru_cache(maxsize=1)
def _cosine() -> tuple[np.ndarray, np.ndarray]:
    """S1 and S2 (STEPS,) of a cosine with warm-up, each 1 at the end; momentum of the annealing 0.995."""
    step = np.arange(1, STEPS + 1)
    rate = np.where(step < WARMUP, step / WARMUP, 0.5 * (1 + np.cos(np.pi * (step - WARMUP) / (STEPS - WARMUP))))
    drop = np.r_[0, np.maximum(rate[:-1] - rate[1:], 0)]
    drop[:WARMUP] = 0
    momentum = np.array(list(itertools.accumulate(drop, lambda m, d: 0.995 * m + d)))
    summed, annealed = rate.cumsum(), momentum.cumsum()
    return summed / summed[-1], annealed / annealed[-1]


DRIFT_LENGTH = 0.5
"""ln tokens over which the correlation of a run's drift falls to 1/e."""
OUTLIER = 0.08
"""Nats that an outlying run ends up too high."""


@dataclass(frozen=True)
class Noise:
    """What a run's evaluations (nats) differ in from its law: an offset, part of which the pair of its seed shares, a
    drift along the curve, and an error of each evaluation. All are normal but for outliers."""

    seed_sd: float
    eval_sd: float
    shared: float
    """Share of the offset's variance that a pair has in common: the correlation of the pair's offsets."""
    drift_sd: float
    outliers: float = 0.0
    """Share of runs that are too high by OUTLIER."""

    def draw(self, rng: np.random.Generator, x: np.ndarray, simulations: int, seeds: int) -> np.ndarray:
        """Noise (simulations, seeds, 2, n) of pairs evaluated at ln tokens `x` (n,), ascending."""
        runs = (simulations, seeds, 2, 1)
        both = rng.normal(0, self.seed_sd, (simulations, seeds, 1, 1))
        own = rng.normal(0, self.seed_sd, runs)
        offset = math.sqrt(self.shared) * both + math.sqrt(1 - self.shared) * own
        if self.outliers:
            offset += OUTLIER * (rng.random(runs) < self.outliers)
        drift = rng.normal(0, self.drift_sd, (*runs[:3], len(x)))
        kept = np.exp(-np.diff(x) / DRIFT_LENGTH)
        for k, share in enumerate(kept, start=1):  # an Ornstein-Uhlenbeck process at its stationary variance
            drift[..., k] = share * drift[..., k - 1] + math.sqrt(1 - share**2) * drift[..., k]
        return offset + drift + rng.normal(0, self.eval_sd, drift.shape)


LOW = Noise(seed_sd=0.002, eval_sd=0.001, shared=0.0, drift_sd=0.001)
MID = Noise(seed_sd=0.008, eval_sd=0.006, shared=0.5, drift_sd=0.004)
HIGH = Noise(seed_sd=0.010, eval_sd=0.010, shared=0.0, drift_sd=0.005)


@dataclass(frozen=True)
class Scenario:
    """A baseline and a treated law, and the noise with which both are seen."""

    key: str
    what: str
    level: str
    """What the noise is called: "low", "mid", "high", "harness"; "endpoints" for decayed endpoints at mid noise."""
    baseline: Law
    treated: Law
    noise: Noise
    shares: tuple[float, ...] = EVALUATIONS

    @property
    def read(self) -> Callable[[np.ndarray, np.ndarray], Curve | None]:
        """How the curve of a run is read."""
        return quadratic if self.level == "endpoints" else smooth

    @property
    def ln_speedup(self) -> float:
        """The truth: the reading of the laws themselves."""
        x = np.linspace(math.log(self.shares[0]), 0, 20_001)
        return read_pair(*(Curve(x, law(np.exp(x))) for law in (self.baseline, self.treated))).ln_speedup


def scenarios(study: Path) -> list[Scenario]:
    """All scenarios: A to K of the method, effects of none and of the smallest of interest at three levels of noise,
    and decayed endpoints. The harness's own curve and noise are those of the exported `study`."""
    law, flat = PowerLaw(2.0, 3.0, 0.30), PowerLaw(2.7, 3.0, 0.40)
    own_law, own_noise, own_shares = fitted(study)

    def times(speedup: float, of: PowerLaw = law) -> PowerLaw:
        return replace(of, multiplier=speedup)

    found = [
        Scenario("A", "1.5 times as fast", "mid", law, times(1.5), MID),
        Scenario("B", "no effect", "mid", law, law, MID),
        Scenario("C", "a head start of 0.15 budgets", "mid", law, replace(law, offset=0.15), MID),
        Scenario("D", "shaped by a cosine", "mid", Annealed(), Annealed(1.45), MID),
        Scenario("E", "flat curve", "high", flat, times(1.3, flat), HIGH),
        Scenario("F", "slower", "mid", law, times(0.85), MID),
        Scenario("G", "1.5 times as fast", "low", law, times(1.5), LOW),
        Scenario("H", "another asymptote", "mid", law, PowerLaw(1.95, 2.93, 0.33), MID),
        Scenario("I", "5 % of runs are outliers", "mid", law, times(1.5), replace(MID, outliers=0.05)),
        Scenario("J", "8 evaluations", "mid", law, times(1.5), MID, tuple(np.linspace(1 / 8, 1, 8).tolist())),
        Scenario("K", "3 times as fast", "mid", law, times(3.0), MID),
        Scenario("mid-1.05", "smallest effect of interest", "mid", law, times(1.05), MID),
        Scenario("high-1.00", "no effect, flat curve", "high", flat, flat, HIGH),
        Scenario("high-1.05", "smallest effect of interest, flat curve", "high", flat, times(1.05, flat), HIGH),
    ]
    for speedup in (0.85, 1.0, 1.05, 1.5):
        own = replace(own_law, multiplier=speedup)
        what = "the harness's own curve"
        found.append(Scenario(f"harness-{speedup:.2f}", what, "harness", own_law, own, own_noise, own_shares))
    for speedup in (1.0, 1.05, 1.5):
        key = f"endpoints-{speedup:.2f}"
        found.append(Scenario(key, "5 decayed endpoints", "endpoints", law, times(speedup), MID, ENDPOINTS))
    return found


@lru_cache(maxsize=1)
def fitted(study: Path) -> tuple[Measured, Noise, tuple[float, ...]]:
    """The curve, the noise and the evaluations (shares of the text) of the runs from scratch in an exported study: the
    smoothed mean over seeds of its baseline, and the noise of all ARMS."""
    frame = Results.from_export(study).frame
    text = frame[(frame["phase"] == "pre-training") & (frame["tokens"] > 0)]
    panels = []
    for arm in ARMS:
        panel = text[text["arm"] == arm].pivot_table(index="seed", columns="tokens", values="loss_nats")
        tokens = panel.columns.to_numpy(float)
        panels.append((tokens / tokens[-1], panel.to_numpy()))
    shares, losses = panels[0]
    curve = smooth(shares, losses.mean(axis=0))
    assert curve is not None
    return Measured(tuple(curve.x.tolist()), tuple(curve.loss.tolist())), fit_noise(panels), tuple(shares.tolist())


def fit_noise(panels: Sequence[tuple[np.ndarray, np.ndarray]]) -> Noise:
    """The noise in arms of like runs: shares of the text (n,) and losses (seeds, n) each, the same seeds in all.

    Fitted by moments, pooled over arms, to what runs differ in from their arm's mean over seeds, from FITTED_FROM on:
    evaluation and drift to what smoothing takes from a run and to the variance within it, offset to the variance
    between runs, the correlation to the offsets that one seed has in two arms. The drift's length is assumed.
    """
    offsets, measured, expected, kept = [], [], [], []
    for shares, loss in panels:
        late, x = shares >= FITTED_FROM, np.log(shares)
        # The mean was taken from these very runs: what they differ in from it is a little less than noise.
        residual = (loss - loss.mean(axis=0)) * math.sqrt(len(loss) / (len(loss) - 1))
        rough = (np.eye(len(x)) - np.stack([_smoothed(shares, unit) for unit in np.eye(len(x))], axis=1))[late]
        mean = late / late.sum()
        within = np.eye(len(x))[late] - mean
        drifting = np.exp(-np.abs(x[:, None] - x) / DRIFT_LENGTH)
        offsets.append(residual @ mean)
        measured.append([np.mean((residual @ part.T) ** 2) for part in (rough, within)])
        expected.append(
            [
                [np.mean(np.einsum("ij,jk,ik->i", part, of, part)) for of in (np.eye(len(x)), drifting)]
                for part in (rough, within)
            ]
        )
        kept.append([mean @ mean, mean @ drifting @ mean])
    # Variances of an evaluation and of the drift.
    parts = np.maximum(np.linalg.solve(np.mean(expected, axis=0), np.mean(measured, axis=0)), 0.0)
    error, drift = parts
    offset = max(float(np.mean(np.square(offsets)) - np.mean(kept, axis=0) @ parts), 0.0)
    covariance = float(np.mean([a @ b / len(a) for a, b in itertools.combinations(offsets, 2)]))
    return Noise(
        seed_sd=math.sqrt(offset),
        eval_sd=math.sqrt(error),
        shared=min(max(covariance / offset, 0.0), 1.0) if offset else 0.0,
        drift_sd=math.sqrt(drift),
    )


def _smoothed(tokens: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """`loss` (n,) smoothed, at the same tokens."""
    curve = smooth(tokens, loss)
    assert curve is not None
    return curve.at(np.log(tokens))
