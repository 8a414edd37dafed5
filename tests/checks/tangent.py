"""The linear model at theta_0, trained in numpy."""

from __future__ import annotations

import numpy as np

from tests.checks import numeric, small


def check(find: small.Find) -> None:
    """The masks are those of |theta_0 + u|."""
    tickets, theta = small.found(find, rate=1.0)
    moves = numeric.train_linear(theta, *small.inputs(), rate=small.RATE, steps=small.STEPS)
    scores = {name: np.abs(theta[name] + moves[name]) for name in numeric.PRUNABLE}
    small.assert_masks(tickets, [numeric.top(scores, density) for density in small.LADDER])
    assert {ticket.start for ticket in tickets} == {0}
