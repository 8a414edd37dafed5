"""The design of an experiment: which cells it has, from the task and what is asked for.

The one owner of this: scoring, validation, progress and estimates ask it (protocol, section 6).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lthbench.protocol.constants import CARRIED, COMPRESSED, PARTS, RANDOM, REINITS, UNTRAINED
from lthbench.protocol.task import Controls, Ladder, Task, Transfer, controlled


@dataclass(frozen=True)
class Plan:
    """What is scored besides the tickets, and on which examples."""

    final: bool = False
    controls: Controls = "all"
    compressed: bool = True
    transfer: bool = True
    direct: bool = False  # tickets found at the target, beside transferred ones

    @property
    def shown(self) -> Literal["held_out", "test"]:
        """The set that scores are computed on."""
        return "test" if self.final else "held_out"


@dataclass(frozen=True)
class Part:
    """One task of an evaluation: its seeds, and what is scored besides its tickets."""

    task: Task
    seeds: tuple[int, ...]
    plan: Plan


@dataclass(frozen=True)
class Found:
    """A ticket, as far as the design depends on it: where its weights come from."""

    origin: str = "init"
    start: int = 0


class Place(NamedTuple):
    """What identifies a cell of a record; density 1 is dense."""

    kind: str
    density: float
    seed: int
    schedule: int = 1

    @property
    def order(self) -> tuple[int, float, str, int]:
        """The sort key of a record's cells."""
        return self.seed, -self.density, self.kind, self.schedule


class TargetPlace(NamedTuple):
    """What identifies a cell at a depth that tickets are transferred to."""

    kind: str
    depth: int
    density: float
    seed: int

    @property
    def order(self) -> tuple[int, int, float, str]:
        """The sort key of a record's cells at other depths."""
        return self.seed, self.depth, -self.density, self.kind


def cells(
    task: Task,
    plan: Plan,
    seed: int,
    tickets: Mapping[float, Found],
    *,
    untrained: bool = False,
    signs: bool = True,
) -> Iterator[Place]:
    """Yield the cells of one seed at the task's own depth (protocol, section 6).

    Args:
        task: the task.
        plan: which controls and schedules are asked for.
        seed: of the search.
        tickets: what it found, by density; a rung without a ticket is a missing cell, which has no
            controls of its own.
        untrained: whether tickets are scored as they stand.
        signs: whether there is a control of the signs; records from before it have none.
    """
    ladder = task.ladder.untrained if untrained else task.ladder.trained
    rungs = controlled(ladder, plan.controls)
    yield Place("dense", 1.0, seed)
    for density in ladder:
        yield from ticket_cells([density], [seed], untrained=untrained)
        if (ticket := tickets.get(density)) is not None and density in rungs:
            yield Place("shuffled", density, seed)
            for kind in _reinits(ticket, signs and not untrained):
                yield Place(kind, density, seed)
    for kind in UNTRAINED[1:] if untrained else RANDOM:
        yield from (Place(kind, density, seed) for density in (ladder if untrained else rungs))
    if plan.compressed and task.score.compressed_density and not untrained:
        yield from _compressed(task, seed, tickets, rungs)


def ticket_cells(
    ladder: Iterable[float], seeds: Collection[int], *, untrained: bool
) -> Iterator[Place]:
    """Yield the cells of the tickets themselves: one a rung and seed, two of untrained tickets."""
    for density in ladder:
        for seed in seeds:
            yield from (Place("untrained", density, seed) for _ in range(untrained))
            yield Place("ticket", density, seed)


def _reinits(ticket: Found, signs: bool) -> tuple[str, ...]:
    """Return the reinitialised controls of a ticket; trained weights have none (section 7)."""
    return () if ticket.origin == "final" else REINITS if signs else REINITS[:1]


def _compressed(
    task: Task, seed: int, tickets: Mapping[float, Found], rungs: Collection[float]
) -> Iterator[Place]:
    """Yield the schedules of T/8, T/4 and T/2 for dense and, on one rung, ticket and reinit.

    A rewound ticket enters the schedule at its step k: k counts along the whole lineage.
    """
    rung = task.score.compressed_density
    yield from (Place("dense", 1.0, seed, factor) for factor in COMPRESSED)
    if (ticket := tickets.get(rung)) is None:
        return
    for kind in ("ticket", *(_reinits(ticket, False) if rung in rungs else ())):
        for factor in COMPRESSED:
            if ticket.start < task.recipe.steps // factor:
                yield Place(kind, rung, seed, factor)


def target_cells(
    transfer: Transfer,
    seed: int,
    carried: Collection[tuple[int, float]],
    direct: Collection[tuple[int, float]] = (),
) -> Iterator[TargetPlace]:
    """Yield the cells of one seed at the depths that tickets are transferred to (section 9).

    Args:
        transfer: of the task.
        seed: of the search.
        carried: depth and density of each ticket that arrived; the others are missing cells.
        direct: depth and density of each ticket that was found at its target.
    """
    for depth in transfer.targets:
        for density in transfer.densities:
            yield TargetPlace("erk", depth, density, seed)
            yield TargetPlace(CARRIED, depth, density, seed)
            if density == transfer.densities[0] and (depth, density) in carried:
                yield from (TargetPlace(kind, depth, density, seed) for kind in PARTS)
            if (depth, density) in direct:
                yield TargetPlace("direct", depth, density, seed)


def target_rungs(transfer: Transfer) -> list[tuple[int, float]]:
    """Return depth and density of every rung of transfer."""
    return [(depth, density) for depth in transfer.targets for density in transfer.densities]


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


def source(task: Task) -> Task:
    """Return the task at the depth that tickets are transferred from.

    Where that is not its own depth, the two rungs of transfer are its whole ladder.
    """
    assert task.transfer
    depth = task.transfer.source
    return task if depth == task.network.depth else at_depth(task, depth)
