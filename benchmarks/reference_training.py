"""One optimizer step of the paper's released training loop, for `training.py --reference CHECKOUT` to time beside ours.

CHECKOUT is a clone of github.com/danihyunlee/nca-pre-pretraining, of which `utils/models.py` is imported and nothing
else; this file imports torch and what that one imports. A step does what the loop in its `src/nca_ppt.py` does, as its
script `scripts/prepretraining` runs it: a dense additive causal mask repeated over the batch, attention dropout of 0.1,
logits of the whole batch, their mean cross-entropy, autocast in the device's default type with a gradient scaler, Adam
that is not fused, no clipping, gradients set to None. Where a batch does not fit, gradients are accumulated as its
`--grad_accumulation_steps` does.

Two things are adapted. Today's transformers has layers that return a tensor, where the release takes the first of a
tuple. And the model gets the same shape as ours (inner width, vocabulary, tied embeddings), so that both do equal
products; the release's head has a bias besides.
"""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch

DROPOUT = 0.1
"""`attention_dropout` of the release's `create_llama_model`; its `hidden_dropout` is read by nothing."""


class InTuple(torch.nn.Module):
    """A layer whose tensor comes as the first of a tuple, as transformers' layers had it."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **options: Any) -> tuple[torch.Tensor]:
        return (self.layer(*args, **options),)


def released_models(checkout: Path) -> types.ModuleType:
    """`utils/models.py` of the checkout; Weights & Biases, which it imports on the way, need not be there."""
    if importlib.util.find_spec("wandb") is None:
        sys.modules["wandb"] = types.ModuleType("wandb")
        sys.modules["wandb"].__spec__ = importlib.machinery.ModuleSpec("wandb", None)  # others look for it
    sys.path.insert(0, str(checkout))
    from utils import models

    return models


class Release:
    """The released model and optimizer."""

    def __init__(self, checkout: Path, shape: Any, vocab: int, lr: float, bf16: bool, device: str, micro: int) -> None:
        """`shape` has the fields of `harness.specs.Llama`; `micro` is the number of sequences a forward pass."""
        models = released_models(checkout)
        config = models.CustomLlamaConfig(
            vocab_size=vocab,
            hidden_size=shape.width,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
            use_cache=False,
            rope_theta=int(shape.rope_theta),
            attention_dropout=DROPOUT,
            hidden_dropout=DROPOUT,
            output_vocab=vocab,
        )
        with torch.device(device):
            self.net = models.CustomLlamaModel(config, attn="sdpa", weight_tying=shape.tied)
        self.net.layers = torch.nn.ModuleList(InTuple(layer) for layer in self.net.layers)
        self.net.train()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=lr)
        self.criterion = torch.nn.CrossEntropyLoss()
        self.device, self.autocast, self.micro = torch.device(device), bf16, micro
        self.scaler = torch.amp.GradScaler(self.device.type)
        self.mask = models.create_attention_mask(shape.context, additive=True).to(device)

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> float:
        """One update from int64 (batch, context) tokens on the CPU. Returns the mean loss, nats."""
        losses = []
        for low in range(0, len(inputs), self.micro):
            sequences = inputs[low : low + self.micro].to(self.device)
            wanted = targets[low : low + self.micro].to(self.device)
            mask = self.mask.repeat(len(sequences), 1, 1, 1)
            with torch.autocast(self.device.type, enabled=self.autocast):
                logits = self.net(sequences, attention_mask=mask)
                loss = self.criterion(logits.reshape(-1, logits.size(-1)), wanted.reshape(-1))
            losses.append(loss.detach().cpu().item())
            (self.scaler.scale(loss) if self.autocast else loss).backward()
        if self.autocast:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sum(losses) / len(losses)
