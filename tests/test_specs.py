"""Runs as values: what makes two of them the same artifact, what is refused, and what they say of themselves."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import model
from harness.errors import InputError
from harness.modules import MODULES
from harness.sources.nca import NCA
from harness.sources.text import BPE, Pretrained, Text
from harness.specs import (
    IDENTITY_FREE,
    Corpus,
    Evaluation,
    Llama,
    Recipe,
    Train,
    Transfer,
    canonical,
    differences,
    digest,
    parents,
)

WARM = Train(
    Corpus(NCA(band=(0.2, 0.3)), 1), 164_000_000, Llama(), Recipe(lr=1e-4, warmup=16_400_000), seed=1
)  # fmt: skip
WEB = Text("Skylion007/openwebtext", revision="0" * 40, tokenizer=Pretrained("openai-community/gpt2", 50257, "1" * 40))
SCRATCH = Train(Corpus(WEB), 2_000_000_000, Llama(), Recipe(lr=6e-4, horizon=2**32), seed=1)

SMALL = Llama(depth=2, width=16, heads=2, mlp=24, context=32)
STEP = 8 * 32


def small(**changes: Any) -> Train:
    values: dict[str, Any] = {"corpus": Corpus(NCA(grid=8)), "tokens": 10 * STEP, "model": SMALL}
    return Train(**(values | {"recipe": Recipe(lr=1e-3, batch=8)} | changes))


@dataclass(frozen=True)
class Anything:
    """A value that a search space might define."""

    value: Any
    where: Any = field(default=None, metadata=IDENTITY_FREE)


def versioned(number: int) -> Any:
    kind: Any = type("Versioned", (), {"version": number})
    return dataclass(frozen=True)(kind)()


# ---- digests


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Llama(), "a6bfb4ecf903b5167ebacab37f36f77d35b05d5aa2c14da31ab01ca92918c290"),
        (Recipe(lr=1e-3), "a2d756ebf83b7f5446302919cdbedd04107d2cd2b0fdbc601035aa2d24a1a0d9"),
        (NCA(), "0e1ef758c0ba140f08a16fc3e6647ce320b0e82c51b08f49b285260ff5719de4"),
        (WARM, "b769892e5f4d7df5c7f9b8f481d6822d5c9f913cfe0be16b25ffd0ced34bee65"),
        (SCRATCH, "f502da57d78e0f14b2f44a18ba669d1f50909e2565af580621e6fe5d61e2fc07"),
        (SCRATCH.after(WARM), "b53fce18b900a1a9a41d3e3014c386d8fbbb448786ee02d2ebdde5a93da481f7"),
        (
            SCRATCH.after(WARM, Transfer(blocks="permuted", embed_std=0.02)),
            "fd266ed2c8445152e6af646634b4dfe1006cc75635e55151ac4aa3e3b7476a94",
        ),
    ],
    ids=["llama", "recipe", "nca", "train", "train on text", "transfer", "permuted"],
)
def test_golden_digests(value: Any, expected: str) -> None:
    # A change here changes every address: every store that exists is computed anew. Raise a `version` where results
    # change, and change these only for a new field or format.
    assert digest(value) == expected


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_has_one_digest_however_it_is_written(number: int) -> None:
    assert digest(Anything(number)) == digest(Anything(float(number)))


def test_a_truth_value_is_no_number_whichever_was_hashed_first() -> None:
    for pair in ((True, 1), (0, False)):
        first, second = (digest(Anything((value,))) for value in pair)
        assert first != second


@given(st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_tuples_and_lists_have_one_digest(value: Any) -> None:
    def as_tuples(v: Any) -> Any:
        return tuple(as_tuples(x) for x in v) if isinstance(v, list) else v

    assert canonical(Anything(value)) == canonical(Anything(as_tuples(value)))


def test_values_that_hold_lists_have_a_digest() -> None:
    assert digest(Anything([1, [2, 3]])) == digest(Anything((1, (2, 3))))


def test_the_order_of_a_mapping_is_no_identity() -> None:
    assert digest(Anything({"a": 1, "b": 2})) == digest(Anything({"b": 2, "a": 1}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, lambda: 0, object(), {1: 2}, {1, 2}, b"raw", 1j, int])
@pytest.mark.parametrize(
    ("nest", "path"),
    [(lambda v: v, "value"), (lambda v: [0, v], "value[1]"), (lambda v: {"key": v}, "value.key")],
    ids=["plain", "list", "dict"],
)
def test_what_has_no_canonical_form_is_refused_by_the_name_of_its_field(
    value: Any, nest: Callable[[Any], Any], path: str
) -> None:
    with pytest.raises(InputError) as refused:
        canonical(Anything(nest(value)))
    line = str(refused.value)
    assert line.startswith(f"{path} = ")
    assert "\n" not in line
    assert "has no canonical form; use" in line


def test_where_something_lies_is_no_identity() -> None:
    assert digest(Anything(1, where="/here")) == digest(Anything(1, where=lambda: "there"))
    assert differences(Anything(1, where="/here"), Anything(1, where="/there")) == []
    assert digest(Text.local("/a", content="c")) == digest(Text.local("/b", content="c"))


def test_type_and_version_are_identity() -> None:
    assert digest(versioned(1)) == digest(versioned(1))
    assert digest(versioned(1)) != digest(versioned(2))
    assert canonical(Llama())["type"] == "Llama"


MORE: dict[type, dict[str, Any]] = {
    Corpus: {"source": NCA(grid=8, states=3), "seed": 1, "epochs": 2},
    Llama: {
        "depth": 3, "width": 32, "heads": 4, "mlp": 25, "context": 24, "tied": False, "rope_theta": 5e3,
        "norm_eps": 1e-6, "init_std": 0.03, "embed_std": 0.03, "io_width": 20_000,
    },
    Recipe: {
        "lr": 2e-3, "batch": 4, "schedule": "wsd", "warmup": 1024, "horizon": 2**20, "decay": 0.3, "final_lr": 0.1,
        "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.99, "eps": 1e-7, "clip": None, "precision": "bf16",
        "attention_dropout": 0.1,
    },
    Evaluation: {"points": 5, "sequences": 7, "skip": 3},
    Transfer: {"reinit": (), "embed_std": 0.3, "blocks": "permuted"},
    Train: {
        "corpus": Corpus(NCA(grid=8, states=3)), "tokens": 11 * STEP, "model": Llama(),
        "recipe": Recipe(lr=2e-3, batch=8),
        "seed": 1, "evaluation": Evaluation(points=5), "init": small(seed=7), "transfer": Transfer(),
    },
}  # fmt: skip
PLAIN = {Corpus: Corpus(NCA(grid=8)), Llama: SMALL, Recipe: Recipe(lr=1e-3, batch=8), Evaluation: Evaluation()}
PLAIN |= {Transfer: Transfer(), Train: small()}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, f.name) for kind in MORE for f in fields(kind)], ids=lambda v: getattr(v, "__name__", v)
)
def test_every_field_is_part_of_the_identity(kind: type, name: str) -> None:
    value: Any = PLAIN[kind]
    changes = {name: MORE[kind][name]}
    if name in ("init", "transfer"):
        changes = {"init": MORE[kind]["init"], "transfer": MORE[kind]["transfer"]}
    if name == "model" and kind is Train:
        changes["tokens"] = 2**20
    changed = replace(value, **changes)
    assert digest(changed) != digest(value)
    found = differences(changed, value)
    # A nested value says which of its own fields differ; a stage is not entered.
    assert {d.split(".")[0] for d in found} == set(changes)


def test_a_setting_that_came_later_leaves_the_addresses_of_those_who_do_not_use_it() -> None:
    later = {(kind, f.name) for kind in PLAIN for f in fields(kind) if f.metadata.get("neutral")}
    assert later == {(Llama, "io_width"), (Recipe, "attention_dropout"), (Evaluation, "skip")}
    for kind, name in later:
        value: Any = PLAIN[kind]
        assert name not in canonical(value)
        assert canonical(replace(value, **{name: MORE[kind][name]}))[name] == MORE[kind][name]


def test_differences_are_dotted_names_and_only_those_that_differ() -> None:
    a = small()
    b = replace(a, recipe=replace(a.recipe, lr=2e-3, clip=None), corpus=Corpus(NCA(grid=8, states=3, band=(0.1, 0.2))))
    assert differences(a, b) == ["corpus.source.states", "corpus.source.band", "recipe.lr", "recipe.clip"]
    assert differences(a, replace(a, tokens=a.tokens)) == []
    assert differences(a, replace(a, corpus=Corpus(Text("x/y", tokenizer=BPE(300))))) == ["corpus.source"]


def test_a_pair_differs_in_init_and_transfer_by_name_however_the_earlier_stage_differs() -> None:
    scratch, other = small(), small(seed=9)
    warm = scratch.after(small(corpus=Corpus(NCA(grid=8, states=3)), seed=4))
    assert differences(warm, scratch) == ["init", "transfer"]
    assert differences(warm, scratch.after(other)) == ["init"]
    assert differences(warm, replace(warm, transfer=Transfer(blocks="permuted"))) == ["transfer.blocks"]


# ---- stages


@given(st.integers(STEP, 100 * STEP))
def test_tokens_are_whole_steps_and_one_address(tokens: int) -> None:
    train = small(tokens=tokens)
    assert train.tokens % STEP == 0
    assert 0 <= tokens - train.tokens < STEP
    assert train.steps * STEP == train.tokens
    assert digest(train) == digest(small(tokens=train.tokens)) == digest(small(tokens=float(tokens)))


def with_horizon(tokens: int, horizon: int | None) -> str:
    return digest(small(tokens=tokens, recipe=Recipe(lr=1e-3, batch=8, horizon=horizon)))


def test_a_horizon_that_ends_with_the_stage_is_the_default() -> None:
    assert with_horizon(10 * STEP, 10 * STEP) == with_horizon(10 * STEP, None)
    assert with_horizon(10 * STEP, 11 * STEP) != with_horizon(10 * STEP, None)


@given(tokens=st.integers(STEP, 20 * STEP))
def test_a_horizon_is_whole_steps_as_the_budget_is(tokens: int) -> None:
    assert with_horizon(tokens, tokens) == with_horizon(tokens, None)


def test_after_starts_from_the_earlier_stage_and_changes_nothing_else() -> None:
    warm, scratch = small(corpus=Corpus(NCA(grid=8, states=3))), small()
    train = scratch.after(warm)
    assert (train.init, train.transfer) == (warm, Transfer())
    assert replace(train, init=None, transfer=None) == scratch
    assert scratch.after(warm, Transfer(blocks="permuted")).transfer == Transfer(blocks="permuted")
    third = small(seed=2).after(train)
    assert list(third.chain()) == [warm, train, third]


def test_parents_are_the_artifacts_that_a_stage_reads() -> None:
    reading = small(corpus=Corpus(WEB))
    assert parents(small()) == {}
    assert parents(WEB) == {}
    assert parents(reading) == {"tokens": WEB}
    assert parents(reading.after(small())) == {"tokens": WEB, "init": small()}


def test_reinit_is_a_set_in_one_order() -> None:
    assert Transfer(reinit=("norms", "attention", "norms")) == Transfer(reinit=("attention", "norms"))
    assert digest(Transfer(reinit=list(MODULES))) == digest(Transfer(reinit=MODULES[::-1]))  # type: ignore[arg-type]
    assert Transfer(reinit=MODULES).reinit == MODULES


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (("mlp[0:2]", "attention[0:4]"), ("attention[:4]", "mlp[:2]")),
        (("attention[2:]", "attention[:3]"), ("attention",)),
        (("attention[:2]", "attention[-1]", "attention[2:4]"), ("attention[:4]", "attention[-1]")),
        (("attention[3:4]", "attention[-1:]", "attention[03]"), ("attention[3]", "attention[-1]")),
        (("mlp[:-2]", "mlp[:-3]", "mlp[-3:-2]"), ("mlp[:-2]",)),
        (("mlp[:-2]", "mlp[1:]"), ("mlp[:-2]", "mlp[1:]")),  # whether they meet depends on the depth
        (("mlp", "mlp[2]"), ("mlp",)),
        (("mlp[:]", "mlp[0:]"), ("mlp",)),
        (("norms[:]",), ("norms[:]",)),
        (("final_norm", "norms[:]"), ("norms",)),
        (("final_norm", "norms[0]", "norms"), ("norms",)),
        (("final_norm", "norms[1:3]", "embeddings"), ("embeddings", "norms[1:3]", "final_norm")),
    ],
    ids=str,
)
def test_equal_ablations_are_one_value(said: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert Transfer(reinit=said).reinit == Transfer(reinit=said[::-1]).reinit == kept
    assert Transfer(reinit=kept).reinit == kept


@pytest.mark.parametrize(
    ("kept", "reinit"),
    [
        ((), MODULES),
        (MODULES, ()),
        (("attention",), ("embeddings", "mlp", "norms")),
        (("final_norm",), ("embeddings", "attention", "mlp", "norms[:]")),
        (("mlp[:4]",), ("embeddings", "attention", "mlp[4:]", "norms")),
        (("mlp[3]", "mlp[-1]"), ("embeddings", "attention", "mlp[:3]", "mlp[4:-1]", "norms")),
        (("norms[-2:]",), ("embeddings", "attention", "mlp", "norms[:-2]", "final_norm")),
    ],
    ids=str,
)
def test_a_transplant_makes_everything_else_anew(kept: tuple[str, ...], reinit: tuple[str, ...]) -> None:
    assert Transfer.only(*kept).reinit == reinit
    assert Transfer.only(*kept, blocks="resampled", embed_std=0.1) == Transfer(reinit, 0.1, "resampled")


def test_a_transplant_whose_layers_depend_on_the_depth_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Transfer\.only = \['mlp\[:-2\]', 'mlp\[1:\]'\]: whether these overlap"):
        Transfer.only("mlp[1:]", "mlp[:-2]")
    with pytest.raises(InputError, match=r"^Transfer\.only = 'head': name modules among embeddings, attention, mlp"):
        Transfer.only("head")


@given(points=st.integers(1, 80), total=st.integers(1, 3000))
def test_evaluations_ascend_from_zero_to_the_last_step(points: int, total: int) -> None:
    steps = Evaluation(points=points).steps(total)
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == total
    assert len(steps) <= points + 1
    assert all(isinstance(s, int) for s in steps)


@given(quarter=st.integers(1, 20))
def test_a_quarter_of_the_evaluations_lies_in_the_first_tenth(quarter: int) -> None:
    total = 100_000
    steps = Evaluation(points=4 * quarter).steps(total)
    early = [s for s in steps if 0 < s < total // 10]
    late = [s for s in steps if s > total // 10]
    assert len(steps) == 4 * quarter + 1
    assert len(early) == quarter
    ratios = [b / a for a, b in itertools.pairwise(early)]
    assert ratios == pytest.approx([10 ** (1 / quarter)] * (quarter - 1), rel=0.01)
    gaps = [b - a for a, b in itertools.pairwise(late)]
    assert gaps == pytest.approx([0.9 * total / (3 * quarter)] * len(gaps), abs=1)


# ---- the model's size


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab", [18, 300])
def test_params_are_those_of_the_real_model(tied: bool, vocab: int) -> None:
    spec = replace(SMALL, tied=tied)
    net = model.build(spec, vocab)
    by_name = {name: p.numel() for name, p in model.weights(net).items()}
    assert spec.params(vocab) == sum(by_name.values())
    assert spec.body_params == sum(n for name, n in by_name.items() if model.module_of(name) != "embeddings")


def test_the_default_is_the_papers_model() -> None:
    import torch

    assert Llama().body_params == 1_610_713_088
    with torch.device("meta"):
        net = model.build(Llama(), 50257)
    assert sum(p.numel() for p in net.parameters()) == Llama().params(50257)


def test_flops_count_blocks_head_and_attention() -> None:
    spec, train = SMALL, small()
    vocab = train.vocab_size
    assert spec.flops_per_token(vocab) == 6 * spec.body_params + 6 * 16 * vocab + 12 * 2 * 32 * 16
    assert train.flops == train.tokens * spec.flops_per_token(vocab)


# ---- bad input

NAN, INF = math.nan, math.inf
REFUSED: list[tuple[Callable[..., Any], str, Any]] = [
    *((Llama, name, bad) for name in ("depth", "width", "mlp", "context", "heads") for bad in (0, -1, NAN)),
    (Llama, "heads", 3),  # does not divide the width
    (Llama, "heads", 2048),  # odd heads
    *((Llama, n, bad) for n in ("init_std", "embed_std", "rope_theta", "norm_eps") for bad in (0.0, -1.0, NAN)),
    *((Recipe, "lr", bad) for bad in (0.0, -1e-3, NAN)),
    (Recipe, "batch", 0),
    (Recipe, "schedule", "linear"),
    (Recipe, "precision", "fp16"),
    *((Recipe, "warmup", bad) for bad in (-1, NAN)),
    *((Recipe, "decay", bad) for bad in (0.0, 1.1, NAN)),
    *((Recipe, "final_lr", bad) for bad in (-0.1, 1.1, NAN)),
    *((Recipe, "weight_decay", bad) for bad in (-0.1, NAN)),
    *((Recipe, name, bad) for name in ("beta1", "beta2") for bad in (-0.1, 1.0, NAN)),
    *((Recipe, "eps", bad) for bad in (0.0, NAN)),
    *((Recipe, "clip", bad) for bad in (0.0, -1.0, NAN)),
    *((Corpus, "seed", bad) for bad in (-1, 2**63, NAN)),
    (Corpus, "epochs", 0),
    (Evaluation, "points", 0),
    (Evaluation, "sequences", 0),
    *((Transfer, "reinit", (bad,)) for bad in ("head", "", 3, "mlp[", "mlp[]", "mlp[a]", "mlp[0:4:2]", "MLP", " mlp")),
    *((Transfer, "reinit", (bad,)) for bad in ("mlp[2:2]", "mlp[3:1]", "mlp[:0]", "mlp[-1:2]", "mlp[0][1]")),
    *((Transfer, "reinit", (bad,)) for bad in ("embeddings[0]", "final_norm[:]")),
    *((Transfer, "embed_std", bad) for bad in (0.0, -1.0, NAN)),
    *((Transfer, "blocks", bad) for bad in ("shuffled", True, None)),
    *((Train, "seed", bad) for bad in (-1, 2**63)),
    *((Train, "tokens", bad) for bad in (0, -STEP, STEP - 1, NAN)),
]
NEEDED: dict[Any, dict[str, Any]] = {Recipe: {"lr": 1e-3}, Corpus: {"source": NCA(grid=8)}}
NEEDED |= {Train: {"corpus": Corpus(NCA(grid=8)), "tokens": STEP, "model": SMALL, "recipe": Recipe(lr=1e-3, batch=8)}}


@pytest.mark.parametrize(
    ("kind", "name", "bad"), REFUSED, ids=[f"{kind.__name__}.{name}={bad}" for kind, name, bad in REFUSED]
)
def test_bad_settings_are_refused_in_one_line(kind: Callable[..., Any], name: str, bad: Any) -> None:
    with pytest.raises(InputError) as refused:
        kind(**(NEEDED.get(kind, {}) | {name: bad}))
    line = str(refused.value)
    shown = bad[0] if isinstance(bad, tuple) else bad
    assert line.startswith(f"{kind.__name__}.{name} = {shown!r}: ")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("make", "field_name"),
    [
        (lambda: small(recipe=Recipe(lr=1e-3, batch=8, horizon=9 * STEP)), "Recipe.horizon"),
        (lambda: small(model=replace(SMALL, context=17)), "Llama.context"),
        (lambda: small(init=small()), "Train.transfer"),
        (lambda: small(transfer=Transfer()), "Train.transfer"),
        (lambda: small().after(small(model=replace(SMALL, depth=3))), "Train.init.model.depth"),
        (lambda: small().after(small(model=replace(SMALL, width=32))), "Train.init.model.width"),
        (lambda: small().after(small(model=replace(SMALL, tied=False))), "Train.init.model.tied"),
        (lambda: small().after(small(corpus=Corpus(NCA(grid=8, states=3))), Transfer(reinit=())), "Transfer.reinit"),
        *(
            (lambda entries=entries: small().after(small(), Transfer(reinit=entries)), "Transfer.reinit")
            for entries in (("mlp[2]",), ("mlp[-3]",), ("mlp[1:3]",), ("norms[1:-1]",), ("mlp[0]", "mlp[-1]"))
        ),
    ],
    ids=[
        *("horizon", "no target", "init alone", "transfer alone", "depth", "width", "tied", "vocabulary"),
        *("layer", "layer from the end", "range", "empty range", "ranges that meet"),
    ],
)
def test_stages_that_do_not_fit_are_refused_in_one_line(make: Callable[[], Train], field_name: str) -> None:
    with pytest.raises(InputError, match=rf"^{field_name} = .*: ") as refused:
        make()
    assert "\n" not in str(refused.value)


def test_a_layer_beyond_the_depth_says_which_there_are() -> None:
    with pytest.raises(
        InputError, match=r"^Transfer\.reinit = 'attention\[3\]': a model of 2 layers has layers 0 to 1;"
    ):
        small().after(small(), Transfer(reinit=("attention[3]",)))


def test_weights_may_cross_to_another_context_and_scale() -> None:
    warm = small(model=replace(SMALL, context=24, init_std=0.5, embed_std=0.5), tokens=10 * STEP)
    assert small().after(warm).init == warm


def test_a_budget_below_one_step_says_how_much_a_step_is() -> None:
    with pytest.raises(InputError, match="8 x 32 = 256 tokens"):
        small(tokens=255)


def test_a_context_holds_more_than_the_unsupervised_first_frame() -> None:
    frame = NCA(grid=8).frame_tokens
    with pytest.raises(InputError, match=r"Llama\.context = 18: the first frame of 18 tokens has no targets"):
        small(model=replace(SMALL, context=frame))
    small(model=replace(SMALL, context=frame + 1))


def test_a_class_of_a_search_space_is_not_the_harness_one_of_the_same_name() -> None:
    mine: Any = dataclass(frozen=True)(
        type("NCA", (), {"__annotations__": {}, "__module__": "search_space_mine_0123abcd"})
    )
    assert canonical(mine())["type"] == "search_space_mine.NCA"
    assert canonical(NCA())["type"] == "NCA"
