"""Jobs of several seeds as one list, run once every seed waits for results or has ended.

A batched network trains many jobs in the time of a few, so one list is worth the wait. No result
depends on which jobs went together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lthbench.training.executors.local import Executor
from lthbench.training.job import Evaluation, Examples, Job, Result

Arrived = tuple[str, Result] | BaseException


@dataclass(eq=False)
class _Request:
    """What one seed waits for."""

    jobs: Sequence[Job]
    data: Mapping[int, Examples]
    evaluation: Evaluation | None
    arrived: asyncio.Queue[Arrived] = field(default_factory=asyncio.Queue)


class Together:
    """An executor for concurrent seeds, in front of the one that runs the jobs."""

    def __init__(self, executor: Executor, seeds: int) -> None:
        self._executor, self._live = executor, seeds
        self._stopped = False
        self._waiting: list[_Request] = []
        self._lists: set[asyncio.Task[None]] = set()

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Run jobs like any executor, starting when every seed that has not ended waits."""
        if self._stopped:
            raise asyncio.CancelledError
        request = _Request(jobs, data, evaluation)
        self._waiting.append(request)
        self._look()
        try:
            for _ in jobs:
                ended = await request.arrived.get()
                if isinstance(ended, BaseException):
                    raise ended
                yield ended
        finally:
            if request in self._waiting:
                self._waiting.remove(request)

    def leave(self) -> None:
        """Note that one seed has ended, so that nobody waits for it."""
        self._live -= 1
        self._look()

    def stop(self) -> None:
        """Start no further list: whoever waits for one is cancelled; what runs continues."""
        self._stopped = True
        for request in self._waiting:
            request.arrived.put_nowait(asyncio.CancelledError())
        self._waiting = []

    async def close(self) -> None:
        """Stop what runs; the executor behind stays open."""
        for running in self._lists:
            running.cancel()
        await asyncio.gather(*self._lists, return_exceptions=True)

    def _look(self) -> None:
        if self._waiting and len(self._waiting) >= self._live:
            waiting, self._waiting = self._waiting, []
            for asked in _alike(waiting):
                running = asyncio.ensure_future(self._run(asked))
                self._lists.add(running)
                running.add_done_callback(self._lists.discard)

    async def _run(self, requests: Sequence[_Request]) -> None:
        """Run the jobs of all requests as one list; each result goes to its requester."""
        owners = {job.key: request for request in requests for job in request.jobs}
        jobs = [job for request in requests for job in request.jobs]
        data = {seed: examples for r in requests for seed, examples in r.data.items()}
        looks = [r.evaluation for r in requests if r.evaluation]
        evaluation = None
        if looks:
            sets = {seed: named for look in looks for seed, named in look.sets.items()}
            evaluation = replace(looks[0], sets=sets)
        try:
            async for key, result in self._executor.results(jobs, data, evaluation):
                owners.pop(key).arrived.put_nowait((key, result))
            assert not owners, f"no results of {len(owners)} jobs"
        except Exception as error:
            for request in requests:
                request.arrived.put_nowait(error)


def _alike(requests: Sequence[_Request]) -> list[list[_Request]]:
    """Group requests by evaluation: a list has one, or none."""
    found: dict[Hashable, list[_Request]] = {}
    for request in requests:
        look = request.evaluation
        found.setdefault(look and (look.at, look.last), []).append(request)
    return list(found.values())
