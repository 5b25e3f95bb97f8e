"""What curves that someone else measured say, and how little.

Published curves come without seeds as a rule and from one learning-rate schedule, so that nothing here is more than an
indication. Losses are in nats per token, tokens are counted, logarithms are natural.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import numbers
from analysis.cells import SAME_BUDGET, diverged
from analysis.frame import DataError
from analysis.metrics.intervals import t_interval
from analysis.metrics.mechanism import UNDECIDED, Mechanism, triage
from analysis.metrics.smoothing import LEAST, Curve, smooth
from analysis.metrics.speedup import NEAR_TARGETS, Headline, auc_gain, exp, headline, ln_speedup_at, net_speedup
from analysis.published.files import Arm, CurveFile, Measured, read_curves
from analysis.verdicts import needs

SESOI = 1.05
"""The smallest speedup of interest, as in a study that names none."""
ROUNDING = 0.002
"""Nats by which a curve without noise may rise: published points are rounded."""
GAP = 4
"""Neighbouring evaluations whose tokens differ by more than this factor are remarked on."""
READ_FROM = 0.05
"""Share of the baseline's budget from which curves are read, unless a crossing comes earlier."""
EARLY = 0.2
"""Share of the budget after which the gap of two curves is summarised."""
FLAT_NATS = 0.005
"""The last nats of a single curve, whose noise over seeds is unknown; with seeds it is 2 sd of their final losses."""
FLAT_SHARE = 0.05
"""A tail is flat if the baseline spends more than this share of its tokens on those last nats."""
NAN = float("nan")
GROWTH = {"multiplier": "stays", "offset": "fades", "vertical": "grows"}
"""What happens to a speedup, or slowdown, as the text budget grows, by the picture that fits."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against the baseline. NaN where something is unknown or does not apply."""

    arm: str
    verdict: str
    """ "indicative: faster" or "indicative: slower" at most; "no verdict", "inconclusive", "diverged" or "too few
    evaluations"."""
    reason: str
    n_pairs: int = 0
    n_diverged: int = 0
    estimator: str = ""
    text_tokens: float = NAN
    """Of the arm."""
    synthetic_tokens: float = NAN
    target_loss_nats: float = NAN
    """L*: the baseline's final loss."""
    speedup: float = NAN
    """Baseline's budget over the arm's tokens to L*, or the reverse reading where L* is never reached."""
    speedup_lo: float = NAN
    speedup_hi: float = NAN
    left_censored: bool = False
    """The crossing came before the first evaluation: the speedup is a bound."""
    speedup_first_crossing: float = NAN
    """As `speedup`, with the tokens at which the baseline first was as low as L* for its budget."""
    speedup_5_mnats_up: float = NAN
    speedup_20_mnats_up: float = NAN
    tail_sensitivity: float = NAN
    """Speedup over that at a loss 0.02 nats higher."""
    tail_share: float = NAN
    """Share of its tokens that the baseline spends on the last FLAT_NATS, or 2 sd over seeds."""
    flat_tail: bool = False
    net_speedup_tokens: float = NAN
    perplexity_change_pct: float = NAN
    loss_gap_nats: float = NAN
    """Baseline minus arm at the last tokens that both have seen."""
    loss_gap_nats_lo: float = NAN
    loss_gap_nats_hi: float = NAN
    auc_gain_nats: float = NAN
    gap_after_20_pct_nats: float = NAN
    """Mean of the gap over the arm's evaluations in the last 80 % of the run, and its sd."""
    gap_after_20_pct_sd_nats: float = NAN
    gap_bits_per_byte: float = NAN
    """At the last evaluations that have it."""
    mechanism: Mechanism | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Published:
    """A file of curves compared with one of its arms."""

    baseline: str
    arms: tuple[Comparison, ...]
    remarks: tuple[str, ...]


def compare_file(path: Path | str, baseline: str) -> Published:
    """Every arm of the file against `baseline`. Raises DataError where the file cannot be read or compared."""
    found = read_curves(path)
    if baseline not in found.arms:
        raise DataError(f"{path}: has no arm {baseline!r}; it has {', '.join(found.arms)}: name one as --baseline")
    if len(found.arms) == 1:
        raise DataError(f"{path}: has no arm besides {baseline!r}; add the curve to compare with it")
    _bits_where_tokenizers_differ(path, found, baseline)
    base = found.arms[baseline]
    remarks = [*found.remarks, *(r for run in base.runs for r in _bridged(run, _end(base) * READ_FROM, baseline))]
    arms = tuple(compare(base, arm) for name, arm in found.arms.items() if name != baseline)
    return Published(baseline, arms, tuple(remarks))


