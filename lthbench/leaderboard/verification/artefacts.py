"""Level 1: the tickets of a bundle against its record, without training.

The record's schema, digests and counts have already been checked (level 0,
`leaderboard.validation`).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from lthbench.errors import RecordError, TicketError
from lthbench.evaluation import arrivals, scoring
from lthbench.evaluation.starts import Given, masks_of
from lthbench.leaderboard.board import copies
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.sampling import Drawn, drawn
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.verification.reconstruct import Held, held, redraw_start
from lthbench.leaderboard.verification.result import Finding
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.constants import REINITS, TICKETS
from lthbench.protocol.design import Place, Plan
from lthbench.protocol.task import Task
from lthbench.records import pretrained
from lthbench.records.schema import Cell, Record
from lthbench.tickets import masks, overlap, ticket
from lthbench.tickets.controls import RULES
from lthbench.tickets.sketch import sketch
from lthbench.tickets.ticket import Ticket
from lthbench.training.executors import local

Cells = Mapping[Place, Cell]
CLOSE = 1e-3  # of two correlations of the same weights
TOLD = 3  # maximum problems of one kind that are reported


def check(
    bundle: Bundle,
    task: Task,
    record: Record,
    accepted: Sequence[Entry],
    near: Callable[[Entry], Path | None],
) -> list[Finding]:
    """Return every finding of level 1 on one task.

    Args:
        bundle: The bundle.
        task: The task.
        record: The bundle's record of the task.
        accepted: The board's entries of this task, except this one.
        near: Returns an entry's bundle if it is on this machine.
    """
    cells: Cells = {cell.place: cell for cell in record.cells}
    try:
        places = archive.tickets(bundle, task.name)
        tickets = {(s, d): held(bundle, task, s, d) for s, d in places}
    except (RecordError, TicketError) as error:
        return [Finding(task.name, 1, False, str(error))]

    def told(problems: Iterable[str], fine: str) -> Finding:
        return _told(task, problems, fine)

    own = [t for t in tickets.values() if t.start is None or not t.whole]
    return [
        told(
            _masks(task, cells, tickets),
            f"{len(tickets)} tickets: masks, counts, layers and paths are as the record says",
        ),
        told(_starts(task, cells, tickets), _starts_told(tickets, own)),
        Finding(task.name, 1, None, _nesting(tickets)),
        told(*_controls(task, cells, tickets)),
        *_arrivals(task, record, cells, tickets),
        *_others(task, record, tickets, accepted, near),
    ]


def _told(task: Task, problems: Iterable[str], fine: str) -> Finding:
    found = list(problems)
    if not found:
        return Finding(task.name, 1, True, fine)
    more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return Finding(task.name, 1, False, "; ".join(found[:TOLD]) + more)


def _at(cell: Drawn) -> str:
    return f"seed {cell.seed} {cell.kind} at density {cell.density:.4g}"


def _masks(task: Task, cells: Cells, tickets: Mapping[tuple[int, float], Held]) -> Iterator[str]:
    """Yield tickets that break the rules of their task, or disagree with their cells."""
    shapes = families.shapes(task.network, task.network.depth)
    limit = task.search.rewind_limit
    ladders = {True: task.ladder.trained, False: task.ladder.untrained}
    for (seed, density), one in tickets.items():
        where = f"seed {seed}, density {density:.4g}"
        try:
            proposed = Ticket(one.masks, one.step, None, one.trained)
            ticket.check(proposed, shapes, {}, limit)
            rung = ticket.rung_of(proposed, ladders[one.trained], masks.total(one.masks), ())
            if rung != density:
                yield f"{where}: its masks are of the rung at {rung:.4g}"
        except TicketError as error:
            yield f"{where}: {error}"
            continue
        name = masks.digest(one.masks)
        mine = [cells[p] for p in cells if _is_of(p, seed, density) and cells[p].masks is not None]
        yield from (f"{_at(c)}: not the ticket's masks" for c in mine if c.masks != name)
        alive = families.effective(task.network, task.network.depth, dict(one.masks))
        known = masks.kept(one.masks), masks.kept(alive), masks.counts(one.masks)
        flops = families.sparse_flops(task.network, task.network.depth, one.masks)
        nodes = families.effective_nodes(alive)
        mine_sketch = sketch({name: mask.numpy() for name, mask in one.masks.items()})
        for cell in mine:
            if cell.sketch not in (None, mine_sketch):
                yield f"{_at(cell)}: not the sketch of its masks"
            subject = cell.kind in TICKETS and cell.schedule == 1
            said = cell.kept, cell.effective, dict(cell.layers)
            if cell.flops_inference not in (None, flops):
                yield f"{_at(cell)}: {cell.flops_inference} operations; of its masks {flops}"
            if cell.effective_nodes not in (None, nodes):
                yield f"{_at(cell)}: {cell.effective_nodes} effective nodes; of its masks {nodes}"
            if cell.status != "missing" and said != (known if subject else (known[0], None, {})):
                yield f"{_at(cell)}: kept {said[0]}, on a path {said[1]}; its masks: {known[:2]}"


def _is_of(place: Place, seed: int, density: float) -> bool:
    """Return whether a cell has exactly a ticket's masks."""
    return place.kind in (*TICKETS, *REINITS) and place[1:3] == (density, seed)


