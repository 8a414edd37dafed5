"""A git branch with added files, made without touching the clone's checkout or index."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from lthbench.errors import ResourceError, UsageError
from lthbench.io import git
from lthbench.io.paths import digest

RECORDS = "leaderboard/records"
# https://github.com/OWNER/NAME.git, ssh://git@github.com/OWNER/NAME.git, git@github.com:OWNER/NAME
GITHUB = re.compile(
    r"(?:(?:https?|git|(?:git\+)?ssh)://(?:[^/@\s]*@)?(?:www\.|ssh\.)?github\.com(?::[0-9]+)?/+"
    r"|(?:[^/@:\s]+@)?(?:ssh\.)?github\.com:/*)"
    r"([a-z0-9][a-z0-9_-]*)/[^/\s]+/*",
    re.ASCII | re.IGNORECASE,
)


def leaderboard_clone(folder: Path) -> Path:
    """Return the top of the named clone; UsageError if it is not the leaderboard's."""
    if not folder.is_dir():
        raise UsageError(f"--repository {folder}: no such folder; name a clone")
    _git(folder, "--version")  # its absence is reported as such
    step = "clone your fork of the leaderboard's repository and name that folder"
    try:
        top = Path(_git(folder, "rev-parse", "--show-toplevel").removesuffix("\n"))
    except ResourceError as error:
        raise UsageError(f"--repository {folder}: no git clone; {step}") from error
    base = main_of(top)
    if not _blob(top, base, RECORDS):
        raise UsageError(
            f"--repository {folder}: its {_short(base)} has no {RECORDS}: not the leaderboard's; "
            f"{step}"
        )
    return top


def main_of(clone: Path) -> str:
    """Return the ref from which entries branch: the remote's main, otherwise the clone's own.

    HEAD is not used, since it may be another entry's branch, which would then be included.

    Raises:
        UsageError: If no main is known.
    """
    wanted = [f"refs/remotes/{name}/main" for name in ("upstream", remote(clone))]
    wanted.append("refs/heads/main")
    there = _git(clone, "for-each-ref", "--format=%(refname)", *wanted).split()
    for reference in wanted:
        if reference in there:
            return reference
    fetch = shlex.join(("git", "-C", str(clone), "fetch", remote(clone), "main:main"))
    raise UsageError(
        f"--repository {clone}: no main, neither a remote's nor its own, for the branch to begin "
        f"at; run `{fetch}` and the same command again"
    )


def add(clone: Path, branch: str, files: Mapping[str, bytes], message: str) -> str:
    """Make a branch from main with these files added, and return its base commit.

    A branch of that name with exactly these files is left unchanged.

    Args:
        clone: Top folder of the clone.
        branch: Name of the branch.
        files: Contents by path; none of them may exist in main.
        message: Commit message.

    Raises:
        ResourceError: If git fails.
    """
    main = main_of(clone)
    base = _git(clone, "rev-parse", "--verify", f"{main}^{{commit}}").strip()
    blobs = {
        path: _git(clone, "hash-object", "-w", "--stdin", given=data).strip()
        for path, data in files.items()
    }
    for path, blob in blobs.items():
        if there := _blob(clone, base, path):
            same = "the same record" if there == blob else "another file"
            raise ResourceError(
                f"{clone}: {_short(main)} has {same} at {path}; an entry is added once"
            )
    reference = f"refs/heads/{branch}"
    old = _git(clone, "for-each-ref", "--format=%(objectname)", reference).strip()
    if old:
        if _git(clone, "rev-list", "--count", f"{base}..{old}").strip() == "1":
            parent = _git(clone, "rev-parse", f"{old}^").strip()
            tree = _git(clone, "rev-parse", f"{old}^{{tree}}").strip()
            if tree == _tree(clone, parent, blobs):
                return parent
        raise ResourceError(
            f"{clone}: branch {branch} is there with other files or commits; "
            f"delete it (`{delete(clone, branch)}`) and run the same command again"
        )
    commit = _git(clone, "commit-tree", _tree(clone, base, blobs), "-p", base, "-m", message)
    _git(clone, "update-ref", "-m", "lthbench submit", reference, commit.strip(), "0" * len(base))
    return base


def entries(clone: Path, method: str) -> Iterator[tuple[str, str]]:
    """Yield branch and text of every record that this method's branches add to main."""
    base = main_of(clone)
    there = _git(clone, "for-each-ref", "--format=%(refname)", "refs/heads/entry/").split()
    for reference in there:
        if not reference.startswith(f"refs/heads/entry/{method}-"):
            continue
        among = ("-r", "-z", "--name-only", "--diff-filter=A", base, reference, "--", RECORDS)
        for path in _git(clone, "diff-tree", *among).split("\0")[:-1]:
            yield _short(reference), _git(clone, "cat-file", "blob", f"{reference}:{path}")


def delete(clone: Path, branch: str) -> str:
    """Return the command that deletes a branch."""
    return shlex.join(("git", "-C", str(clone), "branch", "-D", branch))


def remote(clone: Path) -> str:
    """Return the remote to push to: origin, or the first that is not the leaderboard's own."""
    names = _git(clone, "remote").split()
    forks = [name for name in names if name != "upstream"]
    return "origin" if "origin" in names or not names else [*forks, *names][0]


def head(clone: Path, branch: str) -> str:
    """Return the branch for `gh pr create --head`: for a fork, prefixed with the owner's name."""
    name = remote(clone)
    try:
        url = _git(clone, "remote", "get-url", "--push", name).strip()
    except ResourceError:  # no remote yet
        return branch
    at_github = GITHUB.fullmatch(url)
    return f"{at_github[1]}:{branch}" if at_github else branch


def _tree(clone: Path, base: str, blobs: Mapping[str, str]) -> str:
    """Make a commit's tree with these files, in a separate index."""
    with tempfile.TemporaryDirectory(prefix="lthbench-") as folder:
        index = str(Path(folder, "index"))
        _git(clone, "read-tree", base, index=index)
        lines = "".join(f"100644 {blob}\t{path}\n" for path, blob in blobs.items())
        _git(clone, "update-index", "--add", "--index-info", given=lines.encode(), index=index)
        return _git(clone, "write-tree", index=index).strip()


def _short(reference: str) -> str:
    """Shorten a ref to the branch name that git users write."""
    return reference.removeprefix("refs/heads/").removeprefix("refs/remotes/")


def _blob(clone: Path, commit: str, path: str) -> str:
    """Return the digest of a file or folder in a commit; "" if absent."""
    line = _git(clone, "ls-tree", commit, "--", path)
    return line.split()[2] if line else ""


def _git(clone: Path, *command: str, given: bytes = b"", index: str | None = None) -> str:
    return git.run(clone, *command, given=given, index=index).decode(errors="replace")


def name_of(method: str, digests: list[str]) -> str:
    """Return the branch name of an entry: of one record, or of several by their joint digest."""
    whole = digests[0] if len(digests) == 1 else digest("".join(sorted(digests)).encode())
    return f"entry/{method}-{whole[:8]}"
