"""Which weights a stage starts from."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness import model
from harness.modules import MODULES
from harness.sources.nca import NCA
from harness.sources.text import BPE, Text
from harness.specs import Corpus, Llama, Recipe, Train, Transfer
from harness.transfer import Scales, initial_weight

MODEL = Llama(depth=2, width=16, heads=2, mlp=24, context=32, tied=False, init_std=0.25, embed_std=0.5)
SCRATCH = Train(Corpus(NCA(states=3, grid=4)), 1024, MODEL, Recipe(lr=1e-3, batch=8), seed=4)
WARM = replace(SCRATCH, corpus=Corpus(NCA(states=2, grid=4)), seed=9)


def shapes(spec: Train) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in model.weights(model.build(spec.model, spec.vocab_size)).items()}


def start(spec: Train, parent: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    return {name: initial_weight(spec, name, shape, parent) for name, shape in shapes(spec).items()}


def scales(weights: dict[str, torch.Tensor]) -> dict[str, float]:
    found = Scales()
    for name, weight in weights.items():
        found.add(name, weight)
    return found.found()


@pytest.fixture(scope="module")
def parent() -> dict[str, torch.Tensor]:
    """Weights of `WARM` after some training: nothing is at its initial scale."""
    torch.manual_seed(0)
    return {name: torch.randn(shape) * (1 + i / 10) for i, (name, shape) in enumerate(shapes(WARM).items())}


def names(spec: Train, *modules: str) -> set[str]:
    return {name for name in shapes(spec) if model.module_of(name) in modules}


def after(**transfer: Any) -> Train:
    return SCRATCH.after(WARM, Transfer(**transfer))


# ---- fresh weights


def test_every_parameter_belongs_to_one_module() -> None:
    assert {model.module_of(name) for name in shapes(SCRATCH)} == set(MODULES)
    assert names(SCRATCH, "embeddings") == {"model.embed_tokens.weight", "lm_head.weight"}
    assert len(names(SCRATCH, "attention")) == 4 * MODEL.depth
    assert len(names(SCRATCH, "mlp")) == 3 * MODEL.depth
    assert len(names(SCRATCH, "norms")) == 2 * MODEL.depth + 1


def test_scratch_is_unit_normals_at_the_models_scales() -> None:
    weights = start(replace(SCRATCH, model=replace(MODEL, width=64)))
    for name, tensor in weights.items():
        if model.module_of(name) == "norms":
            assert torch.equal(tensor, torch.ones_like(tensor))
            continue
        want = 0.5 if model.module_of(name) == "embeddings" else 0.25
        assert tensor.dtype == torch.float32
        assert tensor.std().item() == pytest.approx(want, rel=0.1)
        assert abs(tensor.mean().item()) < want / 10
    found = scales(weights)
    assert found["embeddings_std"] == pytest.approx(0.5, rel=0.05)
    assert found["blocks_std"] == pytest.approx(0.25, rel=0.05)


def test_draws_depend_on_seed_and_name_and_on_nothing_else() -> None:
    first = start(SCRATCH)
    again = start(replace(SCRATCH, recipe=Recipe(lr=1.0, batch=4), corpus=replace(SCRATCH.corpus, seed=8)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    deeper = start(replace(SCRATCH, model=replace(MODEL, depth=3)))
    assert all(torch.equal(first[name], deeper[name]) for name in first)
    other = start(replace(SCRATCH, seed=5))
    matrices = names(SCRATCH, "embeddings", "attention", "mlp")
    assert not any(torch.equal(first[name], other[name]) for name in matrices)
    same_shape = [first[name].flatten()[:256] for name in matrices]
    assert len({tuple(t.tolist()) for t in same_shape}) == len(same_shape)


def test_what_is_made_anew_on_text_is_not_what_the_generated_stage_began_with() -> None:
    text = replace(SCRATCH, corpus=Corpus(Text("name", revision="0" * 40, tokenizer=BPE(300))))
    generated, fresh = start(SCRATCH), start(text)
    for name in names(SCRATCH, "embeddings", "attention", "mlp"):
        rows = min(len(generated[name]), len(fresh[name]))
        assert not torch.equal(generated[name][:rows], fresh[name][:rows])
        assert (
            abs(torch.corrcoef(torch.stack([generated[name][:rows].flatten(), fresh[name][:rows].flatten()]))[0, 1])
            < 0.3
        )


def test_the_arms_of_a_pair_draw_the_same_unit_normals(parent: dict[str, torch.Tensor]) -> None:
    scratch = start(SCRATCH)
    tuned = start(replace(SCRATCH, model=replace(MODEL, init_std=0.5, embed_std=1.0)))
    transferred = start(after(reinit=("embeddings", "mlp"), embed_std=0.125), parent)
    for name in names(SCRATCH, "embeddings", "attention", "mlp"):
        assert torch.equal(tuned[name] / 2, scratch[name])
    for name in names(SCRATCH, "embeddings"):
        assert torch.equal(transferred[name] * 4, scratch[name])
    for name in names(SCRATCH, "mlp"):
        assert torch.equal(transferred[name], scratch[name])


# ---- what crosses


@pytest.mark.parametrize(
    "reinit",
    [("embeddings",), ("embeddings", "attention"), ("embeddings", "mlp"), ("embeddings", "norms"), MODULES],
    ids=["embeddings", "attention", "mlp", "norms", "all"],
)
def test_reinit_makes_exactly_the_named_modules_anew(reinit: tuple[str, ...], parent: dict[str, torch.Tensor]) -> None:
    weights = start(after(reinit=reinit), parent)
    made_anew = names(SCRATCH, *reinit)
    for name, shape in shapes(SCRATCH).items():
        assert weights[name].shape == shape
        kept = weights[name].shape == parent[name].shape and torch.equal(weights[name], parent[name])
        assert kept == (name not in made_anew), name


BLOCK = {
    "attention": [f"self_attn.{matrix}_proj" for matrix in "qkvo"],
    "mlp": [f"mlp.{matrix}_proj" for matrix in ("gate", "up", "down")],
    "norms": ["input_layernorm", "post_attention_layernorm"],
}
EMBEDDINGS = {"model.embed_tokens.weight", "lm_head.weight"}
FINAL_NORM = {"model.norm.weight"}


def block(module: str, *layers: int) -> set[str]:
    """Names of the parameters of a module in some layers, written out."""
    return {f"model.layers.{layer}.{inner}.weight" for layer in layers for inner in BLOCK[module]}


ABLATIONS: list[tuple[tuple[str, ...], set[str]]] = [
    (("embeddings",), EMBEDDINGS),
    (("embeddings", "attention[0:2]"), EMBEDDINGS | block("attention", 0, 1)),
    (("embeddings", "attention[-1]"), EMBEDDINGS | block("attention", 3)),
    (("embeddings", "mlp[1]"), EMBEDDINGS | block("mlp", 1)),
    (("embeddings", "mlp[-2:]", "attention[0]"), EMBEDDINGS | block("mlp", 2, 3) | block("attention", 0)),
    (("embeddings", "mlp[1:-1]"), EMBEDDINGS | block("mlp", 1, 2)),
    (("embeddings", "norms[2:]"), EMBEDDINGS | block("norms", 2, 3)),
    (("embeddings", "norms[:]"), EMBEDDINGS | block("norms", 0, 1, 2, 3)),
    (("embeddings", "norms"), EMBEDDINGS | block("norms", 0, 1, 2, 3) | FINAL_NORM),
    (("embeddings", "final_norm"), EMBEDDINGS | FINAL_NORM),
    (("embeddings", "norms[0]", "final_norm"), EMBEDDINGS | block("norms", 0) | FINAL_NORM),
]
DEEP = replace(SCRATCH, model=replace(MODEL, depth=4))
DEEP_WARM = replace(WARM, model=DEEP.model)


@pytest.fixture(scope="module")
def deep_parent() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(shape) for name, shape in shapes(DEEP_WARM).items()}


def check_ablation(transfer: Transfer, anew: set[str], parent: dict[str, torch.Tensor]) -> None:
    """What is made anew is what a stage from scratch draws; the rest is what a whole transfer brings."""
    assert anew <= set(shapes(DEEP))
    weights, scratch = start(DEEP.after(DEEP_WARM, transfer), parent), start(DEEP)
    whole = start(DEEP.after(DEEP_WARM, replace(transfer, reinit=("embeddings",))), parent)
    for name, tensor in weights.items():
        if name in anew and name not in EMBEDDINGS:
            assert torch.equal(tensor, scratch[name]), name
            assert not torch.equal(tensor, whole[name]), name
        else:
            assert torch.equal(tensor, whole[name]), name
            assert (name in EMBEDDINGS) == (tensor.shape != parent[name].shape), name
            kept = transfer.blocks == "trained" or model.module_of(name) == "norms"
            assert name in EMBEDDINGS or torch.equal(tensor, parent[name]) == kept, name


@pytest.mark.parametrize("blocks", ["trained", "permuted", "resampled"])
@pytest.mark.parametrize(("reinit", "anew"), ABLATIONS, ids=[",".join(reinit[1:]) for reinit, _ in ABLATIONS])
def test_an_ablation_touches_exactly_what_it_names(
    reinit: tuple[str, ...], anew: set[str], blocks: Any, deep_parent: dict[str, torch.Tensor]
) -> None:
    check_ablation(Transfer(reinit=reinit, blocks=blocks), anew, deep_parent)


@pytest.mark.parametrize("blocks", ["trained", "permuted", "resampled"])
@pytest.mark.parametrize(
    ("kept", "names_kept"),
    [
        ((), set[str]()),
        (("attention",), block("attention", 0, 1, 2, 3)),
        (("mlp[1:3]",), block("mlp", 1, 2)),
        (("attention[0]", "attention[-1]"), block("attention", 0, 3)),
        (("norms", "mlp[-1]"), block("norms", 0, 1, 2, 3) | FINAL_NORM | block("mlp", 3)),
        (("final_norm",), FINAL_NORM),
    ],
    ids=str,
)
def test_a_transplant_brings_exactly_what_it_names(
    kept: tuple[str, ...], names_kept: set[str], blocks: Any, deep_parent: dict[str, torch.Tensor]
) -> None:
    check_ablation(Transfer.only(*kept, blocks=blocks), set(shapes(DEEP)) - names_kept, deep_parent)


def test_a_transplant_of_embeddings_keeps_them(deep_parent: dict[str, torch.Tensor]) -> None:
    spec = replace(DEEP_WARM, seed=4).after(DEEP_WARM, Transfer.only("embeddings"))
    weights, scratch = start(spec, deep_parent), start(replace(DEEP_WARM, seed=4))
    for name, tensor in weights.items():
        assert torch.equal(tensor, (deep_parent if name in EMBEDDINGS else scratch)[name]), name


def test_with_one_vocabulary_everything_may_cross(parent: dict[str, torch.Tensor]) -> None:
    spec = replace(WARM, seed=4).after(WARM, Transfer(reinit=()))
    weights = start(spec, parent)
    assert all(torch.equal(weights[name], parent[name]) for name in parent)


def test_new_embeddings_have_the_scale_of_those_they_replace(parent: dict[str, torch.Tensor]) -> None:
    weights, unit = start(after(), parent), start(replace(SCRATCH, model=replace(MODEL, embed_std=1.0)))
    for name in names(SCRATCH, "embeddings"):
        assert parent[name].std() != MODEL.embed_std
        assert torch.equal(weights[name], unit[name] * float(parent[name].std()))


def test_the_scale_of_new_embeddings_is_a_setting(parent: dict[str, torch.Tensor]) -> None:
    weights, unit = start(after(embed_std=0.25), parent), start(replace(SCRATCH, model=replace(MODEL, embed_std=1.0)))
    for name in names(SCRATCH, "embeddings"):
        assert torch.equal(weights[name], unit[name] * 0.25)


def test_a_parent_in_another_precision_crosses_as_float32(parent: dict[str, torch.Tensor]) -> None:
    weights = start(after(), {name: tensor.bfloat16() for name, tensor in parent.items()})
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize("blocks", ["trained", "permuted", "resampled"])
def test_the_parent_is_left_as_it_was(parent: dict[str, torch.Tensor], blocks: str) -> None:
    before = {name: tensor.clone() for name, tensor in parent.items()}
    start(after(blocks=blocks), parent)
    assert all(torch.equal(parent[name], before[name]) for name in parent)


# ---- the controls


def test_permuted_keeps_the_values_of_every_block_matrix_and_nothing_of_their_order(
    parent: dict[str, torch.Tensor],
) -> None:
    weights, kept = start(after(blocks="permuted"), parent), start(after(), parent)
    for name in names(SCRATCH, "attention", "mlp"):
        assert weights[name].shape == parent[name].shape
        assert torch.equal(weights[name].flatten().sort().values, parent[name].flatten().sort().values)
        in_place = (weights[name] == parent[name]).float().mean().item()
        assert in_place < 0.05
    for name in names(SCRATCH, "embeddings", "norms"):
        assert torch.equal(weights[name], kept[name])


def test_every_matrix_and_every_seed_has_a_permutation_of_its_own(parent: dict[str, torch.Tensor]) -> None:
    equal = {name: torch.arange(t.numel(), dtype=torch.float32).view_as(t) for name, t in parent.items()}
    weights = start(after(blocks="permuted"), equal)
    orders = [tuple(weights[name].flatten().tolist()) for name in names(SCRATCH, "attention", "mlp")]
    assert len(set(orders)) == len(orders)
    other = start(replace(after(blocks="permuted"), seed=5), equal)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(other[name], weights[name])
    assert torch.equal(start(after(blocks="permuted"), equal)[name], weights[name])


def test_resampled_keeps_the_norm_of_every_block_matrix_and_draws_its_values_as_a_scratch_run_would(
    parent: dict[str, torch.Tensor],
) -> None:
    weights, kept, scratch = start(after(blocks="resampled"), parent), start(after(), parent), start(SCRATCH)
    for name in names(SCRATCH, "attention", "mlp"):
        assert weights[name].dtype == torch.float32
        norm, trained = weights[name].double().norm().item(), parent[name].double().norm().item()
        assert norm == pytest.approx(trained, rel=1e-7)  # float32 rounds every weight by up to 6e-8 of itself
        torch.testing.assert_close(weights[name] / weights[name].norm(), scratch[name] / scratch[name].norm())
        assert abs(torch.corrcoef(torch.stack([weights[name].flatten(), parent[name].flatten()]))[0, 1]) < 0.3
    for name in names(SCRATCH, "embeddings", "norms"):
        assert torch.equal(weights[name], kept[name])
    other = start(replace(after(blocks="resampled"), seed=5), parent)
    assert not any(torch.equal(other[name], weights[name]) for name in names(SCRATCH, "attention", "mlp"))


def test_a_matrix_without_a_norm_is_resampled_as_it_is(parent: dict[str, torch.Tensor]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    weights = start(after(blocks="resampled"), parent | {name: torch.zeros_like(parent[name])})
    assert torch.equal(weights[name], torch.zeros_like(parent[name]))


@pytest.mark.parametrize("blocks", ["permuted", "resampled"])
def test_a_control_leaves_what_is_made_anew_alone(parent: dict[str, torch.Tensor], blocks: str) -> None:
    reinit = ("embeddings", "mlp")
    control, plain = start(after(blocks=blocks, reinit=reinit), parent), start(after(reinit=reinit), parent)
    changed = {name for name in plain if not torch.equal(control[name], plain[name])}
    assert changed == names(SCRATCH, "attention")
