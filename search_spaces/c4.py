"""Do automata help more than bracket languages (C4)?

Arms: text after automata, after k-Dyck (nested brackets), after k-shuffle-Dyck (interleaved), each on equally many
tokens, and after k-Dyck on as many supervised targets: the first frame of a sequence of automata is not supervised, so
that is 4 % fewer tokens (7 % on the laptop). k is the paper's 128, 4 on the laptop. Decided by the paired loss gap of
automata to each, at equal text: above 0 and at least .01 nats, Holm over all controls and texts.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.sources.dyck import Dyck
from harness.space import Study


def at(scale):
    size = scale.sizes[scale.size]
    context = size.synthetic.model.context
    supervised = context - (scale.automata.frame_tokens - 1)

    def after(source, domain, seed, tokens=size.nca_tokens):
        return arms.treated(scale, arms.first(scale, source, seed, tokens), seed, domain=domain)

    def scratch(domain, seed):
        return arms.scratch(scale, seed, domain=domain)

    def nca(domain, seed):
        return arms.nca(scale, seed, domain=domain)

    def dyck(domain, seed):
        return after(Dyck(scale.dyck), domain, seed)

    def dyck_equal_targets(domain, seed):
        return after(Dyck(scale.dyck), domain, seed, size.nca_tokens * supervised // context)

    def shuffle_dyck(domain, seed):
        return after(Dyck(scale.dyck, interleaved=True), domain, seed)

    return Study(
        name=f"c4_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, dyck, dyck_equal_targets, shuffle_dyck],
        over={"domain": tune.grid_search(list(scale.headline)), "seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.beats_dyck(dycks=["dyck", "dyck_equal_targets", "shuffle_dyck"])],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
