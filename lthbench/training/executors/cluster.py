"""Runs jobs and children on the nodes of a Ray cluster; the head keeps meters, logs and results.

Only our own message bytes, and plain tables of bytes and numbers, cross the network. Examples are
sent to a node once, under the digest of their bytes, which is verified on arrival. A chunk whose
node dies is rerun elsewhere, with the same bits, and its results are reported once.

Ray is an extra: it is imported by the functions that need it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from lthbench.errors import ResourceError, UsageError
from lthbench.io import messages
from lthbench.io.paths import digest
from lthbench.training import dispatch
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors import codec
from lthbench.training.executors.environment import NO_COMPILER
from lthbench.training.executors.local import failed, tell
from lthbench.training.executors.ray_connection import (
    ANSWER_SECONDS,
    NOT_FOR_NODES,
    Ray,
    last_line,
    ray_module,
)
from lthbench.training.job import Evaluation, Examples, Job, Result, single_threaded

ATTEMPTS = 3  # runs of a chunk whose nodes were lost
TRAINING_GPU = 0.75  # of a GPU: no two trainings share one
SETS_HELD = 32  # sets of examples that the head keeps in the object store
KNOWN_BYTES = 2**30  # of examples that one process of a node keeps decoded
COUNTED_SECONDS = 10.0  # for which a count of the cluster's cores is cached

# The only module-level state, in a process on a node: the examples that arrived there, by digest,
# most recently used last.
KNOWN: OrderedDict[str, Examples] = OrderedDict()


@dataclass(frozen=True)
class NodeChunk:
    """A chunk for a node of this makeup, and the device to train it on."""

    makeup: str
    device: str
    chunk: codec.Chunk


@dataclass(frozen=True)
class NodeReply:
    """One result of a chunk, or why the node refused it."""

    result: codec.ResultHeader | None = None
    refused: str = ""


# --- the executor --------------------------------------------------------------------------


class Cluster:
    """Runs chunks of jobs as Ray tasks, wherever a core or a GPU is free.

    Two executors share no process on any node: a search learns nothing that scoring has seen.

    Args:
        means: what a chunk is trained on: one core, or for "cuda" one GPU of its node.
        agreed: the arithmetic of another executor's nodes, if these must have the same.
    """

    def __init__(self, means: Means = HERE, agreed: str | None = None) -> None:
        self.device = means.kind
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"--device {self.device}: a cluster trains on cpu or cuda")
        if self.device == "cuda" and not ray_module().cluster_resources().get("GPU"):
            raise UsageError("--device cuda: no node of the cluster has a GPU; choose --device cpu")
        own = {"LTHBENCH_POOL": os.urandom(8).hex()}  # its own processes
        pool = {"env_vars": own | NO_COMPILER}
        # A training on a GPU must not wait for a core that a child holds.
        on_gpu = self.device == "cuda"
        remote = ray_module().remote(
            num_cpus=int(not on_gpu),
            num_gpus=TRAINING_GPU * on_gpu,
            max_retries=ATTEMPTS - 1,
            retry_exceptions=False,
            max_calls=0,  # on a GPU too, a process runs more than one chunk
            runtime_env=pool,
        )
        self._task, self._asked = remote(train), remote(makeup)
        self._makeup = agreed if on_gpu else makeup(self.device)
        self._sent: OrderedDict[str, tuple[str, Ray]] = OrderedDict()
        self._sending = asyncio.Lock()
        self._counted = (-COUNTED_SECONDS, 0)

    @property
    def makeup(self) -> str | None:
        """The arithmetic of the nodes, once one was asked."""
        return self._makeup

    async def arithmetic(self) -> str:
        """Return what bits depend on besides the job, on all nodes: see `dispatch.arithmetic`."""
        if self._makeup is None:  # the head may have no such device
            self._makeup = str(await _told(self._asked.remote(self.device)))
        return self._makeup.split()[0]

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        """Yield (key, result) as chunks end, each key once; closing it stops the running chunks."""
        await self.arithmetic()
        waiting = deque(dispatch.chunks(jobs, data, self.slots()))
        running: dict[asyncio.Future[list[bytes]], Ray] = {}
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
    ) -> Ray:
        """Submit one chunk to Ray and return its reference."""
        sets: dict[str, list[Ray]] = {}
        send = partial(self._send, sets=sets)
        header, tensors = await codec.pack_chunk(chunk, data, evaluation, send)
        assert self._makeup is not None
        whole = NodeChunk(self._makeup, self.device, header)
        return self._task.remote(messages.dumps(whole, tensors), sets)

    async def _send(self, examples: Examples, sets: dict[str, list[Ray]]) -> str:
        """Store these examples under a reference in the object store; return their name.

        A reference inside a list is not resolved before a task begins: a process fetches only what
        it does not know yet.
        """
        async with self._sending:
            if examples.digest not in self._sent:
                blob = packed_examples(examples)
                ref = await asyncio.to_thread(ray_module().put, blob)
                self._sent[examples.digest] = digest(blob), ref
            self._sent.move_to_end(examples.digest)
            name, ref = self._sent[examples.digest]
            while len(self._sent) > SETS_HELD:  # a chunk that needs one keeps its own reference
                self._sent.popitem(last=False)
        sets[name] = [ref]
        return name

    def slots(self) -> int:
        """Return how many chunks the cluster can run at once, cached for seconds; at least 1."""
        at, count = self._counted
        if time.monotonic() - at > COUNTED_SECONDS:
            resource = "GPU" if self.device == "cuda" else "CPU"
            count = int(ray_module().cluster_resources().get(resource, 0))
            self._counted = time.monotonic(), count
        return max(1, count)

    async def close(self) -> None:
        """Release the examples; the connection stays."""
        self._sent.clear()


async def _told(ref: Ray) -> Ray:
    """Return a task's result, or raise in one line why there is none."""
    exceptions = ray_module().exceptions
    try:
        return await ref
    except exceptions.RayTaskError as error:  # not the engine's, which is reported as a result
        raise ResourceError(f"a node cannot train: {last_line(error)}") from error
    except exceptions.RayError as error:
        raise ResourceError(
            f"a node or a process of one ended {ATTEMPTS} times under a training "
            f"({type(error).__name__}), perhaps for lack of memory; run the same command again to "
            "go on"
        ) from error


