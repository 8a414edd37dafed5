"""Needs a package that is not installed."""

import a_package_of_no_one

from lthbench import Problem, Ticket


def find_tickets(problem: Problem):
    yield Ticket(a_package_of_no_one.masks(problem))
