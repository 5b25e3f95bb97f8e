"""Does the speedup grow with the model, or do automata act as a constant credit of tokens that fades (C9)?

Arms: scratch and text after automata at three sizes, each at five text budgets from 6 to 20 tokens a parameter (and 40
at the largest scale), with tokens of automata as a fixed share of 20 tokens a parameter. Decided by the slope, per
seed, of ln speedup (across the decayed budgets) on ln parameters, above 0; the report's table of mechanisms says
whether a multiplier, an offset of tokens or a shift of the loss fits best. Four pairs. The laptop gives all sizes the
same two budgets, each a cosine of its own, with recipes that were tuned at one of the sizes.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study


def at(scale):
    def scratch(size, text, seed):
        return arms.scratch(scale, seed, text, scale.sizes_text, size)

    def nca(size, text, seed):
        return arms.nca(scale, seed, text, scale.sizes_text, size)

    return Study(
        name=f"c9_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca],
        over={
            "size": tune.grid_search(list(scale.sizes)),
            "text": tune.grid_search(list(scale.sizes_endpoints)),
            "seed": tune.grid_search(list(scale.sizes_seeds)),
        },
        claims=[claims.size_scaling("size")],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