def compare(baseline: Arm, arm: Arm) -> Comparison:
    """What the curves of `arm` say against those of `baseline`: pairs by seed, one curve each if there is one."""
    known: dict[str, Any] = {
        "arm": arm.name,
        "text_tokens": _end(arm),
        "synthetic_tokens": arm.synthetic_tokens,
        "gap_bits_per_byte": _bits_gap(baseline, arm),
    }
    if all(diverged(run.loss) for run in arm.runs):
        return Comparison(**known, verdict="diverged", reason=_diverged_said(arm), n_diverged=len(arm.runs))
    if baseline.tokenizer != arm.tokenizer:
        return Comparison(**known, verdict="no verdict", reason=_tokenizers_said(baseline, arm))
    pairs, remarks = _pairs(baseline, arm)
    sound = [pair for pair in pairs if not any(diverged(run.loss) for run in pair)]
    long = [pair for pair in sound if all(_evaluations(run) >= LEAST for run in pair)]
    bad_b, bad_t = (sum(diverged(pair[side].loss) for pair in pairs) for side in (0, 1))
    known["n_diverged"] = bad_t
    short = [
        f"{_evaluations(run)} of {side.name}"
        for pair in sound
        for run, side in zip(pair, (baseline, arm), strict=True)
        if _evaluations(run) < LEAST
    ]
    if long:
        left_out = f"runs with fewer than {LEAST} finite evaluations are left out: {', '.join(short)}"
        return _read(baseline, arm, long, bad_b, {**known, "remarks": (*remarks, left_out) if short else remarks})
    if not pairs:
        reason = f"{arm.name} and {baseline.name} have no seed in common; name the seeds that belong together alike"
    elif not sound:
        which = baseline.name if bad_b == len(pairs) else f"{arm.name} or {baseline.name}"
        reason = f"{arm.name} has no pair to read: {which} diverged"
    else:
        reason = f"{arm.name} cannot be read: a run needs {LEAST} finite evaluations, there are {', '.join(short)}"
    return Comparison(**known, verdict="too few evaluations" if sound else "no verdict", reason=reason, remarks=remarks)


def _read(
    baseline: Arm, arm: Arm, pairs: list[tuple[Measured, Measured]], bad_b: int, known: dict[str, Any]
) -> Comparison:
    curves, estimator = _curves(pairs)
    baselines, treated = [b for b, _ in curves], [t for _, t in curves]
    found = headline(baselines, treated, math.log(SESOI))
    budget, own = (float(np.mean([pair[side].tokens[-1] for pair in pairs])) for side in (0, 1))
    same = all(abs(t.tokens[-1] / b.tokens[-1] - 1) < SAME_BUDGET for b, t in pairs)
    gaps = found.gap if same else t_interval([_gap_where_both_are(b, t) for b, t in curves])
    mean, low, high = found.ln_speedup
    up = [
        exp(float(np.mean([ln_speedup_at(b, t, max(b.final + more, t.final)) for b, t in curves])))
        for more in (0.0, *NEAR_TARGETS)
    ]
    noise = 2 * float(np.std([b.final for b in baselines], ddof=1)) if len(baselines) > 1 else FLAT_NATS
    tail = 1 - float(np.mean([math.exp(b.first_crossing(b.final + noise)[0] - b.end) for b in baselines]))
    after = _gaps_after(curves, [t.tokens for _, t in pairs])
    before = 0.0 if math.isnan(baseline.synthetic_tokens) else baseline.synthetic_tokens
    net = net_speedup(exp(mean), budget, arm.synthetic_tokens) * (1 + before / budget)
    row: dict[str, Any] = {
        **known,
        "n_pairs": len(curves),
        "estimator": estimator or found.estimator,
        "text_tokens": own,
        "target_loss_nats": float(np.mean([b.final for b in baselines])),
        "speedup": exp(mean),
        "speedup_lo": exp(low),
        "speedup_hi": exp(high),
        "left_censored": any(r.left_censored for r in found.readings),
        "speedup_first_crossing": up[0],
        "speedup_5_mnats_up": up[1],
        "speedup_20_mnats_up": up[2],
        "tail_sensitivity": exp(mean) / up[2],
        "tail_share": tail,
        "flat_tail": tail > FLAT_SHARE,
        "net_speedup_tokens": net,
        "perplexity_change_pct": 100 * (math.expm1(-gaps.mean) if -gaps.mean < 700 else math.inf),
        "loss_gap_nats": gaps.mean,
        "loss_gap_nats_lo": gaps.low,
        "loss_gap_nats_hi": gaps.high,
        "auc_gain_nats": float(np.mean([auc_gain(b, t) for b, t in curves])),
        "gap_after_20_pct_nats": float(after.mean()) if len(after) else NAN,
        "gap_after_20_pct_sd_nats": float(after.std(ddof=1)) if len(after) > 1 else NAN,
        "mechanism": triage(baselines, [(t.tokens, t.loss) for _, t in pairs]) if same else None,
    }
    read_from = min(budget * READ_FROM, budget / exp(mean))
    row["remarks"] = (
        *known["remarks"],
        *(remark for _, t in pairs for remark in _bridged(t, read_from, arm.name)),
        *([f"{baseline.name}'s own {numbers.tokens(before)} tokens before the text count in net"] if before else []),
    )
    verdict = _verdict(row, found, same, row["n_diverged"] > bad_b)
    return Comparison(**row, verdict=verdict, reason=_reason(row, found, baseline.name, budget, same, bad_b))


