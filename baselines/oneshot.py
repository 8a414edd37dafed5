"""One-shot magnitude pruning: train once, prune once to each density, rewind.

The lottery ticket experiment without its rounds (Frankle & Carbin 2019, section 2, with the
rewinding of Frankle et al. 2020): the largest final weights of one dense training get their early
values back. It costs one training where IMP costs one a round, and IMP is compared with it.

Parameters: none.
Departures: pruning is global over all prunable tensors (the paper's is layer by layer, the output
layer at half the rate); rewinding goes to the task's rewind limit.
"""

from collections.abc import Iterator

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "oneshot",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Frankle & Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1912.05671",
}


def find_tickets(problem: Problem) -> Iterator[Ticket]:
    start = problem.rewind_limit
    end = problem.train(start)
    scores = {name: end[name].abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density), start)
