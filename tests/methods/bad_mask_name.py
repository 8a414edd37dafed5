"""Masks a bias, which is no prunable tensor."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    theta = problem.theta()
    masks = keep_top({n: theta[n] for n in problem.prunable}, problem.densities[0])
    yield Ticket({**masks, "head.bias": theta["head.bias"] > 0})
