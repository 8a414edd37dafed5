"""Dense training under changed recipes, on the held-out part: `lthbench dev calibrate TASK`.

A recipe is frozen only if no variant is better by more than half a dense seed's deviation: if a
variant beats the dense reference, every subnetwork looks like a winner.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from lthbench.evaluation import trainings
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Recipe, Task, grid
from lthbench.records import metrics
from lthbench.tickets.sizes import load_sound
from lthbench.training.dispatch import HERE, engine_for
from lthbench.training.executors import local
from lthbench.training.job import Evaluation, Job, Result


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe and its neighbours: rate, steps, weight decay, and learning-rate decay."""
    other = "linear" if recipe.schedule == "constant" else "constant"
    changes: dict[str, dict[str, Any]] = {
        "as is": {},
        "rate x3": {"rate": recipe.rate * 3},
        "rate /3": {"rate": recipe.rate / 3},
        "steps x2": dict(recipe.lasting(recipe.steps * 2)),
        "steps /2": dict(recipe.lasting(recipe.steps // 2)),
        f"{other} rate": {"schedule": other, "drops": ()},
    }
    if recipe.weight_decay:
        changes["decay x10"] = {"weight_decay": recipe.weight_decay * 10}
        changes["decay /10"] = {"weight_decay": recipe.weight_decay / 10}
    return {name: recipe.model_copy(update=change) for name, change in changes.items()}


def measured(task: Task, recipe: Recipe, result: Result, held_out: int) -> float:
    """Return the score on the held-out part: accuracy at the end, or the area."""
    counts = result.correct["held_out"].tolist() if "held_out" in result.correct else []
    if result.state is None:
        return float(task.chance)
    if task.score.kind == "area":
        steps = grid(task.score.every, recipe.steps)
        return metrics.area([count / held_out for count in counts], steps)
    last = counts[-5:] if recipe.schedule == "constant" else counts[-1:]
    return float(statistics.mean(last) / held_out)


async def calibrate(
    task: Task, seeds: tuple[int, ...], workers: int, only: tuple[str, ...] = ()
) -> dict[str, list[float]]:
    """Measure each variant (or those named) at each seed."""
    datasets.prepare(task, download=False)
    executor = local.local(workers)
    figures: dict[str, list[float]] = {}
    searches = {seed: datasets.search(task, seed) for seed in seeds}
    train = {seed: trainings.examples(task, s.train) for seed, s in searches.items()}
    held = {
        seed: {"held_out": trainings.examples(task, s.held_out)} for seed, s in searches.items()
    }
    depth = task.network.depth
    try:
        for name, recipe in variants(task.recipe).items():
            if only and name not in only:
                continue
            at = grid(task.score.every, recipe.steps)
            jobs = [
                Job(
                    task.network,
                    depth,
                    families.initial(task.network, depth, seed),
                    None,
                    recipe,
                    recipe.steps,
                    seed,
                    ("data", "dense", "0"),
                    str(seed),
                    engine=engine_for(HERE, task.network),
                )
                for seed in seeds
            ]
            results = {k: r async for k, r in executor.results(jobs, train, Evaluation(held, at))}
            figures[name] = [
                measured(task, recipe, results[str(s)], len(held[s]["held_out"].y)) for s in seeds
            ]
            print(f"{task.name} {name}: {figures[name]}", file=sys.stderr, flush=True)
    finally:
        await executor.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of variants in the format of the task file."""
    parser = argparse.ArgumentParser(prog="lthbench dev calibrate")
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=local.default_workers())
    parser.add_argument("--variant", action="append", default=[], help="only this one")
    options = parser.parse_args(arguments)
    task = load_sound(options.task)
    seeds = tuple(range(1000, 1000 + options.seeds))
    figures = asyncio.run(calibrate(task, seeds, options.workers, tuple(options.variant)))
    for name, values in figures.items():
        row = ", ".join(f"{value:.4f}" if value < 1 else f"{value:.1f}" for value in values)
        print(f'\n[[calibration.variants]]\nvariant = "{name}"\nscore = [{row}]')
