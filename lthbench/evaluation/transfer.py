"""Transfers a method's tickets to the task's neighbouring depths and scores them there.

By the method's own `transfer_ticket` or else by the elastic rule; on two rungs, beside random
tickets of the target, and on one of them beside the parts of a transferred ticket. Definitions:
protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lthbench.errors import NotApplicable, TicketError
from lthbench.evaluation import experiment, scoring, starts
from lthbench.evaluation.experiment import Entry, Seen
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.search.transfer_hook import Wanted, folder_of
from lthbench.networks import families
from lthbench.networks.blocks import level
from lthbench.networks.state import State
from lthbench.protocol.task import Ladder, Task
from lthbench.records.transfer_score import PARTS
from lthbench.tickets import controls, elastic, ticket_files
from lthbench.tickets.ticket import Ticket
from lthbench.training.executors.local import Executor

CHEAP = 0.05  # dense trainings: methods that cost less are also run at the target
Handing = Callable[[Task, Search, Sequence[Wanted], Path], Awaitable[None]]
Finding = Callable[[Task, Path], Awaitable[Sequence[Search]]]  # into a folder
Told = Mapping[str, Any]  # what a record says of a ticket


def source(task: Task) -> Task:
    """Return the task at the depth that tickets are transferred from.

    Where that is not its own depth, the two rungs of transfer are its whole ladder.
    """
    assert task.transfer
    return (
        task if task.transfer.source == task.network.depth else at_depth(task, task.transfer.source)
    )


def at_depth(task: Task, depth: int) -> Task:
    """Return the task at another depth, on the rungs of transfer alone."""
    assert task.transfer
    return task.model_copy(
        update={
            "network": task.network.model_copy(update={"depth": depth}),
            "ladder": Ladder(trained=task.transfer.densities, untrained=task.ladder.untrained),
            "score": task.score.model_copy(update={"compressed_density": 0.0}),
        }
    )


def has_depths(task: Task) -> None:
    """Raise TaskError if the network's family does not have the depths of transfer."""
    if task.transfer:
        for depth in (task.transfer.source, *task.transfer.targets):
            level(task.network, depth)


async def carry(
    task: Task,
    searches: Sequence[Search],
    folder: Path,
    finding: Finding,
    executor: Executor,
    seen: Seen,
    *,
    handing: Handing | None = None,
    frozen: Sequence[dict[str, Any]] = (),
    direct: bool = False,
    note: scoring.Note = lambda what, steps, ran: None,
) -> dict[str, Any] | None:
    """Return what a record holds of transfer; None for a task without it.

    Args:
        task: the task of the record.
        searches: at the task's own depth; if tickets are transferred from another, `finding`
            searches.
        folder: OUT/<task>; searches at other depths go to `depth<n>` in it.
        finding: searches at another depth.
        executor: runs the trainings.
        seen: the examples of every seed.
        handing: has the method transfer a seed's tickets by its own rule; None: elastically.
        frozen: cells of the reference at the targets; those are not trained again.
        direct: search at the targets too, whatever the method costs.
        note: called with (what ran, its steps, whether it was trained now) for progress.
    """
    if task.transfer is None:
        return None
    moved = task.transfer
    result: dict[str, Any] = {
        "source": moved.source,
        "targets": list(moved.targets),
        "densities": list(moved.densities),
        "rule": "own" if handing else "elastic",
        "reason": "",
        "sizes": {str(d): experiment.weights_total(at_depth(task, d)) for d in moved.targets},
        "cells": [],
    }
    if experiment.untrained(searches):
        return result | {"reason": "untrained tickets are not carried"}
    try:
        begin, home, searches = await _source(task, searches, folder, finding)
        wanted = _wanted(task, begin, searches, home)
    except (NotApplicable, TicketError) as error:
        return result | {"reason": str(error)[:400]}
    carried, known = await _carried(task, begin, searches, wanted, home, handing)
    entries = [
        entry
        for search in searches
        for depth in moved.targets
        for entry in _random(at_depth(task, depth), search.seed, seen)
    ]
    for (seed, depth, density), (ticket, told) in carried.items():
        target = at_depth(task, depth)
        entries.append(entry_at_depth(target, "carried", density, seed, ticket, told, seen))
        if density == moved.densities[0]:
            entries += part_entries(target, seed, ticket, told, seen)
    if direct or all(search.cost < CHEAP for search in searches):
        for depth in moved.targets:
            target, there = at_depth(task, depth), folder / f"depth{depth}"
            with suppress(NotApplicable):  # then there is no ticket of that depth to compare with
                entries += _direct(target, await finding(target, there), there, seen)
    known += [cell for cell in frozen if any(cell["seed"] == s.seed for s in searches)]

    async def again(entry: Entry) -> Entry | None:
        seed, depth = entry.job.seed, entry.job.depth
        target = at_depth(task, depth)
        if entry.kind not in PARTS:
            return await experiment.drawn_again(target, entry, {}, executor, seen)
        ticket, told = carried[seed, depth, entry.density]
        parts = part_entries(target, seed, ticket, told, seen, entry.attempt + 1)
        return next(part for part in parts if part.kind == entry.kind)

    result["cells"] = await _scored(task, entries, folder, executor, seen, known, again, note)
    return result


