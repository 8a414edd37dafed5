"""The largest weights of one dense training, rewound."""

from __future__ import annotations

from tests.checks import numeric, small


def check(find: small.Find) -> None:
    """The dense run from theta_k on, and its largest weights at once for every rung."""
    tickets, theta = small.found(find)
    x, y = small.inputs()
    setting = {"rate": small.RATE, "steps": small.STEPS}
    early = numeric.train(theta, x, y, until=small.REWIND, **setting)
    end = numeric.train(early, x, y, begin=small.REWIND, **setting)
    scores = numeric.magnitudes(end)
    small.assert_masks(tickets, [numeric.top(scores, density) for density in small.LADDER])
    assert {ticket.start for ticket in tickets} == {small.REWIND}
