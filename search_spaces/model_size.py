"""Does the speedup from NCA pre-pre-training grow, stay or fade with model size, at 20 tokens a parameter?

Shapes: 100M, 400M (24 x 1024), 600M and the paper's 1.6B (24 x 2048); NCA tokens are the paper's share of the text
(164M to 9B, 1.8 %).
"""

from ray import tune

from harness.corpora import OPENWEBTEXT
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

SIZES = {
    "100M": (Llama(depth=12, width=768, heads=12, mlp=3072), 1e-3),
    "400M": (Llama(depth=24, width=1024, heads=16, mlp=4096), 8e-4),
    "600M": (Llama(depth=24, width=1280, heads=20, mlp=5120), 6e-4),
    "1.6B": (Llama(depth=24, width=2048, heads=32, mlp=8192), 5e-4),
}


def scratch(size, seed):
    model, lr = SIZES[size]
    tokens = 20 * model.body_params
    recipe = Recipe(lr=lr, warmup=tokens // 10, weight_decay=1e-4, precision="bf16")
    return Train(Corpus(OPENWEBTEXT, seed, epochs=4), tokens, model, recipe, seed)


def nca(size, seed):
    model, _ = SIZES[size]
    tokens = 20 * model.body_params * 164 // 9000
    recipe = Recipe(lr=1e-4, batch=32, warmup=tokens // 10, clip=None, precision="bf16")
    warm = Train(Corpus(NCA(band=(0.5, 1.0)), seed), tokens, model, recipe, seed)
    return scratch(size, seed).after(warm)


study = Study(
    name="model_size",
    question=__doc__,
    baseline=scratch,
    arms=[nca],
    over={"size": tune.grid_search(list(SIZES)), "seed": tune.grid_search([0, 1, 2, 3])},
)
