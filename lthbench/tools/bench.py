"""How fast each engine trains each task on this machine, relative to what its hardware allows.

`lthbench bench` times steps on examples of a task's shapes, with no evaluation between them, in one
process and by all workers at once. In the same run it times the two things that a step cannot do
without: its matrix products, replayed alone on the operands of a real step, and the bytes that it
must move, at the speed of a large copy. A fraction is the limit's time over the step's. Masked
networks are compared with the limits of the dense one, so an engine that skips pruned weights may
exceed 1; so may one whose tensors stay in a cache, for the copy limit.

`python -m lthbench.tools.bench` is the process that measures limits alongside others of its kind.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from math import prod
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lthbench.errors import ResourceError, UsageError
from lthbench.evaluation import trainings
from lthbench.evaluation.machine import environment
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import IMAGES, Task, load_suite, task_names
from lthbench.seeds import generator
from lthbench.tickets import controls
from lthbench.tickets.sizes import load_sound
from lthbench.training import dispatch
from lthbench.training.augment import fed
from lthbench.training.dispatch import Means
from lthbench.training.engines import plain
from lthbench.training.executors import local
from lthbench.training.executors.environment import environment as worker_environment
from lthbench.training.executors.local import Executor
from lthbench.training.job import Examples, Job, as_in_a_worker, single_threaded

DENSITIES = (1.0, 0.2, 0.05)  # and the sparsest of a task's ladder
GROUPS = {"cpu": (4,), "cuda": (1, 15, 100)}  # networks that the stacked engine gets at once
WARM = 2  # steps of a short run: building, the first step, and one more
ROUNDS = 3  # timings of which the median counts
SHORTEST = 1e-3  # seconds of one timing, whatever was requested: the clock's own cost is far below
COPIED = {"cpu": 2**27, "cuda": 2**30}  # bytes: more than a cache holds
NOISE = 2**27  # bytes of random examples at most
EXAMPLES = {"digits": 1_438, "mnist": 60_000, "cifar10": 50_000, "imagenette": 9_469}
ORDER = "bench"

Run = Callable[[int], Awaitable[float]]  # wall seconds of this many steps of every job


@dataclass(frozen=True)
class Limits:
    """The least time of one model-step: its products alone, its bytes alone; in seconds."""

    products: float
    copies: float

    def shared(self, processes: int) -> Limits:
        """Return limits of a model-step in any of several processes with these limits each."""
        return Limits(self.products / processes, self.copies / processes)


@dataclass(frozen=True)
class Rate:
    """Model-steps per second, and the fraction of each dense limit that they reach."""

    steps: float
    products: float
    copies: float

    @staticmethod
    def of(seconds: float, limits: Limits) -> Rate:
        """Return the rate of model-steps that take this many seconds each."""
        return Rate(1 / seconds, limits.products / seconds, limits.copies / seconds)


@dataclass(frozen=True)
class Row:
    """One engine on one task at one density.

    Attributes:
        jobs: networks that one process was given at once.
        one: one process alone.
        all: every worker at work, against limits measured in as many processes at once; None
            where no worker trains.
    """

    task: str
    engine: str
    density: float
    jobs: int
    one: Rate
    all: Rate | None


@dataclass(frozen=True)
class Benched:
    """A row for each task, engine, density and group, and the machine that they apply to."""

    device: str
    name: str
    threads: int  # of one process
    workers: int
    torch: str
    seconds: float
    rows: tuple[Row, ...]

    def table(self) -> dict[str, Any]:
        """Return everything as plain numbers and names."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    def text(self) -> str:
        """Format the rows, and the notes on them."""
        from tabulate import tabulate

        together = f"{self.workers} worker{'s' * (self.workers != 1)}"
        limits = "of product\nlimit", "of copy\nlimit"
        head = (
            *("task", "engine", "density", "jobs", "steps/s,\none process", *limits),
            *((f"steps/s,\n{together}", *limits) if self.workers else ()),
        )
        rows = [self._line(row) for row in self.rows]
        align = ("left", "left", *("right",) * (len(head) - 2))
        grid = tabulate(rows, head, disable_numparse=True, colalign=align)
        threads = f"{self.threads} thread{'s' * (self.threads != 1)} a process"
        title = f"{self.name} ({self.device}), {threads}, torch {self.torch}"
        return "\n".join([title, "", grid, "", *self.notes()])

    def _line(self, row: Row) -> tuple[str, ...]:
        rates = [row.one, *([row.all] if row.all else [])]
        told = [
            text
            for rate in rates
            for text in (f"{rate.steps:,.0f}", f"{rate.products:.1%}", f"{rate.copies:.1%}")
        ]
        return row.task, row.engine, f"{row.density:.2%}", str(row.jobs), *told

    def notes(self) -> list[str]:
        """Return what a reader must know about the figures, one line each."""
        notes = [
            "steps/s: model-steps a second on examples of the task's shapes, nothing evaluated",
            "limits: the dense network's, at every density; a share above 100 % leaves work out, "
            "or for copies stays in a cache",
            "masks below 100 %: random by ERK; found tickets empty more rows and columns",
        ]
        if self.device != "cpu":
            notes.append("products of several jobs: one batched product; convolutions in turn")
        return notes


