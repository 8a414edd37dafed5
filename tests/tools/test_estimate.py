"""tools.estimate and its rehearsal: counts of searches that really ran, a clock of its own."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lthbench.errors import DataError, MethodError, UsageError
from lthbench.evaluation import cells as experiment
from lthbench.evaluation import scoring
from lthbench.evaluation.search.child_process import Limits
from lthbench.evaluation.search.session import Search
from lthbench.io import store
from lthbench.io.paths import cache as cache_folder
from lthbench.method.source import Method, load_method
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.design import Plan
from lthbench.protocol.task import load_task
from lthbench.records import reference
from lthbench.records.reference import load_reference
from lthbench.tools import estimate
from lthbench.tools import pace as pace_of
from lthbench.tools.check import TASK
from lthbench.tools.estimate import REPORTING
from lthbench.tools.pace import WARM, Spent
from lthbench.tools.planned_work import Work, add_transfer, plan_work
from lthbench.tools.rehearsal import Dry, Rehearsal, rehearse
from lthbench.training import dispatch
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests.searching import ROOT, search

SEED = 1000
LIMITS = Limits(seconds=300)
TINY = str(ROOT / "tests" / "tasks" / "tiny-modadd.toml")
T = TASK.recipe.steps

LOOPED = """
import time
import torch
from lthbench import Ticket, keep_top

def find_tickets(problem, *, steps: int = 1000):
    network = problem.network()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    bodies = 0
    for x, y in problem.loop(network, optimiser, steps=steps):
        problem.loss(network(x), y).backward()
        optimiser.step()
        bodies += 1
        time.sleep(0.002)  # however fast the machine is, the whole loop takes two seconds
    assert 4 <= bodies < steps, bodies
    scores = {name: network.get_parameter(name).abs() for name in problem.prunable}
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
"""
NEEDS_RESULTS = """
from lthbench import Ticket, keep_top

def find_tickets(problem):
    end = problem.train()
    if problem.accuracy(end) == 0:
        raise ValueError("nothing was learned")
    for density in problem.densities:
        yield Ticket(keep_top({n: end[n].abs() for n in problem.prunable}, density))
"""


def written(text: str, folder: Path) -> Method:
    path = folder / "method.py"
    path.write_text(text, encoding="utf-8")
    return load_method(str(path))


def rehearsed(method: Method, folder: Path) -> Rehearsal:
    return asyncio.run(rehearse(method, TASK, SEED, folder / TASK.name, LIMITS))


# --- the rehearsal ---------------------------------------------------------------------------


def test_a_rehearsal_costs_what_the_search_costs(tmp_path: Path) -> None:
    """IMP to .26 of the weights: six rounds from the rewind limit, which is trained once."""
    method = load_method("imp")
    real = search(method, TASK, SEED, tmp_path / "real")
    found = rehearsed(method, tmp_path)
    k = TASK.search.rewind_limit
    assert found.steps == 6 * (T - k) + k
    assert found.trainings == 7
    assert found.search.cost == real.meter.spent
    assert [rung.kept for rung in found.search.rungs] == [rung.kept for rung in real.rungs]
    assert (found.own_steps, found.accuracies) == (0, 0)
    assert 0 < found.processor < 60  # of a fork, which need not import torch


def test_a_long_loop_is_cut_and_counted(tmp_path: Path) -> None:
    """Of 1,000 steps some run; the rest are in the cost, the steps and the seconds."""
    found = rehearsed(written(LOOPED, tmp_path), tmp_path)
    assert found.own_steps == 1000
    assert found.search.cost == pytest.approx(1000 / T)
    assert len(found.search.rungs) == len(TASK.ladder.trained)
    assert found.steps == found.trainings == 0


def test_what_needs_results_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"method\.py:7: ValueError: nothing was learned"):
        rehearsed(written(NEEDS_RESULTS, tmp_path), tmp_path)


def test_dry_trainings_differ_unless_they_are_equal() -> None:
    """Two data orders from one start end apart, so that what follows is counted twice."""
    theta = State({"w": torch.ones(4)}, 0)

    def end(order: int) -> State:
        spec, depth = TASK.network, TASK.network.depth
        masks = {"w": torch.tensor([True, True, False, True])}
        job = Job(spec, depth, theta, masks, TASK.recipe, T, SEED, (), f"order {order}")
        return asyncio.run(only(Dry(TASK), job))

    assert end(0).digest == end(0).digest
    assert end(0).digest != end(1).digest
    assert end(0)["w"][2] == 0
    assert end(0)["w"].sign().tolist() == [1, 1, 0, 1]
    assert end(0).step == T


async def only(dry: Dry, job: Job) -> State:
    async for _, result in dry.results([job], {}, None):
        assert result.state is not None
        return result.state
    raise AssertionError


# --- the pace --------------------------------------------------------------------------------


class Clockwork:
    """An executor whose workers take fixed seconds: a job, each step, each look."""

    def __init__(self, job: float, step: float, look: float) -> None:
        self.job, self.step, self.look, self.processor = job, step, look, 0.0
        self.most = 0

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        for job in jobs:
            self.most = max(self.most, job.until)
            slow = 5.0 if job.until <= WARM and not self.processor else 0.0  # the first of all
            looks = len(evaluation.at) if evaluation else 0
            seconds = self.job + self.step * job.until + self.look * looks + slow
            self.processor += seconds / 2  # the machine does other things too
            yield job.key, Result(None, seconds=seconds)

    async def close(self) -> None:
        return


@pytest.mark.parametrize(("step", "look"), [(0.002, 0.001), (0.2, 0.5), (1e-5, 1e-6)])
def test_the_pace_of_known_workers(
    step: float, look: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's start is no part of a step, nor is a step of a look; both clocks are told."""
    workers = Clockwork(0.25, step, look)
    monkeypatch.setattr(pace_of, "processor_seconds", lambda: workers.processor)
    seen = scoring.see(TASK, [SEED], Plan())
    pace = asyncio.run(pace_of.measure(TASK, SEED, workers, 2, seen, False))
    assert workers.most <= T
    for found, expected in ((pace.step(0.5), step), (pace.evaluation, look), (pace.job, 0.25)):
        assert found.wall == pytest.approx(expected, rel=1e-6)
        assert found.processor == pytest.approx(expected / 2, rel=1e-6)


