"""Which engine trains a job: a fixed rule of family and device, in code and never timed at run time.

The engine is part of every stored result's key, so the rule is applied where a job is made. The
figures behind the table: `python -m tests.speed.engines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lthbench.engine import Evaluation, Examples, Job, Result, compact, plain, stacked
from lthbench.task import Network

# Raise one when its bits change.
VERSIONS = {"plain": "plain-2", "compact": "compact-1", "stacked": "stacked-1"}
RUN = {"plain": plain.run, "compact": compact.run, "stacked": stacked.run}


@dataclass(frozen=True)
class Means:
    """The device that networks are trained on, and the engine, if one was asked for."""

    device: str = "cpu"  # torch's name of it
    engine: str | None = None

    @property
    def kind(self) -> str:
        """The device without its number: what results depend on."""
        return self.device.partition(":")[0]


def engine_for(means: Means, network: Network) -> str:
    """The engine for networks of this family: one that was asked for takes what it can."""
    able = engines(means, network)
    if means.engine is None:
        return able[0]
    return means.engine if means.engine in able else "plain"


def engines(means: Means, network: Network) -> tuple[str, ...]:
    """The engines that can train a family on a device, best first."""
    if means.kind != "cpu":
        return "stacked", "plain"
    if compact.able(network):
        return "compact", "plain", "stacked"
    return "plain", "stacked"


def run(
    jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None = None
) -> Iterator[tuple[str, Result]]:
    """Train each job by its own engine and yield (key, result) as it ends."""
    for engine, some in groupby(jobs, lambda job: job.engine):
        yield from RUN[engine](list(some), data, evaluation)
