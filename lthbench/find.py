"""Runs a method: one child process a seed, its costly calls metered, stored and replayed.

One loop over the pipes, no threads. A killed run starts again from the first line of the method:
calls whose results are stored return at once and are charged again, and must come in the same
order. Each ticket is checked, its origin found, and written whole as it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from lthbench import data as data_module
from lthbench import engine, masks, networks, store, ticket, wire
from lthbench.engine import Evaluation, Examples, Job
from lthbench.engine.order import batch_size
from lthbench.errors import BudgetExceeded, LthbenchError, MethodError
from lthbench.executors import Executor, environment
from lthbench.meter import Meter
from lthbench.method import Method
from lthbench.paths import cache, canonical_json, data_folder, sweep, write_whole
from lthbench.states import State, digest
from lthbench.store import Log, Store
from lthbench.task import Task
from lthbench.ticket import Ticket

Note = Callable[[int, str, float, bool], None]
OUTPUT_KEPT = 64 * 1024  # bytes of what a child prints, from its beginning and from its end
OUTPUT_LIMIT = 64 * 2**20
SNAPSHOT_SECONDS = 60.0
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Limits:
    """What a child may take: its own seconds (None: any) and bytes of memory."""

    seconds: float | None = None
    memory: int = 8 * 2**30


Point = tuple[str, int, int]  # a request: its op, the loop or the place in the log, the step


@dataclass
class Probe:
    """For `check`: where to take snapshots inside loops, and after which request to kill.

    Attributes:
        snapshot_at: steps of a loop, from its length.
        kill_at: the child is killed when this request is done and stored, before its answer.
        seen: every request that was done, in order.
    """

    snapshot_at: Callable[[int], tuple[int, ...]] = lambda steps: ()
    kill_at: Point | None = None
    seen: list[Point] = field(default_factory=list)


class Killed(Exception):
    """The probe killed the child; another call of `find` goes on."""


@dataclass(frozen=True)
class Search:
    """One seed's search: what a ticket file each holds, and what it cost."""

    seed: int
    status: str  # "ok", "budget" or "failed"
    reason: str
    cost: float
    seconds: float
    rungs: tuple[dict[str, Any], ...]


@dataclass
class _Seed:
    """Everything the coordinator holds for one seed while its child runs."""

    task: Task
    seed: int
    folder: Path  # of tickets
    store: Store
    log: Log
    meter: Meter
    train: Examples
    held_out: Examples
    theta: State
    shapes: dict[str, tuple[int, ...]]
    thetas: dict[int, State] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    paid: set[int] = field(default_factory=set)

    def progress(self) -> dict[str, Any]:
        """What a search that goes on inside a loop must find again, as JSON."""
        return {
            "position": self.log.position,
            "spent": self.meter.count,
            "trained": self.trained,
            "rungs": self.rungs,
            "paid": sorted(self.paid),
        }

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take up what `progress` gave: calls made in the loop's body are not made again."""
        self.log.position = progress["position"]
        self.meter.count = progress["spent"]
        self.trained = list(progress["trained"])
        self.rungs = list(progress["rungs"])
        self.paid = set(progress["paid"])
        for k in self.paid:
            stored = self.store.get(training(self.task, self.seed, self.theta, None, k).key)
            if stored and k <= self.task.search.rewind_limit:
                self.thetas[k] = State(stored[1], k)


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
    probe: Probe | None = None,
    note: Note = lambda seed, what, steps, ran: None,
) -> tuple[Search, ...]:
    """Search at every seed; seeds that are done already are read, not run.

    Args:
        folder: gets `tickets/seed<k>/` and, until a seed is done, `store/seed<k>/`.
        note: is told (seed, what happened, model-steps, whether they ran now) for progress.
    """
    runs = [
        _search(method, task, seed, folder, executor, limits, keep, probe, note) for seed in seeds
    ]
    tasks = [asyncio.ensure_future(run) for run in runs]
    if keep_going:
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        return tuple(_failed(s, e) if isinstance(e, BaseException) else e
                     for s, e in zip(seeds, ended, strict=True))  # fmt: skip
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(seed: int, error: BaseException) -> Search:
    if not isinstance(error, LthbenchError):
        raise error
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
    probe: Probe | None,
    note: Note,
) -> Search:
    tickets = folder / "tickets" / f"seed{seed}"
    done = tickets / "search.json"
    if done.is_file():
        table = json.loads(done.read_bytes())
        return Search(**{**table, "rungs": tuple(table["rungs"])})
    place = folder / "store" / f"seed{seed}"
    state = _prepare(task, seed, tickets, place)
    began = time.monotonic()
    child = await _Child.start(place / "home")
    status, reason = "ok", ""
    try:
        await _converse(child, state, method, executor, limits, probe, note)
    except MethodError as error:
        error.search = _finished(state, "failed", str(error), began)  # type: ignore[attr-defined]
        raise
    finally:
        await child.close()
    search = _finished(state, status, reason, began)
    table = {name: getattr(search, name) for name in Search.__dataclass_fields__}
    write_whole(done, canonical_json(table))
    if not keep:
        store.discard(place)
    return search


