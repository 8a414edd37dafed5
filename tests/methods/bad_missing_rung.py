"""Yields no ticket for the sparsest rung."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    theta = problem.theta()
    scores = {name: theta[name].abs() for name in problem.prunable}
    for density in problem.densities[:-1]:
        yield Ticket(keep_top(scores, density))
