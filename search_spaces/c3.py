"""Do automata help more than ten times as many tokens of natural text (C3)?

Arms: text after automata; after as many tokens, and ten times as many, of natural text (C4), with the embeddings made
anew as after automata (`text`) or kept (`text_kept`); and scratch with those tokens added to its own text (`longer`).
Decided by the paired loss gap at equal text, a row a text, budget and control: above 0 and at least .01 nats, Holm
over all. `longer` ends at another text budget, so no claim rests on it: the report reads from it how much text the
automata were worth. On the laptop natural text is the study's own, in another order, and as many tokens as automata
alone: .82M and 3.69M of it are 4 % more than it has.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study
from harness.specs import Transfer


def at(scale):
    tokens = scale.sizes[scale.size].nca_tokens

    def scratch(domain, seed):
        return arms.scratch(scale, seed, domain=domain)

    def nca(domain, seed):
        return arms.nca(scale, seed, domain=domain)

    def text(domain, times, seed):
        return arms.treated(scale, arms.first_on_text(scale, seed, times * tokens), seed, domain=domain)

    def text_kept(domain, times, seed):
        warm = arms.first_on_text(scale, seed, times * tokens)
        return arms.treated(scale, warm, seed, domain=domain, transfer=Transfer(reinit=()))

    def longer(domain, times, seed):
        return arms.scratch(scale, seed, domain=domain, more=times * tokens)

    return Study(
        name=f"c3_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, text, text_kept, longer],
        over={
            "domain": tune.grid_search(list(scale.headline)),
            "times": tune.grid_search(list(scale.warm_budgets)),
            "seed": tune.grid_search(list(scale.seeds)),
        },
        claims=[claims.beats_text(texts=["text", "text_kept"])],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