def _finished(state: _Seed, status: str, reason: str, began: float) -> Search:
    seconds = time.monotonic() - began
    rungs = tuple(state.rungs)
    return Search(state.seed, status, reason[:300], state.meter.spent, seconds, rungs)


def _prepare(task: Task, seed: int, tickets: Path, place: Path) -> _Seed:
    for folder in (tickets, place):
        sweep(folder)
    depth = task.network.depth
    search = data_module.search(task, seed)
    train, held_out = examples(task, search.train), examples(task, search.held_out)
    batch = batch_size(task.recipe, len(train.y))
    return _Seed(
        task,
        seed,
        tickets,
        Store(place),
        Log(place / "calls.json"),
        Meter(task.recipe.steps, batch, task.search.budget),
        train,
        held_out,
        networks.initial(task.network, depth, seed),
        networks.shapes(task.network, depth),
    )


def examples(task: Task, arrays: data_module.Examples) -> Examples:
    """Arrays as an engine takes them, with the task's scale."""
    return Examples(
        torch.from_numpy(arrays.x),
        torch.from_numpy(arrays.y),
        task.data.scale,
        task.data.shift,
        task.data.source == "modular-addition",
    )


async def _converse(
    child: _Child,
    state: _Seed,
    method: Method,
    executor: Executor,
    limits: Limits,
    probe: Probe | None,
    note: Note,
) -> None:
    """Send the setup, then answer requests until the method ends."""
    setup = {
        "task": state.task.model_dump(mode="json", exclude={"calibration"}),
        "depth": state.task.network.depth,
        "seed": state.seed,
        "tokens": state.train.tokens,
        "path": method.path,
        "source": method.source,
        "options": dict(method.options),
        "forbidden": [str(folder) for folder in (cache(), data_folder()) if folder],
    }
    await child.send(setup, {"x": state.train.x, "y": state.train.y})
    while True:
        header, tensors = await child.receive(limits)
        op = header.get("op")
        if op == "end":
            state.log.end()
            return
        if op == "error":
            raise _method_error(method, state.seed, header)
        try:
            reply, answer = await _answer(op, header, tensors, state, executor, probe, note)
        except BudgetExceeded as error:
            reply, answer = {"error": "budget", "message": str(error)}, {}
        except LthbenchError as error:
            raise type(error)(f"{method.name} seed {state.seed}: {error}") from error
        reply["left"] = state.meter.left
        if probe and "error" not in reply:
            inside = op == "snapshot"
            number = header["number"] if inside else state.log.position
            point = str(op), number, header["step"] if inside else 0
            probe.seen.append(point)
            if point == probe.kill_at:
                child.process.kill()
                raise Killed(point)
        await child.send(reply, answer)


