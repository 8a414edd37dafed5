"""What each step's network sees: its batch, shifted and flipped by precomputed tables.

Shifts and flips are integers from the stream "augment" of the run's seed and order, with random
access by step like the batches themselves; inputs are transformed on the device, batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lthbench import seeds
from lthbench.protocol.task import Recipe
from lthbench.training.batches import batches, by_step, steps_per_table
from lthbench.training.job import Examples

PAD = 4  # black pixels on each side that a crop may reach into
SHIFT = 2  # points that a signal is shifted by at most, in either direction
REACH = {"crop-flip": PAD, "shift": SHIFT}


def fed(
    data: Examples,
    recipe: Recipe,
    seed: int,
    order: tuple[str, ...],
    start: int,
    until: int,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and labels of each step in [start, until), the same for every start."""
    rows = batches(recipe, len(data.y), seed, order, start, until)
    if recipe.augment == "none":
        for chosen in rows:
            chosen = chosen.to(data.x.device)
            yield data.inputs(chosen, dtype), data.labels(chosen)
        return
    moves = tables(recipe, len(data.y), seed, order, start, until)
    for chosen, table in zip(rows, moves, strict=True):
        chosen = chosen.to(data.x.device)
        inputs = move(data.x.index_select(0, chosen), table.to(data.x.device))
        yield data.seen(inputs, dtype), data.labels(chosen)


def tables(
    recipe: Recipe, examples: int, seed: int, order: tuple[str, ...], start: int, until: int
) -> Iterator[Tensor]:
    """Yield for each step in [start, until) the row offset, column offset and flip of each example.

    int64, (batch, 3): two offsets of 0 to twice the augmentation's reach, and 0 or 1.
    """
    reach = REACH[recipe.augment]
    size = steps_per_table(recipe, examples)
    shape = size, min(recipe.batch_size(examples), examples)

    def table_of(number: int) -> np.ndarray:
        generator = seeds.generator(seed, "augment", *order, number)
        offsets = generator.integers(0, 2 * reach + 1, (*shape, 2))
        mirrored = generator.integers(0, 2, (*shape, 1))
        return np.concatenate([offsets, mirrored], axis=2)

    return by_step(table_of, size, start, until)


def move(inputs: Tensor, table: Tensor) -> Tensor:
    """Shift signals (n, points), or crop and flip images, as `tables` says for each."""
    return shift(inputs, table) if inputs.ndim == 2 else crop_and_flip(inputs, table)


def shift(signals: Tensor, table: Tensor) -> Tensor:
    """Shift signals (n, points) circularly; an offset of SHIFT leaves one unchanged."""
    points = signals.shape[1]
    along = torch.arange(points, device=signals.device)
    return signals.gather(1, (along + table[:, 1, None] - SHIFT) % points)


def crop_and_flip(images: Tensor, table: Tensor) -> Tensor:
    """Crop and flip images (n, side, side, channels) as `tables` says for each; the shape is kept.

    An offset of PAD leaves an image in place; a flipped one has its columns reversed.
    """
    side = images.shape[1]
    padded = F.pad(images, (0, 0, PAD, PAD, PAD, PAD))
    along = torch.arange(side, device=images.device)
    rows = table[:, 0, None] + along
    across = torch.where(table[:, 2, None] == 1, side - 1 - along, along)
    columns = table[:, 1, None] + across
    numbers = torch.arange(len(images), device=images.device)
    return padded[numbers[:, None, None], rows[:, :, None], columns[:, None, :]]
