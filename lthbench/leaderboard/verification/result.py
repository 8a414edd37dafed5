"""The result of a verification, as shown and as stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lthbench.errors import CheckFailed
from lthbench.io.paths import canonical_json, write_whole
from lthbench.protocol.constants import LEVELS
from lthbench.report.formats import plain

Report: TypeAlias = Mapping[
    str, Any
]  # of one task, as JSON: the input of `lthbench leaderboard accept`
Say = Callable[[str], None]  # receives progress messages


def quiet(done: str) -> None:
    """Ignore a progress message."""


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        ok: False rejects; None is informational.
    """

    task: str
    level: int
    ok: bool | None
    what: str


@dataclass(frozen=True)
class Verified:
    """All findings on one submission, up to the requested level.

    Attributes:
        reports: For each task, the input of `lthbench leaderboard accept --verified`.
    """

    target: str
    level: int
    findings: tuple[Finding, ...]
    reports: tuple[Report, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was rejected."""
        return all(finding.ok is not False for finding in self.findings)

    def text(self) -> str:
        """Return one line per check, and the outcome."""
        words = {True: "ok", False: "REFUSED", None: "told"}
        rows = [
            f"{f.task}  level {f.level} {LEVELS[f.level]}  {words[f.ok]}: {plain(f.what)}"
            for f in self.findings
        ]
        outcome = "holds" if self.ok else "does not hold"
        return "\n".join([*rows, f"{plain(self.target)}: level {self.level} {outcome}"])

    def json(self) -> str:
        """Return everything as one line of JSON."""
        table = {
            "target": self.target,
            "level": self.level,
            "ok": self.ok,
            "findings": [vars(finding) for finding in self.findings],
            "reports": list(self.reports),
        }
        return json.dumps(table, allow_nan=False)

    def demand(self) -> None:
        """Raise CheckFailed with the first rejection, if there is one."""
        refused = [finding for finding in self.findings if finding.ok is False]
        if refused:
            first = refused[0]
            raise CheckFailed(
                f"{plain(self.target)}: {first.task}: level {first.level}: {plain(first.what)}"
            )

    def write(self, path: Path) -> None:
        """Write the reports, for `lthbench leaderboard accept --verified`."""
        write_whole(path, canonical_json({"reports": list(self.reports)}))
