"""Saves its weights outside its own folder."""

import torch

from lthbench import Problem


def find_tickets(problem: Problem):
    torch.save(dict(problem.theta()), "weights.pt")  # its own folder is fine
    torch.save(dict(problem.theta()), "../weights.pt")
    yield
