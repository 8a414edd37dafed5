"""The largest initial weights."""

from __future__ import annotations

from tests.checks import numeric, small


def check(find: small.Find) -> None:
    """The masks are those of |theta_0|, to the last entry."""
    tickets, theta = small.found(find)
    scores = numeric.magnitudes(theta)
    expected = [numeric.top(scores, density) for density in small.LADDER]
    small.assert_masks(tickets, expected, slack=0)
