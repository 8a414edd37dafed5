"""SNIP: keep the connections whose removal would change the loss most, judged at initialisation.

Lee et al. 2019. The sensitivity of a connection is |dL/dc| at c = 1, where c multiplies the weight
w: by the chain rule |w * dL/dw|. One forward and backward pass over a few examples of each class
gives it for all; the highest of all layers together are kept.

Parameters: per_class, examples of each class (Frankle et al. 2021: 10).
Departures: weights are scored alone, not biases, and without weight decay in the loss; the weights
scored are theta_0, the ones that are trained (some ports score a fresh initialisation); the
absolute value is taken after the sum over the examples, of one gradient of the mean loss. The
network is in training mode, as in Frankle et al.
"""

from collections.abc import Iterator

import torch

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "snip",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Lee et al. 2019, arXiv:1810.02340; Frankle et al. 2021, arXiv:2009.08576",
}


def find_tickets(problem: Problem, *, per_class: int = 10) -> Iterator[Ticket]:
    x, y = problem.examples(per_class, "snip")
    network = problem.network().train()
    weights = [network.get_parameter(name) for name in problem.prunable]
    gradients = torch.autograd.grad(problem.loss(network(x), y), weights)
    sensitivities = [(w * g).abs() for w, g in zip(weights, gradients, strict=True)]
    scores = dict(zip(problem.prunable, sensitivities, strict=True))
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
