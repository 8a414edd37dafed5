"""What of a task is to be done: its seeds, controls, schedules and depths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lthbench.protocol.task import Controls, Task


@dataclass(frozen=True)
class Plan:
    """What is scored beside the tickets, and on which examples."""

    final: bool = False
    controls: Controls = "all"
    compressed: bool = True
    transfer: bool = True
    direct: bool = False  # transfer's tickets beside tickets that were found at the target

    @property
    def shown(self) -> Literal["held_out", "test"]:
        return "test" if self.final else "held_out"


@dataclass(frozen=True)
class Part:
    """One task of an evaluation: on which seeds, and what is scored beside its tickets."""

    task: Task
    seeds: tuple[int, ...]
    plan: Plan
