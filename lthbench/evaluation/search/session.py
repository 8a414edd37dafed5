"""One seed's search as the coordinator holds it, and what is left of it when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lthbench.errors import BadCall
from lthbench.evaluation.trainings import examples, training
from lthbench.io import messages
from lthbench.io.paths import sweep
from lthbench.io.store import Log, Store
from lthbench.method.meter import Meter
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets.ticket_files import Rung
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors.local import Executor
from lthbench.training.job import Examples

Point = tuple[str, int, int]  # a request: its op, the loop or the place in the log, the step


@dataclass(frozen=True)
class Event:
    """Progress of one seed's search.

    Attributes:
        steps: model-steps of it.
        ran: whether they ran now; else they were stored, or their pace is not measured.
        density: of a ticket.
    """

    seed: int
    what: Literal["stored", "train", "loop", "snapshot", "ticket"]
    steps: float = 0.0
    ran: bool = True
    density: float | None = None


Note = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Report nothing."""


@dataclass
class Probe:
    """For `check`: where to take snapshots inside loops, and after which request to kill.

    Attributes:
        snapshot_at: steps of a loop, from its length.
        kill_at: the child is killed when this request is done and stored, before its answer.
        seen: every request that was done, in order.
    """

    snapshot_at: Callable[[int], tuple[int, ...]] = lambda _: ()
    kill_at: Point | None = None
    seen: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class Search:
    """One seed's search: the rungs that it found, and its cost.

    Attributes:
        processor: seconds that its own process computed once the method was loaded; for an
            interrupted search, in the process that finished it.
        pace: seconds of one step there; 0 if it was not measured.
        steps: that its loops and examples were charged for.
    """

    seed: int
    status: Literal["ok", "failed"]
    reason: str
    cost: float
    seconds: float
    rungs: tuple[Rung, ...]
    processor: float = 0.0
    pace: float = 0.0
    steps: float = 0.0

    def entry(self) -> dict[str, object]:
        """Return what a record holds of it; machine-dependent figures have four digits."""
        own = {"seconds": self.processor, "pace": self.pace, "steps": self.steps}
        rounded = {name: float(f"{value:.4g}") for name, value in own.items()}
        return {
            "seed": self.seed,
            "status": self.status,
            "reason": self.reason,
            "cost": self.cost,
            "own": rounded if self.pace else None,
        }


@dataclass(frozen=True)
class Depth:
    """The family's network at one depth: where it starts, and what a step of it costs."""

    number: int
    theta: State
    shapes: Mapping[str, tuple[int, ...]]  # of the prunable tensors
    weight: float  # FLOPs of a pass, relative to the task's own network

    @property
    def given(self) -> float:
        """What examples given to the method cost: at least a pass of the task's own network.

        A shallower network's price would buy the batches that a method trains its own network on.
        """
        return max(1.0, self.weight)


@dataclass(frozen=True)
class Progress:
    """What a search that resumes inside a loop must restore; stored with the loop's snapshot.

    Attributes:
        position: of the log.
        spent, given: of the meter.
        trained: keys of the states that the method's `train` returned.
        paid: depth and k of every theta_k that was charged.
    """

    position: int
    spent: int
    given: int
    trained: tuple[str, ...]
    rungs: tuple[Rung, ...]
    paid: tuple[tuple[int, int], ...]


