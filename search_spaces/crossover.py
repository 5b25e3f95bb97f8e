"""Given more text, does NCA pre-pre-training overtake a tuned start from scratch?

3.7M tokens of Python source after 0.8M NCA tokens, each with the best of the settings that were tried for it on a seed
that this study does not use. `longer` is scratch with the NCA tokens added to its text: the price of the first stage.
`wide` is scratch with the recipe that is best for NCA: a baseline that was not tuned for itself.
"""

# Tried on seed 100, held-out nats after 3.69M text tokens (initial std of blocks / embeddings):
#   scratch .02 / .02  at lr 6e-3 2.585, at 1e-2 2.589;  .05 / .075 at 1e-2 2.587
#   NCA     .05 / .075 at lr 1e-2 2.423, at 1.5e-2 2.439
# The text has 4.33M training tokens, so the last 4 % of `longer` are seen a second time (epochs=2).

from ray import tune

from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.space import Study
from harness.specs import Corpus, Evaluation, Llama, Recipe, Train, Transfer

TEXT = Text.stdlib(tokenizer=BPE(512))
AUTOMATA = NCA(states=2, grid=8, patch=2, band=(0.08, 0.21))
TEXT_TOKENS = 3_686_400
NCA_TOKENS = 819_200


def train(source, tokens, seed, scale, lr):
    blocks, embeddings = scale
    model = Llama(depth=3, width=64, heads=4, mlp=160, context=256, init_std=blocks, embed_std=embeddings)
    recipe = Recipe(lr=lr, batch=8, warmup=tokens // 10, final_lr=0.1, weight_decay=0.1)
    return Train(Corpus(source, seed, epochs=2), tokens, model, recipe, seed, Evaluation(points=32, sequences=96))


def scratch(seed):
    return train(TEXT, TEXT_TOKENS, seed, scale=(0.02, 0.02), lr=6e-3)


def longer(seed):
    return train(TEXT, TEXT_TOKENS + NCA_TOKENS, seed, scale=(0.02, 0.02), lr=6e-3)


def wide(seed):
    return train(TEXT, TEXT_TOKENS, seed, scale=(0.05, 0.075), lr=1e-2)


def nca(seed):
    return wide(seed).after(train(AUTOMATA, NCA_TOKENS, seed, scale=(0.05, 0.075), lr=6e-3))


def permuted(seed):
    return wide(seed).after(nca(seed).init, Transfer(blocks="permuted"))


study = Study(
    name="crossover",
    question=__doc__,
    baseline=scratch,
    arms=[nca, permuted, longer, wide],
    over={"seed": tune.grid_search([0, 1, 2, 3, 4])},
)
