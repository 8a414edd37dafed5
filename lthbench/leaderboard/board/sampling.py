"""Random selection of the cells that level 2 retrains, unpredictable at submission."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from lthbench.io.paths import canonical_json, digest
from lthbench.protocol.constants import CARRIED, TICKETS
from lthbench.records.reference import Reference
from lthbench.records.schema import Carried, Cell, Record

LEAST = 12  # cells, if there are that many
SHARE, MISSED = 0.2, 0.00001  # share of forged tickets; probability that none is drawn
PARTS = ("tickets", "carried", "others")  # drawn and judged separately
# A bundle does not hold the weights that these prune.
OWN_WEIGHTS = ("transferred", "final", "free", "pretrained")
FACTORS = ("signs", "scaled")  # a bundle holds one factor per tensor that keeps a weight

Drawn: TypeAlias = Cell | Carried


class Place(NamedTuple):
    """The key of a draw in a record; depth 0 is the task's own."""

    kind: str
    density: float
    seed: int
    schedule: int
    depth: int
    attempt: int


def place(cell: Drawn) -> Place:
    """Return the key of a draw in a record."""
    depth = cell.depth if isinstance(cell, Carried) else 0
    return Place(cell.kind, cell.density, cell.seed, cell.schedule, depth, cell.attempt)


def drawn(cell: Drawn) -> list[Drawn]:
    """Return one cell per draw of a cell: first the diverged draws, then the cell itself."""
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
    """Return the cells that may be drawn: all that can be retrained from a bundle.

    They include cells reported as diverged, and a control's earlier draws. The reference's own
    cells are excluded, since level 0 compares them with the reference. So is a shuffled ticket with
    weights of its own, since the bundle lacks the weights that its control keeps.
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
    """Return the cells at other depths that follow from a bundle.

    These are `erk`, determined by the seed, and tickets transferred by the elastic rule where the
    pruned weights are known too. Excluded are a method's own tickets for the target (`direct`),
    those transferred by its own rule, and those found at a third depth: the bundle lacks them, and
    they do not affect ranks.
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
    """Return how many of `tickets` tickets are drawn.

    If a fifth of them are forged, all of these are missed at most once in 100,000 draws. The
    probability that no forged one is among n drawn tickets is hypergeometric.
    """
    forged = math.ceil(SHARE * tickets)
    for count in range(tickets):
        if math.comb(tickets - forged, count) <= MISSED * math.comb(tickets, count):
            return count
    return tickets


def draw(cells: Sequence[Drawn], bundle: str, beacon: str, least: int = 0) -> list[Drawn]:
    """Return the cells with the smallest draw hashes.

    They comprise enough tickets, including one of each seed, enough of those transferred to other
    depths, and half as many others as tickets (dense runs, controls, shortened schedules). Up to
    half of the others are runs reported as diverged, if there are any: honest records have hardly
    any, whereas selecting controls takes many.

    A cell's draw hash is the sha256 of bundle, beacon and its own place. Where one group is too
    small, others fill its places.

    Args:
        cells: The candidates.
        bundle: Digest of the bundle.
        beacon: Random value published after the bundle.
        least: Minimum number of cells in total.
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
    at = place(cell)
    return at.seed, at.depth, -at.density, at.kind, at.schedule, at.attempt


def part_of(kind: str, schedule: int) -> int:
    """Return the member of `PARTS` in which a cell is judged."""
    if schedule == 1 and kind in (*TICKETS, CARRIED):
        return int(kind == CARRIED)
    return len(PARTS) - 1


def lot(bundle: str, beacon: str, cell: Drawn) -> str:
    """Return the hash that decides whether a cell is drawn."""
    return digest(canonical_json([bundle, beacon, *place(cell)]))
