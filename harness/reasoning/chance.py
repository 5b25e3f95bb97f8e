"""What guessing scores, and scores that read 0 for it. NumPy only."""

from typing import Any

import numpy as np

from harness.errors import require


def chance(options: Any, k: int = 1, right: Any = 1) -> Any:
    """1 - (1 - r/m)^k, float64 (problems,): that one of k independent uniform guesses among `options` m, of which
    `right` r are right, int (problems,), is right. Chance grows with k: single-guess chance under pass@k would reward
    every guesser."""
    m, r = np.asarray(options), np.asarray(right)
    require(bool((m >= 2).all()), "options", m.tolist(), "a choice is among at least 2")
    require(bool(((r >= 1) & (r < m)).all()), "right", r.tolist(), "some options are right, and some are not")
    require(k >= 1, "k", k, "use a whole number of at least 1")
    return 1.0 - (1.0 - r / m) ** k


def normalised(score: Any, by_chance: Any) -> Any:
    """(score - chance) / (1 - chance): 0 for a guesser and 1 for what is always right; below 0 is worse than guessing.
    `score` and `by_chance` are of the same k."""
    s, c = np.asarray(score, float), np.asarray(by_chance, float)
    require(bool((c < 1).all()), "by_chance", c.tolist(), "a score that chance reaches tells nothing")
    return (s - c) / (1.0 - c)
