"""The only writer of the ledger: accepts records, their levels, challenges and retractions.

Run on the main branch only, by the board's maintainers. Each record is validated again, each report
is compared with the ledger and the record, and the ledger is written atomically or not at all.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lthbench.errors import RecordError, ResourceError, UsageError, nearest
from lthbench.io import git
from lthbench.io.paths import canonical_json, digest, shipped
from lthbench.io.untrusted import canonical, shown
from lthbench.leaderboard.board import criteria
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.board.entries import LEDGER
from lthbench.leaderboard.board.ledger import HEX, Ledger, Standing
from lthbench.leaderboard.validation.validate import check_record
from lthbench.protocol.task import load_suite, load_task, suite_names
from lthbench.records.reference import load_reference
from lthbench.records.schema import Record, parse_record, read_bytes

BRANCH = "main"
REPORT_LIMIT = 2**22  # maximum bytes of a report's file
NAMED = re.compile(r"(?:.*--)?([0-9a-f]{8,64})(?:\.json)?")


def accept(
    paths: Sequence[Path],
    *,
    supersedes: str | None = None,
    verified: Sequence[Path] = (),
    retract: str | None = None,
    challenge: str | None = None,
    why: str | None = None,
) -> list[str]:
    """Accept records, then reports of `lthbench verify`, then a challenge or retraction.

    Args:
        paths: Record files in the leaderboard's folder; for a challenge, the record that refutes.
        supersedes: The entry that the one record replaces.
        verified: Reports; for a challenge, the one that refutes.
        retract: An entry to retract.
        challenge: An entry to challenge.
        why: The reason for a retraction or challenge.

    Returns:
        One line for each line written to the ledger.

    Raises:
        UsageError: If the arguments conflict, or the branch is not main.
        RecordError: If a record or report is rejected; then nothing is written.
        ResourceError: If git does not answer, or another process is writing the ledger; then
            nothing is written.
    """
    _check_usage(paths, supersedes, verified, retract, challenge, why)
    folder = shipped("leaderboard")
    path = folder / LEDGER
    with _alone(path):
        before = ledgers.read(path)
        _check_place(folder, path, before)
        ledger = before
        if challenge is not None:
            ledger = _challenged(ledger, folder, challenge, why or "", paths, verified)
        else:
            for record in paths:
                ledger = _accepted(ledger, folder, record, supersedes)
            for report in verified:
                ledger = _levelled(ledger, folder, report)
        if retract is not None:
            entry, standing = _entry(ledger, retract)
            ledger = _told(ledger, "retract", entry, standing, why=_sentence(why or ""))
        _check_place(folder, path, before)  # reading records takes seconds
        ledgers.write(path, ledger)
    return [_line_told(line) for line in ledger.lines[len(before.lines) :]]


def _check_usage(
    paths: Sequence[Path],
    supersedes: str | None,
    verified: Sequence[Path],
    retract: str | None,
    challenge: str | None,
    why: str | None,
) -> None:
    if not (paths or verified or retract or challenge):
        raise UsageError("nothing to accept; name records, --verified, --retract or --challenge")
    if supersedes is not None and (len(paths) != 1 or challenge is not None):
        raise UsageError("--supersedes goes with exactly one record that is accepted")
    if bool(why) != bool(retract or challenge):
        raise UsageError("--why goes with --retract or --challenge, and each of them needs it")
    if retract is not None and challenge is not None:
        raise UsageError("--retract and --challenge exclude each other")
    if challenge is not None and len(paths) + len(verified) != 1:
        raise UsageError("--challenge needs one record, or one report by --verified, that refutes")


def _accepted(ledger: Ledger, folder: Path, path: Path, supersedes: str | None) -> Ledger:
    """Add one record, validated again."""
    records = (folder / "records").resolve()
    if records not in path.absolute().resolve().parents:
        raise RecordError(f"{path}: not under {records}; merge its pull request first")
    record = check_record(path)
    entry, name, task = digest(read_bytes(path)), record.method.name, record.task.name
    ranked = (load_suite(suite) for suite in suite_names())
    if not any(suite.ranked and task in suite.tasks for suite in ranked):
        raise RecordError(f"{path}: {task} is in no ranked suite, and so never on the board")
    if known := ledger.entries.get(entry):
        raise RecordError(f"{path}: was accepted already, at line {known.line} of the ledger")
    of = None if supersedes is None else _entry(ledger, supersedes)[0]
    same = [
        older
        for older, told in ledger.entries.items()
        if (told.task, told.method) == (task, name) and not (told.retracted or told.superseded_by)
        if _same_method(_record(folder, older, told), record)
    ]
    if same and of not in same:
        raise RecordError(
            f"{path}: {name}--{same[0][:8]} is on {task}'s board already, of the same source "
            f"and options; add --supersedes {name}--{same[0][:8]} to take its place"
        )
    # The line's digest may decide which of the entry's cells are drawn: without randomness in it, a
    # submitter could foresee the draw and choose a record that does well in it.
    nonce = secrets.token_hex(32)
    ledger = ledgers.append(ledger, "accept", entry, task, name, nonce=nonce)
    if of is not None:
        ledger = ledgers.append(ledger, "supersede", entry, task, name, of=of)
    return ledger


def _same_method(one: Record, other: Record) -> bool:
    """Return whether two records of one name are of one method: others may use the same name."""
    return (one.method.digest, one.method.options) == (other.method.digest, other.method.options)


def _levelled(ledger: Ledger, folder: Path, path: Path) -> Ledger:
    """Add the levels given in a report."""
    for report in _reports(path):
        entry, standing = _reported(ledger, folder, path, report)
        level = report["level"]
        if not report["ok"]:
            raise RecordError(
                f"{path}: level {level} of {_id(entry, standing)} does not hold; attach it by "
                f"--challenge {_id(entry, standing)} --verified {path} --why '…'"
            )
        if level == 0:
            raise RecordError(f"{path}: level 0 is what every accepted record has")
        if level >= 2 and (why := _unfounded(_record(folder, entry, standing), report)):
            raise RecordError(
                f"{path}: level {level} of {_id(entry, standing)} does not follow from it: {why}; "
                "write it by `lthbench verify`, and leave it as it is"
            )
        if any(line["act"] == "level" and line["report"] == report for line in ledger.of(entry)):
            raise RecordError(f"{path}: is in the ledger already")
        told = {"level": level, "beacon": report["beacon"], "report": report}
        ledger = _told(ledger, "level", entry, standing, **told)
    return ledger


def _unfounded(record: Record, report: Mapping[str, Any]) -> str | None:
    """Return why an "ok" report is not accepted; None if its cells support it."""
    task = load_task(record.task.name)
    if task.digest != record.task.digest:
        return f"{task.name} has another protocol now"
    return criteria.misfit(record, task, load_reference(task), report)


def _challenged(
    ledger: Ledger,
    folder: Path,
    name: str,
    why: str,
    paths: Sequence[Path],
    verified: Sequence[Path],
) -> Ledger:
    """Add a challenge by a negative report, or by another record of the same task."""
    entry, standing = _entry(ledger, name)
    by: dict[str, Any]
    if paths:
        record = check_record(paths[0])
        raw = digest(read_bytes(paths[0]))
        if record.task.name != standing.task or raw == entry:
            raise RecordError(f"{paths[0]}: is not another record of {standing.task}")
        by = {"record": raw, "method": record.method.name}
    else:
        reports = [r for r in _reports(verified[0]) if r["entry"] == entry]
        if len(reports) != 1:
            raise RecordError(f"{verified[0]}: holds no report of {_id(entry, standing)}")
        _reported(ledger, folder, verified[0], reports[0])
        if reports[0]["ok"]:
            raise RecordError(f"{verified[0]}: says that {_id(entry, standing)} holds")
        by = {"report": reports[0]}
    return _told(ledger, "challenge", entry, standing, why=_sentence(why), by=by)


def _reports(path: Path) -> list[dict[str, Any]]:
    """Read the reports in a file written by `lthbench verify --report`, and check their form."""
    again = "write it by `lthbench verify ENTRY --level N --report FILE`"
    try:
        with path.open("rb") as file:
            data = file.read(REPORT_LIMIT + 1)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; {again}") from error
    try:
        table = canonical(data, str(path), REPORT_LIMIT)
    except RecordError as error:
        raise RecordError(f"{path}: not a report; {again}") from error
    reports = table.get("reports", [table]) if isinstance(table, dict) else None
    if not isinstance(reports, list) or not reports:
        raise RecordError(f"{path}: holds no report; {again}")
    for report in reports:
        wrong = _misfit(report) if isinstance(report, dict) else "report"
        if wrong:
            raise RecordError(f"{path}: {wrong} of a report is missing or none; {again}")
    return reports


def _misfit(report: Mapping[str, Any]) -> str | None:
    """Return the first invalid key of a report; None if all are valid."""

    def is_hex(value: object) -> bool:
        return isinstance(value, str) and HEX.fullmatch(value) is not None

    checks: dict[str, Callable[[Any], bool]] = {
        "entry": is_hex,
        "task": lambda value: isinstance(value, str),
        "level": lambda value: type(value) is int and value in ledgers.LEVELS,
        "ok": lambda value: type(value) is bool,
        "beacon": lambda value: value == "" or is_hex(value),
        "bundle": lambda value: value is None or is_hex(value),
        "cells": lambda value: isinstance(value, list),
    }
    return next((key for key, fits in checks.items() if not fits(report.get(key, ...))), None)


def _reported(
    ledger: Ledger, folder: Path, path: Path, report: Mapping[str, Any]
) -> tuple[str, Standing]:
    """Return the accepted entry that a report is about; RecordError if they do not match."""
    entry, level = report["entry"], report["level"]
    standing = ledger.entries.get(entry)
    if standing is None:
        raise RecordError(f"{path}: {entry[:8]} is no accepted entry; accept its record first")
    if standing.task != report["task"]:
        raise RecordError(f"{path}: {_id(entry, standing)} is of {standing.task}")
    bundle = _record(folder, entry, standing).bundle
    named = bundle.sha256 if bundle else None
    if (level or report["bundle"]) and (named is None or report["bundle"] != named):
        raise RecordError(
            f"{path}: is of bundle {(report['bundle'] or 'none')[:8]}, {_id(entry, standing)} "
            f"names {(named or 'none')[:8]}; verify the bundle that the record names"
        )
    if level >= 2 and report["beacon"] not in ledger.digests()[standing.line - 1 :]:
        raise RecordError(
            f"{path}: beacon {report['beacon'][:8] or 'none'} is the digest of no line from the "
            f"acceptance of {_id(entry, standing)} on; verify with the ledger's head as it is now"
        )
    return entry, standing


def _record(folder: Path, entry: str, standing: Standing) -> Record:
    """Read an accepted record and check that it is unchanged."""
    path = folder / "records" / standing.task / f"{_id(entry, standing)}.json"
    data = read_bytes(path)
    if digest(data) != entry:
        raise RecordError(f"{path}: is not the record that was accepted under this name")
    return parse_record(data, path)


def _entry(ledger: Ledger, name: str) -> tuple[str, Standing]:
    """Return the accepted entry of an id, a prefix of its digest, or the path of its record."""
    match = NAMED.fullmatch(Path(name).name)
    found = [
        (entry, standing)
        for entry, standing in ledger.entries.items()
        if match and entry.startswith(match[1])
    ]
    prefix = Path(name).name.partition("--")[0] if "--" in Path(name).name else None
    found = [pair for pair in found if prefix in (None, pair[1].method)]
    if len(found) != 1:
        ids = [_id(entry, standing) for entry, standing in ledger.entries.items()]
        hint = " is more than one" if found else f": no accepted entry{nearest(name, ids)}"
        raise RecordError(f"{shown(name)}{hint}; see `lthbench leaderboard`")
    return found[0]


def _id(entry: str, standing: Standing) -> str:
    return f"{standing.method}--{entry[:8]}"


def _told(ledger: Ledger, act: str, entry: str, standing: Standing, **keys: Any) -> Ledger:
    return ledgers.append(ledger, act, entry, standing.task, standing.method, **keys)


def _sentence(why: str) -> str:
    if not why.isprintable() or len(why) > ledgers.WHY_LIMIT:
        raise UsageError(f"--why: one line of at most {ledgers.WHY_LIMIT} characters that are seen")
    return why


def _line_told(line: Mapping[str, Any]) -> str:
    what = {
        "accept": "accepted",
        "supersede": f"in the place of {line.get('of', '')[:8]}",
        "retract": "retracted",
        "challenge": "challenged",
        "level": f"level {line.get('level')}",
    }[line["act"]]
    head = digest(canonical_json(line))
    return (
        f"line {line['n']}: {line['method']}--{line['entry'][:8]} on {line['task']}: {what}; "
        f"head {head}"
    )


# The branch, and one writer at a time


def _check_place(folder: Path, path: Path, ledger: Ledger) -> None:
    """Check that the ledger is main's, extends main's last commit, and is unchanged on disk.

    Whatever git does not answer is rejected, since it cannot be verified.

    Raises:
        UsageError: If the branch is not main, or git does not track the folder.
        RecordError: If the ledger was rewritten or truncated.
        ResourceError: If the ledger changed in the meantime.
    """
    branch = _git(folder, "branch", "--show-current").decode(errors="replace").strip()
    if branch != BRANCH:
        raise UsageError(
            f"on {shown(branch) or 'no branch'}: records are accepted on {BRANCH} alone; merge the "
            f"pull request, then `git switch {BRANCH}`"
        )
    if not _git(folder, "ls-tree", "HEAD"):  # this folder in the commit
        raise UsageError(
            f"{folder}: not in {BRANCH}'s last commit; run `lthbench` from a checkout of the "
            "leaderboard's repository"
        )
    on_disk = path.read_bytes() if path.is_file() else b""
    if on_disk != ledgers.text(ledger):
        raise ResourceError(
            f"{path}: was changed by another meanwhile; nothing was written: run the command again"
        )
    if not on_disk.startswith(_committed(folder)):
        raise RecordError(
            f"{path}: does not go on from the ledger of the last commit; it was rewritten or cut "
            "short: `git checkout -- leaderboard/ledger.jsonl`"
        )


def _committed(folder: Path) -> bytes:
    """Return the ledger of the last commit; empty if that has none yet."""
    row = _git(folder, "ls-tree", "HEAD", "--", LEDGER)
    return _git(folder, "cat-file", "blob", row.split()[2].decode()) if row else b""


def _git(folder: Path, *command: str) -> bytes:
    """Return git's output; raise an error if it fails."""
    try:
        return git.run(folder, *command)
    except ResourceError as error:
        raise ResourceError(
            f"{error}; records are accepted in a checkout of {BRANCH} that git can read"
        ) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lock the ledger for one writer at a time, by a lock file beside it."""
    from filelock import FileLock, Timeout

    place = path.resolve().with_name(f"{path.name}.lock")
    try:
        lock = FileLock(place).acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(f"{path}: another accept is writing it; wait for it") from error
    except OSError as error:
        raise ResourceError(
            f"{place}: {error.strerror}; accept as a user who may write to that folder"
        ) from error
    with lock:
        yield
