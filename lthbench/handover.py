"""A method's own `transfer_ticket`: one child a seed carries tickets to other depths.

It may look at the target's theta_0 and at some examples, not train: its budget says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench import answers, find, masks, networks, ticket, transfer, wire
from lthbench.answers import Search, SeedState
from lthbench.childprocess import ChildProcess, Limits
from lthbench.errors import TicketError
from lthbench.executors import Executor
from lthbench.masks import target_count
from lthbench.meter import Meter
from lthbench.method import Method
from lthbench.networks.levels import level
from lthbench.paths import canonical_json, write_whole
from lthbench.states import State, digest, same
from lthbench.store import discard
from lthbench.task import Task
from lthbench.ticket import Ticket

BUDGET = 0.01  # dense trainings, for all tickets of a seed


@dataclass(frozen=True)
class Wanted:
    """One ticket of the source, and the depth that it is to be carried to."""

    ticket: Ticket
    start: State
    origin: str
    density: float
    depth: int


def folder_of(home: Path, depth: int, seed: int) -> Path:
    """Where a seed's carried tickets lie."""
    return home / "carried" / f"depth{depth}" / f"seed{seed}"


async def hand_over(
    method: Method,
    task: Task,
    search: Search,
    wanted: Sequence[Wanted],
    home: Path,
    executor: Executor,
    limits: Limits,
) -> None:
    """Have the method carry a seed's tickets; does nothing if they are there.

    Args:
        task: at the depth that tickets are carried from.
        home: the folder of that search.

    Raises TicketError for a ticket that does not fit the target, and what the method raised.
    """
    done = home / "carried" / f"seed{search.seed}.json"
    if done.is_file():
        return
    place = home / "store" / f"carried-seed{search.seed}"
    state = answers.prepare(task, search.seed, home / "tickets" / f"seed{search.seed}", place)
    batch = state.meter.unit // (3 * task.recipe.steps)
    state.meter = Meter(task.recipe.steps, batch, BUDGET)
    child = await ChildProcess.start(place / "home")
    try:
        await _converse(child, state, method, wanted, home, executor, limits)
    finally:
        await child.close()
    write_whole(done, canonical_json({"cost": state.meter.spent}))
    discard(place)


async def _converse(
    child: ChildProcess,
    state: SeedState,
    method: Method,
    wanted: Sequence[Wanted],
    home: Path,
    executor: Executor,
    limits: Limits,
) -> None:
    header, tensors = find.setup(state, method, home)
    await child.send({**header, "carry": True}, tensors)
    waiting = iter(wanted)
    now: Wanted | None = None
    never = asyncio.Event()
    while True:
        header, tensors = await child.receive(limits, never)
        op = header.get("op")
        if op == "end":
            return
        if op == "error":
            raise find.method_error(method, state.seed, header)
        reply: dict[str, Any] = {"left": state.meter.left}
        content: Mapping[str, Tensor] = {}
        if op == "next":
            now = next(waiting, None)
            if now is not None:
                reply |= {"target": now.depth, "start": now.ticket.start}
                content = wire.prefixed("mask", now.ticket.masks)
                content |= wire.prefixed("weight", now.start)
        elif op == "carried" and now is not None:
            _keep(state, now, header, tensors, home)
        else:
            reply, content = await find.answered(
                header, tensors, method, state, executor, None, lambda *_: None
            )
        await child.send(reply, content)


def _keep(
    state: SeedState,
    now: Wanted,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    home: Path,
) -> None:
    """Check a carried ticket, bring it to the rung's count, find its origin, write its file."""
    spec = state.task.network
    there, theta = level(spec, now.depth), networks.initial(spec, now.depth, state.seed)
    chosen = dict(header["masks"]) | wire.under("mask", dict(tensors))
    weights = wire.under("weight", dict(tensors)) if "weighted" in header else None
    moved = Ticket(chosen, header["start"], weights)
    try:
        prunable = {name: there.tensors[name] for name in there.prunable}
        ticket.check(moved, prunable, there.tensors, now.ticket.start)
        if weights is None and moved.start:
            raise TicketError(f"start {moved.start} without weights; hand over those of the source")
        start = theta if weights is None else State(weights, moved.start)
        count = target_count(now.density, masks.total(chosen))
        chosen = transfer.to_count(chosen, start, count)
    except TicketError as error:
        raise TicketError(f"transfer_ticket to depth {now.depth}: {error}") from error
    origin = _origin(replace(moved, masks=chosen), start, theta, now)
    entry = {
        "density": now.density,
        "kept": count,
        "trained": True,
        "origin": origin,
        "start": start.step,
        "masks": masks.digest(chosen),
        "weights": digest(start, start.step),
        "cost": state.meter.spent,
    }
    kept: Mapping[str, Tensor] = {} if origin == "init" else start
    answers.write_ticket(folder_of(home, now.depth, state.seed), entry, chosen, kept)


def _origin(moved: Ticket, start: State, theta: State, now: Wanted) -> str:
    """`init` for the target's theta_0, `transferred` if each tensor is one of the source's."""

    def one_of(name: str, sources: Iterable[Tensor]) -> bool:
        mask, own = moved.masks.get(name), start[name]
        alike = [tensor for tensor in sources if tensor.shape == own.shape]
        if mask is None:
            return any(same(own, tensor) for tensor in alike)
        return any(same(own[mask], tensor[mask]) for tensor in alike)

    if all(one_of(name, [theta[name]]) for name in start):
        return "init"
    copied = list(now.start.tensors().values())
    return "transferred" if all(one_of(name, copied) for name in start) else "free"
