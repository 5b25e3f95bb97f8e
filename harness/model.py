"""The Llama of transformers, its modules by name, and its loss. torch and transformers are imported when called."""

import contextlib
import re
from typing import TYPE_CHECKING, Any

from harness.specs import Llama

if TYPE_CHECKING:
    import torch

MODULE_PATTERNS = {
    "embeddings": re.compile(r"embed_tokens|lm_head"),
    "attention": re.compile(r"self_attn"),
    "mlp": re.compile(r"mlp\."),
    "norms": re.compile(r"norm"),
}


def module_of(parameter: str) -> str:
    """Which of `modules.MODULES` a parameter of the model belongs to, by its name in transformers' Llama."""
    return next(module for module, pattern in MODULE_PATTERNS.items() if pattern.search(parameter))


def layer_of(parameter: str) -> int | None:
    """The number of the layer that a parameter lies in; None for the embeddings, the head and the final norm."""
    found = re.search(r"layers\.(\d+)\.", parameter)
    return int(found[1]) if found else None


def config(spec: Llama, vocab: int, dropout: float = 0.0) -> Any:
    """The transformers configuration of `spec` with `vocab` rows of embedding, and `dropout` of attention weights."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=spec.width,
        intermediate_size=spec.mlp,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads,
        max_position_embeddings=spec.context,
        rms_norm_eps=spec.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        tie_word_embeddings=spec.tied,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attention_dropout=dropout,
        attn_implementation="sdpa",
    )


def build(spec: Llama, vocab: int, dropout: float = 0.0, device: str = "cpu") -> Any:
    """A float32 `llama.CausalLM` without values; `transfer.initial_weight` says what goes in. On the device "meta" it
    takes no memory, until `materialise`."""
    import torch
    from transformers.initialization import no_init_weights

    from harness.llama import CausalLM

    torch.set_default_dtype(torch.float32)
    with no_init_weights(), torch.device(device):
        net = CausalLM(config(spec, vocab, dropout))
    net.tie_weights()  # skipped with the initialisation
    return net


def materialise(model: Any, device: str) -> None:
    """Give a model that was built on "meta" memory on `device`, sharded as it is; parameters have no values yet."""
    import torch

    model.to_empty(device=device)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight  # two again, unless FSDP keeps them
    with torch.device(device):
        rotary = type(model.model.rotary_emb)(model.config)
    for name, buffer in rotary.named_buffers():
        with torch.no_grad():
            model.model.rotary_emb.get_buffer(name).copy_(buffer)


def recompute(model: Any) -> None:
    """Activation checkpointing: keep what enters a block, compute its inside again in the backward pass."""
    # The first name is that of transformers from 5.20 on.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def weights(model: Any) -> "dict[str, torch.Tensor]":
    """Every parameter once, by name (a tied head is the embedding)."""
    return dict(model.named_parameters())


def precision(device: str, recipe: str) -> Any:
    """The context of a forward pass: `recipe` is "fp32" or "bf16" (autocast: products in bfloat16, the rest and all
    that is kept in float32), whatever the device."""
    import torch

    return torch.autocast(device, torch.bfloat16) if recipe == "bf16" else contextlib.nullcontext()


def logits(model: Any, inputs: "torch.Tensor", recipe: str) -> "torch.Tensor":
    """float32 (batch, context, vocab)."""
    with precision(inputs.device.type, recipe):
        return model(inputs)


def summed_nats(model: Any, inputs: "torch.Tensor", targets: "torch.Tensor", recipe: str) -> "torch.Tensor":
    """The cross-entropy of all targets, a scalar with gradients; targets of -100 are not supervised."""
    with precision(inputs.device.type, recipe):
        return model(inputs, targets)


def score(
    model: Any, inputs: "torch.Tensor", targets: "torch.Tensor", recipe: str
) -> "tuple[torch.Tensor, torch.Tensor]":
    """By position: float32 nats of the target (0 where not supervised), and whether it is the most likely token."""
    import torch

    with torch.no_grad(), precision(inputs.device.type, recipe):
        return model(inputs, targets, each=True)
