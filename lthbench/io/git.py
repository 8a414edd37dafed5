"""Git commands: a failure is always an error, never an empty answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lthbench.errors import ResourceError
from lthbench.io.untrusted import shown

# A repository is identified by its folder, and its history by its objects. Variables that point to
# another, or to other parents, would be followed silently.
OTHERS = (
    *("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX"),
    *("GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE"),
)
ALWAYS = ("--no-replace-objects", "--literal-pathspecs", "-c", "core.fsmonitor=false")


def run(folder: Path, *command: str, given: bytes = b"", index: str | None = None) -> bytes:
    """Run a git command in the repository that contains a folder; return its output.

    Args:
        folder: any folder inside the repository.
        *command: the arguments of git.
        given: the standard input of git.
        index: an index file other than the repository's own.

    Raises:
        ResourceError: if git is not installed, or fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS}
    environment |= {"GIT_INDEX_FILE": index} if index else {}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *ALWAYS, *command],
            cwd=folder, env=environment, input=given, capture_output=True, check=False,
        )  # fmt: skip
    except OSError as error:
        raise ResourceError(f"git: cannot be run ({error.strerror}); install it") from error
    if done.returncode:
        raise ResourceError(f"git {command[0]} in {shown(str(folder), 200)}: {_said(done.stderr)}")
    return done.stdout


def _said(errors: bytes) -> str:
    """Return git's own error message, on one line."""
    lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
    return shown(said, 200)
