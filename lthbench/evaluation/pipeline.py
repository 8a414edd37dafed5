"""The pipeline: method, task, data, find, score, record. Each stage is skipped if it is done."""

from __future__ import annotations

import asyncio
import json
import platform
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, get_args

from lthbench.errors import MethodError, NotApplicable, ResourceError, UsageError, nearest
from lthbench.evaluation import arrivals, scoring
from lthbench.evaluation import environment as environments
from lthbench.evaluation.layout import ANSWERS, CLAIM, TRAINED, gather
from lthbench.evaluation.scoring import Part, Plan
from lthbench.evaluation.search import run
from lthbench.evaluation.search.child_process import ChildProcess, Limits, StartChild
from lthbench.evaluation.search.remote_child import Children
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.search.transfer_hook import hand_over
from lthbench.evaluation.transfer import carry, has_depths
from lthbench.io.paths import canonical_json, sweep, write_whole
from lthbench.method import publishable
from lthbench.method.source import Method, load_method
from lthbench.protocol import datasets
from lthbench.protocol.task import Controls, Suite, Task, load_suite, suite_names
from lthbench.records import reference
from lthbench.records.reference import Reference
from lthbench.records.schema import Record, build, write_record
from lthbench.tickets.sizes import load_sound
from lthbench.training.dispatch import (
    HERE,
    VERSIONS,
    Means,
    arithmetic,
    device_told,
    engine_for,
    means_of,
)
from lthbench.training.executors import local, ray_connection
from lthbench.training.executors.cluster import Cluster
from lthbench.training.executors.local import Executor

DEVELOPMENT, PUBLISHED = 1000, 0  # the first seed of each kind
R = TypeVar("R")
LIBRARIES = ("torch", "numpy", "scipy")
SOURCE = "method.py"


class Progress(Protocol):
    """What is told while an evaluation runs."""

    def plan(self, parts: Sequence[Part], workers: int) -> None: ...
    def begin(self, task: Task) -> None: ...
    def search(self, task: Task, seed: int, what: str, steps: float, ran: bool) -> None: ...
    def found(self, task: Task) -> None: ...
    def scoring(self, task: Task, what: str, steps: float, ran: bool) -> None: ...
    def carry(self, task: Task, what: str, steps: float, ran: bool) -> None: ...
    def left_out(self, task: Task) -> None: ...
    def done(self, record: Record) -> None: ...


