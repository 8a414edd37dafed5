"""A search that is killed and started again ends in the bytes of one that was left alone.

Each method runs once undisturbed in this process, then through the real child, which is killed by
signal at several points and started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import psutil
import pytest

from lthbench.errors import MethodError
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.search.run import Conditions, Killed, find
from lthbench.evaluation.search.session import Point, Probe, Search
from lthbench.method.source import Method, baseline_names, load_method
from lthbench.tickets.ticket_files import Rung
from lthbench.tools.check import TASK
from lthbench.training.executors.local import Here
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests.searching import METHODS, search, traced

SEED = 3
LIMITS = Limits(seconds=300)
LONG = ("long_loop", "busy_loop")
TOGETHER = 2  # children at once


class Counting(Here):
    """Runs jobs in this process and notes which."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        self.keys += [job.key for job in jobs]
        async for result in super().results(jobs, data, evaluation):
            yield result


@dataclass
class Case:
    """A method, an undisturbed search, and one that was killed again and again."""

    method: Method
    undisturbed: Path
    disturbed: Path
    rungs: list[Rung]
    points: list[Point]
    search: Search | None = None
    executor: Counting = field(default_factory=Counting)


Cases = dict[str, Case]


def thirds(steps: int) -> tuple[int, ...]:
    return steps // 3, 2 * steps // 3


def points(name: str, seen: Sequence[Point]) -> list[Point]:
    """Where to kill: in and after a long loop; else after two calls and a ticket."""
    steps = TASK.recipe.steps
    if name == "long_loop":
        return [("snapshot", 1, step) for step in (*thirds(steps), steps)]
    tickets = [point for point in seen if point[0] == "ticket"]
    calls = [point for point in seen if point[0] in ("train", "accuracy", "examples")]
    if name == "busy_loop":  # in the body too, between one snapshot and the next
        inside = ("snapshot", 1, steps // 3)
        return [calls[0], inside, calls[-1], tickets[-1], ("snapshot", 1, steps)]
    return sorted({*calls[:1], *calls[len(calls) // 2 :][:1], tickets[1]}, key=lambda p: p[1])


async def go(case: Case, point: Point | None) -> Search:
    """One process of the search: to its end, or to the point where it is killed."""
    probe = Probe(thirds, point)
    folder, executor = case.disturbed, case.executor
    ended = await find(
        case.method, TASK, (SEED,), folder, executor, Conditions(LIMITS, probe=probe)
    )
    return ended[0]


async def disturb(case: Case, free: asyncio.Semaphore) -> None:
    """Kill the search at each point in turn, then let it end."""
    async with free:
        for point in case.points:
            with pytest.raises(Killed):
                await go(case, point)
            assert not (case.disturbed / "tickets" / f"seed{SEED}" / "search.json").exists()
        case.search = await go(case, None)


def tickets(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.glob("tickets/*/*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


FIRST = ("imp", "long_loop")
REST = tuple(n for n in (*baseline_names(), *LONG) if n not in FIRST)  # among the slow tests
NAMES = [pytest.param(FIRST, name, id=name) for name in FIRST]
NAMES += [pytest.param(REST, name, id=name, marks=pytest.mark.slow) for name in REST]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Cases]:
    """The searches of a group, made when the first of its tests asks for them."""
    return cache(partial(disturbed, tmp_path_factory))


def disturbed(tmp_path_factory: pytest.TempPathFactory, names: tuple[str, ...]) -> Cases:
    """All searches, some at a time: most of a child's time goes into importing torch."""
    made: dict[str, Case] = {}
    for name in names:
        method = load_method(str(METHODS / f"{name}.py") if name in LONG else name)
        folder = tmp_path_factory.mktemp(name)
        state, seen = traced(method, TASK, SEED, folder / "undisturbed")
        places = folder / "undisturbed", folder / "disturbed"
        made[name] = Case(method, *places, state.rungs, points(name, seen))

    async def disturb_all() -> list[BaseException | None]:
        free = asyncio.Semaphore(TOGETHER)
        searches = (disturb(case, free) for case in made.values())
        return await asyncio.gather(*searches, return_exceptions=True)

    failures = asyncio.run(disturb_all())
    assert failures == [None] * len(made)
    return made


@pytest.mark.parametrize(("group", "name"), NAMES)
def test_killed_and_started_again_it_is_the_same(
    group: tuple[str, ...], name: str, searched: Callable[[tuple[str, ...]], Cases]
) -> None:
    """Tickets, costs, origins: every byte but the seconds."""
    case = searched(group)[name]
    assert case.points
    assert case.search is not None
    assert case.search.status == "ok"
    assert list(case.search.rungs) == case.rungs
    assert tickets(case.disturbed) == tickets(case.undisturbed)
    ladder = TASK.ladder.trained if case.rungs[0].trained else TASK.ladder.untrained
    assert len(tickets(case.disturbed)) == len(ladder)


@pytest.mark.parametrize(("group", "name"), NAMES)
def test_nothing_is_trained_twice(
    group: tuple[str, ...], name: str, searched: Callable[[tuple[str, ...]], Cases]
) -> None:
    """A stored result is charged again and taken from the store."""
    keys = searched(group)[name].executor.keys
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(("group", "name"), NAMES)
def test_the_store_goes_with_the_last_ticket(
    group: tuple[str, ...], name: str, searched: Callable[[tuple[str, ...]], Cases]
) -> None:
    assert not (searched(group)[name].disturbed / "store" / f"seed{SEED}").exists()


def test_a_child_killed_from_outside_is_named_and_resumed(tmp_path: Path) -> None:
    """As by a system short of memory: one line, and the same command goes on."""
    method = load_method("imp")
    home = (tmp_path / "store" / f"seed{SEED}" / "home").resolve()

    async def kill_early() -> None:
        running = asyncio.ensure_future(
            find(method, TASK, (SEED,), tmp_path, Here(), Conditions(LIMITS))
        )
        while len(list(home.parent.glob("*.safetensors"))) < 3:
            await asyncio.sleep(0.001)
        for process in psutil.Process().children():
            if process.cwd() == str(home):
                os.kill(process.pid, signal.SIGKILL)
        await running

    with pytest.raises(MethodError, match=r"process ended \(exit status -9\)"):
        asyncio.run(kill_early())
    assert asyncio.run(find(method, TASK, (SEED,), tmp_path, Here(), Conditions(LIMITS)))[0].rungs
    search(method, TASK, SEED, tmp_path / "undisturbed")
    assert tickets(tmp_path) == tickets(tmp_path / "undisturbed")


def test_what_a_killed_child_wrote_is_gone(tmp_path: Path) -> None:
    """Its own folder is empty at each start: a method must not find what it once cached."""
    text = (
        "from pathlib import Path\n"
        "from lthbench import Ticket, keep_top\n"
        "def find_tickets(problem):\n"
        "    seen = Path('seen').exists()\n"
        "    Path('seen').write_text('')\n"
        "    end = problem.train(until=20 if seen else 10)\n"
        "    for density in problem.densities:\n"
        "        yield Ticket(keep_top({n: end[n] for n in problem.prunable}, density))\n"
    )
    path = tmp_path / "caches.py"
    path.write_text(text)
    method = load_method(str(path))
    probe = Probe(kill_at=("train", 1, 0))
    with pytest.raises(Killed):
        asyncio.run(find(method, TASK, (SEED,), tmp_path, Here(), Conditions(LIMITS, probe=probe)))
    assert asyncio.run(find(method, TASK, (SEED,), tmp_path, Here(), Conditions(LIMITS)))[0].rungs
