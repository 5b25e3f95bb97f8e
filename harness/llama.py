"""The Llama of transformers with its loss inside, so that whatever wraps the model (DDP, FSDP) sees one forward pass.

It imports torch and transformers; `model.build` imports it when a model is needed."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from harness.layout import LOGIT_ROWS

ALIGNED = 64
"""Logits are computed for a multiple of so many tokens: matrix products that write unaligned rows are slow."""


class CausalLM(LlamaForCausalLM):
    """transformers' model in every parameter and name; attention is causal by SDPA's flag, without a mask."""

    def forward(self, inputs: Tensor, targets: Tensor | None = None, each: bool = False) -> Any:
        """Of `inputs`, int64 (batch, context): float32 logits (batch, context, vocab); given `targets` of their shape
        (-100 = not supervised), the summed cross-entropy in nats; with `each`, float32 nats (0 where not supervised)
        and bool hits of the most likely token by position, without gradients."""
        hidden = self.model(input_ids=inputs, use_cache=False).last_hidden_state
        if targets is None:
            return self.lm_head(hidden).float()
        autocast = torch.is_autocast_enabled(inputs.device.type)
        dtype = torch.get_autocast_dtype(inputs.device.type) if autocast else torch.float32
        rows = hidden.flatten(0, 1)
        if each:
            nats, hits = score(rows, self.lm_head.weight, targets.flatten(), dtype)
            return nats.view_as(targets), hits.view_as(targets)
        return SummedCrossEntropy.apply(rows, self.lm_head.weight, targets.flatten(), dtype)


def aligned(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` (vocab, width) in `dtype`, with rows of zeros up to a multiple of ALIGNED."""
    matrix = torch.zeros(-(-len(weight) // ALIGNED) * ALIGNED, weight.shape[1], dtype=dtype, device=weight.device)
    matrix[: len(weight)] = weight
    return matrix


def chunks(rows: Tensor, matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """`rows @ matrix.T` a chunk of rows at a time: which rows, and their products, each time in the same memory."""
    length = min(len(rows), LOGIT_ROWS[rows.device.type])
    products = torch.empty(length, len(matrix), dtype=rows.dtype, device=rows.device)
    for low in range(0, len(rows), length):
        part = slice(low, min(low + length, len(rows)))
        yield part, torch.mm(rows[part], matrix.T, out=products[: part.stop - low])


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T`, summed, without logits of more than a chunk of rows. The gradients are
    computed in the forward pass, while a chunk is there, so that nothing is computed twice."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """`hidden` (rows, width), `weight` (vocab, width), `targets` int64 (rows,); products are in `dtype`."""
        with torch.autocast(hidden.device.type, enabled=False):
            vocab, rows, matrix = len(weight), hidden.to(dtype), aligned(weight, dtype)
            supervised = (targets >= 0)[:, None]
            wanted = targets.clamp(min=0)[:, None]
            nats = torch.empty(len(rows), 1, dtype=torch.float32, device=rows.device)
            grad_hidden = torch.empty_like(rows)
            grad_matrix = torch.zeros_like(matrix, dtype=torch.float32)
            for part, products in chunks(rows, matrix):
                p = products.float()  # itself, where it is float32
                p[:, vocab:] = -math.inf
                own, most = p.gather(1, wanted[part]), p.amax(1, keepdim=True)
                torch.softmax(p, 1, out=p)
                # By the likeliest token, whose p is at least 1 / vocab: the target's may be 0.
                nats[part] = most - own - p.amax(1, keepdim=True).log()
                p.scatter_add_(1, wanted[part], torch.full_like(own, -1.0)).mul_(supervised[part])
                slope = products.copy_(p) if dtype != torch.float32 else p
                torch.mm(slope, matrix, out=grad_hidden[part])
                if dtype == torch.float32:
                    grad_matrix.addmm_(slope.T, rows[part])
                else:
                    grad_matrix += torch.mm(slope.T, rows[part])
            ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_matrix[:vocab])
            return torch.where(supervised, nats, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None, None


@torch.no_grad()
def score(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats (0 where not supervised) and whether the target is the most likely token, by row."""
    with torch.autocast(hidden.device.type, enabled=False):
        vocab, rows = len(weight), hidden.to(dtype)
        nats = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
        hits = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
        for part, products in chunks(rows, aligned(weight, dtype)):
            logits = products[:, :vocab].float()
            own = logits.gather(1, targets[part].clamp(min=0)[:, None])[:, 0]
            nats[part] = logits.logsumexp(1) - own
            hits[part] = logits.argmax(1) == targets[part]
        return torch.where(targets >= 0, nats, 0.0), hits
