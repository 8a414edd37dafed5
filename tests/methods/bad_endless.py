"""Never ends."""

from lthbench import Problem


def find_tickets(problem: Problem):
    while True:
        pass
    yield
