"""The changes on a branch: a pull request to the leaderboard adds records, and nothing else.

Only commits are read. Uncommitted changes in the working tree, or bytes that differ from the
commit's, are not part of a branch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lthbench.errors import ResourceError, UsageError
from lthbench.io import git
from lthbench.records.schema import SIZE_LIMIT

RECORD = re.compile(
    r"leaderboard/records/[a-z0-9][a-z0-9-]{0,60}/[A-Za-z0-9][A-Za-z0-9_.-]{0,60}--[0-9a-f]{8}\.json"
)
# The content of each place, for the one-line reason why it must not be changed.
PLACES = (
    ("leaderboard/records/", "a record that was once accepted stays as it is"),
    ("leaderboard/ledger.jsonl", "only `lthbench leaderboard accept` writes the ledger, on main"),
    ("leaderboard/reference/", "references are frozen"),
    ("leaderboard/", "a pull request adds records only"),
    ("tasks/", "tasks are frozen: a changed protocol is a new file, in a pull request of its own"),
)
KINDS = {"A": "added", "M": "changed", "D": "deleted", "T": "made into another kind of file"}
ORDINARY = ("100644",)
# Raw objects: neither configuration nor .gitmodules may hide a row.
ROWS = ("--raw", "-r", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff")
HIDDEN = ("--ignore-submodules=none", "--no-relative")


@dataclass(frozen=True)
class Added:
    """An added record: its path in the repository, and its git object."""

    path: str
    blob: str


@dataclass(frozen=True)
class Change:
    """The added records, and every other change with the reason for its rejection.

    Attributes:
        top: The repository's folder.
    """

    top: Path
    added: tuple[Added, ...]
    refused: tuple[tuple[str, str], ...]


def since(revision: str, place: Path) -> Change:
    """Return what HEAD has changed since it branched from a revision, in `place`'s repository.

    Raises:
        UsageError: If the folder is in no repository, or the revision is unknown to it.
        ResourceError: If git is missing.
    """
    folder = place if place.is_dir() else place.absolute().parent
    git.run(folder, "--version")  # its absence is reported as such
    top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")))
    left, head = _commit(top, revision), _commit(top, "HEAD")
    base = _git(top, "merge-base", left, head).decode().strip()
    added, refused = [], []
    for mode, blob, kind, path in _rows(_git(top, "diff-tree", *ROWS, *HIDDEN, base, head)):
        if why := _why_not(mode, kind, path):
            refused.append((path, why))
        else:
            added.append(Added(path, blob))
    return Change(top, tuple(added), tuple(refused))


def write(change: Change, folder: Path) -> tuple[Path, ...]:
    """Write the added records, as they were committed, below a folder.

    Returns:
        Their files, in the order of `change.added`; a file too large for a record is truncated just
        beyond the limit.
    """
    files = []
    for record in change.added:
        path = folder / record.path
        path.parent.mkdir(parents=True, exist_ok=True)
        size = int(_git(change.top, "cat-file", "-s", record.blob))
        whole = size <= SIZE_LIMIT
        path.write_bytes(_git(change.top, "cat-file", "blob", record.blob) if whole else b"")
        if not whole:
            os.truncate(path, SIZE_LIMIT + 1)
        files.append(path)
    return tuple(files)


def _commit(top: Path, revision: str) -> str:
    name = f"{revision}^{{commit}}"
    return _git(top, "rev-parse", "--verify", "--end-of-options", name).decode().strip()


def _rows(raw: bytes) -> list[tuple[str, str, str, str]]:
    """Return new mode, new object, status and path of each row of `git diff-tree --raw -z`."""
    fields = os.fsdecode(raw).split("\0")
    heads, paths = fields[0:-1:2], fields[1::2]
    rows = []
    for head, path in zip(heads, paths, strict=True):
        _, mode, _, blob, kind = head.split(" ")
        rows.append((mode, blob, kind[:1], path))
    return rows


def _why_not(mode: str, kind: str, path: str) -> str | None:
    """Return why a change is rejected; None for an added record."""
    done = KINDS.get(kind, "changed")
    if kind == "A" and RECORD.fullmatch(path):
        return None if mode in ORDINARY else "added, but not as an ordinary file"
    rule = next((said for start, said in PLACES if path.startswith(start)), None)
    if kind == "A" and path.startswith("leaderboard/records/"):
        rule = "a record is leaderboard/records/<task>/<method>--<8 digits of its digest>.json"
    return f"{done}; {rule or 'code and records go in pull requests of their own'}"


def _git(folder: Path, *command: str) -> bytes:
    try:
        return git.run(folder, *command)
    except ResourceError as error:
        raise UsageError(f"--since: {error}; name a revision that the clone has") from error
