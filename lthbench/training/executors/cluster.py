"""Runs jobs and children on the nodes of a Ray cluster; the head keeps meters, logs and results.

What crosses the network is the wire's own bytes, and plain tables of bytes and numbers. Examples
are sent to a node once, under the digest of their bytes, which is compared where they arrive. A
chunk whose node dies is run again elsewhere, to the same bits, and its results are told once.

Ray is an extra: it is imported by the functions that need it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench.errors import MethodError, NodeLost, ResourceError, UsageError
from lthbench.evaluation.search.child_process import POLL_SECONDS, ChildProcess, Limits
from lthbench.io import messages
from lthbench.io.paths import cache, data_folder, digest
from lthbench.method.audit_hook import NO_COMPILER
from lthbench.training import dispatch
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors import codec
from lthbench.training.executors.local import failed, tell
from lthbench.training.job import Evaluation, Examples, Job, Result, single_threaded

ANSWER_SECONDS = 10.0  # within which a cluster must answer
ATTEMPTS = 3  # runs of a chunk, after nodes were lost under it
TRAINING_GPU, CHILD_GPU = 0.75, 0.01  # of one: no two trainings share it, children find room
SETS_HELD = 32  # sets of examples that the head keeps in the object store
KNOWN_BYTES = 2**30  # of examples that one process of a node keeps decoded
COUNTED_SECONDS = 10.0  # for which a count of the cluster's cores is believed
NOT_FOR_NODES = ("LTHBENCH_DATA", "LTHBENCH_CACHE")  # where test examples lie

# State of a process on a node, and the only one of this module: the examples that arrived there,
# by the digest of their bytes, the last used at the end.
KNOWN: OrderedDict[str, Examples] = OrderedDict()


# --- the connection ------------------------------------------------------------------------


@contextmanager
def connected(address: str | None, *, cpus: int | None = None) -> Iterator[None]:
    """Connect for a while; a connection that was there before is used and stays."""
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        connect(address, cpus=cpus)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def connect(
    address: str | None, *, cpus: int | None = None, seconds: float = ANSWER_SECONDS
) -> None:
    """Join the running cluster at an address, or start Ray on this machine alone.

    Args:
        address: `host:port`, as `ray start --head` prints it; this machine is one of its nodes.
        cpus: of this machine alone, how many cores Ray may use.
        seconds: within which the cluster must answer.

    Raises ResourceError for a cluster that does not answer, or has no node on this machine.
    """
    ray = _ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by what ray.init starts
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        _answers(address, seconds)
        ray.init(address=address, **quiet)
    # A node that dies would be told on standard output by thirty lines of its log, which no
    # setting turns off. What it means for a run is told by the run.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def _ray() -> Any:
    """Ray itself, or the line that says how to get it."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray; pip install 'lthbench[ray]'") from error
    return ray


def _answers(address: str, seconds: float) -> None:
    """Make sure that a cluster answers before this process relies on it.

    Ray itself tries for minutes, and ends the process that asked: another one asks first.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host or not host:
        raise UsageError(f"--address {address}: write HOST:PORT, as `ray start --head` prints it")
    ends = time.monotonic() + seconds
    none = f"--address {address}: no Ray cluster answers there"
    step = "start one with `ray start --head`, or name its address"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except (OSError, OverflowError, ValueError) as error:  # ValueError: no name of a host
        raise ResourceError(f"{none} ({error}); {step}") from error
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(1.0, ends - time.monotonic()),
        )
    except subprocess.TimeoutExpired as error:
        raise ResourceError(f"{none} within {seconds:g} s; {step}") from error
    if asked.returncode:
        said = " ".join(asked.stdout.decode(errors="replace").split())[:200] or "it said nothing"
        raise ResourceError(f"--address {address}: cannot join that cluster: {said}")


PROBE = """
import logging, sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except Exception as error:
    print(error)
    sys.exit(1)
