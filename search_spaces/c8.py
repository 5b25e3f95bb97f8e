"""Do more tokens of automata help more, and does it hold for alphabets of 2, 10 and 15 states (C8)?

Arms: text after automata at every budget, for every alphabet. The bands differ by alphabet: they have equal gzip
ratios relative to those of i.i.d. tokens of that alphabet, since the raw ratio does not carry over. Decided by the
slope, per seed, of the loss gap on ln of the tokens of automata, above 0, a row an alphabet, Holm over the three.
Budgets are branches of one run but on the laptop, where each is a cosine of its own.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study


def at(scale):
    tokens = scale.sizes[scale.size].nca_tokens

    def scratch(seed):
        return arms.scratch(scale, seed)

    def nca(states, nca_tokens, seed):
        source = arms.automata(scale, states=states, band=scale.alphabets[states])
        return arms.treated(scale, arms.first(scale, source, seed, nca_tokens), seed)

    return Study(
        name=f"c8_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca],
        over={
            "states": tune.grid_search(list(scale.alphabets)),
            "nca_tokens": tune.grid_search([int(budget * tokens) for budget in scale.budgets]),
            "seed": tune.grid_search(list(scale.seeds)),
        },
        claims=[claims.token_scaling()],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
