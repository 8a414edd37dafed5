"""Trains in an order that the clock decides."""

import time

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    end = problem.train(until=5, order=time.time_ns())
    scores = {name: end[name].abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
