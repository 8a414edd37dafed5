"""A method's process inside bubblewrap, which exposes a few read-only folders and no network.

The coordinator stays outside, as do the test split, the cache, the results and the network.
docs/security.md lists what stops what, each row with a test (`tests/evaluation/test_sandbox.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil

from lthbench.errors import MethodError, ResourceError
from lthbench.evaluation.search.child_process import ChildProcess, StartChild, computed
from lthbench.io import messages, store
from lthbench.training.executors.environment import NO_COMPILER

PACKAGE = Path(__file__).resolve().parents[2]
HOME = "/home/method"
NOBODY = "65534"
SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64")  # programs and libraries of the system
LOADER = ("/etc/ld.so.cache", "/etc/alternatives")  # all of /etc that is exposed
TOOLS = ("bwrap", "prlimit", "setpriv")
WATCHED_EVERY = 0.2  # seconds
FIRST_WITHIN = 0.01  # seconds; a method may end at once
GONE_WITHIN = 10.0  # seconds from the kill to the end of the last process
RESERVE = 2**30  # bytes of the machine's memory that a sandbox must leave free
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


@dataclass(frozen=True)
class Bounds:
    """What all processes of one sandbox may use together.

    Attributes:
        memory: bytes in all; for one process the kernel itself enforces the limit.
        processes: at once.
        disk: bytes of its home, which is held in memory; a quarter each for /tmp and /dev/shm.
        processor: seconds that one process may compute.
        wall: seconds from start to end, including waits for trainings.
        message: bytes of one message to the coordinator.
        stored: bytes of what the coordinator stores for it: states, snapshots, tickets.
        files: open at once in a process.
    """

    memory: int = 8 * 2**30
    processes: int = 64
    disk: int = 2**30
    processor: int = 12 * 3600
    wall: float = 24 * 3600.0
    message: int = 2**29
    stored: int = 8 * 2**30
    files: int = 1024


def start(bounds: Bounds | None = None) -> StartChild:
    """Return what starts a method's child inside a sandbox, for `find` and `Settings.start`.

    Raises:
        ResourceError: if bubblewrap is missing, or may not create a sandbox.
    """
    limits = bounds or Bounds()
    demand(limits)

    async def begin(home: Path) -> Sandboxed:
        store.discard(home)
        process = await asyncio.create_subprocess_exec(
            *command(limits, "-P", "-m", "lthbench.method.child", "sandboxed"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            limit=2**24,
            start_new_session=True,
        )
        return Sandboxed(process, limits, home.parent)

    return begin


def demand(bounds: Bounds) -> None:
    """Raise ResourceError unless a sandbox can be created here."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or sys.platform != "linux":
        raise ResourceError(
            f"level 3 runs a stranger's code: {missing[0] if missing else 'Linux'} is needed for "
            "its sandbox and is not here; install bubblewrap and util-linux (apt install "
            "bubblewrap), or ask for --level 2"
        )
    tried = subprocess.run(
        command(bounds, "-I", "-S", "-c", ""),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        said = " ".join(tried.stderr.decode(errors="replace").split())[:120]
        raise ResourceError(
            f"bubblewrap cannot make a sandbox here ({said}); allow user namespaces, or run this "
            "as root outside of a container, or ask for --level 2"
        )


def command(bounds: Bounds, *python: str) -> list[str]:
    """Return the command that runs Python with these arguments in a sandbox.

    As root no user namespace is created and the process becomes nobody: inside one it would still
    be the machine's root, who may write to /proc/sys without any capability.
    """
    root = os.geteuid() == 0
    apart = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    apart += ["--unshare-cgroup-try"] if root else ["--unshare-user", "--unshare-cgroup-try"]
    kept = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else []
    become = [_tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [
        *(_tool("bwrap"), *apart, "--die-with-parent", "--new-session"),
        *("--proc", "/proc", "--dev", "/dev"),
        *_in_memory("/dev/shm", bounds.disk // 4),
        *_in_memory("/tmp", bounds.disk // 4),
        *_in_memory(HOME, bounds.disk),
        *_read_only(),  # last: it may lie in one of those
        *("--remount-ro", "/dev", "--remount-ro", "/"),  # these two are also held in memory
        *("--cap-drop", "ALL", *kept, "--hostname", "lthbench", "--chdir", HOME, "--"),
        *(become if root else ()),
        *_limited(bounds),
        *(sys.executable, *python),
    ]


def _limited(bounds: Bounds) -> list[str]:
    """Return the command for the kernel's own limits on each process."""
    values = {
        "core": 0,
        "cpu": bounds.processor,
        "data": bounds.memory,
        "fsize": bounds.disk,
        "nofile": bounds.files,
        "nproc": 4 * bounds.processes,  # counts threads
    }
    return [_tool("prlimit"), *(f"--{name}={value}:{value}" for name, value in values.items())]


def _tool(name: str) -> str:
    return shutil.which(name) or name


def _read_only() -> list[str]:
    """Return programs, libraries and this package, at their own paths; nothing else is exposed.

    In a checkout only the package's folder is included: not the repository around it.
    """
    found = []
    for place in map(Path, SYSTEM):
        if place.is_symlink():
            found += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            found += ["--ro-bind", str(place), str(place)]
    shown = {Path(p) for p in (sys.base_prefix, sys.prefix, sys.exec_prefix)} | {PACKAGE}
    shown |= {path.resolve() for path in shown}
    shown |= {Path(path) for path in LOADER if Path(path).exists()}
    shown = {p for p in shown if not any(_inside(p, Path(s)) for s in SYSTEM)}
    outermost = sorted(p for p in shown if not any(p != q and _inside(p, q) for q in shown))
    parents = sorted({above for path in outermost for above in path.parents if above.name})
    for above in parents:  # bubblewrap would make them unreadable to nobody
        found += ["--dir", str(above)]
    for path in outermost:
        found += ["--ro-bind", str(path), str(path)]
    return found


def _inside(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _in_memory(place: str, size: int) -> list[str]:
    return ["--perms", "1777", "--size", str(size), "--tmpfs", place]


def _environment() -> dict[str, str]:
    """Return an environment with nothing of this process's own but the path to the packages."""
    own = {"HOME": HOME, "TMPDIR": "/tmp", "USER": "method", "LANG": "C.UTF-8"}
    python = {"PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PATH": "/usr/bin:/bin", **own, **python, **ONE_THREAD, **NO_COMPILER}


class Sandboxed(ChildProcess):
    """A child inside a sandbox, with a thread outside that kills all of it when it exceeds a limit.

    The thread also watches while the coordinator computes and its event loop is blocked.
    """

    def __init__(self, process: asyncio.subprocess.Process, bounds: Bounds, kept: Path) -> None:
        super().__init__(process)
        assert process.stdout
        process.stdout = cast(asyncio.StreamReader, _Bounded(process.stdout, bounds.message))
        self.bounds = bounds
        self._kept = kept  # where the coordinator stores what was requested
        self.why = ""
        self._computed: dict[tuple[int, float], float] = {}
        self._outermost = psutil.Process(process.pid)
        self._first: list[psutil.Process] = []  # the kernel keeps it until all inside are gone
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._over.wait(WATCHED_EVERY if self._first else FIRST_WITHIN):
            try:
                self._first = self._outermost.children() or self._first
                self.processor = max(self.processor, spent(self._outermost, self._computed))
                why = excess(self._outermost, began, self.bounds)
                if why := why or hoarded(self._kept, self.bounds.stored):
                    self.why = why
                    self._end()
                    return
            except psutil.NoSuchProcess:
                return

    def _look(self) -> None:
        """Do nothing, the thread does it: the outermost process does not wait for those inside."""

    def _end(self) -> None:
        """Kill the first process inside too.

        A method running as the same user may have undone its tie to the outermost process.
        """
        for process in (self._outermost, *self._first):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    async def _gone(self) -> MethodError:
        if self._watching.is_alive():  # it may be about to give the reason
            self._over.set()
            await asyncio.to_thread(self._watching.join)
        gone = await super()._gone()
        if not self.why:
            return gone
        error = MethodError(f"the sandbox was ended: {self.why}")
        error.__notes__ = list(getattr(gone, "__notes__", []))
        return error

    async def close(self) -> None:
        """Kill everything inside and wait until the last process is gone."""
        self._over.set()
        await asyncio.to_thread(self._watching.join)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._first = self._outermost.children() or self._first
        await super().close()
        self._end()
        await asyncio.to_thread(psutil.wait_procs, self._first, GONE_WITHIN)


class _Bounded:
    """The reading end of a pipe that refuses messages longer than a limit."""

    def __init__(self, pipe: asyncio.StreamReader, limit: int) -> None:
        self._pipe, self._limit = pipe, limit

    async def readexactly(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        if count > self._limit:
            raise messages.WireError(
                f"a message of {count} bytes; a sandbox may send {self._limit}"
            )
        return await self._pipe.readexactly(count)


def spent(outermost: psutil.Process, known: dict[tuple[int, float], float]) -> float:
    """Return the processor seconds of all processes of a sandbox so far, including ended ones.

    Ended ones are known from the last look at them or from the process that waited for them.
    Neither sum counts anything twice, so the larger one holds: a process may end between two looks,
    or without anything waiting for it.

    Args:
        outermost: the process that was started.
        known: seconds of every process ever seen, kept from look to look.
    """
    waited = 0.0
    for process in (outermost, *outermost.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            known[process.pid, process.create_time()] = times.user + times.system
            waited += computed(process)
    return max(waited, sum(known.values()))


def excess(outermost: psutil.Process, began: float, bounds: Bounds) -> str:
    """Return which limit a sandbox exceeds; "" if none.

    Args:
        outermost: the process that was started.
        began: when it started, by the monotonic clock.
        bounds: the limits.

    Raises:
        psutil.NoSuchProcess: if it has ended.
    """
    tree = [outermost, *outermost.children(recursive=True)]
    if len(tree) > bounds.processes:
        return f"{len(tree)} processes at once; at most {bounds.processes} are allowed"
    used = 0
    for process in tree:
        with contextlib.suppress(psutil.Error):
            used += process.memory_info().rss
    if used > bounds.memory:
        allowed = bounds.memory / 2**30
        return f"{used / 2**30:.1f} GB of memory; at most {allowed:.1f} GB are allowed"
    left = psutil.virtual_memory().available
    if left < RESERVE:  # memory that no process accounts for, such as files held in memory
        return f"{left / 2**20:.0f} MB of the machine's memory were left"
    if time.monotonic() - began > bounds.wall:
        return f"more than {bounds.wall:g} s from start to end"
    return ""


def hoarded(folder: Path, limit: int) -> str:
    """Return a complaint if more than a limit is stored in a folder; "" if not."""
    used = 0
    with contextlib.suppress(OSError):  # a file may be renamed meanwhile
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{used / 2**30:.1f} GB are stored for it" if used > limit else ""
