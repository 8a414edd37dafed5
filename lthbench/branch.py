"""A branch with some files added, in a clone whose checkout and index stay as they are."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lthbench.errors import ResourceError, UsageError
from lthbench.paths import digest
from lthbench.untrusted import shown

RECORDS = "leaderboard/records"
# A clone is named by its folder; what these say of another would be followed silently.
OTHERS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")


def clone_around(folder: Path) -> Path | None:
    """The top of the clone that a folder is in, if that is one of the leaderboard's."""
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").strip())
        _git(top, "cat-file", "-e", f"HEAD:{RECORDS}")
    except ResourceError:
        return None
    return top


def leaderboard_clone(folder: Path) -> Path:
    """The top of the clone that was named; UsageError if it is none of the leaderboard's."""
    if not folder.is_dir():
        raise UsageError(f"--repository {folder}: no such folder; name a clone")
    _git(folder, "--version")  # its absence is told as such
    found = clone_around(folder)
    if found is None:
        raise UsageError(
            f"--repository {folder}: no git clone whose HEAD has {RECORDS}; "
            "clone the leaderboard's repository and name that folder"
        )
    return found


def add(clone: Path, branch: str, files: Mapping[str, bytes], message: str) -> str:
    """Make a branch from HEAD with these files added; returns HEAD's commit.

    A branch of that name with these very files is left as it is.

    Args:
        files: contents by path; none of them may be in HEAD.

    Raises:
        ResourceError: for whatever git refuses.
    """
    head = _git(clone, "rev-parse", "--verify", "HEAD^{commit}").strip()
    blobs = {
        path: _git(clone, "hash-object", "-w", "--stdin", given=data).strip()
        for path, data in files.items()
    }
    for path, blob in blobs.items():
        if there := _blob(clone, head, path):
            same = "the same record" if there == blob else "another file"
            raise ResourceError(f"{clone}: HEAD has {same} at {path}; an entry is added once")
    reference = f"refs/heads/{branch}"
    old = _git(clone, "for-each-ref", "--format=%(objectname)", reference).strip()
    if old:
        if all(_blob(clone, old, path) == blob for path, blob in blobs.items()):
            return _git(clone, "rev-parse", f"{old}^").strip()
        raise ResourceError(
            f"{clone}: branch {branch} is there with other files; "
            f"delete it (`git -C {clone} branch -D {branch}`) and run the same command again"
        )
    commit = _git(clone, "commit-tree", _tree(clone, head, blobs), "-p", head, "-m", message)
    _git(clone, "update-ref", "-m", "lthbench submit", reference, commit.strip(), "0" * len(head))
    return head


def remote(clone: Path) -> str:
    """The remote to push to: origin, or the first there is."""
    names = _git(clone, "remote").split()
    return "origin" if "origin" in names or not names else names[0]


def _tree(clone: Path, head: str, blobs: Mapping[str, str]) -> str:
    """HEAD's tree with these files, made in an index of its own."""
    with tempfile.TemporaryDirectory(prefix="lthbench-") as folder:
        index = str(Path(folder, "index"))
        _git(clone, "read-tree", head, index=index)
        lines = "".join(f"100644 {blob}\t{path}\n" for path, blob in blobs.items())
        _git(clone, "update-index", "--add", "--index-info", given=lines.encode(), index=index)
        return _git(clone, "write-tree", index=index).strip()


def _blob(clone: Path, commit: str, path: str) -> str:
    """The digest of a file in a commit; "" if it has none."""
    line = _git(clone, "ls-tree", commit, "--", path)
    return line.split()[2] if line else ""


def _git(clone: Path, *command: str, given: bytes = b"", index: str | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
    environment |= {"GIT_INDEX_FILE": index} if index else {}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "--literal-pathspecs", *command],
            cwd=clone, env=environment, input=given, capture_output=True, check=False,
        )  # fmt: skip
    except OSError as error:
        raise ResourceError("git: cannot be run; install it, or leave out --repository") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
        raise ResourceError(f"git {command[0]} in {clone}: {shown(said, 200)}")
    return done.stdout.decode(errors="replace")


def name_of(method: str, digests: list[str]) -> str:
    """The branch of an entry: of one record, or of several by the digest of theirs."""
    whole = digests[0] if len(digests) == 1 else digest("".join(sorted(digests)).encode())
    return f"entry/{method}-{whole[:8]}"
