"""Answers what a method asks at one seed: each call is metered, looked up or done, stored, logged.

A re-run after a kill makes the same calls: what is stored returns at once and is charged again, and
the order must be the same. Each ticket is checked, its origin determined, and written atomically.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lthbench.errors import BadCall, MethodError, TicketError
from lthbench.evaluation.trainings import examples, training
from lthbench.io import messages, store
from lthbench.io.paths import sweep
from lthbench.io.store import Log, Store
from lthbench.method.meter import PASSES, Meter, work_of
from lthbench.networks import families
from lthbench.networks.state import State, digest
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets import masks, ticket
from lthbench.tickets.ticket import Ticket
from lthbench.tickets.ticket_files import write_ticket
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors.local import Executor
from lthbench.training.job import Evaluation, Examples

Note = Callable[[int, str, float, bool], None]
SNAPSHOT_SECONDS = 60.0
Point = tuple[str, int, int]  # a request: its op, the loop or the place in the log, the step


@dataclass
class Probe:
    """For `check`: where to take snapshots inside loops, and after which request to kill.

    Attributes:
        snapshot_at: steps of a loop, from its length.
        kill_at: the child is killed when this request is done and stored, before its answer.
        seen: every request that was done, in order.
    """

    snapshot_at: Callable[[int], tuple[int, ...]] = lambda steps: ()
    kill_at: Point | None = None
    seen: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class Search:
    """One seed's search: the header of each ticket file, and its cost.

    Attributes:
        processor: seconds that its own process computed once the method was loaded; for an
            interrupted search, in the process that finished it.
        pace: seconds of one step there; 0 if it was not measured.
        steps: that its loops and examples were charged for.
    """

    seed: int
    status: str  # "ok" or "failed"
    reason: str
    cost: float
    seconds: float
    rungs: tuple[dict[str, Any], ...]
    processor: float = 0.0
    pace: float = 0.0
    steps: float = 0.0

    def entry(self) -> dict[str, Any]:
        """Return what a record holds of it; machine-dependent figures have four digits."""
        names = ("seed", "status", "reason", "cost")
        told = {name: getattr(self, name) for name in names}
        own = {"seconds": self.processor, "pace": self.pace, "steps": self.steps}
        rounded = {name: float(f"{value:.4g}") for name, value in own.items()}
        return {**told, "own": rounded if self.pace else None}


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


@dataclass
class SeedState:
    """Everything the coordinator holds for one seed while its child runs.

    Attributes:
        depths: the networks that were asked for, by depth; the task's own from the beginning.
        thetas: theta_k by depth and k, up to the rewind limit.
        paid: depth and k of every theta_k that was charged.
        means: device and engine of its networks.
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
    thetas: dict[tuple[int, int], State] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    paid: set[tuple[int, int]] = field(default_factory=set)
    means: Means = HERE
    processor: float = 0.0
    pace: float = 0.0

    @property
    def own(self) -> Depth:
        """The task's own network."""
        return self.depths[self.task.network.depth]

    def at(self, number: int) -> Depth:
        """Return the network at a depth."""
        if number not in self.depths:
            self.depths[number] = _depth(self.task, self.seed, number)
        return self.depths[number]

    def progress(self) -> dict[str, Any]:
        """Return what a search that resumes inside a loop must restore, as JSON."""
        return {
            "position": self.log.position,
            "spent": self.meter.count,
            "given": self.meter.given,
            "trained": self.trained,
            "rungs": self.rungs,
            "paid": sorted(self.paid),
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Resume from what `progress` returned: calls made in the loop's body are not repeated."""
        self.log.position = progress["position"]
        self.meter.count, self.meter.given = progress["spent"], progress["given"]
        self.trained = list(progress["trained"])
        self.rungs = list(progress["rungs"])
        self.paid = {(depth, k) for depth, k in progress["paid"]}
        for depth, k in self.paid:
            theta = self.at(depth).theta
            job = training(self.task, self.seed, theta, None, k, depth=depth, means=self.means)
            stored = self.store.get(job.key)
            if stored and k <= self.task.search.rewind_limit:
                self.thetas[depth, k] = State(stored[1], k)


def prepare(task: Task, seed: int, tickets: Path, place: Path, means: Means = HERE) -> SeedState:
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
        means=means,
    )


def _depth(task: Task, seed: int, number: int) -> Depth:
    spec = task.network
    if not families.has_depth(spec, number):
        raise BadCall(f"at_depth({number}): {spec.family} networks {families.depths_told(spec)}")
    own = number == spec.depth
    weight = 1.0 if own else families.flops(spec, number) / families.flops(spec, spec.depth)
    theta = families.initial(spec, number, seed)
    return Depth(number, theta, families.shapes(spec, number), weight)


