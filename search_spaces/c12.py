"""Do more distinct rules help more (C12)?

Arms: text after automata whose sequences run a fixed bank of 1, 100, 1,000 or 16,000 rules, each sequence from a start
of its own, and after a fresh rule for every sequence (`nca`). On the laptop a first stage has 3,200 sequences, so that
the banks are of 1, 10, 100 and 1,000 rules. Decided by the paired loss gap of fresh rules to each bank: above 0 and at
least .01 nats for one of them, Holm over the banks. No slope along the banks is tested, since a first stage on few
rules is not learned on rules that it never saw, and an arm that was not learned supports nothing.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study


def at(scale):
    def scratch(seed):
        return arms.scratch(scale, seed)

    def nca(seed):
        return arms.nca(scale, seed)

    def bank(rules, seed):
        return arms.nca(scale, seed, rules=rules)

    return Study(
        name=f"c12_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, bank],
        over={"rules": tune.grid_search(list(scale.banks)), "seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.rule_diversity()],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