def _verdict(row: dict[str, Any], found: Headline, same: bool, excess: bool) -> str:
    """Indicative at most. A single curve has to say the same at its final loss and above it, where it is less flat;
    several have to have an interval on one side of 1."""
    if not same:
        return "no verdict"
    if excess:
        return "inconclusive"
    if row["n_pairs"] > 1:
        faster, slower = found.ln_speedup.low > 0, found.ln_speedup.high < 0
        speedups = [row["speedup"]]
    else:
        faster = slower = True
        speedups = [row[key] for key in ("speedup", "speedup_5_mnats_up", "speedup_20_mnats_up")]
        speedups = [s for s in speedups if not math.isnan(s)]
    if faster and min(speedups) >= SESOI:
        return "indicative: faster"
    return "indicative: slower" if slower and max(speedups) <= 1 / SESOI else "no verdict"


def _reason(row: dict[str, Any], found: Headline, baseline: str, budget: float, same: bool, bad_b: int) -> str:
    arm, up = row["arm"], numbers.times(row["speedup_20_mnats_up"])
    if not same:
        ends = f"{arm} ends at {numbers.tokens(row['text_tokens'])} text tokens, {baseline} at {numbers.tokens(budget)}"
        return f"{ends}: on unlike budgets schedule and effect cannot be told apart"
    said = needs({"speedup": row["speedup"], "gap_kind": ""}, baseline, arm)
    censored = {r.direction for r in found.readings if r.left_censored}
    if "forward" in censored:
        said += f" or less: {arm} was below {baseline}'s final loss at its first evaluation already"
    elif censored:
        said += f" or more: {baseline} was below {arm}'s final loss at its first evaluation already"
    parts = [said]
    if not math.isnan(row["speedup_20_mnats_up"]) and row["loss_gap_nats"] > -NEAR_TARGETS[1]:
        flat = f", its tail is flat ({numbers.share(row['tail_share'])} of the tokens)" if row["flat_tail"] else ""
        parts.append(f"0.02 nats above {baseline}'s final loss it reads {up}{flat}")
    picture = row["mechanism"]
    if picture is not None and picture.best != UNDECIDED:
        what = "speedup" if row["speedup"] > 1 else "slowdown"
        parts.append(f"fits best as {_picture(picture)}, so the {what} {GROWTH[picture.best]} with the budget")
    if row["n_diverged"] or bad_b:
        parts.append(f"{row['n_diverged']} runs of {arm} and {bad_b} of {baseline} diverged and are left out")
    if row["n_pairs"] == 1:
        parts.append("one curve each, so no interval")
    else:
        low, high = row["speedup_lo"], row["speedup_hi"]
        parts.append(f"{row['n_pairs']} pairs, 95 % interval {numbers.between(low, high)}")
    return "; ".join(parts)


def _picture(found: Mechanism) -> str:
    value = found.parameter[found.best]
    if found.best == "multiplier":
        return f"{value:.2f} times the tokens"
    if found.best == "offset":
        return f"{'-' if value < 0 else ''}{numbers.tokens(abs(value))} tokens more"
    return f"a shift of {-value:+.3f} nats"


def _pairs(baseline: Arm, arm: Arm) -> tuple[list[tuple[Measured, Measured]], tuple[str, ...]]:
    """Pairs by seed. Where both have one run, it is a pair whatever its seed is called."""
    if len(baseline.runs) == len(arm.runs) == 1:
        b, t = baseline.runs[0], arm.runs[0]
        unlike = [f"seeds differ: {b.seed or 'none'} and {t.seed or 'none'}"] if b.seed != t.seed else []
        return [(b, t)], tuple(unlike)
    runs = {run.seed: run for run in baseline.runs}
    pairs = [(runs[run.seed], run) for run in arm.runs if run.seed in runs]
    alone = [run.seed or "none" for run in arm.runs if run.seed not in runs]
    return pairs, (f"seeds without a run of {baseline.name} are left out: {', '.join(alone)}",) if alone else ()


