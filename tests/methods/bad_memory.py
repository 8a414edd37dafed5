"""Takes memory, a little more each time."""

import torch

from lthbench import Problem


def find_tickets(problem: Problem):
    held = []
    while len(held) < 2000:  # 32 GB in the end
        held.append(torch.ones(2**22))
    yield
