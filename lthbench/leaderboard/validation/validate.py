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

from lthbench.errors import CheckFailed, UsageError
from lthbench.io.untrusted import shown
from lthbench.leaderboard.validation import parallel, pull_request
from lthbench.leaderboard.validation.files import (
    Finding,
    check_bundle,
    check_place,
    check_record,
)
from lthbench.leaderboard.validation.record_rules import rules

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
