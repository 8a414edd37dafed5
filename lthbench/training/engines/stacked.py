"""The stacked engine: jobs of one shape as one batched network, stepping all at once.

Weights, masks, optimiser state and running statistics have a leading job axis; examples stay on the
device; on a GPU a whole step is one captured graph. Every job sees the batches, rates and masks
that `plain` gives it. Step i of a group is the i-th after each job's own start. A job that has
ended, or diverged, stays unchanged until its neighbours end too.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lthbench.protocol.task import IMAGES, Recipe, matching
from lthbench.training import batch_norm
from lthbench.training.engines import plain, stacked_optimisers
from lthbench.training.engines.stacked_counts import Counts
from lthbench.training.engines.stacked_feed import BLOCK, Feed, seen_as
from lthbench.training.engines.stacked_network import Seen, Stack, Way, captured, reason
from lthbench.training.job import Evaluation, Examples, Job, Result, outcome

# The faster way of computing gradients, by `python -m tests.speed.engines`.
WAYS: Mapping[str, Mapping[str, Way]] = {
    "cpu": {
        "mlp": "vmap",
        "pair-mlp": "unrolled",
        "transformer": "unrolled",
        "conv": "unrolled",
        "resnet": "unrolled",
        "vit": "unrolled",
    },
    "cuda": {
        "mlp": "vmap",
        "pair-mlp": "vmap",
        "transformer": "vmap",
        "conv": "unrolled",
        "resnet": "unrolled",
        "vit": "unrolled",
    },
}
ON_CPU = 16  # jobs that go together where memory is plentiful and more would gain nothing
MOST = 512  # likewise on a GPU, whose memory is the limit for all but the smallest networks
SHARE = 0.6  # of a GPU's free memory; the rest is for evaluations and other processes
RATES = ("rate", "schedule", "drops", "warm_up", "steps")  # of a recipe: each job has its own


class NotStackable(Exception):
    """A network whose forward pass cannot be batched."""


def run(
    jobs: Sequence[Job],
    data: Mapping[int, Examples],
    evaluation: Evaluation | None = None,
    *,
    most: int | None = None,
    way: Way | None = None,
) -> Iterator[tuple[str, Result]]:
    """Train jobs of one shape together and yield (key, result) as each ends.

    Groups come in the order of their first job, and within one the longest trainings first. A
    group that does not fit is halved; networks that cannot be stacked train one by one.

    Args:
        jobs: the jobs to train.
        data: the training examples of each seed.
        evaluation: what correct answers are counted on, and when.
        most: jobs that train together; None for as many as fit.
        way: of computing gradients; None for the table's.
    """
    groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        groups.setdefault(stackable(job, data[job.seed]), []).append(job)
    for group in groups.values():
        yield from _group(group, data, evaluation, most, way)


def stackable(job: Job, data: Examples) -> Hashable:
    """Return what jobs must agree in to train together."""
    recipe = job.recipe.model_dump_json(exclude=set(RATES))
    only_evaluated = (job.norm_batches,) if job.until == job.start.step else ()
    return job.network.model_dump_json(), job.depth, recipe, seen_as(data), only_evaluated


def capacity(job: Job, data: Examples, way: Way | None = None) -> int:
    """Return how many such jobs fit; on a GPU estimated from the memory of one job's step."""
    device = data.x.device
    if device.type != "cuda":
        return ON_CPU
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    Group([job], {job.seed: data}, way).step(ending=True)
    torch.cuda.synchronize(device)
    taken = torch.cuda.max_memory_allocated(device) - held
    return max(1, min(MOST, int(SHARE * free / max(1, taken))))


def _group(
    jobs: Sequence[Job],
    data: Mapping[int, Examples],
    evaluation: Evaluation | None,
    most: int | None,
    way: Way | None,
) -> Iterator[tuple[str, Result]]:
    """Train the jobs of one group, as many at a time as fit."""
    # Jobs that end together go together.
    waiting = sorted(jobs, key=lambda job: job.start.step - job.until)
    while waiting:
        ended: set[int] = set()
        together = waiting
        try:
            most = most or capacity(waiting[0], data[waiting[0].seed], way)
            chunks = math.ceil(len(waiting) / most)
            together = waiting[: math.ceil(len(waiting) / chunks)]  # no small remainder is left
            for index, result in _trained(together, data, evaluation, way):
                ended.add(index)
                yield together[index].key, result
        except torch.OutOfMemoryError:
            if len(together) == 1:
                raise
            most = (len(together) + 1) // 2
        except NotStackable as error:
            note = f"{error}; its jobs train one by one"
            for key, result in plain.run(waiting, data, evaluation):
                yield key, replace(result, note=note)
            return
        left = [job for index, job in enumerate(together) if index not in ended]
        waiting = left + waiting[len(together) :]
        _freed(data[jobs[0].seed].x.device)


