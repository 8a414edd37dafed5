"""Signs alone: IMP's masks, and of the early weights nothing but their signs.

Zhou et al. 2019: a ticket whose weights are one constant for each layer, times the sign of the
early weight, trains about as well as the ticket itself; with signs drawn anew it does not. The
constant is the standard deviation of the layer's kept initial weights.

Parameters: rate, the share of the kept weights that a round of IMP removes (paper: 0.2). control:
"none"; "magnitudes", the early signs with magnitudes drawn anew (half-normal, of the layer's
constant), which tells signs from the one constant; "signs", the constant with signs drawn anew.
Departures: the mask is IMP's by final magnitude, pruned globally (the paper prunes layer by layer
and prefers masks by the increase in magnitude); the deviation is that of the kept weights (paper:
of the whole layer's); signs are those at the task's rewind limit; biases and norms are as they were
at that step. A layer with fewer than two kept weights has no deviation: its constant is the mean
magnitude, or 1 if none is kept.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "sign_only",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Zhou et al. 2019, arXiv:1905.01067",
}
CONTROLS = ("none", "magnitudes", "signs")


def find_tickets(problem: Problem, *, rate: float = 0.2, control: str = "none") -> Iterator[Ticket]:
    if control not in CONTROLS:
        raise ValueError(f"control {control!r}: must be one of {', '.join(CONTROLS)}")
    draw = problem.generator("sign_only")
    start = problem.rewind_limit
    theta, early = problem.theta(), problem.theta(start)
    masks: dict[str, Tensor] = {}
    density = 1.0
    for target in problem.densities:
        while density > target * (1 + 1e-9):  # the last bits of 0.8^n must not cost a round
            end = problem.train(start, masks or None)
            density = max(density * (1 - rate), target)
            scores = {name: end[name].abs() for name in problem.prunable}
            masks = keep_top(scores, density, within=masks or None)
        weights = early.tensors()
        for name, mask in masks.items():
            size, signs = magnitude(theta[name][mask]), early[name].sign()
            if control == "magnitudes":
                size = size * torch.randn(signs.shape, generator=draw).abs()
            elif control == "signs":
                signs = torch.randint(0, 2, signs.shape, generator=draw) * 2.0 - 1.0
            weights[name] = size * signs
        yield Ticket(masks, start, weights)


def magnitude(kept: Tensor) -> Tensor:
    """The one magnitude of a layer, from its kept initial weights (n,)."""
    if not len(kept):
        return torch.ones(())
    deviation = kept.double().std(correction=0)
    return (deviation if deviation > 0 else kept.double().abs().mean()).to(kept.dtype)
