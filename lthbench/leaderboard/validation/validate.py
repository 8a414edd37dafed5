"""Level 0: what is checked of records and bundles in seconds, without torch.

Nothing of a submission is run. This is what `lthbench validate` does, and the leaderboard's own CI.
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
    """What was found of one file.

    Attributes:
        path: as it may be shown, on one line.
        task: of a record; of a bundle all of its tasks.
        what: which rule it breaks, or what could not be looked at where it breaks none.
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
        """One line a finding, and one that counts them; where some are refused `demand` does."""
        lines = [f"{'ok     ' if f.ok else 'REFUSED'}  {f.path}: {f.what}" for f in self.findings]
        return "\n".join(lines if self._refused() else [*lines, self._counted()])

    def json(self) -> str:
        """The same for programs."""
        table = {"ok": self._refused() == 0, "findings": [asdict(f) for f in self.findings]}
        return json.dumps(table, sort_keys=True)

    def demand(self) -> None:
        """Raises CheckFailed unless every finding is ok."""
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
    """Check record files, bundles, and folders of records; files are looked at in parallel.

    Args:
        since: a revision of the repository that the first path lies in: HEAD may add records since
            then, and nothing else; those, as they were committed, are what is checked of a folder.

    Raises:
        UsageError: for a path that is not there, an evaluation's folder, or a revision that is
            none.
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
    """What is found of each record that HEAD adds, as it was committed; and what else it changes.

    The working tree, which may hold other bytes under the same names, is not looked at.
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
    """One record or bundle."""
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
    """A record that is only read, its aggregates computed again."""
    try:
        return Finding(str(path), read_record(path).task.name, True, "read")
    except LthbenchError as error:
        return Finding(str(path), "", False, str(error))


def check_record(path: Path) -> Record:
    """A record's file by every rule of level 0.

    Raises:
        RecordError: naming the file, the place in it and the rule.
    """
    if path.is_symlink():
        raise RecordError(f"{path}: a symbolic link; a record is a file of its own")
    data = read_bytes(path)
    record = parse_record(data, path)
    try:
        known = check_claims(record)
        table = record.model_dump(mode="json")
        _check_canonical(record, data)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    check_place(path, record, digest(data))
    check_aggregates(record, table, path)
    try:
        record_rules.body(record, known)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    return record


def check_place(path: Path, record: Record, raw: str) -> None:
    """That a record's file has the name that follows from it; `raw` is the file's digest.

    Raises:
        RecordError: naming the name that it must have.
    """
    name = f"{record.method.name}--{raw[:8]}.json"
    folder = path.absolute().parent.name
    if (folder, path.name) != (record.task.name, name):
        raise RecordError(
            f"{path}: must be {shown(record.task.name)}/{name}: a record's file is named by its "
            "task, its method and its own digest; one that was changed is another record"
        )


def check_bundle(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A bundle by every rule of level 0: its form, its records, tickets and answers.

    Returns:
        Its tasks, and what could not be checked here.

    Raises:
        RecordError: naming the member and the rule.
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
    """The records and bundles that a path is or holds: `*.json`, `*/*.json`, `*.zip`."""
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
    records = path / "records"  # of a whole leaderboard's folder, which holds references too
    folder = records if records.is_dir() else path
    found = sorted((*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*.zip")))
    if not found and folder == path:
        raise UsageError(f"{shown(str(path), 200)}: no records here; name a record or a bundle")
    yield from found


def _without(said: str, path: Path) -> str:
    return said.removeprefix(f"{path}: ")