"""


def default_device() -> str:
    """A GPU where the cluster has one."""
    return "cuda" if _ray().cluster_resources().get("GPU") else "cpu"


def cores() -> int:
    """The cores of the whole cluster, at least 1."""
    return max(1, int(_ray().cluster_resources().get("CPU", 0)))


# --- the executor --------------------------------------------------------------------------


class Cluster:
    """Runs chunks of jobs as Ray tasks, wherever a core or a GPU is free.

    Two executors share no process on any node: what scoring has seen, no search knows.

    Args:
        means: what a chunk is trained on: one core, or where it is "cuda" one GPU of its node.
        agreed: what another executor's nodes compute by, if these must too.
    """

    def __init__(self, means: Means = HERE, agreed: str | None = None) -> None:
        self.device = means.kind
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"--device {self.device}: a cluster trains on cpu or cuda")
        if self.device == "cuda" and not _ray().cluster_resources().get("GPU"):
            raise UsageError("--device cuda: no node of the cluster has a GPU; choose --device cpu")
        own = {"LTHBENCH_POOL": os.urandom(8).hex()}  # processes of its own
        pool = {"env_vars": own | NO_COMPILER}
        # A training on a GPU must not wait for a core that a child holds.
        on_gpu = self.device == "cuda"
        cost: dict[str, Any] = {"num_cpus": int(not on_gpu), "num_gpus": TRAINING_GPU * on_gpu}
        retries = {"max_retries": ATTEMPTS - 1, "retry_exceptions": False}
        retries["max_calls"] = 0  # on a GPU too a process serves more than one chunk
        self._task = _ray().remote(**cost, **retries, runtime_env=pool)(train)
        self._asked = _ray().remote(**cost, **retries, runtime_env=pool)(makeup)
        self._makeup = agreed if on_gpu else makeup(self.device)
        self._sent: OrderedDict[str, tuple[str, Any]] = OrderedDict()
        self._sending = asyncio.Lock()
        self._counted = (-COUNTED_SECONDS, 0)
        self._children: list[RemoteChild] = []

    @property
    def makeup(self) -> str | None:
        """What the nodes compute by, once one was asked."""
        return self._makeup

    async def arithmetic(self) -> str:
        """What bits depend on beside the job, the same on every node: see `choice.arithmetic`."""
        if self._makeup is None:  # the head may have no such device
            self._makeup = str(await _told(self._asked.remote(self.device)))
        return self._makeup.split()[0]

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Yield (key, result) as chunks end, each key once; closing it ends the chunks that run."""
        await self.arithmetic()
        waiting = deque(dispatch.chunks(jobs, data, self.slots()))
        running: dict[asyncio.Future[list[bytes]], Any] = {}
        try:
            while waiting or running:
                # More than can run, so that none waits for the head; not all, which would fill it.
                while waiting and len(running) < 2 * self.slots() + 2:
                    ref = await self._submit(waiting.popleft(), data, evaluation)
                    running[asyncio.ensure_future(_told(ref))] = ref
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    del running[one]
                    for key, result in map(_read, one.result()):
                        yield key, result
        finally:
            await _cancel(running)

    async def _submit(
        self, chunk: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> Any:
        """Hand one chunk to Ray; its reference."""
        sets: dict[str, list[Any]] = {}
        send = partial(self._send, sets=sets)
        header, tensors = await codec.pack_chunk(chunk, data, evaluation, send)
        header |= {"makeup": self._makeup, "device": self.device}
        return self._task.remote(messages.dumps(header, tensors), sets)

    async def _send(self, examples: Examples, sets: dict[str, list[Any]]) -> str:
        """The name of these examples, which lie in the object store under a reference.

        In a list, a reference is not looked up before a task begins: a process asks for what it
        does not know yet.
        """
        async with self._sending:
            if examples.digest not in self._sent:
                blob = packed_examples(examples)
                ref = await asyncio.to_thread(_ray().put, blob)
                self._sent[examples.digest] = digest(blob), ref
            self._sent.move_to_end(examples.digest)
            name, ref = self._sent[examples.digest]
            while len(self._sent) > SETS_HELD:  # a chunk that needs one holds it itself
                self._sent.popitem(last=False)
        sets[name] = [ref]
        return name

    def slots(self) -> int:
        """How many chunks the cluster can run at once, as it was seconds ago; at least 1."""
        at, count = self._counted
        if time.monotonic() - at > COUNTED_SECONDS:
            resource = "GPU" if self.device == "cuda" else "CPU"
            count = int(_ray().cluster_resources().get(resource, 0))
            self._counted = time.monotonic(), count
        return max(1, count)

    async def child(self, home: Path | None = None) -> RemoteChild:
        """Start a seed's child on some node; the interface of `ChildProcess`.

        A child waits for its trainings most of the time, and computes where its method has loops
        of its own: it never does both. While at least half of the cluster's cores stay free of
        children, it has a core of its own, so that a seed may use two; otherwise it has none
        reserved and shares one with a training, as it does on one machine. Children can therefore
        never take the cores that the trainings need for which they wait.

        Args:
            home: not used: the child's folder is a new one on its node.
        """
        self._children = [child for child in self._children if not child.closed]
        taken = sum(child.reserved for child in self._children)
        gpu = CHILD_GPU * (self.device == "cuda")
        child = await RemoteChild.start(int(2 * (taken + 1) <= cores()), gpu)
        self._children.append(child)
        return child

    async def close(self) -> None:
        """End what is left of children, and let go of the examples; the connection stays."""
        for child in self._children:
            await child.close()
        self._children.clear()
        self._sent.clear()


async def _told(ref: Any) -> Any:
    """What a task returned, or in one line why it did not."""
    exceptions = _ray().exceptions
    try:
        return await ref
    except exceptions.RayTaskError as error:  # not the engine's, which is told as a result
        raise ResourceError(f"a node cannot train: {_last_line(error)}") from error
    except exceptions.RayError as error:
        raise ResourceError(
            f"a node or a process of one ended {ATTEMPTS} times under a training "
            f"({type(error).__name__}), perhaps for lack of memory; run the same command again to "
            "go on"
        ) from error


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:120]


