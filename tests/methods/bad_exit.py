"""Ends its process without a word."""

import os

from lthbench import Problem


def find_tickets(problem: Problem):
    os._exit(3)
    yield