class Silent:
    """Tells nothing: every call is accepted and forgotten."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


@dataclass(frozen=True)
class Evaluated:
    """The records of one evaluation, and the folder they are in.

    Attributes:
        left_out: tasks that the method cannot be run on, each with its reason.
    """

    records: tuple[Record, ...]
    out: Path
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Asked:
    """A method, the tasks that it is run on, and by what."""

    method: Method
    parts: tuple[Part, ...]
    workers: int
    means: Means


@dataclass(frozen=True)
class Settings:
    """How an evaluation runs; nothing but the means changes a record, within its noise."""

    workers: int
    means: Means
    limits: Limits
    keep_going: bool = False
    keep: bool = False
    nodes: bool = False  # of a Ray cluster; else this machine
    start: StartChild = ChildProcess.start


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
        suite, tasks: a suite's name ("quick" if neither is given), or names of tasks.
        seeds: how many; by default the suite's number, or else each task's own.
        only_seeds: some of those seeds, as 0, 1, 2 of a final run; the record has no others.
        final: published seeds and the test split, in place of development seeds and held-out part.
        controls: which rungs have any: "all", "alternate" or "one rung"; as the suite says by
            default. A reference has all.
        out: the folder for results, `lthbench-out/<method>` by default (`…-final` with final).
        options: keyword-only options of the method.
        device: what networks are trained on, by torch's name; a GPU where there is one.
        workers: processes that train; one a core by default, one for a GPU, 0 for this process.
        engine: of `lthbench.training.dispatch`; the best for each task by default.
        executor, address: "local", or "ray" for the nodes of a Ray cluster: at an address, or on
            this machine alone.
        timeout, memory: a child's own seconds, and its gigabytes.
        keep_going: score a failed seed as chance in place of ending.
        keep: keep the store of a search that is done.
        transfer: carry the tickets to other depths; as the suite says by default.
        direct: search at those depths too, as for the frozen reference.

    Raises:
        LthbenchError: for what the caller can put right; nothing that was stored is lost.
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
    """Whether a Ray cluster does the work; UsageError for options that do not go together."""
    if executor not in ("local", "ray"):
        raise UsageError(
            f"--executor {executor}: local or ray{nearest(executor, ('ray', 'local'))}"
        )
    if executor == "local" and address is not None:
        raise UsageError(f"--address {address}: of a Ray cluster; add --executor ray")
    if executor == "ray" and workers is not None:
        raise UsageError("--workers is for --executor local; a cluster has its own cores")
    return executor == "ray"


def asked(
    method: str,
    suite: str | None,
    tasks: Sequence[str],
    seeds: int | None,
    final: bool,
    options: Mapping[str, Any] | None,
    workers: int | None,
    device: str | None = None,
    engine: str | None = None,
    here: bool = True,
    *,
    only_seeds: Sequence[int] | None = None,
    controls: str | None = None,
    transfer: bool | None = None,
    direct: bool = False,
) -> Asked:
    """What the arguments that `evaluate` and `estimate` share come to; UsageError for mistakes."""
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: 0 or more")
    loaded = load_method(method, {name: str(value) for name, value in (options or {}).items()})
    if final:  # what would be refused when it is submitted, after days
        publishable.check(loaded)
    parts = parts_of(
        suite, tasks, seeds, final, only_seeds=only_seeds, controls=controls, transfer=transfer,
        direct=direct,
    )  # fmt: skip
    means = means_of(device, engine, here=here)
    if engine and not any(engine_for(means, part.task.network) == engine for part in parts):
        names = ", ".join(part.task.name for part in parts)
        raise UsageError(
            f"--engine {engine}: trains none of {names} on {means.device}; leave it out"
        )
    crew = local.default_workers(means) if workers is None else workers
    return Asked(loaded, parts, crew, means)


def parts_of(
    suite: str | None,
    tasks: Sequence[str],
    seeds: int | None,
    final: bool,
    *,
    only_seeds: Sequence[int] | None = None,
    controls: str | None = None,
    transfer: bool | None = None,
    direct: bool = False,
) -> tuple[Part, ...]:
    """The tasks that arguments name, with their seeds and what is scored.

    Raises:
        UsageError: for arguments that are mistaken, or do not go together.
    """
    if suite and tasks:
        raise UsageError("--suite and --task exclude each other; name one of them")
    chosen = load_suite(suite) if suite else suite_for(tasks, final)
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1")
    rungs = _controls(chosen.controls if controls is None else controls)
    listed = tuple(load_sound(name) for name in tuple(tasks) or chosen.tasks)
    parts = []
    for task in listed:
        moved = (task.name in chosen.transfer if transfer is None else transfer) or direct
        plan = Plan(final, rungs, chosen.compressed, moved, direct)
        parts.append(Part(task, _seeds(task, final, seeds or chosen.seeds, only_seeds), plan))
    return tuple(parts)


def _controls(name: str) -> Controls:
    known: tuple[Controls, ...] = get_args(Controls)
    for controls in known:
        if name == controls:
            return controls
    raise UsageError(f"--controls {name}: {', '.join(known)}{nearest(name, known)}")


def _seeds(
    task: Task, final: bool, count: int | None, only: Sequence[int] | None
) -> tuple[int, ...]:
    """The published or development seeds of a task, or some of them; UsageError for others."""
    first = PUBLISHED if final else DEVELOPMENT
    every = range(first, first + (count or task.seeds))
    strange = [seed for seed in only or () if seed not in every]
    if strange or (only is not None and not only):
        raise UsageError(
            f"--only-seeds {strange[0] if strange else 'of none'}: {task.name} has "
            f"{every[0]}-{every[-1]} here; --seeds gives it another number"
        )
    return tuple(every) if only is None else tuple(sorted(set(only)))


def suite_for(tasks: Sequence[str], final: bool) -> Suite:
    """The suite whose seeds and extras hold where none is named: quick's, or for a final run of a
    task those of the ranked suite that it is in; in none, its own seeds with every control."""
    quick = load_suite("quick")
    if not (final and tasks):
        return quick
    for suite in map(load_suite, suite_names()):
        if suite.ranked and set(tasks) <= set(suite.tasks):
            return suite
    everything = {"controls": "all", "compressed": True, "seeds": None}
    return quick.model_copy(update=everything)


def _outside_a_loop(run: Coroutine[Any, Any, R]) -> R:
    """Run to the end; from a notebook, whose own loop is busy, in a thread beside it."""
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
    """The records of all tasks, and the tasks that were left out with their reasons."""
    for part in parts:
        datasets.prepare(part.task, download=False, test=part.plan.final)
        if part.plan.transfer:
            has_depths(part.task)
    final = any(part.plan.final for part in parts)
    with _locked(out):
        sweep(out)
        _claim(out, method, final)
        progress.plan(parts, how.workers)
        searching: Executor
        scorers: Executor
        children: Children | None
        if how.nodes:
            searching = nodes = Cluster(how.means)
            means = replace(how.means, there=await nodes.arithmetic())
            scorers = Cluster(how.means, nodes.makeup)  # processes of its own
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
    """One task: find, then score, then the record.

    With the test split, scoring has workers of its own: those of the search never see it.
    """
    task, seeds, plan = part.task, part.seeds, part.plan
    folder = out / task.name
    _claim_task(folder, task, how.means)
    frozen = reference.load_reference(task)
    progress.begin(task)
    began = time.monotonic()
    searches = await _find(method, seeds, how, progress, searching, task, folder)
    found = time.monotonic()
    progress.found(task)
    if scoring.untrained(searches):  # nothing is carried
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
        handing = partial(
            hand_over, method, searching, how.limits, means=how.means, start=how.start
        )
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
    # What is installed later is no part of what was evaluated, and would change the bundle.
    write_whole(out / environments.FILE, environments.installed())
    write_record(folder / "record.json", record)
    progress.done(record)
    return record


def _answered(
    cells: list[dict[str, Any]], moved: dict[str, Any] | None
) -> dict[str, list[list[Any]]]:
    """Where the answers of each cell are stored, which a record does not say: each cell's key is
    taken out of it. Cells of the frozen reference have none."""
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
    return await run.find(
        method,
        task,
        seeds,
        folder,
        executor,
        limits=how.limits,
        keep_going=how.keep_going,
        keep=how.keep,
        means=how.means,
        start=how.start,
        note=partial(progress.search, task),
    )


def _frozen_at_targets(frozen: Reference | None, plan: Plan) -> list[dict[str, Any]]:
    """The random tickets of the reference, which final records share."""
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
    seen: scoring.Seen,
    frozen: Reference | None,
    times: Mapping[str, float],
) -> Record:
    ladder = task.ladder.untrained if scoring.untrained(searches) else task.ladder.trained
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
            "weights": scoring.weights_total(task),
            "ladder": list(ladder),
        },
        "final": plan.final,
        "shown": plan.shown,
        "seeds": list(seeds),
        "controls": plan.controls,
        "fingerprints": scoring.fingerprints(task),
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


def environment(means: Means = HERE) -> dict[str, str]:
    """What may move a figure by a bit: versions, device, processor, threads."""
    versions = {name: version(name) for name in LIBRARIES}
    return {
        "lthbench": version("lthbench"),
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "arithmetic": arithmetic(means),
        "device": device_told(means),
        "threads": "1",
    }


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()[:120] or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0][:120] if names else platform.machine()


def _locked(out: Path) -> AbstractContextManager[Any]:
    """The folder's lock, or an error at once: two evaluations would overwrite each other."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / "lock")
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(
            f"{out}: another evaluation is using this folder; wait for it or give --out"
        ) from error
    except OSError as error:
        raise ResourceError(f"{out}: {error.strerror}; choose another folder with --out") from error