def _freed(device: torch.device) -> None:
    """Release the memory that a group held."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _trained(
    jobs: Sequence[Job],
    data: Mapping[int, Examples],
    evaluation: Evaluation | None,
    way: Way | None,
) -> Iterator[tuple[int, Result]]:
    """Train jobs of one shape at once and yield (index, result) as each ends."""
    began = time.perf_counter()
    group = Group(jobs, data, way)
    counts = Counts(group.stack, jobs, evaluation)

    def results(ended: Sequence[int]) -> Iterator[tuple[int, Result]]:
        share = (time.perf_counter() - began) / len(jobs)
        return (
            (j, replace(_result(group, counts, j), seconds=share, note=group.note)) for j in ended
        )

    if not any(group.lengths):
        group.settle_norms()
        counts.take(counts.due(0), 0)
        counts.keep({})
        yield from results(range(len(jobs)))
        return
    ahead = group.feed.ahead()
    for first in range(0, max(group.lengths), BLOCK):
        running = [j for j, length in enumerate(group.lengths) if length > first]
        if not running:
            return
        group.load(ahead, first)
        for step in range(first, min(first + BLOCK, max(group.lengths))):
            group.advance(step - first)
            counts.take([j for j in counts.due(step + 1) if j in running], step + 1)
        ahead = group.feed.ahead()  # while a GPU is still busy with this block
        counts.keep(group.look(running, first))
        yield from results([j for j in running if group.lengths[j] <= first + BLOCK])


def _result(group: Group, counts: Counts, j: int) -> Result:
    state = group.stack.state(j, group.jobs[j].until)
    loss = math.isfinite(group.last[j])
    return outcome(group.jobs[j], state, loss, counts.correct(j), counts.predictions(j))


class Group:
    """Jobs of one shape in training.

    Attributes:
        lengths: steps of each job; once it has diverged, the steps that it took.
        last: the loss of each job's last step.
        note: what a user should know about the training.
    """

    def __init__(self, jobs: Sequence[Job], data: Mapping[int, Examples], way: Way | None) -> None:
        """Allocate everything; NotStackable if a forward pass cannot be batched."""
        first, like = jobs[0], _like(jobs[0], data)
        self.jobs, self.recipe = jobs, first.recipe
        self.lengths = [job.until - job.start.step for job in jobs]
        self.last = [0.0] * len(jobs)
        self.note = ""
        mixed = like.is_cuda and first.network.family in IMAGES and like.dtype == torch.float32
        chosen = way or WAYS[like.device.type][first.network.family]
        starts = [job.start for job in jobs]
        self.stack = Stack(first.network, first.depth, starts, like, chosen, mixed)
        spans = [length or first.norm_batches for length in self.lengths]
        self.feed = Feed(jobs, data, spans, like.dtype)
        weights = self.stack.weights
        self.pruned = _pruned(self.stack, jobs)
        if self.pruned is not None:
            weights.masked_fill_(self.pruned, 0)
        self.decay = _decay(self.stack, self.recipe)
        self.moments = stacked_optimisers.moments(self.recipe, weights)
        # Of the steps in a block: the inputs of each, and its results.
        self.figures = weights.new_zeros(BLOCK, stacked_optimisers.FIGURES + 1, len(jobs))
        self.losses = weights.new_zeros(BLOCK, len(jobs))
        self.counter = torch.zeros(1, dtype=torch.int64, device=weights.device)
        self.ending = [False] * BLOCK
        self._steps: dict[bool, Callable[[], None]] = {}
        self._probe()

    def _probe(self) -> None:
        """Compute one gradient of two examples, to see whether the network can be stacked."""
        before = {name: tensor.clone() for name, tensor in self.stack.buffers.items()}
        x, y = self.feed.batch(self.counter)
        try:
            self.stack.losses(x[:, :2], y[:, :2], self.recipe.label_smoothing)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            family = self.jobs[0].network.family
            raise NotStackable(f"family {family} cannot be stacked ({reason(error)})") from error
        for name, tensor in before.items():
            self.stack.buffers[name].copy_(tensor)

    def settle_norms(self) -> None:
        """Estimate running statistics on each job's first batches, if its evaluation needs them."""

        def inputs() -> Iterator[Tensor]:
            for step in range(self.jobs[0].norm_batches):
                if step % BLOCK == 0:
                    self.feed.load(self.feed.ahead())
                yield self.feed.batch(self.counter.fill_(step % BLOCK))[0]

        batch_norm.estimate(Seen(self.stack), inputs())

    def load(self, ahead: Sequence[Sequence[Tensor]], first: int) -> None:
        """Prepare a block of steps; `first` is the number of steps before it."""
        self.feed.load(ahead)
        idle = (0.0, 0.0, 1.0, 0.0)  # of a job that has ended: rate 0, and no division by 0
        table = [
            [
                (*stacked_optimisers.figures(job.recipe, job.start.step + step, step), 1.0)
                if step <= length
                else idle
                for job, length in zip(self.jobs, self.lengths, strict=True)
            ]
            for step in range(first + 1, first + BLOCK + 1)
        ]
        figures = torch.tensor(table, dtype=torch.float64).mT  # (BLOCK, figures, jobs)
        self.figures.copy_(figures)
        self.ending = [not bool(live.all()) for live in figures[:, -1]]
        self.counter.zero_()

    def advance(self, place: int) -> None:
        """Take the step at this place in the block, for every job."""
        ending = self.ending[place]
        if ending not in self._steps:
            step: Callable[[], None] = partial(self.step, ending)
            if self.counter.is_cuda:
                self._steps.clear()  # ended jobs stay ended: the previous graph is not needed
                kept = [*self.changing(), self.counter, self.losses]
                step, self.note = captured(step, kept)
            self._steps[ending] = step
        self._steps[ending]()

    def changing(self) -> list[Tensor]:
        """Return all tensors that a step changes, each with a leading job axis."""
        return [self.stack.weights, *self.moments, *self.stack.buffers.values()]

    def step(self, ending: bool) -> None:
        """Take the current step of the block: batch, gradient, masks, update.

        A pruned weight gets no gradient: it and its optimiser state began at 0 and stay there, just
        as if masks were applied after every step.

        Args:
            ending: some jobs have ended and are left unchanged.
        """
        before = [tensor.clone() for tensor in self.changing()] if ending else []
        x, y = self.feed.batch(self.counter)
        losses = self.stack.losses(x, y, self.recipe.label_smoothing)
        weights, gradients = self.stack.weights, self.stack.gradients
        if self.pruned is not None:
            gradients.masked_fill_(self.pruned, 0)
        *now, live = self.figures.index_select(0, self.counter)[0]
        stacked_optimisers.update(
            self.recipe, weights, gradients, self.moments, self.decay, torch.stack(now)
        )
        if ending:
            for tensor, old in zip(self.changing(), before, strict=True):
                alive = live.bool().view(-1, *[1] * (tensor.ndim - 1))
                torch.where(alive, tensor, old, out=tensor)  # times 0 would keep a NaN
        self.losses.index_copy_(0, self.counter, losses[None])
        self.counter.add_(1).remainder_(BLOCK)

    def look(self, running: Sequence[int], first: int) -> dict[int, int]:
        """Return the jobs that diverged in the block just ended, and after how many steps.

        As in the plain engine, a loss is checked only now and then, by its step from theta_0.
        """
        losses, broken = self.losses.cpu(), {}
        for j in running:
            start, end = self.jobs[j].start.step, min(first + BLOCK, self.lengths[j])
            looked = [
                step for step in range(first + 1, end + 1)
                if (start + step) % plain.CHECKED_EVERY == 0
            ]  # fmt: skip
            lost = [step for step in looked if not math.isfinite(losses[step - 1 - first, j])]
            if lost:
                broken[j] = self.lengths[j] = end = lost[0]
            self.last[j] = float(losses[end - 1 - first, j])
        return broken


def _like(job: Job, data: Mapping[int, Examples]) -> Tensor:
    """Return an empty tensor with the device and dtype of the weights."""
    dtype, device = plain.PRECISIONS[job.recipe.precision], data[job.seed].x.device
    return torch.empty(0, dtype=dtype, device=device)


def _pruned(stack: Stack, jobs: Sequence[Job]) -> Tensor | None:
    """Return the weights that are kept at 0 (jobs, size); None if all jobs are dense."""
    if all(job.masks is None for job in jobs):
        return None
    pruned = torch.zeros_like(stack.weights, dtype=torch.bool)
    named = stack.named(pruned)
    for j, job in enumerate(jobs):
        for name, mask in (job.masks or {}).items():
            named[name][j].copy_(~mask)
    return pruned


def _decay(stack: Stack, recipe: Recipe) -> Tensor | None:
    """Return the weight decay of every weight (size,); None for none."""
    decayed = matching(tuple(stack.shapes), recipe.decayed)
    if not recipe.weight_decay or not decayed:
        return None
    decay = torch.zeros_like(stack.weights[:1])
    named = stack.named(decay)
    for name in decayed:
        named[name].fill_(recipe.weight_decay)
    return decay[0]
