"""Twice the jobs, the steps, or the work of a step: `python -m tests.speed.growth`.

Trains a list of short LeNets on drawn examples by local workers, three times each, and sets the
least time of each doubled list beside that of the plain one: 2 is linear. The memory is what this
process and its workers hold at most, which must not grow with the list.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace

import psutil
from tabulate import tabulate

from lthbench.training.executors import local
from lthbench.training.executors.local import Executor
from lthbench.training.job import Examples, Job
from tests.speed.nodes import drawn, trainings

REPEATS = 3
SAMPLED = 0.05  # seconds between looks at the memory


def lists(count: int, steps: int, engine: str) -> dict[str, list[Job]]:
    """The plain list, and each way of doubling it."""

    def made(many: int, long: int) -> list[Job]:
        return [replace(job, engine=engine) for job in trainings(many, long, "growth")]

    def broader(job: Job) -> Job:
        recipe = job.recipe.model_copy(update={"batch": 2 * job.recipe.batch})
        return replace(job, recipe=recipe)

    return {
        "as it is": made(count, steps),
        "twice the jobs": made(2 * count, steps),
        "twice the steps": made(count, 2 * steps),
        "twice the batch": [broader(job) for job in made(count, steps)],
    }


async def timed(executor: Executor, jobs: list[Job], examples: Examples) -> tuple[float, int]:
    """Seconds of a list, and the bytes that were held at most."""
    held = 0

    async def watched() -> None:
        nonlocal held
        while True:
            held = max(held, memory())
            await asyncio.sleep(SAMPLED)

    watching = asyncio.ensure_future(watched())
    began = time.perf_counter()
    try:
        ended = [key async for key, _ in executor.results(jobs, {0: examples}, None)]
    finally:
        watching.cancel()
    assert len(ended) == len(jobs)
    return time.perf_counter() - began, held


def memory() -> int:
    """Bytes of this process and of those that it started."""
    here = psutil.Process()
    total = here.memory_info().rss
    for child in here.children():
        try:
            total += child.memory_info().rss
        except psutil.Error:
            continue
    return int(total)


async def measured(count: int, steps: int, workers: int, engine: str) -> list[tuple[str, ...]]:
    """A row for each list."""
    executor, examples = local.local(workers), drawn()
    rows: list[tuple[str, ...]] = []
    first = 0.0
    try:
        await timed(executor, lists(workers, 5, engine)["as it is"], examples)  # they start
        for name, jobs in lists(count, steps, engine).items():
            found = [await timed(executor, jobs, examples) for _ in range(REPEATS)]
            seconds, held = min(s for s, _ in found), max(h for _, h in found)
            first = first or seconds
            rows.append((name, f"{seconds:.2f}", f"{seconds / first:.2f}", f"{held / 2**20:,.0f}"))
    finally:
        await executor.close()
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.growth", description=__doc__)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=local.default_workers())
    parser.add_argument("--engine", default="compact")
    options = parser.parse_args()
    rows = asyncio.run(measured(options.jobs, options.steps, options.workers, options.engine))
    print(f"{options.jobs} LeNets of {options.steps} steps, {options.workers} workers")
    print(tabulate(rows, ("list", "s", "ratio", "MiB held"), disable_numparse=True))


if __name__ == "__main__":
    main()
