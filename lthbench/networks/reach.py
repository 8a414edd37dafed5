"""Which weights lie on a path from input to output, exact at any depth.

Networks are made linear with non-negative weights, so that a sum is positive exactly if one of its
terms is. In deep networks the number of paths overflows float64; only its sign matters, and
`reached` keeps just that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reached(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient > 0).to(gradient.dtype)


def reached(x: Tensor) -> Tensor:
    """Return 1 where x is positive, else 0; likewise for the gradient in the backward pass."""
    found: Tensor = _Reached.apply(x)
    return found


def attended(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Apply attention as (1 + q k') v: query and key count wherever a value passes.

    Args:
        q: queries, (2, heads, positions, size of a head): index 0 holds everything, constants
            included, index 1 what depends on the input.
        k: keys, likewise.
        v: values, likewise. The product depends on the input if any of the three does.
        seen: (queries, keys), 1 where a query sees a key, else 0; None for everywhere.
    """
    there = 1 + q[0] @ k[0].mT
    read = q[1] @ k[0].mT + q[0] @ k[1].mT
    if seen is not None:
        there, read = there * seen, read * seen
    return torch.stack([there @ v[0], there @ v[1] + read @ v[0]])