async def answer(
    op: Any,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    state: SeedState,
    executor: Executor,
    probe: Probe | None,
    note: Note,
) -> messages.Message:
    """Meter one request, look it up or have it done, store it, log it."""
    if op == "train":
        start = State(messages.under("start", tensors), header["step"])
        chosen = messages.under("mask", tensors) if header["masked"] else None
        at = state.at(int(header["depth"]))
        until, order = header["until"], header["order"]
        if chosen is None and order == 0 and _is_early(state, at, start, until):
            return await _theta(state, at, until, executor, note)
        return await _train(state, at, start, chosen, until, order, executor, note)
    if op == "theta":
        return await _theta(state, state.at(int(header["depth"])), header["k"], executor, note)
    if op == "accuracy":
        start = State(messages.under("start", tensors), header["step"])
        chosen = messages.under("mask", tensors) if header["masked"] else None
        return await _accuracy(state, state.at(int(header["depth"])), start, chosen, executor)
    if op == "examples":
        count, name = header["count"], header["name"]
        cost = PASSES[work_of(header["cost"], op)] * state.at(int(header["depth"])).given
        state.log.call(store.key(op=op, count=count, name=name, cost=cost))
        state.meter.charge(count, cost, given=True)
        return {}, {}
    if op == "loop":
        return _begin_loop(state, header, probe, note)
    if op == "snapshot":
        held = {name: header[name] for name in ("step", "snapshot", "loops")}
        state.log.save()  # first: the snapshot refers to a place in it
        state.store.put(f"loop{header['number']}", held | {"search": state.progress()}, tensors)
        note(state.seed, "snapshot", 0, True)
        return {}, {}
    if op == "ticket":
        return await _ticket(state, header, tensors, executor, note)
    raise MethodError(f"the child sent an unknown request {op!r}")


async def _train(
    state: SeedState,
    at: Depth,
    start: State,
    chosen: Mapping[str, Tensor] | None,
    until: int,
    order: int,
    executor: Executor,
    note: Note,
    paid: bool = False,
) -> messages.Message:
    task = state.task
    _check_training(task, at, start, chosen, until)
    job = training(task, state.seed, start, chosen, until, order, at.number, state.means)
    state.log.call(job.key)
    batch = task.recipe.batch_size(len(state.train.y))
    if not paid:
        state.meter.charge((until - start.step) * batch, at.weight)
    stored = state.store.get(job.key)
    ran = stored is None
    if stored is None:
        async for _, result in executor.results([job], {state.seed: state.train}, None):
            if result.state is None:
                raise MethodError(f"a training to step {until} {result.status}: {result.reason}")
            stored = {"step": result.state.step}, result.state.tensors()
            state.store.put(job.key, *stored)
            state.log.save()
    assert stored is not None
    note(state.seed, "train", until - start.step, ran)
    state.trained.append(job.key)
    return stored


def _check_training(
    task: Task, at: Depth, start: State, chosen: Mapping[str, Tensor] | None, until: int
) -> None:
    names = {name: tuple(tensor.shape) for name, tensor in at.theta.items()}
    given = {name: tuple(tensor.shape) for name, tensor in start.items()}
    if given != names:
        wrong = next(n for n in [*names, *given] if names.get(n) != given.get(n))
        raise BadCall(f"train: start needs every tensor of the state; {wrong} does not fit")
    if not 0 <= start.step <= until <= task.recipe.steps:
        raise BadCall(
            f"train: from step {start.step} until {until}; steps go from 0 to {task.recipe.steps}"
        )
    for name, mask in (chosen or {}).items():
        if mask.dtype != torch.bool or tuple(mask.shape) != at.shapes.get(name):
            raise BadCall(f"train: mask of {name} is no bool tensor of a prunable tensor's shape")


async def _theta(
    state: SeedState, at: Depth, k: int, executor: Executor, note: Note
) -> messages.Message:
    if not 0 < k <= state.task.recipe.steps:
        raise BadCall(f"theta({k}): steps go from 0 to {state.task.recipe.steps}")
    place = at.number, k
    paid = place in state.paid
    reply = await _train(state, at, at.theta, None, k, 0, executor, note, paid=paid)
    state.paid.add(place)
    if k <= state.task.search.rewind_limit:
        state.thetas[place] = State(reply[1], k)
    return reply


