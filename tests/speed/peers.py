"""The engines beside two loops of others, side by side in one run: `python -m tests.speed.peers`.

`dataloader_loop` is training as peers write it, OpenLTH for one: a Dataset of pictures, transforms,
a DataLoader with two workers, an optimiser as torch makes it by default, masks multiplied in after
every step, evaluations through a DataLoader too. `bare_loop` is a tensor loop without a harness:
data on the device, rows and crops drawn ahead, a fused optimiser. All train the same masked network
by the same recipe and count correct answers on as many examples, at the same steps; plain engine
and bare loop end in the same counts, and on a CPU that is checked before anything is timed.

Peers' pictures are decoded, and their workers started, before the clock is; engines' set-up counts.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lthbench.evaluation import trainings
from lthbench.io.paths import data_folder
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Recipe, Task, load_task, matching
from lthbench.tools import bench, limits
from lthbench.training import dispatch
from lthbench.training.augment import move, tables
from lthbench.training.batches import batches
from lthbench.training.engines import plain
from lthbench.training.job import Evaluation, Examples, Job, as_in_a_worker

TASKS = ("lenet300-mnist", "mlp-digits")
TESTED = {"digits": 360, "mnist": 10_000, "cifar10": 10_000, "imagenette": 3_925}  # test examples
PICTURES = ("mnist", "cifar10", "imagenette")
LOADERS = 2  # processes of a DataLoader
EVALUATED = 1000  # examples in a peer's batch of an evaluation
PAD = 4  # pixels that a crop may reach beyond a picture
DENSITY = 0.2
STACKED = {"cpu": 8, "cuda": 15}  # jobs that the stacked engine is given
SEED = 0
Sets = Mapping[str, Examples]


@dataclass(frozen=True)
class Timed:
    """What a loop took, the counts of correct answers at each evaluation, and where it ended."""

    seconds: float
    correct: dict[str, list[int]]
    state: dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """What all loops are given; `real` tells examples from noise."""

    task: Task
    job: Job
    train: Examples
    sets: Sets
    real: bool


def evaluated(task: Task, steps: int) -> tuple[int, ...]:
    """The steps at which correct answers are counted: as often as the task says, or at the end."""
    return tuple(range(task.score.every, steps + 1, task.score.every)) or (steps,)


# As peers write it


class Pictures(Dataset[tuple[Any, int]]):
    """Decoded pictures in memory, transformed one at a time when they are asked for."""

    def __init__(self, examples: Examples, side: int, transform: Callable[[Any], Any]) -> None:
        from PIL import Image

        x = examples.x.cpu().numpy()
        if examples.x[0].numel() == side**2:  # grey
            x = x.reshape(-1, side, side)
        self.pictures = [Image.fromarray(image) for image in x]
        self.labels = [int(label) for label in examples.y.tolist()]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.transform(self.pictures[row]), self.labels[row]


def dataloader_loop(
    task: Task,
    job: Job,
    examples: Examples,
    sets: Sets,
    device: str,
    steps: int,
    *,
    mixed: bool = False,
) -> Timed:
    """Train as peers write it; draws its own order, crops and flips from torch's generator.

    Args:
        mixed: forward passes of images in bfloat16 on a GPU, as the engines have it: peers do not.
    """
    loaders = {name: _loader(task, some, device) for name, some in sets.items()}
    batched = _loader(task, examples, device, job.recipe)
    model = families.load(job.network, job.depth, job.start).to(device).train()
    masks = {name: mask.to(device) for name, mask in (job.masks or {}).items()}
    masked = [(p, masks[name]) for name, p in model.named_parameters() if name in masks]
    optimiser = _by_hand(model, job.recipe)
    criterion = nn.CrossEntropyLoss(label_smoothing=job.recipe.label_smoothing)
    cast = _cast(task, device, mixed)
    for parameter, mask in masked:
        parameter.data.mul_(mask)
    due = set(evaluated(task, steps))
    correct: dict[str, list[int]] = {name: [] for name in sets}
    feed = _endless(batched)
    batch = next(feed)  # the workers are awake
    for loader in loaders.values():
        iter(loader)
    began = _clock(device)
    for step in range(1, steps + 1):
        x, y = (part.to(device, non_blocking=True) for part in batch)
        for group in optimiser.param_groups:
            group["lr"] = plain.rate(job.recipe, step)
        optimiser.zero_grad()
        with cast():
            outputs = model(x)
        loss = criterion(outputs.float(), y)
        loss.backward()
        optimiser.step()
        for parameter, mask in masked:
            parameter.data.mul_(mask)
        if step in due:
            for name, loader in loaders.items():
                correct[name].append(_right(model, loader, device, cast))
        if step < steps:
            batch = next(feed)
    seconds = _clock(device) - began
    return Timed(seconds, correct, _state(model))


def _loader(
    task: Task, examples: Examples, device: str, recipe: Recipe | None = None
) -> DataLoader[Any]:
    """Batches by two worker processes: shuffled and augmented by a recipe, or in order to test."""
    if recipe is None:
        how: dict[str, Any] = {"batch_size": EVALUATED}
    else:
        size = recipe.batch_size(len(examples.y))
        how = {"batch_size": size, "shuffle": True, "drop_last": True}
    return DataLoader(
        _dataset(task, examples, recipe), num_workers=LOADERS, persistent_workers=True,
        pin_memory=device.startswith("cuda"), **how,
    )  # fmt: skip


def _dataset(task: Task, examples: Examples, recipe: Recipe | None) -> Dataset[Any]:
    if task.data.source not in PICTURES:
        whole = examples.to("cpu")
        everything = slice(None)
        return TensorDataset(whole.inputs(everything), whole.labels(everything))
    from torchvision import transforms

    side = task.network.side or math.isqrt(task.network.inputs)
    moved = recipe is not None and recipe.augment == "crop-flip"
    crops = [transforms.RandomCrop(side, padding=PAD), transforms.RandomHorizontalFlip()]
    # A byte b is seen as b * scale + shift; ToTensor has made it b / 255.
    scale, shift = (np.atleast_1d(v) for v in (examples.scale, examples.shift))
    deviation = 1 / (255 * scale)
    normal = transforms.Normalize((-shift * deviation).tolist(), deviation.tolist())
    steps = [*(crops if moved else []), transforms.ToTensor(), normal]
    return Pictures(examples, side, transforms.Compose(steps))


def _by_hand(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser with torch's own defaults."""
    decayed = set(matching(tuple(n for n, _ in model.named_parameters()), recipe.decayed))
    named = dict(model.named_parameters())
    groups = [
        {"params": [named[n] for n in named if n in decayed], "weight_decay": recipe.weight_decay},
        {"params": [named[n] for n in named if n not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum)
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.rate, betas=recipe.betas)


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _right(model: nn.Module, loader: DataLoader[Any], device: str, cast: Callable[[], Any]) -> int:
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in loader:
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            with cast():
                outputs = model(x)
            right += int((outputs.argmax(1) == y).sum())
    model.train()
    return right


# A tensor loop


def bare_loop(
    task: Task, job: Job, examples: Examples, sets: Sets, device: str, steps: int
) -> Timed:
    """Train without a loader or a harness, on the very rows, crops and flips of the engines."""
    recipe, dtype = job.recipe, plain.PRECISIONS[job.recipe.precision]
    there = examples.to(device)
    counted = {name: some.to(device) for name, some in sets.items()}
    drawn = recipe, len(examples.y), job.seed, job.order, 0, steps
    rows = [some.to(device) for some in batches(*drawn)]
    moves = [some.to(device) for some in tables(*drawn)] if recipe.augment != "none" else []
    model = families.load(job.network, job.depth, job.start).to(device, dtype).train()
    cast = _cast(task, device, True)
    if cast is not nullcontext:
        model = model.to(memory_format=torch.channels_last)
    named = dict(model.named_parameters())
    decayed = matching(tuple(named), recipe.decayed)
    groups = [
        {"params": [named[n] for n in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
    ]
    optimiser = plain.optimiser_of([g for g in groups if g["params"]], recipe)
    masks = {named[name]: mask.to(device, dtype) for name, mask in (job.masks or {}).items()}
    zeroed: list[Tensor] = list(masks)
    by = list(masks.values())
    due = set(evaluated(task, steps))
    correct: dict[str, list[int]] = {name: [] for name in sets}
    began = _clock(device)
    _multiply(zeroed, by)
    for step, chosen in enumerate(rows, start=1):
        for group in optimiser.param_groups:
            group["lr"] = plain.rate(recipe, step)
        if moves:
            x = there.seen(move(there.x[chosen], moves[step - 1]), dtype)
        else:
            x = there.inputs(chosen, dtype)
        with cast():
            outputs = model(x)
        loss = F.cross_entropy(
            outputs if outputs.dtype == torch.float64 else outputs.float(),
            there.y[chosen].long(), label_smoothing=recipe.label_smoothing,
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step == 1:  # from now on there are moments
            for weight, mask in masks.items():
                moments = [t for t in optimiser.state[weight].values() if _like(t, weight)]
                zeroed, by = [*zeroed, *moments], [*by, *[mask] * len(moments)]
        _multiply(zeroed, by)
        if step in due:
            for name, some in counted.items():
                correct[name].append(_answered(model, some, dtype, cast))
    seconds = _clock(device) - began
    return Timed(seconds, correct, _state(model))


def _like(value: Any, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape


@torch.no_grad()
def _multiply(tensors: list[Tensor], masks: list[Tensor]) -> None:
    if tensors:
        torch._foreach_mul_(tensors, masks)


@torch.no_grad()
def _answered(
    model: nn.Module, examples: Examples, dtype: torch.dtype, cast: Callable[[], Any]
) -> int:
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=examples.x.device)
    size = plain.EVALUATED_TOGETHER
    if examples.x.ndim == 4:
        size = min(size, max(1, plain.PIXELS_TOGETHER // examples.x.shape[1] ** 2))
    for i in range(0, len(examples.y), size):
        part = slice(i, i + size)
        with cast():
            outputs = model(examples.inputs(part, dtype))
        right += (outputs.argmax(1) == examples.y[part]).sum()
    model.train()
    return int(right)


def _cast(task: Task, device: str, mixed: bool) -> Callable[[], AbstractContextManager[Any]]:
    if not mixed or isinstance(limits.mixed(task, device), nullcontext):
        return nullcontext
    return lambda: limits.mixed(task, device)


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


# Ours


def engine_loop(case: Case, engine: str, device: str, steps: int, jobs: int) -> Timed:
    """So many trainings by an engine, each in an order of its own; counts of the first."""
    some = [
        replace(case.job, engine=engine, until=steps, key=str(n), order=(*case.job.order, str(n)))
        for n in range(jobs)
    ]
    if jobs == 1:
        some = [replace(case.job, engine=engine, until=steps, key="0")]
    evaluation = Evaluation({SEED: case.sets}, evaluated(case.task, steps))
    began = _clock(device)
    with as_in_a_worker() if device == "cpu" else nullcontext():
        results = dict(dispatch.run(some, {SEED: case.train}, evaluation))
    seconds = _clock(device) - began
    first = results["0"]
    if first.state is None:
        raise SystemExit(f"{case.task.name}: {engine} {first.status}: {first.reason}")
    correct = {name: counts.tolist() for name, counts in first.correct.items()}
    return Timed(seconds, correct, dict(first.state))


# What they are given


def prepared(task: Task, device: str, steps: int, density: float = DENSITY) -> Case:
    """A task's masked network and examples on a device; drawn ones where there is no copy."""
    (job,) = bench.jobs_of(task, "plain", density, 1)
    recipe = task.recipe.lasting(steps)
    source = task.data.source
    free = source in ("digits", "modular-addition")
    real = free or datasets.prepared(task, test=False) or bool(data_folder())
    train, held_out = _examples(task) if real else _noise(task)
    tested = torch.arange(TESTED.get(source, len(held_out.y))) % len(train.y)
    sets = {"held_out": held_out, "test": replace(train, x=train.x[tested], y=train.y[tested])}
    sets = {part: some.to(device) for part, some in sets.items()}
    return Case(task, replace(job, recipe=recipe, until=steps), train.to(device), sets, real)


def _examples(task: Task) -> tuple[Examples, Examples]:
    datasets.prepare(task, download=False, test=False)
    search = datasets.search(task, SEED)
    return trainings.examples(task, search.train), trainings.examples(task, search.held_out)


def _noise(task: Task) -> tuple[Examples, Examples]:
    return limits.drawn(task), limits.drawn(task, count=task.data.held_out)


# Side by side


@dataclass(frozen=True)
class Row:
    """One loop on one task: model-steps a second, and in units of the DataLoader loop's."""

    task: str
    real: bool
    loop: str
    jobs: int
    rate: float
    ratio: float


def measure(case: Case, device: str, options: argparse.Namespace) -> list[Row]:
    """Every engine and both peers in turn; the first round warms up, medians of the others."""
    steps, kind = options.steps, device.partition(":")[0]
    given = case.task, case.job, case.train, case.sets, device, steps
    group = options.jobs or STACKED[kind]
    runs: dict[str, tuple[int, Callable[[], Timed]]] = {}
    for engine in dispatch.engines(dispatch.Means(device), case.task.network):
        for jobs in (1, group) if engine == "stacked" else (1,):
            name = f"engine {engine}, {jobs} job{'s' * (jobs != 1)}"
            runs[name] = jobs, partial(engine_loop, case, engine, device, steps, jobs)
    runs["bare loop"] = 1, lambda: _single(lambda: bare_loop(*given), kind)
    runs["DataLoader loop"] = 1, lambda: dataloader_loop(*given, mixed=options.mixed)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.repeats + 1):
        for name in runs if number % 2 else reversed(runs):
            seconds = runs[name][1]().seconds
            if number:
                spent[name].append(seconds)
    rates = {n: runs[n][0] * steps / statistics.median(times) for n, times in spent.items()}
    peer = rates["DataLoader loop"]
    return [
        Row(case.task.name, case.real, name, runs[name][0], rate, rate / peer)
        for name, rate in rates.items()
    ]


def _single(run: Callable[[], Timed], kind: str) -> Timed:
    """On one thread, as the engines: a small network has nothing for a second one to do."""
    with as_in_a_worker() if kind == "cpu" else nullcontext():
        return run()


def agree(case: Case, device: str, steps: int) -> None:
    """The bare loop and the plain engine end in the same counts, or nothing is compared."""
    with as_in_a_worker():
        bare = bare_loop(case.task, case.job, case.train, case.sets, device, steps).correct
    if engine_loop(case, "plain", device, steps, 1).correct != bare:
        raise SystemExit(f"{case.task.name}: bare loop and plain engine end in different counts")


def text(rows: Sequence[Row], device: str, options: argparse.Namespace) -> str:
    """The table, with what qualifies it."""
    head = "task", "loop", "jobs", "model-steps/s", "ratio to the\nDataLoader loop"
    lines = [
        (
            r.task + ("" if r.real else " (noise)"),
            r.loop,
            r.jobs,
            f"{r.rate:,.0f}",
            f"{r.ratio:.2f}",
        )
        for r in rows
    ]
    align = ("left", "left", "right", "right", "right")
    grid = tabulate(lines, head, disable_numparse=True, colalign=align)
    where = bench.name_of(device)
    peers = "bfloat16 as ours" if options.mixed else "float32"
    return (
        f"{where}, torch {torch.__version__}; {options.steps} steps, {options.repeats} repeats in "
        f"turn\n\n{grid}\n\nDataLoader loop: {LOADERS} loading processes, "
        f"{torch.get_num_threads()} threads, {peers}; engines and bare loop on a CPU: one thread"
    )


def main() -> None:
    """Print the table or its JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.peers", description=__doc__)
    parser.add_argument("--task", action="append", help=f"may be repeated [{', '.join(TASKS)}]")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="of the stacked engine")
    parser.add_argument("--mixed", action="store_true", help="peers too in bfloat16 on a GPU")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bench.check_device(options.device)
    rows = []
    for name in options.task or TASKS:
        case = prepared(load_task(name), options.device, options.steps)
        if options.device == "cpu":
            agree(case, options.device, options.steps)
        rows += measure(case, options.device, options)
    if not options.json:
        print(text(rows, options.device, options))
        return
    about = {
        "device": options.device, "name": bench.name_of(options.device),
        "torch": str(torch.__version__), "threads": torch.get_num_threads(),
        "python": platform.python_version(), "steps": options.steps, "repeats": options.repeats,
    }  # fmt: skip
    print(json.dumps({**about, "rows": [vars(row) for row in rows]}))


if __name__ == "__main__":
    main()
