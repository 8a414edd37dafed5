"""Caveats on a record's figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lthbench.records import intervals, pretrained, unmetered
from lthbench.records.schema import Carried, Cell, Record
from lthbench.report.formats import NA, is_area, number, percent, plain
from lthbench.report.terms import BOARDS, CONTROLLED, is_untrained, listing, set_of

LISTED = 8  # maximum failed or redrawn cells listed individually in text


@dataclass(frozen=True)
class Remark:
    """A condition on the validity of the figures; warnings must be seen."""

    name: str
    text: str
    warns: bool = False


def remarks(record: Record) -> tuple[Remark, ...]:
    """List board, seeds and examples, machine, reference, redrawn and failed cells."""
    return (
        *_standing(record),
        _machine(record),
        _frozen(record),
        *_pretrained(record),
        *_collapsed(record),
        *_drawn_again(record),
        *_failed(record),
        *_unmetered(record),
    )


def _standing(record: Record) -> Iterable[Remark]:
    division = record.scores.division
    board = BOARDS[division] if division else NA
    if is_untrained(record):
        board = f"{board}; untrained tickets, which have a board of their own"
    yield Remark("Division", board)
    sizes = sorted({sets[record.shown] for sets in record.sizes.values()})
    examples = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    seeds = f"seed{'' if len(record.seeds) == 1 else 's'} {listing(record.seeds)}, {set_of(record)}"
    if record.final:
        yield Remark("Seeds", f"published {seeds}")
    else:
        yield Remark("Seeds", f"development {seeds}: not for publication", warns=True)
    dense = record.scores.dense
    if dense is not None and not is_area(record):
        error = number(100 * intervals.binomial_se(dense.mean, sizes[0]), 2)
        examples += f" (binomial s.e. at dense's accuracy: {error} points)"
    yield Remark("Examples", examples)
    if record.controls != "all":
        yield Remark("Controls", CONTROLLED[record.controls])


def _machine(record: Record) -> Remark:
    reproduces = record.scores.reproduces
    if reproduces is None:
        why = "no frozen reference"
        if record.reference is not None:
            why = "development runs do that" if record.final else "a dense run failed, or too few"
        return Remark("Machine", f"not checked against the reference: {why}")
    if reproduces:
        text = "reproduces the reference: local dense runs lie inside its 99 % interval"
        return Remark("Machine", text)
    text = "does not reproduce the reference: local dense runs lie outside its 99 % interval"
    return Remark("Machine", text, warns=True)


def _frozen(record: Record) -> Remark:
    if record.reference is None:
        return Remark("Reference", "none for this protocol", warns=True)
    seeds, short = len(record.reference.dense), record.reference.digest[:8]
    text = f"{seeds} dense seeds ({short})"
    if record.scores.transfer and record.reference.transfer is None:
        text += "; at other depths none: erk there is this record's own"
    if record.reference.provisional:
        return Remark("Reference", f"provisional: {text}", warns=True)
    return Remark("Reference", f"frozen: {text}")


def _pretrained(record: Record) -> Iterable[Remark]:
    tickets = [c for c in record.cells if c.kind == "ticket" and c.schedule == 1]
    if arrived := sum(cell.origin == pretrained.ORIGIN for cell in tickets):
        text = (
            f"{arrived} of {len(tickets)} tickets arrive trained already: before their own "
            "training they are near dense, or have another seed's weights"
        )
        yield Remark("Pretrained", text, warns=True)


def _unmetered(record: Record) -> Iterable[Remark]:
    for told in unmetered.told_of(record):
        yield Remark("Unmetered", told, warns=True)


def _collapsed(record: Record) -> Iterable[Remark]:
    for rung in record.scores.rungs:
        if rung.collapsed:
            text = f"{rung.collapsed} at {percent(rung.density)} % density: no path is left"
            yield Remark("Collapsed", text, warns=True)
    own = {name for cell in record.cells for name in cell.own_shuffle}
    if own:
        names = ", ".join(sorted(plain(name) for name in own))
        text = f"on some rung full, empty or of one weight, so its own shuffle: {names}"
        yield Remark("Shuffles", text)


def _drawn_again(record: Record) -> Iterable[Remark]:
    again = [cell for cell in _every(record) if cell.attempt]
    if again:
        draws = sum(cell.attempt for cell in again)
        named = "; ".join(
            f"{_told_place(cell)}: draw {cell.attempt + 1}" for cell in again[:LISTED]
        )
        more = f"; and {len(again) - LISTED} more" if len(again) > LISTED else ""
        text = f"{draws} draws of {len(again)} controls diverged before ({named}{more})"
        yield Remark("Drawn again", text)


def _failed(record: Record) -> Iterable[Remark]:
    if record.final and len(record.seeds) < record.task.seeds:
        text = f"{len(record.seeds)} of the task's {record.task.seeds} published seeds"
        yield Remark("Incomplete", text, warns=True)
    kinds = ("ticket", "untrained") if is_untrained(record) else ("ticket",)
    tickets = [cell for cell in record.cells if cell.kind in kinds and cell.schedule == 1]
    wanted = len(kinds) * len(record.seeds) * len(record.task.ladder)
    if lost := wanted - sum(cell.status == "ok" for cell in tickets):
        text = f"{lost} of {wanted} tickets missing or failed: they score chance"
        yield Remark("Incomplete", text, warns=True)
    for search in record.searches:
        if search.status != "ok":
            text = f"search of seed {search.seed}: {plain(search.reason) or 'no reason given'}"
            yield Remark("Failed", text, warns=True)
    if record.final and not record.transfer and not is_untrained(record):
        yield Remark("No transfer", "tickets were not carried to other depths")
    if record.transfer and record.transfer.reason:
        yield Remark("No transfer", plain(record.transfer.reason), warns=not is_untrained(record))
    for cell in failures(record):
        yield Remark("Failed", failure(cell), warns=True)


def failures(record: Record) -> list[Cell | Carried]:
    """Return cells without a result, at the task's depth and at others."""
    return [cell for cell in _every(record) if cell.status != "ok"]


def _every(record: Record) -> list[Cell | Carried]:
    return [*record.cells, *(record.transfer.cells if record.transfer else ())]


def failure(cell: Cell | Carried) -> str:
    """Say which cell has no result, and why."""
    return f"{_told_place(cell)}: {cell.status}: {plain(cell.reason) or 'no reason given'}"


def _told_place(cell: Cell | Carried) -> str:
    place = f"{cell.kind}, {percent(cell.density)} % density, seed {cell.seed}"
    if isinstance(cell, Carried):
        place = f"{place}, depth {cell.depth}"
    return place + (f", T/{cell.schedule}" if cell.schedule > 1 else "")
