"""Level 0: the checks on records and bundles that take seconds and need no torch.

Nothing from a submission is run. Used by `lthbench validate` and by the leaderboard's own CI.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lthbench.errors import CheckFailed, LthbenchError, RecordError, UsageError
from lthbench.io.paths import digest
from lthbench.io.untrusted import shown
from lthbench.leaderboard.validation import record_rules
from lthbench.leaderboard.validation.claims import check as check_claims
from lthbench.leaderboard.validation.record_rules import rules
from lthbench.records.schema import (
    Record,
    check_aggregates,
    file_bytes,
    parse_record,
    read_bytes,
    read_record,
)

__all__ = [
    "Finding",
    "Validated",
    "check_bundle",
    "check_place",
    "check_record",
    "rules",
    "validate",
]


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


@dataclass(frozen=True)
class Validated:
    """Every finding, in the order of the paths."""

    findings: tuple[Finding, ...]

    def text(self) -> str:
        """Return one line per finding and a count, which `demand` gives if some are rejected."""
        lines = [f"{'ok     ' if f.ok else 'REFUSED'}  {f.path}: {f.what}" for f in self.findings]
        return "\n".join(lines if self._refused() else [*lines, self._counted()])

    def json(self) -> str:
        """Return the same as JSON."""
        table = {"ok": self._refused() == 0, "findings": [asdict(f) for f in self.findings]}
        return json.dumps(table, sort_keys=True)

    def demand(self) -> None:
        """Raise CheckFailed unless every finding is ok."""
        if self._refused():
            raise CheckFailed(self._counted())

    def _refused(self) -> int:
        return sum(not finding.ok for finding in self.findings)

    def _counted(self) -> str:
        number, refused = len(self.findings), self._refused()
        if not number:
            return "nothing to validate"
        return f"{number - refused} of {number} valid" + (f", {refused} refused" if refused else "")


def validate(paths: Sequence[Path], since: str | None = None) -> Validated:
    """Check record files, bundles, and folders of records, in parallel.

    Args:
        paths: Files and folders to check.
        since: A revision of the first path's repository. HEAD may only have added records since,
            and of a folder only those are checked, as committed.

    Raises:
        UsageError: If a path does not exist or is an evaluation's folder, or the revision is
            invalid.
    """
    from lthbench.leaderboard.validation import parallel

    files = [file for path in paths if since is None or not path.is_dir() for file in _files(path)]
    unique = {_absolute(file): file for file in files}
    if since is None:
        return Validated(tuple(parallel.findings(list(unique.values()))))
    added, refused = _committed(since, paths[0] if paths else Path())
    named = [file for place, file in unique.items() if place not in added]
    return Validated((*refused, *parallel.findings(named), *added.values()))


def _committed(revision: str, place: Path) -> tuple[dict[Path, Finding], tuple[Finding, ...]]:
    """Return the finding for each record that HEAD adds, as committed, and HEAD's other changes.

    The working tree, which may hold other bytes under the same names, is ignored.
    """
    from lthbench.leaderboard.validation import parallel, pull_request

    change = pull_request.since(revision, place)
    with tempfile.TemporaryDirectory(prefix="lthbench-") as folder:
        found = parallel.findings(pull_request.write(change, Path(folder)))
    places = [change.top / record.path for record in change.added]
    added = {
        _absolute(place): replace(finding, path=shown(str(place), 300))
        for place, finding in zip(places, found, strict=True)
    }
    return added, tuple(Finding(shown(name, 300), "", False, why) for name, why in change.refused)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100


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
        known = check_claims(record)
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


def _files(path: Path) -> Iterator[Path]:
    """Yield the records and bundles that a path is or holds: `*.json`, `*/*.json`, `*.zip`."""
    if not path.is_dir():
        if not path.is_symlink() and not path.exists():
            raise UsageError(f"{shown(str(path), 200)}: no such file or folder")
        yield path
        return
    if (path / "evaluation.json").is_file() and (path / "method.py").is_file():
        raise UsageError(
            f"{shown(str(path), 200)}: an evaluation's folder; `lthbench submit "
            f"{shown(shlex.quote(str(path)), 200)}` makes the record that the leaderboard takes"
        )
    records = path / "records"  # in a complete leaderboard folder, which holds references too
    folder = records if records.is_dir() else path
    found = sorted((*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*.zip")))
    if not found and folder == path:
        raise UsageError(f"{shown(str(path), 200)}: no records here; name a record or a bundle")
    yield from found


def _without(said: str, path: Path) -> str:
    return said.removeprefix(f"{path}: ")
