"""How much text do NCA tokens save, over budgets of both, complexity, model size and kind of text?

The full grid: five budgets of NCA tokens (a quarter to twice the paper's 1.8 % of the text), four bands of complexity,
three sizes (1 : 4 : 16, at 20 tokens a parameter), four seeds, four kinds of text, read at five budgets of text. Every
schedule is warmup, stable, decay, so that budgets of either kind are branches of one run. Look at `plan` before `run`.
"""

from ray import tune

from harness.corpora import CODEPARROT, OPENWEBMATH, OPENWEBTEXT
from harness.sources.nca import NCA
from harness.sources.text import Text
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train

# Where 20 tokens a parameter are more than a corpus has, it is read again (`epochs`).
DOMAINS = {
    "web": OPENWEBTEXT,
    "math": OPENWEBMATH,
    "code": CODEPARROT,
    "stories": Text("roneneldan/TinyStories", held_out=0.0005),
}
SIZES = {
    "100M": (Llama(depth=12, width=768, heads=12, mlp=3072), 1e-3),
    "400M": (Llama(depth=24, width=1024, heads=16, mlp=4096), 8e-4),
    "1.6B": (Llama(depth=24, width=2048, heads=32, mlp=8192), 5e-4),
}
BANDS = [(0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 1.0)]
PAPERS_SHARE = 164 / 9000


def scratch(size, domain, text, seed):
    model, lr = SIZES[size]
    longest = 20 * model.body_params
    recipe = Recipe(lr=lr, schedule="wsd", warmup=longest // 50, weight_decay=1e-4, precision="bf16")
    return Train(Corpus(DOMAINS[domain], seed, epochs=64), int(text * longest), model, recipe, seed)


def nca(size, domain, text, band, automata, seed):
    model, _ = SIZES[size]
    share = PAPERS_SHARE * 20 * model.body_params
    recipe = Recipe(lr=1e-4, batch=32, schedule="wsd", warmup=int(share / 20), clip=None, precision="bf16")
    warm = Train(Corpus(NCA(band=band), seed), int(automata * share), model, recipe, seed)
    return scratch(size, domain, text, seed).after(warm)


study = Study(
    name="grid",
    question=__doc__,
    baseline=scratch,
    arms=[nca],
    over={
        "size": tune.grid_search(list(SIZES)),
        "domain": tune.grid_search(list(DOMAINS)),
        "text": tune.grid_search([0.3, 0.45, 0.6, 0.8, 1.0]),
        "band": tune.grid_search(BANDS),
        "automata": tune.grid_search([0.25, 0.5, 1.0, 1.5, 2.0]),
        "seed": tune.grid_search([0, 1, 2, 3]),
    },
)