def test_a_step_between_two_densities_is_on_the_line() -> None:
    nothing, steps = Spent(0.0, 0.0), ((0.2, Spent(1.0, 2.0)), (1.0, Spent(5.0, 6.0)))
    pace = pace_of.Pace(steps, nothing, nothing, 0.0, None)
    assert pace.step(0.6).processor == pytest.approx(3.0)
    assert pace.step(0.01) == Spent(1.0, 2.0)
    assert pace.training({1.0: 10, 0.2: 5}) == Spent(55.0, 70.0)
    assert pace.training({}) == nothing


def test_test_examples_are_counted_unread() -> None:
    """All pairs that are neither trained on nor held out; the held-out look grows by them."""
    seen = scoring.see(TASK, [SEED], Plan())
    found = pace_of._tested(TASK, SEED, seen)
    final = scoring.see(TASK, [SEED], Plan(final=True))
    assert found == len(final.sets[SEED]["test"].y)


# --- the cells -------------------------------------------------------------------------------


def test_cells_are_those_of_scoring_less_what_is_stored(tmp_path: Path, cache: Path) -> None:
    """Without tickets: dense, random and erk on one rung or three; stored ones are spared."""
    nothing = Rehearsal(Search(SEED, "ok", "", 0.0, 0.0, ()), {}, 0, 0, 0, 0.0, 0.0)
    seeds, plan = (SEED, SEED + 1), Plan(controls="one rung")

    def cells(plan: Plan) -> Work:
        seen = scoring.see(TASK, seeds, plan)
        return asyncio.run(plan_work(TASK, seeds, nothing, tmp_path, plan, seen))

    assert (cells(plan).steps, cells(plan).runs, cells(plan).cached) == (2 * 3 * T, 6, 0)
    assert cells(Plan()).runs == 2 * 7
    seen = scoring.see(TASK, seeds, plan)
    planned = asyncio.run(
        experiment.planned(TASK, [nothing.search], tmp_path, Dry(TASK), plan, seen)
    )
    place = store.Store(cache_folder() / "cells" / dispatch.arithmetic())
    place.put(next(e.job.key for e in planned if e.kind == "dense"), {})
    assert (cells(plan).steps, cells(plan).runs, cells(plan).cached) == (5 * T, 5, T)


