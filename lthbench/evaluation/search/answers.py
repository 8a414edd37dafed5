"""Answers a method's requests: each is metered, looked up or done, stored, logged.

A re-run after a kill makes the same calls: what is stored returns at once and is charged again, and
the order must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lthbench.errors import BadCall, MethodError
from lthbench.evaluation.search import proposals
from lthbench.evaluation.search.requests import unknown
from lthbench.evaluation.search.session import Depth, Progress, SeedState
from lthbench.evaluation.trainings import training
from lthbench.io import messages, store
from lthbench.io.messages import Tensors
from lthbench.method import requests
from lthbench.method.meter import PASSES
from lthbench.method.requests import Answer, Begin, Done, Request, Score, Weights
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.tickets.ticket import Ticket
from lthbench.training.job import Evaluation, Job, Result

SNAPSHOT_SECONDS = 60.0
Masks = Mapping[str, Tensor]


@dataclass(frozen=True)
class _StoredAccuracy:
    """The header of an accuracy in the store."""

    accuracy: float


@dataclass(frozen=True)
class _StoredLoop:
    """The header of a loop's snapshot in the store."""

    step: int
    loops: int
    snapshot: object
    search: Progress


async def answer(request: Request, tensors: Tensors, state: SeedState) -> tuple[Answer, Tensors]:
    """Meter one request, look it up or have it done, store it, log it."""
    match request:
        case requests.Train(depth, step, masked, until, order):
            at, start, masks = state.at(depth), *_given(step, masked, tensors)
            if masks is None and order == 0 and _is_early(state, at, start, until):
                return _weights(await _theta(state, at, until))
            return _weights(await _train(state, at, start, masks, until, order))
        case requests.Theta(depth, k):
            return _weights(await _theta(state, state.at(depth), k))
        case requests.Accuracy(depth, step, masked):
            start, masks = _given(step, masked, tensors)
            return await _accuracy(state, state.at(depth), start, masks), {}
        case requests.Examples(depth, count, name, work):
            cost = PASSES[work] * state.at(depth).given
            state.log.call(store.key(op="examples", count=count, name=name, cost=cost))
            state.meter.charge(count, cost, given=True)
            return Done(), {}
        case requests.Loop():
            return _begin(state, request)
        case requests.Snapshot(number, step, loops, snapshot):
            state.log.save()  # first: the snapshot refers to a place in it
            held = _StoredLoop(step, loops, snapshot, state.progress())
            state.store.put(f"loop{number}", held, tensors)
            state.tell("snapshot")
            return Done(), {}
        case requests.Proposal():
            return await _take(state, proposals.ticket_of(request, tensors)), {}
    raise unknown(request)


def _given(step: int, masked: bool, tensors: Tensors) -> tuple[State, Masks | None]:
    """Return the state that a request holds, and its masks."""
    start = State(messages.under("start", tensors), step)
    return start, messages.under("mask", tensors) if masked else None


def _weights(state: State) -> tuple[Weights, Tensors]:
    return Weights(state.step), state.tensors()


async def _train(
    state: SeedState,
    at: Depth,
    start: State,
    masks: Masks | None,
    until: int,
    order: int = 0,
    *,
    paid: bool = False,
) -> State:
    _check_training(state.task, at, start, masks, until)
    job = training(state.task, state.seed, start, masks, until, order, at.number, state.means)
    state.log.call(job.key)
    if not paid:
        state.meter.charge((until - start.step) * state.batch, at.weight)
    end = state.stored(job.key)
    ran = end is None
    if end is None:
        result = await _run(state, job)
        if result.state is None:
            raise MethodError(f"a training to step {until} {result.status}: {result.reason}")
        end = result.state
        state.store.put(job.key, {"step": end.step}, end.tensors())
        state.log.save()
    state.tell("train", until - start.step, ran=ran)
    state.trained.append(job.key)
    return end


