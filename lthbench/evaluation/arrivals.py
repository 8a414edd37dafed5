"""Reads free tickets as they arrive, before their training, and detects pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench.evaluation import experiment, scoring
from lthbench.evaluation.experiment import Seen
from lthbench.evaluation.search.session import Search
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.records import pretrained
from lthbench.records.aggregate import division
from lthbench.records.pretrained import Kept
from lthbench.tickets import ticket_files
from lthbench.training.executors.local import Executor

Given = tuple[State, Mapping[str, Tensor]]  # a ticket's weights and masks
At = tuple[int, float]  # seed and density


async def read(
    task: Task, tickets: Mapping[At, Given], folder: Path, executor: Executor, seen: Seen
) -> dict[At, int]:
    """Count correct answers on the held-out part before any training.

    As for untrained tickets, running statistics of norms are estimated first: a pretrained network
    must not look untrained for want of them.
    """
    entries = [
        experiment.entry_of(task, "untrained", density, seed, start, chosen, seen, until=start.step)
        for (seed, density), (start, chosen) in tickets.items()
    ]
    right: dict[At, int] = {}
    async for entry, result, _ in scoring.score_cells(task, entries, folder, executor, seen):
        right[entry.job.seed, entry.density] = int(result.correct["held_out"][-1])
    return right


def kept(given: Given) -> Kept:
    """Return a ticket's own weights, as `lthbench.records.pretrained` compares them."""
    start, chosen = given
    return {
        name: (mask.numpy(), start[name].detach()[mask].numpy()) for name, mask in chosen.items()
    }


def alike(tickets: Mapping[At, Given]) -> dict[At, float | None]:
    """Return the largest correlation of each ticket's weights with another seed's on its rung."""
    told: dict[At, float | None] = {}
    for rung in {density for _, density in tickets}:
        seeds = {s: kept(given) for (s, density), given in tickets.items() if density == rung}
        told |= {(seed, rung): r for seed, r in pretrained.likeness(seeds).items()}
    return told


async def judged(
    task: Task,
    searches: Sequence[Search],
    cells: Sequence[dict[str, Any]],
    folder: Path,
    executor: Executor,
    seen: Seen,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Mark pretrained tickets and their controls by their origin.

    Args:
        task: the task that was evaluated.
        searches: one per seed.
        cells: of the record.
        folder: of the evaluation of this task.
        executor: runs the evaluations.
        seen: the examples of every seed.

    Returns:
        The cells, and what was measured of every free ticket before its training; None without any.
    """
    places = [
        (search.seed, rung.density)
        for search in (() if experiment.untrained(searches) else searches)
        for rung in search.rungs
        if rung.origin == "free"
    ]
    if not places:
        return list(cells), None
    tickets = {at: stored(folder, *at) for at in places}
    right = await read(task, tickets, folder, executor, seen)
    return marked(task.chance, cells, seen.sizes(), right, alike(tickets))


def stored(folder: Path, seed: int, density: float) -> Given:
    """Read a ticket's own weights and its masks.

    Args:
        folder: of the evaluation of the ticket's task.
        seed: of the search.
        density: of the rung.
    """
    held = folder / "tickets" / f"seed{seed}"
    header, chosen, weights = ticket_files.read_ticket(held, density)
    return State(weights, header["start"]), chosen


def marked(
    chance: float,
    cells: Sequence[dict[str, Any]],
    sizes: Mapping[str, Mapping[str, int]],
    right: Mapping[At, int],
    likeness: Mapping[At, float | None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mark the cells of tickets that are pretrained by these measurements, and of no others.

    Args:
        chance: accuracy of guessing.
        cells: of all seeds, marked or not.
        sizes: examples of each set, by seed.
        right: as `read` counts them.
        likeness: as `alike` gives it.

    Returns:
        The cells, and the measurements as a record holds them.
    """
    dense = pretrained.dense_accuracies({"cells": cells, "sizes": sizes})
    least = pretrained.bar(chance, dense)
    arrived = {
        at
        for at, count in right.items()
        if pretrained.why(count / sizes[str(at[0])]["held_out"], likeness[at], least)
    }
    said = []
    for cell in cells:
        if pretrained.found(cell["origin"]) == "free":
            own = (cell["seed"], cell["density"]) in arrived
            origin = pretrained.ORIGIN if own else "free"
            cell = {**cell, "origin": origin, "division": division(origin, cell["start"])}
        said.append(cell)
    measured = [
        {"seed": at[0], "density": at[1], "right": right[at], "alike": likeness[at]}
        for at in sorted(right, key=lambda at: (at[0], -at[1]))
    ]
    return said, measured
