"""What an evaluation will cost, before it runs: core hours, time, GPU minutes.

Three things are measured in seconds: steps and evaluations of each task, by the workers that would
do them, all at once; the search, rehearsed without its trainings (`rehearsal`); and the list of
cells that scoring would train, planned from the rehearsed tickets. The rest is multiplication.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from lthbench.errors import MethodError, NotApplicable
from lthbench.evaluation import experiment, scoring, workload
from lthbench.evaluation.experiment import Entry, Seen
from lthbench.evaluation.options import asked
from lthbench.evaluation.plan import Part, Plan
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.transfer import CHEAP
from lthbench.io import store
from lthbench.io.paths import cache
from lthbench.method.source import Method
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.records import reference
from lthbench.records.reference import Reference
from lthbench.report import formats
from lthbench.tickets import controls
from lthbench.tools.rehearsal import Dry, Rehearsal, density, rehearse, weighted
from lthbench.training.dispatch import Means, arithmetic, engine_for
from lthbench.training.engines import plain
from lthbench.training.executors import local
from lthbench.training.executors.local import Executor
from lthbench.training.job import Evaluation, Examples, Job

LONG, ROUNDS = 0.3, 3  # processor seconds of one timing; number of timings (the median counts)
WARM = 3  # steps that create the optimiser's state and warm the caches
OWN = 120.0  # seconds that a rehearsal may take
GPU_STEP, GPU_RATE = 2e-3, 2e13  # assumed without a GPU: seconds and FLOP/s, one job at a time
REPORTING = 3.0  # seconds to write records and the report: mostly imports
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


@dataclass(frozen=True)
class Row:
    """One task: what is to be done, and what it takes.

    Attributes:
        seeds: how many.
        search_cost: dense trainings per seed, as a record will say; the budget if bounded.
        search_steps, own_steps, scoring_steps: of all seeds; own ones in the method's process.
        cached_steps: of scoring, saved by the cache or the reference.
        bounded: why the search is an upper bound, or empty.
        gpu_measured: whether there was a GPU to be timed.
    """

    task: str
    seeds: int
    search_cost: float
    search_steps: float
    own_steps: float
    scoring_steps: float
    cached_steps: float
    step_ms: float
    core_hours: float
    seconds: float
    gpu_minutes: float
    gpu_measured: bool
    bounded: str


@dataclass(frozen=True)
class Estimate:
    """A row for each task, and the totals; only these include starting processes."""

    method: str
    final: bool
    workers: int
    rows: tuple[Row, ...]
    starting_core_hours: float
    starting_seconds: float
    left_out: tuple[tuple[str, str], ...] = ()  # tasks without a row, each with its reason

    @property
    def core_hours(self) -> float:
        """Processor time of all tasks, in hours."""
        return sum(row.core_hours for row in self.rows) + self.starting_core_hours

    @property
    def seconds(self) -> float:
        """Wall time of all tasks, in seconds."""
        return sum(row.seconds for row in self.rows) + self.starting_seconds

    @property
    def gpu_minutes(self) -> float:
        """GPU time of all tasks, in minutes."""
        return sum(row.gpu_minutes for row in self.rows)

    def table(self) -> dict[str, Any]:
        """Return everything as plain numbers."""
        sums = {name: getattr(self, name) for name in ("core_hours", "seconds", "gpu_minutes")}
        return {**asdict(self), "rows": [asdict(row) for row in self.rows], **sums}

    def text(self) -> str:
        """Format a row per task, the totals, and the notes on them."""
        from tabulate import tabulate

        workers = f"{self.workers} worker{'s' * (self.workers != 1)}"
        head = (
            *("task", "search\ncost", "search\nsteps", "own\nsteps", "scoring\nsteps"),
            *("ms\na step", "core\nhours", f"time,\n{workers}", "GPU\nminutes"),
        )
        rows = [_line(row) for row in self.rows]
        blank = ("",) * 5
        start = _hours(self.starting_core_hours), workload.clock(self.starting_seconds), ""
        mark = "<= " * any(row.bounded for row in self.rows)
        sums = _hours(self.core_hours), workload.clock(self.seconds), _gpu(self.gpu_minutes)
        rows += [("start-up", *blank, *start), ("in all", *blank, *(mark + text for text in sums))]
        align = ("left", *("right",) * (len(head) - 1))
        grid = tabulate(rows, head, disable_numparse=True, colalign=align)
        kind = "published seeds, test split" if self.final else "development seeds"
        few, many = min(row.seeds for row in self.rows), max(row.seeds for row in self.rows)
        number = f"{few}" if few == many else f"{few} to {many}"
        title = f"{self.method}, {number} seed{'s' * (many != 1)} a task ({kind})"
        return "\n".join([title, "", grid, "", *self.notes()])

    def notes(self) -> list[str]:
        """Return what a reader must know about the figures, one line each."""
        notes = [
            f"{row.task}: search is at most its budget, {row.search_cost:g} dense trainings a "
            f"seed; it could not be rehearsed: {row.bounded}"
            for row in self.rows
            if row.bounded
        ]
        notes += [
            f"{row.task}: {row.cached_steps:,.0f} more scoring steps are stored already"
            for row in self.rows
            if row.cached_steps
        ]
        notes += [f"{name}: left out: {formats.plain(reason)}" for name, reason in self.left_out]
        if all(row.gpu_measured for row in self.rows):
            return [
                *notes,
                "GPU minutes: from a step timed on the GPU that is here, one job at a time; "
                "evaluate trains many at once, which takes less",
            ]
        return [
            *notes,
            "GPU minutes: assumed, not measured: one job at a time, "
            f"{1000 * GPU_STEP:g} ms a step and {GPU_RATE / 1e12:g} TFLOP/s; on a GPU evaluate "
            "trains many at once",
        ]


def _line(row: Row) -> tuple[str, ...]:
    mark = "<= " if row.bounded else ""
    return (
        row.task,
        f"{mark}{row.search_cost:.3g}",
        *(f"{steps:,.0f}" for steps in (row.search_steps, row.own_steps, row.scoring_steps)),
        f"{row.step_ms:.2f}",
        f"{mark}{_hours(row.core_hours)}",
        f"{mark}{workload.clock(row.seconds)}",
        f"{mark}{_gpu(row.gpu_minutes)}",
    )


def _hours(hours: float) -> str:
    return f"{hours:.3f}" if hours < 10 else f"{hours:,.1f}"


def _gpu(minutes: float) -> str:
    return f"{minutes:.1f}"


def estimate(
    method: str,
    *,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    seeds: int | None = None,
    only_seeds: Sequence[int] | None = None,
    final: bool = False,
    controls: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    workers: int | None = None,
    engine: str | None = None,
    transfer: bool | None = None,
) -> Estimate:
    """Estimate what `evaluate` with the same arguments would take on this machine.

    Raises:
        LthbenchError: for what the caller can correct: a name, data that is not prepared.
    """
    what = asked(
        method, suite, tasks, seeds, final, options, workers, device, engine,
        only_seeds=only_seeds, controls=controls, transfer=transfer,
    )  # fmt: skip
    for part in what.parts:
        datasets.prepare(part.task, download=False, test=final)
    run = _all(what.method, what.parts, what.workers, what.means)
    rows, starting, left_out = asyncio.run(run)
    return Estimate(
        what.method.name,
        final,
        what.workers,
        rows,
        starting.processor / 3600,
        starting.wall,
        left_out,
    )


async def _all(
    method: Method,
    parts: Sequence[Part],
    workers: int,
    means: Means,
) -> tuple[tuple[Row, ...], Spent, tuple[tuple[str, str], ...]]:
    executor, rows, width = local.local(workers, means), [], max(workers, 1)
    left_out: list[tuple[str, str]] = []
    began, clock = _processor(), time.monotonic()
    starting = Spent(0.0, 0.0)
    try:
        for number, part in enumerate(parts):
            task, seeds = part.task, part.seeds
            seen = scoring.see(task, seeds, replace(part.plan, final=False), means)
            # Sends data to the workers, and initialises torch in them.
            await _round(executor, _job(task, seeds[0], means, _middle(task)), WARM, width, seen)
            if not number:
                starting = Spent(_processor() - began, time.monotonic() - clock)
            pace = await _pace(task, seeds[0], executor, width, seen, part.plan)
            try:
                rows.append(await _row(method, part, width, seen, pace))
            except NotApplicable as error:
                if len(parts) == len(left_out) + 1:
                    raise NotApplicable(f"{task.name}: {error}") from error
                left_out.append((task.name, str(error)))
    finally:
        await executor.close()
    final = any(part.plan.final for part in parts)
    return tuple(rows), _started(starting, workers, final), tuple(left_out)


def _started(workers_own: Spent, workers: int, final: bool) -> Spent:
    """Return the time of starting the coordinator and its workers, and of reporting.

    The coordinator imports as much as a worker. A test split has its own workers.
    """
    each = Spent(workload.STARTING, workload.STARTING)
    if workers:
        each = Spent(workers_own.processor / workers, workers_own.wall)
    crews = (2 if final else 1) if workers else 0
    processor = each.processor * (1 + crews * workers) + REPORTING
    return Spent(processor, each.wall * (1 + crews) + REPORTING)


# What a step takes


def _middle(task: Task) -> float:
    """Return the middle rung: most trained networks are masked."""
    return task.ladder.trained[len(task.ladder.trained) // 2]


def _job(task: Task, seed: int, means: Means, density: float) -> Job:
    """Create a training at a density."""
    depth = task.network.depth
    shapes = families.shapes(task.network, depth)
    (masks,) = controls.random_masks(shapes, [density], seed, "erk")
    start = families.initial(task.network, depth, seed)
    by = engine_for(means, task.network)
    return Job(task.network, depth, start, masks, task.recipe, 0, seed, ORDER, engine=by)


async def _pace(
    task: Task, seed: int, executor: Executor, workers: int, seen: Seen, plan: Plan
) -> Pace:
    """Time a worker's step, evaluation and job, with every worker at work."""

    def looks_at(steps: int) -> Evaluation:
        return Evaluation(seen.sets, tuple(range(1, steps + 1)), experiment.last_of(task))

    async def timed(dense: float, evaluated: bool) -> tuple[Spent, Spent]:
        """Return the time of a run of a few steps, and of each further step."""
        job = _job(task, seed, seen.means, dense)

        async def spent(steps: int) -> Spent:
            looks = looks_at(steps) if evaluated else None
            return await _round(executor, job, steps, workers, seen, looks)

        base = _median([await spent(WARM) for _ in range(ROUNDS)])
        steps = await _long_enough(task.recipe.steps, spent)
        long = _median([await spent(steps) for _ in range(ROUNDS)])
        return base, (long - base).times(1 / max(steps - WARM, 1))

    middle = _middle(task)
    sparse = engine_for(seen.means, task.network) == "compact"  # its steps are not all alike
    densities = sorted({task.ladder.trained[-1], middle, 1.0} if sparse else {middle})
    found = {dense: await timed(dense, False) for dense in densities}
    base, step = found[middle]
    looks = (await timed(middle, True))[1] - step
    at_end = experiment.last_of(task)
    known = sum(len(some.y) for name, some in seen.sets[seed].items() if name not in at_end)
    fit = sum(len(seen.sets[seed][name].y) for name in at_end) / known
    share = (known + (_tested(task, seed, seen) if plan.final else 0)) / known
    fixed = base - step.times(WARM)
    train = seen.train[seed]
    gpu = _gpu_step(_job(task, seed, seen.means, middle), train)
    steps = tuple((dense, each) for dense, (_, each) in found.items())
    return Pace(steps, looks.times(share), fixed, _flops(task, train), gpu, looks.times(fit))


