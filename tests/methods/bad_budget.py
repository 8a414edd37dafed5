"""Trains until nothing is left, and once more."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    scores = {name: problem.theta()[name].abs() for name in problem.prunable}
    yield Ticket(keep_top(scores, problem.densities[0]))
    # charged whole when it begins
    problem.loop(steps=round(problem.steps * problem.budget))
    problem.train()
