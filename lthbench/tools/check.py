"""Checks that a method keeps the rules, on a synthetic task, in seconds: for `lthbench check`.

The method runs in the real child process: uninterrupted, a second time, and killed by signal inside
its long loops and after its costly calls. Tickets must agree in every bit.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lthbench.errors import CheckFailed, MethodError, TicketError
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.search.run import Conditions, Killed, find
from lthbench.evaluation.search.session import Point, Probe, Search
from lthbench.method import publishable
from lthbench.method.source import Method
from lthbench.protocol.task import Task
from lthbench.training.executors.local import Here
from lthbench.training.job import single_threaded

T = TypeVar("T")

SEED = 1000
SECONDS = 120.0  # of the method's own time, for each run
TASK = Task.model_validate(
    {
        "name": "synthetic",
        "version": 1,
        "title": "A small MLP on a + b mod 11; long enough for snapshots, too small to learn",
        "data": {
            "source": "modular-addition",
            "classes": 11,
            "modulus": 11,
            "train_fraction": 0.6,
            "held_out_fraction": 0.5,
        },
        "network": {
            "family": "pair-mlp",
            "depth": 1,
            "inputs": 11,
            "embedding": 6,
            "width": 16,
            "classes": 11,
            "prunable": ["*.weight"],
            "init": [
                {"tensors": ["*.weight"], "distribution": "normal", "value": 0.2},
                {"tensors": ["*.bias"], "distribution": "constant", "value": 0.0},
            ],
        },
        "recipe": {
            "optimiser": "adam",
            "rate": 3e-3,
            "schedule": "linear",
            "steps": 240,
            "batch": 16,
        },
        "score": {"kind": "accuracy", "every": 80},
        "ladder": {
            "trained": [0.64, 0.4096, 0.262144],
            "untrained": [0.8, 0.64, 0.512, 0.32768, 0.2097152, 0.1073741824],
        },
        "search": {"budget": 30.0, "rewind_limit": 20},
        "transfer": {"source": 2, "targets": [1, 3], "densities": [0.64, 0.4096]},
    }
)

ENTRY = "its source and its METHOD are such as the leaderboard takes"
RUNS = "runs to its end, in its own process"
TICKETS = "yields every rung once, exact counts, sparsest last"
BUDGET = "stays within the budget"
ORIGIN = "its weights have a known origin"
AGAIN = "gives the same tickets a second time"
LOOPS = "gives the same tickets when killed inside long loops"
CALLS = "gives the same tickets when killed after costly calls"
RULES = (ENTRY, RUNS, BUDGET, TICKETS, ORIGIN, AGAIN, LOOPS, CALLS)

PASS_STATE = (
    "pass to problem.loop everything that its body changes (modules, optimisers, tensors, "
    "generators, or an object with state_dict and load_state_dict)"
)
BE_PURE = (
    "let nothing depend on the clock, on files, on os.urandom or on the order of a set; "
    "draw from problem.generator(name)"
)
COMPARED = {
    "masks": "another mask",
    "weights": "other weights",
    "origin": "another origin",
    "start": "another start",
    "cost": "another cost",
    "trained": "another kind of ticket",
}


@dataclass(frozen=True)
class Row:
    """One rule: whether it holds (None: not tried), and what was found or what to do."""

    rule: str
    passed: bool | None
    note: str


@dataclass(frozen=True)
class Report:
    """The findings of a check: a row for each rule, and the work behind it."""

    rows: tuple[Row, ...]
    starts: int  # child processes
    kills: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every rule was tried and holds."""
        return all(row.passed for row in self.rows)

    def text(self) -> str:
        """Format a line for each rule, with what to do if it is broken, and a line of totals."""
        signs = {True: "ok  ", False: "NO  ", None: "-   "}
        lines = [
            f"{signs[row.passed]}{row.rule}" + f": {row.note}" * bool(row.note) for row in self.rows
        ]
        held = sum(row.passed is True for row in self.rows)
        work = f"{self.starts} processes, {self.kills} killed, {self.seconds:.0f} s"
        return "\n".join([*lines, f"{held} of {len(self.rows)} rules hold ({work})"])

    def demand(self) -> None:
        """Raise CheckFailed, naming the first broken rule, if any is."""
        for row in self.rows:
            if row.passed is False:
                raise CheckFailed(f"a rule is broken: {row.rule}")