async def _long_enough(most: int, spent: Any) -> int:
    """Return a number of steps that takes long enough to be timed, at most T."""
    steps = min(2 * WARM, most)
    while steps < most:
        seconds = (await spent(steps)).processor
        if seconds >= LONG:
            break
        enough = round(1.2 * steps * LONG / max(seconds, LONG / 40))
        steps = min(most, max(2 * steps, enough))
    return steps


async def _round(
    executor: Executor,
    job: Job,
    steps: int,
    workers: int,
    seen: Seen,
    looks: Evaluation | None = None,
) -> Spent:
    """Return the mean time of the same job, run by every worker at once."""
    jobs = [replace(job, until=steps, key=f"{steps}-{number}") for number in range(workers)]
    began, walls = _processor(), []
    async for _, result in executor.results(jobs, seen.train, looks):
        walls.append(result.seconds)
    return Spent((_processor() - began) / workers, statistics.mean(walls))


def _median(timed: Sequence[Spent]) -> Spent:
    return Spent(
        statistics.median(spent.processor for spent in timed),
        statistics.median(spent.wall for spent in timed),
    )


def _processor() -> float:
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


# What is to be done


async def _row(
    method: Method,
    part: Part,
    workers: int,
    seen: Seen,
    pace: Pace,
) -> Row:
    task, seeds, plan = part.task, part.seeds, part.plan
    n = len(seeds)
    with tempfile.TemporaryDirectory(prefix="lthbench-estimate-") as name:
        folder = Path(name) / task.name
        try:
            found = await rehearse(method, task, seeds[0], folder, Limits(OWN), seen.means)
        except NotApplicable:
            raise
        except MethodError as error:
            found, bounded = _bound(task), " ".join(str(error).split())[:160]
            steps = workload.scoring_steps(task, n, plan.controls, plan.compressed)
            cells = Cells({_middle(task): steps}, steps / task.recipe.steps, 0.0, Spent(0.0, 0.0))
        else:
            bounded, cells = "", await _cells(task, seeds, found, folder, plan, seen)
    if plan.transfer and not experiment.untrained([found.search]):
        frozen = reference.load_reference(task) if plan.final else None
        cells = _with_transfer(task, seeds, found, cells, frozen)
    jobs = found.trainings + found.accuracies
    search = pace.training(found.trained) + pace.job.times(jobs)
    search += pace.evaluation.times(found.accuracies)
    afterwards = pace.training(cells.trained) + pace.job.times(cells.runs)
    afterwards += pace.evaluation.times(cells.runs * len(task.grid)) + pace.fit.times(cells.runs)
    core = n * (search.processor + found.processor + cells.planning.processor)
    # A seed's search is sequential: workers beyond the seeds wait. Scoring is one list of jobs.
    # A method's own process computes beside the other seeds' on the same cores.
    together = max(n / local.default_workers(), 1.0)
    searching = found.wall * together + search.wall * max(n / workers, 1.0)
    scored = afterwards.wall * max(1 / workers, 1 / max(cells.runs, 1.0))
    steps = n * (found.steps + found.own_steps) + cells.steps
    gpu = pace.gpu if pace.gpu is not None else GPU_STEP + pace.flops / GPU_RATE
    return Row(
        task=task.name,
        seeds=n,
        search_cost=found.search.cost,
        search_steps=n * found.steps,
        own_steps=n * found.own_steps,
        scoring_steps=cells.steps,
        cached_steps=cells.cached,
        step_ms=1000 * _mean_step(pace, n, found, cells),
        core_hours=(core + afterwards.processor) / 3600,
        seconds=searching + n * cells.planning.wall + scored,
        gpu_minutes=steps * gpu / 60,
        gpu_measured=pace.gpu is not None,
        bounded=bounded,
    )


