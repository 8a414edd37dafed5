"""SNIP's score is |w dL/dw|, in closed form."""

from __future__ import annotations

import numpy as np

from tests.checks import numeric, small


def check(find: small.Find) -> None:
    """The masks are those of |w g|, with g by hand."""
    tickets, theta = small.found(find)
    slopes = numeric.gradients(theta, *small.inputs())
    scores = {name: np.abs(theta[name] * slopes[name]) for name in numeric.PRUNABLE}
    small.assert_masks(tickets, [numeric.top(scores, density) for density in small.LADDER])
