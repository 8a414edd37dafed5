"""Where files are, and how they are written atomically.

The only module that reads environment variables: ``LTHBENCH_CACHE``, ``LTHBENCH_DATA``,
``LTHBENCH_BUNDLES``, and those that set where the Hub's library keeps data sets.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from lthbench.errors import LthbenchError, ResourceError

PACKAGE = Path(__file__).resolve().parents[1]
TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}")

# What happened, and the next step, for each file-system error that users meet.
REFUSALS = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EACCES: ("permission denied", "make the folder writable or choose another one"),
    errno.EPERM: ("not permitted", "make the folder writable or choose another one"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOTDIR: ("part of the path is a file", "choose another folder or move that file"),
    errno.EEXIST: ("part of the path is a file", "choose another folder or move that file"),
    errno.EISDIR: ("it is a folder", "choose another name or move that folder"),
    errno.EFBIG: ("a file may not be so large here", "raise the limit (ulimit -f)"),
    errno.EIO: ("the device answers with an error", "look at the disk or choose another folder"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs"),
    errno.EAGAIN: (
        "the machine starts no further process or thread",
        "end others, or raise the limit (ulimit -u)",
    ),
}


def shipped(kind: Literal["tasks", "baselines", "leaderboard"]) -> Path:
    """Return the folder of one kind of data file, in the installed package or in the checkout."""
    installed = PACKAGE / "_share" / kind
    if installed.is_dir():
        return installed
    if (PACKAGE.parent / "pyproject.toml").is_file():
        return PACKAGE.parent / kind
    raise LthbenchError(
        f"{installed}: not there, and {PACKAGE.parent} is no checkout of lthbench: "
        "the installation is incomplete; install lthbench again"
    )


def cache() -> Path:
    """Return the folder for prepared data and dense runs; it is not created."""
    if folder := os.environ.get("LTHBENCH_CACHE"):
        return Path(folder).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("lthbench", appauthor=False))


def data_folder() -> Path | None:
    """Return the folder of the user's local copies of data sets, if one is named."""
    return _named_folder("LTHBENCH_DATA", "the copies of the data sets")


def data_folders() -> tuple[Path, ...]:
    """Return every folder that may hold data, test examples among them.

    These are the cache, the user's own copies, and whatever the Hub's library has downloaded.
    """
    hub = os.environ.get("HF_HOME") or str(_user_cache() / "huggingface")
    named = [hub, *(os.environ.get(name) for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"))]
    found = [cache(), *(Path(folder).expanduser().absolute() for folder in named if folder)]
    with suppress(ResourceError):  # one that does not exist
        if copies := data_folder():
            found.append(copies)
    return tuple(found)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def bundles_folder() -> Path | None:
    """Return the folder of the user's bundles, if one is named."""
    return _named_folder("LTHBENCH_BUNDLES", "the bundles of submissions")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically, creating parent folders: it is absent, the old one, or complete.

    The temporary file lies in the same folder, so the rename never crosses file systems.
    """
    temporary = path.parent / f".tmp-{os.urandom(8).hex()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot write: {refusal(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def sweep(folder: Path, older: float = 0.0) -> int:
    """Remove temporary files that killed processes left under a folder; return how many.

    A running process's temporary file looks like a stale one: hold the folder's lock, or give an
    age in seconds that no running process reaches.
    """
    removed = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if TEMPORARY.fullmatch(name):
                with suppress(OSError):
                    stale = Path(parent, name)
                    if not older or time.time() - stale.stat().st_mtime >= older:
                        stale.unlink()
                        removed += 1
    return removed


def canonical_json(obj: object) -> bytes:
    """Encode one line of JSON that depends on the values alone: sorted keys, no NaN, UTF-8."""
    text = json.dumps(
        obj, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")
    )
    return text.encode() + b"\n"


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _named_folder(variable: str, holds: str) -> Path | None:
    """Return the folder that an environment variable names; ResourceError if it does not exist."""
    folder = os.environ.get(variable)
    if not folder:
        return None
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise ResourceError(
            f"{variable}={folder}: no such folder; unset it, or name the folder that holds {holds}"
        )
    return path


def refusal(error: OSError) -> str:
    """Describe what the system refused, and the next step."""
    if error.errno in REFUSALS:
        what, step = REFUSALS[error.errno]
        return f"{what}; {step}"
    return f"{error.strerror or error}; choose another folder or look at the disk"


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, where the system allows a folder to be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
