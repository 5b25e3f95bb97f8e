"""Does the result hang on settings that the paper and its release choose differently, or do not name (C13)?

Arms: the NCA arm with one setting changed alone. Of the automata: the temperature of the paper and of the release
(argmax else), the release's first grid. Of the first stage: the other precision, clipping or none, attention dropout
.1, rows of embedding and head beyond the vocabulary (as many times as the release has, 6.4). Of the transfer: new
embeddings at a standard deviation of .02 instead of that of the trained ones. Decided by each arm's paired loss gap to
the NCA arm: alike if its interval lies within .01 nats of 0, Holm over the settings. Weight tying is not among them:
it changes the text stage too, and so scratch (`paper.py:released` has it).
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study
from harness.specs import Transfer


def at(scale):
    size = scale.sizes[scale.size]
    own = size.synthetic.recipe(size.nca_tokens)

    def trained(seed, **changes):
        return arms.treated(scale, arms.first(scale, arms.automata(scale), seed, **changes), seed)

    def scratch(seed):
        return arms.scratch(scale, seed)

    def nca(seed):
        return arms.nca(scale, seed)

    def temperature_paper(seed):
        return arms.nca(scale, seed, temperature=1e-3)

    def temperature_release(seed):
        return arms.nca(scale, seed, temperature=1e-4)

    def shared_start(seed):
        return arms.nca(scale, seed, start="shared_categorical")

    def other_precision(seed):
        return trained(seed, recipe={"precision": "bf16" if own.precision == "fp32" else "fp32"})

    def other_clip(seed):
        return trained(seed, recipe={"clip": None if own.clip else 1.0})

    def dropout(seed):
        return trained(seed, recipe={"attention_dropout": 0.1})

    def wide_io(seed):
        return trained(seed, model={"io_width": scale.automata.vocab_size * 64 // 10})

    def small_embeddings(seed):
        return arms.nca(scale, seed, transfer=Transfer(embed_std=0.02))

    changed = [
        temperature_paper, temperature_release, shared_start, other_precision, other_clip, dropout, wide_io,
        small_embeddings,
    ]  # fmt: skip
    return Study(
        name=f"c13_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca, *changed],
        over={"seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.nuisances([arm.__name__ for arm in changed])],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
