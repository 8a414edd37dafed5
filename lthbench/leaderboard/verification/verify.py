"""Verification of a submission: its files, its artefacts, retrained tickets, repeated searches.

Each level includes the lower ones. No code of a submission runs below level 3, and there only
inside a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.errors import RecordError, UsageError
from lthbench.leaderboard.board.criteria import Judged, floors
from lthbench.leaderboard.board.reproduction import Reproduced
from lthbench.leaderboard.verification.result import Finding, Report, Say, Verified, quiet
from lthbench.protocol.constants import LEVELS

if TYPE_CHECKING:
    from lthbench.leaderboard.board.entries import Board, Entry
    from lthbench.leaderboard.bundle.archive import Bundle
    from lthbench.protocol.task import Task
    from lthbench.records.reference import Reference
    from lthbench.records.schema import Record

__all__ = ["Finding", "Verified", "verify"]

BEACON = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Subject:
    """The subject of a verification: an entry of the board, a bundle, or both."""

    name: str
    board: Board
    entry: Entry | None
    bundle: Bundle | None

    def record(self, task: str) -> Record:
        """Return one task's record, from the entry if there is one."""
        from lthbench.leaderboard.bundle import archive

        if self.entry is not None:
            return self.entry.record
        assert self.bundle
        return archive.record(self.bundle, task)

    def digest(self, record: Record) -> str:
        """Return the digest by which the ledger knows the record."""
        from lthbench.records.schema import record_digest

        if self.entry is not None:
            return self.entry.digest
        for entry in self.board.entries:
            if entry.record.model_copy(update={"bundle": None}) == record:
                return entry.digest
        return record_digest(record)


@dataclass(frozen=True)
class Checked:
    """What came of one task at level 1 and above, and where it was checked."""

    environment: Mapping[str, str]
    judged: Judged | None = None
    reproduced: Reproduced | None = None

    def told(self) -> Report:
        """Return what the ledger stores of it."""
        table: dict[str, object] = {"cells": [], "environment": dict(self.environment)}
        if self.judged is not None:
            table |= asdict(self.judged)
        if self.reproduced is not None:
            table["reproduced"] = asdict(self.reproduced)
        return table


def verify(
    target: str,
    level: int,
    *,
    tasks: Sequence[str] = (),
    cells: int = 0,
    beacon: str | None = None,
    workers: int | None = None,
    allow_private: bool = False,
    say: Say = quiet,
) -> Verified:
    """Check a submission up to a level; a task rejected at one level is not checked at the next.

    Args:
        target: A bundle's file, or an entry of the board, whose bundle is then fetched.
        level: Highest level to check.
        tasks: Tasks of the bundle; all by default.
        cells: Minimum number of cells that level 2 retrains; its rule may require more.
        beacon: Determines cells and fresh seeds: 64 hexadecimal digits that were unknown when the
            bundle was made; the head of the board's ledger by default.
        workers: Training processes; one per core by default.
        allow_private: Whether the bundle may be on this machine or in a private network.
        say: Receives progress messages, for levels that take minutes.

    Raises:
        UsageError: If the arguments are invalid.
        RecordError: If the target is not found, or cannot be verified at this level.
        ResourceError: If this machine lacks something, such as bubblewrap at level 3.
    """
    if level not in range(len(LEVELS)):
        raise UsageError(f"--level {level}: 0 reported, 1 artefacts, 2 retrained or 3 reproduced")
    if cells < 0:
        raise UsageError(f"--cells {cells}: 0 or more")
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: 0 or more")
    if beacon is not None and not BEACON.fullmatch(beacon):
        raise UsageError("--beacon: 64 hexadecimal digits, as the ledger's head has")
    subject, findings = _opened(target, level, allow_private)
    if subject.bundle is None:
        return Verified(target, level, findings, _reports(subject, level, "", findings, {}))
    chosen = tuple(tasks) or ((subject.entry.record.task.name,) if subject.entry else ())
    if unknown := sorted(set(chosen) - set(subject.bundle.tasks)):
        raise UsageError(f"--task {unknown[0]}: the bundle has {', '.join(subject.bundle.tasks)}")
    lot = (beacon or subject.board.ledger.head) if level >= 2 else ""
    levels: Mapping[str, Checked] = {}
    if all(finding.ok for finding in findings) and level >= 1:
        names = chosen or subject.bundle.tasks
        found, levels = _levels(subject, names, level, cells, lot, workers, say)
        findings += found
    return Verified(target, level, findings, _reports(subject, level, lot, findings, levels))


