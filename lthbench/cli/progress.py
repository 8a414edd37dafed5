"""What a person sees while an evaluation runs: bars on a terminal, plain lines elsewhere.

The remaining time follows from model-steps: those of scoring are known, those of a search are
extrapolated from what the method has spent per natural logarithm of density so far.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lthbench.evaluation.workload import (
    IMP_COST,
    STARTING,
    carrying_steps,
    clock,
    further_nats,
    guessed_step,
    scoring_steps,
)
from lthbench.protocol.task import Task
from lthbench.records.schema import Record

if TYPE_CHECKING:
    from lthbench.evaluation.search.session import Event
    from lthbench.protocol.design import Part

LINE_SECONDS = 10.0  # between plain lines


@dataclass
class Stage:
    """One task's search or scoring: model-steps done and expected, and when it began."""

    task: Task
    seeds: tuple[int, ...]
    scoring: float  # model-steps of scoring, as far as known
    carrying: float = 0.0  # model-steps at other depths, estimated until they are known
    further: float = 0.0  # nats of density that each seed will search at other depths
    begun: float | None = None
    found: bool = False
    steps: float = 0.0  # actually trained, not found in a store
    trainings: int = 0
    seconds: float = 0.0
    searched: dict[int, float] = field(default_factory=dict)  # charged steps, by seed
    deepest: dict[int, float] = field(default_factory=dict)  # nats of the last ticket, by seed
    paid: dict[int, float] = field(default_factory=dict)  # charged steps when it came, by seed
    elsewhere: float = 0.0  # charged steps of searches at other depths
    scored: float = 0.0

    @property
    def bottom(self) -> float:
        """Nats from dense to the sparsest rung."""
        return -math.log(self.task.ladder.trained[-1])

    def per_nat(self) -> float | None:
        """Dense trainings per nat of density so far; None before the first ticket."""
        known = [(self.paid[seed], nats) for seed, nats in self.deepest.items() if nats]
        if not known:
            return None
        steps = sum(spent / nats for spent, nats in known) / len(known)
        return steps / self.task.recipe.steps


def steps_left(stage: Stage, per_nat: float) -> float:
    """Return the model-steps a task still needs: its search's, estimated, and its scoring's."""
    cost = stage.per_nat()
    nat = (per_nat if cost is None else cost) * stage.task.recipe.steps
    search = max(nat * stage.further * len(stage.seeds) - stage.elsewhere, 0.0)
    for seed in () if stage.found else stage.seeds:
        done = stage.deepest.get(seed, 0.0) >= stage.bottom * (1 - 1e-9)
        search += 0.0 if done else max(nat * stage.bottom - stage.searched.get(seed, 0.0), 0.0)
    return search + max(stage.scoring - stage.scored, 0.0) + stage.carrying


def seconds_left(stages: Sequence[Stage], now: float, workers: int) -> float:
    """Return seconds until the last task is scored: at this task's rate, later ones guessed."""
    known = [cost for stage in stages if (cost := stage.per_nat()) is not None]
    per_nat = known[-1] if known else IMP_COST
    return sum(
        steps_left(stage, per_nat) * seconds_a_step(stage, now, workers)
        + (STARTING if stage.begun is None else 0.0)
        for stage in stages
    )


def seconds_a_step(stage: Stage, now: float, workers: int) -> float:
    """Return seconds per model-step of all workers together: measured, with an initial guess.

    The guess weighs as much as one whole training by each worker: the first to end says little,
    because others are under way.
    """
    guess = guessed_step(stage.task) / workers
    if stage.begun is None or not stage.steps:
        return guess
    passed = now - stage.begun
    weight = workers * stage.task.recipe.steps
    return (passed - min(STARTING, passed / 2) + weight * guess) / (stage.steps + weight)


