"""Hypothesis strategies for scores, masks and shapes, shared by the property tests.

Tensors are small, because every rule about ties, counts and edges shows in small ones: 0-d and
one-element tensors, few distinct values, infinities and constants all come often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

# Enough for rules whose counterexamples are common; each test stays under a second.
moderate = settings(max_examples=40, deadline=None)

Shapes = dict[str, tuple[int, ...]]
NAMES = ["conv.weight", "fc1.weight", "fc2.weight", "head.weight", "a", "b", "é"]
TIED = [-1.0, -0.0, 0.0, 1.0, 2.0]
INFINITE = [-math.inf, -1.0, 0.0, 1.0, math.inf]


def seeds() -> st.SearchStrategy[int]:
    """Seeds as tasks use them."""
    return st.integers(0, 2000)


def densities() -> st.SearchStrategy[float]:
    """Densities in (0, 1], with those that ladders are made of."""
    ladder = st.sampled_from([0.8**n for n in range(24)] + [0.1, 0.5])
    return st.one_of(ladder, st.floats(0, 1, exclude_min=True, allow_subnormal=False))


def shape(max_side: int = 3) -> st.SearchStrategy[tuple[int, ...]]:
    """The shape of one tensor, of 0 to 3 dimensions."""
    return st.lists(st.integers(1, max_side), max_size=3).map(tuple)


def shapes(max_side: int = 3) -> st.SearchStrategy[Shapes]:
    """Shapes of one to three named tensors."""
    return st.dictionaries(st.sampled_from(NAMES), shape(max_side), min_size=1, max_size=3)


@st.composite
def scores(draw: st.DrawFn, of: Shapes | None = None) -> dict[str, Tensor]:
    """float32 scores without NaN: many ties, infinities, constants, or arbitrary."""
    of = draw(shapes()) if of is None else of
    kinds: list[st.SearchStrategy[float]] = [
        st.sampled_from(TIED),
        st.sampled_from(INFINITE),
        st.just(draw(st.sampled_from(INFINITE))),
        st.floats(allow_nan=False, width=32),
    ]
    elements = draw(st.sampled_from(kinds))
    return {
        name: torch.from_numpy(draw(arrays(np.float32, side, elements=elements)))
        for name, side in of.items()
    }


@st.composite
def masks(draw: st.DrawFn, of: Shapes | None = None) -> dict[str, Tensor]:
    """Masks of any counts, full and empty tensors included."""
    of = draw(shapes()) if of is None else of
    return {name: draw(mask(side)) for name, side in of.items()}


@st.composite
def mask(draw: st.DrawFn, of: tuple[int, ...]) -> Tensor:
    """One mask of a given shape."""
    constant = draw(st.sampled_from([None, None, None, True, False]))
    elements = st.booleans() if constant is None else st.just(constant)
    return torch.from_numpy(draw(arrays(np.bool_, of, elements=elements)))


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two masks of the same names and shapes."""
    of = draw(shapes())
    return draw(masks(of)), draw(masks(of))


@st.composite
def scores_within(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores and the masks that say which of them may be kept."""
    of = draw(shapes())
    return draw(scores(of)), draw(masks(of))


@st.composite
def count_for_each(draw: st.DrawFn, allowed: dict[str, Tensor]) -> dict[str, int]:
    """A count for each tensor that its mask of allowed entries can meet."""
    return {name: draw(st.integers(0, int(one.sum()))) for name, one in allowed.items()}


@st.composite
def reordered(draw: st.DrawFn, names: Sequence[str]) -> list[str]:
    """The same names in another order."""
    return draw(st.permutations(list(names)))
