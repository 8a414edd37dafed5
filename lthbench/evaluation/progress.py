"""What an evaluation reports while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lthbench.evaluation.search.session import Event
from lthbench.protocol.design import Part
from lthbench.protocol.task import Task
from lthbench.records.schema import Record


class Progress(Protocol):
    """What is reported while an evaluation runs."""

    def plan(self, parts: Sequence[Part], workers: int) -> None:
        """Report the tasks and seeds before anything runs."""

    def begin(self, task: Task) -> None:
        """Report that a task begins."""

    def search(self, task: Task, event: Event) -> None:
        """Report an event of a search."""

    def found(self, task: Task) -> None:
        """Report that a task's searches are done."""

    def scoring(self, task: Task, what: str, steps: float, ran: bool) -> None:
        """Report steps of scoring, and whether they ran now or were stored."""

    def carry(self, task: Task, what: str, steps: float, ran: bool) -> None:
        """Report steps at other depths, and whether they ran now or were stored."""

    def left_out(self, task: Task) -> None:
        """Report that the method does not support a task."""

    def done(self, record: Record) -> None:
        """Report a finished record."""


class Silent:
    """Reports nothing: every call is ignored."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None
