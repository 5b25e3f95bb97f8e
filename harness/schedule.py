"""The learning rate of a step."""

import math

from harness.specs import Train


def lr_at(spec: Train, step: int) -> float:
    """Learning rate of optimizer step `step` (0 is the first): linear warmup, then cosine, or constant and a
    1 - sqrt decay (warmup-stable-decay; Hagele et al., arXiv 2405.18392)."""
    recipe = spec.recipe
    warmup = recipe.warmup // spec.step_tokens
    end = spec.horizon_steps
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "cosine":
        progress = (step - warmup) / max(1, end - warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    else:
        progress = (step - spec.decay_step) / (end - spec.decay_step)
        fall = 1 - math.sqrt(min(1.0, max(0.0, progress)))
    return recipe.lr * (recipe.final_lr + (1 - recipe.final_lr) * fall)


def marks(spec: Train) -> set[int]:
    """Steps at which the schedule turns, the end of the warmup and the start of the decay: another budget of the same
    recipe could part ways there."""
    turns = {spec.recipe.warmup // spec.step_tokens}
    if spec.recipe.schedule == "wsd":
        turns.add(spec.decay_step)
    return {step for step in turns if 0 < step < spec.steps}
