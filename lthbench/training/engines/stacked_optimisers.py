"""The optimisers of torch.optim on stacked weights: each row is a job, with its own numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lthbench.protocol.task import Recipe
from lthbench.training.engines.plain import rate

EPSILON = 1e-8  # torch.optim's own
FIGURES = 3  # numbers per step of a job: see `figures`


def moments(recipe: Recipe, weights: Tensor) -> list[Tensor]:
    """Return the optimiser's state for weights (jobs, size) before its first update."""
    count = bool(recipe.momentum) if recipe.optimiser == "sgd" else 2
    return [torch.zeros_like(weights) for _ in range(count)]


def figures(recipe: Recipe, step: int, updates: int) -> tuple[float, float, float]:
    """Return rate, rate over Adam's first bias correction, and the root of its second.

    Args:
        recipe: of the training.
        step: at which the update ends, counted from theta_0: the schedule follows it.
        updates: of this run, this one included: the bias corrections follow these.
    """
    now = rate(recipe, step)
    if recipe.optimiser == "sgd":
        return now, now, 1.0
    first, second = recipe.betas
    return now, now / (1 - first**updates), math.sqrt(1 - second**updates)


def update(
    recipe: Recipe,
    weights: Tensor,
    gradients: Tensor,
    remembered: list[Tensor],
    decay: Tensor | None,
    now: Tensor,
) -> None:
    """Update all jobs once, in place; the gradients are overwritten.

    A CPU takes one row after the other: a row fits into its cache, and a job's place in the stack
    cannot affect its last bits.

    Args:
        recipe: of the training.
        weights: (jobs, size).
        gradients: (jobs, size).
        remembered: the optimiser's state, each tensor (jobs, size).
        decay: weight decay of each weight, (size,); None for none.
        now: the `figures` of each job, (FIGURES, jobs).
    """
    one_by_one = [slice(j, j + 1) for j in range(len(weights))]
    for part in one_by_one if weights.device.type == "cpu" else [slice(None)]:
        kept = [tensor[part] for tensor in remembered]
        step = now[:, part, None]
        _decay(recipe, weights[part], gradients[part], decay, step[0])
        if recipe.optimiser == "sgd":
            _descend(recipe, weights[part], gradients[part], kept, step[0])
        else:
            _adapt(recipe, weights[part], gradients[part], kept, step)


def _decay(
    recipe: Recipe, weights: Tensor, gradients: Tensor, decay: Tensor | None, rates: Tensor
) -> None:
    """Apply weight decay, decoupled from the gradient (AdamW) or as part of it."""
    if decay is None:
        return
    if recipe.optimiser == "adamw":
        weights.mul_(1 - rates * decay)
    else:
        gradients.addcmul_(weights, decay)


def _descend(
    recipe: Recipe, weights: Tensor, gradients: Tensor, kept: list[Tensor], rates: Tensor
) -> None:
    if kept:
        gradients = kept[0].mul_(recipe.momentum).add_(gradients)
    weights.sub_(gradients * rates)


def _adapt(
    recipe: Recipe, weights: Tensor, gradients: Tensor, kept: list[Tensor], now: Tensor
) -> None:
    _, size, root = now
    mean, square = kept
    mean.lerp_(gradients, 1 - recipe.betas[0])
    square.mul_(recipe.betas[1]).addcmul_(gradients, gradients, value=1 - recipe.betas[1])
    divisor = square.sqrt().div_(root).add_(EPSILON)
    weights.sub_(torch.div(mean, divisor, out=divisor).mul_(size))
