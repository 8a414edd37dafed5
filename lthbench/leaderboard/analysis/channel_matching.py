"""Agreement of masks up to a permutation of hidden units, which leaves the network the same.

The units of B are permuted, one group of the network after another, to keep as many of A's weights
as possible (one assignment problem per group). A fitted permutation always adds overlap, even for
masks with nothing in common, so the remaining excess is only meaningful relative to pairs of other
seeds matched in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lthbench.leaderboard.analysis.overlap_nulls import Floats, Masks
from lthbench.protocol.task import Network

SWEEPS = 2  # over all groups, from input to output
Shapes = dict[str, tuple[int, ...]]
Array = NDArray[np.float32]


class Side(NamedTuple):
    """One side of a group of units: an axis of a tensor viewed in a given shape."""

    name: str
    shape: tuple[int, ...]
    axis: int


Group = tuple[Side, ...]  # what one permutation of units moves


def groups(spec: Network, shapes: Shapes) -> tuple[Group, ...]:
    """Return the groups of units whose order is free, from input to output.

    In networks with a residual stream, only the units inside a block are free: those of its MLP, or
    those between its two convolutions.
    """
    names = list(shapes)
    if spec.family == "mlp":
        return tuple(_joined(shapes, a, b) for a, b in pairwise(names))
    if spec.family == "conv":
        return tuple(_joined(shapes, a, b) for a, b in pairwise(names))
    if spec.family == "pair-mlp":
        embed, first, *_ = names
        units = shapes[embed][1]
        # Both positions of the first layer read one table.
        read = Side(first, (shapes[first][0], shapes[first][1] // units, units), 2)
        chain = (_joined(shapes, a, b) for a, b in pairwise(names[1:]))
        return (Side(embed, shapes[embed], 1), read), *chain
    inner = {"resnet": ("conv1", "conv2"), "vit": ("fc1", "fc2"), "transformer": ("up", "down")}
    before, after = inner[spec.family]
    first_of = [name for name in names if name.endswith(f".{before}.weight")]
    return tuple(_joined(shapes, n, n.replace(f".{before}.", f".{after}.")) for n in first_of)


def whole(spec: Network) -> bool:
    """Return whether every hidden unit is in a group."""
    return spec.family in ("mlp", "conv", "pair-mlp")


def _joined(shapes: Shapes, before: str, after: str) -> Group:
    """Return the group of units that one tensor produces and the next one reads.

    After a flattening, each unit is read at several positions.
    """
    units = shapes[before][0]
    rows, reads, *rest = shapes[after]
    read = (rows, units, reads // units, *rest)
    return Side(before, shapes[before], 0), Side(after, read, 1)


def matched(a: Sequence[Masks], b: Sequence[Masks], found: Sequence[Group]) -> Floats:
    """Count the weights that each A and each B have in common once B's units are in A's order.

    The result is [seeds of A, seeds of B], and symmetric in A and B.
    """
    from lthbench.training.job import as_in_a_worker

    table = np.zeros((len(a), len(b)))
    sides = [[(_order(masks), _floats(masks)) for masks in side] for side in (a, b)]
    with as_in_a_worker():  # these products are too small for more than one thread
        for i, first in enumerate(sides[0]):
            for j, second in enumerate(sides[1]):
                fixed, moved = sorted((first, second), key=lambda masks: masks[0])
                table[i, j] = _matched(fixed[1], moved[1], found)
    return table


def _floats(masks: Masks) -> dict[str, Array]:
    return {name: np.ascontiguousarray(mask, dtype=np.float32) for name, mask in masks.items()}


def _order(masks: Masks) -> bytes:
    return b"".join(np.packbits(masks[name]).tobytes() for name in sorted(masks))


def _matched(a: dict[str, Array], b: dict[str, Array], found: Sequence[Group]) -> float:
    from scipy.optimize import linear_sum_assignment

    b = dict(b)
    for _ in range(SWEEPS):
        moved = False
        for group in found:
            common = sum(_common(_units(a, side), _units(b, side)) for side in group)
            _, order = linear_sum_assignment(common, maximize=True)
            moved |= bool((order != np.arange(len(order))).any())
            for side in group:
                seen = b[side.name].reshape(side.shape)
                b[side.name] = np.take(seen, order, axis=side.axis).reshape(b[side.name].shape)
        if not moved or len(found) < 2:
            break
    return float(sum(np.vdot(a[name], b[name]) for name in a))


def _units(masks: dict[str, Array], side: Side) -> Array:
    """Return a tensor with one row per unit."""
    seen = np.moveaxis(masks[side.name].reshape(side.shape), side.axis, 0)
    return np.ascontiguousarray(seen.reshape(len(seen), -1))


def _common(a: Array, b: Array) -> Array:
    """Count the weights that each unit of A has in common with each unit of B."""
    import torch

    product: Array = (torch.from_numpy(a) @ torch.from_numpy(b).T).numpy()
    return product
