"""Recognise what the machine refused, wherever it is raised, and report the next step."""

from __future__ import annotations

import errno
import resource  # imported early: when memory is short, nothing can be loaded to explain why

from lthbench.io.paths import REFUSALS, refusal

# How libraries report it without raising MemoryError: the loader, torch, C++.
NO_MEMORY = ("failed to map segment", "allocate memory", "bad_alloc", "cannot allocate")
NO_THREAD = ("can't start new thread", "Resource temporarily unavailable")
# A file that is unexpectedly missing or inaccessible may well be a bug of ours.
OURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def refused(error: BaseException) -> str:
    """Describe what the machine refused and what to do; "" for any other error."""
    if isinstance(error, UnicodeEncodeError):
        return no_text(error.object)
    if isinstance(error, OSError):
        return _of_the_system(error)
    said = str(error)
    # Extensions that get no memory for an exception return without one; never seen but at a limit.
    if isinstance(error, SystemError) and "without exception set" in said:
        return _memory() if _address_space() is not None else ""
    if not isinstance(error, (MemoryError, ImportError, RuntimeError)):
        return ""
    if isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY):
        return _memory()
    return refusal(OSError(errno.EAGAIN, said)) if any(w in said for w in NO_THREAD) else ""


def no_text(words: str) -> str:
    """Return a remark if words contain bytes that are not text; "" if they do not."""
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
    """Return how much memory there is: the limit if one is set, else the machine's."""
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
    """Return the limit of this process's address space in bytes; None if it is unlimited."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
