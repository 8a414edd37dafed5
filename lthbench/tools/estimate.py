"""What an evaluation will cost, before it runs: core hours, time, GPU minutes.

Planned steps (`planned_work`, `rehearsal`) times the time of a measured step (`pace`).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Unpack

from lthbench.errors import MethodError, NotApplicable
from lthbench.evaluation import cells, scoring, workload
from lthbench.evaluation.cells import Seen
from lthbench.evaluation.options import Request, asked
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.search.session import Search
from lthbench.method.source import Method
from lthbench.protocol import datasets
from lthbench.protocol.design import Part
from lthbench.protocol.task import Task
from lthbench.records import reference
from lthbench.report import formats
from lthbench.tools import pace as paces
from lthbench.tools.pace import WARM, Pace, Spent, job_of, middle, processor_seconds, run_round
from lthbench.tools.planned_work import Work, add_transfer, multiply, plan_work
from lthbench.tools.rehearsal import Rehearsal, rehearse
from lthbench.training.dispatch import Means
from lthbench.training.executors import local

OWN = 120.0  # seconds that a rehearsal may take
GPU_STEP, GPU_RATE = 2e-3, 2e13  # assumed without a GPU: seconds and FLOP/s, one job at a time
REPORTING = 3.0  # seconds to write records and the report: mostly imports


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

    def table(self) -> dict[str, object]:
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


def estimate(method: str, **request: Unpack[Request]) -> Estimate:
    """Estimate what `evaluate` with the same arguments would take on this machine.

    Raises:
        LthbenchError: for what the caller can correct: a name, data that is not prepared.
    """
    what, final = asked(method, request), request.get("final", False)
    for part in what.parts:
        datasets.prepare(part.task, download=False, test=final)
    run = _all(what.method, what.parts, what.workers, what.means)
    rows, starting, left_out = asyncio.run(run)
    hours = starting.processor / 3600
    return Estimate(what.method.name, final, what.workers, rows, hours, starting.wall, left_out)


async def _all(
    method: Method,
    parts: Sequence[Part],
    workers: int,
    means: Means,
) -> tuple[tuple[Row, ...], Spent, tuple[tuple[str, str], ...]]:
    executor, rows, width = local.local(workers, means), [], max(workers, 1)
    left_out: list[tuple[str, str]] = []
    began, clock = processor_seconds(), time.monotonic()
    starting = Spent(0.0, 0.0)
    try:
        for number, part in enumerate(parts):
            task, seeds = part.task, part.seeds
            seen = scoring.see(task, seeds, replace(part.plan, final=False), means)
            # Sends data to the workers, and initialises torch in them.
            await run_round(
                executor, job_of(task, seeds[0], means, middle(task)), WARM, width, seen
            )
            if not number:
                starting = Spent(processor_seconds() - began, time.monotonic() - clock)
            pace = await paces.measure(task, seeds[0], executor, width, seen, part.plan.final)
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
            work = Work({middle(task): steps}, steps / task.recipe.steps, 0.0, Spent(0.0, 0.0))
        else:
            bounded, work = "", await plan_work(task, seeds, found, folder, plan, seen)
    if plan.transfer and not cells.untrained([found.search]):
        frozen = reference.load_reference(task) if plan.final else None
        work = add_transfer(task, seeds, found, work, frozen)
    jobs = found.trainings + found.accuracies
    search = pace.training(found.trained) + pace.job.times(jobs)
    search += pace.evaluation.times(found.accuracies)
    afterwards = pace.training(work.trained) + pace.job.times(work.runs)
    afterwards += pace.evaluation.times(work.runs * len(task.grid)) + pace.fit.times(work.runs)
    core = n * (search.processor + found.processor + work.planning.processor)
    # A seed's search is sequential: workers beyond the seeds wait. Scoring is one list of jobs.
    # A method's own process computes beside the other seeds' on the same cores.
    together = max(n / local.default_workers(), 1.0)
    searching = found.wall * together + search.wall * max(n / workers, 1.0)
    scored = afterwards.wall * max(1 / workers, 1 / max(work.runs, 1.0))
    steps = n * (found.steps + found.own_steps) + work.steps
    gpu = pace.gpu if pace.gpu is not None else GPU_STEP + pace.flops / GPU_RATE
    return Row(
        task=task.name,
        seeds=n,
        search_cost=found.search.cost,
        search_steps=n * found.steps,
        own_steps=n * found.own_steps,
        scoring_steps=work.steps,
        cached_steps=work.cached,
        step_ms=1000 * _mean_step(pace, n, found, work),
        core_hours=(core + afterwards.processor) / 3600,
        seconds=searching + n * work.planning.wall + scored,
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


def _mean_step(pace: Pace, seeds: int, found: Rehearsal, work: Work) -> float:
    """Return processor seconds of an average step that workers train, or of a dense one."""
    trained = multiply(found.trained, seeds)
    for dense, number in work.trained.items():
        trained[dense] += number
    steps = sum(trained.values())
    return pace.training(trained).processor / steps if steps else pace.step(1.0).processor
