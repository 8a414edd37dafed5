"""What is to be done for a task: its seeds, controls, schedules and depths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lthbench.protocol.task import Controls, Task


@dataclass(frozen=True)
class Plan:
    """What is scored besides the tickets, and on which examples."""

    final: bool = False
    controls: Controls = "all"
    compressed: bool = True
    transfer: bool = True
    direct: bool = False  # tickets found at the target, beside transferred ones

    @property
    def shown(self) -> Literal["held_out", "test"]:
        """The set that scores are computed on."""
        return "test" if self.final else "held_out"


@dataclass(frozen=True)
class Part:
    """One task of an evaluation: its seeds, and what is scored besides its tickets."""

    task: Task
    seeds: tuple[int, ...]
    plan: Plan
