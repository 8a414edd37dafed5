"""Which cells of a record level 2 trains again: by a lot that nobody knew when it was submitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from lthbench.io.paths import canonical_json, digest
from lthbench.records.reference import Reference
from lthbench.records.schema import Cell, Record

LEAST = 12  # cells, where there are as many
SHARE, MISSED = 0.2, 0.00001  # forged tickets of which none is drawn, with at most this probability
TICKETS = ("ticket", "untrained")
OWN_WEIGHTS = ("transferred", "final", "free")  # a bundle does not hold what they prune

Place: TypeAlias = tuple[str, float, int, int]


def place(cell: Cell) -> Place:
    """What tells a record's cells apart: kind, density, seed and schedule."""
    return cell.kind, cell.density, cell.seed, cell.schedule


def candidates(record: Record, reference: Reference | None) -> list[Cell]:
    """The cells that may be drawn: all that a bundle is enough to train again.

    Those that are said to have diverged are among them. The reference's own are not: level 0 holds
    them against it. Nor is a shuffled ticket with weights of its own, of which the bundle does not
    hold the weights that its control keeps.
    """
    frozen = {place(cell) for cell in reference.cells} if reference is not None else set()
    return [
        cell
        for cell in record.cells
        if cell.status in ("ok", "diverged")
        and place(cell) not in frozen
        and not (cell.kind == "shuffled" and cell.origin in OWN_WEIGHTS)
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


def draw(cells: Sequence[Cell], bundle: str, beacon: str, least: int = 0) -> list[Cell]:
    """The cells with the lowest lots: enough tickets, one of each seed among them, and half as many
    others (dense runs, controls, shortened schedules).

    A cell's lot is the sha256 of bundle, beacon and its own place. Where there are too few of the
    one, others take their places.

    Args:
        least: of all, where the rule draws fewer.
    """
    ranked = sorted(cells, key=lambda cell: lot(bundle, beacon, cell))
    tickets = [cell for cell in ranked if scores_a_ticket(cell)]
    others = [cell for cell in ranked if not scores_a_ticket(cell)]
    of_seeds = list({cell.seed: cell for cell in reversed(tickets)}.values())
    tickets = of_seeds + [cell for cell in tickets if cell not in of_seeds]
    wanted = max(len(of_seeds), enough(len(tickets)))
    chosen = tickets[:wanted] + others[: math.ceil(wanted / 2)]
    rest = [cell for cell in ranked if cell not in chosen]
    chosen += rest[: max(0, max(least, LEAST) - len(chosen))]
    return sorted(chosen, key=lambda cell: (cell.seed, -cell.density, cell.kind, cell.schedule))


def scores_a_ticket(cell: Cell) -> bool:
    """Whether a cell is one that makes the score."""
    return cell.kind in TICKETS and cell.schedule == 1


def lot(bundle: str, beacon: str, cell: Cell) -> str:
    """What decides whether a cell is drawn."""
    return digest(canonical_json([bundle, beacon, *place(cell)]))
