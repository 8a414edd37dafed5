"""The pipeline: method, task, data, find, score, record. Finished stages are skipped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar, Unpack, cast

from lthbench.errors import NotApplicable, UsageError, nearest
from lthbench.evaluation import arrivals, cells, scoring
from lthbench.evaluation import environment as environments
from lthbench.evaluation.layout import gather, write_answers
from lthbench.evaluation.options import Request, asked
from lthbench.evaluation.outcome import Outcome, Times, answered_runs, record_of
from lthbench.evaluation.output import claim, claim_task, lock
from lthbench.evaluation.progress import Progress, Silent
from lthbench.evaluation.search import run
from lthbench.evaluation.search.child_process import ChildProcess, Limits, StartChild
from lthbench.evaluation.search.remote_child import Children
from lthbench.evaluation.search.run import Conditions
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.search.transfer_hook import hand_over
from lthbench.evaluation.transfer import AtDepths, Transferred, has_depths, transfer
from lthbench.io.paths import sweep, write_whole
from lthbench.method.source import Method
from lthbench.protocol import datasets
from lthbench.protocol.design import Part
from lthbench.protocol.task import Task
from lthbench.records import reference
from lthbench.records.reference import Reference
from lthbench.records.schema import Record, write_record
from lthbench.training.dispatch import Means
from lthbench.training.executors import local, ray_connection
from lthbench.training.executors.cluster import Cluster
from lthbench.training.executors.local import Executor

R = TypeVar("R")


@dataclass(frozen=True)
class Evaluated:
    """The records of one evaluation, and their folder.

    Attributes:
        left_out: tasks that the method does not support, each with its reason.
    """

    records: tuple[Record, ...]
    out: Path
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Settings:
    """How an evaluation runs; only the means change a record, within its noise."""

    workers: int
    means: Means
    limits: Limits
    keep_going: bool = False
    keep: bool = False
    nodes: bool = False  # of a Ray cluster; else this machine
    start: StartChild = ChildProcess.start

    @property
    def conditions(self) -> Conditions:
        """How searches run."""
        return Conditions(self.limits, self.means, self.start, self.keep_going, self.keep)


@dataclass(frozen=True)
class Stage:
    """What evaluates one task after another: the method, and what runs its trainings.

    Attributes:
        scorers: with the test split, workers of their own: those of the search never see it.
    """

    method: Method
    out: Path
    how: Settings
    progress: Progress
    searching: Executor
    scorers: Executor

    async def find(self, seeds: tuple[int, ...], task: Task, folder: Path) -> tuple[Search, ...]:
        """Search at every seed, at the depth of this task."""
        how = replace(self.how.conditions, note=partial(self.progress.search, task))
        return await run.find(self.method, task, seeds, folder, self.searching, how)


def evaluate(
    method: str, *, progress: Progress | None = None, **request: Unpack[Request]
) -> Evaluated:
    """Run a method through the harness and write a record for each task.

    Args:
        method: a file's path or a baseline's name.
        progress: receives reports while it runs; None for none.
        request: see `lthbench.evaluation.options.Request`.

    Raises:
        LthbenchError: for what the caller can correct; nothing that was stored is lost.
    """
    memory, timeout = request.get("memory", 8.0), request.get("timeout")
    if not 0 < memory < inf:
        raise UsageError(f"--memory {memory}: gigabytes, above 0")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout {timeout}: seconds, above 0")
    nodes, limits = _on_nodes(request), Limits(timeout, round(memory * 2**30))
    with ray_connection.connected(request.get("address")) if nodes else nullcontext():
        what = asked(method, request, nodes=nodes)
        named = what.method.name + ("-final" if request.get("final") else "")
        out = request.get("out")
        folder = Path(out) if out else Path("lthbench-out") / named
        going, keep = request.get("keep_going", False), request.get("keep", False)
        how = Settings(what.workers, what.means, limits, going, keep, nodes)
        to = progress or cast(Progress, Silent())
        return _outside_a_loop(_all(what.method, what.parts, folder, how, to))


def _on_nodes(request: Request) -> bool:
    """Return whether a Ray cluster does the work; UsageError for conflicting options."""
    executor, address = request.get("executor", "local"), request.get("address")
    if executor not in ("local", "ray"):
        raise UsageError(
            f"--executor {executor}: local or ray{nearest(executor, ('ray', 'local'))}"
        )
    if executor == "local" and address is not None:
        raise UsageError(f"--address {address}: of a Ray cluster; add --executor ray")
    if executor == "ray" and request.get("workers") is not None:
        raise UsageError("--workers is for --executor local; a cluster has its own cores")
    return executor == "ray"


def _outside_a_loop(run: Coroutine[object, object, R]) -> R:
    """Run to the end; from a notebook, whose own event loop is running, in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run).result()


