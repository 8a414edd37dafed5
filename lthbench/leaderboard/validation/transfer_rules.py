"""The rules of a record's transfer: tickets at the task's neighbouring depths."""

from __future__ import annotations

from collections.abc import Mapping

from lthbench.errors import RecordError
from lthbench.io.untrusted import shown
from lthbench.leaderboard.validation.cell_rules import Cells, check_run
from lthbench.leaderboard.validation.claims import NEXT, Known
from lthbench.protocol.task import Task
from lthbench.records import pretrained
from lthbench.records.schema import Carried, Record, TransferEntry
from lthbench.records.transfer_score import PARTS

Place = tuple[str, int, float, int]  # kind, depth, density, seed


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
    cells: Mapping[Place, Carried] = {(c.kind, c.depth, c.density, c.seed): c for c in moved.cells}
    _complete(record, moved, cells)
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


def _complete(record: Record, moved: TransferEntry, cells: Mapping[Place, Carried]) -> None:
    if len(cells) < len(moved.cells):
        raise RecordError("transfer: a cell is there twice")
    wanted: set[Place] = set()
    allowed: set[Place] = set()
    for seed in record.seeds:
        for depth in moved.targets:
            for density in moved.densities:
                place = (depth, density, seed)
                wanted |= {("carried", *place), ("erk", *place)}
                allowed.add(("direct", *place))
                carried = cells.get(("carried", *place))
                if carried and carried.status != "missing" and density == moved.densities[0]:
                    wanted |= {(kind, *place) for kind in PARTS}
    if lacking := sorted(wanted - cells.keys()):
        kind, depth, density, seed = lacking[0]
        raise RecordError(
            f"transfer: no {kind} at depth {depth}, density {density:.4g}, seed {seed}; "
            "a cell that failed stands in the record with its reason"
        )
    if extra := sorted(cells.keys() - wanted - allowed):
        raise RecordError(f"transfer: {told(cells[extra[0]])}: nothing asks for it; {NEXT}")
    order = sorted(cells, key=lambda at: (at[3], at[1], -at[2], at[0]))
    if order != list(cells):
        raise RecordError(f"transfer: cells are not in the order of seed, depth, density; {NEXT}")


def _run(
    cell: Carried,
    record: Record,
    task: Task,
    cells: Mapping[Place, Carried],
    tickets: Cells,
) -> None:
    check_run(cell, task, record)
    effective = cell.effective is not None or cell.effective_nodes is not None
    if cell.layers or effective or cell.own_shuffle or cell.schedule != 1:
        raise RecordError("tells of its tensors or schedule, which tickets alone do")
    place = (cell.depth, cell.density, cell.seed)
    own = cell.status == "missing" or cell.kind in ("erk", "layers", "mask-only")
    if own and (cell.origin, cell.start, cell.source) != ("init", 0, ""):
        raise RecordError(f"starts from {cell.origin} at step {cell.start}, not theta_0")
    if cell.start > task.search.rewind_limit:
        raise RecordError(f"step {cell.start} is past {task.search.rewind_limit}")
    if bool(cell.source) != (cell.origin == "transferred" and cell.kind != "direct"):
        raise RecordError(f"origin {cell.origin}, its source {shown(cell.source)!r}")
    carried = cells["carried", *place]
    if cell.kind == "weights-only" and (cell.origin, cell.start, cell.source, cell.weights) != (
        carried.origin,
        carried.start,
        carried.source,
        carried.weights,
    ):
        raise RecordError("starts from other weights than the ticket that was carried")
    if cell.kind in ("mask-only", "layers", "weights-only"):
        same = cell.masks == carried.masks
        if same != (cell.kind == "mask-only") and cell.kind != "weights-only":
            raise RecordError(f"masks are not what a {cell.kind} part has")
    ticket = tickets.get(("ticket", cell.density, cell.seed, 1))
    at_home = task.transfer is not None and task.transfer.source == task.network.depth
    known = cell.kind == "carried" and cell.source and at_home and ticket is not None
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
    theirs = {(c.depth, c.density, c.seed): c for c in frozen.cells if c.kind == "erk"}
    for cell in moved.cells:
        at = (cell.depth, cell.density, cell.seed)
        if cell.kind == "erk" and theirs.get(at, cell) != cell:
            raise RecordError(f"transfer: {told(cell)}: not the reference's own run; {NEXT}")
