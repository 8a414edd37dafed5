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
from typing import Any

from lthbench.method import landlock

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

    def refuse(what: str) -> None:
        raise PermissionError(f"a method may not {what}")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith("socket."):
            refuse("open sockets")
        elif event == "subprocess.Popen" or event in PROCESSES:
            refuse("start processes")
        elif event == "os.kill" and args[0] != os.getpid():
            refuse("signal other processes")
        elif event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = _resolved(args[0])
            writes = bool((args[2] or 0) & WRITING)
            if writes and not _within(path, own) and path != os.devnull:
                refuse(f"write outside its own folder ({Path(path).name})")
            secret = path.endswith(TEST_FILE) or any(_within(path, folder) for folder in closed)
            if secret and not _within(path, own):
                refuse(f"read test data or the harness's files ({Path(path).name})")
        elif event in CHANGES:
            if not all(_within(path, own) for path in _changed(event, args)):
                refuse("change files outside its own folder")
        elif event == "sqlite3.connect" and not _within(_database(args[0], own), own):
            refuse("open databases outside its own folder")

    sys.addaudithook(hook)
    for (module, name), writes in UNSEEN.items():
        place, _, attribute = name.rpartition(".")
        if module in sys.modules and hasattr(sys.modules[module], place or attribute):
            holder = attrgetter(place)(sys.modules[module]) if place else sys.modules[module]
            function = getattr(holder, attribute)
            setattr(holder, attribute, _seen(function, os.O_WRONLY if writes else 0))


def _changed(event: str, args: tuple[Any, ...]) -> Iterator[str]:
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


def _database(name: Any, own: str) -> str:
    """Return where a database is; for one in memory, the process's own folder."""
    path, _, query = os.fsdecode(name).removeprefix("file:").partition("?")
    return own if path in ("", ":memory:") or "mode=memory" in query else _resolved(path)


def _seen(function: Callable[..., Any], flags: int) -> Callable[..., Any]:
    """Wrap a function to raise the audit event of an opened file for each of its paths."""

    def audited(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, (str, os.PathLike)):
                sys.audit("open", value, None, flags)
        return function(*args, **kwargs)

    return audited


def _resolved(path: Any) -> str:
    return os.path.realpath(os.fsdecode(path))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)
