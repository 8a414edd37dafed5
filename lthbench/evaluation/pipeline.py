"""The pipeline: method, task, data, find, score, record. Finished stages are skipped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from lthbench.errors import NotApplicable, UsageError, nearest
from lthbench.evaluation import arrivals, experiment, scoring
from lthbench.evaluation import environment as environments
from lthbench.evaluation.layout import ANSWERS, gather
from lthbench.evaluation.machine import environment
from lthbench.evaluation.options import asked
from lthbench.evaluation.output import claim, claim_task, lock
from lthbench.evaluation.plan import Part, Plan
from lthbench.evaluation.search import run
from lthbench.evaluation.search.child_process import ChildProcess, Limits, StartChild
from lthbench.evaluation.search.remote_child import Children
from lthbench.evaluation.search.run import Conditions
from lthbench.evaluation.search.session import Event, Search
from lthbench.evaluation.search.transfer_hook import hand_over
from lthbench.evaluation.transfer import carry, has_depths
from lthbench.io.paths import canonical_json, sweep, write_whole
from lthbench.method.source import Method
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.records import reference
from lthbench.records.reference import Reference
from lthbench.records.schema import Record, build, write_record
from lthbench.training.dispatch import (
    VERSIONS,
    Means,
    engine_for,
)
from lthbench.training.executors import local, ray_connection
from lthbench.training.executors.cluster import Cluster
from lthbench.training.executors.local import Executor

R = TypeVar("R")


class Progress(Protocol):
    """What is reported while an evaluation runs."""

    def plan(self, parts: Sequence[Part], workers: int) -> None:
        """Report the tasks and seeds before anything runs."""

    def begin(self, task: Task) -> None:
        """Report that a task begins."""

    def search(self, task: Task, event: Event) -> None:
        """Report an event of a search."""

    def found(self, task: Task) -> None:
        """Report that a task's searches are done."""

    def scoring(self, task: Task, what: str, steps: float, ran: bool) -> None:
        """Report steps of scoring, and whether they ran now or were stored."""

    def carry(self, task: Task, what: str, steps: float, ran: bool) -> None:
        """Report steps at other depths, and whether they ran now or were stored."""

    def left_out(self, task: Task) -> None:
        """Report that the method does not support a task."""

    def done(self, record: Record) -> None:
        """Report a finished record."""


class Silent:
    """Reports nothing: every call is ignored."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


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


def evaluate(
    method: str,
    *,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    seeds: int | None = None,
    only_seeds: Sequence[int] | None = None,
    final: bool = False,
    controls: str | None = None,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    workers: int | None = None,
    engine: str | None = None,
    executor: str = "local",
    address: str | None = None,
    timeout: float | None = None,
    memory: float = 8.0,
    keep_going: bool = False,
    keep: bool = False,
    transfer: bool | None = None,
    direct: bool = False,
    progress: Progress | None = None,
) -> Evaluated:
    """Run a method through the harness and write a record for each task.

    Args:
        method: a file's path or a baseline's name.
        suite: a suite's name; "quick" if neither suite nor tasks are given.
        tasks: names of tasks.
        seeds: how many; by default the suite's number, or else each task's own.
        only_seeds: some of those seeds, as 0, 1, 2 of a final run; the record has no others.
        final: published seeds and the test split, in place of development seeds and held-out part.
        controls: which rungs have any: "all", "alternate" or "one rung"; by default as the suite
            says. A reference has all.
        out: the folder for results, `lthbench-out/<method>` by default (`…-final` with final).
        options: keyword-only options of the method.
        device: what networks are trained on, by torch's name; by default a GPU if there is one.
        workers: processes that train; one per core by default, one for a GPU, 0 for this process.
        engine: of `lthbench.training.dispatch`; the best for each task by default.
        executor: "local", or "ray" for the nodes of a Ray cluster.
        address: of the Ray cluster; None starts Ray on this machine alone.
        timeout: seconds of a child's own; None for no limit.
        memory: gigabytes of a child.
        keep_going: score a failed seed as chance in place of ending.
        keep: keep the stores of finished searches.
        transfer: transfer the tickets to other depths; by default as the suite says.
        direct: search at those depths too, as for the frozen reference.
        progress: receives reports while it runs; None for none.

    Raises:
        LthbenchError: for what the caller can correct; nothing that was stored is lost.
    """
    if not 0 < memory < inf:
        raise UsageError(f"--memory {memory}: gigabytes, above 0")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout {timeout}: seconds, above 0")
    nodes = _on_nodes(executor, address, workers)
    with ray_connection.connected(address) if nodes else nullcontext():
        if nodes:
            device, workers = device or ray_connection.default_device(), ray_connection.cores()
        what = asked(
            method, suite, tasks, seeds, final, options, workers, device, engine, here=not nodes,
            only_seeds=only_seeds, controls=controls, transfer=transfer, direct=direct,
        )  # fmt: skip
        named = what.method.name + ("-final" if final else "")
        folder = Path(out) if out else Path("lthbench-out") / named
        limits = Limits(timeout, round(memory * 2**30))
        how = Settings(what.workers, what.means, limits, keep_going, keep, nodes)
        told = progress or cast(Progress, Silent())
        run = _all(what.method, what.parts, folder, how, told)
        records, left_out = _outside_a_loop(run)
    return Evaluated(tuple(records), folder, tuple(left_out))


def _on_nodes(executor: str, address: str | None, workers: int | None) -> bool:
    """Return whether a Ray cluster does the work; UsageError for conflicting options."""
    if executor not in ("local", "ray"):
        raise UsageError(
            f"--executor {executor}: local or ray{nearest(executor, ('ray', 'local'))}"
        )
    if executor == "local" and address is not None:
        raise UsageError(f"--address {address}: of a Ray cluster; add --executor ray")
    if executor == "ray" and workers is not None:
        raise UsageError("--workers is for --executor local; a cluster has its own cores")
    return executor == "ray"


def _outside_a_loop(run: Coroutine[Any, Any, R]) -> R:
    """Run to the end; from a notebook, whose own event loop is running, in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run).result()


