"""Two nodes give the bits of one process; a node may die, its data may rot, a child may live there.

One real cluster for the whole file: a head and a node of one core each, on this machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lthbench.errors import MethodError, NodeLost, ResourceError, UsageError
from lthbench.evaluation.search.child_process import ChildProcess, Limits
from lthbench.evaluation.search.remote_child import Children, RemoteChild
from lthbench.evaluation.search.run import Conditions, again_when_lost
from lthbench.evaluation.search.run import find as search_by
from lthbench.io import messages
from lthbench.io.paths import digest
from lthbench.method.source import load_method
from lthbench.tools.check import TASK
from lthbench.training import dispatch
from lthbench.training.executors import cluster, ray_connection
from lthbench.training.executors.cluster import Cluster
from lthbench.training.executors.local import Here, Local
from lthbench.training.executors.ray_connection import connect, connected
from lthbench.training.job import Job
from tests import tiny
from tests.searching import METHODS, search
from tests.training.test_executors import (
    DATA,
    EVALUATION,
    an_error_is_no_result,
    collected,
    jobs,
    told,
    until,
)

REAL_PROCESSES = True  # Ray's threads do not survive a fork

ray = pytest.importorskip("ray")
utils = pytest.importorskip("ray.cluster_utils")

pytestmark = [
    pytest.mark.slow,
    # Ray leaves the pipes of the processes that it starts, and its own sockets, to the collector.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"),
]

SEED = 3
LIMITS = Limits(seconds=300)
ENDLESS = tiny.recipe(steps=10**7, schedule="constant", rate=1e-4)
SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
SOON = {  # a dead node is noticed in seconds
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cluster, which this process is connected to; its nodes know where test data lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("LTHBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LTHBENCH_DATA", str(tmp_path_factory.mktemp("data")))
        head = {**SMALL, "include_dashboard": False, "_system_config": SOON}
        made = utils.Cluster(initialize_head=True, head_node_args=head)
        made.add_node(**SMALL)
        try:
            with connected(made.address):
                yield made
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def executor(nodes: Any) -> Cluster:
    """One for the file: the processes that have imported torch serve every test."""
    return Cluster()


def run(main: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main, 120)

    return asyncio.run(bounded())


def processes(node: Any, name: str) -> list[psutil.Process]:
    """The processes of a node that do something by that name now: `ray::train`, `ray::Host`."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in raylet(node).children(recursive=True):
            with suppress(psutil.Error, IndexError):
                if process.cmdline()[0].startswith(name):
                    found.append(process)
    return found


def raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def training(nodes: Any) -> list[psutil.Process]:
    both = [nodes.head_node, *nodes.worker_nodes]
    return [process for node in both for process in processes(node, "ray::train")]


