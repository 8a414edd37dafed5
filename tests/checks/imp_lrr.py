"""IMP whose weights keep their final values."""

from __future__ import annotations

import numpy as np

from tests.checks import small
from tests.checks.imp import rounds


def check(find: small.Find) -> None:
    """Masks and weights of every rung by an independent loop; the schedule begins at 0."""
    tickets, theta = small.found(find)
    masks, ends = rounds(theta, 0, final=True)
    small.assert_masks(tickets, masks, slack=0.04)  # rounding grows over all rounds together
    for ticket, end in zip(tickets, ends, strict=True):
        assert ticket.start == 0
        assert ticket.weights is not None
        for name, mask in ticket.masks.items():
            ours, theirs = ticket.weights[name].numpy(), end[name]
            close = np.isclose(ours, theirs, rtol=0.05, atol=0.01)
            assert close[mask.numpy()].mean() > 0.95
