"""GraSP: remove the weights without which the gradient flows best, judged at initialisation.

Wang et al. 2020. Removing weight w changes the squared norm of the gradient g by about
-w * (H g), with H the Hessian of the loss: that is the score S, and the weights with the highest S
are removed. So the highest w * (H g) of all layers together are kept.

Parameters: per_class, examples of each class (the authors' CIFAR-10 settings: 10); temperature,
which divides the logits (theirs: 200).
Departures: both factors see the same examples at once, as in Frankle et al. 2021, where the
authors' code sums the gradients of two halves; the layers keep theta_0, where the code draws Linear
layers again before it scores; the score is not divided by its sum, which ranks alike; all in
float64. Scores of exactly 0 tie, and the fixed order of `keep_top` decides among them: on LeNet, at
51.2 % density, a third of the kept weights read pixels that are black in all examples. The network
is in training mode; its statistics are not kept.
"""

from collections.abc import Iterator

import torch

from lthbench import Problem, Ticket, keep_top

METHOD = {
    "name": "grasp",
    "authors": "The lthbench authors",
    "licence": "Apache-2.0",
    "paper": "Wang et al. 2020, arXiv:2002.07376; Frankle et al. 2021, arXiv:2009.08576",
}


def find_tickets(
    problem: Problem, *, per_class: int = 10, temperature: float = 200.0
) -> Iterator[Ticket]:
    x, y = problem.examples(per_class, "grasp", cost="hessian")
    network = problem.network().double().train()
    weights = [network.get_parameter(name) for name in problem.prunable]
    outputs = network(x.double() if x.is_floating_point() else x)
    loss = problem.loss(outputs / temperature, y)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    # d/dw of (g . g'), with g' held fixed, is H g'.
    along = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
    products = torch.autograd.grad(along, weights)
    kept = [w.detach() * product for w, product in zip(weights, products, strict=True)]
    scores = dict(zip(problem.prunable, kept, strict=True))
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