def bench(tasks: Sequence[str], device: str, seconds: float, workers: int) -> Benched:
    """Time every engine that can train each task, on this machine.

    Args:
        tasks: names or files of tasks; if empty, suite lite and mlp-digits on a CPU, all elsewhere.
        device: torch's name.
        seconds: per row, roughly; starting processes and compiling are extra.
        workers: processes that train at once on a CPU; 0 for this one alone.

    Raises:
        LthbenchError: for an unknown name, or a device that does not exist here.
    """
    means = check_device(device)
    if not seconds > 0:
        raise UsageError(f"bench: {seconds:g} seconds a row; give more than 0")
    if workers < 0:
        raise UsageError(f"--workers {workers}: 0 or more")
    loaded = [load_sound(name) for name in tasks or _default_tasks(means)]
    # One process trains on a GPU: more of them would share it.
    workers = workers if means.kind == "cpu" else 0
    rows = asyncio.run(_all(loaded, means, seconds, workers))
    threads = 1 if means.kind == "cpu" else torch.get_num_threads()
    version = str(torch.__version__)
    return Benched(device, name_of(device), threads, workers, version, seconds, tuple(rows))


def check_device(device: str) -> Means:
    """Return the means for a device's name; UsageError if it does not exist here."""
    means = dispatch.means_of(device, None)
    if means.kind not in GROUPS:
        raise UsageError(f"--device {device}: bench knows {' and '.join(GROUPS)} alone")
    return means


def _default_tasks(means: Means) -> tuple[str, ...]:
    if means.kind != "cpu":
        return task_names()
    return tuple(dict.fromkeys((*load_suite("lite").tasks, "mlp-digits")))


def name_of(device: str) -> str:
    """Return the product name of the processor or GPU."""
    if device == "cpu":
        return environment()["processor"]
    return torch.cuda.get_device_name(device)


async def _all(tasks: Sequence[Task], means: Means, seconds: float, workers: int) -> list[Row]:
    rows: list[Row] = []
    executor = local.local(workers)
    try:
        with limiters(workers) as others:
            for task in tasks:
                rows += await _rows(task, means, seconds, workers, executor, others)
    finally:
        await executor.close()
    return rows


async def _rows(
    task: Task,
    means: Means,
    seconds: float,
    workers: int,
    executor: Executor,
    others: Limiters,
) -> list[Row]:
    """Time one task; a row's seconds are divided between its two rates."""
    train = drawn(task, means.device)
    share = seconds / (2 if workers else 1)
    each = others.limits(task, share) if workers else None
    alone: dict[int, Limits] = {}
    rows = []
    for engine in dispatch.engines(means, task.network):
        for group in GROUPS[means.kind] if engine == "stacked" else (1,):
            if group not in alone:
                alone[group] = limits(task, means.device, share, group)
            for density in _densities(task):
                some = jobs_of(task, engine, density, max(workers, 1) * group)
                one = await pace(_here(some[:group], train, means), share)
                rate, all_rate = Rate.of(one / group, alone[group]), None
                if each:
                    every = await pace(_there(some, train, executor, workers), share)
                    all_rate = Rate.of(every / len(some), each.shared(workers))
                rows.append(Row(task.name, engine, density, group, rate, all_rate))
    return rows


