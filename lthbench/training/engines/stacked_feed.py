"""What every step of many jobs sees: tables made ahead on the CPU, examples on the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from lthbench.training.augment import move, tables
from lthbench.training.batches import batches
from lthbench.training.job import Examples, Job

BLOCK = 50  # steps whose tables are made and moved together
Key = tuple[int, tuple[str, ...], int]  # seed, order, first step


@dataclass(frozen=True)
class _Stream:
    """The batches of one seed and order, which several jobs may share."""

    rows: Iterator[Tensor]
    moves: Iterator[Tensor] | None
    offset: int  # of the seed's examples among all


class Feed:
    """Batches of several jobs by a step counter on the device, which a captured graph can read.

    Jobs of one seed, order and start share a stream. Beyond a stream's end every row is 0: the jobs
    that would see it have ended.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        data: Mapping[int, Examples],
        lengths: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        """Move the examples to the device and set up the streams.

        Args:
            jobs: the jobs to feed.
            data: the training examples of each seed.
            lengths: steps of each job.
            dtype: of the networks' inputs.
        """
        self.first, self.dtype = data[jobs[0].seed], dtype
        self.recipe = jobs[0].recipe
        self.x, self.y, offsets = _resident(jobs, data)
        self.scale, self.shift = (
            torch.tensor(figure, dtype=dtype, device=self.x.device)
            for figure in (self.first.scale, self.first.shift)
        )
        keys = [(job.seed, job.order, job.start.step) for job in jobs]
        longest: dict[Key, int] = {}
        for key, length in zip(keys, lengths, strict=True):
            longest[key] = max(length, longest.get(key, 0))
        self.streams = [
            self._stream(key, length, offsets[key[0]]) for key, length in longest.items()
        ]
        numbers = {key: i for i, key in enumerate(longest)}
        self.place = torch.tensor([numbers[key] for key in keys], device=self.x.device)
        size = min(self.recipe.batch_size(len(self.first.y)), len(self.first.y))
        shape = BLOCK, len(self.streams), size
        self.rows = torch.zeros(shape, dtype=torch.int32, device=self.x.device)
        self.moves: Tensor | None = None
        if self.recipe.augment != "none":
            self.moves = torch.zeros((*shape, 3), dtype=torch.uint8, device=self.x.device)

    def _stream(self, key: Key, length: int, offset: int) -> _Stream:
        seed, order, start = key
        span = self.recipe, len(self.first.y), seed, order, start, start + length
        moves = tables(*span) if self.recipe.augment != "none" else None
        return _Stream(batches(*span), moves, offset)

    def ahead(self) -> list[list[Tensor]]:
        """Return the next block of each stream on the CPU: rows, and augmentations if any."""

        def block(stream: _Stream) -> list[Tensor]:
            shape = self.rows.shape[2:]
            made = [_padded(stream.rows, shape, torch.int32).add_(stream.offset)]
            if stream.moves is not None:
                made.append(_padded(stream.moves, (*shape, 3), torch.uint8))
            return made

        return _each(block, self.streams, self.x.is_cuda)

    def load(self, made: Sequence[Sequence[Tensor]]) -> None:
        """Replace the previous block, all of whose steps have been launched."""
        places = [self.rows] if self.moves is None else [self.rows, self.moves]
        for place, parts in zip(places, zip(*made, strict=True), strict=True):
            together = torch.stack(parts, 1)
            if place.is_cuda:
                together = together.pin_memory()
            place.copy_(together, non_blocking=True)

    def batch(self, counter: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (jobs, n, …) and labels (jobs, n) of the counted step of this block."""
        chosen = self.rows.index_select(0, counter)[0].index_select(0, self.place)
        flat = chosen.flatten()
        x, y = self.x.index_select(0, flat), self.y.index_select(0, flat)
        if self.moves is not None:
            moves = self.moves.index_select(0, counter)[0].index_select(0, self.place)
            x = move(x, moves.flatten(0, 1).long())
        x = self._seen(x)
        return x.view(*chosen.shape, *x.shape[1:]), y.long().view_as(chosen)

    def _seen(self, x: Tensor) -> Tensor:
        """Scale like `Examples.seen`, but without new tensors, which graphs cannot create."""
        if self.first.tokens:
            return x.long()
        x = x.to(self.dtype).mul_(self.scale)
        if self.first.shift != 0.0:
            x.add_(self.shift)
        if x.ndim < 4:
            return x
        x = x.permute(0, 3, 1, 2)
        return x if x.is_cuda else x.contiguous()


def seen_as(examples: Examples) -> Hashable:
    """Return what examples must agree in to be processed together: all but their content."""
    figures = examples.scale, examples.shift
    scale, shift = (f if isinstance(f, (int, float)) else tuple(f) for f in figures)
    return tuple(examples.x.shape), scale, shift, examples.tokens, str(examples.x.device)


def _resident(
    jobs: Sequence[Job], data: Mapping[int, Examples]
) -> tuple[Tensor, Tensor, dict[int, int]]:
    """Concatenate all examples, equal ones once, and return where each seed's begin."""
    every: dict[tuple[int, int], Examples] = {}
    starts: dict[tuple[int, int], int] = {}
    offsets, size = {}, 0
    for job in jobs:
        examples = data[job.seed]
        content = examples.x.data_ptr(), examples.y.data_ptr()
        if content not in every:
            every[content], starts[content] = examples, size
            size += len(examples.y)
        offsets[job.seed] = starts[content]
    if len(every) == 1:
        (only,) = every.values()
        return only.x, only.y, offsets
    x, y = (torch.cat(parts) for parts in zip(*((e.x, e.y) for e in every.values()), strict=True))
    return x, y, offsets


def _padded(steps: Iterator[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return the next BLOCK steps (BLOCK, …), with zeros after the last."""
    found = list(islice(steps, BLOCK))
    block = torch.zeros((BLOCK, *shape), dtype=dtype)
    if found:
        block[: len(found)] = torch.stack(found)
    return block


def _each(
    make: Callable[[_Stream], list[Tensor]], streams: Sequence[_Stream], threads: bool
) -> list[list[Tensor]]:
    """Make a block of every stream; beside a GPU, in parallel on the CPU's cores."""
    if not threads or len(streams) < 2:
        return [make(stream) for stream in streams]
    with ThreadPoolExecutor(min(len(streams), os.cpu_count() or 1)) as pool:
        return list(pool.map(make, streams))
