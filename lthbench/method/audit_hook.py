"""Blocks what a method must not do: in the kernel where possible, and by an audit hook.

Linux's Landlock closes files however they are opened (`landlock`); the hook explains what a method
may not do, and is the only guard on other systems. It stops mistakes and lazy cheating, not hostile
code: Python cannot isolate code that runs in the same process. See docs/security.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lthbench.method import landlock

P = ParamSpec("P")
R = TypeVar("R")
Name = str | bytes | os.PathLike[str]
Arguments = tuple[Any, ...]  # of an event: each has its own

PROCESSES = ("os.fork", "os.forkpty", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
# Events of calls that change files: which argument is a path, and which the descriptor of the
# folder that it is relative to.
CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((0, None), (1, 2)),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.chflags": ((0, None),),
    "os.setxattr": ((0, None),),
    "os.removexattr": ((0, None),),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TEST_FILE = "test.safetensors"

# Functions that open or create files below Python, which then raises no event; whether they write.
# Only what is imported when the guard is installed is covered.
UNSEEN = {
    ("os", "mkfifo"): True,
    ("os", "mknod"): True,
    ("safetensors", "safe_open"): False,
    ("safetensors", "serialize_file"): True,
    ("safetensors.torch", "safe_open"): False,
    ("safetensors.torch", "serialize_file"): True,
    ("torch", "from_file"): True,  # when shared, it writes
    ("torch", "UntypedStorage.from_file"): True,
    ("torch._C", "PyTorchFileReader"): False,
    ("torch._C", "PyTorchFileWriter"): True,
}


def install(home: Path, forbidden: Sequence[Path], *, sandboxed: bool = False) -> None:
    """Guard this process from now on; a hook cannot be removed.

    Args:
        home: the only folder that may be written to.
        forbidden: folders that may not be read (the cache, local copies of data, the results).
        sandboxed: whether the process is in a sandbox, which exposes less than this would.
    """
    if not sandboxed:
        landlock.confine(home, forbidden)
    own = _resolved(home)
    closed = tuple(_resolved(folder) for folder in forbidden)

    def hook(event: str, args: Arguments) -> None:
        if refused := _refusal(event, args, own, closed):
            raise PermissionError(f"a method may not {refused}")

    sys.addaudithook(hook)
    for (module, name), writes in UNSEEN.items():
        place, _, attribute = name.rpartition(".")
        if module in sys.modules and hasattr(sys.modules[module], place or attribute):
            holder = attrgetter(place)(sys.modules[module]) if place else sys.modules[module]
            function = getattr(holder, attribute)
            setattr(holder, attribute, _seen(function, os.O_WRONLY if writes else 0))


def _refusal(event: str, args: Arguments, own: str, closed: Sequence[str]) -> str:
    """Return what an event would do that a method may not; "" if it may."""
    if event.startswith("socket."):
        return "open sockets"
    if event == "subprocess.Popen" or event in PROCESSES:
        return "start processes"
    if event == "os.kill" and args[0] != os.getpid():
        return "signal other processes"
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        return _refused_open(_resolved(args[0]), bool((args[2] or 0) & WRITING), own, closed)
    if event in CHANGES and not all(_within(path, own) for path in _changed(event, args)):
        return "change files outside its own folder"
    if event == "sqlite3.connect" and not _within(_database(args[0], own), own):
        return "open databases outside its own folder"
    return ""


def _refused_open(path: str, writes: bool, own: str, closed: Sequence[str]) -> str:
    """Return what opening a file would do that a method may not; "" if it may."""
    if _within(path, own):
        return ""
    if writes and path != os.devnull:
        return f"write outside its own folder ({Path(path).name})"
    if path.endswith(TEST_FILE) or any(_within(path, folder) for folder in closed):
        return f"read test data or the harness's files ({Path(path).name})"
    return ""


def _changed(event: str, args: Arguments) -> Iterator[str]:
    """Yield what a file-changing call would change: by path, relative to a folder, or open."""
    for at, folder in CHANGES[event]:
        base = args[folder] if folder is not None and folder < len(args) else -1
        if isinstance(args[at], int):
            yield _resolved(_descriptor(args[at]))
        elif base >= 0:
            yield _resolved(os.path.join(_descriptor(base), os.fsdecode(args[at])))  # noqa: PTH118
        else:
            yield _resolved(args[at])


def _descriptor(number: int) -> str:
    """Return a link to the file open under that descriptor, where the system has such links."""
    return f"/dev/fd/{number}"


def _database(name: Name, own: str) -> str:
    """Return where a database is; for one in memory, the process's own folder."""
    path, _, query = os.fsdecode(name).removeprefix("file:").partition("?")
    return own if path in ("", ":memory:") or "mode=memory" in query else _resolved(path)


def _seen(function: Callable[P, R], flags: int) -> Callable[P, R]:
    """Wrap a function to raise the audit event of an opened file for each of its paths."""

    def audited(*args: P.args, **kwargs: P.kwargs) -> R:
        for value in (*args, *kwargs.values()):
            if isinstance(value, (str, os.PathLike)):
                sys.audit("open", value, None, flags)
        return function(*args, **kwargs)

    return audited


def _resolved(path: Name) -> str:
    return os.path.realpath(os.fsdecode(path))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)
