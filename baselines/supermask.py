"""Supermask: a probability for each weight, learned without training any weight.

Every step draws its mask, keeping a weight with the probability sigmoid(m); the gradient of m is
that of the mask times the sigmoid's slope (Zhou et al. 2019). Weights are signed constants: the
deviation of the layer's initial weights times their signs, divided by the share of the layer that
the draw kept (dynamic rescaling). As in the authors' code the gradient goes through that share too:
a logit rises only where its weight helps more than the mean of those that the layer keeps.

Parameters: rate of SGD for the logits m (paper: 100); length of the training for one rung, in dense
trainings.
Departures: the probabilities begin at the rung's density in place of one half; the ticket is the
exact count of highest logits of all layers together, rescaled by the share that it keeps; training
is as long as the recipe's (paper: up to 2,000 epochs); a draw that keeps nothing of a layer counts
as one weight, where the authors' share divides by zero.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "supermask",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Zhou et al. 2019, arXiv:1905.01067",
}


def find_tickets(problem: Problem, *, rate: float = 100.0, length: float = 1.0) -> Iterator[Ticket]:
    steps = max(1, round(length * problem.steps))
    theta = problem.theta().tensors()
    for name in problem.prunable:
        theta[name] = theta[name].sign() * theta[name].double().std(correction=0).float()
    frozen = {name: tensor.to(problem.device, copy=True) for name, tensor in theta.items()}
    network, lots = problem.network().train(), problem.generator("supermask")
    for density in problem.untrained_densities:
        begin = math.log(density / (1 - density))
        logits = {
            name: torch.full(shape, begin, device=problem.device, requires_grad=True)
            for name, shape in problem.shapes.items()
        }
        optimiser = torch.optim.SGD(logits.values(), lr=rate)
        for x, y in problem.loop(*logits.values(), optimiser, steps=steps):
            outputs = torch.func.functional_call(network, sampled(frozen, logits, lots), (x,))
            optimiser.zero_grad()
            problem.loss(outputs, y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        masks = keep_top({name: m.detach() for name, m in logits.items()}, density)
        weights = dict(theta)
        for name, mask in masks.items():
            weights[name] = theta[name] * rescaling(mask.cpu())
        yield Ticket(masks, weights=weights, trained=False)


def sampled(
    weights: Mapping[str, Tensor], logits: Mapping[str, Tensor], lots: torch.Generator
) -> dict[str, Tensor]:
    """The weights under masks drawn with the logits' probabilities, rescaled."""
    result = dict(weights)
    for name, logit in logits.items():
        chance = logit.sigmoid()
        lot = torch.rand(logit.shape, generator=lots).to(logit.device)
        # The two chances cancel exactly: nothing is added to the mask but the gradient.
        mask = (lot < chance.detach()).to(logit.dtype) + (chance - chance.detach())
        result[name] = weights[name] * rescaling(mask) * mask
    return result


def rescaling(mask: Tensor) -> Tensor:
    """What a layer's weights are multiplied by: one over the share that is kept, a scalar."""
    return mask.numel() / mask.sum().clamp(min=1)
