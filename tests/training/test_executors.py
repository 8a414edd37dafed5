"""Where jobs run changes no bit; and no worker outlives the one that it works for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from lthbench.errors import ResourceError
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.training.engines import plain
from lthbench.training.executors.environment import environment
from lthbench.training.executors.local import Executor, Here, Local, default_workers, local
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests import tiny

Found = dict[str, tuple[Any, ...]]
EVALUATION = Evaluation(
    {seed: {"held_out": tiny.examples(seed=9), "more": tiny.examples(seed=8)} for seed in (0, 1)},
    (5, 10),
    ("more",),
)
DATA = {seed: tiny.examples(seed=seed) for seed in (0, 1)}
LONG = tiny.recipe(steps=10**7, schedule="constant", rate=1e-4)


def fading() -> Job:
    """Weights that fade through the smallest numbers, where arithmetic may round to zero."""
    start = {name: t * 1e-36 for name, t in families.initial(tiny.network(), 2, 0).items()}
    decay = tiny.recipe("adamw", weight_decay=5.0, schedule="constant", steps=60)
    return tiny.job(key="fading", start=State(start, 0), recipe=decay)


def jobs() -> list[Job]:
    masks = tiny.masks(tiny.network(), 2)
    return [
        *(tiny.job(key=f"dense {seed}", seed=seed, until=10) for seed in (0, 1)),
        tiny.job(key="masked", masks=masks, until=10),
        tiny.job(key="momentum", masks=masks, recipe=tiny.recipe("sgd-momentum"), until=10),
        tiny.job(key="wild", recipe=tiny.recipe("sgd", rate=1e30), until=10),
        tiny.job(key="evaluated", until=0),
        fading(),
    ]


def told(result: Result) -> tuple[Any, ...]:
    """All of a result but its seconds."""
    digest = result.state.digest if result.state is not None else None
    tables = (result.correct, result.predictions)
    return (
        result.status,
        digest,
        result.distance,
        *({n: t.tolist() for n, t in sorted(x.items())} for x in tables),
    )


async def collected(
    executor: Executor,
    some: list[Job],
    evaluation: Evaluation | None = EVALUATION,
    data: dict[int, Examples] = DATA,
) -> Found:
    return {key: told(r) async for key, r in executor.results(some, data, evaluation)}


@asynccontextmanager
async def workers(count: int) -> AsyncIterator[Local]:
    """An executor that is closed at the end, and leaves no process behind."""
    executor = Local(count)
    pids: list[int] = []
    try:
        yield executor
    finally:
        pids = [one.process.pid for one in executor._started]
        await executor.close()
        assert not any(alive(pid) for pid in pids)
        assert len(pids) >= 1


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        await asyncio.sleep(0.02)


def run(main: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main, 120)

    asyncio.run(bounded())


@pytest.fixture(scope="module", autouse=True)
def arithmetic_of_this_process() -> Iterator[None]:
    """Running jobs here sets it; other tests get it back."""
    yield
    torch.set_flush_denormal(False)


# --- the same bits everywhere --------------------------------------------------------------


def test_one_worker_gives_the_results_of_this_process() -> None:
    async def main() -> None:
        here = await collected(Here(), jobs())
        assert set(here) == {job.key for job in jobs()}
        assert here["wild"][:2] == ("diverged", None)
        assert here["evaluated"][4].keys() == {"held_out", "more"}
        async with workers(1) as executor:
            assert await collected(executor, jobs()) == here
            assert await collected(executor, jobs()[::-1]) == here
            await an_error_is_no_result(executor, here)
            # Without an evaluation the states are the same, and nothing is counted.
            plainly = await collected(executor, jobs(), None)
            assert {k: v[1] for k, v in plainly.items()} == {k: v[1] for k, v in here.items()}
            assert not any(counts or answers for *_, counts, answers in plainly.values())
            assert len(executor._started) == 1
            await a_job_given_up_answers_nobody_else(executor, here)

    run(main())


async def an_error_is_no_result(executor: Executor, here: Found) -> None:
    """Neither of the method nor of a control: it ends the run, which can go on."""
    bad = tiny.job(key="bad", masks={"nothing": torch.ones(1) > 0}, until=10)
    with pytest.raises(ResourceError, match=r"a training failed .KeyError: 'nothing'.; run the"):
        await collected(executor, [bad], None)
    assert await collected(executor, jobs()[:1]) == {"dense 0": here["dense 0"]}


async def a_job_given_up_answers_nobody_else(executor: Executor, here: Found) -> None:
    """What a worker does for nobody any more would be read as the answer to its next job."""
    given_up = asyncio.ensure_future(collected(executor, [tiny.job(key="given up")], None))
    await asyncio.sleep(0.02)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await collected(executor, jobs()[:1]) == {"dense 0": here["dense 0"]}


def test_two_workers_give_them_too_and_one_that_is_killed_is_replaced() -> None:
    async def main() -> None:
        here = await collected(Here(), jobs())
        async with workers(2) as executor:
            assert await collected(executor, jobs()[:1]) == {"dense 0": here["dense 0"]}
            assert await collected(executor, jobs()[1:2]) == {"dense 1": here["dense 1"]}
            assert len(executor._started) == 1  # an idle one is used before another is started
            some, others = jobs()[:3], jobs()[3:]
            both = await asyncio.gather(collected(executor, some), collected(executor, others))
            assert both[0] | both[1] == here
            assert len(executor._started) == 2
            await a_killed_worker_ends_in_one_line(executor)
            assert await collected(executor, some[:1]) == {"dense 0": here["dense 0"]}

    run(main())


async def a_killed_worker_ends_in_one_line(executor: Local) -> None:
    long = asyncio.ensure_future(collected(executor, [long_job("a"), long_job("b")], None))
    await until(lambda: executor._idle.qsize() == 0)
    os.kill(executor._started[0].process.pid, signal.SIGKILL)
    with pytest.raises(ResourceError) as caught:
        await long
    line = str(caught.value)
    assert "a worker process ended (exit status -9)" in line and "--workers" in line
    assert "run the same command again" in line and "\n" not in line


def test_small_numbers_matter_to_that_test() -> None:
    """The fading job ends in other bits where the smallest numbers are not rounded to zero."""
    torch.set_flush_denormal(False)
    ((_, kept),) = plain.run([fading()], DATA)
    (flushed,) = asyncio.run(collected(Here(), [fading()], None)).values()
    assert kept.state is not None and kept.state.digest != flushed[1]


# --- workers that end, and that must end ---------------------------------------------------


def long_job(key: str = "long") -> Job:
    return tiny.job(key=key, recipe=LONG)


@pytest.mark.slow
def test_closing_ends_workers_at_work() -> None:
    async def main() -> None:
        async with workers(2) as executor:
            await executor.start()
            await executor.start()
            assert len(executor._started) == 2
            long = asyncio.ensure_future(collected(executor, [long_job("a"), long_job("b")], None))
            busy = [psutil.Process(one.process.pid) for one in executor._started]
            await until(lambda: all(one.cpu_times().user > 0.1 for one in busy))
            # The end of its input is enough, where no kernel ends a process with its parent.
            channel = executor._started[0].process.stdin
            assert channel is not None
            channel.close()
            await until(lambda: not alive(busy[0].pid))
            long.cancel()
            with suppress(asyncio.CancelledError, ResourceError):
                await long

    run(main())


PARENT = """
import asyncio
from lthbench.training.executors.local import Local
from tests.training.test_executors import DATA, long_job, jobs

