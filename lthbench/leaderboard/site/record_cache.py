"""Records for the site: each is read and checked once, and what its other pages need is kept.

A thousand records are a hundred megabytes of JSON; a board of whole `Record`s would hold ten times
that. So a record goes through one process that checks it, writes its page and keeps all but its
cells, under the digest of its file: a build after one more record reads that record alone.
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
KEY = 80  # bytes of a line that name what is kept in it
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
        """What the ledger's lines come to."""
        found = self.ledger.entries.get(self.raw)
        return vars(found) if found else None

    @property
    def state(self) -> str:
        """The digest of what the ledger says of it."""
        return digest(canonical_json([list(self.lines), self.standing]))


def sources(folder: Path) -> tuple[Source, ...]:
    """Every record's file of a leaderboard's folder, by task and name, and the ledger's say.

    Raises:
        RecordError: for an accepted entry without a file, or a folder that no task can have.
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
    """The entry with its whole record; its aggregates computed again unless that was done."""
    data = read_bytes(source.path)
    if digest(data) != source.raw:
        raise RecordError(f"{source.path}: changed while the site was built; build it again")
    record = parse_record(data, source.path)
    if not checked:
        check_aggregates(record, record.model_dump(mode="json"), source.path)
    return entry_of(folder, source, record)


def entry_of(folder: Path, source: Source, record: Record) -> Entry:
    """A record with what the ledger says of it."""
    return entries.entry_of(folder, source.path, record, source.raw, source.ledger, source.lines)


def board(folder: Path, found: Iterable[Entry], ledger: Ledger) -> Board:
    """A board of entries."""
    ordered = sorted(found, key=lambda entry: (entry.record.task.name, entry.id))
    return Board(tuple(ordered), ledger, entries.references(folder))


# What is kept of a record


def lean(record: Record) -> dict[str, Any]:
    """A record as plain tables without cells, but for its tickets' masks, nor what else stands on
    the entry's own page alone: controls, the parts of what was carried, where it was run."""
    where = {"environment", "environments", "times"}
    left_out = {"cells", "fingerprints", "searches", "transfer", *where}
    table = record.model_dump(mode="json", exclude=left_out)
    table["aggregates"] = lean_aggregates(table["aggregates"])
    table["tickets"] = [[*place, *held] for place, held in copies.tickets(record).items()]
    return table


def lean_aggregates(table: Mapping[str, Any]) -> dict[str, Any]:
    """Aggregates without those of controls, and without what the entry's own page alone shows."""
    made = {name: found for name, found in table.items() if name != "measures"}
    made["rungs"] = [{k: rung[k] for k in ("density", "ticket")} for rung in made["rungs"]]
    if made.get("transfer"):
        rows = made["transfer"]["rows"]
        kept = [{k: row[k] for k in ("depth", "density", "points")} for row in rows]
        made["transfer"] = {**made["transfer"], "rows": kept}
    return made


def fattened(table: Mapping[str, Any]) -> Record:
    """A record with hardly a cell, for all that reads aggregates or compares masks; it was checked
    when it was kept."""
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
    # What tells an untrained ticket's record from another is that it has such a cell.
    untrained = "untrained" in table["aggregates"]
    made["cells"] = (*tickets, *([Cell.model_construct(kind="untrained")] if untrained else []))
    made |= {"fingerprints": {}, "searches": (), "environment": {}, "times": {}, "transfer": None}
    if table.get("reference"):
        made["reference"] = Frozen.model_construct(**table["reference"])
    if table.get("bundle"):
        made["bundle"] = BundleEntry.model_construct(**table["bundle"])
    return Record.model_construct(**made)


def read_kept(out: Path, stamp: str) -> dict[str, bytes]:
    """What an earlier build with the same code kept, as JSON, by the digest of a record's file."""
    try:
        first, *lines = (out / KEPT).read_bytes().splitlines()
        if json.loads(first) != stamp:
            return {}
        return {line[:KEY].decode("ascii").strip(): line[KEY:] for line in lines}
    except (OSError, ValueError):
        return {}


def packed(kept: Mapping[str, bytes], stamp: str) -> bytes:
    """The bytes of the file that `read_kept` reads: a line a record, which are not parsed again."""
    lines = (name.ljust(KEY).encode("ascii") + data for name, data in sorted(kept.items()))
    return b"\n".join([canonical_json(stamp).rstrip(), *lines])


def by_task(listed: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries by the name of their task, in order."""
    found: dict[str, list[Entry]] = {}
    for entry in listed:
        found.setdefault(entry.record.task.name, []).append(entry)
    return found