def _read(reply: bytes) -> tuple[str, Result]:
    """One result of a chunk; ResourceError if the node refused it or its engine failed."""
    header, tensors = messages.loads(reply)
    if "refused" in header:
        raise ResourceError(header["refused"])
    result = codec.unpack_result(header, tensors)
    if result.status == "failed":
        raise failed(result.reason)
    tell(result)
    return header["key"], result


async def _cancel(running: Mapping[asyncio.Future[list[bytes]], Any]) -> None:
    """End the chunks that nobody waits for any more, and wait until they are no more.

    By force, which ends their processes: an interrupt in a process that goes on could come late
    and hit its next chunk.
    """
    if not running:
        return
    ray = _ray()
    for future in running:
        future.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    refs = list(running.values())
    for ref in refs:
        ray.cancel(ref, force=True)
    await asyncio.to_thread(ray.wait, refs, num_returns=len(refs), timeout=ANSWER_SECONDS)


# --- on a node -----------------------------------------------------------------------------


def makeup(device: str) -> str:
    """What results depend on beside the job, of the process that is asked."""
    versions = *dispatch.VERSIONS.values(), f"lthbench-{version('lthbench')}"
    return " ".join((dispatch.arithmetic(Means(device)), *versions))


def packed_examples(examples: Examples) -> bytes:
    """Examples as bytes; a node decodes them to the same."""
    fields = {"scale": examples.scale, "shift": examples.shift, "tokens": examples.tokens}
    return messages.dumps(fields, {"x": examples.x, "y": examples.y})


