"""Learning-rate rewinding: as IMP, but weights keep their final values and only the rate rewinds.

Renda et al. 2020. Each round trains the subnetwork by the whole schedule, from where the last round
ended, and removes the smallest weights. What it yields comes from the end of training: a reference
for what a sparse network can reach, never ranked among tickets.

Parameters: rate, the share of the kept weights that a round removes (paper: 0.2).
Departures: pruning is global over all prunable tensors; the schedule is replayed whole, from its
first step, warm-up included.
"""

from collections.abc import Iterator

from torch import Tensor

from lthbench import Problem, State, Ticket, keep_top

METHOD = {
    "name": "imp_lrr",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Renda et al. 2020, arXiv:2003.02389",
}


def find_tickets(problem: Problem, *, rate: float = 0.2) -> Iterator[Ticket]:
    end = problem.theta()
    masks: dict[str, Tensor] = {}
    density = 1.0
    for target in problem.densities:
        while density > target * (1 + 1e-9):  # the last bits of 0.8^n must not cost a round
            end = problem.train(State(end.tensors(), 0), masks or None)
            density = max(density * (1 - rate), target)
            scores = {name: end[name].abs() for name in problem.prunable}
            masks = keep_top(scores, density, within=masks or None)
        yield Ticket(masks, weights=end)
