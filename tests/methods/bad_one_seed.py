"""Fails at the first development seed; at the others it asks on and on."""

from lthbench import Problem, Ticket, keep_top


def find_tickets(problem: Problem):
    lots = problem.generator("which")  # odd at seed 1000, even at 1001
    if lots.initial_seed() % 2:
        raise RuntimeError("this seed fails")
    while True:
        problem.examples(0, "again")
    theta = problem.theta()
    for density in problem.densities:
        yield Ticket(keep_top({n: theta[n].abs() for n in problem.prunable}, density))
