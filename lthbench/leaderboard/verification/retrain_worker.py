"""The fresh process of level 2, with a folder as its argument.

Reads FOLDER/request.json, trains the cells that it names from the bundle that it names, and writes
them to FOLDER/answer.json. It opens no folder of the evaluation that made the bundle.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lthbench.errors import LthbenchError, RecordError
from lthbench.evaluation import scoring
from lthbench.evaluation.scoring import Entry, Plan, Seen
from lthbench.io.paths import canonical_json, write_whole
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.verification.reconstruct import RULES, Held, held, masks_of, reinit_start
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.records.aggregate import REINITS, UNTRAINED
from lthbench.tickets.ticket import completed
from lthbench.training.dispatch import means_of
from lthbench.training.executors import local
from lthbench.training.executors.local import Executor

OTHER = 10_000  # between the seeds of a rewound ticket's reinit controls (`evaluation.scoring`)


class Lot(NamedTuple):
    """A cell that was drawn."""

    kind: str
    density: float
    seed: int
    schedule: int
    attempt: int


async def trained(request: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The cells of a request, in its order."""
    task = Task.model_validate(request["task"])
    bundle = archive.read(Path(request["bundle"]))
    if bundle.sha256 != request["sha256"]:
        raise RecordError(f"{bundle.path}: changed while it was verified; begin again")
    means = means_of(None, None)
    workers = request["workers"]
    crew = local.default_workers(means) if workers is None else workers
    executor = local.local(crew, means)
    try:
        lots = [Lot(*lot) for lot in request["cells"]]
        seen = scoring.see(task, sorted({lot.seed for lot in lots}), Plan(final=True), means)
        entries = [await _entry(bundle, task, lot, executor, seen) for lot in lots]
        done: dict[scoring.Place, dict[str, Any]] = {}
        async for entry, result, _ in scoring.score_cells(task, entries, folder, executor, seen):
            done[entry.place] = scoring.cell_of(entry, result)
            print(len(done), flush=True)  # for whoever waits
    finally:
        await executor.close()
    cells = [done[lot.kind, lot.density, lot.seed, lot.schedule] for lot in lots]
    return [{name: cell[name] for name in cell if name != "key"} for cell in cells]


async def _entry(bundle: Bundle, task: Task, lot: Lot, executor: Executor, seen: Seen) -> Entry:
    """One cell as `evaluation.scoring` would have it, from the bundle's ticket or from the seed."""
    kind, density, seed, schedule, attempt = lot
    theta = families.initial(task.network, task.network.depth, seed)
    until = 0 if kind in UNTRAINED else None
    if kind == "dense":
        return scoring.entry_of(task, kind, density, seed, theta, None, seen, schedule=schedule)
    if kind in RULES:
        chosen = masks_of(task, kind, density, seed, attempt, None)
        entry = scoring.entry_of(task, kind, density, seed, theta, chosen, seen, until=until)
        return replace(entry, attempt=attempt)
    ticket = held(bundle, task, seed, density)
    start = ticket.start or await _late(task, ticket, executor, seen)
    chosen = masks_of(task, kind, density, seed, attempt, ticket)
    if kind in REINITS:
        fresh = reinit_start(task, kind, ticket, start, attempt)
        if fresh is None:
            other = await _theta(task, seed + OTHER * (attempt + 1), ticket.step, executor, seen)
            fresh = reinit_start(task, kind, ticket, start, attempt, other)
        assert fresh is not None
        start = fresh
    table = {"origin": ticket.origin, "start": ticket.step}
    entry = scoring.entry_of(
        task, kind, density, seed, start, chosen, seen, table, until=until, schedule=schedule
    )
    return replace(entry, attempt=attempt)


async def _late(task: Task, ticket: Held, executor: Executor, seen: Seen) -> State:
    """A start that needs theta_k: that itself, or its signs."""
    theta = (await _theta(task, ticket.seed, ticket.step, executor, seen)).tensors()
    if ticket.origin == "signs":
        signed = {
            name: theta[name].sign() * float(ticket.stored[f"factor/{name}"][0])
            for name in ticket.masks
        }
        return State(completed(theta | signed, theta, ticket.masks), ticket.step)
    return State(theta, ticket.step)


async def _theta(task: Task, seed: int, step: int, executor: Executor, seen: Seen) -> State:
    """The first steps of a seed's dense run, on the stream of the search."""
    theta = await scoring.early(task, seed, step, executor, seen.means)
    if theta is not None:
        return theta
    raise RecordError(f"{task.name}: the dense run of seed {seed} diverged before step {step}")


def main(arguments: Sequence[str]) -> int:
    """Do as a request says; an error is one line."""
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
