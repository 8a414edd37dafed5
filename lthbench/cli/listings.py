"""Tasks, suites and baselines as text for the terminal; lists of them without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from lthbench.errors import MethodError, nearest
from lthbench.method.source import baseline_names, load_method
from lthbench.protocol.task import (
    Calibration,
    Recipe,
    Task,
    load_suite,
    load_task,
    numbers_of_seeds,
    suite_names,
    task_names,
)

if TYPE_CHECKING:
    from lthbench.tickets.sizes import Sizes


def all_tasks() -> str:
    """Format every task with the suites it is in, then every suite."""
    suites = [load_suite(name) for name in suite_names()]
    rows = [
        (task.name, task.title, f"{task.recipe.steps:,}", len(task.ladder.trained),
         ", ".join(s.name for s in suites if task.name in s.tasks))
        for task in map(load_task, task_names())
    ]  # fmt: skip
    listed = tabulate(rows, ("task", "what", "steps", "rungs", "suites"), disable_numparse=True)
    about = [(s.name, numbers_of_seeds(s), s.title) for s in suites]
    named = tabulate(about, ("suite", "seeds", "what"), disable_numparse=True)
    return f"{listed}\n\n{named}"


def one_task(name: str) -> str:
    """Format one task's protocol, its sizes, and the calibration of its recipe."""
    from lthbench.tickets.sizes import load_sound, sizes_of  # torch: the network lists its tensors

    task = load_sound(name)
    sizes = sizes_of(task)
    rows = [("task", f"{task.name} (version {task.version})"), ("what", task.title)]
    varies = "at least " if task.data.folds or task.data.modulus else ""  # by the seed
    rows += [("data", f"{task.data.source}, {varies}{sizes.examples:,} training examples")]
    rows += [("classes", str(task.data.classes))]
    rows += [("network", f"{task.network.family}, depth {task.network.depth}")]
    rows += [("recipe", _recipe(task)), ("score", _score(task))]
    rows += [("rewind limit", f"step {task.search.rewind_limit}")]
    rows += [("seeds", f"{task.seeds} published")]
    rows += [("budget", f"{task.search.budget:g} dense trainings")]
    rows += [("calibrated", _calibrated(task)), ("reference", _reference(task))]
    rows += [("digest", task.digest)]
    parts = [tabulate(rows, tablefmt="plain", disable_numparse=True), _tensors(sizes)]
    parts += [_ladder("rung", task.ladder.trained, sizes.trained)]
    parts += [_ladder("untrained rung", task.ladder.untrained, sizes.untrained)]
    parts += [_calibration(task.calibration)] if task.calibration else []
    return "\n\n".join(parts)


def _tensors(sizes: Sizes) -> str:
    """Format every prunable tensor with its shape and its share of N."""
    total = sizes.prunable
    rows = [
        (name, " x ".join(map(str, shape)), f"{math.prod(shape):,}", math.prod(shape) / total)
        for name, shape in sizes.shapes.items()
    ]
    rows += [("N", "", f"{total:,}", 1.0)]
    told = [(name, shape, count, f"{share:.2%}") for name, shape, count, share in rows]
    head, align = ("prunable tensor", "shape", "weights", "share"), ("left", *["right"] * 3)
    return tabulate(told, head, disable_numparse=True, colalign=align)


def _ladder(head: str, densities: Sequence[float], counts: Sequence[int]) -> str:
    """Format the exact count of weights that each rung keeps."""
    rows = [(f"{d:.4%}", f"{n:,}") for d, n in zip(densities, counts, strict=True)]
    align = ("right", "right")
    return tabulate(rows, (head, "weights kept"), disable_numparse=True, colalign=align)


def _calibrated(task: Task) -> str:
    if task.calibration is None:
        return "no: with a better recipe dense might not be matched where it is here"
    return f"yes, against {len(task.calibration.variants) - 1} variants: see below"


def _reference(task: Task) -> str:
    from lthbench.records.reference import load_reference

    reference = load_reference(task)
    if reference is None:
        return "none for this protocol; retention needs one"
    word = "provisional" if reference.provisional else "frozen"
    return f"{word}: {len(reference.seeds)} dense seeds ({reference.digest[:8]})"


def _recipe(task: Task) -> str:
    recipe = task.recipe
    batch = str(recipe.batch) if recipe.batch else f"all but {recipe.leave_out:.0%}"
    decay = f", weight decay {recipe.weight_decay:g}" if recipe.weight_decay else ""
    return (
        f"{recipe.optimiser} {recipe.rate:g}{decay}, {_schedule(recipe)}, batch {batch}, "
        f"{recipe.steps:,} steps"
    )


def _schedule(recipe: Recipe) -> str:
    drops = " and ".join(f"{drop:,}" for drop in recipe.drops)
    rate = f"rate a tenth after steps {drops}" if drops else f"{recipe.schedule} rate"
    warm_up = f" after {recipe.warm_up} steps of warm-up" if recipe.warm_up else ""
    return rate + warm_up + (f", {recipe.augment} augmentation" if recipe.augment != "none" else "")


def _score(task: Task) -> str:
    every = f"evaluated every {task.score.every} steps"
    if task.score.kind == "accuracy":
        return f"accuracy at the end; {every}"
    return f"accuracy averaged over log step (area); {every}"


def _calibration(calibration: Calibration) -> str:
    rows = [(v.variant, *(f"{score:g}" for score in v.score)) for v in calibration.variants]
    seeds = max((len(row) for row in rows), default=1) - 1
    head = ("variant", *(f"seed {number + 1}" for number in range(seeds)))
    table = tabulate(rows, head, disable_numparse=True)
    return f"calibration ({calibration.command})\n{table}\n{calibration.reading}"


def all_baselines() -> str:
    """Format every baseline with the first line of its description."""
    methods = [load_method(name) for name in baseline_names()]
    rows = [(m.name, m.summary, m.described.get("paper", "")) for m in methods]
    return tabulate(rows, ("baseline", "idea", "paper"), maxcolwidths=[None, 60, 40])


def one_baseline(name: str) -> str:
    """Return a baseline's source."""
    if name not in baseline_names():
        hint = nearest(name, baseline_names()) or f"; there are {', '.join(baseline_names())}"
        raise MethodError(f"no baseline {name!r}{hint}")
    return load_method(name).source.rstrip("\n")