async def together(jobs: Sequence[Job], train: Examples, workers: int, seconds: float) -> float:
    """Return seconds per model-step while these workers train equal shares of the jobs."""
    executor = local.local(workers)
    try:
        return await pace(_there(jobs, train, executor, workers), seconds) / len(jobs)
    finally:
        await executor.close()


def together_at_most(task: Task, workers: int, seconds: float) -> Limits:
    """Return the dense network's limits of a model-step while these processes are at work."""
    with limiters(workers) as others:
        return others.limits(task, seconds).shared(workers)


# Work


def _densities(task: Task) -> tuple[float, ...]:
    return tuple(sorted({*DENSITIES, task.ladder.trained[-1]}, reverse=True))


def jobs_of(task: Task, engine: str, density: float, count: int) -> list[Job]:
    """Create trainings with different orders; below density 1 they share one ERK mask."""
    depth = task.network.depth
    start = families.initial(task.network, depth, 0)
    masks: Mapping[str, Tensor] | None = None
    if density < 1:
        shapes = families.shapes(task.network, depth)
        (masks,) = controls.random_masks(shapes, [density], 0, "erk")
    return [
        Job(
            task.network, depth, start, masks, task.recipe, task.recipe.steps, 0,
            (ORDER, str(number)), str(number), engine=engine,
        )
        for number in range(count)
    ]  # fmt: skip


def drawn(task: Task, device: str = "cpu", count: int | None = None) -> Examples:
    """Return examples of a task's shapes on a device: its own if generated, else noise.

    Noise takes just as long to train on. As many as the training part has, unless they are very
    large or `count` says otherwise.
    """
    if task.data.source == "modular-addition":
        found = trainings.examples(task, datasets.search(task, 0).train)
        return found.to(device)
    shape = _shape(task)
    known = EXAMPLES[task.data.source]
    held = task.data.held_out or round(task.data.held_out_fraction * known)
    count = count or min(known - held, max(NOISE // prod(shape), task.recipe.batch))
    random = generator(0, ORDER)
    x = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    y = random.integers(0, task.data.classes, count, dtype=np.uint8)
    scale, shift = task.data.scale, task.data.shift
    return Examples(torch.from_numpy(x), torch.from_numpy(y), scale, shift).to(device)


def _shape(task: Task) -> tuple[int, ...]:
    """Return the shape of one decoded example."""
    spec = task.network
    return (spec.side, spec.side, spec.channels) if spec.family in IMAGES else (spec.inputs,)


def _lasting(jobs: Sequence[Job], steps: int) -> list[Job]:
    """Return the same trainings with their whole schedules in this number of steps."""
    recipe = jobs[0].recipe.lasting(steps)
    return [replace(job, recipe=recipe, until=steps) for job in jobs]


def _here(jobs: Sequence[Job], train: Examples, means: Means) -> Run:
    """Return a run that trains in this process, on a CPU with a worker's arithmetic."""

    async def run(steps: int) -> float:
        began = time.perf_counter()
        with as_in_a_worker() if means.kind == "cpu" else nullcontext():
            for _, result in dispatch.run(_lasting(jobs, steps), {0: train}):
                _demand(jobs[0], result.status, result.reason)
        return time.perf_counter() - began

    return run


def _there(jobs: Sequence[Job], train: Examples, executor: Executor, workers: int) -> Run:
    """Return a run that trains by workers, each with its share: one list would go to one."""
    size = len(jobs) // workers
    lists = [jobs[first : first + size] for first in range(0, len(jobs), size)]

    async def one(some: Sequence[Job], steps: int) -> None:
        async for _, result in executor.results(_lasting(some, steps), {0: train}, None):
            _demand(some[0], result.status, result.reason)

    async def run(steps: int) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one(some, steps) for some in lists))
        return time.perf_counter() - began

    return run


def _demand(job: Job, status: str, reason: str) -> None:
    """Raise unless the run is complete: one that ended early took too little time."""
    if status != "ok":
        raise ResourceError(f"bench: engine {job.engine} {status}: {' '.join(reason.split())[:80]}")


