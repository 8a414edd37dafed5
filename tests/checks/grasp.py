"""GraSP's Hessian product, by differences of gradients."""

from __future__ import annotations

from tests.checks import numeric, small

STEP = 1e-2  # along the gradient, which at this temperature is some 1e-3 long


def check(find: small.Find) -> None:
    """The masks are those of w (H g), highest first, with H g = dg / dh at w + h g."""
    tickets, theta = small.found(find)
    x, y = small.inputs()
    slopes = numeric.gradients(theta, x, y, 200.0)

    def moved(by: float) -> numeric.Arrays:
        weights = dict(theta)
        for name in numeric.PRUNABLE:
            weights[name] = theta[name] + by * slopes[name]
        return numeric.gradients(weights, x, y, 200.0)

    ahead, behind = moved(STEP), moved(-STEP)
    scores = {
        name: theta[name] * (ahead[name] - behind[name]) / (2 * STEP) for name in numeric.PRUNABLE
    }
    small.assert_masks(tickets, [numeric.top(scores, density) for density in small.LADDER])
