"""Axes in Ray Tune's own vocabulary: what they yield."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import require
from harness.rng import named_seed


def samples(value: Any) -> bool:
    """Whether `value` is a Tune search space to draw from."""
    from ray.tune.search.sample import Domain

    return isinstance(value, Domain)


def check_range(field: str, value: Any) -> None:
    """Raise InputError for a range whose bounds are the wrong way round, which Tune takes."""
    from ray.tune.search.sample import Float, Integer

    if isinstance(value, Float | Integer):
        ascending = value.lower < value.upper
        require(ascending, field, (value.lower, value.upper), "give the lower bound first, and a higher one after it")


def variants(over: Mapping[str, Any], num_samples: int) -> Iterator[dict[str, Any]]:
    """Every setting of the axes, by Tune's own variant generator. A sampled axis has one draw a sample, equal over the
    grid and drawn from its own name: else a seed axis would unpair its pairs, and a new axis would change old draws."""
    import numpy as np
    from ray.tune.search.sample import Domain
    from ray.tune.search.variant_generator import generate_variants

    for sample in range(num_samples):
        space = {}
        for axis, value in over.items():
            if isinstance(value, Domain) and not value.is_function():
                value = value.sample(random_state=np.random.RandomState(named_seed(axis, sample) % 2**32))
            elif isinstance(value, dict) and value.keys() == {"grid_search"}:
                value = {"grid_search": _Shared(value["grid_search"])}
            space[axis] = value
        state = np.random.RandomState(sample)
        for _, setting in generate_variants(space, constant_grid_search=True, random_state=state):
            yield setting
        if not any(isinstance(value, Domain) for value in over.values()):
            return  # nothing is sampled, so another sample would be the same


class _Shared(list[Any]):
    """A list that Tune, which copies the whole space for every variant, need not copy: long axes stay linear."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def at_edge(space: Any, value: Any) -> bool:
    """Whether `value` lies in the first or the last tenth of a range (in logarithms, where it is drawn so), or is the
    smallest or the largest number of a list: then a better one may lie outside."""
    from ray.tune.search.sample import Categorical, Float, Integer

    if isinstance(space, Float | Integer):
        sampler: Any = space.get_sampler()
        sampler = getattr(sampler, "sampler", sampler)  # that of a quantised range
        scale = math.log if "Log" in type(sampler).__name__ else float
        low, high, here = scale(space.lower), scale(space.upper), scale(value)
        return not 0.1 <= (here - low) / (high - low) <= 0.9
    listed: Any = space.categories if isinstance(space, Categorical) else space
    if isinstance(listed, dict):
        listed = listed.get("grid_search")
    numbers = isinstance(listed, list | tuple) and all(isinstance(v, int | float) for v in listed)
    return numbers and len(set(listed)) > 1 and value in (min(listed), max(listed))
