"""FORCE: prune at initialisation in many small rounds, in which pruned weights may come back.

De Jorge et al. 2021. SNIP's score at a high sparsity is judged in a network that will no longer be
there. FORCE scores in the network that is left, |theta * dL/dw| at w = m * theta: the loss sees the
subnetwork, the factor is the dense weight, so that a pruned weight whose gradient has become large
returns. Each rung has rounds of its own, whose densities fall exponentially from 1.

Parameters: rounds (paper and code: 60; here 100, as for the other iterative scores); per_class,
examples of each class in a round, drawn anew every round as in the authors' code.
Departures: a round's gradient is one of the mean loss over its examples, not an average over
batches; a mask keeps an exact count, not all that reach a threshold. Rounds amplify a count that is
off by one: masks of the authors' code, from the same weights and batches, have a Jaccard index of
.15 with these on ResNet-20 at 10 % density. The network is in training mode; its statistics are not
kept.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "force",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "de Jorge et al. 2021, arXiv:2006.09081",
}


def find_tickets(problem: Problem, *, rounds: int = 100, per_class: int = 10) -> Iterator[Ticket]:
    theta = problem.theta()
    dense = {name: theta[name].to(problem.device) for name in problem.prunable}
    for density in problem.densities:
        masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in dense.items()}
        for number in range(1, rounds + 1):
            gradients = subnetwork_gradients(problem, dense, masks, per_class, f"force {number}")
            scores = {name: (w * gradients[name]).abs() for name, w in dense.items()}
            masks = keep_top(scores, density ** (number / rounds))
        yield Ticket(masks)


def subnetwork_gradients(
    problem: Problem,
    dense: dict[str, Tensor],
    masks: dict[str, Tensor],
    per_class: int,
    draw: str,
) -> dict[str, Tensor]:
    """dL/dw at the masked weights, for pruned weights too."""
    x, y = problem.examples(per_class, draw)
    weights = {name: (w * masks[name]).requires_grad_() for name, w in dense.items()}
    loss = problem.loss(problem.forward(weights, x), y)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