def _opened(target: str, level: int, allow_private: bool) -> tuple[_Subject, tuple[Finding, ...]]:
    """Return the board and the subject, with the findings of level 0."""
    from lthbench.leaderboard.board import entries
    from lthbench.leaderboard.bundle import archive
    from lthbench.leaderboard.tickets import bundle_of, opened
    from lthbench.leaderboard.validation import validate

    board, path = entries.load(), Path(target)
    if path.is_dir():
        raise UsageError(f"{target}: a folder; name its bundle.zip, which `lthbench submit` makes")
    if path.suffix == ".zip" and not path.is_file():
        raise UsageError(f"{target}: no such file; name a bundle's file or an entry of the board")
    if path.is_file() and path.suffix not in (".zip", ".json"):
        raise UsageError(f"{target}: no bundle; `lthbench submit OUT` makes OUT/bundle.zip")
    if path.suffix == ".zip":
        try:
            validate.check_bundle(path)
            bundle = archive.read(path)
        except RecordError as error:
            return _Subject(target, board, None, None), (Finding("bundle", 0, False, str(error)),)
        told = f"{len(bundle.tasks)} records, their digests, scores and answers"
        return _Subject(target, board, None, bundle), (Finding("bundle", 0, True, told),)
    entry = entries.find(board, target)
    name = entry.record.task.name
    validate.rules(entry.record)
    fine = (Finding(name, 0, True, "schema, digests and scores"),)
    if level == 0:
        try:
            bundle_of(entry, allow_private=allow_private)
        except RecordError as error:  # the record was checked anyway
            unseen = Finding(name, 0, None, f"its bundle was not looked at: {error}")
            return _Subject(target, board, entry, None), (*fine, unseen)
    bundle = opened(entry, allow_private=allow_private)
    try:
        validate.check_bundle(bundle.path)
    except RecordError as error:
        return _Subject(target, board, entry, None), (Finding(name, 0, False, str(error)),)
    return _Subject(target, board, entry, bundle), fine


def _levels(
    subject: _Subject,
    tasks: Sequence[str],
    level: int,
    cells: int,
    beacon: str,
    workers: int | None,
    say: Say,
) -> tuple[tuple[Finding, ...], Mapping[str, Checked]]:
    """Run levels 1 and above, task by task; return the findings and what came of each."""
    from lthbench.evaluation.machine import environment
    from lthbench.leaderboard.verification import artefacts, retrain
    from lthbench.records.reference import load_reference

    bundle = subject.bundle
    assert bundle is not None
    records = {name: subject.record(name) for name in tasks}
    known: dict[str, tuple[Task, Reference | None]] = {}
    for name in tasks:
        task = _task(records[name])
        known[name] = task, load_reference(task)
        if level >= 2:
            floors(*known[name])  # before any training
    if level >= 3:
        from lthbench.evaluation.search import sandbox

        sandbox.demand(sandbox.Bounds())
    found: list[Finding] = []
    levels: dict[str, Checked] = {}
    for name in tasks:
        record, (task, reference) = records[name], known[name]
        levels[name] = Checked(environment())
        accepted = [
            entry
            for entry in subject.board.entries
            if entry.state == "accepted"
            and entry.record.task.digest == record.task.digest
            and entry.digest != subject.digest(record)
        ]
        mine = artefacts.check(bundle, task, record, accepted, near)
        say(f"{name}: artefacts looked at")
        if level >= 2 and _fine(mine):
            told, judged = retrain.check(
                bundle, task, record, reference, cells, beacon, workers, say
            )
            mine += told
            levels[name] = replace(levels[name], judged=judged)
        if level >= 3 and _fine(mine):
            from lthbench.leaderboard.verification import reproduce

            claim = reproduce.Claim(bundle, task, record, reference)
            finding, done = reproduce.check(claim, beacon, workers, say=say)
            mine.append(finding)
            levels[name] = replace(levels[name], reproduced=done)
        found += mine
    return tuple(found), levels


def _fine(findings: Sequence[Finding]) -> bool:
    return all(finding.ok is not False for finding in findings)


def _task(record: Record) -> Task:
    """Return the protocol that the record followed."""
    from lthbench.protocol.task import load_task

    task = load_task(record.task.name)
    if task.digest != record.task.digest:
        raise RecordError(
            f"{record.task.name}: the record follows another version of the protocol than this "
            "lthbench has; install the one that it was made with"
        )
    return task


def near(entry: Entry) -> Path | None:
    """Return an entry's bundle if it is on this machine; nothing is fetched."""
    from lthbench.leaderboard.tickets import bundle_of

    wanted = entry.record.bundle
    if wanted is None:
        return None
    here = wanted.model_copy(update={"urls": ()})
    try:
        return bundle_of(replace(entry, record=entry.record.model_copy(update={"bundle": here})))
    except RecordError:
        return None


def _reports(
    subject: _Subject,
    level: int,
    beacon: str,
    findings: Sequence[Finding],
    levels: Mapping[str, Checked],
) -> tuple[Report, ...]:
    """Return, for each task, the input of `leaderboard accept`."""
    bundle = subject.bundle
    told: list[Report] = []
    for name in levels or ((subject.entry.record.task.name,) if subject.entry else ()):
        mine = [f for f in findings if f.task in (name, "bundle")]
        report: Report = {
            **levels.get(name, Checked({})).told(),
            "entry": subject.digest(subject.record(name)),
            "task": name,
            "level": level,
            "beacon": beacon,
            "bundle": bundle.sha256 if bundle else None,
            "ok": _fine(mine),
            "found": [[f.level, f.ok, f.what] for f in mine],
            "lthbench": version("lthbench"),
        }
        told.append(report)
    return tuple(told)
