"""Trains tickets and their controls and counts their correct answers: one list of jobs per task.

The only module that opens the test split. Every run of a seed is trained on the same scoring
stream, so that ticket, controls and dense are paired.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench.evaluation import trainings
from lthbench.evaluation.cells import (
    Entry,
    Seen,
    cell_of,
    draw_again,
    last_of,
    missing_cells,
    planned,
)
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.starts import Thetas
from lthbench.io import messages, store
from lthbench.io.paths import cache
from lthbench.protocol import datasets, test_split
from lthbench.protocol.constants import DRAWS, SHARED
from lthbench.protocol.design import Place, Plan
from lthbench.protocol.task import Task
from lthbench.records.schema import Cell
from lthbench.training.dispatch import HERE, Means, arithmetic
from lthbench.training.executors.local import Executor
from lthbench.training.job import Evaluation, Examples, Job, Result

Note = Callable[[str, float, bool], None]  # what ran, its steps, and whether it was trained now


@dataclass(frozen=True)
class Scored:
    """The cells of a task's record, and the keys of the stored results of those trained here."""

    cells: tuple[Cell, ...]
    keys: Mapping[Place, str]


def see(task: Task, seeds: Sequence[int], plan: Plan, means: Means = HERE) -> Seen:
    """Open the examples that a plan needs; the test split only for a final one."""
    train, sets = {}, {}
    known: dict[str, Examples] = {}  # MNIST is the same for every seed: hold it once

    def one(arrays: datasets.Examples) -> Examples:
        examples = trainings.examples(task, arrays)
        return known.setdefault(examples.digest, examples)

    for seed in seeds:
        search = datasets.search(task, seed)
        train[seed] = one(search.train)
        sets[seed] = {"held_out": one(search.held_out), "train": train[seed]}
        if plan.final:
            sets[seed]["test"] = one(test_split.test_examples(task, seed))
    return Seen(train, sets, means)


async def score(
    task: Task,
    searches: Sequence[Search],
    folder: Path,
    executor: Executor,
    plan: Plan,
    seen: Seen,
    *,
    known: Sequence[Cell] = (),
    note: Note = lambda *_: None,
) -> Scored:
    """Compute every cell of a task's record: tickets, controls, dense runs, compressed schedules.

    Args:
        task: the task to score.
        searches: one per seed.
        folder: of this task's evaluation.
        executor: runs the trainings.
        plan: what is scored.
        seen: the examples of every seed.
        known: cells of the frozen reference; those needed here are not trained again.
        note: called with (what ran, its steps, whether it was trained now) for progress.
    """
    entries = await planned(task, searches, folder, executor, plan, seen)
    wanted = {entry.place for entry in entries}
    cells = {cell.place: cell for cell in known if cell.place in wanted}
    entries = [entry for entry in entries if entry.place not in cells]
    tickets = {(e.density, e.place.seed): e.given for e in entries if e.kind == "ticket"}
    keys: dict[Place, str] = {}
    thetas = Thetas(task, executor, seen.means)

    async def again(entry: Entry) -> Entry | None:
        ticket = tickets.get((entry.density, entry.place.seed))
        return await draw_again(task, entry, ticket, seen, thetas)

    async for entry, result in score_until_sound(
        task, entries, folder, executor, seen, again, note
    ):
        cells[entry.place] = cell_of(entry, result, seen)
        keys[entry.place] = entry.job.key
    cells = {cell.place: cell for cell in missing_cells(task, searches)} | cells
    return Scored(tuple(cells[p] for p in sorted(cells, key=lambda p: p.order)), keys)


async def score_until_sound(
    task: Task,
    entries: Sequence[Entry],
    folder: Path,
    executor: Executor,
    seen: Seen,
    again: Callable[[Entry], Awaitable[Entry | None]],
    note: Note,
) -> AsyncIterator[tuple[Entry, Result]]:
    """Yield results of a list of cells; a failed one is followed by those of its next draws.

    Args:
        task: the task to score.
        entries: the cells.
        folder: of this task's evaluation.
        executor: runs the trainings.
        seen: the examples of every seed.
        again: returns a failed cell's next draw, or None.
        note: called with (what ran, its steps, whether it was trained now) for progress.
    """
    while entries:
        failed = []
        note("planned", sum(e.job.until - e.job.start.step for e in entries), False)
        async for entry, result, ran in score_cells(task, entries, folder, executor, seen):
            note(entry.kind, entry.job.until - entry.job.start.step, ran)
            yield entry, result
            if result.status != "ok" and entry.attempt + 1 < DRAWS:
                failed.append(entry)
        drawn = [(entry, await again(entry)) for entry in failed]
        entries = [replace(anew, failed=entry.draws) for entry, anew in drawn if anew is not None]


async def score_cells(
    task: Task, entries: Sequence[Entry], folder: Path, executor: Executor, seen: Seen
) -> AsyncIterator[tuple[Entry, Result, bool]]:
    """Yield results of a list of cells, and whether each was trained now; stored ones first."""
    waiting: dict[str, list[Entry]] = {}
    for entry in entries:
        stored = _store(entry.kind, folder, seen.means).get(entry.job.key)
        if stored is None:
            waiting.setdefault(entry.job.key, []).append(entry)
        else:
            yield entry, _read(*stored), False
    by_steps: dict[int, list[Job]] = {}
    for waited in waiting.values():
        by_steps.setdefault(waited[0].job.recipe.steps, []).append(waited[0].job)
    for steps in sorted(by_steps, reverse=True):  # longest first: the workers end together
        at = tuple(n * steps // len(task.grid) for n in range(1, len(task.grid) + 1))
        evaluation = Evaluation(seen.sets, at, last_of(task))
        async for key, result in executor.results(by_steps[steps], seen.train, evaluation):
            for entry in waiting[key]:
                _write(_store(entry.kind, folder, seen.means), key, result)
                yield entry, result, entry is waiting[key][0]


def _store(kind: str, folder: Path, means: Means) -> store.Store:
    shared = cache() / "cells" / arithmetic(means)
    return store.Store(shared if kind in SHARED else folder / "cells")


def _write(place: store.Store, key: str, result: Result) -> None:
    names = ("status", "reason", "seconds", "distance")
    header = {name: getattr(result, name) for name in names}
    answered = {part: p for part, p in result.predictions.items() if part == "test"}
    tensors = messages.prefixed("correct", result.correct) | messages.prefixed(
        "predictions", answered
    )
    place.put(key, header, tensors)


def _read(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Result:
    correct = messages.under("correct", tensors)
    facts = {name: header[name] for name in ("status", "reason", "seconds", "distance")}
    return Result(None, correct, **facts)