async def _all(
    method: Method, parts: Sequence[Part], out: Path, how: Settings, progress: Progress
) -> Evaluated:
    """Evaluate all tasks; those that the method does not support are left out."""
    for part in parts:
        datasets.prepare(part.task, download=False, test=part.plan.final)
        if part.plan.transfer:
            has_depths(part.task)
    final = any(part.plan.final for part in parts)
    records: list[Record] = []
    left_out: list[tuple[str, str]] = []
    with lock(out):
        sweep(out)
        claim(out, method, final)
        progress.plan(parts, how.workers)
        async with _executors(how, final) as (how, searching, scorers):
            stage = Stage(method, out, how, progress, searching, scorers)
            for part in parts:
                try:
                    records.append(await one(stage, part))
                except NotApplicable as error:
                    task = part.task
                    if len(parts) == len(left_out) + 1:
                        raise NotApplicable(f"{task.name}: {error}") from error
                    left_out.append((task.name, str(error)))
                    (out / task.name / "record.json").unlink(missing_ok=True)
                    progress.left_out(task)
    return Evaluated(tuple(records), out, tuple(left_out))


@asynccontextmanager
async def _executors(
    how: Settings, final: bool
) -> AsyncIterator[tuple[Settings, Executor, Executor]]:
    """Yield what runs the trainings of searches and of scoring, closed at the end.

    The settings come with them: on a cluster, its arithmetic is known once it has started.
    """
    if not how.nodes:
        here = local.local(how.workers, how.means)
        scorers = local.local(how.workers, how.means) if final else here
        try:
            yield how, here, scorers
        finally:
            await here.close()
            await scorers.close()
        return
    nodes = Cluster(how.means)
    means = replace(how.means, there=await nodes.arithmetic())
    others = Cluster(how.means, nodes.makeup)  # its own processes
    children = Children(nodes.device)
    try:
        yield replace(how, means=means, start=children.start), nodes, others
    finally:
        await children.close()
        await nodes.close()
        await others.close()


async def one(stage: Stage, part: Part) -> Record:
    """Evaluate one task: find, then score, then the record."""
    task, progress, folder = part.task, stage.progress, stage.out / part.task.name
    claim_task(folder, task, stage.how.means)
    frozen = reference.load_reference(task)
    progress.begin(task)
    began = time.monotonic()
    searches = await stage.find(part.seeds, task, folder)
    found = time.monotonic()
    progress.found(task)
    if cells.untrained(searches):  # nothing is transferred
        progress.carry(task, "planned", 0.0, False)
    seen = scoring.see(task, part.seeds, part.plan, stage.how.means)
    scored = await scoring.score(
        task,
        searches,
        folder,
        stage.scorers,
        part.plan,
        seen,
        known=frozen.cells if frozen and part.plan.final else (),
        note=partial(progress.scoring, task),
    )
    judged = await arrivals.judged(task, searches, scored.cells, folder, stage.scorers, seen)
    ended = time.monotonic()
    moved = await _transfer(stage, part, searches, seen, frozen) if part.plan.transfer else None
    times = Times(found - began, ended - found, time.monotonic() - ended)
    outcome = Outcome(searches, scored, judged, moved, seen, times)
    record = record_of(stage.method, part, outcome, frozen)
    write_answers(folder, answered_runs(outcome))
    if part.plan.final:
        gather(folder)
    # What is installed later was not part of the evaluation, and would change the bundle.
    write_whole(stage.out / environments.FILE, environments.installed())
    write_record(folder / "record.json", record)
    progress.done(record)
    return record


async def _transfer(
    stage: Stage,
    part: Part,
    searches: Sequence[Search],
    seen: cells.Seen,
    frozen: Reference | None,
) -> Transferred | None:
    """Score the tickets at other depths; the reference's random ones there are not trained."""
    task = part.task
    shared = frozen.transfer.cells if frozen and frozen.transfer and part.plan.final else ()
    own_rule = partial(hand_over, stage.method, stage.searching, stage.how.conditions)
    return await transfer(
        task,
        searches,
        stage.out / task.name,
        AtDepths(
            partial(stage.find, part.seeds),
            own_rule if stage.method.carries else None,
            part.plan.direct,
        ),
        stage.scorers,
        seen,
        known=[cell for cell in shared if cell.kind == "erk"],
        note=partial(stage.progress.carry, task),
    )
