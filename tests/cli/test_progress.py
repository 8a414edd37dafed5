"""The time left, on simulated evaluations: a clock moved by hand, and made-up step times."""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lthbench.cli import progress
from lthbench.cli.progress import Told, seconds_left, shown, steps_left
from lthbench.evaluation import workload
from lthbench.evaluation.search.run import Conditions, find
from lthbench.evaluation.search.session import Event
from lthbench.evaluation.workload import clock, guessed_step, scoring_steps
from lthbench.method.source import load_method
from lthbench.protocol.design import Part, Plan
from lthbench.protocol.task import Task, load_suite, load_task
from lthbench.training.executors.local import Here
from tests.synthetic import synthetic_record

BEGUN = 100.0  # by the clock
STARTUP = 4.0  # seconds until a worker or a child has imported torch
QUICK = load_suite("quick")
SEEDS = QUICK.seeds or 2
PLAN = Plan(controls=QUICK.controls, compressed=QUICK.compressed, transfer=False)
TASKS = [load_task(name) for name in QUICK.tasks]
Trainings = Callable[[Task], list[tuple[int, float | None]]]  # how many, then the ticket's density
Happening = tuple[float, Callable[[Told], None]]


def imp(task: Task) -> list[tuple[int, float | None]]:
    """A training for each fifth that is removed; a ticket at every rung."""
    nats = [-math.log(density) for density in (1.0, *task.ladder.trained)]
    rounds = [round((b - a) / -math.log(0.8)) for a, b in pairwise(nats)]
    return list(zip(rounds, task.ladder.trained, strict=True))


def oneshot(task: Task) -> list[tuple[int, float | None]]:
    """One training, then all tickets."""
    return [(1, None), *((0, density) for density in task.ladder.trained)]


def searches(
    task: Task, seeds: Sequence[int], workers: int, trainings: Trainings, step: float, at: float
) -> Iterator[Happening]:
    """Trainings of all seeds on the first free worker; events are told when they end."""
    free = [at + STARTUP] * workers
    calls: dict[int, list[Event]] = {}
    for seed in seeds:
        calls[seed] = []
        for number, density in trainings(task):
            calls[seed] += [Event(seed, "train", task.recipe.steps)] * number
            calls[seed] += [Event(seed, "ticket", density=density)] if density else []
    ready = [(at + STARTUP, seed) for seed in seeds]
    heapq.heapify(ready)
    while ready:
        now, seed = heapq.heappop(ready)
        event = calls[seed].pop(0)
        if event.steps:
            now = max(now, heapq.heappop(free)) + event.steps * step
            heapq.heappush(free, now)
        yield now, lambda to, event=event: to.search(task, event)  # type: ignore[misc]
        if calls[seed]:
            heapq.heappush(ready, (now, seed))


def scorings(task: Task, workers: int, step: float, at: float) -> Iterator[Happening]:
    """Every run of a record's cells, on the first free worker."""
    free, whole = [at] * workers, task.recipe.steps
    for _ in range(round(scoring_steps(task, SEEDS, QUICK.controls, False) / whole)):
        now = heapq.heappop(free) + whole * step
        heapq.heappush(free, now)
        yield now, lambda to: to.scoring(task, "erk", whole, True)


def simulated(
    trainings: Trainings, steps: Mapping[str, float], workers: int = 2
) -> list[Happening]:
    """All that is told of an evaluation of suite quick, by time."""
    seeds = tuple(range(1000, 1000 + SEEDS))
    parts = [Part(task, seeds, PLAN) for task in TASKS]
    events: list[Happening] = [(BEGUN, lambda to: to.plan(parts, workers))]
    for task in TASKS:
        at, step = events[-1][0], steps[task.name]
        events.append((at, lambda to, task=task: to.begin(task)))  # type: ignore[misc]
        found = sorted(searches(task, seeds, workers, trainings, step, at), key=lambda e: e[0])
        at = found[-1][0]
        known = scoring_steps(task, SEEDS, QUICK.controls, False)
        events += [
            *found,
            (at, lambda to, task=task: to.found(task)),  # type: ignore[misc]
            (at, lambda to, task=task, known=known: to.scoring(task, "planned", known, False)),  # type: ignore[misc]
            *sorted(scorings(task, workers, step, at), key=lambda e: e[0]),
        ]
    return events


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = BEGUN

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(progress, "time", moved)
    return moved


