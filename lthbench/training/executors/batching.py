"""Jobs of several seeds as one list: what one seed asks for waits until all others ask or ended.

A batched network trains many jobs in the time of a few, so that one list is worth the wait. No
result depends on which jobs went together.
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
    """An executor for seeds that run beside each other, in front of the one that runs the jobs."""

    def __init__(self, executor: Executor, seeds: int) -> None:
        self._executor, self._live = executor, seeds
        self._stopped = False
        self._waiting: list[_Request] = []
        self._lists: set[asyncio.Task[None]] = set()

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """As of an executor; begins when every seed that has not ended waits."""
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
        """One seed has ended: nobody waits for it any more."""
        self._live -= 1
        self._look()

    def stop(self) -> None:
        """Begin no further list: who waits for one, or will, is cancelled; what runs goes on."""
        self._stopped = True
        for request in self._waiting:
            request.arrived.put_nowait(asyncio.CancelledError())
        self._waiting = []

    async def close(self) -> None:
        """End what runs; the executor behind stays open."""
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
        """Run the jobs of all as one list; each result goes to who asked for it."""
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
    """Requests that are looked at alike: a list has one evaluation, or none."""
    found: dict[Hashable, list[_Request]] = {}
    for request in requests:
        look = request.evaluation
        found.setdefault(look and (look.at, look.last), []).append(request)
    return list(found.values())
