"""How many NCA tokens are worth training on before text: does more than the paper's 164M help?

The paper's budgets, 82M to 1.64B NCA tokens, each a run of its own 10 % warmup and cosine schedule, then OpenWebText.
"""

from ray import tune

from harness.corpora import OPENWEBTEXT
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

TEXT_TOKENS = 9_000_000_000
MODEL = Llama()


def scratch(seed):
    recipe = Recipe(lr=5e-4, warmup=TEXT_TOKENS // 10, weight_decay=1e-4, precision="bf16")
    return Train(Corpus(OPENWEBTEXT, seed), TEXT_TOKENS, MODEL, recipe, seed)


def nca(nca_tokens, seed):
    recipe = Recipe(lr=1e-4, batch=32, warmup=nca_tokens // 10, clip=None, precision="bf16")
    warm = Train(Corpus(NCA(band=(0.5, 1.0)), seed), nca_tokens, MODEL, recipe, seed)
    return scratch(seed).after(warm)


study = Study(
    name="token_budget",
    question=__doc__,
    baseline=scratch,
    arms=[nca],
    over={
        "nca_tokens": tune.grid_search([81_920_000, 163_840_000, 327_680_000, 655_360_000, 1_638_400_000]),
        "seed": tune.grid_search([0, 1, 2, 3, 4]),
    },
)
