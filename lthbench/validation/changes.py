"""What a branch changes: a pull request to the leaderboard adds records, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lthbench.errors import ResourceError, UsageError
from lthbench.untrusted import shown

RECORD = re.compile(
    r"leaderboard/records/[a-z0-9][a-z0-9-]{0,60}/[A-Za-z0-9][A-Za-z0-9_.-]{0,60}--[0-9a-f]{8}\.json"
)
# What each place holds, for the one line that says why it may not be touched.
PLACES = (
    ("leaderboard/records/", "a record that was once accepted stays as it is"),
    ("leaderboard/ledger.jsonl", "only `lthbench leaderboard accept` writes the ledger, on main"),
    ("leaderboard/reference/", "references are frozen"),
    ("leaderboard/", "a pull request adds records only"),
    ("tasks/", "tasks are frozen: a changed protocol is a new file, in a pull request of its own"),
)
KINDS = {"A": "added", "M": "changed", "D": "deleted", "T": "made into another kind of file"}
ORDINARY = ("100644",)


@dataclass(frozen=True)
class Change:
    """The records that were added, and every other change with why it is refused."""

    added: tuple[Path, ...]
    refused: tuple[tuple[str, str], ...]


def since(revision: str, place: Path) -> Change:
    """What HEAD changes since it left a revision, in the repository that holds `place`.

    Raises:
        UsageError: for a folder in no repository, or a revision that it does not know.
    """
    folder = place if place.is_dir() else place.absolute().parent
    top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").rstrip(b"\n")))
    commit = _git(top, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    name = commit.decode().strip()
    raw = _git(top, "diff", "--raw", "-z", "--no-renames", "--no-ext-diff", f"{name}...HEAD")
    added, refused = [], []
    for mode, kind, path in _rows(raw):
        if why := _why_not(mode, kind, path):
            refused.append((path, why))
        else:
            added.append(top / path)
    return Change(tuple(added), tuple(refused))


def _rows(raw: bytes) -> list[tuple[str, str, str]]:
    """New mode, kind of change and path of every row of `git diff --raw -z`."""
    fields = os.fsdecode(raw).split("\0")
    heads, paths = fields[0:-1:2], fields[1::2]
    rows = []
    for head, path in zip(heads, paths, strict=True):
        _, mode, _, _, kind = head.split(" ")
        rows.append((mode, kind[:1], path))
    return rows


def _why_not(mode: str, kind: str, path: str) -> str | None:
    """Why a change is refused; None for a record that is added."""
    done = KINDS.get(kind, "changed")
    if kind == "A" and RECORD.fullmatch(path):
        return None if mode in ORDINARY else "added, but not as an ordinary file"
    rule = next((said for start, said in PLACES if path.startswith(start)), None)
    if kind == "A" and path.startswith("leaderboard/records/"):
        rule = "a record is leaderboard/records/<task>/<method>--<8 digits of its digest>.json"
    return f"{done}; {rule or 'code and records go in pull requests of their own'}"


def _git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ResourceError(f"git cannot be started ({error.strerror}); install it") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(
            f"--since: git {arguments[0]} in {shown(str(folder), 100)}: "
            f"{shown(said[-1] if said else 'failed', 120)}; name a revision that the clone has"
        )
    return done.stdout
