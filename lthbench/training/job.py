"""Engines train a list of jobs in this process and yield each result as it ends.

An engine starts no process and cannot distinguish test examples from held-out ones: it counts
correct answers on named sets. Engines have the interface of `plain.run`; `dispatch` selects the one
that trains a job. No result depends on which jobs went together: not in one bit for engines that
train jobs one by one, within the noise floor for one that batches them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.networks.state import digest as state_digest
from lthbench.protocol.task import Network, Recipe


@dataclass(frozen=True)
class Job:
    """One training, as plain data that crosses processes and machines.

    Attributes:
        network, depth: what is trained.
        start: the weights and the step to begin at; the optimiser begins fresh, the schedule at the
        start's step.
        masks: bool by prunable name, True = kept; None trains dense.
        until: the step to end at; until == start.step only evaluates.
        seed, order: the named stream of the data order.
        norm_batches: for evaluation only: how many training batches, the first of its order,
        running statistics are estimated on before.
        key: names the result; jobs with equal keys have equal results.
        engine: the name of the engine that trains it.
    """

    network: Network
    depth: int
    start: State
    masks: Mapping[str, Tensor] | None
    recipe: Recipe
    until: int
    seed: int
    order: tuple[str, ...]
    key: str = ""
    norm_batches: int = 0
    engine: str = "plain"


@dataclass(frozen=True)
class Examples:
    """Inputs (integers), labels (uint8) on a device; a network sees `x * scale + shift`, or tokens.

    Images are (n, height, width, channels), the layout that they are decoded to, with one scale and
    shift or one per channel; a network sees them as (n, channels, height, width).
    """

    x: Tensor
    y: Tensor
    scale: float | Sequence[float] = 1.0
    shift: float | Sequence[float] = 0.0
    tokens: bool = False

    @cached_property
    def digest(self) -> str:
        """Digest of these examples' content and of how networks see them."""
        content = state_digest({"x": self.x, "y": self.y}, 0)
        return f"{content} {self.scale} {self.shift} {self.tokens}"

    def to(self, device: torch.device | str) -> Examples:
        """Copy the examples to a device."""
        if self.x.device == torch.device(device):
            return self
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def inputs(self, rows: Tensor | slice, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return these rows as a network of this precision sees them."""
        x = self.x[rows] if isinstance(rows, slice) else self.x.index_select(0, rows)
        return self.seen(x, dtype)

    def seen(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return bytes like these examples' as a network of this precision sees them."""
        if self.tokens:
            return x.long()
        x = x.to(dtype).mul_(_figure(self.scale, dtype, x))
        if self.shift != 0.0:
            x.add_(_figure(self.shift, dtype, x))
        if x.ndim < 4:
            return x
        x = x.permute(0, 3, 1, 2)  # in memory the channels stay last, which is faster on a GPU
        return x if x.is_cuda else x.contiguous()

    def labels(self, rows: Tensor | slice) -> Tensor:
        """Return the labels of these rows, as cross-entropy expects them."""
        y = self.y[rows] if isinstance(rows, slice) else self.y.index_select(0, rows)
        return y.long()


def _figure(value: float | Sequence[float], dtype: torch.dtype, like: Tensor) -> float | Tensor:
    """Convert to one number, or to one per channel on the device of `like`."""
    if isinstance(value, (int, float)):
        return value
    return torch.tensor(value, dtype=dtype, device=like.device)


@dataclass(frozen=True)
class Evaluation:
    """Named sets of examples for each seed, and the steps at which correct answers are counted.

    Attributes:
        last: names of sets that are counted once, at the end of a training.
    """

    sets: Mapping[int, Mapping[str, Examples]]
    at: tuple[int, ...]
    last: tuple[str, ...] = ()

    def due(self, job: Job) -> dict[int, dict[str, Examples]]:
        """Return the sets that a job is evaluated on, by step; without training, at its start."""
        sets = self.sets[job.seed]
        only = job.until == job.start.step
        steps = {job.until} if only else {n for n in self.at if job.start.step < n <= job.until}
        curves = {name: some for name, some in sets.items() if name not in self.last}
        found = {step: dict(curves) for step in steps}
        if self.last:
            found[job.until] = dict(sets if job.until in steps else {n: sets[n] for n in self.last})
        return found

    def to(self, device: torch.device | str) -> Evaluation:
        """Copy the sets to a device."""
        moved = {s: {n: e.to(device) for n, e in sets.items()} for s, sets in self.sets.items()}
        return replace(self, sets=moved)


Looks = Mapping[int, Mapping[str, Examples]]  # what is counted, by step


@dataclass(frozen=True)
class Result:
    """The outcome of one job.

    Attributes:
        state: the weights at the end; None if the run diverged or failed.
        correct: counts of correct answers (int64) for each set, at each evaluated step past the
            start, in order.
        predictions: the last evaluation's answers (uint8) for each set.
        distance: learning distance, the Euclidean norm of the kept prunable weights' change from
            start to end; None if there is no end.
        status: "diverged" if a loss or a weight was not finite; "failed" with its reason.
        note: what a user should know of how it was trained; not part of the result.
    """

    state: State | None
    correct: Mapping[str, Tensor] = field(default_factory=dict)
    predictions: Mapping[str, Tensor] = field(default_factory=dict)
    status: Literal["ok", "diverged", "failed"] = "ok"
    reason: str = ""
    seconds: float = 0.0
    note: str = ""
    distance: float | None = None


def outcome(
    job: Job,
    state: State,
    loss: bool,
    correct: Mapping[str, Tensor],
    predictions: Mapping[str, Tensor],
) -> Result:
    """Build the result of a training that ended in these weights.

    Args:
        job: the job that was trained.
        state: the weights at the end.
        loss: whether the last loss that was checked is finite.
        correct: counts of correct answers by set.
        predictions: the last answers by set.
    """
    if loss and all(bool(tensor.isfinite().all()) for tensor in state.values()):
        return Result(state, correct, predictions, distance=learning_distance(job, state))
    return Result(None, correct, predictions, "diverged", "a loss or a weight was not finite")


def one_by_one(
    train: Callable[[Job, Examples, Looks], Result],
    jobs: Iterable[Job],
    data: Mapping[int, Examples],
    evaluation: Evaluation | None,
) -> Iterator[tuple[str, Result]]:
    """Make an engine from a function that trains one job on its examples."""
    for job in jobs:
        began = time.perf_counter()
        result = train(job, data[job.seed], evaluation.due(job) if evaluation else {})
        yield job.key, replace(result, seconds=time.perf_counter() - began)


def learning_distance(job: Job, end: State) -> float:
    """Compute ||theta_T - theta_start||_2 over the kept prunable weights, in float64.

    How far a network learns from where it starts (Neyshabur et al. 2019, "The role of
    over-parametrization in generalization of neural networks").
    """
    shapes = families.shapes(job.network, job.depth) if job.masks is None else job.masks
    total = 0.0
    for name in shapes:
        moved = end[name].double() - job.start[name].double()
        kept = moved if job.masks is None else moved[job.masks[name]]
        total += float(kept.square().sum())
    return math.sqrt(total)


def count_correct(answers: Tensor, examples: Examples) -> int:
    """Count how many of the answers (n,) match the labels."""
    return int((answers == examples.y.to(answers.device)).sum())


def single_threaded() -> None:
    """Set one thread and no denormals: the arithmetic that stored results were made with."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


@contextmanager
def as_in_a_worker() -> Iterator[None]:
    """Use that arithmetic for the duration of a block, in a process that is not ours alone."""
    threads = torch.get_num_threads()
    flushing = float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0
    single_threaded()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)
