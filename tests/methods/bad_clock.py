"""Trains to a step that the clock decides."""

import time

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    end = problem.train(until=1 + time.time_ns() // 1000 % (problem.steps - 1))
    scores = {name: end[name].abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
