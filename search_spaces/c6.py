"""Does attention carry the gain (C6)?

The factorial of three modules, attention x MLPs x norms, each kept or made anew after the automata, every cell against
scratch. Embeddings are made anew in all of them, so a cell with one module kept is a transplant of it alone, and with
none kept the scale of the embeddings is all that is left. Decided by main effects on the paired loss gap, per seed:
that of attention above 0, and above those of MLPs and of norms, Holm over the three.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study
from harness.specs import Transfer

MODULES = ("attention", "mlp", "norms")


def at(scale):
    def scratch(seed):
        return arms.scratch(scale, seed)

    def nca(attention, mlp, norms, seed):
        fates = zip(MODULES, (attention, mlp, norms), strict=True)
        kept = [module for module, fate in fates if fate == "kept"]
        return arms.nca(scale, seed, transfer=Transfer.only(*kept))

    return Study(
        name=f"c6_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca],
        over={module: tune.grid_search(["kept", "new"]) for module in MODULES}
        | {"seed": tune.grid_search(list(scale.seeds))},
        claims=[claims.attention(others=["mlp", "norms"])],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
