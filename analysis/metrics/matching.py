"""Does the best complexity depend on the text? One contrast fixed beforehand, and what a wrong choice costs.

Reading it off the best band of each domain is wrong in most studies of a few seeds where there is no difference; a
contrast of slopes is one test. Losses are in nats per token; the seed is the only unit of replication.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.cells import Cell, groups
from analysis.metrics.intervals import Interval, bounds, t_interval
from analysis.metrics.seeds import block, complete, linked

NOTHING = Interval(math.nan, math.nan, math.nan)


class Omnibus(NamedTuple):
    """The F test of any domain x band interaction."""

    f: float
    df: tuple[int, int]
    p: float


class Regret(NamedTuple):
    """What `domain` loses with the best band of `other` instead of its own: loss gap, nats, positive is a loss."""

    domain: str
    other: str
    nats: Interval


@dataclass(frozen=True, eq=False)
class Matching:
    """Slopes of the loss gap on complexity by domain, and how they differ."""

    arm: str
    group: str
    domains: list[str]
    high: list[str]
    """Domains that are expected to gain more from complex data."""
    low: list[str]
    x: np.ndarray
    """(domains, bands) measured complexity."""
    y: np.ndarray
    """(seeds, domains, bands) loss gap, nats."""
    slopes: np.ndarray
    """(seeds, domains) nats per unit of complexity."""
    contrast: Interval
    """Mean slope of `high` less that of `low`, with the two-sided 95 % interval."""
    p: float
    """One-sided, of a contrast that is not positive."""
    omnibus: Omnibus
    regrets: list[Regret]
    """One an ordered pair of domains."""
    reason: str
    """Why there is no contrast; "" where there is one."""
    left_out: int
    """Seeds that some domain or band lacks."""


def matching(
    x: np.ndarray,
    y: np.ndarray,
    domains: Sequence[str],
    high: Sequence[str],
    low: Sequence[str],
    arm: str = "",
    group: str = "",
) -> Matching:
    """The matching contrast of loss gaps `y` (seeds, domains, bands) on complexity `x` (bands,) or (domains, bands).

    Seeds that lack a value are left out. Where the contrast cannot be made, `reason` says why.
    """
    y = np.asarray(y, float)
    kept = complete(y)
    left_out, y = int((~kept).sum()), y[kept]
    x = np.broadcast_to(np.asarray(x, float), y.shape[1:])
    slopes = slopes_by_seed(x, y)
    contrast, p = NOTHING, math.nan
    reason = _lacking(x, domains, high, low)
    if not reason:
        per_seed = contrast_by_seed(slopes, domains, high, low)
        contrast, p = t_interval(per_seed), one_sided_p(per_seed)
        if len(y) < 2:
            reason = f"{len(y)} seed{'' if len(y) == 1 else 's'}, 2 needed for an interval"
    return Matching(
        arm, group, list(domains), list(high), list(low), x, y, slopes, contrast, p, interaction(y),
        transfer_regrets(y, domains), reason, left_out,
    )  # fmt: skip


def contrast_by_seed(slopes: np.ndarray, domains: Sequence[str], high: Sequence[str], low: Sequence[str]) -> np.ndarray:
    """Mean slope of `high` less that of `low` (seeds,), from `slopes` (seeds, domains)."""
    own = [np.isin(domains, list(side)) for side in (high, low)]
    return np.asarray(slopes[:, own[0]].mean(axis=1) - slopes[:, own[1]].mean(axis=1))


def one_sided_p(values: np.ndarray) -> float:
    """p of the mean of `values` (n,) being zero or less, by a t test; NaN below two values."""
    if len(values) < 2:
        return math.nan
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stats.t.sf(mean / error, len(values) - 1))


def interaction(y: np.ndarray) -> Omnibus:
    """F test of domain x band interaction in `y` (seeds, domains, bands) against its variation over seeds, the
    repeated-measures analysis in which a seed is a block. It assumes that this variation is alike everywhere. NaN below
    two seeds, domains or bands."""
    seeds, domains, bands = y.shape
    df = ((domains - 1) * (bands - 1), (domains - 1) * (bands - 1) * (seeds - 1))
    if df[0] < 1 or df[1] < 1:
        return Omnibus(math.nan, df, math.nan)
    # Per seed what neither its domains nor its bands explain.
    own = y - y.mean(axis=1, keepdims=True) - y.mean(axis=2, keepdims=True) + y.mean(axis=(1, 2), keepdims=True)
    shared = own.mean(axis=0)
    explained = seeds * float((shared**2).sum()) / df[0]
    error = float(((own - shared) ** 2).sum()) / df[1]
    rounding = (1e-12 * float(np.abs(y).max())) ** 2
    if explained <= rounding:
        return Omnibus(0.0, df, 1.0)
    if error <= rounding:
        return Omnibus(math.inf, df, 0.0)
    return Omnibus(explained / error, df, float(stats.f.sf(explained / error, *df)))


def transfer_regrets(y: np.ndarray, domains: Sequence[str]) -> list[Regret]:
    """For every ordered pair of `domains` the loss gap with the domain's own best band less that with the other's best
    band, in `y` (seeds, domains, bands). A seed is read at the bands that are best in the mean of the other seeds, so
    that no choice is judged by the data that made it; NaN below two seeds."""
    seeds = len(y)
    pairs = list(itertools.permutations(range(len(domains)), 2))
    if seeds < 2 or y.shape[2] == 0:
        return [Regret(domains[d], domains[o], NOTHING) for d, o in pairs]
    best = np.stack([np.delete(y, i, axis=0).mean(axis=0).argmax(axis=1) for i in range(seeds)])  # (seeds, domains)
    i = np.arange(seeds)
    return [
        Regret(domains[d], domains[o], t_interval(y[i, d, best[:, d]] - y[i, d, best[:, o]])) for d, o in pairs
    ]  # fmt: skip


def matchings(cells: Iterable[Cell], high: Sequence[str], low: Sequence[str]) -> list[Matching]:
    """The matching contrast of every set of cells that differ in domain and complexity alone. A band is the cells that
    differ in domain alone; bands that lack a domain are dropped."""
    members = list(cells)
    bands = groups(members, "domain")
    responses = [group for _, group in groups(members, "complexity")]
    keys = [{id(c) for c in group} for _, group in bands] + [{id(c) for c in group} for group in responses]
    found = []
    for indices in linked(keys):
        inside = [bands[i] for i in indices if i < len(bands)]
        own = [{c.domain: c for c in group if math.isfinite(c.complexity)} for _, group in inside]
        domains = list(dict.fromkeys(domain for band in own for domain in sorted(band)))
        own = sorted(
            (band for band in own if set(band) == set(domains)),
            key=lambda band: float(np.mean([c.complexity for c in band.values()])),
        )
        if not own or len(domains) < 2:
            continue
        ordered = [band[domain] for domain in domains for band in own]
        values = block(ordered)
        if len(values.cells) < len(ordered):
            continue  # a cell that nothing can be read from yet
        shape = (len(domains), len(own))
        x = np.array([c.complexity for c in ordered]).reshape(shape)
        names = [name.split(", ") for name, _ in inside]
        group = ", ".join(part for part in names[0] if all(part in name for name in names))
        fitted = matching(x, values.values.reshape(-1, *shape), domains, high, low, ordered[0].arm, group)
        found.append(replace(fitted, left_out=fitted.left_out + values.left_out))
    return found


MATCHING_COLUMNS = (
    "arm", "group", "high", "low", "n_domains", "n_bands", "n_pairs", "n_left_out", "contrast_nats",
    "contrast_nats_lo", "contrast_nats_hi", "p_one_sided", "f", "f_df", "f_df_error", "f_p", "reason",
)  # fmt: skip


def matching_table(matchings: Iterable[Matching]) -> pd.DataFrame:
    """One row per contrast, with MATCHING_COLUMNS; the contrast is in nats per unit of complexity, `n_pairs` counts
    seeds, and `f` is the secondary test of any interaction."""
    rows = [
        {
            "arm": m.arm,
            "group": m.group,
            "high": ", ".join(m.high),
            "low": ", ".join(m.low),
            "n_domains": len(m.domains),
            "n_bands": m.y.shape[2],
            "n_pairs": len(m.y),
            "n_left_out": m.left_out,
            **bounds("contrast_nats", m.contrast),
            "p_one_sided": m.p,
            "f": m.omnibus.f,
            "f_df": m.omnibus.df[0],
            "f_df_error": m.omnibus.df[1],
            "f_p": m.omnibus.p,
            "reason": m.reason,
        }
        for m in matchings
    ]
    return pd.DataFrame(rows, columns=list(MATCHING_COLUMNS))


REGRET_COLUMNS = ("arm", "group", "domain", "other", "regret_nats", "regret_nats_lo", "regret_nats_hi", "n_pairs")


def regret_table(matchings: Iterable[Matching]) -> pd.DataFrame:
    """One row per ordered pair of domains: what `domain` loses with the best band of `other`, REGRET_COLUMNS."""
    rows: list[dict[str, Any]] = [
        {
            "arm": m.arm,
            "group": m.group,
            "domain": r.domain,
            "other": r.other,
            **bounds("regret_nats", r.nats),
            "n_pairs": len(m.y),
        }
        for m in matchings
        for r in m.regrets
    ]
    return pd.DataFrame(rows, columns=list(REGRET_COLUMNS))


def slopes_by_seed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slopes (seeds, domains) of `y` (seeds, domains, bands) on `x` (domains, bands); NaN where a domain
    has a single complexity."""
    centred = x - x.mean(axis=1, keepdims=True) if x.size else x
    spread = (centred**2).sum(axis=1)
    return np.einsum("sdb,db->sd", y, centred) / np.where(spread > 0, spread, np.nan)


def _lacking(x: np.ndarray, domains: Sequence[str], high: Sequence[str], low: Sequence[str]) -> str:
    if not high or not low:
        return "no contrast of domains was given"
    unknown = [d for d in [*high, *low] if d not in domains]
    if unknown:
        return f"no domain {', '.join(unknown)} here; there are {', '.join(domains)}"
    if set(high) & set(low):
        return f"{', '.join(sorted(set(high) & set(low)))} is on both sides of the contrast"
    if x.size == 0 or not (np.ptp(x, axis=1) > 0).all():
        return "a domain has a single complexity"
    return ""
