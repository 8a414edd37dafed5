"""Edge-popup: a subnetwork of random weights that are never trained; what is learned is the mask.

Every weight has a score; each forward pass uses the layer's highest scores by magnitude, and the
gradient passes straight through to all of them (Ramanujan et al. 2020). The weights are signed
Kaiming constants: the sign of the initial weight times sqrt(2 / fan_in), one magnitude a layer.
Scores begin uniform in +-1 / sqrt(fan_in) and are trained by SGD with a cosine schedule.

Parameters: rate, momentum, decay of SGD (paper: 0.1, 0.9, 1e-4); length of the training for one
rung, in dense trainings (paper: 1, of 100 epochs).
Departures: every layer keeps its share of the rung's exact count; scores are those at the end, not
at the best test accuracy; the cosine moves the rate at every update, not once an epoch; norms keep
scale 1 and shift 0; a row of an embedding table reads one token, so its fan_in is 1.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lthbench import Problem, Ticket, keep_top, layer_counts

METHOD = {
    "name": "edge_popup",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Ramanujan et al. 2020, arXiv:1911.13299",
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
    fans = fan_in(problem)
    weights = problem.theta().tensors()
    for name in problem.prunable:
        weights[name] = weights[name].sign() * math.sqrt(2 / fans[name])
    frozen = {name: tensor.to(problem.device, copy=True) for name, tensor in weights.items()}
    network = problem.network().train()
    for density in problem.untrained_densities:
        counts = layer_counts(problem.shapes, density, "uniform")
        scores = drawn(problem, fans)
        optimiser = torch.optim.SGD(scores.values(), lr=rate, momentum=momentum, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for x, y in problem.loop(*scores.values(), optimiser, schedule, steps=steps):
            outputs = torch.func.functional_call(network, popped(frozen, scores, counts), (x,))
            optimiser.zero_grad()
            problem.loss(outputs, y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        masks = keep_top({name: s.detach().abs() for name, s in scores.items()}, counts)
        yield Ticket(masks, weights=weights, trained=False)


def fan_in(problem: Problem) -> dict[str, int]:
    """How many inputs a unit of each prunable tensor reads."""
    network = problem.network()
    tables = {n for n, module in network.named_modules() if isinstance(module, nn.Embedding)}
    return {
        name: 1 if name.rpartition(".")[0] in tables else math.prod(shape[1:])
        for name, shape in problem.shapes.items()
    }


def drawn(problem: Problem, fans: Mapping[str, int]) -> dict[str, Tensor]:
    """Fresh scores, uniform in +-1 / sqrt(fan_in): Kaiming's with a = sqrt(5)."""
    lots = problem.generator("edge_popup")
    return {
        name: ((2 * torch.rand(shape, generator=lots) - 1) / math.sqrt(fans[name]))
        .to(problem.device)
        .requires_grad_()
        for name, shape in problem.shapes.items()
    }


def popped(
    weights: Mapping[str, Tensor], scores: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """The weights under the masks of the scores; the gradient of a score is that of its mask."""
    result = dict(weights)
    for name, score in scores.items():
        size = score.abs()
        mask = highest(size.detach(), counts[name])
        # The two sizes cancel exactly: what is added to the mask is 0, with a gradient of 1.
        result[name] = weights[name] * (mask + (size - size.detach()))
    return result


def highest(sizes: Tensor, count: int) -> Tensor:
    """1 where a size is among the `count` highest, else 0; all that tie for the last place."""
    if count == 0:
        return torch.zeros_like(sizes)
    least = sizes.flatten().kthvalue(sizes.numel() - count + 1).values
    return (sizes >= least).to(sizes.dtype)