async def _all(
    method: Method,
    parts: Sequence[Part],
    out: Path,
    how: Settings,
    progress: Progress,
) -> tuple[list[Record], list[tuple[str, str]]]:
    """Return the records of all tasks, and the tasks left out with their reasons."""
    for part in parts:
        datasets.prepare(part.task, download=False, test=part.plan.final)
        if part.plan.transfer:
            has_depths(part.task)
    final = any(part.plan.final for part in parts)
    with lock(out):
        sweep(out)
        claim(out, method, final)
        progress.plan(parts, how.workers)
        searching: Executor
        scorers: Executor
        children: Children | None
        if how.nodes:
            searching = nodes = Cluster(how.means)
            means = replace(how.means, there=await nodes.arithmetic())
            scorers = Cluster(how.means, nodes.makeup)  # its own processes
            children = Children(nodes.device)
            how = replace(how, means=means, start=children.start)
        else:
            children = None
            searching = local.local(how.workers, how.means)
            scorers = local.local(how.workers, how.means) if final else searching
        records: list[Record] = []
        left_out: list[tuple[str, str]] = []
        try:
            for part in parts:
                try:
                    records.append(await one(method, part, out, how, progress, searching, scorers))
                except NotApplicable as error:
                    task = part.task
                    if len(parts) == len(left_out) + 1:
                        raise NotApplicable(f"{task.name}: {error}") from error
                    left_out.append((task.name, str(error)))
                    (out / task.name / "record.json").unlink(missing_ok=True)
                    progress.left_out(task)
            return records, left_out
        finally:
            if children is not None:
                await children.close()
            await searching.close()
            await scorers.close()