@pytest.mark.parametrize("name", ["mlp-modadd59", "transformer-modadd59", "mlp-digits"])
def test_transfer_is_counted_by_its_runs(name: str) -> None:
    """At each of two depths: two carried, two random, three parts; a cheap method's own two."""
    none = Work({}, 0.0, 0.0, Spent(0.0, 0.0))
    task = load_task(name)
    assert task.transfer
    # A search to the sparsest of the carried rungs takes this part of all the rounds.
    part = math.log(task.transfer.densities[-1]) / math.log(task.ladder.trained[-1])

    def found(cost: float) -> Rehearsal:
        search = Search(SEED, "ok", "", cost, 0.0, ())
        return Rehearsal(search, {0.5: cost * task.recipe.steps}, 1, 0, 0, 0.0, 0.0)

    seeds = (0, 1, 2)
    dear, cheap = (add_transfer(task, seeds, found(cost), none, None) for cost in (5.0, 0.0))
    assert (dear.runs, cheap.runs) == (3 * 2 * 7, 3 * 2 * 9)
    own = families.flops(task.network, task.network.depth)
    targets = sum(families.flops(task.network, depth) for depth in task.transfer.targets)
    searched = 0.0
    if task.transfer.source != task.network.depth:
        searched = 5.0 * part * families.flops(task.network, task.transfer.source)
    expected = 3 * task.recipe.steps * (7 * targets + searched) / own
    assert dear.steps == pytest.approx(expected)
    if (frozen := load_reference(task)) and frozen.transfer:  # two random ones at each, of 2 seeds
        few = [c for c in frozen.transfer.cells if c.seed in seeds[:2]]
        held = frozen.transfer.model_copy(update={"cells": tuple(few)})
        known = frozen.model_copy(update={"transfer": held})
        spared = add_transfer(task, seeds, found(5.0), none, known)
        assert spared.runs == dear.runs - 2 * 2 * 2
        assert dear.steps - spared.steps == pytest.approx(2 * task.recipe.steps * 2 * targets / own)


def test_what_the_reference_holds_is_not_trained(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense and random runs of its seeds, on the rungs that have controls; of others they are."""
    nothing = Rehearsal(Search(0, "ok", "", 0.0, 0.0, ()), {}, 0, 0, 0, 0.0, 0.0)
    ladder = TASK.ladder.trained
    cells = [SimpleNamespace(kind="dense", density=1.0, seed=0, schedule=1)]
    cells += [
        SimpleNamespace(kind=kind, density=density, seed=0, schedule=1)
        for kind in ("erk", "random")
        for density in ladder
    ]
    monkeypatch.setattr(reference, "load_reference", lambda task: SimpleNamespace(cells=cells))
    seen = scoring.see(TASK, (0, 1), Plan())

    def runs(plan: Plan) -> float:
        return asyncio.run(plan_work(TASK, (0, 1), nothing, tmp_path, plan, seen)).runs

    assert runs(Plan(compressed=False)) == 2 * 7  # development seeds share nothing with it
    assert runs(Plan(final=True, compressed=False)) == 7
    assert runs(Plan(final=True, controls="alternate", compressed=False)) == 5


# --- the whole -------------------------------------------------------------------------------


def test_an_estimate_from_end_to_end(tmp_path: Path, cache: Path) -> None:
    """A method that cannot be rehearsed is bounded by its budget; sums are sums; JSON holds all."""
    method = tmp_path / "method.py"
    method.write_text(NEEDS_RESULTS, encoding="utf-8")
    done = estimate.estimate(str(method), tasks=[TINY], seeds=2, workers=0)
    (row,) = done.rows
    task = load_task(TINY)
    budget, steps = task.search.budget, task.recipe.steps
    assert row.search_cost == budget
    assert row.search_steps == 2 * budget * steps
    assert "ValueError" in row.bounded
    assert row.gpu_measured == torch.cuda.is_available()
    table = json.loads(json.dumps(done.table()))
    assert table["core_hours"] == pytest.approx(row.core_hours + done.starting_core_hours)
    assert done.starting_seconds >= REPORTING
    text = done.text()
    assert "<= " in text
    assert "could not be rehearsed" in text
    if not torch.cuda.is_available():
        assert "GPU minutes: assumed, not measured" in text
    assert all(len(line) < 100 for line in text.splitlines()[:9])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"suite": "quick", "tasks": ["mlp-digits"]}, UsageError, "exclude each other"),
        ({"seeds": 0}, UsageError, "--seeds 0: at least 1"),
        ({"workers": -1}, UsageError, "--workers -1: 0 or more"),
        ({"tasks": ["lenet300-mnist"]}, DataError, "lthbench data prepare lenet300-mnist"),
    ],
)
def test_mistakes_are_told_before_anything_is_timed(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    with pytest.raises(error, match=words):
        estimate.estimate("erk", **changes)


def test_times_add_up() -> None:
    a, b = Spent(3.0, 5.0), Spent(1.0, 6.0)
    assert a + b == Spent(4.0, 11.0)
    assert a - b == Spent(2.0, 0.0)
    assert a.times(2) == Spent(6.0, 10.0)
