"""Asking git: what cannot be asked, or is refused, is an error, and never an empty answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lthbench.errors import ResourceError
from lthbench.io.untrusted import shown

# A repository is named by its folder, and its history is that of its objects; what these say of
# another, or of other parents, would be followed silently.
OTHERS = (
    *("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX"),
    *("GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE"),
)
ALWAYS = ("--no-replace-objects", "--literal-pathspecs", "-c", "core.fsmonitor=false")


def run(folder: Path, *command: str, given: bytes = b"", index: str | None = None) -> bytes:
    """Run a git command in the repository that holds a folder; returns what it prints.

    Args:
        given: its input.
        index: the file of an index other than the repository's own.

    Raises:
        ResourceError: if git is not there, or ends with anything but success.
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
    """Git's own reason, on one line."""
    lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
    said = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
    return shown(said, 200)