def train(message: bytes, sets: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Train one chunk in a process of a node; one packed result for each of its jobs.

    Args:
        message: the jobs, and the names of their examples.
        sets: for each name the reference of its bytes, alone in a list.
    """
    for name in NOT_FOR_NODES:
        os.environ.pop(name, None)
    single_threaded()  # every time: the denormals are a setting of the thread
    header, tensors = messages.loads(message)
    try:
        if header["makeup"] != (mine := makeup(header["device"])):
            raise ResourceError(f"a node computes as {mine}, the others as {header['makeup']}")
        known = {name: _known(name, ref, header["device"]) for name, (ref,) in sets.items()}
    except ResourceError as error:
        refused = f"node {socket.gethostname()}: {error}; give every node the same installation"
        return [messages.dumps({"refused": refused})]
    ended = dispatch.run_whole(*codec.unpack_chunk(header, tensors, known))
    return [messages.dumps(*codec.pack_result(*one)) for one in ended]


def _known(name: str, ref: Any, device: str) -> Examples:
    """The examples of that name: from this process, or from the object store."""
    if name not in KNOWN:
        KNOWN[name] = unpacked_examples(name, _ray().get(ref), device)
    KNOWN.move_to_end(name)
    found = KNOWN[name]
    while sum(one.x.nbytes for one in KNOWN.values()) > KNOWN_BYTES and len(KNOWN) > 1:
        KNOWN.popitem(last=False)  # a chunk that needs it holds it itself
    return found


def unpacked_examples(name: str, blob: bytes, device: str) -> Examples:
    """The examples that `packed_examples` was given; ResourceError if they are not those named."""
    if (arrived := digest(blob)) != name:
        raise ResourceError(f"examples {name[:12]} arrived as {arrived[:12]}")
    header, tensors = messages.loads(blob)
    return Examples(tensors["x"], tensors["y"], **header).to(device)


# --- a seed's child on a node --------------------------------------------------------------


class Host:
    """A Ray actor beside one child process: passes its messages on, counts its time and memory."""

    async def start(self) -> None:
        """Start the child in a new folder of this node."""
        self._never = asyncio.Event()
        self._hidden = [str(folder) for folder in _folders()]
        for name in NOT_FOR_NODES:
            os.environ.pop(name, None)
        self._home = Path(tempfile.mkdtemp(prefix="lthbench-child-"))
        self._child = await ChildProcess.start(self._home)

    async def send(self, frame: bytes) -> dict[str, Any]:
        """Pass a message on to the child."""
        header, tensors = messages.loads(frame)
        if "forbidden" in header:  # the setup: the folders of this node count as well
            header["forbidden"] = [*header["forbidden"], *self._hidden]
        try:
            await self._child.send(header, tensors)
        except MethodError as error:
            return self._failed(error)
        return {}

    async def receive(self, seconds: float | None, memory: int) -> dict[str, Any]:
        """The child's next message, or what is wrong with it."""
        try:
            message = await self._child.receive(Limits(seconds, memory), self._never)
        except MethodError as error:
            return self._failed(error)
        return {"frame": messages.dumps(*message), "own": self._child.own_seconds}

    def kill(self) -> None:
        """Kill the child."""
        self._child.kill()

    async def close(self) -> None:
        """End the child and remove its folder."""
        await self._child.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _failed(self, error: MethodError) -> dict[str, Any]:
        notes = [str(note) for note in getattr(error, "__notes__", ())]
        return {"error": str(error), "notes": notes, "own": self._child.own_seconds}


def _folders() -> Iterator[Path]:
    """Where this node keeps data, which no method may open."""
    yield cache()
    with suppress(ResourceError):
        if folder := data_folder():
            yield folder


class RemoteChild:
    """A child on some node, as the coordinator sees it: the interface of `ChildProcess`.

    Every call raises NodeLost once the node is gone.
    """

    def __init__(self, host: Any, reserved: int) -> None:
        self.own_seconds = 0.0
        self.reserved = reserved
        self._host = host

    @property
    def closed(self) -> bool:
        """Whether it was ended."""
        return self._host is None

    @staticmethod
    async def start(reserved: int, gpu: float = 0.0) -> RemoteChild:
        """Start a child with so many cores and such a part of a GPU, where the fewest are busy."""
        ray = _ray()
        wanted = ray.remote(Host).options(
            num_cpus=reserved, num_gpus=gpu, max_restarts=0, scheduling_strategy="SPREAD"
        )
        child = RemoteChild(wanted.remote(), reserved)
        try:
            await child._call("start")
        except BaseException:
            child._end()
            raise
        return child

    async def send(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._heard(await self._call("send", messages.dumps(header, tensors)))

    async def receive(self, limits: Limits, stop: asyncio.Event) -> messages.Message:
        """The next request; MethodError if the child ends, or takes too much.

        Raises CancelledError once another seed has asked all to stop.
        """
        reading = asyncio.ensure_future(self._call("receive", limits.seconds, limits.memory))
        try:
            while not (await asyncio.wait([reading], timeout=POLL_SECONDS))[0]:
                if stop.is_set():
                    raise asyncio.CancelledError
            message = messages.loads(self._heard(reading.result())["frame"])
        finally:
            reading.cancel()
        if stop.is_set():
            raise asyncio.CancelledError
        return message

    def kill(self) -> None:
        """Kill the child, not what stands beside it."""
        self._host.kill.remote()

    async def close(self) -> None:
        """End the child and what stands beside it; a node that is gone has done so."""
        if self.closed:
            return
        with suppress(ResourceError, asyncio.TimeoutError):
            await asyncio.wait_for(self._call("close"), ANSWER_SECONDS)
        self._end()

    def _end(self) -> None:
        ray = _ray()
        if ray.is_initialized():
            ray.kill(self._host, no_restart=True)
        self._host = None

    async def _call(self, name: str, *arguments: Any) -> Any:
        exceptions = _ray().exceptions
        try:
            return await getattr(self._host, name).remote(*arguments)
        except exceptions.RayTaskError as error:
            raise ResourceError(f"a node cannot hold a child: {_last_line(error)}") from error
        except exceptions.RayError as error:
            raise NodeLost(
                f"the node of a search was lost ({type(error).__name__}); run the same command "
                "again to go on"
            ) from error

    def _heard(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A reply of the host's, or the error that it tells."""
        self.own_seconds = reply.get("own", self.own_seconds)
        if "error" not in reply:
            return reply
        error = MethodError(reply["error"])
        for note in reply["notes"]:
            error.add_note(note)
        raise error
