"""One child process as the coordinator sees it: messages, output, time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from lthbench.errors import MethodError
from lthbench.evaluation.search.requests import Requests
from lthbench.io import messages, store
from lthbench.io.messages import Tensors
from lthbench.method.requests import Request
from lthbench.training.executors.environment import environment

OUTPUT_KEPT = 64 * 1024  # bytes of a child's output, from its beginning and from its end
OUTPUT_LIMIT = 64 * 2**20
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """What a child may use: seconds of its own (None: unlimited) and bytes of memory."""

    seconds: float | None = None
    memory: int = 8 * 2**30


class Child(Protocol):
    """A child, on this machine or on a node of a cluster."""

    own_seconds: float
    processor: float

    async def send(self, header: object, tensors: Tensors) -> None:
        """Send one message to the child."""

    async def receive(self, limits: Limits, stop: asyncio.Event) -> tuple[Request, Tensors]:
        """Wait for the child's next request."""

    def kill(self) -> None:
        """Kill the child."""

    async def close(self) -> None:
        """End the child and wait for it."""


def computed(process: psutil.Process) -> float:
    """Return the processor seconds of a process and of those that it has waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


StartChild = Callable[[Path], Awaitable[Child]]  # in a folder of its own


class ChildProcess:
    """One child process: its messages, its output, its time and its memory.

    Attributes:
        own_seconds: that the coordinator waited for it.
        processor: seconds that it has computed, as of its last message.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.first = b""
        self.last: deque[bytes] = deque(maxlen=16)
        self.printed = 0
        self.own_seconds = self.processor = 0.0
        self._requests = Requests()
        self._capture = asyncio.ensure_future(self._read_output())

    @staticmethod
    async def start(home: Path) -> ChildProcess:
        """Start a child in an empty folder."""
        store.discard(home)  # a child must not find what a killed run left there
        home.mkdir(parents=True, exist_ok=True)
        own = str(home.resolve())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from the folder that a method writes to
            "-m",
            "lthbench.method.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=own,
            env=environment() | {"HOME": own, "TMPDIR": own, "PYTHONDONTWRITEBYTECODE": "1"},
            limit=2**24,
            start_new_session=True,
        )
        return ChildProcess(process)

    async def send(self, header: object, tensors: Tensors) -> None:
        """Send one message; MethodError if the child has ended."""
        assert self.process.stdin
        try:
            await messages.asend(self.process.stdin, header, tensors)
        except ConnectionError as error:
            raise await self._gone() from error

    async def receive(self, limits: Limits, stop: asyncio.Event) -> tuple[Request, Tensors]:
        """Wait for the next request.

        Raises:
            MethodError: for a malformed message, or if the child ends or exceeds its limits.
            CancelledError: once another seed has asked all to stop.
        """
        assert self.process.stdout
        reading = asyncio.ensure_future(messages.areceive(self.process.stdout))
        began = time.monotonic()
        try:
            while not (await asyncio.wait([reading], timeout=POLL_SECONDS))[0]:
                if stop.is_set():
                    raise asyncio.CancelledError
                self._check(limits, time.monotonic() - began)
            message = reading.result()
        except messages.WireError as error:
            raise MethodError(f"the child sent bytes that are no message: {error}") from error
        finally:
            reading.cancel()
        self.own_seconds += time.monotonic() - began
        self._look()
        if message is None:
            raise await self._gone()
        if stop.is_set():
            raise asyncio.CancelledError
        self._check(limits, 0.0)  # a child that asks often is never waited for that long
        return self._requests.read(message[0]), message[1]

    def _look(self) -> None:
        """Read the processor time of the process, and of those that it has waited for."""
        with contextlib.suppress(psutil.Error):
            self.processor = computed(psutil.Process(self.process.pid))

    def _check(self, limits: Limits, waiting: float) -> None:
        own = self.own_seconds + waiting
        if limits.seconds is not None and own > limits.seconds:
            raise MethodError(
                f"took more than {limits.seconds:g} s of its own time; raise --timeout if it must"
            )
        with contextlib.suppress(psutil.Error):
            used = psutil.Process(self.process.pid).memory_info().rss
            if used > limits.memory:
                raise MethodError(
                    f"uses {used / 2**30:.1f} GB of memory; at most {limits.memory / 2**30:.1f} GB "
                    "are allowed (--memory)"
                )
        if self.printed > OUTPUT_LIMIT:
            raise MethodError(f"printed more than {OUTPUT_LIMIT >> 20} MB; print less")

    async def _read_output(self) -> None:
        assert self.process.stderr
        while chunk := await self.process.stderr.read(4096):
            self.printed += len(chunk)
            if len(self.first) < OUTPUT_KEPT:
                self.first += chunk
            else:
                self.last.append(chunk)

    async def _gone(self) -> MethodError:
        code = await self.process.wait()
        await self._capture
        said = (self.first + b"".join(self.last)).decode(errors="replace").strip()
        last = said.splitlines()[-1][:100] if said else "it printed nothing"
        error = MethodError(f"the method's process ended (exit status {code}): {last}")
        error.add_note(said)
        return error

    def kill(self) -> None:
        """Kill the process; `close` waits for its end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def close(self) -> None:
        """Kill the process and wait for its end."""
        self.kill()
        await self.process.wait()
        self._capture.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._capture
