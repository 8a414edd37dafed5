"""What a step takes: timed by the workers that would do it, all at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch

from lthbench.evaluation.cells import Seen, last_of
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets import controls
from lthbench.training.dispatch import Means, engine_for
from lthbench.training.engines import plain
from lthbench.training.executors.local import Executor
from lthbench.training.job import Evaluation, Examples, Job

LONG, ROUNDS = 0.3, 3  # processor seconds of one timing; number of timings (the median counts)
WARM = 3  # steps that create the optimiser's state and warm the caches
ORDER = ("estimate",)


@dataclass(frozen=True)
class Spent:
    """Seconds of processor time and of wall time."""

    processor: float
    wall: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.processor + other.processor, self.wall + other.wall)

    def __sub__(self, other: Spent) -> Spent:
        least = 0.0  # two timings may differ the wrong way: no negative times
        processor, wall = self.processor - other.processor, self.wall - other.wall
        return Spent(max(processor, least), max(wall, least))

    def times(self, factor: float) -> Spent:
        """Multiply both by a factor."""
        return Spent(self.processor * factor, self.wall * factor)


@dataclass(frozen=True)
class Pace:
    """The time that a worker needs for one step, one evaluation of all scored sets and one job.

    Attributes:
        steps: by density, rising; linear in between.
        fit: an evaluation of the sets that are evaluated once, at the end of a training.
    """

    steps: tuple[tuple[float, Spent], ...]
    evaluation: Spent
    job: Spent
    flops: float  # of a step
    gpu: float | None  # seconds of a step on this machine's GPU
    fit: Spent = Spent(0.0, 0.0)

    def step(self, density: float) -> Spent:
        """Return the time of one step of a network of this density."""
        at = [known for known, _ in self.steps]
        processor, wall = (
            float(np.interp(density, at, [getattr(spent, kind) for _, spent in self.steps]))
            for kind in ("processor", "wall")
        )
        return Spent(processor, wall)

    def training(self, trained: Mapping[float, float]) -> Spent:
        """Return the time of a number of steps at each density."""
        return sum((self.step(d).times(n) for d, n in trained.items()), Spent(0.0, 0.0))


def middle(task: Task) -> float:
    """Return the middle rung: most trained networks are masked."""
    return task.ladder.trained[len(task.ladder.trained) // 2]


def job_of(task: Task, seed: int, means: Means, density: float) -> Job:
    """Create a training at a density."""
    depth = task.network.depth
    shapes = families.shapes(task.network, depth)
    (masks,) = controls.random_masks(shapes, [density], seed, "erk")
    start = families.initial(task.network, depth, seed)
    by = engine_for(means, task.network)
    return Job(task.network, depth, start, masks, task.recipe, 0, seed, ORDER, engine=by)


async def measure(
    task: Task, seed: int, executor: Executor, workers: int, seen: Seen, final: bool
) -> Pace:
    """Time a worker's step, evaluation and job, with every worker at work."""

    def looks_at(steps: int) -> Evaluation:
        return Evaluation(seen.sets, tuple(range(1, steps + 1)), last_of(task))

    async def timed(dense: float, evaluated: bool) -> tuple[Spent, Spent]:
        """Return the time of a run of a few steps, and of each further step."""
        job = job_of(task, seed, seen.means, dense)

        async def spent(steps: int) -> Spent:
            looks = looks_at(steps) if evaluated else None
            return await run_round(executor, job, steps, workers, seen, looks)

        base = _median([await spent(WARM) for _ in range(ROUNDS)])
        steps = await _long_enough(task.recipe.steps, spent)
        long = _median([await spent(steps) for _ in range(ROUNDS)])
        return base, (long - base).times(1 / max(steps - WARM, 1))

    mid = middle(task)
    sparse = engine_for(seen.means, task.network) == "compact"  # its steps are not all alike
    densities = sorted({task.ladder.trained[-1], mid, 1.0} if sparse else {mid})
    found = {dense: await timed(dense, False) for dense in densities}
    base, step = found[mid]
    looks = (await timed(mid, True))[1] - step
    at_end = last_of(task)
    known = sum(len(some.y) for name, some in seen.sets[seed].items() if name not in at_end)
    fit = sum(len(seen.sets[seed][name].y) for name in at_end) / known
    share = (known + (_tested(task, seed, seen) if final else 0)) / known
    fixed = base - step.times(WARM)
    train = seen.train[seed]
    gpu = _gpu_step(job_of(task, seed, seen.means, mid), train)
    steps = tuple((dense, each) for dense, (_, each) in found.items())
    return Pace(steps, looks.times(share), fixed, _flops(task, train), gpu, looks.times(fit))


async def _long_enough(most: int, spent: Callable[[int], Awaitable[Spent]]) -> int:
    """Return a number of steps that takes long enough to be timed, at most T."""
    steps = min(2 * WARM, most)
    while steps < most:
        seconds = (await spent(steps)).processor
        if seconds >= LONG:
            break
        enough = round(1.2 * steps * LONG / max(seconds, LONG / 40))
        steps = min(most, max(2 * steps, enough))
    return steps


async def run_round(
    executor: Executor,
    job: Job,
    steps: int,
    workers: int,
    seen: Seen,
    looks: Evaluation | None = None,
) -> Spent:
    """Return the mean time of the same job, run by every worker at once."""
    jobs = [replace(job, until=steps, key=f"{steps}-{number}") for number in range(workers)]
    began, walls = processor_seconds(), []
    async for _, result in executor.results(jobs, seen.train, looks):
        walls.append(result.seconds)
    return Spent((processor_seconds() - began) / workers, statistics.mean(walls))


def _median(timed: Sequence[Spent]) -> Spent:
    return Spent(
        statistics.median(spent.processor for spent in timed),
        statistics.median(spent.wall for spent in timed),
    )


def processor_seconds() -> float:
    """Return processor seconds of this process and of the workers that it started."""
    spent = time.process_time()
    for child in psutil.Process().children():
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system
    return spent


def _tested(task: Task, seed: int, seen: Seen) -> int:
    """Return how many test examples there are, without reading them."""
    if task.data.modulus:
        known = len(seen.train[seed].y) + len(seen.sets[seed]["held_out"].y)
        return int(task.data.modulus**2) - known
    if task.data.folds:  # as many as in any other fold
        known = len(seen.train[seed].y) + len(seen.sets[seed]["held_out"].y)
        return round(known / (task.data.folds - 1))
    return datasets.count(task, "test")


def _flops(task: Task, train: Examples) -> float:
    """Count floating-point operations of one step, forward and backward, of the dense network."""
    each = 3 * families.flops(task.network, task.network.depth)
    return float(each * task.recipe.batch_size(len(train.y)))


def _gpu_step(job: Job, train: Examples) -> float | None:
    """Return seconds of a step on the GPU, if there is one."""
    if not torch.cuda.is_available():
        return None
    there = replace(train, x=train.x.cuda(), y=train.y.cuda())
    times = {}
    for steps in (WARM, WARM, WARM + 100):  # the first run initialises the device
        ((_, result),) = plain.run([replace(job, until=steps)], {job.seed: there})
        times[steps] = result.seconds
    return (times[WARM + 100] - times[WARM]) / 100
