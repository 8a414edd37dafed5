"""Transfers a method's tickets to the task's neighbouring depths and scores them there.

By the method's own `transfer_ticket` or else by the elastic rule; on two rungs, beside random
tickets of the target, and on one of them beside the parts of a transferred ticket. Definitions:
protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lthbench.errors import NotApplicable, TicketError
from lthbench.evaluation import cells, scoring, starts
from lthbench.evaluation.cells import (
    Entry,
    Seen,
    carried_of,
    draw_again,
    entry_of,
    given_in,
    read_given,
)
from lthbench.evaluation.scoring import Note
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.search.transfer_hook import Wanted, folder_of
from lthbench.evaluation.starts import Given, Thetas
from lthbench.networks.blocks import level
from lthbench.networks.state import State
from lthbench.protocol import design
from lthbench.protocol.constants import CARRIED, CHEAP, PARTS
from lthbench.protocol.design import Place, TargetPlace, at_depth
from lthbench.protocol.task import Task
from lthbench.records.schema import Carried, TransferEntry
from lthbench.tickets import elastic
from lthbench.tickets.ticket import Ticket
from lthbench.training.executors.local import Executor

# The method's own rule: has it transfer these tickets of the source's task, into a folder.
OwnRule = Callable[[Task, Search, Sequence[Wanted], Path], Awaitable[None]]
Find = Callable[[Task, Path], Awaitable[Sequence[Search]]]  # into a folder
At = tuple[int, float]  # depth and density of a ticket at a target


@dataclass(frozen=True)
class AtDepths:
    """How a method is run at other depths than the task's own.

    Attributes:
        find: searches there.
        own_rule: has it transfer a seed's tickets by its own rule; None: elastically.
        direct: search at the targets too, whatever the method costs.
    """

    find: Find
    own_rule: OwnRule | None = None
    direct: bool = False


@dataclass(frozen=True)
class Transferred:
    """What a record holds of transfer, and the keys of the stored results of its cells."""

    entry: TransferEntry
    keys: Mapping[TargetPlace, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """The searches whose tickets are transferred, the task at their depth, and their folder."""

    task: Task
    folder: Path
    searches: Sequence[Search]


@dataclass
class _Tickets:
    """One seed's tickets at the targets; those that did not arrive, with their reasons."""

    carried: dict[At, Given] = field(default_factory=dict)
    direct: dict[At, Given] = field(default_factory=dict)
    missing: dict[At, str] = field(default_factory=dict)


def has_depths(task: Task) -> None:
    """Raise TaskError if the network's family does not have the depths of transfer."""
    if task.transfer:
        for depth in (task.transfer.source, *task.transfer.targets):
            level(task.network, depth)


async def transfer(
    task: Task,
    searches: Sequence[Search],
    folder: Path,
    method: AtDepths,
    executor: Executor,
    seen: Seen,
    *,
    known: Sequence[Carried] = (),
    note: Note = lambda *_: None,
) -> Transferred | None:
    """Return what a record holds of transfer; None for a task without it.

    Args:
        task: the task of the record.
        searches: at the task's own depth; tickets may be transferred from another.
        folder: OUT/<task>; searches at other depths go to `depth<n>` in it.
        method: what is run at other depths.
        executor: runs the trainings.
        seen: the examples of every seed.
        known: cells of the reference at the targets; those are not trained again.
        note: called with (what ran, its steps, whether it was trained now) for progress.
    """
    if task.transfer is None:
        return None
    moved = task.transfer
    head = TransferEntry(
        source=moved.source,
        targets=moved.targets,
        densities=moved.densities,
        rule="own" if method.own_rule else "elastic",
        reason="",
        sizes={str(depth): cells.weights_total(at_depth(task, depth)) for depth in moved.targets},
        cells=(),
    )
    if cells.untrained(searches):
        return Transferred(head.model_copy(update={"reason": "untrained tickets are not carried"}))
    try:
        source = await _source(task, searches, folder, method.find)
        tickets = await _transferred(task, source, method.own_rule)
    except (NotApplicable, TicketError) as error:
        return Transferred(head.model_copy(update={"reason": str(error)[:400]}))
    if method.direct or all(search.cost < CHEAP for search in source.searches):
        await _add_direct(task, tickets, folder, method.find)
    mine = [cell for cell in known if cell.seed in tickets]
    return await _score(task, head, tickets, mine, folder, executor, seen, note)


async def _source(task: Task, searches: Sequence[Search], folder: Path, find: Find) -> _Source:
    """Return the searches whose tickets are transferred.

    Raises:
        NotApplicable: If the method cannot search at their depth.
    """
    begin = design.source(task)
    if begin is task:
        return _Source(task, folder, searches)
    home = folder / f"depth{begin.network.depth}"
    return _Source(begin, home, await find(begin, home))


async def _transferred(
    task: Task, source: _Source, own_rule: OwnRule | None
) -> dict[int, _Tickets]:
    """Transfer every ticket, by seed.

    Raises:
        TicketError: If the family cannot be transferred there at all.
    """
    assert task.transfer
    here = level(source.task.network, task.transfer.source)
    for depth in task.transfer.targets:
        elastic.block_maps(here, level(task.network, depth))
    found: dict[int, _Tickets] = {}
    for search in source.searches:
        tickets = found[search.seed] = _Tickets()
        wanted = _wanted(task, source, search)
        arrived = {(now.depth, now.density) for now in wanted}
        tickets.missing = {
            at: cells.why_missing(search)
            for at in design.target_rungs(task.transfer)
            if at not in arrived
        }
        if own_rule:
            await own_rule(source.task, search, wanted, source.folder)
        for now in wanted:
            at, target = (now.depth, now.density), at_depth(task, now.depth)
            try:
                tickets.carried[at] = (
                    _by_own_rule(target, now, source.folder, search.seed)
                    if own_rule
                    else transfer_elastically(source.task, target, now)
                )
            except TicketError as error:
                tickets.missing[at] = str(error)
    return found


