"""Every engine, and both ways of the stacked one, on a task of each family.

`python -m tests.speed.engines [--device cpu|cuda] [--task T …] [--jobs N] [--steps N] [--json]`
prints model-steps a second with the winner marked: the figures behind `choice.engines` and
`stacked.WAYS`. A long run less a short one, so that set-up does not count; no evaluations. Examples
are noise where there is no copy of the data. On a CPU one thread, as in a worker, and processor
time: others may be at work there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from tabulate import tabulate

from lthbench.protocol.task import load_task
from lthbench.training import dispatch
from lthbench.training.engines import stacked
from lthbench.training.job import Job, as_in_a_worker
from tests.speed import peers

TASKS = (
    "lenet300-mnist", "mlp-digits", "mlp-modadd59", "transformer-modadd59",
    "conv4-cifar10", "resnet20-cifar10", "vit-tiny-cifar10", "transformer-modadd113",
)  # fmt: skip
# Steps of a long run on a CPU, by what a step takes there; a GPU needs many to be busy at all.
STEPS = {"mlp": 300, "pair-mlp": 18, "transformer": 12, "conv": 4, "resnet": 3, "vit": 2}
ON_GPU = 600
SHORT = 6  # a short run is a long one's share of this
JOBS = {"cpu": 4, "cuda": 15}


@dataclass(frozen=True)
class Row:
    """Model-steps a second of one engine on one task."""

    task: str
    real: bool
    engine: str
    jobs: int
    rate: float
    best: bool = False


def seconds(run: Any, jobs: Sequence[Job], case: peers.Case, steps: int) -> float:
    """What an engine takes for so many steps of every job, set-up included."""
    some = [replace(job, until=steps) for job in jobs]
    device = case.train.x.device
    clock = _clock(device)
    began = clock()
    for _, result in run(some, {peers.SEED: case.train}):
        if result.status != "ok":
            raise SystemExit(f"{case.task.name}: {result.status}: {result.reason}")
    return clock() - began


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type != "cuda":
        return time.process_time

    def after_all() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return after_all


def rate(run: Any, jobs: Sequence[Job], case: peers.Case, steps: int) -> float:
    """Model-steps a second, by a long run less a short one."""
    short = max(1, steps // SHORT)
    seconds(run, jobs, case, short)  # warms up
    spent = [seconds(run, jobs, case, some) for some in (steps, short)]
    return len(jobs) * (steps - short) / max(1e-9, spent[0] - spent[1])


def several(case: peers.Case, count: int) -> list[Job]:
    """The case's job in so many orders."""
    job = case.job
    return [replace(job, key=str(n), order=(*job.order, str(n))) for n in range(count)]


def measured(name: str, device: str, count: int | None, steps: int | None) -> Iterator[Row]:
    """The rows of one task; one after the other where an engine takes one job at a time."""
    task = load_task(name)
    kind = device.partition(":")[0]
    long = steps or (STEPS[task.network.family] if kind == "cpu" else ON_GPU)
    case = peers.prepared(task, device, long)
    means = dispatch.Means(device)
    for engine in dispatch.engines(means, task.network):
        run = dispatch.RUN[engine]
        if engine != "stacked":
            yield Row(name, case.real, engine, 1, rate(run, several(case, 1), case, long))
            continue
        together = several(case, count or JOBS[kind])
        for way in ("vmap", "unrolled"):
            chosen = partial(stacked.run, way=way, most=len(together))
            found = rate(chosen, together, case, long)
            yield Row(name, case.real, f"stacked, {way}", len(together), found)


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.engines", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--task", nargs="+", choices=TASKS)
    parser.add_argument("--jobs", type=int, help="that the stacked engine is given")
    parser.add_argument("--steps", type=int, help="of a long run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    alone: AbstractContextManager[None] = nullcontext()
    if options.device == "cpu":
        alone = as_in_a_worker()
    rows: list[Row] = []
    with alone:
        for name in options.task or TASKS:
            some = list(measured(name, options.device, options.jobs, options.steps))
            most = max(row.rate for row in some)
            rows += [replace(row, best=row.rate == most) for row in some]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = [
        (
            row.task + ("" if row.real else " (noise)"), row.engine, row.jobs,
            f"{row.rate:,.1f}" if row.rate < 1000 else f"{row.rate:,.0f}", "*" if row.best else "",
        )
        for row in rows
    ]  # fmt: skip
    print(f"model-steps a second, {options.device}, torch {torch.__version__}")
    print(tabulate(table, ("task", "engine", "jobs", "rate", "best"), disable_numparse=True))


if __name__ == "__main__":
    main()
