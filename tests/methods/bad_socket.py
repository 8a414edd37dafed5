"""Asks the network."""

import urllib.request

from lthbench import Problem


def find_tickets(problem: Problem):
    urllib.request.urlopen("http://127.0.0.1:9/masks")
    yield
