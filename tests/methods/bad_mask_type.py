"""Gives floats for masks."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    theta = problem.theta()
    masks = keep_top({n: theta[n] for n in problem.prunable}, problem.densities[0])
    yield Ticket({name: mask.float() for name, mask in masks.items()})
