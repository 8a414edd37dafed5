"""Level 3: the search itself, run again on fresh seeds from the bundle's source in a sandbox.

Nobody can tune for seeds that a hash determines after the submission. Only the method's own process
is inside the sandbox; the training it requests runs outside, as does training of its tickets.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lthbench.errors import BudgetExceeded, LthbenchError, MethodError, RecordError, TicketError
from lthbench.evaluation import experiment, scoring
from lthbench.evaluation.experiment import unlearned
from lthbench.evaluation.machine import environment
from lthbench.evaluation.plan import Plan
from lthbench.evaluation.search import run, sandbox, session
from lthbench.evaluation.search.child_process import Limits, StartChild
from lthbench.evaluation.search.sandbox import Bounds
from lthbench.evaluation.search.session import Search
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
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.records import unmetered
from lthbench.records.reference import Reference
from lthbench.records.schema import Record, build
from lthbench.tickets import ticket_files
from lthbench.training.dispatch import HERE, Means
from lthbench.training.executors import local

SECONDS = 6 * 3600.0  # of the method's own work, for one seed
REFUSED = (MethodError, TicketError, BudgetExceeded)


def check(
    bundle: Bundle,
    task: Task,
    record: Record,
    reference: Reference | None,
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
    limits = bounds or Bounds()
    start = sandbox.start(limits)  # first: nothing starts without one
    claimed = score_of(record, record)
    if claimed is None or len(claimed[0]) < 2:
        raise RecordError(
            f"{task.name}: no score of two seeds or more to compare; needs a reference"
        )
    if spread_of(record, reference) is None:
        raise RecordError(f"{task.name}: no reference that tells how far seeds lie apart")
    datasets.prepare(task, download=False)
    seeds = fresh_seeds(bundle.sha256, beacon)
    same = repeated_seeds(record.seeds, bundle.sha256, beacon)
    own = Limits(seconds, limits.memory)
    with tempfile.TemporaryDirectory(prefix="lthbench-verify-") as place:
        folder = Path(place)
        try:
            again = asyncio.run(
                _again(
                    bundle,
                    task,
                    record,
                    reference,
                    (*seeds, *same),
                    workers,
                    own,
                    start,
                    say,
                    folder,
                )
            )
        except REFUSED as error:
            done = _failed(f"the search failed: {error}", claimed[0], seeds)
        except LthbenchError:
            raise
        except Exception as error:  # the messages relayed by the coordinator are untrusted
            why = f"{type(error).__name__}: {str(error)[:100]}"
            done = _failed(f"the search sent what is no request ({why})", claimed[0], seeds)
        else:
            done = _compared(bundle, task, record, reference, again, (seeds, same), folder)
    told = "; ".join((done.what, *done.unmetered))
    return Finding(task.name, 3, done.ok, told), done


def _compared(
    bundle: Bundle,
    task: Task,
    record: Record,
    reference: Reference | None,
    again: Record,
    seeds: tuple[Sequence[int], Sequence[int]],
    folder: Path,
) -> Reproduced:
    """Judge the searches that were run again: of fresh seeds, and of published ones."""
    found = score_of(again, record)
    if found is None:
        raise RecordError(f"{task.name}: new seeds have no score; a dense run failed")
    fresh, same = seeds
    by_seed = dict(zip(again.seeds, found[0], strict=True))
    costs = {search.seed: search.cost for search in again.searches}
    repeated = [_repeated(bundle, task, folder, seed, costs[seed], by_seed[seed]) for seed in same]
    done = judge(record, reference, [by_seed[seed] for seed in fresh], fresh, repeated)
    return replace(done, unmetered=unmetered.told_of(again))


def _repeated(
    bundle: Bundle, task: Task, folder: Path, seed: int, cost: float, score: float
) -> Repeated:
    """Compare a published seed's new tickets with the bundle's, of the same and of other seeds."""
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
    bundle: Bundle,
    task: Task,
    record: Record,
    reference: Reference | None,
    seeds: tuple[int, ...],
    workers: int | None,
    limits: Limits,
    start: StartChild,
    say: Say,
    folder: Path,
) -> Record:
    """Return a record of these seeds with what the score needs: searches and tickets."""
    means = HERE  # the only device in a sandbox is the processor
    crew = local.default_workers(means) if workers is None else workers
    method = _method(bundle, record, folder)
    searching = local.local(crew, means)
    try:
        searches = await run.find(
            method,
            task,
            seeds,
            folder / task.name,
            searching,
            run.Conditions(limits, means, start, note=_notes(task, say)),
        )
    finally:
        await searching.close()
    return await _scored(
        task, method, record, reference, searches, folder / task.name, crew, means, say
    )


def _notes(task: Task, say: Say) -> session.Note:
    """Return a callback that reports each ticket found, but not the trainings of the search."""

    def note(event: session.Event) -> None:
        if event.what == "ticket":
            say(f"{task.name}: seed {event.seed}, ticket {event.density!r}")

    return note


def _method(bundle: Bundle, record: Record, folder: Path) -> Method:
    """Return the bundle's source with the record's options; none of it is run here."""
    path = folder / f"{record.method.name}.py"
    path.write_bytes(bytes(bundle.members[archive.SOURCE]))
    method = load_method(str(path))
    if method.digest != record.method.digest:
        raise MethodError(f"{record.method.name}: its source is not the record's, by digest")
    try:
        check_says(record.method, declared(method.source, path.name))
    except RecordError as error:
        raise MethodError(str(error)) from error
    return replace(method, options=dict(record.method.options))


async def _scored(
    task: Task,
    method: Method,
    record: Record,
    reference: Reference | None,
    searches: Sequence[Search],
    folder: Path,
    crew: int,
    means: Means,
    say: Say,
) -> Record:
    """Train and test the tickets, in processes that the search has no access to."""
    plan = Plan(final=True)
    seen = scoring.see(task, [s.seed for s in searches], plan, means)
    untrained = experiment.untrained(searches)
    told = record.scores.headline
    entries = []
    for search in searches:
        theta = families.initial(task.network, task.network.depth, search.seed)
        if not untrained:  # losses are paired with the same seed's dense run
            entries.append(experiment.entry_of(task, "dense", 1.0, search.seed, theta, None, seen))
        if told and told.what == "above erk":
            entries += unlearned(task, search.seed, theta, plan, seen)
        for rung in search.rungs:
            density = rung.density
            held = folder / "tickets" / f"seed{search.seed}"
            header, chosen, stored = ticket_files.read_ticket(held, density)
            begin = State(stored, header["start"]) if stored else theta
            table = {"origin": header["origin"], "start": header["start"]}
            what: dict[str, Any] = {"until": begin.step} if untrained else {}
            kind = "untrained" if untrained else "ticket"
            entries.append(
                experiment.entry_of(
                    task, kind, density, search.seed, begin, chosen, seen, table, **what
                )
            )
    executor = local.local(crew, means)
    try:
        cells = []
        async for entry, result, _ in scoring.score_cells(task, entries, folder, executor, seen):
            cells.append(experiment.cell_of(entry, result))
            say(f"{task.name}: {len(cells)} of {len(entries)} cells of new tickets trained")
    finally:
        await executor.close()
    return _record(task, method, record, reference, searches, cells, seen, means)


def _record(
    task: Task,
    method: Method,
    record: Record,
    reference: Reference | None,
    searches: Sequence[Search],
    cells: Sequence[dict[str, Any]],
    seen: experiment.Seen,
    means: Means,
) -> Record:
    """Combine the published record's head with the fresh cells and the same frozen reference."""
    computed = {"aggregates", "scorer", "transfer", "bundle", "arrivals"}
    table = record.model_dump(mode="json", exclude=computed)
    fresh = {
        "seeds": [search.seed for search in searches],
        "cells": [{k: v for k, v in cell.items() if k != "key"} for cell in cells],
        "searches": [search.entry() for search in searches],
        "sizes": seen.sizes(),
        "environment": environment(means),
        "environments": None,
        "times": {},
    }
    return build({**table, **fresh})
