"""The largest weights of the dense network's end, on theta_0."""

from __future__ import annotations

from tests.checks import numeric, small


def check(find: small.Find) -> None:
    """One dense run from theta_0, its largest weights at once for every rung, no rewinding."""
    tickets, theta = small.found(find)
    end = numeric.train(theta, *small.inputs(), rate=small.RATE, steps=small.STEPS)
    scores = numeric.magnitudes(end)
    small.assert_masks(tickets, [numeric.top(scores, density) for density in small.LADDER])
    assert {ticket.start for ticket in tickets} == {0}
    assert all(ticket.weights is None for ticket in tickets)
