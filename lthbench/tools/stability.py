"""The rewind limit of a task: the earliest step from which IMP's tickets are stable.

`lthbench dev stability TASK` (protocol, section 13). A ticket is stable where two trainings
of it in other data orders end in one basin: between their weights the error rises by less than 2 %
(Frankle et al. 2020, section 3).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lthbench.errors import ResourceError
from lthbench.evaluation import trainings
from lthbench.evaluation.search import run
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.starts import Thetas
from lthbench.method.source import load_method
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Recipe, Task
from lthbench.tickets import ticket_files
from lthbench.tickets.masks import Masks
from lthbench.tickets.sizes import load_sound
from lthbench.training.batch_norm import BATCHES
from lthbench.training.dispatch import HERE, engine_for
from lthbench.training.executors import local
from lthbench.training.executors.local import Executor
from lthbench.training.job import Evaluation, Job

STEPS = (0, 100, 250, 500, 1000, 2000)
DENSITY = 0.8**9  # 13.4 %
STABLE = 0.02
POINTS = 11  # on the line between two ends, both included
ORDERS = (("stability", "0"), ("stability", "1"))


def candidates(recipe: Recipe) -> tuple[int, ...]:
    """Return the steps to try: at most a tenth of T, none inside a warm-up."""
    return tuple(k for k in STEPS if k <= recipe.steps / 10 and (k == 0 or k > recipe.warm_up))


def between(one: State, other: State, share: float) -> State:
    """Interpolate linearly between two states; non-float tensors are the first's."""
    ends = other.tensors()
    return State(
        {
            name: torch.lerp(tensor, ends[name], share) if tensor.is_floating_point() else tensor
            for name, tensor in one.tensors().items()
        },
        one.step,
    )


def barrier(errors: Sequence[float]) -> float:
    """Return by how much the highest error on a line exceeds the mean of its two ends."""
    return max(errors) - (errors[0] + errors[-1]) / 2


async def measured(task: Task, seed: int, executor: Executor, folder: Path) -> float:
    """Measure the held-out barrier of IMP's ticket, rewound to the task's rewind limit."""
    ladder = task.ladder.model_copy(update={"trained": (DENSITY,)})
    scored = task.score.model_copy(update={"compressed_density": 0.0})
    rung = task.model_copy(update={"ladder": ladder, "score": scored, "transfer": None})
    how = run.Conditions(Limits(seconds=3600.0))
    (done,) = await run.find(load_method("imp"), rung, (seed,), folder, executor, how)
    if done.status != "ok":
        raise ResourceError(f"{task.name}: IMP of seed {seed} failed: {done.reason}")
    header, masks, _ = ticket_files.read_ticket(folder / "tickets" / f"seed{seed}", DENSITY)
    start: State | None = families.initial(task.network, task.network.depth, seed)
    if header["start"]:
        start = await Thetas(rung, executor, HERE).at(seed, header["start"])
    if start is None:
        raise ResourceError(f"{task.name}: the dense run of seed {seed} diverged before step k")
    return await instability(task, seed, start, masks, executor)


async def instability(
    task: Task, seed: int, start: State, masks: Masks | None, executor: Executor
) -> float:
    """Measure the barrier between two trainings of one subnetwork in different data orders."""
    search = datasets.search(task, seed)
    train = {seed: trainings.examples(task, search.train)}
    held = trainings.examples(task, search.held_out)
    steps = task.recipe.steps
    jobs = [
        _job(task, seed, start, masks, steps, order, str(at)) for at, order in enumerate(ORDERS)
    ]
    ends = {key: result.state async for key, result in executor.results(jobs, train, None)}
    one, other = ends["0"], ends["1"]
    if one is None or other is None:
        raise ResourceError(f"{task.name}: a training of seed {seed} diverged")
    shares = [at / (POINTS - 1) for at in range(POINTS)]
    jobs = [
        _job(task, seed, between(one, other, share), masks, steps, ORDERS[0], str(at), BATCHES)
        for at, share in enumerate(shares)
    ]
    looks = Evaluation({seed: {"held_out": held}}, (steps,))
    correct: Mapping[str, int] = {
        key: int(result.correct["held_out"][-1])
        async for key, result in executor.results(jobs, train, looks)
    }
    return barrier([1 - correct[str(at)] / len(held.y) for at in range(POINTS)])


def _job(
    task: Task,
    seed: int,
    start: State,
    masks: Masks | None,
    until: int,
    order: tuple[str, ...],
    key: str,
    norm_batches: int = 0,
) -> Job:
    depth, engine = task.network.depth, engine_for(HERE, task.network)
    what = task.network, depth, start, masks, task.recipe, until, seed, order, key, norm_batches
    return Job(*what, engine)


async def _all(task: Task, seeds: Sequence[int], steps: Sequence[int], workers: int) -> None:
    executor = local.local(workers)
    try:
        for step in steps:
            search = task.search.model_copy(update={"rewind_limit": step})
            rewound = task.model_copy(update={"search": search})
            found = []
            for seed in seeds:
                with tempfile.TemporaryDirectory(prefix="lthbench-stability-") as place:
                    found.append(await measured(rewound, seed, executor, Path(place)))
            told = "stable" if max(found) < STABLE else "not stable"
            row = ", ".join(f"{value:.4f}" for value in found)
            print(f"{task.name} rewound to step {step}: error barrier {row}: {told}", flush=True)
    finally:
        await executor.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Create a training in a data order of its own."""
    parser = argparse.ArgumentParser(prog="lthbench dev stability", description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=local.default_workers())
    parser.add_argument("--step", type=int, action="append", help="only this one")
    options = parser.parse_args(arguments)
    task = load_sound(options.task)
    datasets.prepare(task, download=False)
    seeds = range(1000, 1000 + options.seeds)
    steps = options.step or candidates(task.recipe)
    asyncio.run(_all(task, seeds, steps, options.workers))
