"""Which weights a stage starts from: fresh ones, or those of an earlier stage with some modules made anew.

Every stage passes through here, scratch too: two arms of a pair draw the same unit normals for the same parameter of
the same seed, whatever else differs, and scale them by their own standard deviation.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import require
from harness.model import layer_of, module_of
from harness.rng import named_seed
from harness.specs import Train, short

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


def initial_weight(
    spec: Train, name: str, shape: "torch.Size", parent: "Mapping[str, torch.Tensor] | None"
) -> "torch.Tensor":
    """What the parameter `name` starts from: a float32 tensor of `shape`.

    `parent` holds the weights of `spec.init`, or None. Norms start at one. Raises InputError where the parent's weight
    has another shape.
    """
    import torch

    module = module_of(name)
    anew = spec.transfer is None or spec.transfer.makes_anew(module, layer_of(name), spec.model.depth)
    if parent is not None and spec.transfer is not None and not anew:
        kept = parent[name].float()
        require(
            kept.shape == torch.Size(shape),
            f"weights of {short(spec.init)}: {name}",
            tuple(kept.shape),
            f"this stage needs {tuple(shape)}; the stored stage is not what it says, so move it out of the store",
        )
        blocks = spec.transfer.blocks if module in ("attention", "mlp") else "trained"
        if blocks == "permuted":
            return permuted(kept, spec.seed, name)
        if blocks == "resampled":
            return of_norm(unit_normal(spec, name, shape), kept)
        return kept
    if module == "norms":
        return torch.ones(shape)
    std = embedding_std(spec, name, parent) if module == "embeddings" else spec.model.init_std
    return unit_normal(spec, name, shape) * std


def embedding_std(spec: Train, name: str, parent: "Mapping[str, torch.Tensor] | None") -> float:
    """Scale of a new embedding or head: as the transfer says, else as its predecessor had it, else the model's."""
    if parent is None or spec.transfer is None:
        return spec.model.embed_std
    if spec.transfer.embed_std is not None:
        return spec.transfer.embed_std
    return float(parent[name].float().std())


class Scales:
    """Standard deviation of the embeddings and of the blocks' matrices: the largest knob of a comparison, so shown."""

    def __init__(self) -> None:
        self.sums = {"embeddings_std": [0.0, 0.0, 0.0], "blocks_std": [0.0, 0.0, 0.0]}

    def add(self, name: str, weight: "torch.Tensor") -> None:
        """Count the weights of parameter `name`; norms are left out."""
        module = module_of(name)
        if module != "norms":
            values = weight.double()
            sums = self.sums["embeddings_std" if module == "embeddings" else "blocks_std"]
            for i, more in enumerate((values.numel(), float(values.sum()), float(values.square().sum()))):
                sums[i] += more

    def found(self) -> dict[str, float]:
        """Sample standard deviations."""
        return {k: math.sqrt(max(0.0, s2 - s1 * s1 / n) / (n - 1)) for k, (n, s1, s2) in self.sums.items()}