def _starts(task: Task, cells: Cells, tickets: Mapping[tuple[int, float], Held]) -> Iterator[str]:
    """Yield weights that follow from the seed but differ from the digest in the cells."""
    thetas: dict[int, str] = {}
    for (kind, density, seed, schedule), cell in cells.items():
        one = tickets.get((seed, density))
        if kind in ("dense", *RULES):
            if seed not in thetas:
                thetas[seed] = families.initial(task.network, task.network.depth, seed).digest
            if cell.weights != thetas[seed]:
                yield f"{_at(cell)}: does not start from the seed's theta_0"
        if one is None or kind not in (*TICKETS, "shuffled"):
            continue
        if (pretrained.found(cell.origin), cell.start) != (one.origin, one.step):
            yield f"{_at(cell)}: origin {cell.origin}, its ticket's is {one.origin}"
        if one.start and one.whole and cell.weights != one.start.digest:
            yield f"{_at(cell)}: its weights are not those that the seed gives"
        if schedule > 1 and cell.weights != cells[Place("ticket", density, seed)].weights:
            yield f"{_at(cell)}, schedule 1/{schedule}: other weights than its ticket's"


def _starts_told(tickets: Mapping[tuple[int, float], Held], own: Sequence[Held]) -> str:
    told = f"{len(tickets) - len(own)} starts rebuilt from their seeds"
    late = sum(t.start is None for t in own)
    if late:
        told += f"; {late} at theta_k need training: level 2"
    if len(own) > late:
        told += f"; {len(own) - late} are weights of the tickets' own, which nothing can rebuild"
    return told


def _nesting(tickets: Mapping[tuple[int, float], Held]) -> str:
    """Say whether each rung is nested in the previous one, which no rule requires."""
    by_seed: dict[int, list[Held]] = {}
    for one in tickets.values():
        by_seed.setdefault(one.seed, []).append(one)
    nested = sum(
        all(masks.nested(b.masks, a.masks) for a, b in pairwise(rungs))
        for rungs in by_seed.values()
    )
    return f"rungs lie within one another at {nested} of {len(by_seed)} seeds (no rule asks for it)"


def _controls(
    task: Task, cells: Cells, tickets: Mapping[tuple[int, float], Held]
) -> tuple[list[str], str]:
    """Redraw controls from the ticket's masks, the seed and the attempt, failed draws included."""
    problems, count, late = [], 0, 0
    for cell in (draw for last in cells.values() for draw in drawn(last)):
        kind, density, seed = cell.kind, cell.density, cell.seed
        one = tickets.get((seed, density))
        if kind not in ("shuffled", *REINITS, *RULES) or (kind not in RULES and one is None):
            continue
        chosen = masks_of(task, kind, density, seed, one.masks if one else None, cell.attempt)
        if cell.masks != masks.digest(chosen) or cell.kept != masks.kept(chosen):
            problems.append(f"{_at(cell)}: not the masks that its draw {cell.attempt} gives")
        count += 1
        if kind not in REINITS or one is None:
            if cell.weights != cells[Place(kind, density, seed, cell.schedule)].weights:
                problems.append(f"{_at(cell)}: draw {cell.attempt} starts elsewhere than its last")
            continue
        start = redraw_start(task, kind, one, cell.attempt)
        # A free ticket's reinit has its magnitudes, of which a bundle stores only the kept ones.
        if start is None or (one.origin == "free" and kind == "reinit"):
            late += 1
        elif cell.weights != start.digest:
            problems.append(f"{_at(cell)}: not the weights that its draw {cell.attempt} gives")
    told = f"{count} controls drawn again: the same masks"
    return problems, told + (
        f"; {late} starts of reinit need training or pruned weights" * bool(late)
    )