def tickets(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.glob("tickets/*/*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# --- the same bits, once each --------------------------------------------------------------


def test_two_nodes_give_the_results_of_a_local_worker(
    executor: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order, with an evaluation or without; and examples cross once."""
    sent: list[bytes] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda blob: (sent.append(blob), put(blob))[1])

    async def main() -> None:
        one = Local(1)
        local = await collected(one, jobs())
        await one.close()
        seen = [(key, told(r)) async for key, r in executor.results(jobs(), DATA, EVALUATION)]
        assert len(seen) == len(jobs()) and dict(seen) == local
        assert len(sent) == len(set(sent)) == 4  # two seeds' and two sets to count on
        assert await collected(executor, jobs()[::-1]) == local
        plainly = await collected(executor, jobs(), None)
        assert {key: value[1] for key, value in plainly.items()} == {
            key: value[1] for key, value in local.items()
        }
        assert len(sent) == 4
        await an_error_is_no_result(executor, local)

    run(main())


def test_closing_early_leaves_no_training(nodes: Any, executor: Cluster) -> None:
    async def main() -> None:
        endless = [tiny.job(key=f"endless {n}", recipe=ENDLESS) for n in range(5)]
        going = executor.results([jobs()[0], *endless], DATA, None)
        assert (await anext(going))[0] == "dense 0"
        await until(lambda: len(training(nodes)) == 2)
        await going.aclose()
        await until(lambda: not training(nodes), 10)
        # The cores are free again, and nothing of what was given up is told.
        assert set(await collected(executor, jobs()[:2], None)) == {"dense 0", "dense 1"}

    run(main())


def test_stacked_jobs_go_together_shared_out_among_devices() -> None:
    stacked = [job_by("stacked", key=f"s{n}") for n in range(5)]
    alone = [job_by("plain", key=f"p{n}") for n in range(2)]
    keys = [job.key for job in (*stacked, *alone)]
    for slots, sizes in ((1, [5, 1, 1]), (2, [3, 2, 1, 1]), (9, [1] * 7)):
        cut = list(dispatch.chunks([*stacked, *alone], DATA, slots))
        assert [len(chunk) for chunk in cut] == sizes
        assert [job.key for chunk in cut for job in chunk] == keys


def job_by(engine: str, **what: Any) -> Job:
    return replace(tiny.job(**what), engine=engine)


# --- what a node refuses, and what it does not know ----------------------------------------


def test_examples_that_rot_on_their_way_are_refused(
    executor: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = ray.put

    def rotten(blob: bytes) -> Any:
        return put(blob[:-1] + bytes([blob[-1] ^ 1]))

    monkeypatch.setattr(ray, "put", rotten)

    async def main() -> None:
        others = {7: tiny.examples(seed=7)}  # that no node has
        with pytest.raises(ResourceError, match=r"^node .*: examples \w{12} arrived as \w{12}; "):
            await collected(executor, [tiny.job(seed=7, until=1)], None, others)

    run(main())


def test_a_bit_of_the_examples_is_enough_and_they_arrive_as_they_left() -> None:
    for examples in (tiny.examples(), tiny.examples("conv"), tiny.examples("transformer")):
        blob = cluster.packed_examples(examples)
        arrived = cluster.unpacked_examples(digest(blob), blob, "cpu")
        assert (arrived.x == examples.x).all() and (arrived.y == examples.y).all()
        assert arrived.inputs(slice(3)).equal(examples.inputs(slice(3)))
        with pytest.raises(ResourceError):
            cluster.unpacked_examples(digest(blob + b"0"), blob, "cpu")


def test_a_node_that_computes_otherwise_is_refused(
    executor: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        asked = str(await cluster._told(executor._asked.remote("cpu")))
        assert asked == executor._makeup and asked.startswith(await executor.arithmetic() + " ")
        monkeypatch.setattr(executor, "_makeup", asked + " another")
        with pytest.raises(ResourceError, match=r"computes as .*, the others as .* another; give"):
            await collected(executor, jobs()[:1])

    run(main())


def test_a_training_node_knows_no_path_to_data_and_no_other_executor_s_examples(
    executor: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await collected(executor, jobs())  # its processes know several sets
        monkeypatch.setattr(cluster, "train", asked)
        monkeypatch.setattr(cluster, "_read", lambda reply: (reply, None))
        another = Cluster()
        (found,) = [
            messages.loads(answer)[0] async for answer, _ in another.results(job, DATA, None)
        ]
        assert found == {"known": 1, "paths": []}
        await another.close()

    job = jobs()[:1]
    run(main())


TRAIN = cluster.train


def asked(message: bytes, sets: Any) -> list[bytes]:
    """In place of `train`, on a node: train, then tell what its process knows."""
    TRAIN(message, sets)
    paths = [name for name in os.environ if name in ray_connection.NOT_FOR_NODES]
    return [messages.dumps({"known": len(cluster.KNOWN), "paths": paths})]


def test_a_process_keeps_the_examples_that_it_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = {seed: cluster.packed_examples(tiny.examples(seed=seed)) for seed in range(3)}
    names = {seed: digest(blob) for seed, blob in blobs.items()}
    fetched: list[int] = []
    monkeypatch.setattr(ray, "get", lambda seed: (fetched.append(seed), blobs[seed])[1])
    monkeypatch.setattr(cluster, "KNOWN", type(cluster.KNOWN)())
    monkeypatch.setattr(cluster, "KNOWN_BYTES", 2 * tiny.examples().x.nbytes)
    for seed in (0, 1, 0, 2, 0, 1):
        cluster._known(names[seed], seed, "cpu")
    assert fetched == [0, 1, 2, 1] and len(cluster.KNOWN) == 2


# --- addresses ------------------------------------------------------------------------------


def test_an_address_that_does_not_answer_is_one_line() -> None:
    """Nothing listens; something listens that is no cluster; it is no address."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ResourceError, match="no Ray cluster answers there within 3 s") as slow:
            connect(f"127.0.0.1:{port}", seconds=3)
        assert time.monotonic() - began < 6
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"no Ray cluster answers there .*refused") as refused:
        connect(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 2
    for caught in (slow, refused):
        line = str(caught.value)
        assert "\n" not in line and line.startswith("--address 127.0.0.1:") and len(line) < 180
        assert caught.value.exit_code == 2
    for address in ("somewhere", "ray://somewhere:1", ":6379", "host:port"):
        with pytest.raises(UsageError, match="write HOST:PORT"):
            connect(address)
    assert ray_connection.ANSWER_SECONDS == 10


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for start in (Cluster, lambda: connect(None)):
        with pytest.raises(UsageError, match=r"pip install 'lthbench\[ray\]'"):
            start()


# --- a child on a node ---------------------------------------------------------------------


def test_a_child_on_a_node_finds_the_tickets_that_one_here_finds(
    executor: Cluster, tmp_path: Path
) -> None:
    method = load_method(str(METHODS / "busy_loop.py"))
    search(method, TASK, SEED, tmp_path / "here")
    children, started = Children("cpu"), list[RemoteChild]()

    async def start(home: Path) -> RemoteChild:
        started.append(await children.start(home))
        return started[-1]

    async def main() -> None:
        (found,) = await search_by(
            method, TASK, (SEED,), tmp_path, executor, Conditions(LIMITS, start=start)
        )
        assert found.status == "ok" and found.rungs
        (child,) = started
        assert child.own_seconds > 0
        assert child.closed

    run(main())
    assert tickets(tmp_path) == tickets(tmp_path / "here") != {}


def test_a_child_s_end_and_its_excess_are_told_as_they_are_here(
    executor: Cluster, tmp_path: Path
) -> None:
    setup = {"task": "none"}

    async def one(child: Any, limits: Limits) -> str:
        with pytest.raises(MethodError) as caught:
            await child.send(setup, {})
            await child.receive(limits, asyncio.Event())
        await child.close()
        await child.close()
        return str(caught.value)

    async def main() -> None:
        for limits in (LIMITS, Limits(memory=1)):
            local = await one(await ChildProcess.start(tmp_path / "home"), limits)
            distant = await one(await Children("cpu").start(), limits)
            assert distant.partition(" of memory")[2] == local.partition(" of memory")[2]
            assert distant.split()[:4] == local.split()[:4] or "uses" in distant

    run(main())


def test_children_leave_half_of_the_cores_to_trainings(executor: Cluster) -> None:
    """And one that is killed, or waited for in vain, says so."""

    async def main() -> None:
        all_of_them = Children("cpu")
        children = [await all_of_them.start() for _ in range(2)]
        assert [child.reserved for child in children] == [1, 0]
        assert set(await collected(executor, jobs()[:1])) == {"dense 0"}
        children[0].kill()
        with pytest.raises(MethodError, match=r"process ended \(exit status -9\)"):
            await children[0].receive(LIMITS, asyncio.Event())
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, stop.set)
        with pytest.raises(asyncio.CancelledError):
            await children[1].receive(LIMITS, stop)
        await children[0].close()
        assert (await all_of_them.start()).reserved == 1
        await all_of_them.close()
        assert all(child.closed for child in children)
        await executor.close()
        assert not executor._sent

    run(main())


# --- a node that dies ----------------------------------------------------------------------

LENGTH = 2500  # steps: seconds, so that what is seen to run still runs when its node is killed


def test_a_search_whose_node_is_lost_is_run_again_so_often() -> None:
    for failures, calls in ((0, 1), (2, 3), (9, 3)):
        left, seen = [NodeLost("gone")] * failures, []

        async def once(left: list[NodeLost] = left, seen: list[int] = seen) -> str:
            seen.append(1)
            if left:
                raise left.pop()
            return "found"

        with pytest.raises(NodeLost) if failures > 2 else nullcontext():
            assert run(again_when_lost(once)) == "found"
        assert len(seen) == calls


def test_a_chunk_whose_node_dies_runs_again_and_is_told_once(nodes: Any, executor: Cluster) -> None:
    """And a child that was there is told to be lost, so that its search can begin again."""
    whole = tiny.recipe(steps=LENGTH)
    long = [tiny.job(key=f"long {seed}", seed=seed, recipe=whole) for seed in (0, 1)]
    local = asyncio.run(collected(Here(), long, None))
    seen: list[tuple[str, Any]] = []

    async def collect() -> None:
        async for key, result in executor.results(long, DATA, None):
            seen.append((key, told(result)))

    async def a_child_there(node: Any) -> RemoteChild:
        children: list[RemoteChild] = []
        there = len(processes(node, "ray::Host"))
        while len(processes(node, "ray::Host")) == there:
            children.append(await RemoteChild.start(0))
            assert len(children) < 5
        return children[-1]

    async def main() -> None:
        (node,) = nodes.worker_nodes
        child = await a_child_there(node)
        waiting = asyncio.ensure_future(child.receive(LIMITS, asyncio.Event()))
        collecting = asyncio.ensure_future(collect())
        await until(lambda: len(training(nodes)) == 2)
        (process,) = processes(node, "ray::train")
        before = process.cpu_times().user
        await until(lambda: process.cpu_times().user > before + 0.2)
        # With all of its processes, as a machine dies: alone, the raylet leaves behind a training
        # that may end before anyone misses its node.
        doomed = [raylet(node), *raylet(node).children(recursive=True)]
        for one in doomed:
            with suppress(psutil.NoSuchProcess):
                os.kill(one.pid, signal.SIGKILL)
        assert not seen
        with pytest.raises(NodeLost, match=r"^the node of a search was lost .*same command"):
            await waiting
        await child.close()
        await collecting
        assert sorted(seen) == sorted(local.items())  # each once
        await executor.close()

    run(main())