@dataclass
class SeedState:
    """Everything the coordinator holds for one seed while its child runs.

    Attributes:
        depths: the networks that were asked for, by depth; the task's own from the beginning.
        executor: runs the trainings, on the device and by the engine of `means`.
        thetas: theta_k by depth and k, up to the rewind limit.
        trained, paid: as for its progress.
        processor, pace: as for a search.
    """

    task: Task
    seed: int
    folder: Path  # of tickets
    store: Store
    log: Log
    meter: Meter
    train: Examples
    held_out: Examples
    depths: dict[int, Depth]
    executor: Executor
    means: Means = HERE
    probe: Probe | None = None
    note: Note = ignore
    thetas: dict[tuple[int, int], State] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)
    paid: set[tuple[int, int]] = field(default_factory=set)
    processor: float = 0.0
    pace: float = 0.0

    @property
    def own(self) -> Depth:
        """The task's own network."""
        return self.depths[self.task.network.depth]

    @property
    def batch(self) -> int:
        """Examples of a batch."""
        return self.task.recipe.batch_size(len(self.train.y))

    @property
    def is_fresh(self) -> bool:
        """Whether the method has neither trained nor yielded anything."""
        return not (self.meter.spent or self.rungs)

    def at(self, number: int) -> Depth:
        """Return the network at a depth."""
        if number not in self.depths:
            self.depths[number] = _depth(self.task, self.seed, number)
        return self.depths[number]

    def stored(self, key: str) -> State | None:
        """Return the state stored under a key, or None."""
        message = self.store.get(key)
        return message and State(message[1], messages.read(_Step, message[0]).step)

    def tell(
        self,
        what: Literal["stored", "train", "loop", "snapshot", "ticket"],
        steps: float = 0.0,
        *,
        ran: bool = True,
        density: float | None = None,
    ) -> None:
        """Report progress."""
        self.note(Event(self.seed, what, steps, ran, density))

    def progress(self) -> Progress:
        """Return what a search that resumes inside a loop must restore."""
        position, meter = self.log.position, self.meter
        trained, rungs, paid = tuple(self.trained), tuple(self.rungs), tuple(sorted(self.paid))
        return Progress(position, meter.count, meter.given, trained, rungs, paid)

    def go_on(self, progress: Progress) -> None:
        """Resume from what `progress` returned: calls made in the loop's body are not repeated."""
        self.log.position = progress.position
        self.meter.count, self.meter.given = progress.spent, progress.given
        self.trained = list(progress.trained)
        self.rungs = list(progress.rungs)
        self.paid = set(progress.paid)
        for depth, k in self.paid:
            theta = self.at(depth).theta
            job = training(self.task, self.seed, theta, None, k, depth=depth, means=self.means)
            stored = self.stored(job.key)
            if stored and k <= self.task.search.rewind_limit:
                self.thetas[depth, k] = stored

    def ended(self, seconds: float, error: Exception | None = None) -> Search:
        """Return the search as it ended: with an error, or after its last ticket."""
        rungs, own = tuple(self.rungs), (self.processor, self.pace, self.meter.steps)
        status: Literal["ok", "failed"] = "ok" if error is None else "failed"
        reason = str(error or "")[:300]
        return Search(self.seed, status, reason, self.meter.spent, seconds, rungs, *own)


@dataclass(frozen=True)
class _Step:
    """The header of a stored state."""

    step: int


def prepare(
    task: Task,
    seed: int,
    tickets: Path,
    place: Path,
    executor: Executor,
    means: Means = HERE,
    probe: Probe | None = None,
    note: Note = ignore,
) -> SeedState:
    """Set up one seed's state at the first line of a method; removes stale temporary files."""
    for folder in (tickets, place):
        sweep(folder)
    depth = task.network.depth
    search = datasets.search(task, seed)
    train, held_out = examples(task, search.train), examples(task, search.held_out)
    batch = task.recipe.batch_size(len(train.y))
    return SeedState(
        task,
        seed,
        tickets,
        Store(place),
        Log(place / "calls.json"),
        Meter(task.recipe.steps, batch, task.search.budget),
        train,
        held_out,
        {depth: _depth(task, seed, depth)},
        executor,
        means,
        probe,
        note,
    )


def _depth(task: Task, seed: int, number: int) -> Depth:
    spec = task.network
    if not families.has_depth(spec, number):
        raise BadCall(f"at_depth({number}): {spec.family} networks {families.depths_told(spec)}")
    own = number == spec.depth
    weight = 1.0 if own else families.flops(spec, number) / families.flops(spec, spec.depth)
    theta = families.initial(spec, number, seed)
    return Depth(number, theta, families.shapes(spec, number), weight)
