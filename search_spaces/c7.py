"""Must the complexity of automata match the text: do texts that compress less gain from automata that do (C7)?

Arms: text after automata of every band, for every text, against scratch on that text. Decided by one contrast fixed
here: per seed, the slope of the loss gap on the measured gzip ratio of the automata, mean over web and math less that
of code, above 0. Which band is best for which text is no test: read off as a maximum it differs by chance alone.

A laptop without a network has no prose of that size. Its texts are Python source and the C++ headers that PyTorch
brings, both code: pieces of 1,440 bytes gzip to .41 and .37, so Python is on the side that should gain from
complexity. They are so near each other that a contrast of 0 says little. The headers are read twice.
"""

from ray import tune

from harness import arms, claims
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.space import Study

LESS_COMPRESSIBLE = ("web", "math", "python")
MORE_COMPRESSIBLE = ("code", "headers")


def at(scale):
    def scratch(domain, seed):
        return arms.scratch(scale, seed, domain=domain)

    def nca(domain, band, seed):
        return arms.nca(scale, seed, domain=domain, band=band)

    high, low = ([d for d in scale.texts if d in side] for side in (LESS_COMPRESSIBLE, MORE_COMPRESSIBLE))
    return Study(
        name=f"c7_{scale.name}",
        question=__doc__,
        baseline=scratch,
        arms=[nca],
        over={
            "domain": tune.grid_search(high + low),
            "band": tune.grid_search(list(scale.bands)),
            "seed": tune.grid_search(list(scale.seeds)),
        },
        claims=[claims.matching(high, low)],
    )


laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
study = gpu_day
