"""Three scales at which the paper's claims are asked: a laptop, one GPU for a day, 64 GPUs for a week.

A scale is all that differs between the studies of a claim: sizes with their recipes, texts, automata, budgets, seeds.
`harness.arms` makes the stages. Sizes and designs are those of the hub and spoke: most claims are asked at the first
size and the first text of a scale, so that they share scratch and the NCA arm; C9 alone goes over all sizes.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.corpora import C4, CODEPARROT, OPENWEBMATH, OPENWEBTEXT
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.specs import Evaluation, Llama, Recipe

Band = tuple[float, float]
TOKENS_PER_PARAMETER = 20
"""Of the longest text budget, after Hoffmann et al. (2022), arXiv 2203.15556."""


@dataclass(frozen=True)
class Tuned:
    """A model with the initial scale, and the recipe of a stage of so many tokens, that one kind of stage has."""

    model: Llama
    recipe: Callable[[int], Recipe]


@dataclass(frozen=True)
class Size:
    """A shape of model: what text from `scratch`, a first stage on `synthetic` tokens and text that is `treated` by a
    first stage are trained with, the longest text budget, and the tokens of the first stage."""

    scratch: Tuned
    synthetic: Tuned
    treated: Tuned
    text_tokens: int
    nca_tokens: int


@dataclass(frozen=True)
class Scale:
    """What the studies of one scale have in common. Of `sizes` and `texts` the first is where most claims are asked."""

    name: str
    sizes: Mapping[str, Size]
    texts: Mapping[str, Text]
    warm_text: Text
    """Natural text for a first stage."""
    automata: NCA
    """Without a band: all other settings of the automata."""
    bands: Sequence[Band]
    """Of gzip ratios, ascending."""
    band_for: Mapping[str, Band]
    """The band of the NCA arm, by text."""
    alphabets: Mapping[int, Band]
    """Alphabets with the band that has the same gzip ratio relative to that of i.i.d. tokens as the first text's."""
    seeds: Sequence[int]
    endpoints: Sequence[float]
    """Text budgets as shares of the longest, each with a decay of its own."""
    sizes_endpoints: Sequence[float]
    """The same for the claim about sizes."""
    sizes_seeds: Sequence[int]
    sizes_text: str
    """The text that lasts for the largest size."""
    headline: Sequence[str]
    """Texts of the headline claims."""
    budgets: Sequence[float]
    """Budgets of NCA tokens as multiples of `Size.nca_tokens`."""
    warm_budgets: Sequence[int]
    """Budgets of natural text for a first stage, as multiples of the same."""
    banks: Sequence[int]
    """Numbers of distinct rules, fewer than a first stage has sequences."""
    dyck: int
    """Types of brackets."""
    epochs: int = 1
    """How often a text may be read."""
    evaluation: Evaluation = field(default_factory=Evaluation)

    @property
    def size(self) -> str:
        """The size at which most claims are asked."""
        return next(iter(self.sizes))

    @property
    def domain(self) -> str:
        """The text that most claims are asked of."""
        return next(iter(self.texts))