@dataclass
class _Run:
    """One search from start to end, however often it was killed on the way."""

    folder: Path
    probe: Probe
    starts: int = 0
    killed: list[Point] = field(default_factory=list)
    search: Search | None = None
    error: str = ""
    kind: str = RUNS  # the rule that the error breaks


def check(method: Method, *, limits: Limits | None = None, task: Task = TASK) -> Report:
    """Try every rule on a method; a broken rule is a row, not an error.

    Raises:
        LthbenchError: for what is not the method's fault, such as a full disk.
    """
    single_threaded()
    began = time.monotonic()
    limits = limits or Limits(seconds=SECONDS)
    entry = _entry(method)
    with tempfile.TemporaryDirectory(prefix="lthbench-check-") as folder:
        rows, runs = asyncio.run(_check(method, task, Path(folder), limits))
    rows = [entry, *rows]
    untried = [Row(rule, None, "not tried") for rule in RULES[len(rows) :]]
    starts, kills = sum(run.starts for run in runs), sum(len(run.killed) for run in runs)
    return Report((*rows, *untried), starts, kills, time.monotonic() - began)


def _entry(method: Method) -> Row:
    """Check whether it can be submitted, judging by its source; its behaviour is not examined."""
    try:
        publishable.check(method)
    except MethodError as error:
        return Row(ENTRY, False, str(error))
    return Row(ENTRY, True, "; ".join(publishable.remarks(publishable.entry_of(method))))


async def _check(
    method: Method, task: Task, folder: Path, limits: Limits
) -> tuple[list[Row], list[_Run]]:
    straight = _Run(folder / "straight", Probe(_thirds))
    await _go(straight, (), method, task, limits)
    rows = _first_rows(straight, task)
    if not all(row.passed for row in rows):
        return rows, [straight]
    seen = straight.probe.seen
    chains = {AGAIN: (), LOOPS: _loop_points(seen), CALLS: _call_points(seen)}
    runs = {rule: _Run(folder / str(i), Probe(_thirds)) for i, rule in enumerate(chains)}
    runs[AGAIN].probe = Probe()  # snapshots change nothing
    tried = [rule for rule, chain in chains.items() if chain or rule == AGAIN]
    await asyncio.gather(*(_go(runs[r], chains[r], method, task, limits) for r in tried))
    for rule, advice in ((AGAIN, BE_PURE), (LOOPS, PASS_STATE), (CALLS, BE_PURE)):
        rows.append(_compared(rule, straight, runs[rule], advice))
        if not rows[-1].passed:
            break  # whatever broke this rule also breaks the next ones
    return rows, [straight, *runs.values()]


async def _go(
    run: _Run, points: Sequence[Point], method: Method, task: Task, limits: Limits
) -> None:
    """Search to the end, killed at each of the points in turn and restarted."""
    for point in (*points, None):
        run.probe.kill_at = point
        run.starts += 1
        try:
            how = Conditions(limits, probe=run.probe)
            found = await find(method, task, (SEED,), run.folder, Here(), how)
        except Killed as killed:
            run.killed.append(killed.args[0])
            continue
        except (MethodError, TicketError) as error:
            run.error, run.kind = str(error), _broken(error)
            return
        run.search = found[0]
        if point is not None:
            run.search, run.error = None, "it makes other calls than the first time"
        return


def _broken(error: Exception) -> str:
    """Return the rule that an error of an uninterrupted run is about."""
    if "BudgetExceeded: " in str(error):
        return BUDGET
    return TICKETS if isinstance(error, TicketError) or "TicketError: " in str(error) else RUNS


