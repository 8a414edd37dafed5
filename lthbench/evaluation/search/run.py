"""Runs a method: one child process per seed, whose requests are answered until it ends.

One event loop over the pipes, no threads. A killed run starts again from the method's first line.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from lthbench.errors import (
    BadCall,
    BudgetExceeded,
    LthbenchError,
    MethodError,
    NodeLost,
    NotApplicable,
    ResourceError,
    TicketError,
)
from lthbench.evaluation.search import session
from lthbench.evaluation.search.child_process import Child, ChildProcess, Limits, StartChild
from lthbench.evaluation.search.session import Note, Probe, Search, SeedState
from lthbench.io import messages, store
from lthbench.io.paths import canonical_json, data_folders, write_whole
from lthbench.method.source import Method
from lthbench.protocol.task import Task
from lthbench.training.dispatch import HERE, Means, engine_for
from lthbench.training.executors.batching import Together
from lthbench.training.executors.local import Executor

ATTEMPTS = 3  # of a search whose nodes were lost
R = TypeVar("R")


class Killed(Exception):
    """The probe killed the child; another call of `find` continues."""


async def find(
    method: Method,
    task: Task,
    seeds: tuple[int, ...],
    folder: Path,
    executor: Executor,
    *,
    limits: Limits,
    keep_going: bool = False,
    keep: bool = False,
    means: Means = HERE,
    start: StartChild = ChildProcess.start,
    probe: Probe | None = None,
    note: Note = lambda seed, what, steps, ran: None,
) -> tuple[Search, ...]:
    """Search at every seed; finished seeds are read, not run.

    Args:
        method: the method to run.
        task: the task to search on.
        seeds: the seeds, searched concurrently.
        folder: gets `tickets/seed<k>/` and, until a seed is done, `store/seed<k>/`.
        executor: runs the trainings.
        limits: of each child.
        keep_going: record a failed seed in place of raising its error.
        keep: keep the stores of finished seeds.
        means: device and engine of the trainings.
        start: starts a child where it is to live.
        probe: of `check`: where to take snapshots and to kill.
        note: called with (seed, what happened, model-steps, whether they ran now) for progress.
    """
    stop = asyncio.Event()
    together = Together(executor, len(seeds))
    by = together if engine_for(means, task.network) == "stacked" else executor

    async def search(seed: int) -> Search:
        try:
            return await _search(
                method, task, seed, folder, by, limits, keep, means, start, probe, note, stop
            )
        except BaseException:
            if not keep_going:
                together.stop()
            raise
        finally:
            together.leave()

    tasks = [asyncio.ensure_future(search(seed)) for seed in seeds]
    if keep_going:
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await together.close()
        pairs = zip(seeds, ended, strict=True)
        return tuple([_failed(s, e) if isinstance(e, BaseException) else e for s, e in pairs])
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        stop.set()  # after an error the others end at their next request: what runs is stored
        await asyncio.wait(tasks)
    finally:
        for one in tasks:
            one.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await together.close()
    for error in ended:
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            raise error
    return tuple([one.result() for one in tasks])


def _failed(seed: int, error: BaseException) -> Search:
    scored = isinstance(error, (MethodError, TicketError, BudgetExceeded))
    if not scored or isinstance(error, NotApplicable):
        raise error  # a task left out, the machine's fault or ours: not a score of the method
    partial = getattr(error, "search", None)
    if isinstance(partial, Search):
        return partial
    return Search(seed, "failed", str(error)[:300], 0.0, 0.0, ())


async def _search(
    method: Method,
    task: Task,
    seed: int,
    folder: Path,
    executor: Executor,
    limits: Limits,
    keep: bool,
    means: Means,
    start: StartChild,
    probe: Probe | None,
    note: Note,
    stop: asyncio.Event,
) -> Search:
    tickets = folder / "tickets" / f"seed{seed}"
    done = tickets / "search.json"
    if done.is_file():
        search = _stored(done)
        note(seed, "stored", search.cost * task.recipe.steps, False)
        for rung in search.rungs[-1:]:  # nothing of this search is left to do
            note(seed, f"ticket {rung['density']!r}", 0, False)
        return search
    place = folder / "store" / f"seed{seed}"
    began = time.monotonic()

    async def once() -> SeedState:
        state = session.prepare(task, seed, tickets, place, means)
        child = await start(place / "home")
        try:
            await _converse(child, state, method, folder, executor, limits, probe, note, stop)
        except LthbenchError as error:
            error.search = _finished(state, "failed", str(error), began)  # type: ignore[attr-defined]
            raise
        finally:
            await child.close()
        return state

    search = _finished(await again_when_lost(once), "ok", "", began)
    table = {name: getattr(search, name) for name in Search.__dataclass_fields__}
    write_whole(done, canonical_json(table))
    if not keep:
        store.discard(place)
    return search


async def again_when_lost(search: Callable[[], Awaitable[R]], attempts: int = ATTEMPTS) -> R:
    """Run a search, again from its beginning if its node is lost: its store replays it."""
    for _ in range(attempts - 1):
        with suppress(NodeLost):
            return await search()
    return await search()


def _stored(path: Path) -> Search:
    """Read a finished search."""
    try:
        table = json.loads(path.read_bytes())
        return Search(**{**table, "rungs": tuple(table["rungs"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ResourceError(f"{path}: damaged; delete it and run the same command again") from error


def _finished(state: SeedState, status: str, reason: str, began: float) -> Search:
    seconds = time.monotonic() - began
    rungs, own = tuple(state.rungs), (state.processor, state.pace, state.meter.steps)
    return Search(state.seed, status, reason[:300], state.meter.spent, seconds, rungs, *own)


async def _converse(
    child: Child,
    state: SeedState,
    method: Method,
    folder: Path,
    executor: Executor,
    limits: Limits,
    probe: Probe | None,
    note: Note,
    stop: asyncio.Event,
) -> None:
    """Send the setup, then answer requests until the method ends."""
    header, tensors = setup(state, method, folder)
    await child.send({**header, "paced": True}, tensors)
    first, _ = await child.receive(limits, stop)  # before the method is loaded
    state.pace, began = float(first["pace"]), child.processor
    while True:
        header, tensors = await child.receive(limits, stop)
        state.processor = child.processor - began
        op = header.get("op")
        if op == "end":
            state.log.end()
            return
        if op == "error":
            raise method_error(method, state.seed, header, not (state.meter.spent or state.rungs))
        reply, answer = await answered(header, tensors, method, state, executor, probe, note)
        if probe and "error" not in reply:
            inside = op == "snapshot"
            number = header["number"] if inside else state.log.position
            point = str(op), number, header["step"] if inside else 0
            probe.seen.append(point)
            if point == probe.kill_at:
                child.kill()
                raise Killed(point)
        await child.send(reply, answer)


def setup(state: SeedState, method: Method, folder: Path) -> messages.Message:
    """Build the first message to a child: the task, the method, and the examples of one seed."""
    header = {
        "task": state.task.model_dump(mode="json", exclude={"calibration"}),
        "depth": state.task.network.depth,
        "seed": state.seed,
        "device": state.means.device,
        "tokens": state.train.tokens,
        "path": method.path,
        "source": method.source,
        "options": dict(method.options),
        "forbidden": [str(path.resolve()) for path in (*data_folders(), folder.parent)],
    }
    return header, {"x": state.train.x, "y": state.train.y}


async def answered(
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    method: Method,
    state: SeedState,
    executor: Executor,
    probe: Probe | None,
    note: Note,
) -> messages.Message:
    """Return the answer to one request, or what forbids it: the child raises that in the method."""
    op = header.get("op")
    try:
        reply, answer = await session.answer(op, header, tensors, state, executor, probe, note)
    except BudgetExceeded as error:
        reply, answer = {"error": "budget", "message": str(error)}, {}
    except BadCall as error:
        reply, answer = {"error": "call", "message": str(error)}, {}
    except LthbenchError as error:
        raise type(error)(f"{method.name} seed {state.seed}: {error}") from error
    reply["left"] = state.meter.left
    return reply, answer


def method_error(
    method: Method, seed: int, header: Mapping[str, Any], fresh: bool = False
) -> MethodError:
    """Return what went wrong in a child, at the method's own line.

    Args:
        method: the method that ran.
        seed: of the child.
        header: the error as the child reported it.
        fresh: whether it has neither trained nor yielded anything, so that it cannot know how well
            it does: only then may it leave the task out.
    """
    line = header.get("line")
    place = f"{method.path}:{line}" if line else method.path
    text = " ".join(str(header.get("message", "")).split())
    if fresh and header.get("left_out"):
        return NotApplicable(f"{method.name}: {text}")
    error = MethodError(f"{place}: {header.get('type')}: {text} (seed {seed})")
    error.add_note(str(header.get("trace", "")))
    return error
