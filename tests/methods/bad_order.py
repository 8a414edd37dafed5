"""Yields the sparsest rung first."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    theta = problem.theta()
    scores = {name: theta[name].abs() for name in problem.prunable}
    for density in reversed(problem.densities):
        yield Ticket(keep_top(scores, density))