def _bound(task: Task) -> Rehearsal:
    """Return the most that a search may spend: its budget, in trainings by workers."""
    budget, steps = task.search.budget, task.recipe.steps
    search = Search(0, "failed", "", budget, 0.0, ())
    return Rehearsal(
        search, {1.0: budget * steps}, ceil(budget), 0, 0, workload.STARTING, workload.STARTING
    )


@dataclass(frozen=True)
class Cells:
    """What scoring has to train for all seeds, what is stored of it, and the time to plan one seed.

    Attributes:
        trained: steps by density.
    """

    trained: Mapping[float, float]
    runs: float
    cached: float
    planning: Spent

    @property
    def steps(self) -> float:
        """Steps of all densities."""
        return sum(self.trained.values())


async def _cells(
    task: Task,
    seeds: tuple[int, ...],
    found: Rehearsal,
    folder: Path,
    plan: Plan,
    seen: Seen,
) -> Cells:
    """Plan the cells of the rehearsed tickets, as scoring will, and see which are stored."""
    if plan.final:  # a name in every cell's key; the set itself is not read
        sets = {seed: {**own, "test": own["held_out"]} for seed, own in seen.sets.items()}
        seen = replace(seen, sets=sets)
    dry, began = Dry(task), (time.process_time(), time.monotonic())
    first = await experiment.planned(task, [found.search], folder, dry, plan, seen)
    planning = Spent(time.process_time() - began[0], time.monotonic() - began[1])
    others = [replace(found.search, seed=seed, rungs=()) for seed in seeds[1:]]
    shared = await experiment.planned(task, others, folder, Dry(task), plan, seen)
    if experiment.untrained([found.search]):  # seeds without rungs count as trained ones here
        kinds = {entry.place[:2] + entry.place[3:] for entry in first}
        shared = [e for e in shared if e.place[:2] + e.place[3:] in kinds]
    frozen = reference.load_reference(task) if plan.final else None
    spared = {(c.kind, c.density, c.seed, c.schedule) for c in frozen.cells} if frozen else set()
    unique = {entry.job.key: entry.job for entry in first}
    done = {
        entry.job.key: entry.job
        for entry in [*first, *shared]
        if entry.place in spared or _stored(entry, seen.means)
    }
    n, trained = len(seeds), _times(dry.trained, len(seeds))
    for job in unique.values():
        trained[density(job)] += n * weighted(task, job)
    for job in done.values():
        trained[density(job)] -= weighted(task, job)
    cached = sum(weighted(task, job) for job in done.values())
    return Cells(trained, n * (len(unique) + dry.trainings) - len(done), cached, planning)


