"""Keeps what exceeds a threshold, which is no exact count."""

from lthbench import Problem, Ticket


def find_tickets(problem: Problem):
    theta = problem.theta()
    yield Ticket({name: theta[name].abs() > 0.2 for name in problem.prunable})
