"""Biprop's training of scores, by hand."""

from __future__ import annotations

import numpy as np

from tests.checks import numeric, small
from tests.checks.edge_popup import (
    Mask,
    assert_moved,
    assert_signed,
    layer_counts,
    learned,
    scores_of,
    untrained,
)

RATE = 2.0


def check(find: small.Find) -> None:
    """Weights are +-alpha, the mean magnitude of what is kept; a score's slope is g w sign(s)."""
    tickets, theta = untrained(find, rate=RATE)

    def alpha(name: str, mask: Mask) -> numeric.Floats:
        return np.abs(theta[name]).sum(where=mask) / mask.sum()

    def layer(name: str, mask: Mask) -> tuple[numeric.Floats, numeric.Floats]:
        return np.sign(theta[name]) * alpha(name, mask), theta[name]

    assert_signed(tickets, theta, alpha)
    lots, expected = scores_of("multiprize"), []
    for ticket, scores in zip(tickets, lots, strict=True):
        counts = layer_counts(ticket)
        expected.append(learned(theta, scores, counts, RATE, layer))
    small.assert_masks(tickets, expected)
    assert_moved(expected, lots)
