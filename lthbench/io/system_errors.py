"""What a machine refuses, wherever it is met: told with its next step, as no mistake of ours."""

from __future__ import annotations

import errno
import resource  # early: where memory is short, nothing can be loaded that would tell why

from lthbench.io.paths import REFUSALS, refusal

# How libraries say so that raise no MemoryError: the loader, torch, C++.
NO_MEMORY = ("failed to map segment", "allocate memory", "bad_alloc", "cannot allocate")
NO_THREAD = ("can't start new thread", "Resource temporarily unavailable")
# A file that is absent or closed to us where nobody expected it may well be our mistake.
OURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def refused(error: BaseException) -> str:
    """What the machine refused and what to do; "" for any other error."""
    if isinstance(error, UnicodeEncodeError):
        return no_text(error.object)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if not isinstance(error, (MemoryError, ImportError, RuntimeError)):
        return ""
    said = str(error)
    if isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY):
        return _memory()
    return refusal(OSError(errno.EAGAIN, said)) if any(w in said for w in NO_THREAD) else ""


def no_text(words: str) -> str:
    """That words hold bytes which are no text; "" if they hold none."""
    if not any("\ud800" <= character <= "\udfff" for character in words):
        return ""
    shown = ascii(words)[1:-1].replace("\\\\", "\\")
    return f"{shown}: bytes that are no text; write it, or rename the file or folder, in UTF-8"


def _of_the_system(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return _memory()
    if error.errno not in REFUSALS or error.errno in OURS:
        return ""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{refusal(error)}"


def _memory() -> str:
    """Too little memory: the limit where one is set, else what the machine has."""
    limit = _address_space()
    if limit is None:
        return (
            "too little memory on this machine; close other programs, or run fewer --workers, and "
            "run the same command again"
        )
    return (
        f"too little memory: this process may address {limit / 2**30:.1f} GB (ulimit -v); raise it "
        "and run the same command again"
    )


def _address_space() -> int | None:
    """Bytes that this process may address, where that is limited."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