def _first_rows(straight: _Run, task: Task) -> list[Row]:
    """Return what one undisturbed run shows."""
    rows: list[Row] = []
    for rule in (RUNS, BUDGET, TICKETS, ORIGIN):
        if straight.search is None and rule == straight.kind:
            return [*rows, Row(rule, False, straight.error)]
        note = "" if straight.search is None else _found(rule, straight.search, task)
        if rule == TICKETS and straight.search and (missing := _missing(straight.search, task)):
            return [*rows, Row(rule, False, missing)]
        rows.append(Row(rule, True, note))
    return rows


def _found(rule: str, search: Search, task: Task) -> str:
    """Describe what a run that broke nothing did."""
    if rule == TICKETS:
        return ", ".join(f"{rung.density:.1%}" for rung in search.rungs)
    if rule == BUDGET:
        return f"{search.cost:.3g} of {task.search.budget:g} dense trainings"
    if rule == ORIGIN:
        return ", ".join(sorted({rung.origin for rung in search.rungs}))
    return ""


def _missing(search: Search, task: Task) -> str:
    """Describe which rungs are missing, and what that means; "" if none is."""
    trained = all(rung.trained for rung in search.rungs)
    name = "problem.densities" if trained else "problem.untrained_densities"
    ladder = task.ladder.trained if trained else task.ladder.untrained
    came = {rung.density for rung in search.rungs}
    absent = [density for density in ladder if density not in came]
    if not absent:
        return ""
    listed = ", ".join(f"{density:.4g}" for density in absent)
    return f"no ticket at density {listed}: yield one for each of {name}, or it scores chance"


def _thirds(steps: int) -> tuple[int, ...]:
    return steps // 3, 2 * steps // 3


def _loop_points(seen: Sequence[Point]) -> tuple[Point, ...]:
    """Return a snapshot in the first, middle and last long loop, and the end of the last."""
    snapshots: dict[int, list[Point]] = {}
    for point in seen:
        if point[0] == "snapshot":
            snapshots.setdefault(point[1], []).append(point)
    inside = [points[i % len(points[:2])] for i, points in enumerate(_some([*snapshots.values()]))]
    ends = [points[-1] for points in snapshots.values()][-1:]
    return tuple(point for point in seen if point in {*inside, *ends})


def _call_points(seen: Sequence[Point]) -> tuple[Point, ...]:
    """Return the first, the middle and the last costly call; if none, the middle ticket."""
    calls = [point for point in seen if point[0] in ("train", "theta", "accuracy", "examples")]
    tickets = [point for point in seen if point[0] == "ticket"]
    return tuple(_some(calls) or tickets[len(tickets) // 2 :][:1])


def _some(items: Sequence[T]) -> list[T]:
    """Return the first, the middle and the last."""
    return list(items) if len(items) <= 3 else [items[0], items[len(items) // 2], items[-1]]


def _compared(rule: str, straight: _Run, other: _Run, advice: str) -> Row:
    """Return the row of a rule that two runs must agree for."""
    if not other.starts:
        return Row(rule, True, "there are none")
    killed = f"killed {', '.join(map(_named, other.killed))}" if other.killed else ""
    if difference := other.error or _difference(straight, other):
        return Row(rule, False, "; ".join(filter(None, (difference, killed, advice))))
    return Row(rule, True, killed)


def _difference(straight: _Run, other: _Run) -> str:
    """Describe the first difference between two runs' tickets, rung by rung; "" if none."""
    assert straight.search and other.search
    rungs, others = straight.search.rungs, other.search.rungs
    if len(rungs) != len(others):
        return f"{len(others)} tickets in place of {len(rungs)}"
    for rung, another in zip(rungs, others, strict=True):
        for key, words in COMPARED.items():
            if getattr(rung, key) != getattr(another, key):
                return f"{words} at density {rung.density:.4g}"
    paths = sorted(straight.folder.glob("tickets/*/*.safetensors"))
    for path in paths:
        if path.read_bytes() != (other.folder / path.relative_to(straight.folder)).read_bytes():
            return f"other bytes in {path.name}"
    return ""


def _named(point: Point) -> str:
    op, number, step = point
    return f"at step {step} of loop {number}" if op == "snapshot" else f"after call {number} ({op})"
