"""Tasks, suites and baselines as text for the terminal. No torch."""

from __future__ import annotations

from tabulate import tabulate

from lthbench.errors import MethodError, nearest
from lthbench.method import baseline_names, load_method
from lthbench.task import Calibration, Recipe, Task, load_suite, load_task, suite_names, task_names


def all_tasks() -> str:
    """Every task with the suites it is in, then every suite."""
    suites = [load_suite(name) for name in suite_names()]
    rows = [
        (task.name, task.title, f"{task.recipe.steps:,}", len(task.ladder.trained),
         ", ".join(s.name for s in suites if task.name in s.tasks))
        for task in map(load_task, task_names())
    ]  # fmt: skip
    listed = tabulate(rows, ("task", "what", "steps", "rungs", "suites"), disable_numparse=True)
    about = [(s.name, s.seeds, s.title) for s in suites]
    return f"{listed}\n\n{tabulate(about, ('suite', 'seeds', 'what'))}"


def one_task(name: str) -> str:
    """One task's protocol and the calibration that its recipe was frozen with."""
    task = load_task(name)
    rows = [("task", f"{task.name} (version {task.version})"), ("what", task.title)]
    rows += [("data", task.data.source), ("classes", str(task.data.classes))]
    rows += [("network", f"{task.network.family}, depth {task.network.depth}")]
    rows += [("prunable", ", ".join(task.network.prunable))]
    rows += [("recipe", _recipe(task)), ("score", _score(task))]
    rows += [("ladder", _densities(task.ladder.trained))]
    rows += [("untrained", _densities(task.ladder.untrained))]
    rows += [("rewind limit", f"step {task.search.rewind_limit}")]
    rows += [("budget", f"{task.search.budget:g} dense trainings")]
    rows += [("digest", task.digest)]
    text = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return text + (_calibration(task.calibration) if task.calibration else "")


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


def _densities(ladder: tuple[float, ...]) -> str:
    return ", ".join(f"{density:.1%}" for density in ladder)


def _calibration(calibration: Calibration) -> str:
    rows = [(v.variant, *(f"{score:g}" for score in v.score)) for v in calibration.variants]
    seeds = max((len(row) for row in rows), default=1) - 1
    head = ("variant", *(f"seed {number + 1}" for number in range(seeds)))
    table = tabulate(rows, head, disable_numparse=True)
    return f"\n\ncalibration ({calibration.command})\n{table}\n{calibration.reading}"


def all_baselines() -> str:
    """Every baseline with the first line of what it says of itself."""
    methods = [load_method(name) for name in baseline_names()]
    rows = [(m.name, m.summary, m.described.get("paper", "")) for m in methods]
    return tabulate(rows, ("baseline", "idea", "paper"), maxcolwidths=[None, 60, 40])


def one_baseline(name: str) -> str:
    """A baseline's source."""
    if name not in baseline_names():
        hint = nearest(name, baseline_names()) or f"; there are {', '.join(baseline_names())}"
        raise MethodError(f"no baseline {name!r}{hint}")
    return load_method(name).source.rstrip("\n")
