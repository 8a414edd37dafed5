"""The supermask's training of probabilities, by hand, with the method's own lots."""

from __future__ import annotations

import numpy as np
import torch

from tests.checks import numeric, small
from tests.checks.edge_popup import assert_signed, untrained

RATE = 20.0


def check(find: small.Find) -> None:
    """A logit's slope is the sigmoid's times that of the mask, in its place and in the multiplier;
    exact counts. In the multiplier of a layer an empty draw counts as one weight."""
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
                weights, drawn = dict(theta), {}
                for name, m in logits.items():
                    chance = 1 / (1 + np.exp(-m))
                    mask = torch.rand(m.shape, generator=lots).double().numpy() < chance
                    weights[name] = constants[name] * mask * mask.size / max(1, mask.sum())
                    drawn[name] = chance, mask
                slopes = numeric.gradients(weights, x, y)
                for name, (chance, mask) in drawn.items():
                    # Of n / sum(M) * sum(g c M) by one M: n / sum(M) * (g c - mean of g c kept).
                    along = slopes[name] * constants[name]
                    kept = max(1, mask.sum())
                    slope = mask.size / kept * (along - along[mask].sum() / kept)
                    logits[name] = logits[name] - RATE * chance * (1 - chance) * slope
            expected.append(numeric.top(logits, density))
    small.assert_masks(tickets, expected)
