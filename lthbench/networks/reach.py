"""Which weights a path from input to output leads through, exact at any depth.

Networks are made linear with non-negative weights, so that a sum is positive exactly if one of its
terms is. Numbers of paths leave float64 in deep networks; their signs are all that counts, and
`reached` keeps no more of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient > 0).to(gradient.dtype)


def reached(x: Tensor) -> Tensor:
    """1 where x is positive, else 0; the same of the gradient that comes back through it."""
    found: Tensor = _Reached.apply(x)
    return found


def attended(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """What attention brings, as (1 + q k') v: query and key count where a value passes.

    Each is (2, heads, positions, size of a head): first what is there at all, constants too, then
    what of it is read from the input. Their product is read from the input by any of the three.

    Args:
        seen: (queries, keys), 1 where a query sees a key, 0 where it does not; None for everywhere.
    """
    there = 1 + q[0] @ k[0].mT
    read = q[1] @ k[0].mT + q[0] @ k[1].mT
    if seen is not None:
        there, read = there * seen, read * seen
    return torch.stack([there @ v[0], there @ v[1] + read @ v[0]])