def _arrivals(
    task: Task, record: Record, cells: Cells, tickets: Mapping[tuple[int, float], Held]
) -> Iterator[Finding]:
    """Check the arrivals of tickets with their own weights, which are available here."""
    own = {
        place: Given(one.masks, one.start, one.origin)
        for place, one in tickets.items()
        if one.origin == "free" and one.trained and one.start is not None
    }
    if not own:
        return
    if not datasets.prepared(task, test=False):
        what = f"{len(own)} tickets of origin free not read before training: no data here"
        yield Finding(task.name, 1, None, what)
        return
    seen = scoring.see(task, sorted({seed for seed, _ in own}), Plan())
    with tempfile.TemporaryDirectory(prefix="lthbench-verify-") as folder:
        reading = arrivals.read(task, own, Path(folder), local.Here(), seen)
        right = asyncio.run(reading)
    likeness, problems = arrivals.alike(own), []
    claims = {(claim.seed, claim.density): claim for claim in record.arrivals or ()}
    for (seed, density), count in right.items():
        claim, where = claims[seed, density], _at(cells[Place("ticket", density, seed)])
        size, alike = record.sizes[str(seed)]["held_out"], likeness[seed, density]
        # Rounding on another machine can change an occasional answer.
        if abs(count - claim.right) > max(1, size // 100):
            problems.append(f"{where}: {claim.right} right before training; found {count}")
        one, other = claim.alike, alike
        if (one is None) != (other is None) or abs((one or 0) - (other or 0)) > CLOSE:
            problems.append(f"{where}: {one} like another seed's weights; found {other}")
    yield _told(
        task,
        problems,
        f"{len(own)} tickets with weights of their own: what they are "
        "before training is as the record says",
    )


def _others(
    task: Task,
    record: Record,
    tickets: Mapping[tuple[int, float], Held],
    accepted: Sequence[Entry],
    near: Callable[[Entry], Path | None],
) -> Iterator[Finding]:
    """Check whether the tickets are another entry's, comparing the masks themselves.

    Copies of all tickets are rejected. So are masks close to another's if missing sketches, or
    sketches changed by moving a few weights, would hide this from the board. Other overlaps are
    only reported.
    """
    closest: tuple[float, str] | None = None
    looked, own = 0, _sketched(tickets)
    for entry in accepted:
        other = entry.record.method.digest != record.method.digest
        if other and (same := shared(record, entry.record)) and all(same):
            what = f"these are the tickets of {entry.id}, by another source"
            yield Finding(task.name, 1, False, what)
        path = near(entry)
        indices = None if path is None else _indices(task, tickets, path)
        looked += indices is not None
        theirs = copies.tickets(entry.record)
        seen = copies.likeness(entry.id, copies.tickets(record), theirs)
        known = copies.likeness(entry.id, own, theirs, indices)
        if known.same and not seen.same and other:
            yield Finding(task.name, 1, False, f"its record does not show it: {known.text}")
        elif known.equal + known.near:
            yield Finding(task.name, 1, None, known.text)
        if known.overlap is not None and (closest is None or known.overlap > closest[0]):
            closest = known.overlap, entry.id
    told = f"compared with {len(accepted)} accepted entries by digest, {looked} by their masks"
    if closest:
        told += f"; closest is {closest[1]}, {closest[0]:.2f} of the possible overlap above chance"
    yield Finding(task.name, 1, None if not accepted else True, told)


def shared(a: Record, b: Record) -> list[bool]:
    """Return, for each shared seed and rung, whether masks and weights are the same."""
    mine, theirs = _digests(a), _digests(b)
    return [mine[place] == theirs[place] for place in sorted(mine.keys() & theirs.keys())]


def _digests(record: Record) -> dict[tuple[int, float], tuple[str | None, str]]:
    cells = (c for c in record.cells if c.kind == "ticket" and c.schedule == 1)
    return {(c.seed, c.density): (c.masks, c.weights) for c in cells if c.masks is not None}


def _sketched(tickets: Mapping[tuple[int, float], Held]) -> copies.Tickets:
    """Return digests and sketches of a bundle's own masks, whatever its record says."""
    return {
        place: (masks.digest(one.masks), sketch({n: m.numpy() for n, m in one.masks.items()}))
        for place, one in tickets.items()
        if place[1] < 1
    }


def _indices(
    task: Task, tickets: Mapping[tuple[int, float], Held], path: Path
) -> dict[tuple[int, float], float] | None:
    """Return Jaccard indices at shared seeds and rungs; None without any, or if unreadable."""
    try:
        other = archive.read(path)
        places = archive.tickets(other, task.name) if task.name in other.tasks else ()
        found = {
            place: overlap.overlap(tickets[place].masks, held(other, task, *place).masks)
            for place in places
            if place in tickets
        }
    except RecordError:
        return None
    return {at: one.pooled.jaccard for at, one in found.items() if one.pooled.jaccard is not None}
