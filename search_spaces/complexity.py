"""Which complexity of automata speeds up language pre-training most, and does it hold as models grow?

The paper's protocol (arXiv 2603.10055) at three of its depths: 164M NCA tokens that end with the warmup of a
1.64B-token schedule, then OpenWebText, with a band of gzip ratios an arm. Depths 6, 12 and 24 at width 2048.
"""

from ray import tune

from harness.corpora import OPENWEBTEXT
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

BANDS = [(0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 1.0)]
TEXT_TOKENS = 9_000_000_000
NCA_TOKENS = 163_840_000
NCA_HORIZON = 1_638_400_000


def scratch(depth, seed):
    recipe = Recipe(lr=5e-4, warmup=TEXT_TOKENS // 10, weight_decay=1e-4, precision="bf16")
    return Train(Corpus(OPENWEBTEXT, seed), TEXT_TOKENS, Llama(depth=depth), recipe, seed)


def nca(depth, band, seed):
    recipe = Recipe(lr=1e-4, batch=32, warmup=NCA_TOKENS, horizon=NCA_HORIZON, clip=None, precision="bf16")
    warm = Train(Corpus(NCA(band=band), seed), NCA_TOKENS, Llama(depth=depth), recipe, seed)
    return scratch(depth, seed).after(warm)


study = Study(
    name="complexity",
    question=__doc__,
    baseline=scratch,
    arms=[nca],
    over={
        "depth": tune.grid_search([6, 12, 24]),
        "band": tune.grid_search(BANDS),
        "seed": tune.grid_search([0, 1, 2, 3, 4]),
    },
)
