"""Runs jobs somewhere: cuts a list into chunks that an engine takes, here or in local workers.

The only module that starts workers. Which results come first may differ; what they are may not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from lthbench import wire
from lthbench.engine import (
    Evaluation,
    Examples,
    Job,
    Result,
    as_in_a_worker,
    choice,
    packing,
)
from lthbench.errors import ResourceError

ENVIRONMENT_KEPT = (
    "PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV",
)  # fmt: skip


class Executor(Protocol):
    """Where jobs run; results are yielded as they end."""

    def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Run the jobs on their seeds' examples and yield (key, result) as each ends."""
        ...

    async def close(self) -> None:
        """End every process that was started."""
        ...


class Here:
    """Runs every job in this process, with a worker's arithmetic: one thread, no denormals."""

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        for job in jobs:
            try:
                with as_in_a_worker():
                    ended = list(choice.run([job], data, evaluation))
            except Exception as error:
                raise _failed(f"{type(error).__name__}: {error}") from error
            for key, result in ended:
                yield key, result
            await asyncio.sleep(0)

    async def close(self) -> None:
        return


def _failed(reason: str) -> ResourceError:
    """An error inside the engine: no score of a method, which can only make a run diverge."""
    told = " ".join(reason.split())[:80]
    return ResourceError(
        f"a training failed ({told}); run the same command again to go on, with fewer --workers if "
        "memory was short"
    )


class Local:
    """Workers on this machine, one thread each; a chunk is one job, for the plain engine."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._started: list[_Worker] = []
        # Last in, first out: a worker is started only when all that are there have work.
        self._idle: asyncio.LifoQueue[_Worker | None] = asyncio.LifoQueue()
        for _ in range(workers):
            self._idle.put_nowait(None)  # one that is yet to be started

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        tasks = [asyncio.ensure_future(self._one(job, data, evaluation)) for job in jobs]
        try:
            for ended in asyncio.as_completed(tasks):
                yield await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start(self) -> None:
        """Start the workers before the first job needs one; they import while others read data."""
        idle = [self._idle.get_nowait() for _ in range(self._idle.qsize())]
        for free in idle:
            self._idle.put_nowait(free or await self._start_one())

    async def _one(
        self, job: Job, data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> tuple[str, Result]:
        free = await self._idle.get()
        done: _Worker | None = None
        try:
            free = free or await self._start_one()
            key, result = await free.run(job, data, evaluation)
            done = free
            if result.status == "failed":
                raise _failed(result.reason)
            return key, result
        finally:  # one that is gone, or whose job nobody waits for any more, is replaced
            if free and not done:
                free.kill()
            self._idle.put_nowait(done)

    async def _start_one(self) -> _Worker:
        started = await _Worker.start()
        self._started.append(started)
        return started

    async def close(self) -> None:
        for started in self._started:
            await started.close()
        self._started.clear()


class _Worker:
    """One worker process and what it already knows."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.known: set[str] = set()

    @staticmethod
    async def start() -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from the folder that the command is run in
            "-m",
            "lthbench.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            limit=2**24,
            start_new_session=True,  # an interrupt of the terminal reaches the coordinator alone
        )
        return _Worker(process)

    async def run(
        self, job: Job, data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> tuple[str, Result]:
        try:
            return await self._run(job, data, evaluation)
        except (ConnectionError, EOFError) as error:
            code = await self.process.wait()
            raise ResourceError(
                f"a worker process ended (exit status {code}), perhaps for lack of memory; run the "
                "same command again to go on, with fewer --workers if it happens again"
            ) from error

    async def _run(
        self, job: Job, data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> tuple[str, Result]:
        header, tensors = packing.pack_job(job)
        message: dict[str, Any] = {"op": "run", "jobs": [header], "evaluation": None}
        message["data"] = {str(job.seed): await self._tell(data[job.seed])}
        if evaluation:
            named = {p: await self._tell(e) for p, e in evaluation.sets[job.seed].items()}
            message["evaluation"] = {"sets": {str(job.seed): named}, "at": list(evaluation.at)}
        await self._send(message, wire.prefixed("0", tensors))
        assert self.process.stdout
        reply = await wire.areceive(self.process.stdout)
        if reply is None:
            raise EOFError
        return reply[0]["key"], packing.unpack_result(*reply)

    async def _tell(self, examples: Examples) -> str:
        """The name of these examples, which are sent to a worker once."""
        name = examples.digest
        if name not in self.known:
            fields = {"scale": examples.scale, "shift": examples.shift, "tokens": examples.tokens}
            tensors = {"x": examples.x, "y": examples.y}
            await self._send({"op": "examples", "name": name, **fields}, tensors)
            self.known.add(name)
        return name

    async def _send(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        assert self.process.stdin
        await wire.asend(self.process.stdin, header, tensors)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def close(self) -> None:
        self.kill()
        await self.process.wait()


def environment() -> dict[str, str]:
    """The little that a child or worker inherits: no path to data, no cache, no home."""
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    if "PYTHONPATH" in kept:  # a child runs in a folder of its own
        folders = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders)
    return kept


def local(workers: int) -> Executor:
    """Workers on this machine, or this process itself for 0."""
    return Local(workers) if workers else Here()


def default_workers() -> int:
    """As many as this process may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
