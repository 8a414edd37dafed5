"""Random masks with the same share of every tensor."""

from __future__ import annotations

import numpy as np

from tests.checks import small


def check(find: small.Find) -> None:
    """Each tensor's share is the rung's; which weights are kept does not depend on their size."""
    tickets, theta = small.found(find)
    for ticket, density in zip(tickets, small.LADDER, strict=True):
        for mask in ticket.masks.values():
            assert abs(int(mask.sum()) - density * mask.numel()) <= 1
    assert_blind(tickets, theta)


def assert_blind(tickets: list[small.Ticket], theta: small.Arrays) -> None:
    """Kept weights are neither larger nor smaller than others: their mean rank is chance."""
    for ticket in tickets:
        for name, mask in ticket.masks.items():
            ranks = np.abs(theta[name]).ravel().argsort().argsort()
            kept, size = ranks[mask.numpy().ravel()], ranks.size
            error = np.sqrt((size + 1) * (size - len(kept)) / (12 * len(kept)))
            assert abs(kept.mean() - (size - 1) / 2) <= 4 * error