def _curves(pairs: Sequence[tuple[Measured, Measured]]) -> tuple[list[tuple[Curve, Curve]], str]:
    """A curve for every run, and how it was got ("" for the estimator of a study).

    Published points of a single curve are averages over so many tokens that they fall throughout; they are joined as
    they are, for a smoother that spans several of few points bends a flat tail. A curve that rises carries noise, and
    is smoothed.
    """
    if len(pairs) == 1 and all((np.diff(_after_start(run)[1]) <= ROUNDING).all() for run in pairs[0]):
        b, t = (Curve(np.log(tokens), loss) for tokens, loss in map(_after_start, pairs[0]))
        return [(b, t)], "interpolation"
    smoothed = [(smooth(b.tokens, b.loss), smooth(t.tokens, t.loss)) for b, t in pairs]
    return [(b, t) for b, t in smoothed if b is not None and t is not None], "LOESS" if len(pairs) == 1 else ""


def _after_start(run: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and loss without the evaluation before the first step, which has no logarithm."""
    return run.tokens[run.tokens > 0], run.loss[run.tokens > 0]


def _evaluations(run: Measured) -> int:
    return int((np.isfinite(run.loss) & (run.tokens > 0)).sum())


def _end(arm: Arm) -> float:
    return float(np.mean([run.tokens[-1] for run in arm.runs]))


def _gap_where_both_are(baseline: Curve, treated: Curve) -> float:
    end = min(baseline.end, treated.end)
    return float(baseline.at(end) - treated.at(end))


def _gaps_after(curves: Sequence[tuple[Curve, Curve]], tokens: Sequence[np.ndarray]) -> np.ndarray:
    """Mean gap (m,) over pairs at the first one's evaluations in the last 80 % of the run that all have seen."""
    end = min(min(b.end, t.end) for b, t in curves)
    at = np.log(tokens[0][tokens[0] > 0])
    at = at[(at >= end + math.log(EARLY)) & (at <= end + 1e-9)]
    gaps = np.mean([b.at(at) - t.at(at) for b, t in curves], axis=0)
    return np.asarray(gaps[np.isfinite(gaps)])


def _bridged(run: Measured, read_from: float, name: str) -> list[str]:
    """A remark for every stretch inside what is read in which the run was not evaluated."""
    tokens = run.tokens[(run.tokens > 0) & np.isfinite(run.loss)]
    said = f"{name}, seed {run.seed}" if run.seed else name
    return [
        f"{said} has no evaluation between {numbers.tokens(a)} and {numbers.tokens(b)} tokens: what is read there is "
        "interpolated"
        for a, b in itertools.pairwise(tokens)
        if b > GAP * a and b > read_from
    ]


def _diverged_said(arm: Arm) -> str:
    """Where the first run stopped being finite, if that is how it diverged."""
    at = [run.tokens[~np.isfinite(run.loss)][0] for run in arm.runs if not np.isfinite(run.loss).all()]
    how = f"is not finite at {numbers.tokens(min(at))} tokens" if at else "rose and stayed above where it had been"
    return f"{arm.name} diverged: its loss {how}, so nothing is read from it"


def _tokenizers_said(baseline: Arm, arm: Arm) -> str:
    bits = _bits_gap(baseline, arm)
    ends = f"it ends {abs(bits):.4f} bits per byte {'below' if bits > 0 else 'above'} {baseline.name}"
    names = f"{arm.tokenizer or 'unnamed'}, {baseline.name}'s is {baseline.tokenizer or 'unnamed'}"
    return f"{arm.name}'s tokenizer is {names}, so that neither nats nor tokens compare; {ends}"


def _bits(arm: Arm) -> float:
    """Mean over runs of the last known bits per byte; NaN if a run has none."""
    last = [run.bits_per_byte[np.isfinite(run.bits_per_byte)] for run in arm.runs]
    return float(np.mean([values[-1] for values in last])) if all(len(values) for values in last) else NAN


def _bits_gap(baseline: Arm, arm: Arm) -> float:
    return _bits(baseline) - _bits(arm)


def _bits_where_tokenizers_differ(path: Path | str, found: CurveFile, baseline: str) -> None:
    base = found.arms[baseline]
    for arm in found.arms.values():
        read = not all(diverged(run.loss) for run in arm.runs)
        if read and arm.tokenizer != base.tokenizer and math.isnan(_bits_gap(base, arm)):
            raise DataError(
                f"{path}: tokenizer of {arm.name} is {arm.tokenizer or 'unnamed'}, that of {baseline} "
                f"{base.tokenizer or 'unnamed'}: losses per token do not compare; add the column bits_per_byte, or "
                "leave the arm out"
            )