def _with_transfer(
    task: Task, seeds: Sequence[int], found: Rehearsal, cells: Cells, frozen: Reference | None
) -> Cells:
    """Add the cells of transfer, by number only: real tickets are needed to transfer them.

    At each target there are a transferred and an ERK ticket of two rungs, and three parts of one;
    the tickets of a cheap method found there; a search at the depth that they are transferred from,
    if it is another. ERK tickets of the reference's seeds are already stored in it.
    """
    moved, n = task.transfer, len(seeds)
    if moved is None:
        return cells
    own, trained = families.flops(task.network, task.network.depth), _times(cells.trained, 1)
    weights = [families.flops(task.network, depth) / own for depth in moved.targets]
    runs = workload.runs_at_a_target(moved, found.search.cost < CHEAP)
    for rung in moved.densities:
        steps = sum(weights) * runs * task.recipe.steps / len(moved.densities)
        trained[rung] += n * steps
    if moved.source != task.network.depth:  # on two rungs: in nats, a fraction of the way down
        part = min(1.0, log(moved.densities[-1]) / log(task.ladder.trained[-1]))
        there = families.flops(task.network, moved.source) / own
        searched = found.search.cost * task.recipe.steps
        for dense, steps in (found.trained or {1.0: 1.0}).items():
            share = steps / (found.steps or 1.0)
            trained[dense] += n * part * there * searched * share
    spared = [
        cell
        for cell in (frozen.transfer.cells if frozen and frozen.transfer else ())
        if cell.kind == "erk" and cell.seed in seeds
    ]
    for cell in spared:
        there = families.flops(task.network, cell.depth) / own
        trained[cell.density] -= there * task.recipe.steps
    more = n * len(weights) * runs - len(spared)
    return replace(cells, trained=trained, runs=cells.runs + more)


def _times(trained: Mapping[float, float], factor: int) -> defaultdict[float, float]:
    """Multiply steps by density."""
    return defaultdict(float, {dense: factor * steps for dense, steps in trained.items()})


def _mean_step(pace: Pace, seeds: int, found: Rehearsal, cells: Cells) -> float:
    """Return processor seconds of an average step that workers train, or of a dense one."""
    trained = _times(found.trained, seeds)
    for dense, number in cells.trained.items():
        trained[dense] += number
    steps = sum(trained.values())
    return pace.training(trained).processor / steps if steps else pace.step(1.0).processor


def _stored(entry: Entry, means: Means) -> bool:
    """Return whether a cell that all methods share is already stored."""
    if entry.kind not in scoring.SHARED:
        return False
    return store.Store(cache() / "cells" / arithmetic(means)).path(entry.job.key).is_file()
