"""Is the gain an artefact of the first stage's schedule (C11)?

Arms: text after automata that are annealed to the end of their budget (`nca`), after as many tokens that end with the
warmup of a ten times longer cosine (`warmup_end`, the paper's checkpoint), and after one step of that warmup
(`untrained`): a stage has at least one step, and at a learning rate next to nothing it is as good as none, which
leaves what the transfer itself does. Decided by two paired loss gaps: annealed above scratch, and warmup end above
untrained; each above 0 and at least .01 nats, Holm over both.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study


def at(scale):
    size = scale.sizes[scale.size]
    warmup = {"schedule": "cosine", "warmup": size.nca_tokens, "horizon": 10 * size.nca_tokens, "final_lr": 0.0}

    def scratch(seed):
        return arms.scratch(scale, seed)

    def nca(seed):
        return arms.nca(scale, seed)

    def warmup_end(seed, tokens=size.nca_tokens):
        warm = arms.first(scale, arms.automata(scale), seed, tokens, recipe=warmup)
        return arms.treated(scale, warm, seed)

    def untrained(seed):
        recipe = size.synthetic.recipe(size.nca_tokens)
        return warmup_end(seed, recipe.batch * size.synthetic.model.context)

    return Study(
        name=f"c11_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, warmup_end, untrained],
        over={"seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.not_the_schedule("warmup_end", "nca", "untrained")],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
