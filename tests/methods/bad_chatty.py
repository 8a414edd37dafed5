"""Never ends, and is never silent for long."""

from lthbench import Problem


def find_tickets(problem: Problem):
    while True:
        problem.examples(1, "again", cost=0.0)
    yield
