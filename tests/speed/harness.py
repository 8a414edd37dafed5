"""The harness's training beside a bare loop: `python -m tests.speed.harness`.

Both train the same masked network on the same batches with a fused optimiser, keep pruned weights
and optimiser state at zero, evaluate at the same steps, and end in the same counts. They take turns
in one process. The bare loop finds its batches ready-made. On a machine that does other things too
read processor time, and best the ratio of the least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from lthbench.evaluation import trainings
from lthbench.io.paths import data_folder
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Recipe, Task, load_task
from lthbench.tickets import controls
from lthbench.training.batches import batches
from lthbench.training.engines import plain
from lthbench.training.job import Evaluation, Examples, Job, single_threaded

TASKS = ("lenet300-mnist", "mlp-digits")
TESTED = {"mnist": 10_000, "digits": 360}  # examples of the test split, which a final run counts on
DENSITY = 0.2
ORDER = ("score/data",)
Masks = Mapping[str, Tensor]
Counts = dict[str, list[int]]


@dataclass(frozen=True)
class Case:
    """What both loops are given."""

    task: Task
    recipe: Recipe
    start: State
    masks: Masks
    train: Examples
    sets: Mapping[str, Examples]
    at: tuple[int, ...]
    rows: list[Tensor]
    real: bool


def prepared(name: str, steps: int) -> Case:
    """A task's network, masks and examples; drawn ones where there is no copy of the data."""
    task = load_task(name)
    real = (
        task.data.source == "digits" or datasets.prepared(task, test=False) or bool(data_folder())
    )
    train, held_out = _examples(task) if real else _drawn(task)
    tested = torch.arange(TESTED[task.data.source]) % len(train.y)
    like = Examples(train.x[tested], train.y[tested], train.scale, train.shift)
    recipe = task.recipe.model_copy(update={"steps": steps})
    at = tuple(range(task.score.every, steps + 1, task.score.every)) or (steps,)
    shapes = families.shapes(task.network, task.network.depth)
    (masks,) = controls.random_masks(shapes, [DENSITY], 0, "uniform")
    start = families.initial(task.network, task.network.depth, 0)
    rows = list(batches(recipe, len(train.y), 0, ORDER, 0, steps))
    sets = {"held_out": held_out, "test": like}
    return Case(task, recipe, start, masks, train, sets, at, rows, real)


def _examples(task: Task) -> tuple[Examples, Examples]:
    datasets.prepare(task, download=False, test=False)
    search = datasets.search(task, 0)
    return trainings.examples(task, search.train), trainings.examples(task, search.held_out)


def _drawn(task: Task) -> tuple[Examples, Examples]:
    """Noise of the right shape, which takes as long to learn nothing from."""
    draw = np.random.default_rng(0)

    def some(count: int) -> Examples:
        x = draw.integers(0, 256, (count, task.network.inputs), dtype=np.uint8)
        y = draw.integers(0, task.data.classes, count, dtype=np.uint8)
        return Examples(torch.from_numpy(x), torch.from_numpy(y), task.data.scale, task.data.shift)

    return some(60_000 - task.data.held_out), some(task.data.held_out)


def harness(case: Case, evaluated: bool = True, until: int | None = None) -> Counts:
    """The engine's own loop; until step 0 it only evaluates, once."""
    job = Job(
        case.task.network, case.task.network.depth, case.start, case.masks, case.recipe,
        case.recipe.steps if until is None else until, 0, ORDER,
    )  # fmt: skip
    evaluation = Evaluation({0: case.sets}, case.at) if evaluated else None
    ((_, result),) = plain.run([job], {0: case.train}, evaluation)
    return {name: counts.tolist() for name, counts in result.correct.items()}