async def _answer(
    op: Any,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    state: _Seed,
    executor: Executor,
    probe: Probe | None,
    note: Note,
) -> wire.Message:
    """Meter one request, look it up or have it done, store it, log it."""
    if op == "train":
        start = State(wire.under("start", tensors), header["step"])
        chosen = wire.under("mask", tensors) if header["masked"] else None
        return await _train(state, start, chosen, header["until"], header["order"], executor, note)
    if op == "theta":
        return await _theta(state, header["k"], executor, note)
    if op == "accuracy":
        start = State(wire.under("start", tensors), header["step"])
        chosen = wire.under("mask", tensors) if header["masked"] else None
        return await _accuracy(state, start, chosen, executor)
    if op == "examples":
        state.log.call(store.key(op=op, count=header["count"], name=header["name"]))
        state.meter.charge(header["count"])
        return {}, {}
    if op == "loop":
        return _begin_loop(state, header, probe, note)
    if op == "snapshot":
        held = {name: header[name] for name in ("step", "snapshot", "loops")}
        state.log.save()  # first: the snapshot names a place in it
        state.store.put(f"loop{header['number']}", held | {"search": state.progress()}, tensors)
        note(state.seed, "snapshot", 0, True)
        return {}, {}
    if op == "ticket":
        return await _ticket(state, header, tensors, executor, note)
    raise MethodError(f"the child sent an unknown request {op!r}")


async def _train(
    state: _Seed,
    start: State,
    chosen: Mapping[str, Tensor] | None,
    until: int,
    order: int,
    executor: Executor,
    note: Note,
    paid: bool = False,
) -> wire.Message:
    task = state.task
    _check_training(state, start, chosen, until)
    job = training(task, state.seed, start, chosen, until, order)
    state.log.call(job.key)
    batch = batch_size(task.recipe, len(state.train.y))
    if not paid:
        state.meter.charge((until - start.step) * batch)
    stored = state.store.get(job.key)
    ran = stored is None
    if stored is None:
        async for _, result in executor.results([job], {state.seed: state.train}, None):
            if result.state is None:
                raise MethodError(f"a training to step {until} {result.status}: {result.reason}")
            stored = {"step": result.state.step}, result.state.tensors()
            state.store.put(job.key, *stored)
            state.log.save()
    assert stored is not None
    note(state.seed, "train", until - start.step, ran)
    state.trained.append(job.key)
    return stored


def training(
    task: Task,
    seed: int,
    start: State,
    chosen: Mapping[str, Tensor] | None,
    until: int,
    order: int = 0,
) -> Job:
    """A training of the search: its data order is a stream of the seed, the masks and `order`."""
    masked = masks.digest(chosen) if chosen is not None else "dense"
    key = store.key(
        data_and_network=task.training_digest,
        recipe=task.recipe.canonical(),
        depth=task.network.depth,
        seed=seed,
        start=start.digest,
        masks=masked,
        until=until,
        order=order,
        engine=engine.VERSION,
        device="cpu",
    )
    names = ("data", masked, str(order))
    return Job(
        task.network, task.network.depth, start, chosen, task.recipe, until, seed, names, key
    )


def _check_training(
    state: _Seed, start: State, chosen: Mapping[str, Tensor] | None, until: int
) -> None:
    names = {name: tuple(tensor.shape) for name, tensor in state.theta.items()}
    given = {name: tuple(tensor.shape) for name, tensor in start.items()}
    if given != names:
        wrong = next(n for n in [*names, *given] if names.get(n) != given.get(n))
        raise MethodError(f"train: start needs every tensor of the state; {wrong} does not fit")
    if not 0 <= start.step <= until <= state.task.recipe.steps:
        raise MethodError(
            f"train: from step {start.step} until {until}; "
            f"steps go from 0 to {state.task.recipe.steps}"
        )
    for name, mask in (chosen or {}).items():
        if mask.dtype != torch.bool or tuple(mask.shape) != state.shapes.get(name):
            raise MethodError(
                f"train: mask of {name} is no bool tensor of a prunable tensor's shape"
            )


