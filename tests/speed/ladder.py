"""IMP's whole ladder and its scoring beside a DataLoader loop: `python -m tests.speed.ladder`.

Ours is one command from start to end, `lthbench evaluate imp --final`, with a cache and a folder
that hold nothing but the prepared data: IMP's rounds, then every rung with its controls. What it
trained is counted in its record and in the cost of its search. A peer would train the same one
after another; that is measured over some steps of the DataLoader loop, with evaluations as scoring
has them and without as the search, and extrapolated. Of threads and of one thread it gets the
faster.

Then, for the sparse half of the ladder, the tickets that were found are trained by all workers, and
their model-steps a second stand beside the dense network's limit: the same cores doing its matrix
products and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tabulate import tabulate

from lthbench.evaluation import trainings
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Task, load_task
from lthbench.records.schema import Record, read_record
from lthbench.tickets import controls, ticket_files
from lthbench.tickets.masks import Masks
from lthbench.tools import bench
from lthbench.training import dispatch
from lthbench.training.executors import local
from lthbench.training.job import Examples
from tests.speed import peers, workers

SECONDS = 5.0  # of one rate


@dataclass(frozen=True)
class Work:
    """What a record says was trained: trainings and model-steps, of the search and of scoring."""

    searched: int
    search_steps: int
    scored: int
    scoring_steps: int

    @property
    def steps(self) -> int:
        return self.search_steps + self.scoring_steps


def counted(record: Record) -> Work:
    """Add up a record: a search's cost is in dense trainings, a cell trains from its start."""
    steps = record.task.steps
    search = sum(entry.cost for entry in record.searches)
    cells = [steps // cell.schedule - cell.start for cell in record.cells]
    return Work(round(search), round(search * steps), len(cells), sum(cells))


def theirs(task: Task, steps: int, threads: Sequence[int]) -> dict[str, float]:
    """Seconds a step of the DataLoader loop, scoring and searching: the faster of the threads."""
    case = peers.prepared(task, "cpu", steps)
    found = {}
    for what, sets in (("scoring", case.sets), ("searching", {})):
        taken = []
        for number in threads:
            torch.set_num_threads(number)
            timed = peers.dataloader_loop(case.task, case.job, case.train, sets, "cpu", steps)
            taken.append(timed.seconds / steps)
        found[what] = min(taken)
    return found


def rungs(task: Task, out: Path, seed: int, count: int) -> list[list[str]]:
    """Rows of the sparse half: our model-steps a second there, and the dense limit."""
    train = trainings.examples(task, datasets.search(task, seed).train)
    ladder = task.ladder.trained
    sparse = ladder[len(ladder) // 2 :]
    shapes = families.shapes(task.network, task.network.depth)
    random = controls.random_masks(shapes, list(sparse), seed, "erk")
    limit = 1 / bench.together_at_most(task, count, SECONDS).products
    rows = []
    for density, erk in zip(sparse, random, strict=True):
        _, found, _ = ticket_files.read_ticket(out / task.name / "tickets" / f"seed{seed}", density)
        ticket, control = (_rate(task, masks, train, count) for masks in (found, erk))
        shares = f"{ticket / limit:.2f}", f"{control / limit:.2f}"
        rates = f"{ticket:,.0f}", shares[0], f"{control:,.0f}", shares[1], f"{limit:,.0f}"
        rows.append([f"{density:.2%}", *rates])
    return rows


def _rate(task: Task, masks: Masks, train: Examples, count: int) -> float:
    """Model-steps a second of all workers, by the engine that would be chosen."""
    engine = dispatch.engine_for(dispatch.Means(), task.network)
    jobs = [replace(job, masks=masks) for job in bench.jobs_of(task, engine, 1.0, count)]
    return 1 / asyncio.run(bench.together(jobs, train, count, SECONDS))


def main() -> None:
    """Print what was trained, both sides, their ratio, and the sparse half of the ladder."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.ladder", description=__doc__)
    parser.add_argument("--task", default="lenet300-mnist")
    parser.add_argument("--steps", type=int, help="of a shorter copy of the task [the task itself]")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--peer-steps", type=int, help="of the DataLoader loop [an evaluation's]")
    options = parser.parse_args()
    cores = local.default_workers()
    with tempfile.TemporaryDirectory(prefix="lthbench-speed-") as name:
        folder = Path(name)
        whole = load_task(options.task)
        copy = workers.shortened(whole.name, options.steps or whole.recipe.steps, folder)
        task = load_task(str(copy))
        seconds = workers.evaluated(copy, options.seeds, folder, "--final", "--no-transfer")
        record = read_record(folder / "out" / task.name / "record.json")
        os.environ["LTHBENCH_CACHE"] = str(folder / "cache")  # the data that ours was given
        work = counted(record)
        every = task.score.every
        steps = max(1, (options.peer_steps or every) // every) * every
        peer = theirs(task, steps, sorted({1, cores}))
        slow = work.search_steps * peer["searching"] + work.scoring_steps * peer["scoring"]
        lines = rungs(task, folder / "out", record.seeds[0], cores)
    print(f"{bench.name_of('cpu')}, {cores} cores, torch {torch.__version__}")
    print(
        f"{task.name}, {task.recipe.steps} steps, evaluated every {every}, "
        f"{options.seeds} seed{'s' * (options.seeds != 1)}"
    )
    if task.recipe.steps != whole.recipe.steps:
        print(
            f"a shorter copy: the task has {whole.recipe.steps} steps and as many evaluations, so "
            "that evaluating weighs more here than there, on both sides"
        )
    print(
        f"trained: {work.searched} of the search, {work.scored} of scoring, {work.steps:,} "
        "model-steps"
    )
    print(f"ours: {seconds:.1f} s, start-up, checks and report included")
    print(
        f"DataLoader loop: {slow:.1f} s, extrapolated from {steps} measured steps each way: "
        f"{1000 * peer['searching']:.2f} ms a step alone, {1000 * peer['scoring']:.2f} ms with "
        f"evaluations every {every}; one training after another, {peers.LOADERS} loading processes"
    )
    print(f"ratio: {slow / seconds:.2f}\n")
    head = (
        "density", "ticket,\nmodel-steps/s", "over\ndense limit", "ERK control,\nmodel-steps/s",
        "over\ndense limit", "dense limit,\nmodel-steps/s",
    )  # fmt: skip
    print(tabulate(lines, head, disable_numparse=True, colalign=("right",) * len(head)))
    print(f"dense limit: its matrix products alone, by {cores} processes at once, in this run")


if __name__ == "__main__":
    main()
