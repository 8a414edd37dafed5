"""Requirements on a record for the leaderboard: the rules that need only the record.

Its task and reference are the shipped ones, every cell planned by `score` exists, and derived
values are consistent: kept counts, curve lengths, starting weights shared by several cells, masks
that must differ. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.errors import RecordError
from lthbench.io.untrusted import negative_zero, shown
from lthbench.leaderboard.validation import cell_rules, claims, transfer_rules
from lthbench.leaderboard.validation.cell_rules import Cells
from lthbench.leaderboard.validation.claims import NEXT, Known
from lthbench.protocol import design
from lthbench.protocol.constants import REINITS, SHARED
from lthbench.protocol.design import Found, Place, Plan
from lthbench.protocol.task import Task
from lthbench.records import pretrained
from lthbench.records.intervals import TIE
from lthbench.records.reference import Reference
from lthbench.records.schema import Cell, Record

ROUNDED = 1.001  # machine figures have four digits


def rules(record: Record) -> None:
    """Check every rule of level 0 that a record can break by itself.

    Raises:
        RecordError: If a rule is broken; names the place, the value and the rule.
    """
    body(record, claims.check(record))


def body(record: Record, known: Known) -> None:
    """Check the content of a record: searches, cells, transfer.

    Raises:
        RecordError: If a rule is broken; names the place, the value and the rule.
    """
    _searches(record, known.task)
    cells: Cells = {cell.place: cell for cell in record.cells}
    _complete(record, known.task, cells)
    layers = cell_rules.Layers(known.task)

    def alone(cell: Cell) -> None:
        cell_rules.check_run(cell, known.task, record)
        cell_rules.check_origin(cell, known.task)
        layers.check(cell)

    for check in (alone, lambda cell: cell_rules.beside_its_ticket(cell, cells, layers)):
        for cell in record.cells:
            try:
                check(cell)
            except RecordError as error:
                raise RecordError(f"{told(cell)}: {error}") from error
    _arrivals(record)
    _starts(record)
    _random(record)
    _sketches(cells)
    _shared(record, known.reference)
    transfer_rules.check(record, known, cells)


def told(cell: Cell) -> str:
    """Describe a cell's place, for messages."""
    compressed = f" in 1/{cell.schedule} of the steps" if cell.schedule > 1 else ""
    return f"{cell.kind} at density {cell.density:.4g}, seed {cell.seed}{compressed}"


def _searches(record: Record, task: Task) -> None:
    if tuple(search.seed for search in record.searches) != record.seeds:
        raise RecordError("searches: must be one for each seed, in order")
    for search in record.searches:
        where = f"searches, seed {search.seed}"
        if negative_zero(search.cost) or search.cost > task.search.budget * (1 + TIE):
            raise RecordError(
                f"{where}: cost {search.cost:g}, the budget is {task.search.budget:g}"
            )
        own, steps = search.own, search.cost * task.recipe.steps
        if own is not None and own.steps > ROUNDED * steps:
            raise RecordError(
                f"{where}: {own.steps:g} steps of its own, which are part of its cost; that is "
                f"{steps:g} steps"
            )
        if (search.status == "ok") == bool(search.reason):
            raise RecordError(f"{where}: is {search.status}, reason {shown(search.reason)!r}")


def _complete(record: Record, task: Task, cells: Cells) -> None:
    """Check that exactly the cells planned by `score` exist, in its order."""
    wanted = set(_wanted(record, task))
    if lacking := sorted(wanted - cells.keys()):
        kind, density, seed, schedule = lacking[0]
        raise RecordError(
            f"cells: no {kind} at density {density:.4g}, seed {seed}, schedule 1/{schedule}; "
            "a cell that failed stands in the record with its reason"
        )
    if extra := sorted(cells.keys() - wanted):
        raise RecordError(f"cells: {told(cells[extra[0]])}: nothing asks for it; {NEXT}")
    if sorted(cells, key=lambda place: place.order) != list(cells):
        raise RecordError(f"cells: not in the order of seed, density, kind and schedule; {NEXT}")


def _wanted(record: Record, task: Task) -> Iterator[Place]:
    tickets = [c for c in record.cells if c.kind == "ticket" and c.schedule == 1]
    # Records older than the operation counts have no control of the signs either.
    signs = any(cell.flops_inference is not None for cell in record.cells if cell.kind == "ticket")
    plan = Plan(final=True, controls=record.controls)
    for seed in record.seeds:
        found = {
            cell.density: Found(cell.origin, cell.start)
            for cell in tickets
            if cell.seed == seed and cell.status != "missing"
        }
        yield from design.cells(task, plan, seed, found, untrained=_untrained(record), signs=signs)


