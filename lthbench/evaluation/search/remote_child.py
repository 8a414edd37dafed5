"""A seed's child on a node of a cluster, and the actor beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lthbench.errors import MethodError, NodeLost, ResourceError
from lthbench.evaluation.search.child_process import POLL_SECONDS, ChildProcess, Limits
from lthbench.io import messages
from lthbench.io.messages import Tensors
from lthbench.io.paths import data_folders
from lthbench.method.requests import Request, Setup
from lthbench.training.executors.ray_connection import (
    ANSWER_SECONDS,
    NOT_FOR_NODES,
    Ray,
    cores,
    last_line,
    ray_module,
)

CHILD_GPU = 0.01  # of a GPU: beside a training there is room for children


@dataclass(frozen=True)
class Relayed:
    """What a host replies: the child's next request, its error, or neither.

    Attributes:
        own, processor: seconds, as for a child process.
        notes: of the error.
    """

    own: float
    processor: float
    request: Annotated[Request, Field(discriminator="op")] | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()


class Host:
    """A Ray actor beside one child process: relays its messages, counts its time and memory."""

    async def start(self) -> None:
        """Start the child in a new folder of this node."""
        self._never = asyncio.Event()
        self._hidden = [str(folder) for folder in data_folders()]
        for name in NOT_FOR_NODES:
            os.environ.pop(name, None)
        self._home = Path(tempfile.mkdtemp(prefix="lthbench-child-"))
        self._child = await ChildProcess.start(self._home)

    async def send(self, frame: bytes) -> bytes:
        """Relay a message to the child."""
        header, tensors = messages.loads(frame)
        message: object = header
        if "forbidden" in header:  # the setup: the folders of this node count as well
            setup = messages.read(Setup, header)
            message = replace(setup, forbidden=(*setup.forbidden, *self._hidden))
        try:
            await self._child.send(message, tensors)
        except MethodError as error:
            return self._failed(error)
        return messages.dumps(self._spent())

    async def receive(self, seconds: float | None, memory: int) -> bytes:
        """Return the child's next message, or its error."""
        try:
            request, tensors = await self._child.receive(Limits(seconds, memory), self._never)
        except MethodError as error:
            return self._failed(error)
        return messages.dumps(replace(self._spent(), request=request), tensors)

    def kill(self) -> None:
        """Kill the child."""
        self._child.kill()

    async def close(self) -> None:
        """End the child and remove its folder."""
        await self._child.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _failed(self, error: MethodError) -> bytes:
        notes = tuple(str(note) for note in getattr(error, "__notes__", ()))
        return messages.dumps(replace(self._spent(), error=str(error), notes=notes))

    def _spent(self) -> Relayed:
        return Relayed(self._child.own_seconds, self._child.processor)


class RemoteChild:
    """A child on some node, as the coordinator sees it: the interface of `ChildProcess`.

    Every call raises NodeLost once the node is gone.
    """

    def __init__(self, host: Ray, reserved: int) -> None:
        self.own_seconds = self.processor = 0.0
        self.reserved = reserved
        self._host = host

    @property
    def closed(self) -> bool:
        """Whether the child was ended."""
        return self._host is None

    @staticmethod
    async def start(reserved: int, gpu: float = 0.0) -> RemoteChild:
        """Start a child with these cores and this share of a GPU, on the least busy node."""
        ray = ray_module()
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

    async def send(self, header: object, tensors: Tensors) -> None:
        """Send one message to the child."""
        self._hear(await self._call("send", messages.dumps(header, tensors)))

    async def receive(self, limits: Limits, stop: asyncio.Event) -> tuple[Request, Tensors]:
        """Wait for the next request.

        Raises:
            MethodError: if the child ends, or exceeds its limits.
            CancelledError: once another seed has asked all to stop.
        """
        reading = asyncio.ensure_future(self._call("receive", limits.seconds, limits.memory))
        try:
            while not (await asyncio.wait([reading], timeout=POLL_SECONDS))[0]:
                if stop.is_set():
                    raise asyncio.CancelledError
            request, tensors = self._hear(reading.result())
        finally:
            reading.cancel()
        if stop.is_set():
            raise asyncio.CancelledError
        assert request is not None
        return request, tensors

    def kill(self) -> None:
        """Kill the child, but not its actor."""
        self._host.kill.remote()

    async def close(self) -> None:
        """End the child and its actor; a lost node has already done so."""
        if self.closed:
            return
        with suppress(ResourceError, asyncio.TimeoutError):
            await asyncio.wait_for(self._call("close"), ANSWER_SECONDS)
        self._end()

    def _end(self) -> None:
        ray = ray_module()
        if ray.is_initialized():
            ray.kill(self._host, no_restart=True)
        self._host = None

    async def _call(self, name: str, *arguments: object) -> Ray:
        exceptions = ray_module().exceptions
        try:
            return await getattr(self._host, name).remote(*arguments)
        except exceptions.RayTaskError as error:
            raise ResourceError(f"a node cannot hold a child: {last_line(error)}") from error
        except exceptions.RayError as error:
            raise NodeLost(
                f"the node of a search was lost ({type(error).__name__}); run the same command "
                "again to go on"
            ) from error

    def _hear(self, frame: bytes) -> tuple[Request | None, Tensors]:
        """Return what the host replied, or raise the error that it reports."""
        header, tensors = messages.loads(frame)
        reply = messages.read(Relayed, header)
        self.own_seconds, self.processor = reply.own, reply.processor
        if reply.error is None:
            return reply.request, tensors
        error = MethodError(reply.error)
        for note in reply.notes:
            error.add_note(note)
        raise error


class Children:
    """The children of one evaluation on the nodes of a cluster."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._children: list[RemoteChild] = []

    async def start(self, _: Path | None = None) -> RemoteChild:
        """Start a seed's child on some node, in a new folder there; as `ChildProcess.start`.

        A child waits for its trainings most of the time, and computes where its method has its own
        loops: it never does both. While at least half of the cluster's cores are free of children,
        it has a core of its own, so that a seed may use two; otherwise it has none reserved and
        shares one with a training, as on one machine. So children can never take the cores that the
        trainings need for which they wait.
        """
        self._children = [child for child in self._children if not child.closed]
        taken = sum(child.reserved for child in self._children)
        gpu = CHILD_GPU * (self._device == "cuda")
        child = await RemoteChild.start(int(2 * (taken + 1) <= cores()), gpu)
        self._children.append(child)
        return child

    async def close(self) -> None:
        """End the remaining children."""
        for child in self._children:
            await child.close()
        self._children.clear()
