"""Has a bug in a function that find_tickets calls."""

from lthbench import Problem, Ticket, keep_top


def scores_of(problem: Problem, weights):
    return {name: weights[name + ".weights"] for name in problem.prunable}


def find_tickets(problem: Problem):
    yield Ticket(keep_top(scores_of(problem, problem.theta()), problem.densities[0]))
