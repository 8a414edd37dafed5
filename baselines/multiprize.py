"""Multi-prize tickets: edge-popup whose subnetwork is binary, its weights +-alpha, one a layer.

The forward pass uses alpha times the sign of the initial weight where the layer's highest scores
are, alpha the mean magnitude of the initial weights that they keep; the gradient of a score is that
of the loss by the binary weight, times the initial weight (Diffenderfer & Kailkhura 2021, biprop).

Parameters: rate, momentum, decay of SGD with a cosine schedule (paper: 0.1, 0.9, 1e-4); length of
the training for one rung, in dense trainings.
Departures: alpha is the mean over exactly the kept weights (the authors' code divides by another
count, which is 0 in tiny layers); activations stay real; norms keep scale 1 and shift 0, where the
paper's "+BN" learns them; scores are those at the end; the cosine moves the rate at every update,
not once an epoch. A row of an embedding table reads one token, so scores there begin with fan_in 1.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lthbench import Problem, Ticket, keep_top, layer_counts

METHOD = {
    "name": "multiprize",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Diffenderfer & Kailkhura 2021, arXiv:2103.09377",
}


def find_tickets(
    problem: Problem,
    *,
    rate: float = 0.1,
    momentum: float = 0.9,
    decay: float = 1e-4,
    length: float = 1.0,
) -> Iterator[Ticket]:
    steps = max(1, round(length * problem.steps))
    theta = problem.theta().tensors()
    frozen = {name: tensor.to(problem.device, copy=True) for name, tensor in theta.items()}
    network = problem.network().train()
    for density in problem.untrained_densities:
        counts = layer_counts(problem.shapes, density, "uniform")
        scores = drawn(problem)
        optimiser = torch.optim.SGD(scores.values(), lr=rate, momentum=momentum, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for x, y in problem.loop(*scores.values(), optimiser, schedule, steps=steps):
            outputs = torch.func.functional_call(network, binary(frozen, scores, counts), (x,))
            optimiser.zero_grad()
            problem.loss(outputs, y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        masks = keep_top({name: s.detach().abs() for name, s in scores.items()}, counts)
        weights = dict(theta)
        for name, mask in masks.items():
            weights[name] = theta[name].sign() * magnitude(theta[name], mask.cpu())
        yield Ticket(masks, weights=weights, trained=False)


def drawn(problem: Problem) -> dict[str, Tensor]:
    """Fresh scores, uniform in +-1 / sqrt(fan_in): Kaiming's with a = sqrt(5)."""
    lots, network = problem.generator("multiprize"), problem.network()
    tables = {n for n, module in network.named_modules() if isinstance(module, nn.Embedding)}
    scores = {}
    for name, shape in problem.shapes.items():
        fan = 1 if name.rpartition(".")[0] in tables else math.prod(shape[1:])
        values = (2 * torch.rand(shape, generator=lots) - 1) / math.sqrt(fan)
        scores[name] = values.to(problem.device).requires_grad_()
    return scores


def binary(
    weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """The binary subnetwork's weights; the gradient of a score is theirs times the real weight."""
    result = dict(weights)
    for name, score in scores.items():
        size, weight = score.abs(), weights[name]
        mask = highest(size.detach(), counts[name])
        signs = weight.sign() * magnitude(weight, mask)
        # The two sizes cancel exactly: nothing is added but the gradient.
        result[name] = signs * mask + weight * (size - size.detach())
    return result


def magnitude(weights: Tensor, mask: Tensor) -> Tensor:
    """alpha of a layer: the mean magnitude of the kept weights, 1 if none is kept."""
    kept = weights[mask.bool()].abs()
    return kept.mean() if len(kept) else torch.ones_like(weights[:1]).mean()


def highest(sizes: Tensor, count: int) -> Tensor:
    """1 where a size is among the `count` highest, else 0; all that tie for the last place."""
    if count == 0:
        return torch.zeros_like(sizes)
    least = sizes.flatten().kthvalue(sizes.numel() - count + 1).values
    return (sizes >= least).to(sizes.dtype)