async def main():
    executor = Local(2)
    await executor.start()
    if {trained}:  # the workers have imported all that they need
        assert [r async for r in executor.results(jobs()[:4], DATA, None)]
    print(*(one.process.pid for one in executor._started), flush=True)
    async for _ in executor.results([long_job("a"), long_job("b")], DATA, None):
        pass

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False])
def test_workers_end_with_a_parent_that_is_killed(
    trained: bool, request: pytest.FixtureRequest
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(trained=trained)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(request.config.rootpath)},
    )
    pids: list[int] = []
    try:
        with parent:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2 and all(alive(pid) for pid in pids)
            before = {pid: seconds(pid) for pid in pids}
            if trained:
                asyncio.run(until(lambda: all(seconds(p) > before[p] + 0.2 for p in pids)))
            parent.kill()
        asyncio.run(until(lambda: not any(alive(pid) for pid in pids)))
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


def seconds(pid: int) -> float:
    """What a worker has computed."""
    return float(psutil.Process(pid).cpu_times().user)


# --- the rest ------------------------------------------------------------------------------


def test_workers_inherit_little(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LTHBENCH_DATA", "LTHBENCH_CACHE", "HOME", "HF_HOME", "SECRET"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["relative", "/absolute"]))
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    found = environment()
    assert not {"LTHBENCH_DATA", "LTHBENCH_CACHE", "HOME", "HF_HOME", "SECRET"} & set(found)
    assert found["PYTHONHASHSEED"] == "7" and found["PATH"] == os.environ["PATH"]
    paths = found["PYTHONPATH"].split(os.pathsep)
    assert all(Path(path).is_absolute() for path in paths) and paths[1] == "/absolute"


def test_an_error_in_this_process_is_told_like_a_worker_s() -> None:
    async def main() -> None:
        await an_error_is_no_result(Here(), await collected(Here(), jobs()[:1]))

    run(main())


def test_a_worker_imports_nothing_from_where_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method's file may be called random.py."""
    for name in ("random", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        here = await collected(Here(), jobs()[:1])
        async with workers(1) as executor:
            assert await collected(executor, jobs()[:1]) == here

    run(main())


def test_no_workers_means_here() -> None:
    assert isinstance(local(0), Here)
    assert isinstance(local(2), Local)
    assert 1 <= default_workers() <= (os.cpu_count() or 1)
    asyncio.run(Here().close())
    asyncio.run(Local(3).close())
