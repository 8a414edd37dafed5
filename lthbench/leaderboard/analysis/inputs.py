"""Resolution of the arguments of `lthbench compare`: records, and masks where available."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.errors import RecordError
from lthbench.leaderboard import tickets
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.standings import contenders
from lthbench.leaderboard.bundle import archive
from lthbench.records.schema import Record, read_record, read_records, record_digest
from lthbench.tickets import ticket_files

if TYPE_CHECKING:
    from torch import Tensor

Masks = Callable[[int, float], "dict[str, Tensor]"]  # by seed and density


@dataclass(frozen=True)
class Side:
    """One of the two sides: its records by task, and how to read its masks where available."""

    name: str
    records: Mapping[str, Record]
    masks: Mapping[str, Masks] = field(default_factory=dict)


def side(name: str, board: Callable[[], Board] | None = None) -> Side:
    """Resolve an argument of `lthbench compare`.

    Args:
        name: An entry or method of the board, a file, or an evaluation's folder.
        board: Returns the board, read only if needed; the shipped one by default.

    Raises:
        RecordError: If `name` matches nothing.
    """
    board, path = board or entries.load, Path(name)
    if path.is_dir():
        return _of_folder(path, read_records(path))
    if path.suffix == ".zip":
        found = archive.read(path)
        records = {task: archive.record(found, task) for task in found.tasks}
        return Side(_name(records), records, {task: _of_bundle(found, task) for task in records})
    if path.suffix == ".json" and path.is_file():
        return _of_file(path, board)
    known = board()
    for contender in contenders(known.entries, known.references):
        if contender.id == name:
            return _of_entries(name, list(contender.entries.values()))
    entry = entries.find(known, name)
    return _of_entries(entry.id, [entry])


def _of_file(path: Path, board: Callable[[], Board]) -> Side:
    """Resolve a record's file: an entry of the board, or a record in an evaluation's folder."""
    record = read_record(path)
    if path.name == "record.json":
        return _of_folder(path.parent.parent, [record])
    digest = record_digest(record)
    same = [entry for entry in board().entries if entry.digest == digest]
    return _of_entries(same[0].id, same) if same else Side(_one(record), {record.task.name: record})


def _of_folder(out: Path, records: Sequence[Record]) -> Side:
    by_task = {record.task.name: record for record in records}
    masks = {}
    for name, record in by_task.items():
        home = out if (out / "record.json").is_file() else out / name
        if (home / "tickets").is_dir():
            masks[name] = _of_tickets(home / "tickets", record)
    return Side(_name(by_task), by_task, masks)


def _of_tickets(home: Path, record: Record) -> Masks:
    digests = {(c.seed, c.density): c.masks for c in record.cells if c.kind == "ticket"}

    def read(seed: int, density: float) -> dict[str, Tensor]:
        from lthbench.tickets import masks

        _, found, _ = ticket_files.read_ticket(home / f"seed{seed}", density)
        if masks.digest(found) != digests[seed, density]:
            raise RecordError(
                f"{home}/seed{seed}: the ticket at density {density:.4g} is not the record's; "
                "evaluate again into another folder"
            )
        return found

    return read


def _of_bundle(found: archive.Bundle, task: str) -> Masks:
    def read(seed: int, density: float) -> dict[str, Tensor]:
        import torch

        _, held, _ = archive.ticket(found, task, seed, density)
        return {name: torch.from_numpy(mask) for name, mask in held.items()}

    return read


def _of_entries(name: str, chosen: Sequence[Entry]) -> Side:
    records = {entry.record.task.name: entry.record for entry in chosen}
    masks = {}
    for entry in chosen:
        if opened := _at_hand(entry):
            task = entry.record.task.name
            masks[task] = _of_bundle(opened, task)
    return Side(name, records, masks)


def _at_hand(entry: Entry) -> archive.Bundle | None:
    """Return an entry's bundle if it is on this machine; comparisons download nothing."""
    named = entry.record.bundle
    if named is None:
        return None
    record = entry.record.model_copy(update={"bundle": named.model_copy(update={"urls": ()})})
    here = replace(entry, record=record)
    try:
        tickets.bundle_of(here)
    except RecordError:
        return None
    return tickets.opened(here)


def _one(record: Record) -> str:
    return f"{record.method.name}--{record_digest(record)[:8]}"


def _name(records: Mapping[str, Record]) -> str:
    """Return the record's entry, or the method with the digest of its source."""
    first, *others = records.values()
    return f"{first.method.name}--{first.method.digest[:8]}" if others else _one(first)
