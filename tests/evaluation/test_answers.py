"""What a search asks a second time is charged a second time, and done once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lthbench import Ticket, keep_top
from lthbench.errors import BadCall
from lthbench.method import child
from lthbench.method.meter import PASSES
from lthbench.method.problem import Problem
from lthbench.method.source import load_method
from lthbench.protocol.task import Task
from lthbench.tools.check import TASK
from tests import tiny
from tests.searching import begin, search

SEED = 3
DEAR = (
    "from lthbench import Ticket, keep_top\n"
    "def find_tickets(problem):\n"
    "    for density in problem.densities:\n"
    "        end = problem.train(order=round(1000 * density))\n"
    "        problem.accuracy(end)\n"
    "        problem.theta(problem.rewind_limit)\n"
    "        problem.examples(2, 'some')\n"
    "        yield Ticket(keep_top({n: end[n].abs() for n in problem.prunable}, density))\n"
)


def test_a_hit_in_the_store_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that goes on costs what one that was left alone costs."""
    path = tmp_path / "dear.py"
    path.write_text(DEAR)
    method = load_method(str(path))
    first = search(method, TASK, SEED, tmp_path)
    assert 3 < first.meter.spent < 3.5
    tiny.trained_by(monkeypatch, lambda *args: pytest.fail("it was trained again"))
    again = search(method, TASK, SEED, tmp_path)
    assert again.meter.count == first.meter.count
    assert again.rungs == first.rungs


def test_equal_calls_cost_twice_and_theta_once(tmp_path: Path) -> None:
    problem, coordinator = begin(TASK, SEED, tmp_path)
    problem.theta(20)
    problem.theta(20)
    assert coordinator.state.meter.spent == pytest.approx(20 / TASK.recipe.steps)
    problem.train(until=24)
    problem.train(until=24)
    assert coordinator.state.meter.spent == pytest.approx(68 / TASK.recipe.steps)
    assert problem.budget == pytest.approx(TASK.search.budget - 68 / TASK.recipe.steps)


def _products(problem: Problem) -> int:
    """Multiplications of one pass: a weight is used once, but the embedding is looked up."""
    return sum(a * b for name, (a, b) in problem.shapes.items() if not name.startswith("embed"))


def test_another_depth_shares_the_meter_and_costs_its_flops(tmp_path: Path) -> None:
    problem, coordinator = begin(TASK, SEED, tmp_path)
    deeper = problem.at_depth(2)
    end = deeper.train()
    spent = coordinator.state.meter.spent
    assert spent == pytest.approx(_products(deeper) / _products(problem), rel=1e-4) != 1
    assert deeper.budget == problem.budget == pytest.approx(TASK.search.budget - spent)
    assert {name: tuple(end[name].shape) for name in deeper.prunable} == deeper.shapes
    problem.train()
    assert coordinator.state.meter.spent == pytest.approx(spent + 1)


@pytest.mark.parametrize(("cost", "passes"), [("forward", 1 / 3), ("gradient", 1), ("hessian", 2)])
def test_what_is_done_with_a_batch_has_a_name(cost: Any, passes: float, tmp_path: Path) -> None:
    """A loop and drawn examples are charged by it; without one as forward and backward."""
    problem, coordinator = begin(TASK, SEED, tmp_path)
    problem.loop(steps=24, cost=cost)
    unit = TASK.recipe.steps * TASK.recipe.batch_size(10**6)
    drawn = len(problem.examples(2, "some", cost=cost).y)
    spent = coordinator.state.meter.spent
    assert spent == pytest.approx(passes * (24 / TASK.recipe.steps + drawn / unit))
    problem.loop(steps=24)
    problem.examples(2, "other")
    assert coordinator.state.meter.spent - spent == pytest.approx(spent / passes)


@pytest.mark.parametrize(
    "cost", [0, 0.0, 1e-9, -1.0, 1 / 3, 1, 2.0, True, None, "", "Forward", "backward", b"hessian",
             float("nan"), ["forward"], "x" * 10**4]
)  # fmt: skip
def test_a_bill_that_is_talked_down(cost: Any, tmp_path: Path) -> None:
    """A number, or a name of nothing, is refused at the method's own line, which names the three;
    nothing is charged and no batch is given."""
    problem, coordinator = begin(TASK, SEED, tmp_path)
    for call in (
        lambda: problem.loop(steps=1, cost=cost),
        lambda: problem.examples(1, "x", cost=cost),
    ):
        with pytest.raises(BadCall) as caught:
            call()
        said = str(caught.value)
        assert all(f'"{work}"' in said for work in ("forward", "gradient", "hessian"))
        assert "\n" not in said and len(said) < 200
    assert coordinator.state.meter.count == 0 and coordinator.state.log.position == 0


def test_dense_training_to_an_early_step_is_theta(tmp_path: Path) -> None:
    """Whichever way a method reaches theta_k, a ticket from there rewinds."""
    problem, coordinator = begin(TASK, SEED, tmp_path)
    k = TASK.search.rewind_limit
    early = problem.train(until=k)
    assert early.digest == problem.theta(k).digest
    masks = keep_top({n: early[n].abs() for n in problem.prunable}, problem.densities[0])
    child._yield(coordinator, Ticket(masks, weights=early))  # type: ignore[arg-type]
    (rung,) = coordinator.state.rungs
    assert (rung.origin, rung.start) == ("rewind", k)
    later = problem.train(until=k, order=1)
    assert later.digest != early.digest


@pytest.mark.parametrize("work", ["forward", "gradient", "hessian"])
def test_examples_are_no_cheaper_for_a_shallower_network(work: Any, tmp_path: Path) -> None:
    """They are the same batches, and a method may train a network of its own on them."""
    table = TASK.model_dump(mode="json", exclude={"calibration"})
    task = Task.model_validate({**table, "network": {**table["network"], "depth": 2}})
    problem, coordinator = begin(task, SEED, tmp_path)

    def charged(call: Callable[[], Any]) -> int:
        before = coordinator.state.meter.count
        call()
        return coordinator.state.meter.count - before

    shallower, deeper = problem.at_depth(1), problem.at_depth(3)
    for of in (shallower, problem):
        assert charged(partial(of.loop, steps=24, cost=work)) == round(
            3 * PASSES[work] * 24 * task.recipe.batch_size(10**6)
        )
    drawn = [
        charged(partial(of.examples, 2, "some", cost=work)) for of in (shallower, problem, deeper)
    ]
    assert drawn[0] == drawn[1] < drawn[2]
    trained = [charged(partial(of.train, until=4)) for of in (shallower, problem, deeper)]
    assert trained[0] < trained[1] < trained[2]


def test_a_theta_of_another_depth_is_another_run(tmp_path: Path) -> None:
    problem, coordinator = begin(TASK, SEED, tmp_path)
    deeper = problem.at_depth(2)
    assert problem.theta(10).digest != deeper.theta(10).digest
    spent = coordinator.state.meter.spent
    deeper.theta(10)
    assert coordinator.state.meter.spent == spent


def test_a_depth_that_the_family_does_not_have_is_refused(tmp_path: Path) -> None:
    problem, _ = begin(TASK, SEED, tmp_path)
    with pytest.raises(BadCall, match=r"at_depth\(0\): pair-mlp networks have depths from 1"):
        problem.at_depth(0)