def _cosine(lr: float) -> Callable[[int], Recipe]:
    return lambda tokens: Recipe(lr=lr, batch=8, warmup=tokens // 10, final_lr=0.1, weight_decay=0.1)


def _small(shape: Llama, text_tokens: int = 3_686_400, nca_tokens: int = 819_200) -> Size:
    """The best of what was tried for each arm at 0.14M parameters (search_spaces/crossover.py has the trials)."""
    wide = replace(shape, init_std=0.05, embed_std=0.075)
    return Size(
        Tuned(shape, _cosine(6e-3)), Tuned(wide, _cosine(6e-3)), Tuned(wide, _cosine(1e-2)), text_tokens, nca_tokens
    )


def _tokens_a_parameter(shape: Llama, lr: float, nca_lr: float, batch: int, share: float) -> Size:
    """20 text tokens a parameter, and NCA tokens that are `share` of those. Warmup, stable, decay (20 %, 1 - sqrt), so
    that budgets of either kind are branches of one run; the warmup is a fiftieth of the longest text, a twentieth of
    the NCA tokens."""
    text_tokens = TOKENS_PER_PARAMETER * shape.body_params
    nca_tokens = round(share * text_tokens)
    text = Recipe(lr, batch, "wsd", text_tokens // 50, weight_decay=0.1, precision="bf16")
    first = Recipe(nca_lr, 32, "wsd", nca_tokens // 20, clip=None, precision="bf16")
    on_text, on_nca = Tuned(shape, lambda tokens: text), Tuned(shape, lambda tokens: first)
    return Size(on_text, on_nca, on_text, text_tokens, nca_tokens)


def _headers() -> Text:
    """The C++ headers that PyTorch brings: code in another language that lies where the harness is installed."""
    found = importlib.util.find_spec("torch")
    place = Path(found.origin).parent if found and found.origin else Path("torch")
    return Text.local(place / "include" / "torch", tokenizer=BPE(512))


PYTHON = Text.stdlib(tokenizer=BPE(512))
PAPER_BANDS = ((0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 1.0))
PAPER_BAND_FOR = {"web": (0.5, 1.0), "math": (0.5, 1.0), "code": (0.3, 0.4), "c4": (0.5, 1.0)}
# i.i.d. tokens gzip to .25, .67 and .73 at 2, 10 and 15 states.
PAPER_ALPHABETS = {2: (0.19, 1.0), 10: (0.5, 1.0), 15: (0.545, 1.0)}
DECAYED = (0.3, 0.45, 0.6, 0.8, 1.0)

LAPTOP = Scale(
    name="laptop",
    sizes={
        "0.14M": _small(Llama(depth=3, width=64, heads=4, mlp=160, context=256)),
        "0.03M": _small(Llama(depth=2, width=32, heads=4, mlp=96, context=256)),
        "0.44M": _small(Llama(depth=4, width=96, heads=6, mlp=256, context=256)),
    },
    texts={"python": PYTHON, "headers": _headers()},
    warm_text=PYTHON,
    automata=NCA(states=2, grid=8, patch=2),
    bands=((0.04, 0.08), (0.08, 0.21), (0.21, 0.3)),
    band_for={"python": (0.08, 0.21), "headers": (0.08, 0.21)},
    alphabets={2: (0.08, 0.21), 10: (0.21, 0.56), 15: (0.23, 0.61)},
    seeds=(0, 1, 2, 3, 4),
    endpoints=(1.0,),
    sizes_endpoints=(0.5, 1.0),
    sizes_seeds=(0, 1, 2, 3, 4),
    sizes_text="python",
    headline=("python",),
    budgets=(0.5, 1.0, 2.0),
    warm_budgets=(1,),
    banks=(1, 10, 100, 1000),
    dyck=4,
    epochs=2,
)
"""Cosine schedules, one horizon: an indication at most. Two cores, an hour for 25 runs."""

GPU_DAY = Scale(
    name="gpu_day",
    sizes={
        "10M": _tokens_a_parameter(Llama(depth=6, width=384, heads=6, mlp=1024), 3e-3, 1e-3, batch=64, share=0.2),
        "30M": _tokens_a_parameter(Llama(depth=9, width=512, heads=8, mlp=1536), 2e-3, 7e-4, batch=128, share=0.2),
        "60M": _tokens_a_parameter(Llama(depth=12, width=640, heads=10, mlp=1728), 1.5e-3, 5e-4, batch=128, share=0.2),
    },
    texts={"web": OPENWEBTEXT, "math": OPENWEBMATH, "code": CODEPARROT},
    warm_text=replace(C4, documents=5_000_000),
    automata=NCA(),
    bands=PAPER_BANDS,
    band_for=PAPER_BAND_FOR,
    alphabets=PAPER_ALPHABETS,
    seeds=(0, 1, 2, 3, 4, 5),
    endpoints=DECAYED,
    sizes_endpoints=DECAYED,
    sizes_seeds=(0, 1, 2, 3),
    sizes_text="web",
    headline=("web", "math", "code"),
    budgets=(0.25, 0.5, 1.0, 2.0, 4.0),
    warm_budgets=(1, 10),
    banks=(1, 100, 1000, 16_000),
    dyck=128,
    evaluation=Evaluation(points=32, sequences=256),
)
"""A first stage of a fifth of the text, since that of the paper, 1.8 %, is too short for a small model to learn it."""

GPU64_WEEK = replace(
    GPU_DAY,
    name="gpu64_week",
    sizes={
        "150M": _tokens_a_parameter(Llama(depth=16, width=768, heads=12, mlp=3072), 1e-3, 3e-4, batch=256, share=0.05),
        "400M": _tokens_a_parameter(Llama(depth=24, width=1024, heads=16, mlp=4096), 8e-4, 2e-4, batch=512, share=0.05),
        "1.2B": _tokens_a_parameter(Llama(depth=24, width=1792, heads=28, mlp=7168), 5e-4, 1e-4, batch=512, share=0.05),
    },
    texts={"web": OPENWEBTEXT, "math": OPENWEBMATH, "code": CODEPARROT, "c4": C4},
    seeds=(0, 1, 2, 3, 4),
    sizes_endpoints=(*DECAYED, 2.0),
    sizes_text="c4",
    headline=("web", "math", "code", "c4"),
    budgets=(0.25, 0.5, 1.0, 2.0),
    epochs=2,
    evaluation=Evaluation(points=32, sequences=1024),
)
"""The learning rates of this scale and the last are starting points: tune them on scratch and per arm before spending
(`Study(search=...)`)."""
