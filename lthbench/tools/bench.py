"""How fast each engine trains each task on this machine, relative to what its hardware allows.

`lthbench bench` times steps on examples of a task's shapes, with no evaluation between them, in one
process and by all workers at once. In the same run it times the two things that a step cannot do
without: its matrix products, replayed alone on the operands of a real step, and the bytes that it
must move, at the speed of a large copy. A fraction is the limit's time over the step's. Masked
networks are compared with the limits of the dense one, so an engine that skips pruned weights may
exceed 1; so may one whose tensors stay in a cache, for the copy limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lthbench.errors import ResourceError, UsageError
from lthbench.evaluation.machine import environment
from lthbench.networks import families
from lthbench.protocol.task import Task, load_suite, task_names
from lthbench.report.table import Table, grid
from lthbench.tickets import controls
from lthbench.tickets.sizes import load_sound
from lthbench.tools.limits import (
    ORDER,
    ROUNDS,
    SHORTEST,
    Limiters,
    Limits,
    drawn,
    limiters,
    measure,
)
from lthbench.training import dispatch
from lthbench.training.dispatch import Means
from lthbench.training.executors import local
from lthbench.training.executors.local import Executor
from lthbench.training.job import Examples, Job, as_in_a_worker

DENSITIES = (1.0, 0.2, 0.05)  # and the sparsest of a task's ladder
GROUPS = {"cpu": (4,), "cuda": (1, 15, 100)}  # networks that the stacked engine gets at once
WARM = 2  # steps of a short run: building, the first step, and one more

Run = Callable[[int], Awaitable[float]]  # wall seconds of this many steps of every job


@dataclass(frozen=True)
class Rate:
    """Model-steps per second, and the fraction of each dense limit that they reach."""

    steps: float
    products: float
    copies: float

    @staticmethod
    def of(seconds: float, limits: Limits) -> Rate:
        """Return the rate of model-steps that take this many seconds each."""
        return Rate(1 / seconds, limits.products / seconds, limits.copies / seconds)


@dataclass(frozen=True)
class Row:
    """One engine on one task at one density.

    Attributes:
        jobs: networks that one process was given at once.
        one: one process alone.
        all: every worker at work, against limits measured in as many processes at once; None
            where no worker trains.
    """

    task: str
    engine: str
    density: float
    jobs: int
    one: Rate
    all: Rate | None


@dataclass(frozen=True)
class Benched:
    """A row for each task, engine, density and group, and the machine that they apply to."""

    device: str
    name: str
    threads: int  # of one process
    workers: int
    torch: str
    seconds: float
    rows: tuple[Row, ...]

    def table(self) -> dict[str, Any]:
        """Return everything as plain numbers and names."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    def text(self) -> str:
        """Format the rows, and the notes on them."""
        together = f"{self.workers} worker{'s' * (self.workers != 1)}"
        limits = "of product\nlimit", "of copy\nlimit"
        head = (
            *("task", "engine", "density", "jobs", "steps/s,\none process", *limits),
            *((f"steps/s,\n{together}", *limits) if self.workers else ()),
        )
        rows = tuple(self._line(row) for row in self.rows)
        threads = f"{self.threads} thread{'s' * (self.threads != 1)} a process"
        title = f"{self.name} ({self.device}), {threads}, torch {self.torch}"
        return "\n".join([title, "", grid(Table("", head, rows, left=head[:2])), "", *self.notes()])

    def _line(self, row: Row) -> tuple[str, ...]:
        rates = [row.one, *([row.all] if row.all else [])]
        told = [
            text
            for rate in rates
            for text in (f"{rate.steps:,.0f}", f"{rate.products:.1%}", f"{rate.copies:.1%}")
        ]
        return row.task, row.engine, f"{row.density:.2%}", str(row.jobs), *told

    def notes(self) -> list[str]:
        """Return what a reader must know about the figures, one line each."""
        notes = [
            "steps/s: model-steps a second on examples of the task's shapes, nothing evaluated",
            "limits: the dense network's, at every density; a share above 100 % leaves work out, "
            "or for copies stays in a cache",
            "masks below 100 %: random by ERK; found tickets empty more rows and columns",
        ]
        if self.device != "cpu":
            notes.append("products of several jobs: one batched product; convolutions in turn")
        return notes


