"""A method's own `transfer_ticket`: one child per seed transfers tickets to other depths.

It may look at the target's theta_0 and at some examples, but not train: its budget is too small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench.errors import MethodError, TicketError
from lthbench.evaluation.search import run, session
from lthbench.evaluation.search.child_process import Child, ChildProcess, Limits, StartChild
from lthbench.evaluation.search.session import Search, SeedState
from lthbench.io import messages
from lthbench.io.paths import canonical_json, write_whole
from lthbench.io.store import discard
from lthbench.method.meter import Meter
from lthbench.method.source import Method
from lthbench.networks import families
from lthbench.networks.blocks import level
from lthbench.networks.state import State, digest
from lthbench.protocol.task import Task
from lthbench.tickets import elastic, masks, ticket, ticket_files
from lthbench.tickets.ticket import Ticket
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors.local import Executor

BUDGET = 0.01  # dense trainings, for all tickets of a seed


@dataclass(frozen=True)
class Wanted:
    """One ticket of the source, and the depth that it is to be transferred to."""

    ticket: Ticket
    start: State
    origin: str
    density: float
    depth: int


def folder_of(home: Path, depth: int, seed: int) -> Path:
    """Return the folder of a seed's transferred tickets."""
    return home / "carried" / f"depth{depth}" / f"seed{seed}"


async def hand_over(
    method: Method,
    executor: Executor,
    limits: Limits,
    task: Task,
    search: Search,
    wanted: Sequence[Wanted],
    home: Path,
    *,
    means: Means = HERE,
    start: StartChild = ChildProcess.start,
) -> None:
    """Have the method transfer a seed's tickets; does nothing if they exist.

    Args:
        method: has a `transfer_ticket`.
        executor: runs what the method asks for.
        limits: of the child.
        task: at the depth that tickets are transferred from.
        search: the seed's search at that depth.
        wanted: the tickets and their target depths.
        home: the folder of that search.
        means: device and engine.
        start: starts the child.

    Raises:
        MethodError: for what the method raised, or a ticket that does not fit the target.
    """
    done = home / "carried" / f"seed{search.seed}.json"
    if done.is_file():
        return
    place = home / "store" / f"carried-seed{search.seed}"
    tickets = home / "tickets" / f"seed{search.seed}"

    async def once() -> SeedState:
        state = session.prepare(task, search.seed, tickets, place, means)
        batch = task.recipe.batch_size(len(state.train.y))
        state.meter = Meter(task.recipe.steps, batch, BUDGET)
        child = await start(place / "home")
        try:
            await _converse(child, state, method, wanted, home, executor, limits)
        finally:
            await child.close()
        return state

    state = await run.again_when_lost(once)
    write_whole(done, canonical_json({"cost": state.meter.spent}))
    discard(place)


async def _converse(
    child: Child,
    state: SeedState,
    method: Method,
    wanted: Sequence[Wanted],
    home: Path,
    executor: Executor,
    limits: Limits,
) -> None:
    header, tensors = run.setup(state, method, home)
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
            raise run.method_error(method, state.seed, header)
        reply: dict[str, Any] = {"left": state.meter.left}
        content: Mapping[str, Tensor] = {}
        if op == "next":
            now = next(waiting, None)
            if now is not None:
                reply |= {"target": now.depth, "start": now.ticket.start}
                content = messages.prefixed("mask", now.ticket.masks)
                content |= messages.prefixed("weight", now.start)
        elif op == "carried" and now is not None:
            _keep(state, method, now, header, tensors, home)
        else:
            reply, content = await run.answered(
                header, tensors, method, state, executor, None, lambda *_: None
            )
        await child.send(reply, content)


def _keep(
    state: SeedState,
    method: Method,
    now: Wanted,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    home: Path,
) -> None:
    """Check a transferred ticket, bring it to the rung's count, find its origin, write its file."""
    spec = state.task.network
    there, theta = level(spec, now.depth), families.initial(spec, now.depth, state.seed)
    chosen = dict(header["masks"]) | messages.under("mask", dict(tensors))
    weights = messages.under("weight", dict(tensors)) if "weighted" in header else None
    moved = Ticket(chosen, header["start"], weights)
    try:
        if weights is None and moved.start:
            raise TicketError(f"start {moved.start} without weights; hand over those of the source")
        if moved.start not in (0, now.ticket.start):
            raise TicketError(
                f"start {moved.start}; the source's ticket starts at {now.ticket.start}"
            )
        start = theta if weights is None else State(weights, moved.start)
        chosen = dict(elastic.on_rung(moved, start, there, now.density).masks)
    except TicketError as error:
        place = f"{method.path}: transfer_ticket to depth {now.depth}"
        raise MethodError(f"{place}: {error} (seed {state.seed})") from error
    sources = (("transferred", now.start), ("init", theta))
    found = (name for name, state in sources if ticket.copied(start, state.tensors(), chosen))
    origin = next(found, "free")
    entry = {
        "density": now.density,
        "kept": masks.kept(chosen),
        "trained": True,
        "origin": origin,
        "start": start.step,
        "masks": masks.digest(chosen),
        "weights": digest(start, start.step),
        "cost": state.meter.spent,
    }
    kept: Mapping[str, Tensor] = {} if origin == "init" else start
    ticket_files.write_ticket(folder_of(home, now.depth, state.seed), entry, chosen, kept)
