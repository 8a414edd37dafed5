"""Tangent: one-shot magnitude pruning whose dense run is linearised at the initial weights.

Does a ticket need training, or the tangent space at theta_0 alone (Wentworth 2021; Liu & Zenke 2020
on tickets from the tangent kernel)? The linear model f(x; theta_0) + J(x; theta_0) u is trained by
the task's recipe from u = 0, and the largest |theta_0 + u| are kept. It is `oneshot` with its dense
run replaced by a linear one: compare the two.

Parameters: rate, times the recipe's learning rate; 0 chooses among 1, 0.1, 0.01 and 0.001 by the
training loss after a short run of each. probe, the length of these runs as a share of the recipe.
Departures: from `oneshot`, norms are in evaluation mode, u has no weight decay and tickets start at
theta_0, where the model is linearised. The papers do not prune in this way. A step costs two
passes, as a Jacobian product does. Images go through in parts of a batch, whose gradients add up:
the graph of a whole one does not fit the memory of a small machine.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "tangent",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Liu & Zenke 2020, arXiv:2006.08228",
}
RATES = (1.0, 0.1, 0.01, 0.001)
TOGETHER = 32  # images in one graph
Moves = dict[str, Tensor]


def find_tickets(problem: Problem, *, rate: float = 0.0, probe: float = 0.05) -> Iterator[Ticket]:
    chosen = rate or calibrated(problem, max(1, round(probe * problem.steps)))
    moves, _ = linear_training(problem, chosen, problem.steps)
    theta = problem.theta()
    scores = {name: (theta[name] + moves[name].cpu()).abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))


def calibrated(problem: Problem, steps: int) -> float:
    """The factor of the recipe's rate that brings the training loss lowest in so many steps."""
    losses = {rate: linear_training(problem, rate, steps)[1] for rate in RATES}
    return min(losses, key=lambda rate: losses[rate])


def linear_training(problem: Problem, rate: float, steps: int) -> tuple[Moves, float]:
    """u after training, by name, and the loss towards the end (infinite if it diverged)."""
    network = problem.network().eval()
    names, theta = zip(*network.named_parameters(), strict=True)
    moves = [torch.zeros_like(w, requires_grad=False) for w in theta]
    optimiser, schedule = problem.optimiser(moves, rate)
    late = torch.zeros(())  # weighs the last ten steps or so
    for x, y in problem.loop(*moves, optimiser, schedule, late, steps=steps, cost="hessian"):
        total = torch.zeros(())
        slopes = [torch.zeros_like(move) for move in moves]
        size = TOGETHER if x.ndim == 4 else len(x)
        for part, answers in zip(torch.split(x, size), torch.split(y, size), strict=True):
            value = network(part)
            outputs = (value + moved(value, theta, moves)).detach().requires_grad_()
            loss = problem.loss(outputs, answers) * (len(answers) / len(y))
            (blame,) = torch.autograd.grad(loss, outputs)
            gradients = torch.autograd.grad(value, theta, blame)  # J' blame: it is linear in u
            torch._foreach_add_(slopes, gradients)
            total += loss.detach().cpu()
        for move, slope in zip(moves, slopes, strict=True):
            move.grad = slope
        optimiser.step()
        schedule.step()
        late.lerp_(total, 0.1)
    return dict(zip(names, moves, strict=True)), float(late) if math.isfinite(late) else math.inf


def moved(value: Tensor, theta: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
    """J u, for logits (batch, classes) as a function of theta.

    By going back twice: J' v is linear in v, and what goes back from it along u is J u. Forward
    mode would do it once, but not through every operation of a network.
    """
    v = torch.zeros_like(value, requires_grad=True)
    back = torch.autograd.grad(value, theta, v, create_graph=True)
    (slope,) = torch.autograd.grad(back, v, moves, retain_graph=True)
    return slope
