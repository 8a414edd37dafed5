"""Forks, as a DataLoader with workers does."""

import multiprocessing

from lthbench import Problem


def find_tickets(problem: Problem):
    multiprocessing.get_context("fork").Process(target=print).start()
    yield
