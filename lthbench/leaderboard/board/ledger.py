"""The ledger of a board: one line per act, each with the digest of the previous line.

Accepted entries are permanent: changing, moving or removing a line breaks the chain at that place,
and each act must be permitted by the lines before it. Lines truncated at the end leave a valid
chain; only an older head (a commit, a beacon) reveals the loss.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, digest, write_whole
from lthbench.io.untrusted import shown

Line = Mapping[str, Any]
NOTHING = "0" * 64  # digest of the absent first predecessor
LINE_LIMIT, LEDGER_LIMIT = 2**18, 2**27  # bytes
WHY_LIMIT = 400  # characters
LEVELS = (0, 1, 2, 3)
HEX = re.compile(r"[0-9a-f]{64}")
NAMES = {
    "task": re.compile(r"[a-z0-9][a-z0-9-]{0,60}"),
    "method": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}"),
}
COMMON = ("n", "previous", "act", "entry", "task", "method")
# Keys specific to each act.
ACTS: Mapping[str, tuple[str, ...]] = {
    "accept": ("nonce",),
    "supersede": ("of",),
    "retract": ("why",),
    "challenge": ("why", "by"),
    "level": ("level", "beacon", "report"),
}


@dataclass(frozen=True)
class Standing:
    """The state of one accepted entry, and the line at which it was accepted."""

    line: int
    task: str
    method: str
    level: int = 0
    retracted: bool = False
    superseded_by: str | None = None


@dataclass(frozen=True)
class Ledger:
    """The lines, and the resulting state.

    Attributes:
        head: sha256 of the last line; zeros if there is none.
        entries: The accepted entries by the digest of their record, in order.
    """

    lines: tuple[Line, ...] = ()
    head: str = NOTHING
    entries: Mapping[str, Standing] = field(default_factory=dict)

    def digests(self) -> tuple[str, ...]:
        """Return the sha256 of each line, in order: the possible beacons."""
        return (*(line["previous"] for line in self.lines[1:]), self.head)[: len(self.lines)]

    def of(self, entry: str) -> tuple[Line, ...]:
        """Return the lines about an entry, including those in which another replaced it."""
        return tuple(line for line in self.lines if entry in (line["entry"], line.get("of")))


def read(path: Path) -> Ledger:
    """Read the ledger from its file and check every line and link; a missing file is empty.

    Raises:
        RecordError: If a line is malformed or does not follow; names the first such line.
    """
    try:
        if path.stat().st_size > LEDGER_LIMIT:
            raise RecordError(f"{path}: larger than {LEDGER_LIMIT >> 20} MB; this is no ledger")
        data = path.read_bytes()
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; it must be a file of lines") from error
    return parse(data, str(path))


def parse(data: bytes, place: str = "ledger") -> Ledger:
    """Parse the ledger from bytes; `place` is its name in errors."""
    lines: list[Line] = []
    entries: dict[str, Standing] = {}
    beacons: dict[str, int] = {}  # digest of a line to its number
    head = NOTHING
    for number, raw in enumerate(_lines(data), 1):
        where = f"{place} line {number}"
        line = _line(raw, where)
        if line["previous"] != head:
            raise RecordError(
                f"{where}: follows {line['previous'][:8]}, but the line before it is {head[:8]}; "
                "the ledger was rewritten: restore it from the repository's history"
            )
        if line["n"] != number:
            raise RecordError(f"{where}: says that it is line {line['n']}; restore the ledger")
        _apply(entries, line, beacons, where)
        lines.append(line)
        head = digest(raw)
        beacons[head] = number
    return Ledger(tuple(lines), head, entries)


def append(ledger: Ledger, act: str, entry: str, task: str, method: str, **keys: Any) -> Ledger:
    """Return the ledger with one more line; the given one is unchanged.

    Args:
        ledger: The ledger to extend.
        act: Name of the act, a key of `ACTS`.
        entry: Digest of the entry's record.
        task: Name of the entry's task.
        method: Name of the entry's method.
        **keys: Keys specific to the act, see `ACTS`.

    Raises:
        RecordError: If the act does not follow from the previous lines.
    """
    number = len(ledger.lines) + 1
    line = {
        "n": number,
        "previous": ledger.head,
        "act": act,
        "entry": entry,
        "task": task,
        "method": method,
        **keys,
    }
    try:
        raw = canonical_json(line)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"ledger line {number}: cannot be written: {str(error)[:80]}") from error
    where = f"ledger line {number}"
    checked = _line(raw, where)
    entries = dict(ledger.entries)
    beacons = {raw: n for n, raw in enumerate(ledger.digests(), 1)} if act == "level" else {}
    _apply(entries, checked, beacons, where)
    return Ledger((*ledger.lines, checked), digest(raw), entries)


def write(path: Path, ledger: Ledger) -> None:
    """Write the ledger atomically."""
    write_whole(path, text(ledger))


def text(ledger: Ledger) -> bytes:
    """Return the bytes of a ledger's file."""
    return b"".join(canonical_json(line) for line in ledger.lines)


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield lines with their ends, which may only be newlines."""
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin) + 1 or len(data)
        yield data[begin:end]
        begin = end


def _line(raw: bytes, where: str) -> Line:
    """Parse one line; only its form is checked."""
    if len(raw) > LINE_LIMIT:
        raise RecordError(f"{where}: longer than {LINE_LIMIT >> 10} kB; restore the ledger")
    if not raw.endswith(b"\n"):
        raise RecordError(f"{where}: has no end; the file was cut off: restore the ledger")
    try:
        line = json.loads(raw)
        same = canonical_json(line) == raw
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON ({shown(str(error))}); restore the ledger") from error
    if not isinstance(line, dict) or not same:
        raise RecordError(f"{where}: not one canonical JSON object; restore the ledger")
    act = line.get("act")
    own = ACTS.get(act) if isinstance(act, str) else None
    if own is None:
        raise RecordError(f"{where} act: {shown(str(act), 40)!r} is none of {', '.join(ACTS)}")
    for key in (*COMMON, *own):
        if key not in line:
            raise RecordError(f"{where}: {act} needs {key}")
        if not _fits(key, line[key]):
            value = shown(str(line[key]), 40)
            raise RecordError(f"{where} {key}: {value!r} is not what {act} has there")
    if extra := sorted(set(line) - {*COMMON, *own}):
        raise RecordError(f"{where} {shown(extra[0], 40)!r}: no key of {act}")
    return line


def _fits(key: str, value: Any) -> bool:
    if key in ("previous", "entry", "of", "nonce"):
        return isinstance(value, str) and HEX.fullmatch(value) is not None
    if key == "beacon":  # levels 0 and 1 draw nothing
        return isinstance(value, str) and (not value or HEX.fullmatch(value) is not None)
    if key in ("n", "level"):
        return type(value) is int
    if key in ("report", "by"):
        return isinstance(value, dict)
    if key == "why":
        return isinstance(value, str) and value.isprintable() and len(value) <= WHY_LIMIT
    if key in NAMES:
        return isinstance(value, str) and NAMES[key].fullmatch(value) is not None
    return True


def _apply(
    entries: dict[str, Standing], line: Line, beacons: Mapping[str, int], where: str
) -> None:
    """Apply one line; RecordError if the previous lines do not permit it."""
    act, entry, here = line["act"], line["entry"], f"{where} {line['act']}"
    known = entries.get(entry)
    if act == "accept":
        if known is not None:
            raise RecordError(f"{here}: {entry[:8]} was accepted at line {known.line} already")
        entries[entry] = Standing(line["n"], line["task"], line["method"])
        return
    if known is None:
        raise RecordError(f"{here}: {entry[:8]} was never accepted; accept its record first")
    if (known.task, known.method) != (line["task"], line["method"]):
        raise RecordError(f"{here}: {entry[:8]} is {known.method} on {known.task}")
    if known.retracted and act != "challenge":
        raise RecordError(f"{here}: {entry[:8]} was retracted, and stays so")
    changes: dict[str, Any] = {}
    if act == "retract":
        changes = {"retracted": True}
    elif act == "supersede":
        _superseded(entries, line, known, here)
    elif act == "level":
        level, beacon = line["level"], line["beacon"]
        if level not in LEVELS:
            raise RecordError(f"{here}: level {level} is none of 0, 1, 2, 3")
        if (beacon or level >= 2) and beacons.get(beacon, 0) < known.line:
            raise RecordError(
                f"{here}: beacon {beacon[:8] or 'none'} is the digest of no line from "
                f"{entry[:8]}'s acceptance on (line {known.line}); verify with the ledger's head"
            )
        changes = {"level": max(level, known.level)}
    entries[entry] = Standing(**{**vars(known), **changes})


def _superseded(entries: dict[str, Standing], line: Line, known: Standing, here: str) -> None:
    """Mark the older entry as replaced by the newer one; this way no cycle can form."""
    of = line["of"]
    older = entries.get(of)
    if older is None:
        raise RecordError(f"{here}: {of[:8]} was never accepted, so it cannot be superseded")
    if (older.task, older.method) != (known.task, known.method):
        raise RecordError(
            f"{here}: {of[:8]} is {older.method} on {older.task}, not {known.method} on "
            f"{known.task}; an entry takes the place of one of the same method and task"
        )
    if older.line >= known.line:
        raise RecordError(f"{here}: {of[:8]} is not older than {line['entry'][:8]}")
    if older.superseded_by or older.retracted:
        gone = "superseded" if older.superseded_by else "retracted"
        raise RecordError(f"{here}: {of[:8]} was {gone} already")
    entries[of] = Standing(**{**vars(older), "superseded_by": line["entry"]})
