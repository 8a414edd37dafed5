"""The noise floor: what another machine, thread count or order of sums moves a score by.

One ticket of each rung is trained several times, each time from weights that are moved by one unit
in the last place at random (protocol, section 11), and so are IMP's own tickets at the depths that
tickets are carried to, where it has searched there (`--direct`):
`lthbench dev noise OUT/<task>`, beside the tickets of IMP's final evaluation.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthbench import seeds
from lthbench.errors import ResourceError
from lthbench.evaluation import scoring
from lthbench.evaluation.cells import entry_of, read_given
from lthbench.io.paths import canonical_json, write_whole
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.constants import LAST
from lthbench.protocol.design import Place, Plan, at_depth
from lthbench.protocol.task import Task, load_task
from lthbench.records import metrics, runs
from lthbench.records.reference import FLOOR_DRAWS, Noise
from lthbench.records.schema import read_record
from lthbench.tools.freeze_reference import searched_at_targets
from lthbench.training.dispatch import Means, means_of
from lthbench.training.executors import local
from lthbench.training.job import Evaluation

PARTS = ("held_out", "test")

Curves = dict[str, list[list[list[int]]]]  # by set: for each rung and draw, correct answers


def nudged(start: State, seed: int, draw: int) -> State:
    """Move each weight (float32) by one unit in the last place, up or down at random."""
    moved = {}
    for name, tensor in start.items():
        up = seeds.generator(seed, "noise", str(draw), name).random(tuple(tensor.shape)) < 0.5
        towards = np.where(up, np.float32(np.inf), np.float32(-np.inf))
        moved[name] = torch.from_numpy(np.nextafter(tensor.numpy(), towards))
    return State(moved, start.step)


def floor(values: Sequence[float], least: float) -> float:
    """Return the standard deviation of scores that differ by noise alone, at least `least`."""
    return max(least, statistics.stdev(values))


def curve_floor(draws: Sequence[Sequence[int]]) -> float:
    """Return the root mean square over evaluations of the deviation in examples, at least one."""
    return max(1.0, math.sqrt(float(np.mean(np.var(np.array(draws), axis=0, ddof=1)))))


def floors(task: Task, rungs: Sequence[Sequence[Sequence[int]]], size: int) -> Noise:
    """Return what noise does to each rung's score and curve; at least what one example does.

    Args:
        task: the task of the tickets.
        rungs: correct answers, for each rung and draw.
        size: examples of the set.
    """
    least = runs.unit(task.score.kind, size) / size
    told = [[_points(task, counts, size) for counts in draws] for draws in rungs]
    return Noise(
        score=tuple(floor(values, least) for values in told),
        curve=tuple(curve_floor(draws) for draws in rungs),
    )


def _points(task: Task, counts: Sequence[int], size: int) -> float:
    """Convert a run's correct answers to its accuracy at T, or its area, in points.

    What lies before its start is the same for all draws, here 0.
    """
    if task.score.kind == "accuracy":
        last = counts[-LAST:] if task.recipe.schedule == "constant" else counts[-1:]
        return float(np.mean(last))
    before = [0.0] * (len(task.grid) - len(counts))
    unit = runs.unit(task.score.kind, size)
    return unit * metrics.area([*before, *(n / size for n in counts)], task.grid)


async def scored(
    task: Task, seed: int, folder: Path, workers: int, means: Means, draws: int = FLOOR_DRAWS
) -> tuple[Curves, dict[str, int]]:
    """Return curves of each rung's ticket from several starts, and the size of each set.

    Args:
        task: the task of the tickets.
        seed: of the search.
        folder: of an evaluation of the task.
        workers: processes that train.
        means: device and engine.
        draws: starts of each ticket.

    Raises:
        ResourceError: if one diverges: its score has no standard deviation.
    """
    seen = scoring.see(task, [seed], Plan(final=True), means)
    counted = {part: seen.sets[seed][part] for part in PARTS}  # the training part has no floor
    jobs = []
    for rung in task.ladder.trained:
        given = read_given(task, folder, seed, rung)
        job = entry_of(task, Place("ticket", rung, seed), given, seen).job
        for draw in range(draws):
            moved = nudged(given.start, seed, draw)
            jobs.append(replace(job, start=moved, key=f"{rung!r} {draw}"))
    executor = local.local(workers, means)
    looks = Evaluation({seed: counted}, task.grid)
    sizes = {part: len(examples.y) for part, examples in counted.items()}
    found: dict[str, dict[str, list[int]]] = {}
    try:
        async for key, result in executor.results(jobs, seen.train, looks):
            if result.status != "ok":
                raise ResourceError(f"{task.name}: run {key} diverged; a floor needs all of them")
            found[key] = {part: counts.tolist() for part, counts in result.correct.items()}
    finally:
        await executor.close()
    return {
        part: [
            [found[f"{rung!r} {draw}"][part] for draw in range(draws)]
            for rung in task.ladder.trained
        ]
        for part in PARTS
    }, sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Write OUT/<task>/noise.json, the input of `lthbench dev reference`."""
    parser = argparse.ArgumentParser(prog="lthbench dev noise", description=__doc__)
    parser.add_argument("folder", type=Path, help="OUT/<task> of IMP's final evaluation")
    parser.add_argument("--device")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args(arguments)
    record = read_record(options.folder / "record.json")
    task, seed = load_task(record.task.name), record.seeds[0]
    datasets.prepare(task, download=False)
    means = means_of(options.device, None)
    crew = local.default_workers(means) if options.workers is None else options.workers
    direct = searched_at_targets(record)  # else there are no tickets of the targets
    places = {task.network.depth: options.folder} | {
        depth: options.folder / f"depth{depth}"
        for depth in (record.transfer.targets if record.transfer and direct else ())
    }
    curves: dict[str, Curves] = {}
    told: dict[str, dict[str, dict[str, Any]]] = {}
    for depth, place in places.items():
        here = task if depth == task.network.depth else at_depth(task, depth)
        found, sizes = asyncio.run(scored(here, seed, place, crew, means))
        curves[str(depth)] = found
        told[str(depth)] = {
            part: floors(here, found[part], size).model_dump() for part, size in sizes.items()
        }
    own = told.pop(str(task.network.depth))
    path = options.folder / "noise.json"
    made = {"task": task.digest, "seed": seed, "curves": curves, "floors": own, "targets": told}
    write_whole(path, canonical_json(made))
    print(path)
