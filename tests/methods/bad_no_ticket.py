"""Yields bare masks."""

from lthbench import Problem, keep_top


def find_tickets(problem: Problem):
    theta = problem.theta()
    scores = {name: theta[name].abs() for name in problem.prunable}
    for density in problem.densities:
        yield keep_top(scores, density)