def bench(tasks: Sequence[str], device: str, seconds: float, workers: int) -> Benched:
    """Time every engine that can train each task, on this machine.

    Args:
        tasks: names or files of tasks; if empty, suite lite and mlp-digits on a CPU, all elsewhere.
        device: torch's name.
        seconds: per row, roughly; starting processes and compiling are extra.
        workers: processes that train at once on a CPU; 0 for this one alone.

    Raises:
        LthbenchError: for an unknown name, or a device that does not exist here.
    """
    means = check_device(device)
    if not seconds > 0:
        raise UsageError(f"bench: {seconds:g} seconds a row; give more than 0")
    if workers < 0:
        raise UsageError(f"--workers {workers}: 0 or more")
    loaded = [load_sound(name) for name in tasks or _default_tasks(means)]
    # One process trains on a GPU: more of them would share it.
    workers = workers if means.kind == "cpu" else 0
    rows = asyncio.run(_all(loaded, means, seconds, workers))
    threads = 1 if means.kind == "cpu" else torch.get_num_threads()
    version = str(torch.__version__)
    return Benched(device, name_of(device), threads, workers, version, seconds, tuple(rows))


def check_device(device: str) -> Means:
    """Return the means for a device's name; UsageError if it does not exist here."""
    means = dispatch.means_of(device, None)
    if means.kind not in GROUPS:
        raise UsageError(f"--device {device}: bench knows {' and '.join(GROUPS)} alone")
    return means


def _default_tasks(means: Means) -> tuple[str, ...]:
    if means.kind != "cpu":
        return task_names()
    return tuple(dict.fromkeys((*load_suite("lite").tasks, "mlp-digits")))


def name_of(device: str) -> str:
    """Return the product name of the processor or GPU."""
    if device == "cpu":
        return environment()["processor"]
    return torch.cuda.get_device_name(device)


async def _all(tasks: Sequence[Task], means: Means, seconds: float, workers: int) -> list[Row]:
    rows: list[Row] = []
    executor = local.local(workers)
    try:
        with limiters(workers) as others:
            for task in tasks:
                rows += await _rows(task, means, seconds, workers, executor, others)
    finally:
        await executor.close()
    return rows


async def _rows(
    task: Task,
    means: Means,
    seconds: float,
    workers: int,
    executor: Executor,
    others: Limiters,
) -> list[Row]:
    """Time one task; a row's seconds are divided between its two rates."""
    train = drawn(task, means.device)
    share = seconds / (2 if workers else 1)
    each = others.limits(task, share) if workers else None
    alone: dict[int, Limits] = {}
    rows = []
    for engine in dispatch.engines(means, task.network):
        for group in GROUPS[means.kind] if engine == "stacked" else (1,):
            if group not in alone:
                alone[group] = measure(task, means.device, share, group)
            for density in _densities(task):
                some = jobs_of(task, engine, density, max(workers, 1) * group)
                one = await pace(_here(some[:group], train, means), share)
                rate, all_rate = Rate.of(one / group, alone[group]), None
                if each:
                    every = await pace(_there(some, train, executor, workers), share)
                    all_rate = Rate.of(every / len(some), each.shared(workers))
                rows.append(Row(task.name, engine, density, group, rate, all_rate))
    return rows


async def together(jobs: Sequence[Job], train: Examples, workers: int, seconds: float) -> float:
    """Return seconds per model-step while these workers train equal shares of the jobs."""
    executor = local.local(workers)
    try:
        return await pace(_there(jobs, train, executor, workers), seconds) / len(jobs)
    finally:
        await executor.close()