async def _run(state: SeedState, job: Job, evaluation: Evaluation | None = None) -> Result:
    """Have one job run."""
    ended = state.executor.results([job], {state.seed: state.train}, evaluation)
    (result,) = [result async for _, result in ended]
    return result


def _check_training(task: Task, at: Depth, start: State, masks: Masks | None, until: int) -> None:
    names = {name: tuple(tensor.shape) for name, tensor in at.theta.items()}
    given = {name: tuple(tensor.shape) for name, tensor in start.items()}
    if given != names:
        wrong = next(n for n in [*names, *given] if names.get(n) != given.get(n))
        raise BadCall(f"train: start needs every tensor of the state; {wrong} does not fit")
    if not 0 <= start.step <= until <= task.recipe.steps:
        raise BadCall(
            f"train: from step {start.step} until {until}; steps go from 0 to {task.recipe.steps}"
        )
    for name, mask in (masks or {}).items():
        if mask.dtype != torch.bool or tuple(mask.shape) != at.shapes.get(name):
            raise BadCall(f"train: mask of {name} is no bool tensor of a prunable tensor's shape")


async def _theta(state: SeedState, at: Depth, k: int) -> State:
    """Return theta_k, charged once."""
    if not 0 < k <= state.task.recipe.steps:
        raise BadCall(f"theta({k}): steps go from 0 to {state.task.recipe.steps}")
    place = at.number, k
    theta = await _train(state, at, at.theta, None, k, paid=place in state.paid)
    state.paid.add(place)
    if k <= state.task.search.rewind_limit:
        state.thetas[place] = theta
    return theta


def _is_early(state: SeedState, at: Depth, start: State, until: int) -> bool:
    """Return whether dense training up to `until` is theta_k, from which tickets may start."""
    early = start.step == 0 < until <= state.task.search.rewind_limit
    return early and start.digest == at.theta.digest


async def _accuracy(state: SeedState, at: Depth, start: State, masks: Masks | None) -> Score:
    _check_training(state.task, at, start, masks, start.step)
    job = training(state.task, state.seed, start, masks, start.step, 0, at.number, state.means)
    key = store.key(accuracy=job.key)
    state.log.call(key)
    state.meter.charge(len(state.held_out.y), at.weight / 3)
    if stored := state.store.get(key):
        return Score(messages.read(_StoredAccuracy, stored[0]).accuracy)
    result = await _run(state, job, Evaluation({state.seed: {"held_out": state.held_out}}, ()))
    accuracy = int(result.correct["held_out"][-1]) / len(state.held_out.y)
    state.store.put(key, _StoredAccuracy(accuracy))
    state.log.save()
    return Score(accuracy)


def _begin(state: SeedState, loop: requests.Loop) -> tuple[Begin, Tensors]:
    """Charge a loop, and return where it begins: at its snapshot, if it has one."""
    number, steps = loop.number, loop.steps
    cost = PASSES[loop.cost] * state.at(loop.depth).given
    if steps < 0:
        raise BadCall(f"loop: steps {steps} must not be negative")
    state.log.call(store.key(op="loop", number=number, steps=steps, cost=cost))
    state.meter.charge(steps * state.batch, cost, given=True)
    state.tell("loop", steps, ran=False)  # the child's own work, whose pace is not measured here
    stored = state.store.get(f"loop{number}")
    at = state.probe.snapshot_at(steps) if state.probe else ()
    begin = Begin(SNAPSHOT_SECONDS, at)
    if stored is None:
        return begin, {}
    held, tensors = messages.read(_StoredLoop, stored[0]), stored[1]
    state.go_on(held.search)
    return replace(begin, step=held.step, loops=held.loops, snapshot=held.snapshot), tensors


async def _take(state: SeedState, proposed: Ticket) -> Done:
    """Check a ticket, train to its start if need be, and keep it."""
    density = proposals.rung_of(state, proposed)
    place = state.own.number, proposed.start
    if proposed.start and place not in state.thetas:
        await _theta(state, state.own, proposed.start)  # charged like any other such call
    proposals.keep(state, proposed, density)
    return Done()
