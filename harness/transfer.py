"""Which weights a stage starts from: fresh ones, or those of an earlier stage with some modules made anew.

Every stage passes through here, scratch too: two arms of a pair draw the same unit normals for the same parameter of
the same seed, whatever else differs, and scale them by their own standard deviation.
"""

from typing import TYPE_CHECKING, Any

from harness.model import layer_of, module_of
from harness.rng import named_seed
from harness.specs import Train

if TYPE_CHECKING:
    import torch


def unit_normal(spec: Train, name: str, shape: Any) -> "torch.Tensor":
    """float32 draws for one parameter, whatever the order in which a model is built.

    They depend on the stage's seed and on whether its corpus is text or generated: all arms that train on text draw
    the same, and none draws again what its generated first stage began with, which would be a rewind and no
    re-initialisation. A text stage before a text stage needs a seed of its own for the same reason.
    """
    import numpy as np
    import torch

    generator = np.random.Generator(np.random.PCG64(named_seed("weights", spec.corpus.source.stored, spec.seed, name)))
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def permuted(tensor: "torch.Tensor", seed: int, name: str) -> "torch.Tensor":
    """The same values in a random order that depends on (seed, name) alone."""
    import numpy as np
    import torch

    order = np.random.Generator(np.random.PCG64(named_seed("permute", seed, name))).permutation(tensor.numel())
    return tensor.flatten()[torch.from_numpy(order)].view_as(tensor)


def of_norm(draws: "torch.Tensor", norm_of: "torch.Tensor") -> "torch.Tensor":
    """`draws` scaled to the Frobenius norm of `norm_of`; in float64, so that only the last rounding differs."""
    draws = draws.double()
    return (draws * (norm_of.double().norm() / draws.norm())).float()


def initial_weights(
    spec: Train, shapes: "dict[str, torch.Size]", parent: "dict[str, torch.Tensor] | None"
) -> "dict[str, torch.Tensor]":
    """The weights that `spec` starts from: one float32 tensor for every name in `shapes`.

    `parent` holds the weights of `spec.init`, or None. Norms start at one.
    """
    import torch

    weights: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        module = module_of(name)
        anew = spec.transfer is None or spec.transfer.makes_anew(module, layer_of(name), spec.model.depth)
        if parent is not None and spec.transfer is not None and not anew:
            kept = parent[name].float()
            blocks = spec.transfer.blocks if module in ("attention", "mlp") else "trained"
            if blocks == "permuted":
                kept = permuted(kept, spec.seed, name)
            elif blocks == "resampled":
                kept = of_norm(unit_normal(spec, name, shape), kept)
            weights[name] = kept
        elif module == "norms":
            weights[name] = torch.ones(shape)
        else:
            std = embedding_std(spec, name, parent) if module == "embeddings" else spec.model.init_std
            weights[name] = unit_normal(spec, name, shape) * std
    return weights


def embedding_std(spec: Train, name: str, parent: "dict[str, torch.Tensor] | None") -> float:
    """Scale of a new embedding or head: as the transfer says, else as its predecessor had it, else the model's."""
    if parent is None or spec.transfer is None:
        return spec.model.embed_std
    if spec.transfer.embed_std is not None:
        return spec.transfer.embed_std
    return float(parent[name].float().std())


def scales(weights: "dict[str, torch.Tensor]") -> dict[str, float]:
    """Standard deviation of the embeddings and of the blocks' matrices: the largest knob of a comparison, so shown."""
    import torch

    def std(tensors: "list[torch.Tensor]") -> float:
        return float(torch.cat([t.detach().float().flatten() for t in tensors]).std())

    embeddings = [t for n, t in weights.items() if module_of(n) == "embeddings"]
    blocks = [t for n, t in weights.items() if module_of(n) in ("attention", "mlp")]
    return {"embeddings_std": std(embeddings), "blocks_std": std(blocks)}
