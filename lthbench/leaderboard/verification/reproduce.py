"""Level 3: the search itself, run again on fresh seeds from the bundle's source in a sandbox.

Nobody can tune for seeds that a hash determines after the submission. Only the method's own process
is inside the sandbox; the training it requests runs outside, as does training of its tickets.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lthbench.errors import BudgetExceeded, LthbenchError, MethodError, RecordError, TicketError
from lthbench.evaluation import cells, scoring
from lthbench.evaluation.cells import Seen, cell_of, densities, read_given
from lthbench.evaluation.machine import environment
from lthbench.evaluation.search import run, sandbox, session
from lthbench.evaluation.search.child_process import Limits, StartChild
from lthbench.evaluation.search.sandbox import Bounds
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.starts import Thetas
from lthbench.leaderboard.board.reproduction import (
    Repeated,
    Reproduced,
    fresh_seeds,
    judge,
    repeated_seeds,
    score_of,
    spread_of,
)
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.verification.result import Finding, Say, quiet
from lthbench.method.publishable import check_says
from lthbench.method.source import Method, declared, load_method
from lthbench.protocol import datasets, design
from lthbench.protocol.constants import RANDOM, TICKETS
from lthbench.protocol.design import Plan
from lthbench.protocol.task import Task
from lthbench.records import unmetered
from lthbench.records.reference import Reference
from lthbench.records.schema import Cell, Record, build
from lthbench.tickets import ticket_files
from lthbench.training.dispatch import HERE
from lthbench.training.executors import local
from lthbench.training.executors.local import Executor

SECONDS = 6 * 3600.0  # of the method's own work, for one seed
REFUSED = (MethodError, TicketError, BudgetExceeded)


@dataclass(frozen=True)
class Claim:
    """A submission's results on one task: the bundle, its record, and the task's reference."""

    bundle: Bundle
    task: Task
    record: Record
    reference: Reference | None


def check(
    claim: Claim,
    beacon: str,
    workers: int | None,
    *,
    bounds: Bounds | None = None,
    seconds: float = SECONDS,
    say: Say = quiet,
) -> tuple[Finding, Reproduced]:
    """Search, score and compare.

    Raises:
        RecordError: If there is no score to compare.
        ResourceError: If there is no sandbox, or this machine has problems of its own.
    """
    task, record = claim.task, claim.record
    limits = bounds or Bounds()
    start = sandbox.start(limits)  # first: nothing starts without one
    claimed = score_of(record, record)
    if claimed is None or len(claimed[0]) < 2:
        raise RecordError(
            f"{task.name}: no score of two seeds or more to compare; needs a reference"
        )
    if spread_of(record, claim.reference) is None:
        raise RecordError(f"{task.name}: no reference that tells how far seeds lie apart")
    datasets.prepare(task, download=False)
    seeds = fresh_seeds(claim.bundle.sha256, beacon)
    same = repeated_seeds(record.seeds, claim.bundle.sha256, beacon)
    own = Limits(seconds, limits.memory)
    with tempfile.TemporaryDirectory(prefix="lthbench-verify-") as place:
        folder = Path(place)
        try:
            again = asyncio.run(_again(claim, (*seeds, *same), workers, own, start, say, folder))
        except REFUSED as error:
            done = _failed(f"the search failed: {error}", claimed[0], seeds)
        except LthbenchError:
            raise
        except Exception as error:  # the messages relayed by the coordinator are untrusted
            why = f"{type(error).__name__}: {str(error)[:100]}"
            done = _failed(f"the search sent what is no request ({why})", claimed[0], seeds)
        else:
            done = _compared(claim, again, (seeds, same), folder)
    told = "; ".join((done.what, *done.unmetered))
    return Finding(task.name, 3, done.ok, told), done


def _compared(
    claim: Claim, again: Record, seeds: tuple[Sequence[int], Sequence[int]], folder: Path
) -> Reproduced:
    """Judge the searches that were run again: of fresh seeds, and of published ones."""
    found = score_of(again, claim.record)
    if found is None:
        raise RecordError(f"{claim.task.name}: new seeds have no score; a dense run failed")
    fresh, same = seeds
    by_seed = dict(zip(again.seeds, found[0], strict=True))
    costs = {search.seed: search.cost for search in again.searches}
    repeated = [_repeated(claim, folder, seed, costs[seed], by_seed[seed]) for seed in same]
    done = judge(claim.record, claim.reference, [by_seed[seed] for seed in fresh], fresh, repeated)
    return replace(done, unmetered=unmetered.told_of(again))


def _repeated(claim: Claim, folder: Path, seed: int, cost: float, score: float) -> Repeated:
    """Compare a published seed's new tickets with the bundle's, of the same and of other seeds."""
    bundle, task = claim.bundle, claim.task
    known = archive.tickets(bundle, task.name)
    shares: dict[int, list[float]] = {}
    equal = True
    for density in sorted({rung for of, rung in known if of == seed}, reverse=True):
        _, new, _ = ticket_files.read_ticket(
            folder / task.name / "tickets" / f"seed{seed}", density
        )
        kept = sum(int(mask.sum()) for mask in new.values())
        for other in sorted({of for of, rung in known if rung == density}):
            _, old, _ = archive.ticket(bundle, task.name, other, density)
            both = sum(int((new[name].numpy() & old[name]).sum()) for name in new)
            shares.setdefault(other, []).append(both / kept)
            equal &= other != seed or both == kept == sum(int(m.sum()) for m in old.values())
    means = {other: statistics.mean(found) for other, found in shares.items()}
    others = max((share for other, share in means.items() if other != seed), default=0.0)
    return Repeated(seed, cost, equal, means.get(seed, 0.0), others, score)


def _failed(what: str, published: Sequence[float], seeds: tuple[int, ...]) -> Reproduced:
    return Reproduced(False, what, None, None, tuple(published), (), seeds, ())


async def _again(
    claim: Claim,
    seeds: tuple[int, ...],
    workers: int | None,
    limits: Limits,
    start: StartChild,
    say: Say,
    folder: Path,
) -> Record:
    """Return a record of these seeds with what the score needs: searches and tickets."""
    crew = local.default_workers(HERE) if workers is None else workers
    method, place = _method(claim, folder), folder / claim.task.name
    searching = local.local(crew, HERE)  # the only device in a sandbox is the processor
    try:
        searches = await run.find(
            method,
            claim.task,
            seeds,
            place,
            searching,
            run.Conditions(limits, start=start, note=_notes(claim.task, say)),
        )
    finally:
        await searching.close()
    executor = local.local(crew, HERE)  # processes that the search has no access to
    try:
        return await _score(claim, searches, place, executor, say)
    finally:
        await executor.close()


def _notes(task: Task, say: Say) -> session.Note:
    """Return a callback that reports each ticket found, but not the trainings of the search."""

    def note(event: session.Event) -> None:
        if event.what == "ticket":
            say(f"{task.name}: seed {event.seed}, ticket {event.density!r}")

    return note


def _method(claim: Claim, folder: Path) -> Method:
    """Return the bundle's source with the record's options; none of it is run here."""
    record = claim.record
    path = folder / f"{record.method.name}.py"
    path.write_bytes(bytes(claim.bundle.members[archive.SOURCE]))
    method = load_method(str(path))
    if method.digest != record.method.digest:
        raise MethodError(f"{record.method.name}: its source is not the record's, by digest")
    try:
        check_says(record.method, declared(method.source, path.name))
    except RecordError as error:
        raise MethodError(str(error)) from error
    return replace(method, options=dict(record.method.options))


async def _score(
    claim: Claim, searches: Sequence[Search], folder: Path, executor: Executor, say: Say
) -> Record:
    """Train and test the new tickets; return the published record's head with their cells."""
    task, plan = claim.task, Plan(final=True, compressed=False)
    seen = scoring.see(task, [search.seed for search in searches], plan)
    thetas, stand = Thetas(task, executor, seen.means), cells.untrained(searches)
    told = claim.record.scores.headline
    above_erk = told is not None and told.what == "above erk"
    # Losses are paired with the same seed's dense run.
    kinds = ("untrained",) if stand else ("dense", "ticket", *(RANDOM if above_erk else ()))
    entries = []
    for search in searches:
        tickets = {d: read_given(task, folder, search.seed, d) for d in densities(search)}
        for place in design.cells(task, plan, search.seed, {}, untrained=stand):
            missing = place.kind in TICKETS and place.density not in tickets
            if place.kind in kinds and not missing:
                ticket = tickets.get(place.density)
                entries.append(await cells.build(task, place, ticket, seen, thetas))
    planned = [entry for entry in entries if entry]
    new = []
    async for entry, result, _ in scoring.score_cells(task, planned, folder, executor, seen):
        new.append(cell_of(entry, result, seen))
        say(f"{task.name}: {len(new)} of {len(planned)} cells of new tickets trained")
    return _record(claim.record, searches, new, seen)


def _record(record: Record, searches: Sequence[Search], new: Sequence[Cell], seen: Seen) -> Record:
    """Combine the published record's head with the fresh cells and the same frozen reference."""
    computed = {"aggregates", "scorer", "transfer", "bundle", "arrivals"}
    table = record.model_dump(mode="json", exclude=computed)
    fresh = {
        "seeds": [search.seed for search in searches],
        "cells": [cell.model_dump(mode="json") for cell in new],
        "searches": [search.entry() for search in searches],
        "sizes": seen.sizes(),
        "environment": environment(),
        "environments": None,
        "times": {},
    }
    return build({**table, **fresh})
