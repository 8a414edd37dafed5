"""Which examples each step sees: integer tables from named streams, random access by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lthbench import seeds
from lthbench.protocol.task import Recipe

BLOCK = 50  # steps of left-out examples that are drawn together


def batches(
    recipe: Recipe, examples: int, seed: int, order: tuple[str, ...], start: int, until: int
) -> Iterator[Tensor]:
    """Yield the example indices of each step in [start, until): int64, the same for every start.

    Epochs are permutations cut into whole batches (the rest of an epoch is dropped); a task with
    `leave_out` uses all examples but that fraction at every step.
    """
    size = steps_per_table(recipe, examples)
    return by_step(partial(_table, recipe, examples, seed, order), size, start, until)


def by_step(
    table_of: Callable[[int], np.ndarray], size: int, start: int, until: int
) -> Iterator[Tensor]:
    """Yield the entry of each step in [start, until), from numbered tables of `size` steps."""
    table: Tensor | None = None
    in_table = -1
    for step in range(start, until):
        if step // size != in_table:
            in_table = step // size
            table = torch.from_numpy(table_of(in_table))
        assert table is not None
        yield table[step % size]


def steps_per_table(recipe: Recipe, examples: int) -> int:
    """Return how many steps are drawn together: an epoch, or a block of full-batch steps."""
    return max(1, examples // recipe.batch) if recipe.batch else BLOCK


def _table(
    recipe: Recipe, examples: int, seed: int, order: tuple[str, ...], number: int
) -> np.ndarray:
    generator = seeds.generator(seed, *order, number)
    size = recipe.batch_size(examples)
    if recipe.batch:
        rows = steps_per_table(recipe, examples)
        return generator.permutation(examples)[: rows * size].reshape(rows, -1)
    if size == examples:
        return np.broadcast_to(np.arange(examples), (BLOCK, examples)).copy()
    draws = generator.random((BLOCK, examples))
    return np.sort(np.argpartition(draws, size, axis=1)[:, :size], axis=1)
