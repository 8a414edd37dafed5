"""Jobs of seeds that run beside each other become one list, and each result finds its way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.training.executors.batching import Together
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests import tiny

DATA = tiny.examples()


class Noting:
    """An executor that notes the lists it is given and answers in another order."""

    def __init__(self, broken: bool = False) -> None:
        self.lists: list[list[str]] = []
        self.looks: list[Evaluation | None] = []
        self.broken = broken

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        self.lists.append(sorted(job.key for job in jobs))
        self.looks.append(evaluation)
        assert {job.seed for job in jobs} <= set(data)
        for job in reversed(jobs):
            await asyncio.sleep(0)
            if self.broken:
                raise RuntimeError("no memory")
            yield job.key, Result(job.start, seconds=float(job.seed))

    async def close(self) -> None:
        return


async def asked(
    together: Together, seed: int, round: int, count: int = 1, looks: tuple[int, ...] | None = None
) -> list[str]:
    """The keys that one seed gets back for one request."""
    jobs = [tiny.job(key=f"{seed} {round} {n}", seed=seed) for n in range(count)]
    evaluation = None if looks is None else Evaluation({seed: {"held_out": DATA}}, looks)
    keys = []
    async for key, result in together.results(jobs, {seed: DATA}, evaluation):
        assert result.seconds == seed
        keys.append(key)
    return keys


async def searching(together: Together, seed: int, rounds: int, pause: int) -> list[str]:
    """A seed that asks so many times, and does something of its own between."""
    found = []
    for number in range(rounds):
        for _ in range(pause):
            await asyncio.sleep(0)
        found += await asked(together, seed, number)
    together.leave()
    return found


@settings(max_examples=40, deadline=None)
@given(
    seeds=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=5),
    order=st.permutations(range(5)),
)
def test_rounds_go_together_however_they_arrive(
    seeds: list[tuple[int, int]], order: list[int]
) -> None:
    """The nth requests of all that still search are one list; nobody waits for who has ended."""
    below = Noting()

    async def main() -> list[list[str]]:
        together = Together(below, len(seeds))
        begun = {}
        for seed in (n for n in order if n < len(seeds)):
            begun[seed] = asyncio.ensure_future(searching(together, seed, *seeds[seed]))
        return [await begun[seed] for seed in range(len(seeds))]

    found = asyncio.run(asyncio.wait_for(main(), 20))
    for seed, (rounds, _) in enumerate(seeds):
        assert found[seed] == [f"{seed} {number} 0" for number in range(rounds)]
    most = max(rounds for rounds, _ in seeds)
    expected = [
        sorted(f"{seed} {n} 0" for seed, (rounds, _) in enumerate(seeds) if rounds > n)
        for n in range(most)
    ]
    assert below.lists == expected


def test_what_is_looked_at_differently_is_two_lists() -> None:
    below = Noting()

    async def main() -> None:
        together = Together(below, 3)
        both = ((0, None), (1, ()), (2, ()))
        await asyncio.gather(*(asked(together, seed, 0, looks=looks) for seed, looks in both))

    asyncio.run(asyncio.wait_for(main(), 20))
    assert sorted(below.lists) == [["0 0 0"], ["1 0 0", "2 0 0"]]
    (look,) = [look for look in below.looks if look]
    assert set(look.sets) == {1, 2}


def test_an_error_reaches_everybody_who_waits() -> None:
    async def main() -> list[BaseException | list[str]]:
        together = Together(Noting(broken=True), 2)
        both = (asked(together, seed, 0) for seed in (0, 1))
        return await asyncio.gather(*both, return_exceptions=True)

    for error in asyncio.run(asyncio.wait_for(main(), 20)):
        assert isinstance(error, RuntimeError)


def test_who_gives_up_is_not_waited_for() -> None:
    """A request that is cancelled leaves the list; the others go on when its seed has left."""
    below = Noting()

    async def main() -> list[str]:
        together = Together(below, 2)
        first = asyncio.ensure_future(asked(together, 0, 0))
        await asyncio.sleep(0.01)
        assert not below.lists
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        together.leave()
        return await asked(together, 1, 0)

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["1 0 0"]
    assert below.lists == [["1 0 0"]]
