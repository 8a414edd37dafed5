"""Which cells of a record level 2 trains again: by a lot that nobody knew when it was submitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from lthbench.io.paths import canonical_json, digest
from lthbench.records.reference import Reference
from lthbench.records.schema import Carried, Cell, Record

LEAST = 12  # cells, where there are as many
SHARE, MISSED = 0.2, 0.00001  # forged tickets of which none is drawn, with at most this probability
TICKETS = ("ticket", "untrained")
PARTS = ("tickets", "carried", "others")  # are drawn and judged apart
CARRIED = "carried"  # a ticket at another depth
# A bundle does not hold what these prune.
OWN_WEIGHTS = ("transferred", "final", "free", "pretrained")
FACTORS = ("signs", "scaled")  # a bundle holds one factor of each tensor that keeps a weight

Drawn: TypeAlias = Cell | Carried
Place: TypeAlias = tuple[str, float, int, int, int, int]


def place(cell: Drawn) -> Place:
    """What tells a record's draws apart: kind, density, seed, schedule, depth (0: the task's own)
    and attempt."""
    depth = cell.depth if isinstance(cell, Carried) else 0
    return cell.kind, cell.density, cell.seed, cell.schedule, depth, cell.attempt


def drawn(cell: Drawn) -> list[Drawn]:
    """A cell of its own for each draw of a cell: those said to have diverged, then itself."""
    nothing: dict[str, tuple[int, ...]] = dict.fromkeys(cell.correct, ())
    failed: list[Drawn] = [
        cell.model_copy(
            update={
                "masks": draw.masks,
                "weights": draw.weights,
                "attempt": attempt,
                "failed_draws": cell.failed_draws[:attempt],
                "status": "diverged",
                "correct": nothing,
            }
        )
        for attempt, draw in enumerate(cell.failed_draws)
    ]
    return [*failed, cell]


def candidates(record: Record, reference: Reference | None) -> list[Drawn]:
    """The cells that may be drawn: all that a bundle is enough to train again.

    Those that are said to have diverged are among them, a control's earlier draws too. The
    reference's own are not: level 0 holds them against it. Nor is a shuffled ticket with weights
    of its own, of which the bundle does not hold the weights that its control keeps.
    """
    frozen: set[tuple[str, float, int, int, int]] = set()
    if reference is not None:
        shared: tuple[Drawn, ...] = reference.cells
        shared += reference.transfer.cells if reference.transfer is not None else ()
        frozen = {place(cell)[:5] for cell in shared}
    cells: list[Drawn] = [
        cell
        for cell in record.cells
        if not (cell.kind == "shuffled" and cell.origin in OWN_WEIGHTS)
    ]
    return [
        draw
        for cell in cells + _elsewhere(record)
        if cell.status != "missing" and place(cell)[:5] not in frozen
        for draw in drawn(cell)
    ]


def _elsewhere(record: Record) -> list[Drawn]:
    """The cells at other depths that follow from a bundle: `erk`, which the seed gives, and what
    the elastic rule makes of a ticket of which it knows the pruned weights as well.

    A method's own tickets of the target (`direct`) are not in the bundle, nor are those that its
    own rule carried, nor those that were found at a third depth; they make no rank.
    """
    moved = record.transfer
    if moved is None:
        return []
    whole = {
        (cell.density, cell.seed)
        for cell in record.cells
        if cell.kind == "ticket"
        and cell.origin not in OWN_WEIGHTS
        and not (cell.origin in FACTORS and 0 in cell.layers.values())
    }
    elastic = moved.rule == "elastic"
    return [
        cell
        for cell in moved.cells
        if cell.kind == "erk"
        or (elastic and cell.kind != "direct" and (cell.density, cell.seed) in whole)
    ]


def enough(tickets: int) -> int:
    """How many of so many tickets are drawn: a fifth of them forged are missed at most once in
    100,000 draws.

    The probability that no forged one is among n that are drawn is hypergeometric.
    """
    forged = math.ceil(SHARE * tickets)
    for count in range(tickets):
        if math.comb(tickets - forged, count) <= MISSED * math.comb(tickets, count):
            return count
    return tickets


def draw(cells: Sequence[Drawn], bundle: str, beacon: str, least: int = 0) -> list[Drawn]:
    """The cells with the lowest lots: enough tickets, one of each seed among them, enough of those
    that were carried to other depths, and half as many others as tickets (dense runs, controls,
    shortened schedules). Of these up to half are runs that are said to have diverged, as long as
    there are any: hardly an honest record has one, and who chooses controls needs many.

    A cell's lot is the sha256 of bundle, beacon and its own place. Where there are too few of the
    one, others take their places.

    Args:
        least: of all, where the rule draws fewer.
    """
    ranked = sorted(cells, key=lambda cell: lot(bundle, beacon, cell))
    tickets, moved, others = (
        [cell for cell in ranked if part_of(cell.kind, cell.schedule) == part]
        for part in range(len(PARTS))
    )
    of_seeds = list({cell.seed: cell for cell in reversed(tickets)}.values())
    tickets = of_seeds + [cell for cell in tickets if cell not in of_seeds]
    wanted = max(len(of_seeds), enough(len(tickets)))
    room = math.ceil(wanted / 2)
    ended = [cell for cell in others if cell.status != "ok"][: math.ceil(room / 2)]
    others = ended + [cell for cell in others if cell not in ended]
    chosen = tickets[:wanted] + moved[: enough(len(moved))] + others[:room]
    rest = [cell for cell in ranked if cell not in chosen]
    chosen += rest[: max(0, max(least, LEAST) - len(chosen))]
    return sorted(chosen, key=_order)


def _order(cell: Drawn) -> tuple[int, int, float, str, int, int]:
    kind, density, seed, schedule, depth, attempt = place(cell)
    return seed, depth, -density, kind, schedule, attempt


def part_of(kind: str, schedule: int) -> int:
    """Which of `PARTS` a cell is judged in."""
    if schedule == 1 and kind in (*TICKETS, CARRIED):
        return int(kind == CARRIED)
    return len(PARTS) - 1


def lot(bundle: str, beacon: str, cell: Drawn) -> str:
    """What decides whether a cell is drawn."""
    return digest(canonical_json([bundle, beacon, *place(cell)]))
