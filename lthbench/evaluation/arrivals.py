"""Reads free tickets as they arrive, before their training, and detects pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lthbench.evaluation import scoring
from lthbench.evaluation.cells import Seen, entry_of, untrained
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.starts import Given
from lthbench.networks.state import State
from lthbench.protocol.design import Place
from lthbench.protocol.task import Task
from lthbench.records import pretrained
from lthbench.records.aggregate import division
from lthbench.records.pretrained import Kept
from lthbench.records.schema import Arrival, Cell
from lthbench.tickets import ticket_files
from lthbench.training.executors.local import Executor

At = tuple[int, float]  # seed and density


@dataclass(frozen=True)
class Judged:
    """Cells with the origins that follow from how tickets arrive, and what was measured of them."""

    cells: tuple[Cell, ...]
    arrivals: tuple[Arrival, ...] | None  # None without a ticket that has weights of its own


async def read(
    task: Task, tickets: Mapping[At, Given], folder: Path, executor: Executor, seen: Seen
) -> dict[At, int]:
    """Count correct answers on the held-out part before any training.

    As for untrained tickets, running statistics of norms are estimated first: a pretrained network
    must not look untrained for want of them.
    """
    entries = [
        entry_of(task, Place("untrained", density, seed), given, seen)
        for (seed, density), given in tickets.items()
    ]
    right: dict[At, int] = {}
    async for entry, result, _ in scoring.score_cells(task, entries, folder, executor, seen):
        right[entry.job.seed, entry.density] = int(result.correct["held_out"][-1])
    return right


def kept(given: Given) -> Kept:
    """Return a ticket's own weights, as `lthbench.records.pretrained` compares them."""
    return {
        name: (mask.numpy(), given.start[name].detach()[mask].numpy())
        for name, mask in (given.masks or {}).items()
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
    cells: Sequence[Cell],
    folder: Path,
    executor: Executor,
    seen: Seen,
) -> Judged:
    """Mark pretrained tickets and their controls by their origin.

    Args:
        task: the task that was evaluated.
        searches: one per seed.
        cells: of the record.
        folder: of the evaluation of this task.
        executor: runs the evaluations.
        seen: the examples of every seed.

    Returns:
        The cells, and what was measured of every free ticket before its training.
    """
    places = [
        (search.seed, rung.density)
        for search in (() if untrained(searches) else searches)
        for rung in search.rungs
        if rung.origin == "free"
    ]
    if not places:
        return Judged(tuple(cells), None)
    tickets = {at: stored(folder, *at) for at in places}
    right = await read(task, tickets, folder, executor, seen)
    return marked(task.chance, cells, seen.sizes(), right, alike(tickets))


def stored(folder: Path, seed: int, density: float) -> Given:
    """Read a ticket with weights of its own from the folder of an evaluation of its task."""
    held = folder / "tickets" / f"seed{seed}"
    header, chosen, weights = ticket_files.read_ticket(held, density)
    return Given(chosen, State(weights, header["start"]), header["origin"])


def marked(
    chance: float,
    cells: Sequence[Cell],
    sizes: Mapping[str, Mapping[str, int]],
    right: Mapping[At, int],
    likeness: Mapping[At, float | None],
) -> Judged:
    """Mark the cells of tickets that are pretrained by these measurements, and of no others.

    Args:
        chance: accuracy of guessing.
        cells: of all seeds, marked or not.
        sizes: examples of each set, by seed.
        right: as `read` counts them.
        likeness: as `alike` gives it.
    """
    least = pretrained.bar(chance, pretrained.dense_accuracies(cells, sizes))
    arrived = {
        at
        for at, count in right.items()
        if pretrained.why(count / sizes[str(at[0])]["held_out"], likeness[at], least)
    }

    def mark(cell: Cell) -> Cell:
        if pretrained.found(cell.origin) != "free":
            return cell
        origin = pretrained.ORIGIN if (cell.seed, cell.density) in arrived else "free"
        told = {"origin": origin, "division": division(origin, cell.start)}
        return cell.model_copy(update=told)

    measured = [
        Arrival(seed=at[0], density=at[1], right=right[at], alike=likeness[at])
        for at in sorted(right, key=lambda at: (at[0], -at[1]))
    ]
    return Judged(tuple(map(mark, cells)), tuple(measured))