async def one(
    method: Method,
    part: Part,
    out: Path,
    how: Settings,
    progress: Progress,
    searching: Executor,
    scorers: Executor,
) -> Record:
    """Evaluate one task: find, then score, then the record.

    With the test split, scoring has its own workers: those of the search never see it.
    """
    task, seeds, plan = part.task, part.seeds, part.plan
    folder = out / task.name
    claim_task(folder, task, how.means)
    frozen = reference.load_reference(task)
    progress.begin(task)
    began = time.monotonic()
    searches = await _find(method, seeds, how, progress, searching, task, folder)
    found = time.monotonic()
    progress.found(task)
    if experiment.untrained(searches):  # nothing is transferred
        progress.carry(task, "planned", 0.0, False)
    seen = scoring.see(task, seeds, plan, how.means)
    cells = await scoring.score(
        task,
        searches,
        folder,
        scorers,
        plan,
        seen,
        known=[c.model_dump(mode="json") for c in frozen.cells] if frozen and plan.final else [],
        note=partial(progress.scoring, task),
    )
    cells, arrived = await arrivals.judged(task, searches, cells, folder, scorers, seen)
    scored = time.monotonic()
    moved = None
    if plan.transfer:
        finding = partial(_find, method, seeds, how, progress, searching)
        handing = partial(hand_over, method, searching, how.conditions)
        moved = await carry(
            task,
            searches,
            folder,
            finding,
            scorers,
            seen,
            handing=handing if method.carries else None,
            frozen=_frozen_at_targets(frozen, plan),
            direct=plan.direct,
            note=partial(progress.carry, task),
        )
    answered = _answered(cells, moved)
    times = {
        "find_seconds": found - began,
        "score_seconds": scored - found,
        "transfer_seconds": time.monotonic() - scored,
    }
    record = _record(
        method, task, seeds, plan, how.means, searches, cells, arrived, moved, seen, frozen, times
    )
    write_whole(folder / ANSWERS, canonical_json(answered))
    if plan.final:
        gather(folder)
    # What is installed later was not part of the evaluation, and would change the bundle.
    write_whole(out / environments.FILE, environments.installed())
    write_record(folder / "record.json", record)
    progress.done(record)
    return record


def _answered(
    cells: list[dict[str, Any]], moved: dict[str, Any] | None
) -> dict[str, list[list[Any]]]:
    """Return where the answers of each cell are stored, removing each cell's key.

    Records do not hold this. Cells of the frozen reference have no stored answers.
    """
    carried = moved["cells"] if moved else []
    return {
        "cells": [
            [c["kind"], c["density"], c["seed"], c["schedule"], c.pop("key")]
            for c in cells
            if "key" in c
        ],
        "carried": [
            [c["kind"], c["density"], c["seed"], c["depth"], c.pop("key")]
            for c in carried
            if "key" in c
        ],
    }


async def _find(
    method: Method,
    seeds: tuple[int, ...],
    how: Settings,
    progress: Progress,
    executor: Executor,
    task: Task,
    folder: Path,
) -> tuple[Search, ...]:
    conditions = replace(how.conditions, note=partial(progress.search, task))
    return await run.find(method, task, seeds, folder, executor, conditions)


def _frozen_at_targets(frozen: Reference | None, plan: Plan) -> list[dict[str, Any]]:
    """Return the random tickets of the reference, which final records share."""
    if frozen is None or frozen.transfer is None or not plan.final:
        return []
    cells = [c for c in frozen.transfer.cells if c.kind == "erk"]
    return [cell.model_dump(mode="json") for cell in cells]


def _record(
    method: Method,
    task: Task,
    seeds: tuple[int, ...],
    plan: Plan,
    means: Means,
    searches: Sequence[Search],
    cells: list[dict[str, Any]],
    arrived: list[dict[str, Any]] | None,
    moved: dict[str, Any] | None,
    seen: experiment.Seen,
    frozen: Reference | None,
    times: Mapping[str, float],
) -> Record:
    ladder = task.ladder.untrained if experiment.untrained(searches) else task.ladder.trained
    table = {
        "method": {
            "name": method.name,
            "digest": method.digest,
            "options": dict(method.options),
            "described": dict(method.described),
        },
        "task": {
            "name": task.name,
            "version": task.version,
            "digest": task.digest,
            "kind": task.score.kind,
            "schedule": task.recipe.schedule,
            "chance": task.chance,
            "threshold": task.score.threshold,
            "steps": task.recipe.steps,
            "every": task.score.every,
            "seeds": task.seeds,
            "weights": experiment.weights_total(task),
            "ladder": list(ladder),
        },
        "final": plan.final,
        "shown": plan.shown,
        "seeds": list(seeds),
        "controls": plan.controls,
        "fingerprints": experiment.fingerprints(task),
        "sizes": seen.sizes(),
        "cells": cells,
        "searches": [search.entry() for search in searches],
        "arrivals": arrived,
        "transfer": moved,
        "reference": frozen.frozen(plan.shown).model_dump(mode="json") if frozen else None,
        "environment": environment(means) | {"engine": VERSIONS[engine_for(means, task.network)]},
        "times": {**times, "search_seconds": sum(s.seconds for s in searches)},
    }
    return build(table)