def play(events: Sequence[Happening], told: Told, time: Clock) -> list[tuple[float, float]]:
    """When something was told, and the seconds that were then thought to be left."""
    seen = []
    for at, tell in events:
        time.now = at
        tell(told)
        seen.append((at, seconds_left(told.stages, at, told.workers)))
    return seen


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("factors", [(1, 1), (0.5, 0.8), (2, 1.25), (3, 1), (0.3, 1)])
@pytest.mark.parametrize("trainings", [imp, oneshot])
def test_time_left_at_half_way(
    trainings: Trainings, factors: tuple[float, float], workers: int, time: Clock
) -> None:
    """Within 30 %, whatever the first task's steps take; the second's are near their guess."""
    steps = {task.name: guessed_step(task) * f for task, f in zip(TASKS, factors, strict=True)}
    events = simulated(trainings, steps, workers)
    end = events[-1][0]
    seen = play(events, Told(None), time)
    at, left = [told for told in seen if told[0] <= (BEGUN + end) / 2][-1]
    assert left == pytest.approx(end - at, rel=0.3)


@pytest.mark.parametrize("trainings", [imp, oneshot])
def test_nothing_is_left_at_the_end(trainings: Trainings, time: Clock) -> None:
    events = simulated(trainings, {task.name: 0.002 for task in TASKS})
    seen = play(events, Told(None), time)
    assert seen[0][1] > 0
    assert seen[-1][1] == 0


def test_what_is_stored_takes_no_time(time: Clock) -> None:
    """A resumed evaluation finds half of its trainings done: its rate is that of the rest."""
    told = Told(None)
    (task,) = TASKS[:1]
    told.plan([Part(task, (1000,), PLAN)], 1)
    told.begin(task)
    whole = task.recipe.steps
    for _ in range(10):
        told.search(task, Event(1000, "train", whole, ran=False))
    one = whole * guessed_step(task)
    ran = math.ceil(workload.STARTING / one)  # long enough to tell starting from training
    time.now = BEGUN + workload.STARTING + ran * one
    for _ in range(ran):
        told.search(task, Event(1000, "train", whole, ran=True))
    told.search(task, Event(1000, "train", whole, ran=False))
    told.search(task, Event(1000, "ticket", density=task.ladder.trained[-1]))
    told.found(task)
    left = scoring_steps(task, 1, QUICK.controls, False) / whole
    assert seconds_left(told.stages, time.now, 1) == pytest.approx(one * left)


def test_a_search_that_is_stored_whole_is_not_foreseen_again(tmp_path: Path, time: Clock) -> None:
    """Its cost and its last ticket are told, so that scoring alone is left."""
    (task,), seed = TASKS[:1], 1000
    folder = tmp_path / "tickets" / f"seed{seed}"
    folder.mkdir(parents=True)
    of = {"kept": 1, "trained": True, "origin": "init", "start": 0, "masks": "", "weights": None}
    rungs = [{**of, "density": density, "cost": 1.0} for density in task.ladder.trained]
    table = {"seed": seed, "status": "ok", "reason": "", "cost": 6.0, "seconds": 1.0}
    (folder / "search.json").write_text(json.dumps({**table, "rungs": rungs}))
    told = Told(None)
    told.plan([Part(task, (seed,), PLAN)], 1)
    told.begin(task)
    note = partial(told.search, task)
    method = load_method("imp")
    run = find(method, task, (seed,), tmp_path, Here(), Conditions(note=note))
    (search,) = asyncio.run(run)
    assert search.cost == 6.0
    (stage,) = told.stages
    assert steps_left(stage, workload.IMP_COST) == scoring_steps(task, 1, QUICK.controls, False)
    assert (stage.trainings, stage.steps) == (0, 0)


