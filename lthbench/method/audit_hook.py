"""An audit hook that refuses what a method has no business doing.

It stops mistakes and lazy cheating, not hostile code: Python cannot wall off code that runs in the
same process. See CONTRIBUTING, "What is promised about the test split".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROCESSES = ("os.fork", "os.forkpty", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
WRITES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TEST_FILE = "test.safetensors"


# They open files below Python, which raises no event then; whether they write.
UNSEEN = {
    ("safetensors", "safe_open"): False,
    ("safetensors", "serialize_file"): True,
    ("safetensors.torch", "safe_open"): False,
    ("safetensors.torch", "serialize_file"): True,
    ("torch._C", "PyTorchFileWriter"): True,
}


def install(home: Path, forbidden: Sequence[Path]) -> None:
    """Guard this process from now on; a hook cannot be removed.

    Args:
        home: the only folder that may be written to.
        forbidden: folders that may not be read (the cache, local copies of data, the results).
    """
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
        elif event in WRITES:
            paths = [path for path in args[:2] if isinstance(path, (str, bytes, os.PathLike))]
            if not all(_within(_resolved(path), own) for path in paths):
                refuse("change files outside its own folder")

    sys.addaudithook(hook)
    for (module, name), writes in UNSEEN.items():
        if module in sys.modules and hasattr(sys.modules[module], name):
            function = getattr(sys.modules[module], name)
            setattr(sys.modules[module], name, _seen(function, os.O_WRONLY if writes else 0))


def _seen(function: Callable[..., Any], flags: int) -> Callable[..., Any]:
    """The function, raising the event of an opened file for each path that it is given."""

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