def _wanted(task: Task, source: _Source, search: Search) -> list[Wanted]:
    """List every rung that a search found, for every target."""
    assert task.transfer
    wanted = []
    for depth, density in design.target_rungs(task.transfer):
        if density in cells.densities(search):
            given = read_given(source.task, source.folder, search.seed, density)
            ticket = Ticket(given.masks or {}, given.start.step)
            wanted.append(Wanted(ticket, given.start, given.origin, density, depth))
    return wanted


def transfer_elastically(begin: Task, target: Task, now: Wanted) -> Given:
    """Return the ticket at its target by the elastic rule."""
    here, there = (level(task.network, task.network.depth) for task in (begin, target))
    maps = elastic.block_maps(here, there)
    moved = elastic.carried(now.ticket, now.start, here, there, now.density, maps)
    assert moved.weights is not None
    return Given(moved.masks, State(moved.weights, now.ticket.start), "transferred", now.origin)


def _by_own_rule(target: Task, now: Wanted, home: Path, seed: int) -> Given:
    """Return the same from the method's own rule; without weights it starts from theta_0 there."""
    given = given_in(folder_of(home, now.depth, seed), target, seed, now.density)
    return replace(given, source=now.origin if given.origin == "transferred" else "")


async def _add_direct(
    task: Task, tickets: Mapping[int, _Tickets], folder: Path, find: Find
) -> None:
    """Add the method's own tickets of each target, found there."""
    assert task.transfer
    for depth in task.transfer.targets:
        target, there = at_depth(task, depth), folder / f"depth{depth}"
        with suppress(NotApplicable):  # then there is no ticket of that depth to compare with
            for search in await find(target, there):
                for density in cells.densities(search):
                    given = read_given(target, there, search.seed, density)
                    tickets[search.seed].direct[depth, density] = given


async def _score(
    task: Task,
    head: TransferEntry,
    tickets: Mapping[int, _Tickets],
    known: Sequence[Carried],
    folder: Path,
    executor: Executor,
    seen: Seen,
    note: Note,
) -> Transferred:
    """Add the cells at other depths beside those that are known, in a record's order."""
    assert task.transfer
    scored = {cell.place: cell for cell in known}
    keys: dict[TargetPlace, str] = {}
    entries = []
    for seed, mine in tickets.items():
        for place in design.target_cells(task.transfer, seed, mine.carried, mine.direct):
            target, at = at_depth(task, place.depth), (place.depth, place.density)
            if place.kind == CARRIED and at in mine.missing:
                scored[place] = _missing(target, place, mine.missing[at])
            elif place not in scored:
                entries.append(await _entry(target, place, mine, seen, executor))

    async def again(entry: Entry) -> Entry | None:
        target, place = at_depth(task, entry.job.depth), place_of(entry)
        if entry.kind in PARTS:
            return part_of(target, place, tickets[place.seed].carried[place[1:3]], seen,
                           entry.attempt + 1)  # fmt: skip
        return await draw_again(target, entry, None, seen, Thetas(target, executor, seen.means))

    async for entry, result in scoring.score_until_sound(
        task, entries, folder, executor, seen, again, note
    ):
        scored[place_of(entry)] = carried_of(entry, result, seen)
        keys[place_of(entry)] = entry.job.key
    ordered = tuple(scored[place] for place in sorted(scored, key=lambda place: place.order))
    return Transferred(head.model_copy(update={"cells": ordered}), keys)


def place_of(entry: Entry) -> TargetPlace:
    """Return the place of a run at another depth."""
    return TargetPlace(entry.kind, entry.job.depth, entry.density, entry.place.seed)


async def _entry(
    target: Task, place: TargetPlace, tickets: _Tickets, seen: Seen, executor: Executor
) -> Entry:
    """Build one run at a target depth."""
    at, here = (place.depth, place.density), Place(place.kind, place.density, place.seed)
    if place.kind in PARTS:
        return part_of(target, place, tickets.carried[at], seen)
    known = {CARRIED: tickets.carried, "direct": tickets.direct}
    if place.kind in known:
        return entry_of(target, here, known[place.kind][at], seen)
    entry = await cells.build(target, here, None, seen, Thetas(target, executor, seen.means))
    assert entry is not None
    return entry


def part_of(target: Task, place: TargetPlace, ticket: Given, seen: Seen, attempt: int = 0) -> Entry:
    """Build the run of one part of a transferred ticket of the first rung."""
    kind, seed = place.kind, place.seed
    # The target's own theta_0 has the source's values wherever names and shapes agree.
    fresh = starts.another(target, "mask-only", seed, ticket, attempt).tensors()
    whole = Ticket(ticket.masks or {}, ticket.start.step, ticket.start)
    part = elastic.parts(whole, fresh, seed, attempt=attempt)[kind]
    assert part.weights is not None
    step, origin, source = 0, "init", ""
    if kind == "weights-only":
        step, origin, source = ticket.start.step, ticket.origin, ticket.source
    given = Given(part.masks, State(part.weights, step), origin, source)
    return entry_of(target, Place(kind, place.density, seed), given, seen, attempt)


def _missing(target: Task, place: TargetPlace, why: str) -> Carried:
    told = cells.missing(target, Place(CARRIED, place.density, place.seed), why)
    return Carried.model_validate({**told, "depth": place.depth})
