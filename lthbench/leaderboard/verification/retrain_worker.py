"""The fresh process of level 2, with a folder as its argument.

Reads FOLDER/request.json, trains the requested cells from the named bundle, and writes them to
FOLDER/answer.json. It opens no folder of the evaluation that made the bundle.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lthbench.errors import LthbenchError, RecordError
from lthbench.evaluation import cells, scoring, transfer
from lthbench.evaluation.cells import Entry, Seen
from lthbench.evaluation.search.transfer_hook import Wanted
from lthbench.evaluation.starts import Given, Thetas, other_seed
from lthbench.io.paths import canonical_json, write_whole
from lthbench.leaderboard.board.sampling import Drawn, Place
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.verification.reconstruct import Held, held
from lthbench.networks.state import State
from lthbench.protocol import design
from lthbench.protocol.constants import CARRIED, PARTS
from lthbench.protocol.design import Plan, TargetPlace, at_depth
from lthbench.protocol.task import Task
from lthbench.tickets.controls import RULES
from lthbench.tickets.ticket import Ticket, completed
from lthbench.training.dispatch import means_of
from lthbench.training.executors import local


class Request(BaseModel):
    """Which cells are trained from which bundle; it contains no claim of the record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    sha256: str
    task: Task
    cells: tuple[Place, ...]
    workers: int | None


async def train(request: Request, folder: Path) -> list[Drawn]:
    """Train the cells of a request, in order."""
    task, lots = request.task, request.cells
    bundle = archive.read(request.bundle)
    if bundle.sha256 != request.sha256:
        raise RecordError(f"{bundle.path}: changed while it was verified; begin again")
    means = means_of(None, None)
    crew = local.default_workers(means) if request.workers is None else request.workers
    executor = local.local(crew, means)
    try:
        seen = scoring.see(task, sorted({lot.seed for lot in lots}), Plan(final=True), means)
        thetas = Thetas(task, executor, means)
        done: dict[Place, Drawn] = {}
        for depth in sorted({lot.depth for lot in lots}):
            make = _entry_at_depth if depth else _entry
            entries = [
                await make(bundle, task, lot, seen, thetas) for lot in lots if lot.depth == depth
            ]
            async for entry, result, _ in scoring.score_cells(
                task, entries, folder, executor, seen
            ):
                told = cells.carried_of if depth else cells.cell_of
                done[Place(*entry.place, depth, entry.attempt)] = told(entry, result, seen)
                print(len(done), flush=True)  # progress output
    finally:
        await executor.close()
    return [done[lot] for lot in lots]


async def _entry(bundle: Bundle, task: Task, lot: Place, seen: Seen, thetas: Thetas) -> Entry:
    """Plan one cell as in `evaluation.scoring`, from the bundle's ticket or from the seed."""
    ticket: Given | None = None
    if lot.kind != "dense" and lot.kind not in RULES:
        ticket = await _given(task, held(bundle, task, lot.seed, lot.density), thetas)
    entry = await cells.build(task, design.Place(*lot[:4]), ticket, seen, thetas, lot.attempt)
    if entry is not None:
        return entry
    assert ticket is not None
    raise _diverged(task, other_seed(lot.seed, lot.attempt), ticket.start.step)


async def _entry_at_depth(
    bundle: Bundle, task: Task, lot: Place, seen: Seen, thetas: Thetas
) -> Entry:
    """Plan a cell at another depth as in `evaluation.transfer`.

    `erk` follows from the seed, everything else from the bundle's ticket by the elastic rule.
    """
    target = at_depth(task, lot.depth)
    if lot.kind == "erk":
        return await _entry(bundle, target, lot, seen, thetas)  # theta_0 alone: no theta_k
    found = held(bundle, task, lot.seed, lot.density)
    given = await _given(task, found, thetas)
    chosen = Ticket(found.masks, found.step)
    wanted = Wanted(chosen, given.start, found.origin, lot.density, lot.depth)
    moved = transfer.transfer_elastically(task, target, wanted)
    if lot.kind in PARTS:
        place = TargetPlace(lot.kind, lot.depth, lot.density, lot.seed)
        return transfer.part_of(target, place, moved, seen, lot.attempt)
    assert lot.kind == CARRIED
    return cells.entry_of(target, design.Place(*lot[:4]), moved, seen)


async def _given(task: Task, ticket: Held, thetas: Thetas) -> Given:
    """Return a bundle's ticket as scoring begins with it: where it needs theta_k, that is trained.

    Such a start is theta_k itself, or its signs.
    """
    if ticket.start is not None:
        return Given(ticket.masks, ticket.start, ticket.origin)
    state = await thetas.at(ticket.seed, ticket.step)
    if state is None:
        raise _diverged(task, ticket.seed, ticket.step)
    theta = state.tensors()
    if ticket.origin == "signs":
        signed = {
            name: theta[name].sign() * float(ticket.stored[f"factor/{name}"][0])
            for name in ticket.masks
        }
        theta = completed(theta | signed, theta, ticket.masks)
    return Given(ticket.masks, State(theta, ticket.step), ticket.origin)


def _diverged(task: Task, seed: int, step: int) -> RecordError:
    return RecordError(f"{task.name}: the dense run of seed {seed} diverged before step {step}")


def main(arguments: Sequence[str]) -> int:
    """Carry out a request; errors are printed as one line."""
    folder = Path(arguments[0])
    try:
        request = Request.model_validate(json.loads((folder / "request.json").read_bytes()))
        done = asyncio.run(train(request, folder))
    except LthbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    answer = [cell.model_dump(mode="json") for cell in done]
    write_whole(folder / "answer.json", canonical_json(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
