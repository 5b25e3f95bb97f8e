"""Do automata before text lower the final perplexity (C1), and by how much do they speed up training on text (C2)?

Arms: text from scratch, and text after automata; C2-net puts the automata on the bill. `study` has the protocol of the
paper (Lee, Han, Kumar, Agrawal, 2026, arXiv 2603.10055) at its 1.6B model and its three texts, `released` that of the
code that came with it; every difference between the two is a setting of `Protocol`. The paper has one run an arm, here
are five pairs. Both have one cosine horizon, so their verdicts are indications. `laptop` is one too; `gpu_day` and
`gpu64_week` train each arm to five decayed text budgets, which is what a verdict on a speedup needs.
"""

# What cannot be said here: the release trains in fp16 (bf16 stands in for it), and it reads a bank of 16,000 finished
# trajectories again and again, where a bank here is 16,000 rules, each sequence with a start of its own.

from dataclasses import dataclass

from ray import tune

from harness import arms, claims
from harness.corpora import CODEPARROT, OPENWEBMATH, OPENWEBTEXT
from harness.scales import GPU64_WEEK, GPU_DAY, LAPTOP
from harness.sources.nca import NCA
from harness.space import Study
from harness.specs import Corpus, Llama, Recipe, Train


@dataclass(frozen=True)
class Protocol:
    """Settings in which paper and release differ."""

    batch: int  # sequences of automata a step
    temperature: float
    start: str  # the first grid: i.i.d. uniform cells, or one draw of state frequencies for all cells
    rules: int | None  # None: a fresh rule for every sequence
    horizon: int | None  # where the first stage's schedule ends; None: with its tokens, so that it is annealed
    tied: bool  # whether embedding and head are one matrix
    io_width: int | None  # rows of embedding and head; None: the vocabulary, 10,002 for the automata
    attention_dropout: float


NCA_TOKENS = 163_840_000
PUBLISHED = Protocol(
    batch=16, temperature=1e-3, start="uniform", rules=None, horizon=None, tied=True, io_width=None,
    attention_dropout=0.0,
)  # fmt: skip
RELEASED = Protocol(
    batch=32, temperature=1e-4, start="shared_categorical", rules=16_000, horizon=10 * NCA_TOKENS, tied=False,
    io_width=64_000, attention_dropout=0.1,
)  # fmt: skip
# Text, its tokens, the learning rate, its warmup in tokens, weight decay, and the band that is best for it. The weight
# decay for math is not published; it is that for the web.
STEP = 512 * 1024
TEXTS = {
    "web": (OPENWEBTEXT, 9_000_000_000, 5e-4, 900_000_000, 1e-4, (0.5, 1.0)),
    "math": (OPENWEBMATH, 4_200_000_000, 5e-4, 420_000_000, 1e-4, (0.5, 1.0)),
    "code": (CODEPARROT, 12_600_000_000, 2e-4, 750 * STEP, 0.0, (0.3, 0.4)),
}


def full_size(name, protocol):
    model = Llama(tied=protocol.tied, io_width=protocol.io_width)
    shared = {"precision": "bf16", "attention_dropout": protocol.attention_dropout}

    def scratch(domain, seed):
        text, tokens, lr, warmup, decay, _ = TEXTS[domain]
        recipe = Recipe(lr=lr, warmup=warmup, weight_decay=decay, **shared)
        return Train(Corpus(text, seed, epochs=2), tokens, model, recipe, seed)  # 2: where a corpus has less than that

    def nca(domain, seed):
        *_, band = TEXTS[domain]
        source = NCA(band=band, temperature=protocol.temperature, start=protocol.start, rules=protocol.rules)
        # In the release the 164M tokens are the warmup of a schedule of 1.64B.
        warmup = (protocol.horizon or NCA_TOKENS) // 10
        recipe = Recipe(lr=1e-4, batch=protocol.batch, warmup=warmup, horizon=protocol.horizon, clip=None, **shared)
        return scratch(domain, seed).after(Train(Corpus(source, seed), NCA_TOKENS, model, recipe, seed))

    over = {"domain": tune.grid_search(list(TEXTS)), "seed": tune.grid_search([0, 1, 2, 3, 4])}
    return said(name, scratch, nca, over)


def at(scale):
    def scratch(domain, text, seed):
        return arms.scratch(scale, seed, text, domain)

    def nca(domain, text, seed):
        return arms.nca(scale, seed, text, domain)

    over = {
        "domain": tune.grid_search(list(scale.headline)),
        "text": tune.grid_search(list(scale.endpoints)),
        "seed": tune.grid_search(list(scale.seeds)),
    }
    return said(f"paper_{scale.name}", scratch, nca, over)


def said(name, scratch, nca, over):
    return Study(
        name=name,
        question=__doc__,
        baseline=scratch,
        arms=[nca],
        over=over,
        claims=[claims.perplexity(), claims.speedup(), claims.net_speedup()],
    )


study = full_size("paper_published", PUBLISHED)
released = full_size("paper_released", RELEASED)
laptop = at(LAPTOP)
gpu_day = at(GPU_DAY)
gpu64_week = at(GPU64_WEEK)