def _untrained(record: Record) -> bool:
    return any(cell.kind == "untrained" for cell in record.cells)


def _arrivals(record: Record) -> None:
    """Check the arrivals of tickets with weights of their own.

    They are listed in order, with their state before training, and such a ticket is a reference if
    it is already a trained network.
    """
    untrained = _untrained(record)
    wanted = {
        (cell.seed, cell.density): cell
        for cell in record.cells
        if (cell.kind, cell.schedule) == ("ticket", 1) and not untrained
        if pretrained.found(cell.origin) == "free"
    }
    arrivals = record.arrivals or ()
    if [(a.seed, a.density) for a in arrivals] != list(wanted):
        raise RecordError(
            "arrivals: must be one for each ticket of origin free or pretrained, in their order; "
            f"{NEXT}"
        )
    dense = pretrained.dense_accuracies(record.cells, record.sizes) if arrivals else []
    least = pretrained.bar(record.task.chance, dense)
    for arrival, cell in zip(arrivals, wanted.values(), strict=True):
        size = record.sizes[str(cell.seed)]["held_out"]
        if arrival.right > size:
            raise RecordError(f"{told(cell)}: {arrival.right} right before training, of {size}")
        why = pretrained.why(arrival.right / size, arrival.alike, least)
        if bool(why) != (cell.origin == pretrained.ORIGIN):
            raise RecordError(
                f"{told(cell)}: origin {cell.origin}, but "
                f"{why or 'nothing says that it was trained before'}; the origin follows from that"
            )
    for cell in record.cells if untrained else ():
        if cell.origin == pretrained.ORIGIN:
            raise RecordError(f"{told(cell)}: pretrained, which no untrained ticket is")


def _starts(record: Record) -> None:
    """Check that all cells of a seed share theta_0 and theta_k, and that no two are equal."""
    seen: dict[str, tuple[int, int]] = {}  # weights to seed and step
    known: dict[tuple[int, int], str] = {}
    for cell in record.cells:
        at = cell.seed, cell.start
        if cell.kind in REINITS or cell.origin not in ("init", "rewind"):
            continue
        if known.setdefault(at, cell.weights) != cell.weights:
            raise RecordError(f"{told(cell)}: its theta_{cell.start} is not that of other cells")
        if seen.setdefault(cell.weights, at) != at:
            other = seen[cell.weights]
            raise RecordError(
                f"{told(cell)}: theta_{cell.start} is theta_{other[1]} of seed {other[0]}; every "
                "seed has weights of its own"
            )
    for cell in record.cells:
        if (cell.kind in REINITS or cell.origin not in ("init", "rewind")) and (
            seen.get(cell.weights) is not None
        ):
            raise RecordError(
                f"{told(cell)}: starts from theta_{seen[cell.weights][1]} of seed "
                f"{seen[cell.weights][0]}, which is not its origin"
            )


def _random(record: Record) -> None:
    """Check that random masks differ in every cell, and from every ticket's."""
    drawn: dict[str, str] = {}
    for cell in record.cells:
        if cell.kind in SHARED and cell.masks is not None:
            if cell.masks in drawn:
                raise RecordError(f"{told(cell)}: has the masks of {drawn[cell.masks]}")
            drawn[cell.masks] = told(cell)


def _sketches(cells: Cells) -> None:
    """Check that all tickets or none have sketches, equal for equal masks."""
    known: dict[str, str | None] = {}
    tickets = [c for c in cells.values() if c.kind == "ticket" and c.schedule == 1 and c.masks]
    some = any(cell.sketch for cell in tickets)
    for cell in tickets:
        if some and cell.sketch is None:
            raise RecordError(f"{told(cell)}: has no sketch, though other tickets have; {NEXT}")
        if known.setdefault(str(cell.masks), cell.sketch) != cell.sketch:
            raise RecordError(f"{told(cell)}: another sketch than of equal masks; {NEXT}")


def _shared(record: Record, reference: Reference) -> None:
    """Check that, for published seeds, runs shared by all methods are the reference's own."""
    frozen = {cell.place: cell for cell in reference.cells}
    for cell in record.cells:
        if frozen.get(cell.place, cell) != cell:
            raise RecordError(f"{told(cell)}: not the reference's own run; {NEXT}")