async def pace(run: Run, seconds: float) -> float:
    """Return seconds per step of all jobs, by comparing long and short runs, in about `seconds`.

    The difference excludes what a run takes once: building, compiling, sending. If steps are so
    slow that time runs out, fewer runs are timed, but at least one of each.
    """
    share = max(seconds / (ROUNDS + 2), SHORTEST)
    await run(WARM)
    over = time.perf_counter() + seconds
    short = median(await _some(run, WARM, over - 0.8 * seconds))
    steps, spent = 2 * WARM, await run(2 * WARM)
    while spent < short + share and time.perf_counter() < over:
        each = max(spent - short, share / 20) / (steps - WARM)
        steps = max(2 * steps, min(WARM + round(1.2 * share / each), 20 * steps))
        spent = await run(steps)
    long = median([spent, *await _some(run, steps, over)])
    return (long - short) / (steps - WARM) if long > short else long / steps


async def _some(run: Run, steps: int, over: float) -> list[float]:
    """Time equal runs, starting new ones until a time: at least one, at most ROUNDS."""
    timed = [await run(steps)]
    while len(timed) < ROUNDS and time.perf_counter() < over:
        timed.append(await run(steps))
    return timed


# Limits


def limits(task: Task, device: str, seconds: float, jobs: int = 1) -> Limits:
    """Measure the dense network's limits on a device, per model-step where `jobs` go together.

    On a CPU by one thread, as a worker computes.
    """
    with as_in_a_worker() if device == "cpu" else nullcontext():
        step = _recorded(task, device)
        products = _products_time(step, device, seconds / 2, jobs)
        copies = step.moved / _bandwidth(device, seconds / 2)
    return Limits(products, copies)


@dataclass(frozen=True)
class _Step:
    """The products of one step with their operands, and the bytes that it must move."""

    products: tuple[tuple[Any, tuple[Any, ...]], ...]
    moved: int


def _recorded(task: Task, device: str) -> _Step:
    """Take one dense step and record its matrix products.

    This includes attention's products, and excludes input gradients that are not needed.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    aten = torch.ops.aten
    wanted = (
        aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
        aten.convolution.default, aten.convolution_backward.default,
    )  # fmt: skip
    noted: list[tuple[Any, tuple[Any, ...]]] = []
    outputs: list[int] = []

    class Note(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            made = func(*args, **(kwargs or {}))
            if func in wanted:
                noted.append((func, args))
                outputs.append(made.nbytes if isinstance(made, Tensor) else 0)
            return made

    network, x, y = _one_batch(task, device)
    with Note():  # type: ignore[no-untyped-call]
        with mixed(task, device):
            logits = network(x)
        forward = len(noted)
        loss = plain.loss_of(logits, y, task.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
    held = sum(p.nbytes for p in network.parameters())
    kept = 2 + _states(task)  # weights and gradients, and what the optimiser keeps
    return _Step(tuple(noted), kept * held + x.nbytes + sum(outputs[:forward]))


def _one_batch(task: Task, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the dense network as the plain engine trains it, and inputs and labels of a step."""
    dtype = plain.PRECISIONS[task.recipe.precision]
    depth = task.network.depth
    network = families.load(task.network, depth, families.initial(task.network, depth, 0))
    network = network.to(device, dtype).train()
    if not isinstance(mixed(task, device), nullcontext):
        network = network.to(memory_format=torch.channels_last)
    size = max(task.recipe.batch, 2)
    count = None if task.data.source == "modular-addition" else size
    examples = drawn(task, device, count)
    recipe = task.recipe
    if recipe.batch:
        recipe = recipe.model_copy(update={"batch": recipe.batch_size(len(examples.y))})
    ((x, y),) = fed(examples, recipe, 0, (ORDER,), 0, 1, dtype)
    return network, x, y


def mixed(task: Task, device: str) -> AbstractContextManager[Any]:
    """Return the plain engine's forward context: bfloat16 for images on a GPU."""
    whole = task.recipe.precision != "float32" or task.network.family not in IMAGES
    if not device.startswith("cuda") or whole:
        return nullcontext()
    return torch.autocast("cuda", dtype=torch.bfloat16)


def _states(task: Task) -> int:
    """Return how many tensors of a weight's shape the optimiser keeps."""
    if task.recipe.optimiser == "sgd":
        return 1 if task.recipe.momentum else 0
    return 2


