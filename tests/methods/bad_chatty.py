"""Never ends, and is never silent for long."""

from lthbench import Problem


def find_tickets(problem: Problem):
    while True:
        problem.examples(0, "again")
    yield