async def _theta(
    state: _Seed, k: int, executor: Executor, note: Note
) -> wire.Message:
    if not 0 < k <= state.task.recipe.steps:
        raise MethodError(f"theta({k}): steps go from 0 to {state.task.recipe.steps}")
    first = k not in state.paid
    reply = await _train(state, state.theta, None, k, 0, executor, note, paid=not first)
    state.paid.add(k)
    if k <= state.task.search.rewind_limit:
        state.thetas[k] = State(reply[1], k)
    return reply


async def _accuracy(
    state: _Seed, start: State, chosen: Mapping[str, Tensor] | None, executor: Executor
) -> wire.Message:
    _check_training(state, start, chosen, start.step)
    job = training(state.task, state.seed, start, chosen, start.step)
    key = store.key(accuracy=job.key)
    state.log.call(key)
    state.meter.charge(len(state.held_out.y), 1 / 3)
    stored = state.store.get(key)
    if stored is None:
        evaluation = Evaluation({state.seed: {"held_out": state.held_out}}, ())
        async for _, result in executor.results([job], {state.seed: state.train}, evaluation):
            correct = int(result.correct["held_out"][-1])
            stored = {"accuracy": correct / len(state.held_out.y)}, {}
            state.store.put(key, *stored)
            state.log.save()
    assert stored is not None
    return stored


def _begin_loop(
    state: _Seed,
    header: dict[str, Any],
    probe: Probe | None,
    note: Note,
) -> wire.Message:
    number, steps, cost = header["number"], header["steps"], header["cost"]
    if steps < 0 or not cost >= 0:
        raise MethodError(f"loop: steps {steps} and cost {cost} must not be negative")
    state.log.call(store.key(op="loop", number=number, steps=steps, cost=cost))
    state.meter.charge(steps * batch_size(state.task.recipe, len(state.train.y)), cost)
    note(state.seed, "loop", steps, False)  # the child's own work, whose pace is not seen here
    stored = state.store.get(f"loop{number}")
    at = probe.snapshot_at(steps) if probe else ()
    reply = {"step": 0, "every": SNAPSHOT_SECONDS, "at": list(at)}
    if stored is None:
        return reply, {}
    held, tensors = stored
    state.go_on(held.pop("search"))
    return reply | held, tensors


async def _ticket(
    state: _Seed,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    executor: Executor,
    note: Note,
) -> wire.Message:
    """Check a ticket, find its origin and its rung, write its file."""
    chosen = dict(header["masks"]) | wire.under("mask", tensors)
    weights = State(wire.under("weight", tensors), header["step"]) if "weighted" in header else None
    proposed = Ticket(chosen, header["start"], weights, bool(header["trained"]))
    names = {name: tuple(tensor.shape) for name, tensor in state.theta.items()}
    ticket.check(proposed, state.shapes, names, state.task.search.rewind_limit)
    ladder = state.task.ladder.trained if proposed.trained else state.task.ladder.untrained
    total = masks.total(chosen)
    done = [rung["density"] for rung in state.rungs]
    density = ticket.rung_of(proposed, ladder, total, done)
    if proposed.start and proposed.start not in state.thetas:
        await _theta(state, proposed.start, executor, note)  # charged like any other call of it
    trained = [State(t, h["step"]) for h, t in filter(None, map(state.store.get, state.trained))]
    origin, k = ticket.origin(proposed, {0: state.theta} | state.thetas, trained)
    entry = {
        "density": density,
        "kept": masks.kept(chosen),
        "trained": proposed.trained,
        "origin": origin,
        "start": k,
        "masks": masks.digest(chosen),
        "weights": digest(weights, k) if weights is not None else None,
        "cost": state.meter.spent,
    }
    name = rung_name(density)
    state.log.call(store.key(op="ticket", **{n: v for n, v in entry.items() if n != "cost"}))
    bits, shapes = masks.pack(chosen)
    content = wire.prefixed("mask", bits)
    if origin in ("signs", "final", "free") and weights is not None:
        content |= wire.prefixed("weight", weights)
    if origin == "rewind":
        content |= wire.prefixed("weight", state.thetas[k])
    write_whole(state.folder / name, wire.dumps({**entry, "shapes": shapes}, content))
    state.log.save()
    state.rungs.append(entry)
    note(state.seed, f"ticket {density!r}", 0, True)
    return {}, {}