def _claim(out: Path, method: Method, final: bool) -> None:
    """One method, one set of options, one kind of seeds a folder."""
    path = out / CLAIM
    mine = {
        "name": method.name,
        "method": method.digest,
        "options": dict(method.options),
        "final": final,
    }
    _agree(path, mine, "--out another folder, or remove this one")
    write_whole(out / SOURCE, method.source.encode())  # what a submission's bundle holds


def _claim_task(folder: Path, task: Task, means: Means) -> None:
    trains = VERSIONS[engine_for(means, task.network)]
    mine = {"task": task.digest, "arithmetic": arithmetic(means), "engine": trains}
    _agree(folder / TRAINED, mine, "give --out another folder")


def _agree(path: Path, mine: dict[str, Any], step: str) -> None:
    """Write the claim, or refuse where the folder belongs to something else."""
    if not path.is_file():
        write_whole(path, canonical_json(mine))
        return
    try:
        theirs = json.loads(path.read_bytes())
        if theirs == mine:
            return
        key = next(k for k in mine if theirs.get(k) != mine[k])
    except (ValueError, AttributeError, StopIteration) as error:
        raise ResourceError(
            f"{path}: damaged; remove {path.parent} and run the same command again"
        ) from error
    old, new = _short(theirs.get(key)), _short(mine[key])
    raise MethodError(f"{path.parent}: holds results of {key} {old}, not {new}; {step}")


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value, sort_keys=True)[:60]
