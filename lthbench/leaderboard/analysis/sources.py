"""Sources of masks: an entry's bundle, a bundle's file, or an evaluation's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lthbench.errors import RecordError
from lthbench.leaderboard.analysis.overlap_nulls import Bools
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.bundle import archive, ticket_member
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.tickets import opened as opened_bundle
from lthbench.records.schema import Record, read_records, record_digest
from lthbench.tickets import ticket_files

Place = tuple[int, float]  # seed and density
Read = Callable[[Place], dict[str, Bools]]


@dataclass(frozen=True)
class Tickets:
    """One method's tickets on one task.

    Attributes:
        id: Of the entry; otherwise the method and the first 8 digits of its record's digest.
        digest: Digest of the record.
        entry: Whether it is an entry of the board.
        places: Seed and density of every ticket.
        masks: Reads one ticket's masks.
    """

    id: str
    digest: str
    entry: bool
    record: Record
    places: frozenset[Place]
    masks: Read


def tickets(name: str, board: Callable[[], Board]) -> dict[str, Tickets]:
    """Resolve an argument of `lthbench evidence` to tickets by task.

    Args:
        name: An entry, the file of a bundle or of an entry's record, or an evaluation's folder.
        board: Returns the board, read only if needed.

    Raises:
        RecordError: If `name` is none of these, or the tickets are not those of the record.
    """
    path = Path(name)
    if path.is_dir():
        return {r.task.name: _of_folder(path, r, board()) for r in read_records(path)}
    if path.suffix == ".zip":
        return _of_bundle(archive.read(path), board())
    entry = entries.find(board(), name)
    return {entry.record.task.name: _of_entry(entry)}


def _of_entry(entry: Entry) -> Tickets:
    task = entry.record.task.name
    opened = opened_bundle(entry)
    return Tickets(
        entry.id,
        entry.digest,
        True,
        entry.record,
        frozenset(archive.tickets(opened, task)),
        _from_bundle(opened, task),
    )


def _of_bundle(found: Bundle, board: Board) -> dict[str, Tickets]:
    named = {}
    for task in found.tasks:
        record = archive.record(found, task)
        named[task] = _named(
            record, board, frozenset(archive.tickets(found, task)), _from_bundle(found, task)
        )
    return named


def _from_bundle(found: Bundle, task: str) -> Read:
    return lambda place: archive.ticket(found, task, *place)[1]


def _of_folder(out: Path, record: Record, board: Board) -> Tickets:

    home = (out if out.name == record.task.name else out / record.task.name) / "tickets"
    digests = _digests(record)

    def read(place: Place) -> dict[str, Bools]:
        seed, density = place
        _, found, _ = ticket_files.read_ticket(home / f"seed{seed}", density)
        masks: dict[str, Bools] = {name: mask.numpy() for name, mask in found.items()}
        if ticket_member.mask_digest(masks) != digests[place]:
            raise RecordError(
                f"{home}/seed{seed}: the ticket at density {density:.4g} is not the one of the "
                "record; evaluate again into another folder"
            )
        return masks

    return _named(record, board, frozenset(digests), read)


def _digests(record: Record) -> Mapping[Place, str | None]:
    """Return the digest of the masks of every ticket in a record."""
    return {
        (cell.seed, cell.density): cell.masks
        for cell in record.cells
        if cell.kind == "ticket" and cell.schedule == 1 and cell.status != "missing"
    }


def _named(record: Record, board: Board, places: frozenset[Place], read: Read) -> Tickets:
    """Return tickets under the name of the entry that has this record, or under their own name."""
    plain = record_digest(record.model_copy(update={"bundle": None}))
    for entry in board.entries:
        same = entry.record.method == record.method and entry.record.task == record.task
        if same and record_digest(entry.record.model_copy(update={"bundle": None})) == plain:
            return Tickets(entry.id, entry.digest, True, entry.record, places, read)
    return Tickets(f"{record.method.name}--{plain[:8]}", plain, False, record, places, read)