def _read(frame: bytes) -> tuple[str, Result]:
    """Decode one result of a chunk; ResourceError if the node refused it or its engine failed."""
    header, tensors = messages.loads(frame)
    reply = messages.read(NodeReply, header)
    if reply.result is None:
        raise ResourceError(reply.refused)
    result = codec.unpack_result(reply.result, tensors)
    if result.status == "failed":
        raise failed(result.reason)
    tell(result)
    return reply.result.key, result


async def _cancel(running: Mapping[asyncio.Future[list[bytes]], Ray]) -> None:
    """Kill the chunks that nobody waits for any more, and wait until they have ended.

    By force, which ends their processes: an interrupt in a surviving process could arrive late and
    hit its next chunk.
    """
    if not running:
        return
    ray = ray_module()
    for future in running:
        future.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    refs = list(running.values())
    for ref in refs:
        ray.cancel(ref, force=True)
    await asyncio.to_thread(ray.wait, refs, num_returns=len(refs), timeout=ANSWER_SECONDS)


# --- on a node -----------------------------------------------------------------------------


def makeup(device: str) -> str:
    """Return what the asked process's results depend on besides the job."""
    versions = *dispatch.VERSIONS.values(), f"lthbench-{version('lthbench')}"
    return " ".join((dispatch.arithmetic(Means(device)), *versions))


def packed_examples(examples: Examples) -> bytes:
    """Encode examples as bytes; a node decodes them to the same."""
    return messages.dumps(*codec.pack_examples("", examples))


def train(message: bytes, sets: Mapping[str, Sequence[Ray]]) -> list[bytes]:
    """Train one chunk in a process of a node; return one packed result for each of its jobs.

    Args:
        message: the jobs, and the names of their examples.
        sets: for each name the reference of its bytes, alone in a list.
    """
    for name in NOT_FOR_NODES:
        os.environ.pop(name, None)
    single_threaded()  # every time: denormals are a setting of the thread
    header, tensors = messages.loads(message)
    sent = messages.read(NodeChunk, header)
    try:
        if sent.makeup != (mine := makeup(sent.device)):
            raise ResourceError(f"a node computes as {mine}, the others as {sent.makeup}")
        known = {name: _known(name, ref, sent.device) for name, (ref,) in sets.items()}
    except ResourceError as error:
        refused = f"node {socket.gethostname()}: {error}; give every node the same installation"
        return [messages.dumps(NodeReply(refused=refused))]
    replies = []
    for key, result in dispatch.run_whole(*codec.unpack_chunk(sent.chunk, tensors, known)):
        told, content = codec.pack_result(key, result)
        replies.append(messages.dumps(NodeReply(told), content))
    return replies


def _known(name: str, ref: Ray, device: str) -> Examples:
    """Return the examples of that name, from this process or from the object store."""
    if name not in KNOWN:
        KNOWN[name] = unpacked_examples(name, ray_module().get(ref), device)
    KNOWN.move_to_end(name)
    found = KNOWN[name]
    while sum(one.x.nbytes for one in KNOWN.values()) > KNOWN_BYTES and len(KNOWN) > 1:
        KNOWN.popitem(last=False)  # a chunk that needs it keeps its own reference
    return found


def unpacked_examples(name: str, blob: bytes, device: str) -> Examples:
    """Decode packed examples; ResourceError if they are not those named."""
    if (arrived := digest(blob)) != name:
        raise ResourceError(f"examples {name[:12]} arrived as {arrived[:12]}")
    header, tensors = messages.loads(blob)
    return codec.unpack_examples(messages.read(codec.ExamplesHeader, header), tensors).to(device)