async def _source(
    task: Task, searches: Sequence[Search], folder: Path, finding: Finding
) -> tuple[Task, Path, Sequence[Search]]:
    """Return the task at the depth of the source, where its tickets lie, and their searches.

    Raises:
        NotApplicable: If the method cannot search there.
    """
    begin = source(task)
    if begin is task:
        return task, folder, searches
    home = folder / f"depth{begin.network.depth}"
    return begin, home, await finding(begin, home)


async def _carried(
    task: Task,
    begin: Task,
    searches: Sequence[Search],
    wanted: Mapping[int, Sequence[Wanted]],
    home: Path,
    handing: Handing | None,
) -> tuple[dict[tuple[int, int, float], tuple[Ticket, Told]], list[dict[str, Any]]]:
    """Transfer every ticket: those by seed, depth and density, and cells of the missing ones."""
    assert task.transfer
    carried: dict[tuple[int, int, float], tuple[Ticket, Told]] = {}
    missing: list[dict[str, Any]] = []
    for search in searches:
        for depth in task.transfer.targets:
            missing += _not_found(at_depth(task, depth), search)
        if handing:
            await handing(begin, search, wanted[search.seed], home)
        for now in wanted[search.seed]:
            target = at_depth(task, now.depth)
            try:
                carried[search.seed, now.depth, now.density] = (
                    _handed(now, home, search) if handing else carry_elastically(begin, target, now)
                )
            except TicketError as error:
                missing.append(_missing(target, now.density, search.seed, str(error)))
    return carried, missing


async def _scored(
    task: Task,
    entries: Sequence[Entry],
    folder: Path,
    executor: Executor,
    seen: Seen,
    known: Sequence[dict[str, Any]],
    again: Callable[[Entry], Awaitable[Entry | None]],
    note: scoring.Note,
) -> list[dict[str, Any]]:
    """Return the cells of a list of runs beside those that are known, in a fixed order."""
    cells = {(c["seed"], c["depth"], -c["density"], c["kind"]): dict(c) for c in known}
    waiting = [entry for entry in entries if _place(entry) not in cells]
    async for entry, result in scoring.score_until_sound(
        task, waiting, folder, executor, seen, again, note
    ):
        told = {"depth": entry.job.depth, "source": entry.table.get("source", "")}
        cells[_place(entry)] = experiment.cell_of(entry, result) | told
    return [cells[place] for place in sorted(cells)]


def _place(entry: Entry) -> tuple[int, int, float, str]:
    return entry.job.seed, entry.job.depth, -entry.density, entry.kind


def _wanted(
    task: Task, begin: Task, searches: Sequence[Search], home: Path
) -> dict[int, list[Wanted]]:
    """List every rung that was found, for every target, by seed.

    Raises TicketError if the family cannot be transferred there at all.
    """
    assert task.transfer
    moved = task.transfer
    here = level(begin.network, moved.source)
    for depth in moved.targets:
        elastic.block_maps(here, level(task.network, depth))
    return {
        search.seed: [
            Wanted(*_ticket(begin, search.seed, home, density), density, depth)
            for depth in moved.targets
            for density in _found(search, moved.densities)
        ]
        for search in searches
    }


def _not_found(target: Task, search: Search) -> list[dict[str, Any]]:
    """Score rungs that the search did not yield as chance at every target."""
    rungs = target.ladder.trained
    found = _found(search, rungs)
    why = search.reason or "find_tickets did not yield this rung"
    return [_missing(target, d, search.seed, why) for d in rungs if d not in found]


