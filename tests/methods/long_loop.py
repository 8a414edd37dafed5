"""Trains a score for each weight in a long loop of its own, after edge-popup.

Everything that a killed run must find again is in it: a module with gradients that are read after
the loop, an optimiser with momentum, a named generator, torch's own draws.
"""

import torch
from torch import nn

from lthbench import Problem, Ticket, keep_top

METHOD = {"name": "long_loop"}


def find_tickets(problem: Problem, *, rate: float = 0.1):
    theta = problem.theta()
    noise = problem.generator("noise")
    scores = nn.ParameterDict(
        {n.replace(".", "/"): nn.Parameter(theta[n].abs()) for n in problem.prunable}
    )
    named = {name.replace("/", "."): score for name, score in scores.items()}
    optimiser = torch.optim.SGD(scores.parameters(), lr=rate, momentum=0.9)
    for x, y in problem.loop(scores, optimiser, noise, steps=problem.steps):
        jolted = {
            n: s + 1e-3 * torch.randn(s.shape, generator=noise) + 1e-3 * torch.randn(s.shape)
            for n, s in named.items()
        }
        weights = {n: theta[n] * jolted[n].sigmoid() for n in problem.prunable}
        loss = problem.loss(problem.forward({**theta, **weights}, x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for _ in problem.loop(steps=3):  # a short one, which runs again
        torch.rand(1)
    final = {n: s.detach().abs() + s.grad.abs() for n, s in named.items()}
    for density in problem.densities:
        yield Ticket(keep_top(final, density))
