"""A method's tickets: checked, their rung and origin determined, their files written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from lthbench.errors import TicketError
from lthbench.evaluation.search.session import SeedState
from lthbench.io import messages, store
from lthbench.io.messages import Tensors
from lthbench.method.requests import Proposal, Transferred
from lthbench.networks.state import State, digest
from lthbench.tickets import masks, ticket
from lthbench.tickets.ticket import Ticket
from lthbench.tickets.ticket_files import Rung, write_ticket

HELD = ("signs", "scaled", "transferred", "final", "free")  # origins whose weights are stored


def ticket_of(proposal: Proposal | Transferred, tensors: Tensors) -> Ticket:
    """Return the ticket of a request as the method made it: nothing of it is checked."""
    chosen = {**proposal.masks, **messages.under("mask", tensors)}
    step, weights = proposal.step, None
    if step is not None:
        weights = State(messages.under("weight", tensors), step)
    return Ticket(
        cast("Mapping[str, Tensor]", chosen), cast(int, proposal.start), weights, proposal.trained
    )


def rung_of(state: SeedState, proposed: Ticket) -> float:
    """Check a ticket, and return the density of its rung.

    Raises:
        TicketError: for one that breaks a rule.
    """
    names = {name: tuple(tensor.shape) for name, tensor in state.own.theta.items()}
    ticket.check(proposed, state.own.shapes, names, state.task.search.rewind_limit)
    ladder = state.task.ladder.trained if proposed.trained else state.task.ladder.untrained
    if any(rung.trained != proposed.trained for rung in state.rungs):
        raise TicketError("trained and untrained tickets in one search; a method yields one kind")
    done = [rung.density for rung in state.rungs]
    return ticket.rung_of(proposed, ladder, masks.total(proposed.masks), done)


def keep(state: SeedState, proposed: Ticket, density: float) -> None:
    """Determine the origin of a ticket, write its file, log it."""
    own, chosen, weights = state.own, proposed.masks, proposed.weights
    trained = list(filter(None, map(state.stored, state.trained)))
    here = {k: theta for (depth, k), theta in state.thetas.items() if depth == own.number}
    others = [at.theta for at in state.depths.values() if at is not own]
    others += [theta for (depth, _), theta in state.thetas.items() if depth != own.number]
    origin, k = ticket.origin(proposed, {0: own.theta} | here, trained, others)
    rung = Rung(
        density,
        masks.kept(chosen),
        proposed.trained,
        origin,
        k,
        masks.digest(chosen),
        digest(weights, k) if weights is not None else None,
        state.meter.spent,
    )
    state.log.call(store.key(op="ticket", **{n: v for n, v in vars(rung).items() if n != "cost"}))
    stored: Tensors = {}
    if origin in HELD and weights is not None:
        stored = weights
    if origin in ("signs", "scaled") and weights is not None:
        source = own.theta if k == 0 else here[k]
        stored = ticket.completed(weights, source.tensors(), chosen)
    if origin == "rewind":
        stored = here[k]
    write_ticket(state.folder, rung, chosen, stored)
    state.log.save()
    state.rungs.append(rung)
    state.tell("ticket", density=density)
