"""The connection to a Ray cluster: made once, its cores counted, its errors one line."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from lthbench.errors import ResourceError, UsageError

Ray: TypeAlias = Any  # the module and its values: an extra, whose types are not known here
ANSWER_SECONDS = 10.0  # within which a cluster must answer
NOT_FOR_NODES = ("LTHBENCH_DATA", "LTHBENCH_CACHE")  # where test examples lie


@contextmanager
def connected(address: str | None, *, cpus: int | None = None) -> Iterator[None]:
    """Connect for the duration of a block; an existing connection is reused and kept."""
    ray = ray_module()
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
        address: `host:port`, as `ray start --head` prints it; this machine must be one of its
            nodes.
        cpus: how many cores of this machine Ray may use, without a cluster.
        seconds: within which the cluster must answer.

    Raises:
        ResourceError: for a cluster that does not answer, or has no node on this machine.
    """
    ray = ray_module()
    init = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    if address is None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by the processes that ray.init starts
        init(address="local", num_cpus=cpus, include_dashboard=False)
    else:
        _answers(address, seconds)
        init(address=address)
    # Ray would print thirty lines of a dead node's log on standard output, without a setting
    # to prevent it. The run itself reports what it means.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def ray_module() -> Ray:
    """Import Ray; ResourceError says how to install it."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray; pip install 'lthbench[ray]'") from error
    return ray


def _answers(address: str, seconds: float) -> None:
    """Make sure that a cluster answers before this process relies on it.

    Ray itself tries for minutes, and then ends the calling process: so another process tries first.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host or not host:
        raise UsageError(f"--address {address}: write HOST:PORT, as `ray start --head` prints it")
    ends = time.monotonic() + seconds
    none = f"--address {address}: no Ray cluster answers there"
    step = "start one with `ray start --head`, or name its address"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except (OSError, OverflowError, ValueError) as error:  # ValueError: not a host name
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
    """Return a GPU if the cluster has one."""
    return "cuda" if ray_module().cluster_resources().get("GPU") else "cpu"


def cores() -> int:
    """Return the number of cores of the whole cluster, at least 1."""
    return max(1, int(ray_module().cluster_resources().get("CPU", 0)))


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:120]
