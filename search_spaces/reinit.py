"""Which part of what automata teach carries over to text: attention, MLPs or norms?

The factorial of three modules, each kept or re-initialised after the NCA stage, every cell against scratch. Embeddings
are made anew in all of them, so one kept module is a transplant, and with none kept only the embeddings' scale is left.
`study` has the paper's setting (arXiv 2603.10055), `laptop` the smoke study's size.
"""

from ray import tune

from harness.corpora import OPENWEBTEXT
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer

TEXT_TOKENS = 9_000_000_000
NCA_TOKENS = 163_840_000
NCA_HORIZON = 1_638_400_000
MODEL = Llama()

SMALL = Llama(depth=3, width=64, heads=4, mlp=160, context=256, init_std=0.05, embed_std=0.075)
SMALL_TEXT_TOKENS = 500_000
SMALL_NCA_TOKENS = 360_000

KEPT_OR_NOT = {module: tune.grid_search(["kept", "new"]) for module in ("attention", "mlp", "norms")}


def transplant(**modules):
    return Transfer.only(*(module for module, fate in modules.items() if fate == "kept"))


def scratch(seed):
    recipe = Recipe(lr=5e-4, warmup=TEXT_TOKENS // 10, weight_decay=1e-4, precision="bf16")
    return Train(Corpus(OPENWEBTEXT, seed), TEXT_TOKENS, MODEL, recipe, seed)


def nca(attention, mlp, norms, seed):
    recipe = Recipe(lr=1e-4, batch=32, warmup=NCA_TOKENS, horizon=NCA_HORIZON, clip=None, precision="bf16")
    warm = Train(Corpus(NCA(band=(0.5, 1.0)), seed), NCA_TOKENS, MODEL, recipe, seed)
    return scratch(seed).after(warm, transplant(attention=attention, mlp=mlp, norms=norms))


def small(source, tokens, lr, seed, points):
    recipe = Recipe(lr=lr, batch=8, warmup=tokens // 10, final_lr=0.1, weight_decay=0.1)
    return Train(Corpus(source, seed), tokens, SMALL, recipe, seed, Evaluation(points=points, sequences=32))


def small_scratch(seed):
    return small(Text.stdlib(tokenizer=BPE(512)), SMALL_TEXT_TOKENS, 1e-2, seed, points=14)


def small_nca(attention, mlp, norms, seed):
    warm = small(NCA(states=2, grid=8, patch=2, band=(0.08, 0.21)), SMALL_NCA_TOKENS, 6e-3, seed, points=8)
    return small_scratch(seed).after(warm, transplant(attention=attention, mlp=mlp, norms=norms))


study = Study(
    name="reinit",
    question=__doc__,
    baseline=scratch,
    arms=[nca],
    over=KEPT_OR_NOT | {"seed": tune.grid_search([0, 1, 2, 3, 4])},
)

laptop = Study(
    name="reinit_laptop",
    question=__doc__,
    baseline=small_scratch,
    arms=[small_nca],
    over=KEPT_OR_NOT | {"seed": tune.grid_search([0, 1, 2, 3])},
)
