"""Runs a method without its trainings, to count what it would ask for: for `lthbench estimate`.

It runs in its real child process, against a harness that answers at once: a training ends with the
weights that it began with, slightly changed, and no held-out example is correct. The first steps of
a method's own loop run and are timed; whatever else the method computes really runs.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lthbench import seeds
from lthbench.evaluation.search import session
from lthbench.evaluation.search.child_process import ChildProcess, Limits
from lthbench.evaluation.search.run import answer, method_error, setup
from lthbench.evaluation.search.session import Search
from lthbench.method.requests import Done, End, Failure, Loop, Refusal, Reply, Timed
from lthbench.method.source import Method
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.tickets import masks
from lthbench.training.dispatch import HERE, Means
from lthbench.training.job import Evaluation, Examples, Job, Result


@dataclass(frozen=True)
class Rehearsal:
    """What a search at one seed asks for.

    Attributes:
        search: its tickets are where `find` would leave them.
        trained: steps of workers, by density: sparse ones may take less time.
        trainings, accuracies: how many of each.
        own_steps: of loops in the method's own process.
        processor, wall: seconds of that process, including its start and its full loops.
    """

    search: Search
    trained: Mapping[float, float]
    trainings: int
    accuracies: int
    own_steps: int
    processor: float
    wall: float

    @property
    def steps(self) -> float:
        """Steps of workers at all densities."""
        return sum(self.trained.values())


class Dry:
    """An executor that trains nothing: it counts, and answers at once.

    Attributes:
        trained: steps by density, of the task's own network; one at another depth counts by its
            FLOPs.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.trained: defaultdict[float, float] = defaultdict(float)
        self.trainings = self.accuracies = 0

    async def results(
        self, jobs: Sequence[Job], _data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Count the jobs and yield their starts, slightly changed."""
        for job in jobs:
            self.trained[density(job)] += weighted(self.task, job)
            self.trainings += job.until > job.start.step
            self.accuracies += evaluation is not None
            sets = evaluation.sets[job.seed] if evaluation else {}
            yield job.key, Result(_moved(job), {name: torch.zeros(1).long() for name in sets})

    async def close(self) -> None:
        """Do nothing."""
        return


def density(job: Job) -> float:
    """Return the kept fraction of a job's prunable weights."""
    return masks.kept(job.masks) / masks.total(job.masks) if job.masks else 1.0


def weighted(task: Task, job: Job) -> float:
    """Return a job's steps, in steps of the task's own network."""
    own, steps = task.network.depth, job.until - job.start.step
    if job.depth == own or not steps:
        return float(steps)
    return steps * families.flops(task.network, job.depth) / families.flops(task.network, own)


def _moved(job: Job) -> State:
    """Return the masked start, each tensor multiplied by a factor of the job's own.

    Two trainings from one start must not end in equal bits: what follows them would look the same.
    """
    draw = seeds.generator(job.seed, "rehearsal", job.key)
    tensors = {n: t * float(draw.uniform(0.9, 1.1)) for n, t in job.start.tensors().items()}
    masked = {n: tensors[n] * mask for n, mask in (job.masks or {}).items()}
    return State(tensors | masked, job.until)


async def rehearse(
    method: Method, task: Task, seed: int, folder: Path, limits: Limits, means: Means = HERE
) -> Rehearsal:
    """Run one seed's search without its trainings; the folder is laid out as by `find`.

    Raises:
        MethodError: for what the method cannot do without real results, or its own mistakes.
    """
    place = folder / "store" / f"seed{seed}"
    dry, own_steps, processor, wall = Dry(task), 0, 0.0, 0.0
    state = session.prepare(task, seed, folder / "tickets" / f"seed{seed}", place, dry, means)
    child = await ChildProcess.start(place / "home")
    try:
        await child.send(*setup(state, method, folder, "rehearsal"))
        while True:
            request, tensors = await child.receive(limits, asyncio.Event())
            match request:
                case End() | Failure(type="BudgetExceeded"):
                    break
                case Failure():
                    raise method_error(method, seed, request, state.is_fresh)
                case Timed(left):
                    processor += left * request.processor
                    wall += left * request.wall
                    await child.send(Reply(state.meter.left, Done()), {})
                    continue
            reply, content = await answer(request, tensors, method, state)
            if isinstance(request, Loop) and not isinstance(reply.answer, Refusal):
                own_steps += request.steps
            await child.send(reply, content)
        spent = psutil.Process(child.process.pid).cpu_times()
    finally:
        await child.close()
    return Rehearsal(
        Search(seed, "ok", "", state.meter.spent, 0.0, tuple(state.rungs)),
        dict(dry.trained),
        dry.trainings,
        dry.accuracies,
        own_steps,
        processor + spent.user + spent.system,
        wall + child.own_seconds,
    )
