"""pass@k: the chance that at least one of k samples of a problem is right. NumPy and SciPy only."""

from typing import Any, NamedTuple

import numpy as np
from scipy import special

from harness.errors import require

LEVEL = 0.95


def pass_at_k(samples: Any, correct: Any, k: int) -> Any:
    """1 - C(n - c, k) / C(n, k) of every problem, float64 (problems,): the unbiased estimate from `samples` n and
    `correct` c, int (problems,), by Chen et al. (2021, arXiv 2107.03374, equation 1), as a product that cannot
    overflow. Raises InputError for k above a number of samples, or counts that are none."""
    n, c = np.broadcast_arrays(np.asarray(samples), np.asarray(correct))
    for name, counts in (("samples", n), ("correct", c)):
        require(np.issubdtype(counts.dtype, np.integer), name, counts.dtype.name, "count in whole numbers")
    require(isinstance(k, int | np.integer) and k >= 1, "k", k, "use a whole number of at least 1")
    require(n.size > 0, "samples", n.tolist(), "give at least one problem")
    require(bool((c >= 0).all() and (c <= n).all()), "correct", c.tolist(), "of n samples, 0 to n are right")
    fewest = int(n.min())
    require(k <= fewest, "k", k, f"a problem has {fewest} samples, from which nothing is known of {k}; draw more")
    # C(n - c, k) / C(n, k) = prod over i < k of (n - c - i) / (n - i)
    i = np.arange(k)
    factors = np.maximum(n[..., None] - c[..., None] - i, 0) / (n[..., None] - i)
    return 1.0 - factors.prod(-1)


class Rate(NamedTuple):
    """A mean over problems with its 95 % interval; the bounds are NaN where nothing can be said."""

    mean: float
    low: float
    high: float
    problems: int


def rate(values: Any) -> Rate:
    """The mean of a score in [0, 1] by problem, float (problems,), with the t interval over problems, cut to [0, 1].

    Problems are the units: it says how the score would vary with other problems, not with another training seed. Where
    all problems score the same, a t interval has no width; then it is Wilson's (1927), of as many problems that are
    each right or wrong."""
    v = np.asarray(values, float)
    require(v.ndim == 1 and len(v) > 0, "values", v.shape, "give a score for at least one problem")
    mean, count = float(v.mean()), len(v)
    if count == 1 or v.std() == 0:
        return Rate(mean, *wilson(mean, count), count)
    found = mean_over_problems(v)
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def mean_over_problems(values: Any) -> Rate:
    """The mean of `values` (problems,), in whatever unit, with the t interval over problems."""
    v = np.asarray(values, float)
    require(v.ndim == 1 and len(v) > 0, "values", v.shape, "give a value for at least one problem")
    mean, count = float(v.mean()), len(v)
    if count == 1:
        return Rate(mean, float("nan"), float("nan"), count)
    half = float(special.stdtrit(count - 1, 0.5 + LEVEL / 2) * v.std(ddof=1) / np.sqrt(count))
    return Rate(mean, mean - half, mean + half, count)


def plain(found: Rate) -> dict[str, float | int | None]:
    """`found` as JSON data."""
    return {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in found._asdict().items()}


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion `share` of `count` trials."""
    z = float(special.ndtri(0.5 + LEVEL / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def ks(samples: int) -> list[int]:
    """The k at which n samples are told of: powers of two up to n, and n."""
    return sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples})
