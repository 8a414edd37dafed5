"""What scoring would train: its cells, planned from the tickets of a rehearsed search."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path

from lthbench.evaluation import cells, workload
from lthbench.evaluation.cells import Entry, Seen
from lthbench.io import store
from lthbench.io.paths import cache
from lthbench.networks import families
from lthbench.protocol.constants import CHEAP, SHARED
from lthbench.protocol.design import Plan
from lthbench.protocol.task import Task
from lthbench.records import reference
from lthbench.records.reference import Reference
from lthbench.tools.pace import Spent
from lthbench.tools.rehearsal import Dry, Rehearsal, density, weighted
from lthbench.training.dispatch import Means, arithmetic


@dataclass(frozen=True)
class Work:
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


async def plan_work(
    task: Task,
    seeds: tuple[int, ...],
    found: Rehearsal,
    folder: Path,
    plan: Plan,
    seen: Seen,
) -> Work:
    """Plan the cells of the rehearsed tickets, as scoring will, and see which are stored."""
    if plan.final:  # a name in every cell's key; the set itself is not read
        sets = {seed: {**own, "test": own["held_out"]} for seed, own in seen.sets.items()}
        seen = replace(seen, sets=sets)
    dry, began = Dry(task), (time.process_time(), time.monotonic())
    first = await cells.planned(task, [found.search], folder, dry, plan, seen)
    planning = Spent(time.process_time() - began[0], time.monotonic() - began[1])
    others = [replace(found.search, seed=seed, rungs=()) for seed in seeds[1:]]
    shared = await cells.planned(task, others, folder, Dry(task), plan, seen)
    if cells.untrained([found.search]):  # seeds without rungs count as trained ones here
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
    n, trained = len(seeds), multiply(dry.trained, len(seeds))
    for job in unique.values():
        trained[density(job)] += n * weighted(task, job)
    for job in done.values():
        trained[density(job)] -= weighted(task, job)
    cached = sum(weighted(task, job) for job in done.values())
    return Work(trained, n * (len(unique) + dry.trainings) - len(done), cached, planning)


def add_transfer(
    task: Task, seeds: Sequence[int], found: Rehearsal, work: Work, frozen: Reference | None
) -> Work:
    """Add the cells of transfer, by number only: real tickets are needed to transfer them.

    At each target there are a transferred and an ERK ticket of two rungs, and three parts of one;
    the tickets of a cheap method found there; a search at the depth that they are transferred from,
    if it is another. ERK tickets of the reference's seeds are already stored in it.
    """
    moved, n = task.transfer, len(seeds)
    if moved is None:
        return work
    own, trained = families.flops(task.network, task.network.depth), multiply(work.trained, 1)
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
    return replace(work, trained=trained, runs=work.runs + more)


def multiply(trained: Mapping[float, float], factor: int) -> defaultdict[float, float]:
    """Multiply steps by density."""
    return defaultdict(float, {dense: factor * steps for dense, steps in trained.items()})


def _stored(entry: Entry, means: Means) -> bool:
    """Return whether a cell that all methods share is already stored."""
    if entry.kind not in SHARED:
        return False
    return store.Store(cache() / "cells" / arithmetic(means)).path(entry.job.key).is_file()
