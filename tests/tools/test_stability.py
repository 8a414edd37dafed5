"""Rewind limits: two trainings of one ticket, and the error on the line between their ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task, load_task
from lthbench.tickets import controls
from lthbench.tools import stability
from lthbench.training.executors.local import Here
from tests import tiny
from tests.searching import ROOT

TINY = str(ROOT / "tests" / "tasks" / "tiny-digits.toml")


@pytest.fixture
def digits(cache: Path) -> Task:
    task = load_task(TINY)
    datasets.prepare(task, download=False)
    return task


def test_candidates_are_early_and_past_a_warm_up() -> None:
    assert stability.candidates(tiny.recipe(steps=800)) == (0,)
    assert stability.candidates(tiny.recipe(steps=5_000)) == (0, 100, 250, 500)
    assert stability.candidates(tiny.recipe(steps=5_000, warm_up=100)) == (0, 250, 500)


def test_a_line_has_both_ends() -> None:
    tensors = {"w": torch.tensor([0.0, 2.0]), "count": torch.tensor(3)}
    one, other = (
        State(tensors, 9),
        State({"w": torch.tensor([4.0, 2.0]), "count": tensors["count"]}, 9),
    )
    assert torch.equal(stability.between(one, other, 0.25)["w"], torch.tensor([1.0, 2.0]))
    assert stability.between(one, other, 0.0).digest == one.digest
    assert stability.between(one, other, 1.0).digest == other.digest


def test_a_barrier_is_measured_from_the_mean_of_the_ends() -> None:
    assert stability.barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert stability.barrier([0.2, 0.1, 0.2]) == 0


def test_one_order_has_no_barrier_and_two_have_one(
    digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = families.shapes(digits.network, digits.network.depth)
    (masks,) = controls.random_masks(shapes, [0.2], 0, "uniform")
    theta = families.initial(digits.network, digits.network.depth, 1000)

    def found() -> float:
        return asyncio.run(stability.instability(digits, 1000, theta, masks, Here()))

    assert abs(found()) > 0
    monkeypatch.setattr(stability, "ORDERS", (("stability", "0"),) * 2)
    assert found() == 0


@pytest.mark.slow
def test_the_command_tells_every_candidate(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stability.main([TINY, "--seeds", "1", "--workers", "0"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("tiny-digits rewound to step 0: error barrier ")
