"""FORCE's rounds, with passes by hand."""

from __future__ import annotations

import numpy as np

from tests.checks import numeric, small

# Sparse enough that no weight without a gradient is kept: in which order such weights tie is the
# package's own affair. A unit whose outgoing weights are pruned leaves its incoming ones without.
DENSITIES = (0.2, 0.1)
ROUNDS = 30


def check(find: small.Find) -> None:
    """Thirty rounds, in which weights that were pruned may come back."""
    ladder = small.task().ladder.model_copy(update={"trained": DENSITIES})
    tickets, theta = small.found(find, small.task(ladder=ladder), rounds=ROUNDS)
    small.assert_masks(tickets, [rounds(theta, density) for density in DENSITIES])


def rounds(theta: numeric.Arrays, density: float) -> numeric.Bools:
    """The masks after the rounds of |theta dL/dw|, the gradient at the masked weights."""
    masks = {name: np.ones_like(theta[name], dtype=bool) for name in numeric.PRUNABLE}
    for number in range(1, ROUNDS + 1):
        left = {name: w * masks.get(name, True) for name, w in theta.items()}
        slopes = numeric.gradients(left, *small.inputs())
        scores = {name: np.abs(theta[name] * slopes[name]) for name in masks}
        masks = numeric.top(scores, density ** (number / ROUNDS))
    return masks
