"""Divides zero by zero in its scores."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    theta = problem.theta()
    scores = {name: (theta[name] - theta[name]) / 0 for name in problem.prunable}
    yield Ticket(keep_top(scores, problem.densities[0]))
