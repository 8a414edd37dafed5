"""Iterative magnitude pruning: train, prune a fifth of what is left, rewind, again.

The original lottery ticket procedure (Frankle & Carbin 2019) with late rewinding (Frankle et al.
2020). Each round trains the subnetwork to the end, keeps the largest final weights of all layers
together, and gives them back their early values.

Parameters: rate, the share of the kept weights that a round removes (paper: 0.2).
Departures: pruning is global over all prunable tensors, the output layer included (the paper prunes
LeNet layer by layer, its output layer at half the rate); rewinding goes to the task's rewind limit.
"""

from collections.abc import Iterator

from torch import Tensor

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "imp",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Frankle & Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1912.05671",
}


def find_tickets(problem: Problem, *, rate: float = 0.2) -> Iterator[Ticket]:
    start = problem.rewind_limit
    masks: dict[str, Tensor] = {}
    density = 1.0
    for target in problem.densities:
        while density > target * (1 + 1e-9):  # the last bits of 0.8^n must not cost a round
            end = problem.train(start, masks or None)
            density = max(density * (1 - rate), target)
            scores = {name: end[name].abs() for name in problem.prunable}
            masks = keep_top(scores, density, within=masks or None)
        yield Ticket(masks, start)
