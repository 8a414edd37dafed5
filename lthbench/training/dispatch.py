"""Which engine trains a job: a fixed rule by family and device, never timed at run time.

The engine is part of every stored result's key, so the rule is applied where a job is created. The
measurements behind the table: `python -m tests.speed.engines`.
"""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from lthbench.errors import UsageError, nearest
from lthbench.protocol.task import Network
from lthbench.training.engines import compact, plain, stacked
from lthbench.training.job import Evaluation, Examples, Job, Result

# Increment one when its bits change.
VERSIONS = {"plain": "plain-3", "compact": "compact-1", "stacked": "stacked-2"}
JOBS_TOGETHER, BYTES_TOGETHER = 256, 2**29  # of one chunk: what is lost with a dying process
RUN = {"plain": plain.run, "compact": compact.run, "stacked": stacked.run}


@dataclass(frozen=True)
class Means:
    """The device that networks are trained on, and the engine, if one was requested."""

    device: str = "cpu"  # torch's name
    engine: str | None = None
    there: str = ""  # the arithmetic that a cluster's nodes reported, in place of ours

    @property
    def kind(self) -> str:
        """The device without its number: what results depend on."""
        return self.device.partition(":")[0]


HERE = Means()  # a processor, and the best engine for it


def engine_for(means: Means, network: Network) -> str:
    """Return the engine for networks of this family; a requested one takes what it supports."""
    able = engines(means, network)
    if means.engine is None:
        return able[0]
    return means.engine if means.engine in able else "plain"


def means_of(device: str | None, engine: str | None, *, here: bool = True) -> Means:
    """Return the means requested; by default a GPU if there is one, and the best engine.

    Args:
        device: torch's name of a device, or None.
        engine: the name of an engine, or None.
        here: whether the device must be this machine's own.

    Raises:
        UsageError: for a device that does not exist and for an unknown engine.
    """
    if engine not in (None, *RUN):
        raise UsageError(f"--engine {engine}: one of {', '.join(RUN)}{nearest(str(engine), RUN)}")
    if device is None:
        return Means("cuda" if torch.cuda.is_available() else "cpu", engine)
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device}: none that torch knows; try cpu or cuda") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.mps.is_available())}
    if here and (asked.index or 0) >= count.get(asked.type, 0):
        there = [f"{kind}:{n}" for kind in ("cuda", "mps") for n in range(count[kind])]
        raise UsageError(
            f"--device {device}: not on this machine; there is {', '.join(['cpu', *there])}"
        )
    return Means("cpu" if asked.type == "cpu" else device, engine)


def device_told(means: Means) -> str:
    """Return the device's product name if it has one; for a processor, "cpu"."""
    if means.there and means.kind != "cpu":
        return means.there.partition("_")[2].replace("_", " ")
    return torch.cuda.get_device_name(means.device) if means.kind == "cuda" else means.kind


def arithmetic(means: Means = HERE) -> str:
    """Return what bits depend on besides the job: results that differ in it are never mixed."""
    if means.there:
        return means.there
    name = device_told(means)
    if means.kind == "cpu":
        name = torch.backends.cpu.get_cpu_capability()
    return f"torch-{torch.__version__} {name}".replace(" ", "_")


def engines(means: Means, network: Network) -> tuple[str, ...]:
    """Return the engines that can train a family on a device, best first."""
    if means.kind == "cuda":
        return "stacked", "plain"
    if means.kind != "cpu":
        return ("plain",)
    if compact.able(network):
        return "compact", "plain", "stacked"
    return "plain", "stacked"


def chunks(
    jobs: Sequence[Job], data: Mapping[int, Examples], slots: int = 1
) -> list[Sequence[Job]]:
    """Group jobs: those that one batched network holds go together, the others alone.

    Args:
        jobs: the jobs to distribute.
        data: the training examples of each seed.
        slots: chunks that can run at once; a group is divided among them.
    """
    together: dict[Hashable, list[Job]] = {}
    for number, job in enumerate(jobs):
        alone = job.engine != "stacked"
        group = number if alone else stacked.stackable(job, data[job.seed])
        together.setdefault(group, []).append(job)
    return [chunk for group in together.values() for chunk in _cut(group, slots)]


def _cut(group: Sequence[Job], slots: int) -> Iterator[Sequence[Job]]:
    """Cut a group into equal parts that exceed neither the jobs nor the bytes of one message."""
    held = [*group[0].start.tensors().values(), *(group[0].masks or {}).values()]
    bytes_each = sum(tensor.nbytes for tensor in held)
    most = max(1, min(JOBS_TOGETHER, BYTES_TOGETHER // max(1, bytes_each)))
    parts = max(min(slots, len(group)), -(-len(group) // most))
    size = -(-len(group) // parts)
    return (group[first : first + size] for first in range(0, len(group), size))


def run_whole(
    jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None = None
) -> Iterator[tuple[str, Result]]:
    """Yield a result for every job: after an internal error the remaining ones are "failed"."""
    left = {job.key for job in jobs}
    try:
        for key, result in run(jobs, data, evaluation):
            left.remove(key)
            yield key, result
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        for key in sorted(left):
            yield key, Result(None, status="failed", reason=reason)


def run(
    jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None = None
) -> Iterator[tuple[str, Result]]:
    """Train each job by its own engine and yield (key, result) as it ends."""
    for engine, some in groupby(jobs, lambda job: job.engine):
        yield from RUN[engine](list(some), data, evaluation)
