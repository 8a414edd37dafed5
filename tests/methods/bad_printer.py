"""Prints gigabytes."""

from lthbench import Problem


def find_tickets(problem: Problem):
    for _ in range(4096):
        print("x" * 2**20)
    yield
