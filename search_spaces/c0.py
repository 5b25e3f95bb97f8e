"""Is the first stage learned in context, at every band of complexity (C0)?

Arms: text after automata of every band, and after automata with shuffled tokens, of which nothing beyond counts can be
learned; text is read from scratch for comparison, at the shortest budget of the scale. Decided by the held-out loss of
the first stage, on rules that it never saw, against the best of unigram, copy of the frame before and order-2 n-gram:
at every band at least 5 % below, with the interval over seeds. A row a band.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.sources.shuffled import Shuffled
from harness.space import Study


def at(scale):
    shortest = scale.endpoints[0]

    def scratch(seed):
        return arms.scratch(scale, seed, shortest)

    def nca(band, seed):
        return arms.nca(scale, seed, shortest, band=band)

    def shuffled(seed):
        return arms.treated(scale, arms.first(scale, Shuffled(arms.automata(scale)), seed), seed, shortest)

    return Study(
        name=f"c0_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, shuffled],
        over={"band": tune.grid_search(list(scale.bands)), "seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.learned()],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
