"""Magnitude at initialisation: keep the largest initial weights, look at nothing else.

The simplest score that sees a weight's value but neither data nor training, as in Frankle et al.
2021. Where layers differ in scale it prunes the wide ones hardest, whose initial weights are small.

Parameters: none; the ranking is global over all prunable tensors, as in the paper.
Departures: weights of equal magnitude (a tensor that starts constant) are ordered at random but
fixed, as `keep_top` orders all ties.
"""

from collections.abc import Iterator

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "magnitude_init",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Frankle et al. 2021, arXiv:2009.08576",
}


def find_tickets(problem: Problem) -> Iterator[Ticket]:
    theta = problem.theta()
    scores = {name: theta[name].abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
