"""The checks of one record's or bundle's file by every rule of level 0.

Nothing from a submission is run, and no torch is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lthbench.errors import LthbenchError, RecordError
from lthbench.io.paths import digest
from lthbench.io.untrusted import shown
from lthbench.leaderboard.validation import claims, record_rules
from lthbench.records.schema import (
    Record,
    check_aggregates,
    file_bytes,
    parse_record,
    read_bytes,
    read_record,
)


@dataclass(frozen=True)
class Finding:
    """The finding for one file.

    Attributes:
        path: In printable form, on one line.
        task: Of a record; all tasks of a bundle.
        what: The rule it breaks; if none, what could not be checked.
    """

    path: str
    task: str
    ok: bool
    what: str


def check_file(path: Path) -> Finding:
    """Check one record or bundle."""
    place = shown(str(path), 300)
    try:
        if path.suffix == ".zip":
            tasks, remarks = check_bundle(path)
            return Finding(place, ", ".join(tasks), True, "; ".join(("valid", *remarks)))
        record = check_record(path)
        return Finding(place, record.task.name, True, "valid")
    except LthbenchError as error:
        return Finding(place, "", False, shown(_without(str(error), path), 400))


def read_file(path: Path) -> Finding:
    """Read a record and recompute its aggregates, without other checks."""
    try:
        return Finding(str(path), read_record(path).task.name, True, "read")
    except LthbenchError as error:
        return Finding(str(path), "", False, str(error))


def check_record(path: Path) -> Record:
    """Check a record's file by every rule of level 0.

    Raises:
        RecordError: If a rule is broken; names the file, the place in it and the rule.
    """
    if path.is_symlink():
        raise RecordError(f"{path}: a symbolic link; a record is a file of its own")
    data = read_bytes(path)
    record = parse_record(data, path)
    try:
        known = claims.check(record)
        _check_canonical(record, data)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    check_place(path, record, digest(data))
    check_aggregates(record, path)
    try:
        record_rules.body(record, known)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    return record


def check_place(path: Path, record: Record, raw: str) -> None:
    """Check that a record's file has the name that follows from it; `raw` is the file's digest.

    Raises:
        RecordError: If the name differs; gives the required name.
    """
    name = f"{record.method.name}--{raw[:8]}.json"
    folder = path.absolute().parent.name
    if (folder, path.name) != (record.task.name, name):
        raise RecordError(
            f"{path}: must be {shown(record.task.name)}/{name}: a record's file is named by its "
            "task, its method and its own digest; one that was changed is another record"
        )


def check_bundle(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check a bundle by every rule of level 0: its form, its records, tickets and answers.

    Returns:
        Its tasks, and what could not be checked here.

    Raises:
        RecordError: If a rule is broken; names the member and the rule.
    """
    from lthbench.leaderboard.validation.bundle_rules import check

    return check(path)


def _check_canonical(record: Record, data: bytes) -> None:
    try:
        same = file_bytes(record) == data
    except (ValueError, RecursionError) as error:
        raise RecordError(f"holds what is no JSON: {shown(str(error))}") from error
    if not same:
        raise RecordError(
            "not in canonical form (sorted keys once each, none that is as usual, no spaces, plain "
            "numbers, one last newline); take the file as `lthbench` wrote it"
        )


def _without(said: str, path: Path) -> str:
    return said.removeprefix(f"{path}: ")
