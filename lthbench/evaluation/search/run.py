"""Runs a method: one child process per seed, whose requests are answered until it ends.

One event loop over the pipes, no threads. A killed run starts again from the method's first line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

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
from lthbench.evaluation.search import answers, session
from lthbench.evaluation.search.child_process import Child, ChildProcess, Limits, StartChild
from lthbench.evaluation.search.requests import unknown
from lthbench.evaluation.search.session import Event, Note, Probe, Search, SeedState
from lthbench.io import messages, store
from lthbench.io.messages import Tensors
from lthbench.io.paths import canonical_json, data_folders, write_whole
from lthbench.method.requests import (
    End,
    Failure,
    Pace,
    Refusal,
    Reply,
    Request,
    Setup,
    Snapshot,
)
from lthbench.method.source import Method
from lthbench.protocol.task import Task
from lthbench.training.dispatch import HERE, Means, engine_for
from lthbench.training.executors.batching import Together
from lthbench.training.executors.local import Executor

ATTEMPTS = 3  # of a search whose nodes were lost
R = TypeVar("R")


class Killed(Exception):
    """The probe killed the child; another call of `find` continues."""


@dataclass(frozen=True)
class Conditions:
    """How searches run: none of it changes what they find, but the means within their noise.

    Attributes:
        limits: of each child.
        means: device and engine of the trainings.
        start: starts a child where it is to live.
        keep_going: record a failed seed in place of raising its error.
        keep: keep the stores of finished seeds.
        probe: of `check`: where to take snapshots and to kill.
        note: receives each event, for progress.
    """

    limits: Limits = field(default_factory=Limits)
    means: Means = HERE
    start: StartChild = ChildProcess.start
    keep_going: bool = False
    keep: bool = False
    probe: Probe | None = None
    note: Note = session.ignore


async def find(
    method: Method,
    task: Task,
    seeds: tuple[int, ...],
    folder: Path,
    executor: Executor,
    how: Conditions,
) -> tuple[Search, ...]:
    """Search at every seed; finished seeds are read, not run.

    Args:
        method: the method to run.
        task: the task to search on.
        seeds: the seeds, searched concurrently.
        folder: gets `tickets/seed<k>/` and, until a seed is done, `store/seed<k>/`.
        executor: runs the trainings.
        how: limits, device and the like.
    """
    stop = asyncio.Event()
    together = Together(executor, len(seeds))
    by = together if engine_for(how.means, task.network) == "stacked" else executor

    async def search(seed: int) -> Search:
        try:
            found, error = await _search(method, task, seed, folder, by, how, stop)
            if error is not None and not (how.keep_going and _is_scored(error)):
                raise error
            return found
        except BaseException:
            if not how.keep_going:
                together.stop()
            raise
        finally:
            together.leave()

    tasks = [asyncio.ensure_future(search(seed)) for seed in seeds]
    until = asyncio.ALL_COMPLETED if how.keep_going else asyncio.FIRST_EXCEPTION
    try:
        await asyncio.wait(tasks, return_when=until)
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


def _is_scored(error: LthbenchError) -> bool:
    """Return whether a failed seed scores chance: the method erred, and supports the task."""
    mistake = isinstance(error, (MethodError, TicketError, BudgetExceeded))
    return mistake and not isinstance(error, NotApplicable)


async def _search(
    method: Method,
    task: Task,
    seed: int,
    folder: Path,
    executor: Executor,
    how: Conditions,
    stop: asyncio.Event,
) -> tuple[Search, LthbenchError | None]:
    """Search at one seed; with an error, what was found before it."""
    tickets = folder / "tickets" / f"seed{seed}"
    done = tickets / "search.json"
    if done.is_file():
        search = _stored(done)
        how.note(Event(seed, "stored", search.cost * task.recipe.steps, ran=False))
        for rung in search.rungs[-1:]:  # nothing of this search is left to do
            how.note(Event(seed, "ticket", ran=False, density=rung.density))
        return search, None
    place = folder / "store" / f"seed{seed}"
    began = time.monotonic()

    async def once() -> tuple[SeedState, LthbenchError | None]:
        state = session.prepare(
            task, seed, tickets, place, executor, how.means, how.probe, how.note
        )
        child = await how.start(place / "home")
        try:
            await _converse(child, state, method, folder, how.limits, stop)
        except NodeLost:
            raise
        except LthbenchError as error:
            return state, error
        finally:
            await child.close()
        return state, None

    state, error = await again_when_lost(once)
    search = state.ended(time.monotonic() - began, error)
    if error is None:
        write_whole(done, canonical_json({**vars(search), "rungs": list(map(vars, search.rungs))}))
        if not how.keep:
            store.discard(place)
    return search, error


async def again_when_lost(search: Callable[[], Awaitable[R]], attempts: int = ATTEMPTS) -> R:
    """Run a search, again from its beginning if its node is lost: its store replays it."""
    for _ in range(attempts - 1):
        with suppress(NodeLost):
            return await search()
    return await search()


def _stored(path: Path) -> Search:
    """Read a finished search."""
    try:
        return messages.adapter(Search).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ResourceError(f"{path}: damaged; delete it and run the same command again") from error


async def _converse(
    child: Child,
    state: SeedState,
    method: Method,
    folder: Path,
    limits: Limits,
    stop: asyncio.Event,
) -> None:
    """Send the setup, then answer requests until the method ends."""
    await child.send(*setup(state, method, folder, "search"))
    pace, _ = await child.receive(limits, stop)  # before the method is loaded
    if not isinstance(pace, Pace):
        raise unknown(pace)
    state.pace, began = pace.pace, child.processor
    while True:
        request, tensors = await child.receive(limits, stop)
        state.processor = child.processor - began
        match request:
            case End():
                state.log.end()
                return
            case Failure():
                raise method_error(method, state.seed, request, state.is_fresh)
        reply, content = await answer(request, tensors, method, state)
        if state.probe and not isinstance(reply.answer, Refusal):
            _look(state.probe, request, state, child)
        await child.send(reply, content)


def _look(probe: Probe, request: Request, state: SeedState, child: Child) -> None:
    """Record a request that was done; kill the child if the probe says so."""
    point = request.op, state.log.position, 0
    if isinstance(request, Snapshot):
        point = request.op, request.number, request.step
    probe.seen.append(point)
    if point == probe.kill_at:
        child.kill()
        raise Killed(point)


def setup(
    state: SeedState,
    method: Method,
    folder: Path,
    purpose: Literal["search", "transfer", "rehearsal"],
) -> tuple[Setup, Tensors]:
    """Build the first message to a child: the task, the method, and the examples of one seed."""
    setup = Setup(
        task=state.task.model_copy(update={"calibration": None}),
        seed=state.seed,
        device=state.means.device,
        tokens=state.train.tokens,
        path=method.path,
        source=method.source,
        options=dict(method.options),
        forbidden=tuple(str(path.resolve()) for path in (*data_folders(), folder.parent)),
        purpose=purpose,
    )
    return setup, {"x": state.train.x, "y": state.train.y}


async def answer(
    request: Request, tensors: Tensors, method: Method, state: SeedState
) -> tuple[Reply, Tensors]:
    """Return the answer to one request, or what forbids it: the child raises that in the method."""
    content: Tensors = {}
    try:
        said, content = await answers.answer(request, tensors, state)
    except BudgetExceeded as error:
        said = Refusal("budget", str(error))
    except BadCall as error:
        said = Refusal("call", str(error))
    except LthbenchError as error:
        raise type(error)(f"{method.name} seed {state.seed}: {error}") from error
    return Reply(state.meter.left, said), content


def method_error(method: Method, seed: int, failure: Failure, fresh: bool = False) -> MethodError:
    """Return what went wrong in a child, at the method's own line.

    Args:
        method: the method that ran.
        seed: of the child.
        failure: the error as the child reported it.
        fresh: whether it has neither trained nor yielded anything, so that it cannot know how well
            it does: only then may it leave the task out.
    """
    place = f"{method.path}:{failure.line}" if failure.line else method.path
    text = " ".join(failure.message.split())
    if fresh and failure.left_out:
        return NotApplicable(f"{method.name}: {text}")
    error = MethodError(f"{place}: {failure.type}: {text} (seed {seed})")
    error.add_note(failure.trace)
    return error
