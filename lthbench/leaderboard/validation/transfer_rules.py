"""The rules of a record's transfer: tickets at the task's neighbouring depths."""

from __future__ import annotations

from collections.abc import Mapping

from lthbench.errors import RecordError
from lthbench.io.untrusted import shown
from lthbench.leaderboard.validation.cell_rules import Cells, check_run
from lthbench.leaderboard.validation.claims import NEXT, Known
from lthbench.protocol import design
from lthbench.protocol.constants import CARRIED, PARTS
from lthbench.protocol.design import Place, TargetPlace
from lthbench.protocol.task import Task
from lthbench.records import pretrained
from lthbench.records.schema import Carried, Record, TransferEntry

Runs = Mapping[TargetPlace, Carried]


def check(record: Record, known: Known, tickets: Cells) -> None:
    """Check the cells at other depths; `tickets` are the record's own cells, by place.

    Raises:
        RecordError: If a rule is broken; names the place, the value and the rule.
    """
    moved, task = record.transfer, known.task
    if moved is None:  # an unavailable score; every page says so
        return
    _is_of_the_task(moved, known)
    untrained = any(cell.kind == "untrained" for cell in record.cells)
    if moved.reason or untrained:
        if not moved.reason or moved.cells:
            raise RecordError("transfer: a reason why no ticket is carried, or cells; not both")
        return
    cells = {cell.place: cell for cell in moved.cells}
    _complete(record, task, moved, cells)
    for cell in moved.cells:
        try:
            _run(cell, record, task, cells, tickets)
        except RecordError as error:
            raise RecordError(f"transfer: {told(cell)}: {error}") from error
    _frozen(moved, known)


def told(cell: Carried) -> str:
    """Describe a cell's place, for messages."""
    return f"{cell.kind} at depth {cell.depth}, density {cell.density:.4g}, seed {cell.seed}"


def _is_of_the_task(moved: TransferEntry, known: Known) -> None:
    wanted = known.task.transfer
    if wanted is None:
        raise RecordError(f"transfer: {known.task.name} has none")
    for key in ("source", "targets", "densities"):
        if getattr(moved, key) != getattr(wanted, key):
            raise RecordError(f"transfer.{key}: not {known.task.name}'s {getattr(wanted, key)}")
    frozen = known.reference.transfer
    if moved.sizes.keys() != {str(depth) for depth in wanted.targets} or (
        frozen is not None and moved.sizes != frozen.sizes
    ):
        raise RecordError(f"transfer.sizes: not those of {known.task.name}'s networks")


def _complete(record: Record, task: Task, moved: TransferEntry, cells: Runs) -> None:
    if len(cells) < len(moved.cells):
        raise RecordError("transfer: a cell is there twice")
    assert task.transfer
    rungs = design.target_rungs(task.transfer)
    wanted: set[TargetPlace] = set()
    for seed in record.seeds:
        carried = {
            at
            for at in rungs
            if (cell := cells.get(TargetPlace(CARRIED, *at, seed))) and cell.status != "missing"
        }
        direct = {at for at in rungs if TargetPlace("direct", *at, seed) in cells}
        wanted |= set(design.target_cells(task.transfer, seed, carried, direct))
    if lacking := sorted(wanted - cells.keys()):
        kind, depth, density, seed = lacking[0]
        raise RecordError(
            f"transfer: no {kind} at depth {depth}, density {density:.4g}, seed {seed}; "
            "a cell that failed stands in the record with its reason"
        )
    if extra := sorted(cells.keys() - wanted):
        raise RecordError(f"transfer: {told(cells[extra[0]])}: nothing asks for it; {NEXT}")
    if sorted(cells, key=lambda place: place.order) != list(cells):
        raise RecordError(f"transfer: cells are not in the order of seed, depth, density; {NEXT}")


def _run(
    cell: Carried,
    record: Record,
    task: Task,
    cells: Runs,
    tickets: Cells,
) -> None:
    check_run(cell, task, record)
    effective = cell.effective is not None or cell.effective_nodes is not None
    if cell.layers or effective or cell.own_shuffle or cell.schedule != 1:
        raise RecordError("tells of its tensors or schedule, which tickets alone do")
    own = cell.status == "missing" or cell.kind in ("erk", "layers", "mask-only")
    if own and (cell.origin, cell.start, cell.source) != ("init", 0, ""):
        raise RecordError(f"starts from {cell.origin} at step {cell.start}, not theta_0")
    if cell.start > task.search.rewind_limit:
        raise RecordError(f"step {cell.start} is past {task.search.rewind_limit}")
    if bool(cell.source) != (cell.origin == "transferred" and cell.kind != "direct"):
        raise RecordError(f"origin {cell.origin}, its source {shown(cell.source)!r}")
    carried = cells[TargetPlace(CARRIED, *cell.place[1:])]
    if cell.kind == "weights-only" and (cell.origin, cell.start, cell.source, cell.weights) != (
        carried.origin,
        carried.start,
        carried.source,
        carried.weights,
    ):
        raise RecordError("starts from other weights than the ticket that was carried")
    if cell.kind in PARTS:
        same = cell.masks == carried.masks
        if same != (cell.kind == "mask-only") and cell.kind != "weights-only":
            raise RecordError(f"masks are not what a {cell.kind} part has")
    ticket = tickets.get(Place("ticket", cell.density, cell.seed))
    at_home = task.transfer is not None and task.transfer.source == task.network.depth
    known = cell.kind == CARRIED and cell.source and at_home and ticket is not None
    if (
        known
        and ticket
        and (cell.source, cell.start) != (pretrained.found(ticket.origin), ticket.start)
    ):
        raise RecordError(f"its ticket is of origin {ticket.origin}")


def _frozen(moved: TransferEntry, known: Known) -> None:
    """Check that random tickets at the targets, like dense runs, are the reference's own."""
    frozen = known.reference.transfer
    if frozen is None:
        return
    theirs = {cell.place: cell for cell in frozen.cells if cell.kind == "erk"}
    for cell in moved.cells:
        if theirs.get(cell.place, cell) != cell:
            raise RecordError(f"transfer: {told(cell)}: not the reference's own run; {NEXT}")
