"""A task's protocol as shown on its page, read from the harness's TOML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.io.paths import shipped
from lthbench.protocol.task import Suite, Task, load_suite, load_task, suite_names, task_names
from lthbench.report.formats import number, percent
from lthbench.report.table import Table

TITLES = {
    "data": "Data", "network": "Network", "recipe": "Training recipe", "score": "What is scored",
    "ladder": "Ladders", "search": "What a search may spend", "transfer": "Transfer",
}  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """The content of a page about a task.

    Attributes:
        sections: By title, names and values of one table of the file.
        suites: Suites that include the task.
        ranked: Whether one of them is ranked; otherwise the task is on no board.
        area: Whether a run's score is its accuracy averaged over log step.
    """

    name: str
    version: int
    title: str
    digest: str
    summary: tuple[tuple[str, str], ...]
    sections: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    calibration: Table | None
    reading: str
    source: str
    suites: tuple[str, ...]
    ranked: bool
    area: bool


def protocols() -> dict[str, Protocol]:
    """Return every task shipped with the package, by name."""
    suites = [load_suite(name) for name in suite_names()]
    return {
        name: _protocol(load_task(name), [s for s in suites if name in s.tasks])
        for name in task_names()
    }


def _protocol(task: Task, suites: Sequence[Suite]) -> Protocol:
    table = task.canonical()
    calibration = task.calibration
    return Protocol(
        name=task.name,
        version=task.version,
        title=task.title,
        digest=task.digest,
        summary=_summary(task),
        sections=tuple(
            (title, tuple(_facts(table[name]))) for name, title in TITLES.items() if name in table
        ),
        calibration=_calibration(task) if calibration else None,
        reading=calibration.reading if calibration else "",
        source=(shipped("tasks") / f"{task.name}.toml").read_text("utf-8"),
        suites=tuple(suite.name for suite in suites),
        ranked=any(suite.ranked for suite in suites),
        area=task.score.kind == "area",
    )


def _summary(task: Task) -> tuple[tuple[str, str], ...]:
    recipe = task.recipe
    batch = f"batch {recipe.batch}" if recipe.batch else "all examples a step"
    scored = (
        "test accuracy at the end"
        if task.score.kind == "accuracy"
        else "test accuracy averaged over log step (area)"
    )
    return (
        ("What", task.title),
        ("Recipe", f"{recipe.optimiser} {recipe.rate:g}, {recipe.schedule} rate, {batch}"),
        ("T", f"{recipe.steps:,} steps"),
        ("Score", scored),
        ("Published seeds", str(task.seeds)),
        ("Densities, %", ", ".join(percent(d) for d in task.ladder.trained)),
        ("Budget", f"{task.search.budget:g} dense trainings a seed"),
        ("Rewinding", f"to step {task.search.rewind_limit} at most"),
    )


def _facts(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        place = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _facts(value, f"{place}.")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            for row in value:
                yield place, "; ".join(f"{key}: {_said(item)}" for key, item in row.items())
        else:
            yield place, _said(value)


def _said(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _calibration(task: Task) -> Table:
    assert task.calibration is not None
    variants = task.calibration.variants
    seeds = max((len(v.score) for v in variants), default=0)
    rows = tuple(
        (v.variant, *(number(100 * score, 2) for score in v.score), *[""] * (seeds - len(v.score)))
        for v in variants
    )
    head = ("variant", *(f"seed {i + 1}" for i in range(seeds)))
    caption = f"Recipes that were tried, held-out accuracy, %: {task.calibration.command}"
    return Table(caption, head, rows)
