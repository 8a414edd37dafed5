"""Which engine trains a job: a rule of family and device, in code and never timed at run time.

The engine is part of every stored result's key, so the rule is applied where a job is made. The
figures behind the table: `python -m tests.speed.engines`.
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

# Raise one when its bits change.
VERSIONS = {"plain": "plain-3", "compact": "compact-1", "stacked": "stacked-2"}
JOBS_TOGETHER, BYTES_TOGETHER = 256, 2**29  # of one chunk: what a dying process loses
RUN = {"plain": plain.run, "compact": compact.run, "stacked": stacked.run}


@dataclass(frozen=True)
class Means:
    """The device that networks are trained on, and the engine, if one was asked for."""

    device: str = "cpu"  # torch's name of it
    engine: str | None = None
    there: str = ""  # what the nodes of a cluster said of theirs, in place of what is here

    @property
    def kind(self) -> str:
        """The device without its number: what results depend on."""
        return self.device.partition(":")[0]


HERE = Means()  # a processor, and the best engine for it


def engine_for(means: Means, network: Network) -> str:
    """The engine for networks of this family: one that was asked for takes what it can."""
    able = engines(means, network)
    if means.engine is None:
        return able[0]
    return means.engine if means.engine in able else "plain"


def means_of(device: str | None, engine: str | None, *, here: bool = True) -> Means:
    """The means that were asked for; a GPU and the best engine where nothing was.

    Args:
        here: whether the device must be this machine's own.

    Raises UsageError for a device that is not there and for an engine that is none.
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
    """The device by its maker's name where there is one; for a processor, "cpu"."""
    if means.there and means.kind != "cpu":
        return means.there.partition("_")[2].replace("_", " ")
    return torch.cuda.get_device_name(means.device) if means.kind == "cuda" else means.kind


def arithmetic(means: Means = HERE) -> str:
    """What bits depend on beside the job: results of two of these are never mixed."""
    if means.there:
        return means.there
    name = device_told(means)
    if means.kind == "cpu":
        name = torch.backends.cpu.get_cpu_capability()
    return f"torch-{torch.__version__} {name}".replace(" ", "_")


def engines(means: Means, network: Network) -> tuple[str, ...]:
    """The engines that can train a family on a device, best first."""
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
    """Jobs that go together: those that one batched network holds, and each of the others alone.

    Args:
        slots: chunks that can run at once, among which such a group is shared out.
    """
    together: dict[Hashable, list[Job]] = {}
    for number, job in enumerate(jobs):
        alone = job.engine != "stacked"
        group = number if alone else stacked.stackable(job, data[job.seed])
        together.setdefault(group, []).append(job)
    return [chunk for group in together.values() for chunk in _cut(group, slots)]


def _cut(group: Sequence[Job], slots: int) -> Iterator[Sequence[Job]]:
    """A group in equal parts, none of more jobs or bytes than one message should hold."""
    held = [*group[0].start.tensors().values(), *(group[0].masks or {}).values()]
    bytes_each = sum(tensor.nbytes for tensor in held)
    most = max(1, min(JOBS_TOGETHER, BYTES_TOGETHER // max(1, bytes_each)))
    parts = max(min(slots, len(group)), -(-len(group) // most))
    size = -(-len(group) // parts)
    return (group[first : first + size] for first in range(0, len(group), size))


def run_whole(
    jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None = None
) -> Iterator[tuple[str, Result]]:
    """A result for every job: after an error of ours those that are left are "failed"."""
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