def _missing(target: Task, density: float, seed: int, why: str) -> dict[str, Any]:
    cell = experiment.missing_cell(target, "carried", density, seed, why)
    return cell | {"depth": target.network.depth, "source": ""}


def carry_elastically(begin: Task, target: Task, now: Wanted) -> tuple[Ticket, Told]:
    """Return the ticket at its target by the elastic rule, and what a record says of it."""
    here, there = (level(task.network, task.network.depth) for task in (begin, target))
    maps = elastic.block_maps(here, there)
    moved = elastic.carried(now.ticket, now.start, here, there, now.density, maps)
    return moved, {"origin": "transferred", "start": now.ticket.start, "source": now.origin}


def _handed(now: Wanted, home: Path, search: Search) -> tuple[Ticket, Told]:
    """Return the same from the method's own rule."""
    place = folder_of(home, now.depth, search.seed)
    header, chosen, weights = ticket_files.read_ticket(place, now.density)
    source = now.origin if header["origin"] == "transferred" else ""
    told = {"origin": header["origin"], "start": header["start"], "source": source}
    return Ticket(chosen, header["start"], weights or None), told


def part_entries(
    target: Task, seed: int, ticket: Ticket, told: Told, seen: Seen, attempt: int = 0
) -> list[Entry]:
    """List the parts of a transferred ticket of the first rung."""
    density, depth = target.ladder.trained[0], target.network.depth
    weights = ticket.weights or families.initial(target.network, depth, seed).tensors()
    # The target's own theta_0 has the source's values wherever names and shapes agree.
    start = State(weights, told["start"])
    fresh = starts.another(target, seed, start, ticket.masks, "mask-only", attempt).tensors()
    parts = elastic.parts(replace(ticket, weights=weights), fresh, seed, attempt=attempt)
    own: Told = {"origin": "init", "start": 0}
    return [
        entry_at_depth(
            target,
            kind,
            density,
            seed,
            part,
            told if kind == "weights-only" else own,
            seen,
            attempt,
        )
        for kind, part in parts.items()
    ]


def _found(search: Search, densities: Sequence[float]) -> list[float]:
    rungs = {rung.density for rung in search.rungs}
    return [density for density in densities if density in rungs]


def _ticket(task: Task, seed: int, home: Path, density: float) -> tuple[Ticket, State, str]:
    """Return a stored ticket, the state that it starts from, and its origin."""
    header, chosen, stored = ticket_files.read_ticket(home / "tickets" / f"seed{seed}", density)
    k = header["start"]
    theta = families.initial(task.network, task.network.depth, seed)
    return Ticket(chosen, k), State(stored, k) if stored else theta, header["origin"]


def entry_at_depth(
    target: Task,
    kind: str,
    density: float,
    seed: int,
    ticket: Ticket,
    told: Told,
    seen: Seen,
    attempt: int = 0,
) -> Entry:
    """Build one run at a target depth; a ticket without weights starts from theta_0 there."""
    if ticket.weights is None:
        start = families.initial(target.network, target.network.depth, seed)
    else:
        start = State(ticket.weights, told["start"])
    return experiment.entry_of(
        target, kind, density, seed, start, ticket.masks, seen, told, attempt=attempt
    )


def _random(target: Task, seed: int, seen: Seen) -> list[Entry]:
    """List the `erk` tickets of a target, the same for every method."""
    spec, densities = target.network, target.ladder.trained
    drawn = controls.random_masks(families.shapes(spec, spec.depth), densities, seed, "erk")
    told = {"origin": "init", "start": 0}
    return [
        entry_at_depth(target, "erk", density, seed, Ticket(chosen), told, seen)
        for density, chosen in zip(densities, drawn, strict=True)
    ]


def _direct(target: Task, searches: Sequence[Search], home: Path, seen: Seen) -> list[Entry]:
    """List the method's own tickets of a target, found there."""
    entries = []
    for search in searches:
        for density in _found(search, target.ladder.trained):
            ticket, start, origin = _ticket(target, search.seed, home, density)
            told = {"origin": origin, "start": ticket.start}
            own = replace(ticket, weights=start)
            entries.append(entry_at_depth(target, "direct", density, search.seed, own, told, seen))
    return entries
