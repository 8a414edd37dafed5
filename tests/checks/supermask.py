"""The supermask's training of probabilities, by hand, with the method's own lots."""

from __future__ import annotations

import numpy as np
import torch

from tests.checks import numeric, small
from tests.checks.edge_popup import assert_signed, untrained

RATE = 20.0


def check(find: small.Find) -> None:
    """A logit's slope is that of the loss times the weight times the sigmoid's; exact counts."""
    tickets, theta = untrained(find, rate=RATE)
    deviation = {n: np.sqrt(np.mean((w - w.mean()) ** 2)) for n, w in theta.items()}
    assert_signed(tickets, theta, lambda name, mask: deviation[name] * mask.size / mask.sum())
    constants = {name: np.sign(theta[name]) * deviation[name] for name in numeric.PRUNABLE}
    x, y = small.inputs()
    expected = []
    with small.problem() as given:
        lots = given.generator("supermask")
        for density in given.untrained_densities:
            begin = np.log(density / (1 - density))
            logits = {name: np.full(w.shape, begin) for name, w in constants.items()}
            for _step in range(small.STEPS):
                weights, along = dict(theta), {}
                for name, m in logits.items():
                    chance = 1 / (1 + np.exp(-m))
                    mask = torch.rand(m.shape, generator=lots).double().numpy() < chance
                    whole = constants[name] * mask.size / max(1, mask.sum())
                    weights[name] = whole * mask
                    along[name] = whole * chance * (1 - chance)
                slopes = numeric.gradients(weights, x, y)
                logits = {n: m - RATE * slopes[n] * along[n] for n, m in logits.items()}
            expected.append(numeric.top(logits, density))
    small.assert_masks(tickets, expected)