def together_at_most(task: Task, workers: int, seconds: float) -> Limits:
    """Return the dense network's limits of a model-step while these processes are at work."""
    with limiters(workers) as others:
        return others.limits(task, seconds).shared(workers)


# Work


def _densities(task: Task) -> tuple[float, ...]:
    return tuple(sorted({*DENSITIES, task.ladder.trained[-1]}, reverse=True))


def jobs_of(task: Task, engine: str, density: float, count: int) -> list[Job]:
    """Create trainings with different orders; below density 1 they share one ERK mask."""
    depth = task.network.depth
    start = families.initial(task.network, depth, 0)
    masks: Mapping[str, Tensor] | None = None
    if density < 1:
        shapes = families.shapes(task.network, depth)
        (masks,) = controls.random_masks(shapes, [density], 0, "erk")
    return [
        Job(
            task.network, depth, start, masks, task.recipe, task.recipe.steps, 0,
            (ORDER, str(number)), str(number), engine=engine,
        )
        for number in range(count)
    ]  # fmt: skip


def _lasting(jobs: Sequence[Job], steps: int) -> list[Job]:
    """Return the same trainings with their whole schedules in this number of steps."""
    recipe = jobs[0].recipe.lasting(steps)
    return [replace(job, recipe=recipe, until=steps) for job in jobs]


def _here(jobs: Sequence[Job], train: Examples, means: Means) -> Run:
    """Return a run that trains in this process, on a CPU with a worker's arithmetic."""

    async def run(steps: int) -> float:
        began = time.perf_counter()
        with as_in_a_worker() if means.kind == "cpu" else nullcontext():
            for _, result in dispatch.run(_lasting(jobs, steps), {0: train}):
                _demand(jobs[0], result.status, result.reason)
        return time.perf_counter() - began

    return run


def _there(jobs: Sequence[Job], train: Examples, executor: Executor, workers: int) -> Run:
    """Return a run that trains by workers, each with its share: one list would go to one."""
    size = len(jobs) // workers
    lists = [jobs[first : first + size] for first in range(0, len(jobs), size)]

    async def one(some: Sequence[Job], steps: int) -> None:
        async for _, result in executor.results(_lasting(some, steps), {0: train}, None):
            _demand(some[0], result.status, result.reason)

    async def run(steps: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one(some, steps) for some in lists))
        return time.perf_counter() - began

    return run


def _demand(job: Job, status: str, reason: str) -> None:
    """Raise unless the run is complete: one that ended early took too little time."""
    if status != "ok":
        raise ResourceError(f"bench: engine {job.engine} {status}: {' '.join(reason.split())[:80]}")


async def pace(run: Run, seconds: float) -> float:
    """Return seconds per step of all jobs, by comparing long and short runs, in about `seconds`.

    The difference excludes what a run takes once: building, compiling, sending. If steps are so
    slow that time runs out, fewer runs are timed, but at least one of each.
    """
    share = max(seconds / (ROUNDS + 2), SHORTEST)
    await run(WARM)
    over = time.perf_counter() + seconds
    short = median(await _some(run, WARM, over - 0.8 * seconds))
    steps, spent = 2 * WARM, await run(2 * WARM)
    while spent < short + share and time.perf_counter() < over:
        each = max(spent - short, share / 20) / (steps - WARM)
        steps = max(2 * steps, min(WARM + round(1.2 * share / each), 20 * steps))
        spent = await run(steps)
    long = median([spent, *await _some(run, steps, over)])
    return (long - short) / (steps - WARM) if long > short else long / steps


async def _some(run: Run, steps: int, over: float) -> list[float]:
    """Time equal runs, starting new ones until a time: at least one, at most ROUNDS."""
    timed = [await run(steps)]
    while len(timed) < ROUNDS and time.perf_counter() < over:
        timed.append(await run(steps))
    return timed
