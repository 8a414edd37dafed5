"""Random masks whose densities follow the tensors' shapes."""

from __future__ import annotations

from tests.checks import small
from tests.checks.random import assert_blind


def check(find: small.Find) -> None:
    """A tensor's density is in proportion to (rows + columns) / (rows columns), at most 1."""
    tickets, theta = small.found(find)
    for ticket, density in zip(tickets, small.LADDER, strict=True):
        wanted = shares({n: mask.shape for n, mask in ticket.masks.items()}, density)
        for name, mask in ticket.masks.items():
            assert abs(int(mask.sum()) - wanted[name] * mask.numel()) <= 1
    assert_blind(tickets, theta)


def shares(shapes: dict[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Each tensor's density: one factor for all, so that the total is right."""
    sizes = {name: rows * columns for name, (rows, columns) in shapes.items()}
    low, high = 0.0, 1e6
    for _ in range(100):  # halve until the total fits; what would exceed 1 is 1
        factor = (low + high) / 2
        found = {n: min(1.0, factor * sum(shapes[n]) / sizes[n]) for n in shapes}
        kept = sum(found[name] * sizes[name] for name in shapes)
        low, high = (factor, high) if kept < density * sum(sizes.values()) else (low, factor)
    return found
