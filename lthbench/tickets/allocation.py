"""How many weights each tensor keeps: uniform and ERK."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, TypeAlias

from lthbench.errors import TicketError
from lthbench.tickets.masks import Shapes, target_count

Rule: TypeAlias = Literal["uniform", "erk"]


def layer_counts(shapes: Shapes, density: float, rule: Rule) -> dict[str, int]:
    """Distribute ``target_count(density, N)`` kept entries exactly among tensors.

    ``uniform``: every tensor at the same density. ``erk`` (Erdos-Renyi kernel; Evci et al. 2020,
    "Rigging the lottery", as in jaxpruner's ``sparsity_distributions``): a tensor's density is
    proportional to sum(shape) / prod(shape); tensors that would exceed 1 are dense and the rest
    is rescaled, until none does. A 0-d tensor counts as one of shape (1,).

    Fractions are rounded by largest remainder, ties by name; the arithmetic is exact. Returns
    counts in the order of ``shapes``, 0 <= count <= size. Raises TicketError for a density outside
    (0, 1] and for an unknown rule.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = target_count(density, sum(sizes.values()))
    if rule == "uniform":
        quotas = {name: Fraction(density) * size for name, size in sizes.items()}
    elif rule == "erk":
        quotas = _erk_quotas(shapes, sizes, Fraction(density))
    else:
        raise TicketError(f"layer_counts: unknown rule {rule!r}; the rules are uniform and erk")
    return largest_remainder(quotas, wanted)


def _erk_quotas(shapes: Shapes, sizes: Mapping[str, int], density: Fraction) -> dict[str, Fraction]:
    """Return how many entries each tensor would keep if entries were divisible."""
    # density * size is proportional to raw density * size = sum(shape), so no division is needed.
    weights = {name: sum(shape) if shape else 1 for name, shape in shapes.items()}
    wanted = density * sum(sizes.values())
    dense = {name for name, size in sizes.items() if size == 0}
    while True:
        rest = [name for name in shapes if name not in dense]
        budget = wanted - sum(sizes[name] for name in dense)
        scale = budget / max(1, sum(weights[name] for name in rest))
        # A tensor found too full stays dense: that leaves more for each of the others.
        overfull = {name for name in rest if weights[name] * scale > sizes[name]}
        if not overfull:
            return {
                name: Fraction(sizes[name]) if name in dense else weights[name] * scale
                for name in shapes
            }
        dense |= overfull


def largest_remainder(quotas: Mapping[str, Fraction], wanted: int) -> dict[str, int]:
    """Round quotas to integers that sum to ``wanted``, which is their rounded sum.

    Ties go by name.
    """
    floors = {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: (floors[name] - quotas[name], name))
    for name in by_remainder[: wanted - sum(floors.values())]:
        floors[name] += 1
    return floors