def _is_early(state: SeedState, at: Depth, start: State, until: int) -> bool:
    """Return whether dense training up to `until` is theta_k, from which tickets may start."""
    early = start.step == 0 < until <= state.task.search.rewind_limit
    return early and start.digest == at.theta.digest


async def _accuracy(
    state: SeedState,
    at: Depth,
    start: State,
    chosen: Mapping[str, Tensor] | None,
    executor: Executor,
) -> messages.Message:
    _check_training(state.task, at, start, chosen, start.step)
    job = training(
        state.task, state.seed, start, chosen, start.step, depth=at.number, means=state.means
    )
    key = store.key(accuracy=job.key)
    state.log.call(key)
    state.meter.charge(len(state.held_out.y), at.weight / 3)
    stored = state.store.get(key)
    if stored is None:
        evaluation = Evaluation({state.seed: {"held_out": state.held_out}}, ())
        async for _, result in executor.results([job], {state.seed: state.train}, evaluation):
            correct = int(result.correct["held_out"][-1])
            stored = {"accuracy": correct / len(state.held_out.y)}, {}
            state.store.put(key, *stored)
            state.log.save()
    assert stored is not None
    return stored


def _begin_loop(
    state: SeedState,
    header: dict[str, Any],
    probe: Probe | None,
    note: Note,
) -> messages.Message:
    number, steps = header["number"], header["steps"]
    cost = PASSES[work_of(header["cost"], "loop")] * state.at(int(header["depth"])).given
    if steps < 0:
        raise BadCall(f"loop: steps {steps} must not be negative")
    state.log.call(store.key(op="loop", number=number, steps=steps, cost=cost))
    state.meter.charge(steps * state.task.recipe.batch_size(len(state.train.y)), cost, given=True)
    note(state.seed, "loop", steps, False)  # the child's own work, whose pace is not measured here
    stored = state.store.get(f"loop{number}")
    at = probe.snapshot_at(steps) if probe else ()
    reply = {"step": 0, "every": SNAPSHOT_SECONDS, "at": list(at)}
    if stored is None:
        return reply, {}
    held, tensors = stored
    state.go_on(held.pop("search"))
    return reply | held, tensors


async def _ticket(
    state: SeedState,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    executor: Executor,
    note: Note,
) -> messages.Message:
    """Check a ticket, determine its origin and rung, write its file."""
    chosen = dict(header["masks"]) | messages.under("mask", tensors)
    weights = (
        State(messages.under("weight", tensors), header["step"]) if "weighted" in header else None
    )
    proposed = Ticket(chosen, header["start"], weights, bool(header["trained"]))
    own = state.own
    names = {name: tuple(tensor.shape) for name, tensor in own.theta.items()}
    ticket.check(proposed, own.shapes, names, state.task.search.rewind_limit)
    ladder = state.task.ladder.trained if proposed.trained else state.task.ladder.untrained
    total = masks.total(chosen)
    done = [rung["density"] for rung in state.rungs]
    if any(rung["trained"] != proposed.trained for rung in state.rungs):
        raise TicketError("trained and untrained tickets in one search; a method yields one kind")
    density = ticket.rung_of(proposed, ladder, total, done)
    if proposed.start and (own.number, proposed.start) not in state.thetas:
        # Charged like any other such call.
        await _theta(state, own, proposed.start, executor, note)
    trained = [State(t, h["step"]) for h, t in filter(None, map(state.store.get, state.trained))]
    here = {k: theta for (depth, k), theta in state.thetas.items() if depth == own.number}
    others = [at.theta for at in state.depths.values() if at is not own]
    others += [theta for (depth, _), theta in state.thetas.items() if depth != own.number]
    origin, k = ticket.origin(proposed, {0: own.theta} | here, trained, others)
    entry = {
        "density": density,
        "kept": masks.kept(chosen),
        "trained": proposed.trained,
        "origin": origin,
        "start": k,
        "masks": masks.digest(chosen),
        "weights": digest(weights, k) if weights is not None else None,
        "cost": state.meter.spent,
    }
    state.log.call(store.key(op="ticket", **{n: v for n, v in entry.items() if n != "cost"}))
    kept: Mapping[str, Tensor] = {}
    if origin in ("signs", "scaled", "transferred", "final", "free") and weights is not None:
        kept = weights
    if origin in ("signs", "scaled") and weights is not None:
        source = own.theta if k == 0 else here[k]
        kept = ticket.completed(weights, source.tensors(), chosen)
    if origin == "rewind":
        kept = here[k]
    write_ticket(state.folder, entry, chosen, kept)
    state.log.save()
    state.rungs.append(entry)
    note(state.seed, f"ticket {density!r}", 0, True)
    return {}, {}
