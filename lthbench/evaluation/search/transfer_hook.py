"""A method's own `transfer_ticket`: one child per seed transfers tickets to other depths.

It may look at the target's theta_0 and at some examples, but not train: its budget is too small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lthbench.errors import MethodError, TicketError
from lthbench.evaluation.search import proposals, run, session
from lthbench.evaluation.search.child_process import Child, Limits
from lthbench.evaluation.search.run import Conditions
from lthbench.evaluation.search.session import Search, SeedState
from lthbench.io import messages
from lthbench.io.messages import Tensors
from lthbench.io.paths import canonical_json, write_whole
from lthbench.io.store import discard
from lthbench.method.meter import Meter
from lthbench.method.requests import Answer, Done, End, Failure, Move, Next, Reply, Transferred
from lthbench.method.source import Method
from lthbench.networks import families
from lthbench.networks.blocks import level
from lthbench.networks.state import State, digest
from lthbench.protocol.task import Task
from lthbench.tickets import elastic, masks, ticket, ticket_files
from lthbench.tickets.ticket import Ticket
from lthbench.tickets.ticket_files import Rung
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
    how: Conditions,
    task: Task,
    search: Search,
    wanted: Sequence[Wanted],
    home: Path,
) -> None:
    """Have the method transfer a seed's tickets; does nothing if they exist.

    Args:
        method: has a `transfer_ticket`.
        executor: runs what the method asks for.
        how: limits, device and the like.
        task: at the depth that tickets are transferred from.
        search: the seed's search at that depth.
        wanted: the tickets and their target depths.
        home: the folder of that search.

    Raises:
        MethodError: for what the method raised, or a ticket that does not fit the target.
    """
    done = home / "carried" / f"seed{search.seed}.json"
    if done.is_file():
        return
    place = home / "store" / f"carried-seed{search.seed}"
    tickets = home / "tickets" / f"seed{search.seed}"

    async def once() -> SeedState:
        state = session.prepare(task, search.seed, tickets, place, executor, how.means)
        state.meter = Meter(task.recipe.steps, state.batch, BUDGET)
        child = await how.start(place / "home")
        try:
            await _converse(child, state, method, wanted, home, how.limits)
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
    limits: Limits,
) -> None:
    """Send the setup, then one ticket after the other; answer requests until the method ends."""
    await child.send(*run.setup(state, method, home, "transfer"))
    waiting = iter(wanted)
    now: Wanted | None = None
    never = asyncio.Event()
    while True:
        request, tensors = await child.receive(limits, never)
        said: Answer = Done()
        content: Tensors = {}
        match request:
            case End():
                return
            case Failure():
                raise run.method_error(method, state.seed, request)
            case Next():
                now = next(waiting, None)
                if now is not None:
                    said = Move(now.depth, now.ticket.start)
                    content = messages.prefixed("mask", now.ticket.masks)
                    content |= messages.prefixed("weight", now.start)
            case Transferred() if now is not None:
                _keep(state, method, now, proposals.ticket_of(request, tensors), home)
            case _:
                reply, content = await run.answer(request, tensors, method, state)
                said = reply.answer
        await child.send(Reply(state.meter.left, said), content)


def _keep(state: SeedState, method: Method, now: Wanted, moved: Ticket, home: Path) -> None:
    """Check a transferred ticket, bring it to the rung's count, find its origin, write its file."""
    spec = state.task.network
    there, theta = level(spec, now.depth), families.initial(spec, now.depth, state.seed)
    try:
        if moved.weights is None and moved.start:
            raise TicketError(f"start {moved.start} without weights; hand over those of the source")
        if type(moved.start) is not int or moved.start not in (0, now.ticket.start):
            raise TicketError(
                f"start {moved.start}; the source's ticket starts at {now.ticket.start}"
            )
        start = theta if moved.weights is None else State(moved.weights, moved.start)
        chosen = elastic.on_rung(replace(moved, trained=True), start, there, now.density).masks
    except TicketError as error:
        place = f"{method.path}: transfer_ticket to depth {now.depth}"
        raise MethodError(f"{place}: {error} (seed {state.seed})") from error
    sources = (("transferred", now.start), ("init", theta))
    found = (name for name, state in sources if ticket.copied(start, state.tensors(), chosen))
    origin = next(found, "free")
    rung = Rung(
        now.density,
        masks.kept(chosen),
        True,
        origin,
        start.step,
        masks.digest(chosen),
        digest(start, start.step),
        state.meter.spent,
    )
    kept: Tensors = {} if origin == "init" else start
    ticket_files.write_ticket(folder_of(home, now.depth, state.seed), rung, chosen, kept)
