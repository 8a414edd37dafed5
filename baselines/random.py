"""Random pruning, uniform: every tensor at the same density, its weights drawn by lot.

What a mask is worth that knows neither weights nor data, only how many to keep. Each tensor keeps
the same share; without that, a lot drawn over all weights together would empty the smallest layer
first.

Parameters: none.
Departures: none to speak of: a weight's lot is drawn once, so that the masks are nested.
"""

from collections.abc import Iterator

import torch

from lthbench import Problem, Ticket, keep_top, layer_counts

METHOD = {
    "name": "random",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Liu et al. 2022, arXiv:2202.02643",
}


def find_tickets(problem: Problem) -> Iterator[Ticket]:
    lots = problem.generator("random")
    scores = {n: torch.rand(shape, generator=lots) for n, shape in problem.shapes.items()}
    for density in problem.densities:
        yield Ticket(keep_top(scores, layer_counts(problem.shapes, density, "uniform")))
