"""The entries of a board: the records of a folder, and what the ledger says about each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lthbench.errors import LthbenchError, RecordError, nearest
from lthbench.io.paths import cache, digest, shipped, write_whole
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.board.ledger import Ledger
from lthbench.leaderboard.validation import parallel
from lthbench.leaderboard.validation.validate import check_place
from lthbench.records import aggregate
from lthbench.records.reference import Reference
from lthbench.records.schema import Record, parse_record, read_bytes

LEDGER = "ledger.jsonl"
NAMED = 4  # entries listed in an error
State = Literal["accepted", "listed", "superseded", "retracted"]


@dataclass(frozen=True)
class Entry:
    """One record on the board.

    Attributes:
        id: The method's name and the first 8 digits of the record's digest, as imp--4139c785.
        digest: sha256 of the record's file.
        file: Its path in the leaderboard's folder.
        level: The highest level in the ledger; 0 without one.
        state: "listed" where the ledger does not mention it yet.
        of: The id of the entry that replaced it.
        challenges: Ledger lines that challenge it.
        lines: All ledger lines about it.
    """

    id: str
    digest: str
    file: str
    record: Record
    level: int
    state: State
    of: str | None
    challenges: tuple[Mapping[str, Any], ...]
    lines: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Board:
    """All entries, by task and then by id, the ledger, and the references by task."""

    entries: tuple[Entry, ...]
    ledger: Ledger
    references: Mapping[str, Reference]


def load(folder: Path | None = None) -> Board:
    """Load and check the board of a leaderboard's folder, the shipped one by default.

    Raises:
        RecordError: If a record, the ledger or a reference is invalid.
    """
    folder = folder or shipped("leaderboard")
    ledger = ledgers.read(folder / LEDGER)
    paths = sorted(folder.glob("records/*/*.json"))
    told: dict[str, list[Mapping[str, Any]]] = {}
    for line in ledger.lines:
        for name in {line["entry"], line.get("of", line["entry"])}:
            told.setdefault(name, []).append(line)
    entries = [
        entry_of(folder, path, record, raw, ledger, tuple(told.get(raw, ())))
        for path, record, raw in _read(paths)
    ]
    there = {entry.digest for entry in entries}
    for lost, standing in ledger.entries.items():
        if lost not in there:
            raise RecordError(
                f"{folder / LEDGER} line {standing.line}: {standing.method} {lost[:8]} was "
                f"accepted, but records/{standing.task} holds no such record; restore it"
            )
    entries.sort(key=lambda entry: (entry.record.task.name, entry.id))
    return Board(tuple(entries), ledger, references(folder))


def _read(paths: Sequence[Path]) -> Iterator[tuple[Path, Record, str]]:
    """Yield every record with the digest of its file; aggregates are checked only once.

    Files with correct aggregates are cached by digest; where the cache cannot be read or written,
    all aggregates are recomputed.
    """
    known = _remembered()
    files = [(path, read_bytes(path)) for path in paths]
    digests = [digest(data) for _, data in files]
    fresh = [path for path, raw in zip(paths, digests, strict=True) if raw not in known]
    for finding in parallel.findings(fresh, "aggregates"):
        if not finding.ok:
            raise RecordError(finding.what)
    if fresh:
        _remember(known | set(digests))
    for (path, data), raw in zip(files, digests, strict=True):
        yield path, parse_record(data, path), raw


def _memory() -> Path:
    return cache() / "board" / f"right-by-scorer-{aggregate.VERSION}.txt"


def _remembered() -> frozenset[str]:
    try:
        lines = _memory().read_text(encoding="ascii").split("\n")
    except (OSError, ValueError):
        return frozenset()
    return frozenset(line for line in lines if len(line) == len(ledgers.NOTHING))


def _remember(digests: Iterable[str]) -> None:
    with suppress(LthbenchError, OSError):
        write_whole(_memory(), "".join(f"{raw}\n" for raw in sorted(digests)).encode())


def find(board: Board, name: str) -> Entry:
    """Return the entry of an id, of 8 or more leading digits of its digest, or of a record's path.

    Raises:
        RecordError: If there is none, naming the nearest one, or more than one.
    """
    found = [entry for entry in board.entries if _is(entry, name)]
    if len(found) == 1:
        return found[0]
    shown = name if len(name) <= 80 else f"{name[:79]}…"
    if found:
        files = ", ".join(entry.file for entry in found[:3])
        raise RecordError(f"entry {shown!r}: is {len(found)} entries, {files}; name the file")
    hint = nearest(name, (entry.id for entry in board.entries))
    method = name.partition("--")[0]
    named = [e for e in board.entries if e.record.method.name == method]
    if named:
        ids = ", ".join(f"{e.id} ({e.record.task.name})" for e in named[:NAMED])
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        raise RecordError(f"no entry {shown!r}{hint}; entries of {method}: {ids}{more}")
    raise RecordError(f"no entry {shown!r}{hint}; see `lthbench leaderboard`")


def _is(entry: Entry, name: str) -> bool:
    if name == entry.id:
        return True
    if re.fullmatch(r"[0-9a-f]{8,64}", name):
        return entry.digest.startswith(name)
    return name.endswith(".json") and Path(name).parts[-2:] == Path(entry.file).parts[-2:]


def entry_of(
    folder: Path,
    path: Path,
    record: Record,
    raw: str,
    ledger: Ledger,
    lines: tuple[Mapping[str, Any], ...],
) -> Entry:
    """Build one entry; `raw` is the digest of its file, `lines` are the ledger lines about it.

    Raises:
        RecordError: If the file's name does not follow from the record, or the ledger is about
            another record.
    """
    check_place(path, record, raw)
    standing = ledger.entries.get(raw)
    state: State = "listed"
    after = None
    if standing is not None:
        if (standing.task, standing.method) != (record.task.name, record.method.name):
            raise RecordError(
                f"{folder / LEDGER} line {standing.line}: calls {raw[:8]} {standing.method} on "
                f"{standing.task}, but it is {record.method.name} on {record.task.name}"
            )
        after = standing.superseded_by
        state = "retracted" if standing.retracted else "superseded" if after else "accepted"
    return Entry(
        id=path.stem,
        digest=raw,
        file=path.relative_to(folder).as_posix(),
        record=record,
        level=standing.level if standing else 0,
        state=state,
        of=f"{record.method.name}--{after[:8]}" if after else None,
        challenges=tuple(line for line in lines if line["act"] == "challenge"),
        lines=lines,
    )


def references(folder: Path) -> dict[str, Reference]:
    """Read the references of a leaderboard's folder, by task."""
    found = {}
    for path in sorted(folder.glob("reference/*.json")):
        try:
            found[path.stem] = Reference.model_validate(json.loads(path.read_bytes()))
        except (ValidationError, ValueError, OSError) as error:
            raise RecordError(f"{path}: not a reference: {str(error).splitlines()[0]}") from error
    return found
