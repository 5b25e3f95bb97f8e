"""Does NCA before Python source still pay, or hurt, when every arm has a learning rate of its own?

The arms of `smoke`. Each gets the best of five learning rates for text, found on a seed and on held-out sequences that
the study does not use, with as many trials for scratch as for the others.
"""

from ray import tune

from harness.search import Search
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer

TEXT = Text.stdlib(tokenizer=BPE(512))
AUTOMATA = NCA(states=2, grid=8, patch=2, band=(0.08, 0.21))
MODEL = Llama(depth=3, width=64, heads=4, mlp=160, context=256, init_std=0.05, embed_std=0.075)
NCA_TOKENS = 360_000
TEXT_TOKENS = 500_000


def recipe(tokens, lr):
    return Recipe(lr=lr, batch=8, warmup=tokens // 10, final_lr=0.1, weight_decay=0.1)


def scratch(seed, lr):
    return Train(
        Corpus(TEXT, seed), TEXT_TOKENS, MODEL, recipe(TEXT_TOKENS, lr), seed, Evaluation(points=14, sequences=32)
    )


def warm(seed):
    return Train(
        Corpus(AUTOMATA, seed), NCA_TOKENS, MODEL, recipe(NCA_TOKENS, 6e-3), seed, Evaluation(points=8, sequences=32)
    )


def nca(seed, lr):
    return scratch(seed, lr).after(warm(seed))


def permuted(seed, lr):
    return scratch(seed, lr).after(warm(seed), Transfer(blocks="permuted"))


study = Study(
    name="tuned",
    question=__doc__,
    baseline=scratch,
    arms=[nca, permuted],
    over={"seed": tune.grid_search([0, 1, 2, 3])},
    search=Search({"lr": tune.grid_search([2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2])}, seeds=[100]),
)
