"""SynFlow by a sum over all paths."""

from __future__ import annotations

import numpy as np

from tests.checks import numeric, small

ROUNDS = 30


def check(find: small.Find) -> None:
    """Thirty rounds; a weight's score is the sum of |products| over the paths through it."""
    tickets, theta = small.found(find, rounds=ROUNDS)
    small.assert_masks(tickets, [rounds(theta, density) for density in small.LADDER])


def rounds(theta: numeric.Arrays, density: float) -> numeric.Bools:
    """The masks after rounds of exponentially falling density."""
    masks = {name: np.ones_like(theta[name], dtype=bool) for name in numeric.PRUNABLE}
    for number in range(1, ROUNDS + 1):
        left = [np.abs(theta[name]) * masks[name] for name in numeric.PRUNABLE]
        # paths[i, a, b, c]: from input i by units a and b to output c
        paths = np.einsum("ai,ba,cb->iabc", *left)
        sums = (paths.sum((2, 3)).T, paths.sum((0, 3)).T, paths.sum((0, 1)).T)
        scores = dict(zip(numeric.PRUNABLE, sums, strict=True))
        masks = numeric.top(scores, density ** (number / ROUNDS), masks)
    return masks