class Told:
    """Follows an evaluation and shows it: a bar, or plain lines."""

    def __init__(self, console: Any | None) -> None:
        self.stages: list[Stage] = []
        self.workers = 1
        self.last_line = 0.0
        self.console = console  # a rich Progress, or None for plain lines
        self.bar: Any = None
        if console is not None:
            self.bar = console.add_task("starting", total=None)

    def plan(self, parts: Sequence[Part], workers: int) -> None:
        """Set up a stage for every task."""
        self.workers = max(workers, 1)
        for part in parts:
            task, count, plan = part.task, len(part.seeds), part.plan
            steps = scoring_steps(task, count, plan.controls, plan.compressed)
            carrying = carrying_steps(task, count, plan.direct) if plan.transfer else 0.0
            further = further_nats(task, plan.direct) if plan.transfer else 0.0
            self.stages.append(Stage(task, part.seeds, steps, carrying, further))

    def begin(self, task: Task) -> None:
        """Start the clock of a task."""
        self._stage(task).begun = time.monotonic()
        self._show(task, "searching", True)

    def search(self, task: Task, event: Event) -> None:
        """Add steps of a search."""
        stage, seed, density = self._stage(task), event.seed, event.density
        stage.steps += event.steps if event.ran else 0.0
        stage.trainings += event.ran and event.steps > 0
        if stage.found:
            stage.elsewhere += event.steps
        else:
            stage.searched[seed] = stage.searched.get(seed, 0.0) + event.steps
        if density is not None and not stage.found:
            stage.deepest[seed] = -math.log(density)
            stage.paid[seed] = stage.searched[seed]
        shown = event.what if density is None else f"ticket at {density:.1%}"
        self._show(task, f"seed {seed} {shown}", density is not None)

    def found(self, task: Task) -> None:
        """Note that a task's searches are done."""
        self._stage(task).found = True

    def scoring(self, task: Task, what: str, steps: float, ran: bool) -> None:
        """Add steps of scoring."""
        stage = self._stage(task)
        if what == "planned":
            stage.scoring = stage.scored + steps
            return
        stage.scored += steps
        stage.steps += steps if ran else 0.0
        stage.trainings += ran and steps > 0
        self._show(task, f"scoring {what}", False)

    def carry(self, task: Task, what: str, steps: float, ran: bool) -> None:
        """Add steps at other depths, whose searches are over once scoring is planned."""
        if what == "planned":
            self._stage(task).carrying = self._stage(task).further = 0.0
        self.scoring(task, what, steps, ran)

    def done(self, record: Record) -> None:
        """Mark a record's task as scored."""
        for stage in self.stages:
            if stage.task.name == record.task.name:
                stage.scored = stage.scoring
                stage.carrying = stage.further = 0.0
                stage.seconds = time.monotonic() - (stage.begun or time.monotonic())
                self._show(stage.task, "scored", True)

    def left_out(self, task: Task) -> None:
        """Drop a task that the method does not support."""
        self.stages.remove(self._stage(task))

    def sums(self) -> list[str]:
        """Return a line per task: trainings, steps, and a worker's time per step."""
        return [
            f"{s.task.name}: {s.trainings} trainings, {s.steps:,.0f} model-steps in "
            f"{s.seconds:,.0f} s with {self.workers} workers, "
            f"{1000 * s.seconds * self.workers / s.steps:.1f} ms a step and worker, all included"
            for s in self.stages
            if s.steps
        ]

    def _stage(self, task: Task) -> Stage:
        return next(stage for stage in self.stages if stage.task.name == task.name)

    def _show(self, task: Task, what: str, always: bool) -> None:
        now = time.monotonic()
        stage = self._stage(task)
        left = seconds_left(self.stages, now, self.workers)
        begun = now if stage.begun is None else stage.begun
        rate = stage.steps / max(now - begun, 1e-3)
        if self.console is not None:
            work = sum(s.steps for s in self.stages)
            known = [cost for s in self.stages if (cost := s.per_nat()) is not None]
            ahead = sum(steps_left(s, known[-1] if known else IMP_COST) for s in self.stages)
            text = f"{task.name}  {what}  {rate:,.0f} steps/s  {clock(left)} left"
            self.console.update(self.bar, description=text, completed=work, total=work + ahead)
        elif always or now - self.last_line > LINE_SECONDS:
            self.last_line = now
            text = f"{task.name}: {what}, {rate:,.0f} model-steps/s, {clock(left)} left"
            print(text, flush=True)


@contextmanager
def shown() -> Iterator[Told]:
    """Yield a bar on standard error if that is a terminal, else plain lines on standard output.

    So standard error contains nothing but mistakes, each on one line.
    """
    if not sys.stderr.isatty():
        yield Told(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24))
    with Progress(*columns, console=Console(stderr=True), transient=True) as console:
        yield Told(console)