def test_scoring_is_counted_by_its_runs() -> None:
    """Dense, four tickets, five controls on one rung, two or four; short schedules of three."""
    whole = TASKS[0].recipe.steps
    assert scoring_steps(TASKS[0], 2, "one rung", False) == 2 * 10 * whole
    assert scoring_steps(TASKS[0], 2, "alternate", False) == 2 * 15 * whole
    assert scoring_steps(TASKS[0], 2, "all", True) == 2 * 25 * whole  # it has no short schedules
    lenet = load_task("lenet300-mnist")
    assert scoring_steps(lenet, 5, "all", True) == 5 * (37 + 3 * 7 / 8) * 12_000
    # Every second rung: three of six, and no reinit in short schedules on another rung.
    rung = lenet.score.compressed_density in lenet.ladder.trained[1::2]
    short = (2 + rung) * 7 / 8
    assert scoring_steps(lenet, 5, "alternate", True) == 5 * (7 + 5 * 3 + short) * 12_000


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("name", "elsewhere"), [("mlp-digits", 1), ("mlp-mnist1d", 0)])
def test_other_depths_are_foreseen_until_they_are_known(
    name: str, elsewhere: int, direct: bool, time: Clock
) -> None:
    """A search where tickets come from, if that is another depth than the task's own; with direct
    runs one at each target; then their runs."""
    task, seeds = load_task(name), (0, 1)
    told, cost, moved = Told(None), 5.0, task.transfer
    assert moved
    told.plan([Part(task, seeds, replace(PLAN, transfer=True, direct=direct))], 1)
    told.found(task)
    (stage,) = told.stages
    scoring, whole = scoring_steps(task, 2, QUICK.controls, False), task.recipe.steps
    runs = 2 * 2 * (2 * (2 + direct)) + 2 * 2 * 3  # on two rungs and on one, at two depths
    searched = 2 * cost * -math.log(moved.densities[-1]) * (elsewhere + 2 * direct)
    left = scoring + (runs + searched) * whole
    assert steps_left(stage, cost) == pytest.approx(left)
    if searched:
        told.search(task, Event(0, "train", whole, ran=True))
        told.search(task, Event(0, "ticket", density=moved.densities[0]))
        assert steps_left(stage, cost) == pytest.approx(left - whole)
    told.carry(task, "planned", 3 * whole, False)
    assert steps_left(stage, cost) == 3 * whole
    told.carry(task, "carried", whole, True)
    assert steps_left(stage, cost) == 2 * whole


def test_a_guess_follows_the_arithmetic() -> None:
    """Larger networks and batches take longer; the guesses are milliseconds."""
    guesses = [guessed_step(load_task(name)) for name in ("mlp-digits", "lenet300-mnist")]
    assert 5e-4 < guesses[0] < guesses[1] < 2e-2
    assert guessed_step(load_task("transformer-modadd59")) > guesses[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (3599.7, "1:00:00"),
     (11_100, "3:05:00"), (360_000, "100:00:00")],
)  # fmt: skip
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# --- what is shown ---------------------------------------------------------------------------


def test_plain_lines_where_there_is_no_terminal(
    time: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each beginning, each ticket and each end, and one every ten seconds."""
    events = simulated(imp, {task.name: 0.004 for task in TASKS})
    with shown() as told:
        assert told.console is None
        play(events, told, time)
        told.done(synthetic_record(task={"name": TASKS[1].name}, seeds=1))
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert lines[0].startswith("mlp-mnist1d: searching, 0 model-steps/s, ")
    tickets = [line for line in lines if "ticket at" in line]
    assert len(tickets) == SEEDS * sum(len(task.ladder.trained) for task in TASKS)
    assert tickets[0].startswith("mlp-mnist1d: seed 1000 ticket at 51.2%, ")
    assert all(line.endswith(" left") and "\r" not in line for line in lines)
    assert lines[-1].startswith("mlp-modadd59: scored, ")
    assert lines[-1].endswith(" 0:00 left")
    assert len(lines) <= len(tickets) + 4 + (events[-1][0] - BEGUN) / progress.LINE_SECONDS


def test_a_bar_where_there_is_one(time: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills up to what was foreseen, and says how fast, and how long still."""
    updates: list[dict[str, Any]] = []
    bar = SimpleNamespace(
        add_task=lambda *args, **kwargs: 0, update=lambda task, **given: updates.append(given)
    )
    events = simulated(oneshot, {task.name: 0.004 for task in TASKS})
    play(events, Told(bar), time)
    last = updates[-1]
    assert last["completed"] == last["total"] > 0
    assert all(0 <= one["completed"] <= one["total"] for one in updates)
    assert last["description"].startswith("mlp-modadd59  scoring erk  ")
    assert last["description"].endswith(" steps/s  0:00 left")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with shown() as told:
        assert told.console is not None
