"""What a step cannot do without: the time of its matrix products, and of the bytes it must move.

`python -m lthbench.tools.limits` is the process that measures limits alongside others of its kind.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lthbench.errors import ResourceError
from lthbench.evaluation import trainings
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import IMAGES, Task
from lthbench.seeds import generator
from lthbench.training.augment import fed
from lthbench.training.engines import plain
from lthbench.training.executors.environment import environment as worker_environment
from lthbench.training.job import Examples, as_in_a_worker, single_threaded

ROUNDS = 3  # timings of which the median counts
SHORTEST = 1e-3  # seconds of one timing, whatever was requested: the clock's own cost is far below
COPIED = {"cpu": 2**27, "cuda": 2**30}  # bytes: more than a cache holds
NOISE = 2**27  # bytes of random examples at most
EXAMPLES = {"digits": 1_438, "mnist": 60_000, "cifar10": 50_000, "imagenette": 9_469}
ORDER = "bench"


@dataclass(frozen=True)
class Limits:
    """The least time of one model-step: its products alone, its bytes alone; in seconds."""

    products: float
    copies: float

    def shared(self, processes: int) -> Limits:
        """Return limits of a model-step in any of several processes with these limits each."""
        return Limits(self.products / processes, self.copies / processes)


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


def measure(task: Task, device: str, seconds: float, jobs: int = 1) -> Limits:
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
        [sys.executable, "-P", "-m", "lthbench.tools.limits"],
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
        found = measure(Task.model_validate(ask["task"]), "cpu", ask["seconds"])
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