def bare(case: Case, evaluated: bool = True) -> Counts:
    """The same without a harness: what a script for this one experiment would hold."""
    spec = case.task.network
    layers = [
        nn.Flatten(), nn.Linear(spec.inputs, spec.width), nn.ReLU(),
        nn.Linear(spec.width, spec.neck), nn.ReLU(), nn.Linear(spec.neck, spec.classes),
    ]  # fmt: skip
    model = nn.Sequential(*layers)
    names = ["hidden.0", "neck", "head"]
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for name, layer in zip(names, linear, strict=True):
            layer.weight.copy_(case.start[f"{name}.weight"])
            layer.bias.copy_(case.start[f"{name}.bias"])
    masks = [case.masks[f"{name}.weight"].float() for name in names]
    weights = [layer.weight for layer in linear]
    rate, steps = case.recipe.rate, case.recipe.steps
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, betas=case.recipe.betas, fused=True)
    x, y, scale, shift = case.train.x, case.train.y, case.train.scale, case.train.shift
    with torch.no_grad():
        torch._foreach_mul_(weights, masks)
    masked: list[Tensor] = []
    due, counts = set(case.at), {name: [] for name in case.sets}
    for step, rows in enumerate(case.rows):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        outputs = model(x[rows].float().mul_(scale).add_(shift))
        loss = F.cross_entropy(outputs, y[rows].long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if not masked:
            moments = [optimiser.state[w][m] for m in ("exp_avg", "exp_avg_sq") for w in weights]
            masked = [*weights, *moments]
        with torch.no_grad():
            torch._foreach_mul_(masked, [*masks, *masks, *masks])
        if evaluated and step + 1 in due:
            with torch.no_grad():
                for name, examples in case.sets.items():
                    counts[name].append(_right(model, examples))
    return counts if evaluated else {}


def _right(model: nn.Module, examples: Examples) -> int:
    right = 0
    for i in range(0, len(examples.y), plain.EVALUATED_TOGETHER):
        part = slice(i, i + plain.EVALUATED_TOGETHER)
        inputs = examples.x[part].float().mul_(examples.scale).add_(examples.shift)
        right += int((model(inputs).argmax(1) == examples.y[part]).sum())
    return right


def timed(run: Callable[[], Counts]) -> tuple[float, float]:
    """Wall and processor time of one run, in ms."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)


def measure(case: Case, repeats: int) -> list[str]:
    """A row of the table: medians, and the ratio of neighbours in time."""
    runs: dict[str, Callable[[], Counts]] = {
        "harness": lambda: harness(case),
        "bare": lambda: bare(case),
        "harness alone": lambda: harness(case, False),
        "bare alone": lambda: bare(case, False),
        "one evaluation": lambda: harness(case, until=0),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name in runs if number % 2 else reversed(runs):
            spent = timed(runs[name])
            if number:  # the first round warms up
                times[name].append(spent)

    def median(name: str, kind: int) -> float:
        return statistics.median(spent[kind] for spent in times[name])

    def least(name: str) -> float:
        return min(spent[1] for spent in times[name])

    def ratio(ours: str, theirs: str, kind: int) -> str:
        pairs = zip(times[ours], times[theirs], strict=True)
        return f"{statistics.median(a[kind] / b[kind] for a, b in pairs):.3f}"

    share = len(case.at) * median("one evaluation", 1) / median("harness", 1)
    return [
        f"{case.task.name}{'' if case.real else ' (noise)'}",
        *(f"{median(n, k) / case.recipe.steps:.3f}" for k in (0, 1) for n in ("harness", "bare")),
        ratio("harness", "bare", 0),
        ratio("harness", "bare", 1),
        ratio("harness alone", "bare alone", 1),
        f"{least('harness') / least('bare'):.3f}",
        f"{share:.1%}",
    ]


def main() -> None:
    """Print the table, and evaluation's share on a line of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.harness", description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--task", action="append", choices=TASKS)
    options = parser.parse_args()
    single_threaded()
    rows = []
    for name in options.task or TASKS:
        case = prepared(name, options.steps)
        if harness(case) != bare(case):
            raise SystemExit(f"{name}: the two loops do not end in the same counts")
        rows.append(measure(case, options.repeats))
    head = (
        "task", "harness\nwall ms/step", "bare\nwall ms/step", "harness\ncpu ms/step",
        "bare\ncpu ms/step", "ratio\nwall", "ratio\ncpu", "ratio cpu\nno evaluation",
        "ratio of\nleast cpu",
    )  # fmt: skip
    print(f"{options.steps} steps, {options.repeats} repeats in turn, torch {torch.__version__}")
    print(tabulate([row[:-1] for row in rows], head, disable_numparse=True))
    for row in rows:
        print(f"{row[0]}: evaluation takes {row[-1]} of the harness's processor time")


if __name__ == "__main__":
    main()
