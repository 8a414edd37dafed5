"""Records for the site: each is read and checked once, and what its other pages need is kept.

A thousand records are a hundred megabytes of JSON, and a board of whole `Record`s would take ten
times that. So one process checks each record, writes its page and keeps everything except its
cells, by the digest of its file: a build with one more record reads only that record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.board import copies, entries
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.ledger import NOTHING, Ledger
from lthbench.records.schema import (
    BundleEntry,
    Cell,
    Frozen,
    MethodEntry,
    Record,
    TaskEntry,
    check_aggregates,
    parse_record,
    read_bytes,
)

KEPT = ".build.records"  # beside the site's list of pages
KEY = 80  # bytes of a line that name its contents
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")


@dataclass(frozen=True)
class Source:
    """A record's file, its digest, and the ledger's lines about it."""

    path: Path
    raw: str
    ledger: Ledger
    lines: tuple[Mapping[str, Any], ...]

    @property
    def standing(self) -> Mapping[str, Any] | None:
        """The state that results from the ledger's lines."""
        found = self.ledger.entries.get(self.raw)
        return vars(found) if found else None

    @property
    def state(self) -> str:
        """The digest of that state."""
        return digest(canonical_json([list(self.lines), self.standing]))


def sources(folder: Path) -> tuple[Source, ...]:
    """List the record files of a leaderboard's folder, by task and name, with their ledger lines.

    Raises:
        RecordError: If an accepted entry has no file, or a folder cannot be a task's.
    """
    ledger = ledgers.read(folder / entries.LEDGER)
    told: dict[str, list[Mapping[str, Any]]] = {}
    for line in ledger.lines:
        for name in {line["entry"], line.get("of", line["entry"])}:
            told.setdefault(name, []).append(line)
    found = []
    for path in sorted(folder.glob("records/*/*.json")):
        if not SLUG.fullmatch(path.parent.name):
            raise RecordError(f"{path}: {path.parent.name!r} is no task's name; remove the folder")
        raw = digest(read_bytes(path))
        standing = ledger.entries.get(raw)
        own = Ledger((), NOTHING, {raw: standing} if standing else {})
        found.append(Source(path, raw, own, tuple(told.get(raw, ()))))
    there = {source.raw for source in found}
    for lost, standing in ledger.entries.items():
        if lost not in there:
            raise RecordError(
                f"{folder / entries.LEDGER} line {standing.line}: {standing.method} "
                f"{lost[:8]} was accepted, but records/{standing.task} holds no such record; "
                "restore it"
            )
    return tuple(found)


def whole(folder: Path, source: Source, *, checked: bool) -> Entry:
    """Read the entry with its whole record; recompute its aggregates unless already checked."""
    data = read_bytes(source.path)
    if digest(data) != source.raw:
        raise RecordError(f"{source.path}: changed while the site was built; build it again")
    record = parse_record(data, source.path)
    if not checked:
        check_aggregates(record, source.path)
    return entry_of(folder, source, record)


def entry_of(folder: Path, source: Source, record: Record) -> Entry:
    """Combine a record with its ledger state."""
    return entries.entry_of(folder, source.path, record, source.raw, source.ledger, source.lines)


def board(folder: Path, found: Iterable[Entry], ledger: Ledger) -> Board:
    """Assemble a board of entries."""
    ordered = sorted(found, key=lambda entry: (entry.record.task.name, entry.id))
    return Board(tuple(ordered), ledger, entries.references(folder))


# What is kept of a record


def lean(record: Record) -> dict[str, Any]:
    """Return a record as plain tables without what only the entry's own page shows.

    Cells are dropped except for the tickets' masks, as is the environment.
    """
    where = {"environment", "environments", "times"}
    left_out = {"cells", "fingerprints", "searches", "transfer", *where}
    table = record.model_dump(mode="json", exclude=left_out)
    table["tickets"] = [[*place, *held] for place, held in copies.tickets(record).items()]
    return table


def fattened(table: Mapping[str, Any]) -> Record:
    """Rebuild a record from its kept part, for code that reads aggregates or compares masks.

    It has hardly any cells, and was checked when it was kept.
    """
    made = dict(table)
    names = ("seed", "density", "masks", "sketch")
    tickets = [
        Cell.model_construct(kind="ticket", **dict(zip(names, row, strict=True)))
        for row in made.pop("tickets")
    ]
    made["method"] = MethodEntry.model_construct(**table["method"])
    made["task"] = TaskEntry.model_construct(
        **{**table["task"], "ladder": tuple(table["task"]["ladder"])}
    )
    made["seeds"] = tuple(table["seeds"])
    # Such a cell is what distinguishes an untrained ticket's record.
    untrained = "untrained" in table["aggregates"]
    made["cells"] = (*tickets, *([Cell.model_construct(kind="untrained")] if untrained else []))
    made |= {"fingerprints": {}, "searches": (), "environment": {}, "times": {}, "transfer": None}
    if table.get("reference"):
        made["reference"] = Frozen.model_construct(**table["reference"])
    if table.get("bundle"):
        made["bundle"] = BundleEntry.model_construct(**table["bundle"])
    return Record.model_construct(**made)


def read_kept(out: Path, stamp: str) -> dict[str, bytes]:
    """Read what an earlier build with the same code kept, as JSON, by the record file's digest."""
    try:
        first, *lines = (out / KEPT).read_bytes().splitlines()
        if json.loads(first) != stamp:
            return {}
        return {line[:KEY].decode("ascii").strip(): line[KEY:] for line in lines}
    except (OSError, ValueError):
        return {}


def packed(kept: Mapping[str, bytes], stamp: str) -> bytes:
    """Return the bytes of the file that `read_kept` reads.

    One line per record, so that unchanged ones need no parsing.
    """
    lines = (name.ljust(KEY).encode("ascii") + data for name, data in sorted(kept.items()))
    return b"\n".join([canonical_json(stamp).rstrip(), *lines])


def by_task(listed: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return entries by the name of their task, in order."""
    found: dict[str, list[Entry]] = {}
    for entry in listed:
        found.setdefault(entry.record.task.name, []).append(entry)
    return found
