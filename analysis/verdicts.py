"""The decision rule, fixed before the data: what may be said about a cell, and why, in one sentence."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from analysis import numbers
from analysis.metrics.effects import EXPLORATORY

LEAST_PAIRS = 4
ALPHA = 0.05
EXPLORATORY_ALPHA = 0.10
"""Share of false discoveries among cells that no claim was registered for."""


class Verdict(NamedTuple):
    """What may be said about a cell, and why."""

    verdict: str
    reason: str


def decide(effect: Mapping[str, Any], learned: str, sesoi: float, baseline: str, name: str) -> Verdict:
    """The verdict on one row of `effects`.

    `learned` is the learned check of the arm's first stage ("yes", "no", "one run", or "" where it has none), `sesoi`
    the smallest speedup of interest, registered with the study; `baseline` and `name` are what the sentence calls
    the two sides. In order: unlike validation sets, tokenizers or text budgets and too few pairs carry no verdict;
    excess divergence caps at inconclusive; *supported* needs the adjusted p below 5 % (10 % of false discoveries where
    cells are exploratory), a speedup of at least `sesoi` and a learned first stage; *contradicted* that a speedup of
    `sesoi` is excluded; one cosine horizon caps both at *indicative*.
    """
    n, speedup = int(effect["n_pairs"]), float(effect["speedup"])
    if effect.get("unlike"):
        return Verdict(f"not comparable ({effect['unlike']} differ)", _unlike(effect, baseline, name))
    alpha = EXPLORATORY_ALPHA if effect.get("family") == EXPLORATORY else ALPHA
    if n and effect["gap_kind"] == "own ends":
        return Verdict("no verdict (text budgets differ)", _ends(effect, baseline, name))
    if n < LEAST_PAIRS:
        pairs = "1 pair" if n == 1 else f"{n} pairs"
        return Verdict(f"no verdict ({pairs}, {LEAST_PAIRS} needed)", _too_few(effect, baseline, name))
    if effect["n_diverged_treated"] > effect["n_diverged_baseline"]:
        arm, base = effect["n_diverged_treated"], effect["n_diverged_baseline"]
        text = f"{name} diverged in {arm} of its runs and {baseline} in {base}"
        return Verdict("inconclusive", f"{text}: the pairs that are left are a selection.")

    better = effect["p_adj"] < alpha and speedup > 1
    excluded = effect["p_sesoi_adj"] < alpha and speedup < sesoi
    worse = effect["p_adj"] < alpha and speedup < 1
    what = f"At {numbers.tokens(effect['text_tokens'])} text tokens {needs(effect, baseline, name)}"
    cap = "; one cosine horizon allows no more than an indication"
    one_cosine = effect.get("n_horizons", 1) == 1 and not set(str(effect["schedule_kind"]).split(" / ")) <= {"wsd"}
    if better and speedup >= sesoi:
        if learned == "one run":
            return Verdict("inconclusive", f"{what}, but whether its first stage was learned rests on one run.")
        if learned == "no":
            return Verdict("inconclusive", f"{what}, but its first stage was not learned, so something else did it.")
        if one_cosine:
            return Verdict("indicative: faster", f"{what}: it helps{_net(effect)}{cap}.")
        return Verdict("supported", f"{what}: it helps{_net(effect)}.")
    if excluded:
        unlearned = ", though its first stage was not learned" if learned == "no" else ""
        if worse:
            if one_cosine:
                return Verdict("indicative: slower", f"{what}: it hurts{unlearned}{cap}.")
            return Verdict("contradicted", f"{what}: it hurts{unlearned}.")
        below = f"a speedup of {sesoi:.2f} is excluded{unlearned}"
        if effect.get("n_horizons", 1) > 1:
            return Verdict("contradicted", f"{what}: {below} at {effect['n_horizons']} decayed text budgets.")
        # Decay pulls every crossing towards the end of the run, and so a speedup above 1 towards 1: on one horizon
        # even a warmup-stable-decay run can show that there is a gain, or a loss, but not that there is none.
        return Verdict("indicative: no gain", f"{what}: {below} on this horizon.")
    if better:
        return Verdict("inconclusive", f"{what}: a gain, but less than the {sesoi:.2f} that the study set out to find.")
    low, high = effect["speedup_lo"], effect["speedup_hi"]
    return Verdict("inconclusive", f"{what}: the interval {numbers.between(low, high)} leaves the question open.")


def verdicts(effects: pd.DataFrame, learned: pd.DataFrame, plan: Mapping[str, Any], labels: list[str]) -> pd.DataFrame:
    """One row per row of `effects`, in its order: label, learned, verdict, reason; `labels` name the cells."""
    axes = list(effects.columns[1 : effects.columns.get_loc("n_planned")])
    checked: dict[tuple[str, ...], list[str]] = {}
    for _, row in learned.iterrows():
        checked.setdefault(_key(row, axes), []).append(row["learned"])
    rows = []
    for (_, effect), label in zip(effects.iterrows(), labels, strict=True):
        outcome = worst(checked.get(_key(effect, axes), []))
        verdict = decide(effect, outcome, float(plan.get("sesoi", 1.05)), plan["baseline"], label)
        rows.append({"label": label, "learned": outcome, **verdict._asdict()})
    return pd.DataFrame(rows, columns=["label", "learned", "verdict", "reason"])


def worst(outcomes: list[str]) -> str:
    """The learned check of several stages is that of the worst; "" where there is none."""
    return next((o for o in ("no", "one run", "yes") if o in outcomes), "")


def _key(row: pd.Series, axes: list[str]) -> tuple[str, ...]:
    return (row["arm"], *(str(row[a]) for a in axes))


def needs(effect: Mapping[str, Any], baseline: str, name: str) -> str:
    """The effect in words: "nca needs 1.80 times the text of scratch"."""
    speedup = float(effect["speedup"])
    if math.isnan(speedup):
        return f"{name} cannot be read yet"
    if effect["gap_kind"] == "own ends":
        where = "below" if effect["dloss_nats"] > 0 else "above"
        own = numbers.tokens(effect["treated_text_tokens"])
        text = numbers.tokens(effect["text_tokens"])
        return f"{name} ends at {own} text tokens {abs(effect['dloss_nats']):.3f} nats {where} {baseline} at {text}"
    if abs(math.log(speedup)) < 0.005:
        return f"{name} needs as much text as {baseline}"
    if speedup < 1:
        return f"{name} needs {1 / speedup:.2f} times the text of {baseline}"
    return f"{name} needs {100 / speedup:.0f} % of the text of {baseline}"


def _net(effect: Mapping[str, Any]) -> str:
    net, before = effect["net_speedup_tokens"], effect["syn_tokens"]
    if not before or math.isnan(net):
        return ""
    if net > 1:
        return f", even with the {numbers.tokens(before)} tokens before it counted ({numbers.times(net)})"
    return f", but not once the {numbers.tokens(before)} tokens before it are counted ({numbers.times(net)})"


def _unlike(effect: Mapping[str, Any], baseline: str, name: str) -> str:
    """Why two sides do not compare, and what still does."""
    start = f"{name} and {baseline} have unlike {effect['unlike']} ({effect['sets']})"
    bits, low, high = (float(effect[f"dloss_bits_per_byte{end}"]) for end in ("", "_lo", "_hi"))
    if effect["unlike"] != "tokenizers" or math.isnan(bits):
        return f"{start}: their losses do not compare; measure both on the same held-out sequences."
    return f"{start}: only bits per byte compare, {bits:+.4f} {numbers.between(low, high, 4, '+')} gained."


def _ends(effect: Mapping[str, Any], baseline: str, name: str) -> str:
    """What can be said of runs with unlike text budgets: how their ends compare, and where the ends decide a bound."""
    ratio = float(effect["text_tokens"]) / float(effect["treated_text_tokens"])
    said = needs(effect, baseline, name)
    if ratio > 1 and effect["dloss_nats_lo"] > 0:
        return f"{said}: lower on less text, so its speedup is at least {numbers.times(ratio)}."
    if ratio < 1 and effect["dloss_nats_hi"] < 0:
        return f"{said}: higher on more text, so its speedup is at most {numbers.times(ratio)}."
    return f"{said}; their schedules differ on the way, so only these ends compare."


def _too_few(effect: Mapping[str, Any], baseline: str, name: str) -> str:
    if math.isnan(effect["speedup"]):
        return f"No pair of {name} and {baseline} can be read yet: runs are missing, diverged or hardly evaluated."
    start = f"At {numbers.tokens(effect['text_tokens'])} text tokens {needs(effect, baseline, name)}"
    return f"{start} so far; that is too few pairs to tell from chance."