def _products_time(step: _Step, device: str, seconds: float, jobs: int) -> float:
    """Return seconds of one model's products where `jobs` go together, or as many as fit in memory.

    Matrix products of several jobs are batched, as no single one is faster; convolutions are run in
    turn.
    """
    try:
        with torch.no_grad():
            calls = [_alone(func, args, jobs) for func, args in step.products]
            return _timed(calls, device, seconds) / jobs
    except torch.OutOfMemoryError:
        if jobs == 1:
            raise
    return _products_time(step, device, seconds, jobs // 2)


def _alone(func: Any, args: tuple[Any, ...], jobs: int) -> Callable[[], Any]:
    """Return one product of a step, by itself, for this many jobs; biases are left out."""
    aten = torch.ops.aten
    if func is aten.convolution.default:
        image, weight, _, *how = args
        return lambda: [func(image, weight, None, *how) for _ in range(jobs)]
    if func is aten.convolution_backward.default:
        *how, (inputs, weights, _) = args
        return lambda: [func(*how, (inputs, weights, False)) for _ in range(jobs)]
    left, right = (_many(operand, jobs) for operand in args[-2:])
    product = torch.mm if left.ndim == 2 else torch.bmm
    out = product(left, right)
    return lambda: product(left, right, out=out)


def _many(operand: Tensor, jobs: int) -> Tensor:
    """Repeat a matrix, or a batch of them, for each job, keeping its memory layout."""
    operand = operand.detach()
    if jobs == 1:
        return operand
    turned = operand.mT.is_contiguous() and not operand.is_contiguous()
    whole = torch.stack([operand.mT if turned else operand] * jobs).flatten(0, -3)
    return whole.mT if turned else whole


def _timed(calls: Sequence[Callable[[], Any]], device: str, seconds: float) -> float:
    """Return seconds of all calls, one after the other; on a GPU without launch overhead."""

    def run() -> None:
        for call in calls:
            call()

    if device == "cpu":
        return _each(run, lambda: None, seconds)
    with torch.cuda.device(device):
        # Torch requires a warm-up outside the main stream.
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            run()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return _each(graph.replay, torch.cuda.synchronize, seconds)


def _each(run: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> float:
    """Return seconds of one call: the median of rounds that take about `seconds` in all."""

    def spent(count: int) -> float:
        wait()
        began = time.perf_counter()
        for _ in range(count):
            run()
        wait()
        return time.perf_counter() - began

    share, count = max(seconds / (ROUNDS + 2), SHORTEST), 1
    spent(1)
    while (taken := spent(count)) < share / 2:
        count = max(2 * count, min(round(count * share / max(taken, 1e-9)), 10 * count))
    return median(spent(count) for _ in range(ROUNDS)) / count


def _bandwidth(device: str, seconds: float) -> float:
    """Return bytes read and written per second while copying one large tensor to another."""
    kind = device.partition(":")[0]
    source = torch.ones(COPIED[kind], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    wait = torch.cuda.synchronize if kind == "cuda" else lambda: None
    return 2 * source.nbytes / _each(lambda: target.copy_(source), wait, seconds)


class Limiters:
    """Processes that measure limits at the same time, as many as there are workers.

    Cores share caches, memory and sometimes arithmetic units: the limit of two processes is less
    than twice that of one.
    """

    def __init__(self, started: Sequence[subprocess.Popen[str]]) -> None:
        self._started = tuple(started)

    def limits(self, task: Task, seconds: float) -> Limits:
        """Return what one of them reaches while all measure: medians."""
        ask = json.dumps({"task": task.model_dump(mode="json"), "seconds": seconds})
        for process in self._started:
            assert process.stdin
            process.stdin.write(ask + "\n")
            process.stdin.flush()
        told = [Limits(**_reply(process)) for process in self._started]
        return Limits(median(one.products for one in told), median(one.copies for one in told))


def _reply(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise ResourceError(
            f"a process that measured limits ended (exit status {process.wait()}), perhaps for "
            "lack of memory; run the same command again with fewer --workers"
        )
    reply: dict[str, float] = json.loads(line)
    return reply


@contextmanager
def limiters(count: int) -> Iterator[Limiters]:
    """Start processes that measure limits; they end with the block."""
    with ExitStack() as stack:
        yield Limiters([_started(stack) for _ in range(count)])


def _started(stack: ExitStack) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lthbench.tools.bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=worker_environment(),
        text=True,
        start_new_session=True,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def main() -> None:
    """Measure limits for each line that arrives, until there is none."""
    single_threaded()
    for line in sys.stdin:
        ask = json.loads(line)
        found = limits(Task.model_validate(ask["task"]), "cpu", ask["seconds"])
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
