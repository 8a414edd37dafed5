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
from typing import Any

from lthbench.errors import LthbenchError, RecordError
from lthbench.evaluation import experiment, scoring, starts, transfer
from lthbench.evaluation.experiment import Entry, Seen
from lthbench.evaluation.plan import Plan
from lthbench.evaluation.search.transfer_hook import Wanted
from lthbench.io.paths import canonical_json, write_whole
from lthbench.leaderboard.board.sampling import CARRIED, Place
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.verification.reconstruct import Held, held, masks_of, reinit_start
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.records.aggregate import REINITS, UNTRAINED
from lthbench.tickets.controls import RULES
from lthbench.tickets.ticket import Ticket, completed
from lthbench.training.dispatch import means_of
from lthbench.training.executors import local
from lthbench.training.executors.local import Executor


async def trained(request: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Train the cells of a request, in order."""
    task = Task.model_validate(request["task"])
    bundle = archive.read(Path(request["bundle"]))
    if bundle.sha256 != request["sha256"]:
        raise RecordError(f"{bundle.path}: changed while it was verified; begin again")
    means = means_of(None, None)
    workers = request["workers"]
    crew = local.default_workers(means) if workers is None else workers
    executor = local.local(crew, means)
    try:
        lots = [Place(*lot) for lot in request["cells"]]
        seen = scoring.see(task, sorted({lot.seed for lot in lots}), Plan(final=True), means)
        done: dict[Place, dict[str, Any]] = {}
        for depth in sorted({lot.depth for lot in lots}):
            make = _moved_entry if depth else _entry
            entries = [
                await make(bundle, task, lot, executor, seen) for lot in lots if lot.depth == depth
            ]
            async for entry, result, _ in scoring.score_cells(
                task, entries, folder, executor, seen
            ):
                cell = experiment.cell_of(entry, result)
                if depth:
                    cell |= {"depth": depth, "source": entry.table.get("source", "")}
                lot = Place(*entry.place, depth, entry.attempt)
                done[lot] = {k: v for k, v in cell.items() if k != "key"}
                print(len(done), flush=True)  # progress output
    finally:
        await executor.close()
    return [done[lot] for lot in lots]


async def _entry(bundle: Bundle, task: Task, lot: Place, executor: Executor, seen: Seen) -> Entry:
    """Plan one cell as in `evaluation.scoring`, from the bundle's ticket or from the seed."""
    kind, density, seed, schedule, _, attempt = lot
    theta = families.initial(task.network, task.network.depth, seed)
    until = 0 if kind in UNTRAINED else None
    if kind == "dense" or kind in RULES:
        chosen = None if kind == "dense" else masks_of(task, kind, density, seed, attempt, None)
        start, table = theta, None
    else:
        ticket = held(bundle, task, seed, density)
        start = ticket.start or await _late(task, ticket, executor, seen)
        chosen = masks_of(task, kind, density, seed, attempt, ticket)
        table = {"origin": ticket.origin, "start": ticket.step}
        if kind in REINITS:
            start = await _reinit_start(task, kind, ticket, start, attempt, executor, seen)
    where = task, kind, density, seed, start, chosen, seen, table
    return experiment.entry_of(*where, schedule=schedule, until=until, attempt=attempt)


async def _reinit_start(
    task: Task, kind: str, ticket: Held, start: State, attempt: int, executor: Executor, seen: Seen
) -> State:
    """Return where a reinitialised control starts, training another seed's theta_k if needed."""
    fresh = reinit_start(task, kind, ticket, start, attempt)
    if fresh is None:
        seed = starts.other_seed(ticket.seed, attempt)
        other = await _theta(task, seed, ticket.step, executor, seen)
        fresh = reinit_start(task, kind, ticket, start, attempt, other)
    assert fresh is not None
    return fresh


async def _moved_entry(
    bundle: Bundle, task: Task, lot: Place, executor: Executor, seen: Seen
) -> Entry:
    """Plan a cell at another depth as in `evaluation.transfer`.

    `erk` follows from the seed, everything else from the bundle's ticket by the elastic rule.
    """
    target = transfer.at_depth(task, lot.depth)
    if lot.kind == "erk":
        drawn = masks_of(target, lot.kind, lot.density, lot.seed, lot.attempt, None)
        own = {"origin": "init", "start": 0}
        where = target, lot.kind, lot.density, lot.seed
        return transfer.entry_at_depth(*where, Ticket(drawn), own, seen, lot.attempt)
    found = held(bundle, task, lot.seed, lot.density)
    start = found.start or await _late(task, found, executor, seen)
    chosen = Ticket(found.masks, found.step)
    wanted = Wanted(chosen, start, found.origin, lot.density, lot.depth)
    moved, told = transfer.carry_elastically(task, target, wanted)
    if lot.kind == CARRIED:
        return transfer.entry_at_depth(target, lot.kind, lot.density, lot.seed, moved, told, seen)
    parts = transfer.part_entries(target, lot.seed, moved, told, seen, lot.attempt)
    return next(part for part in parts if part.kind == lot.kind)


async def _late(task: Task, ticket: Held, executor: Executor, seen: Seen) -> State:
    """Return a start that needs theta_k: theta_k itself, or its signs."""
    theta = (await _theta(task, ticket.seed, ticket.step, executor, seen)).tensors()
    if ticket.origin == "signs":
        signed = {
            name: theta[name].sign() * float(ticket.stored[f"factor/{name}"][0])
            for name in ticket.masks
        }
        return State(completed(theta | signed, theta, ticket.masks), ticket.step)
    return State(theta, ticket.step)


async def _theta(task: Task, seed: int, step: int, executor: Executor, seen: Seen) -> State:
    """Train the first steps of a seed's dense run, on the stream of the search."""
    theta = await starts.early(task, seed, step, executor, seen.means)
    if theta is not None:
        return theta
    raise RecordError(f"{task.name}: the dense run of seed {seed} diverged before step {step}")


def main(arguments: Sequence[str]) -> int:
    """Carry out a request; errors are printed as one line."""
    folder = Path(arguments[0])
    try:
        request = json.loads((folder / "request.json").read_bytes())
        cells = asyncio.run(trained(request, folder))
    except LthbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    write_whole(folder / "answer.json", canonical_json(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
