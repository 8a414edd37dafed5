"""Random pruning, Erdos-Renyi kernel: small tensors stay denser, weights drawn by lot.

A tensor's density is proportional to the sum of its shape over the product (Mocanu et al. 2018 for
matrices, Evci et al. 2020 with kernels): each unit keeps about as many connections in every layer.
The strongest random tickets, and the zero of the benchmark's retention score.

Parameters: none; tensors that would be fuller than dense are dense and the rest is rescaled, as in
Evci et al.'s code.
Departures: the embedding tables among the prunable tensors count as matrices.
"""

from collections.abc import Iterator

import torch

from lthbench import Problem, Ticket, keep_top, layer_counts

METHOD = {
    "name": "erk",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Mocanu et al. 2018, arXiv:1707.04780; Evci et al. 2020, arXiv:1911.11134",
}


def find_tickets(problem: Problem) -> Iterator[Ticket]:
    lots = problem.generator("erk")
    scores = {n: torch.rand(shape, generator=lots) for n, shape in problem.shapes.items()}
    for density in problem.densities:
        yield Ticket(keep_top(scores, layer_counts(problem.shapes, density, "erk")))