def rung_name(density: float) -> str:
    """The file name of a rung: its density in millionths, so that names sort like densities."""
    return f"{round(density * 1e6):07d}.safetensors"


def read_ticket(
    folder: Path, density: float
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Header, masks and stored weights of a ticket file."""
    header, tensors = wire.loads((folder / rung_name(density)).read_bytes())
    chosen = masks.unpack(wire.under("mask", tensors), header["shapes"])
    return header, chosen, wire.under("weight", tensors)


def _method_error(method: Method, seed: int, header: Mapping[str, Any]) -> MethodError:
    line = header.get("line")
    place = f"{method.path}:{line}" if line else method.path
    text = " ".join(str(header.get("message", "")).split())
    error = MethodError(f"{place}: {header.get('type')}: {text} (seed {seed})")
    error.add_note(str(header.get("trace", "")))
    return error


class _Child:
    """One child process: its messages, what it prints, its time and its memory."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.first = b""
        self.last: deque[bytes] = deque(maxlen=16)
        self.printed = 0
        self.own_seconds = 0.0
        self._capture = asyncio.ensure_future(self._read_output())

    @staticmethod
    async def start(home: Path) -> _Child:
        store.discard(home)  # what a killed run left there would be news to the next
        home.mkdir(parents=True, exist_ok=True)
        own = str(home.resolve())
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from the folder that a method writes to
            "-m",
            "lthbench.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=own,
            env=environment() | {"HOME": own, "TMPDIR": own, "PYTHONDONTWRITEBYTECODE": "1"},
            limit=2**24,
            start_new_session=True,
        )
        return _Child(process)

    async def send(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        assert self.process.stdin
        try:
            await wire.asend(self.process.stdin, header, tensors)
        except ConnectionError as error:
            raise await self._gone() from error

    async def receive(self, limits: Limits) -> wire.Message:
        """The next request; MethodError if the child ends, or takes too much."""
        assert self.process.stdout
        reading = asyncio.ensure_future(wire.areceive(self.process.stdout))
        began = time.monotonic()
        try:
            while not (await asyncio.wait([reading], timeout=POLL_SECONDS))[0]:
                self._check(limits, time.monotonic() - began)
            message = reading.result()
        except wire.WireError as error:
            raise MethodError(f"the child sent bytes that are no message: {error}") from error
        finally:
            reading.cancel()
        self.own_seconds += time.monotonic() - began
        if message is None:
            raise await self._gone()
        return message

    def _check(self, limits: Limits, waiting: float) -> None:
        own = self.own_seconds + waiting
        if limits.seconds is not None and own > limits.seconds:
            raise MethodError(
                f"took more than {limits.seconds:g} s of its own time; raise --timeout if it must"
            )
        with contextlib.suppress(psutil.Error):
            used = psutil.Process(self.process.pid).memory_info().rss
            if used > limits.memory:
                raise MethodError(
                    f"uses {used / 2**30:.1f} GB of memory; at most {limits.memory / 2**30:.1f} GB "
                    "are allowed (--memory)"
                )
        if self.printed > OUTPUT_LIMIT:
            raise MethodError(f"printed more than {OUTPUT_LIMIT >> 20} MB; print less")

    async def _read_output(self) -> None:
        assert self.process.stderr
        while chunk := await self.process.stderr.read(4096):
            self.printed += len(chunk)
            if len(self.first) < OUTPUT_KEPT:
                self.first += chunk
            else:
                self.last.append(chunk)

    async def _gone(self) -> MethodError:
        code = await self.process.wait()
        await self._capture
        said = (self.first + b"".join(self.last)).decode(errors="replace").strip()
        last = said.splitlines()[-1][:100] if said else "it printed nothing"
        error = MethodError(f"the method's process ended (exit status {code}): {last}")
        error.add_note(said)
        return error

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self._capture.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._capture
