"""Runs jobs: cuts a list into chunks for an engine, in this process or in local workers.

The only module that starts workers. Which results come first may vary; the results may not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from typing import Protocol

from lthbench.errors import ResourceError
from lthbench.io import messages
from lthbench.training import dispatch
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors import codec
from lthbench.training.executors.environment import environment
from lthbench.training.job import Evaluation, Examples, Job, Result, as_in_a_worker


class Executor(Protocol):
    """Where jobs run; results are yielded as they end."""

    def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Run the jobs on their seeds' examples and yield (key, result) as each ends."""
        ...

    async def close(self) -> None:
        """Stop every process that was started."""
        ...


class Here:
    """Runs every job in this process, with a worker's arithmetic: one thread, no denormals."""

    def __init__(self, means: Means = HERE) -> None:
        self.means = means

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Run the jobs one after the other and yield (key, result) as each ends."""
        there = {seed: examples.to(self.means.device) for seed, examples in data.items()}
        seen = evaluation.to(self.means.device) if evaluation else None
        for chunk in dispatch.chunks(jobs, there):
            try:
                with as_in_a_worker():
                    ended = list(dispatch.run(chunk, there, seen))
            except Exception as error:
                raise failed(f"{type(error).__name__}: {error}") from error
            for key, result in ended:
                tell(result)
                yield key, result
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Do nothing: no process was started."""
        return


def tell(result: Result) -> None:
    """Print an engine's note on how a job was trained: a line on standard error, once."""
    if result.note:
        _say_once(result.note)


@cache
def _say_once(line: str) -> None:
    print(f"lthbench: {line}", file=sys.stderr)


def failed(reason: str) -> ResourceError:
    """Return the error of a failed engine; a method can only make a run diverge, not fail."""
    told = " ".join(reason.split())[:80]
    return ResourceError(
        f"a training failed ({told}); run the same command again to go on, with fewer --workers if "
        "memory was short"
    )


class Local:
    """Workers on this machine, one thread each, that take chunks of jobs."""

    def __init__(self, workers: int, means: Means = HERE) -> None:
        self.workers, self.means = workers, means
        self._started: list[_Worker] = []
        # Last in, first out: a worker is started only when all running ones are busy.
        self._idle: asyncio.LifoQueue[_Worker | None] = asyncio.LifoQueue()
        for _ in range(workers):
            self._idle.put_nowait(None)  # not started yet

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Distribute chunks among the workers and yield (key, result) as each ends."""
        arrived: asyncio.Queue[tuple[str, Result] | BaseException | None] = asyncio.Queue()
        chunks = dispatch.chunks(jobs, data, self.workers)
        tasks = [asyncio.ensure_future(self._one(c, data, evaluation, arrived)) for c in chunks]
        running = len(tasks)
        try:
            while running:
                ended = await arrived.get()
                if isinstance(ended, BaseException):
                    raise ended
                if ended is None:
                    running -= 1
                else:
                    yield ended
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
        self,
        chunk: Sequence[Job],
        data: Mapping[int, Examples],
        evaluation: Evaluation | None,
        arrived: asyncio.Queue[tuple[str, Result] | BaseException | None],
    ) -> None:
        """Have one worker run a chunk; its results are queued, then None or the error."""
        free = await self._idle.get()
        done: _Worker | None = None
        try:
            free = free or await self._start_one()
            broken = None
            async for key, result in free.run(chunk, data, evaluation):
                if result.status == "failed":
                    broken = failed(result.reason)
                else:
                    tell(result)
                    arrived.put_nowait((key, result))
            done = free
            arrived.put_nowait(broken)
        except Exception as error:
            arrived.put_nowait(error)
        finally:  # a worker that died, or whose jobs nobody waits for any more, is replaced
            if free and not done:
                free.kill()
            self._idle.put_nowait(done)

    async def _start_one(self) -> _Worker:
        started = await _Worker.start(self.means)
        self._started.append(started)
        return started

    async def close(self) -> None:
        """Stop all workers."""
        for started in self._started:
            await started.close()
        self._started.clear()


class _Worker:
    """One worker process and the examples it already knows."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.known: set[str] = set()

    @staticmethod
    async def start(means: Means) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from the current folder
            "-m",
            "lthbench.training.executors.worker",
            means.device,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            limit=2**24,
            start_new_session=True,  # an interrupt of the terminal reaches the coordinator alone
        )
        return _Worker(process)

    async def run(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        try:
            await self._send(*await codec.pack_chunk(jobs, data, evaluation, self._tell))
            assert self.process.stdout
            for _ in jobs:
                reply = await messages.areceive(self.process.stdout)
                if reply is None:
                    raise EOFError
                result = messages.read(codec.ResultHeader, reply[0])
                yield result.key, codec.unpack_result(result, reply[1])
        except (ConnectionError, EOFError) as error:
            code = await self.process.wait()
            raise ResourceError(
                f"a worker process ended (exit status {code}), perhaps for lack of memory; run the "
                "same command again to go on, with fewer --workers if it happens again"
            ) from error

    async def _tell(self, examples: Examples) -> str:
        """Return the worker's name of these examples, sending them once."""
        name = examples.digest
        if name not in self.known:
            await self._send(*codec.pack_examples(name, examples))
            self.known.add(name)
        return name

    async def _send(self, header: object, tensors: messages.Tensors) -> None:
        assert self.process.stdin
        await messages.asend(self.process.stdin, header, tensors)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def close(self) -> None:
        self.kill()
        await self.process.wait()


def local(workers: int, means: Means = HERE) -> Executor:
    """Return an executor with workers on this machine, or this process itself for 0."""
    return Local(workers, means) if workers else Here(means)


def default_workers(means: Means = HERE) -> int:
    """Return one worker per available core; one for a GPU, which trains many networks at once."""
    if means.kind != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
