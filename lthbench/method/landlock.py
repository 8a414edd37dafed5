"""What the kernel refuses this process from now on, by Linux's Landlock: access to files.

Python's audit hook sees only what Python opens; this also binds libraries that open files below it.
It needs no privileges, and binds root too. See landlock(7); a process bound by it cannot inspect
one that is not, through /proc or otherwise.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

CREATE, ADD, RESTRICT = 444, 445, 446  # the system calls, the same on every architecture
VERSION, BENEATH = 1, 1  # a flag of the first call; the type of rule
NO_NEW_PRIVILEGES = 38  # of prctl

READ = 1 << 0 | 1 << 2  # execute, read a file
LIST = 1 << 3
WRITE = 1 << 1  # to an existing file
CHANGE = sum(1 << bit for bit in range(4, 13))  # remove and create files and folders of every type
# Version: the right it added. Before version 2 nothing may be moved between folders.
LATER = {2: 1 << 13, 3: 1 << 14}  # move between folders; truncate
OF_FILES = READ | WRITE | LATER[3]

DEVICES = ("null", "nvidia", "kfd", "dri")  # devices that are written to, by prefix


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's Landlock; 0 if it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(CREATE, None, ctypes.c_size_t(0), VERSION))


def confine(home: Path, closed: Sequence[Path]) -> bool:
    """Bind this thread, and all that it starts, to these rules.

    Every file may be listed, but only those in `home` written to; none may be read in `closed`, nor
    what /proc says of other processes. A file created later beside a closed folder, or beside a
    parent of one, is closed too.

    Returns:
        Whether the kernel supports this; if not, nothing changes.
    """
    known = version()
    if not known:
        return False
    later = sum(right for since, right in LATER.items() if since <= known)
    everything = READ | LIST | WRITE | CHANGE | later
    rules = _Ruleset(everything)
    held = _call(CREATE, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if held < 0:
        return False
    try:
        _allow(held, "/", LIST)
        shut = {os.path.realpath(path) for path in closed}
        shut |= {path for path in _entries("/proc") if _of_another(path)}
        around = {str(above) for path in shut for above in Path(path).parents}
        for path in _open("/", shut, around):
            _allow(held, path, READ)
        for path in _entries("/dev"):
            if Path(path).name.startswith(DEVICES):
                _allow(held, path, READ | WRITE)
        _allow(held, os.path.realpath(home), everything)
        libc = ctypes.CDLL(None, use_errno=True)
        bound = libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        return bound and _call(RESTRICT, held, 0) == 0
    finally:
        os.close(held)


def _of_another(path: str) -> bool:
    """Return whether this is what /proc says of another process."""
    name = Path(path).name
    return name.isdigit() and int(name) != os.getpid()


def _open(folder: str, shut: Collection[str], around: Collection[str]) -> Iterator[str]:
    """Yield the files and folders that make up a folder without those that are shut.

    `around` are the folders that contain a shut one. The target of a link has its own rule.
    """
    for path in _entries(folder):
        if path in shut:
            continue
        if path in around:
            yield from _open(path, shut, around)
        else:
            yield path


def _entries(folder: str) -> list[str]:
    """List a folder without links; a missing or unreadable one is empty."""
    try:
        with os.scandir(folder) as found:
            return [entry.path for entry in found if not entry.is_symlink()]
    except OSError:
        return []


def _allow(held: int, path: str, rights: int) -> None:
    """Add a rule; a path that is gone, or closed to this user, needs none."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= OF_FILES
        _call(ADD, held, BENEATH, ctypes.byref(_Beneath(rights, opened)), 0)
    finally:
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    """Make a system call of Landlock's; -1 if it is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))
