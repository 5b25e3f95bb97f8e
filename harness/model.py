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


def config(spec: Llama, vocab: int) -> Any:
    """The transformers configuration of `spec` at a vocabulary of `vocab` tokens."""
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
        attn_implementation="sdpa",
    )


def build(spec: Llama, vocab: int) -> Any:
    """An uninitialised float32 model; `transfer.initial_weights` says what goes in."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.initialization import no_init_weights

    torch.set_default_dtype(torch.float32)
    with no_init_weights():
        net = LlamaForCausalLM(config(spec, vocab))
    net.tie_weights()  # skipped with the initialisation
    return net


def weights(model: Any) -> "dict[str, torch.Tensor]":
    """Every parameter once, by name (a tied head is the embedding)."""
    return dict(model.named_parameters())


def logits(model: Any, inputs: "torch.Tensor", precision: str) -> "torch.Tensor":
    """float32 (batch, context, vocab). `precision` is the recipe's, whatever the device."""
    import torch

    autocast = torch.autocast(inputs.device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with autocast:
        return model(input_ids=inputs, use_cache=False).logits.float()


def nats(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Cross-entropy of every target, float32 (batch, context); 0 where the target is -100 (not supervised)."""
    import torch.nn.functional as F

    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100)
    return losses.view(targets.shape)
