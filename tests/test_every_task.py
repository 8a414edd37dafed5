"""Every baseline finds its tickets in every kind of network, by each task's own recipe, shrunk, or
says why it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lthbench.errors import NotApplicable
from lthbench.method.source import baseline_names, load_method
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.datasets import Examples, Inputs, Search
from lthbench.protocol.task import Ladder, Task, load_task, task_names
from lthbench.tickets import masks
from lthbench.tickets.ticket_files import read_ticket
from lthbench.training.job import Job, Result
from tests import tiny
from tests.searching import search

# Steps of the shrunk recipe: enough for a warm-up and two drops in their order.
STEPS, BATCH = 6, 8
SIZES = {
    "mlp-digits": {"width": 6, "neck": 5},
    "mlp-mnist1d": {"width": 6},
    "mlp-modadd59": {"embedding": 4, "width": 8},
    "lenet300-mnist": {"width": 6, "neck": 5},
    "transformer-modadd59": {"width": 8, "heads": 2, "hidden": 6},
    "transformer-modadd113": {"width": 8, "heads": 2, "hidden": 6},
    "resnet-mnist1d": {"width": 2, "depth": 1},
    "resnet8-cifar10": {"width": 2, "depth": 1},
    "vit-mnist1d": {"width": 6, "heads": 2, "hidden": 8, "depth": 2},
    "conv4-cifar10": {"width": 2, "hidden": 4},
    "resnet20-cifar10": {"width": 2, "depth": 2},
    "resnet20-cifar10-160": {"width": 2, "depth": 1},
    "vit-tiny-cifar10": {"width": 6, "heads": 2, "hidden": 8, "depth": 2},
    "vit-tiny-imagenette": {"width": 6, "heads": 2, "hidden": 8, "depth": 2},
}
QUICKER = {
    **{name: {"rounds": "5"} for name in ("force", "synflow")},
    **{name: {"length": "0.5"} for name in ("edge_popup", "multiprize", "supermask")},
}
TRAINING = ("elastic", "imp", "imp_lrr", "sign_only")  # a round for each fifth that is removed
REFUSED = {("elastic", "conv4-cifar10"): "the network repeats no block"}


def shrunk(name: str) -> Task:
    """The task with a few units a layer, a few steps, and two densities."""
    task = load_task(name)
    recipe = task.recipe.lasting(STEPS)
    if recipe.batch:
        recipe = recipe.model_copy(update={"batch": BATCH})
    return task.model_copy(
        update={
            "network": task.network.model_copy(update=SIZES[name]),
            "recipe": recipe,
            "ladder": Ladder(trained=(0.5, 0.3), untrained=(0.5, 0.3)),
            "score": task.score.model_copy(update={"every": 1}),
            "search": task.search.model_copy(update={"rewind_limit": 1}),
        }
    )


def noise(task: Task) -> Search:
    """Bytes or, of signals, int16 in the shape of the task's inputs, of every class some."""
    draw = np.random.default_rng(0)
    side, channels, inputs = task.network.side, task.network.channels, task.network.inputs
    signals = task.data.source == "mnist1d"
    picture = (side, side, channels) if side else (round(inputs**0.5),) * 2
    shape = (inputs,) if signals else picture

    def some(count: int) -> Examples:
        x: Inputs
        if signals:
            x = draw.integers(-8192, 8192, (count, *shape), dtype=np.int16)
        else:
            x = draw.integers(0, 256, (count, *shape), dtype=np.uint8)
        return Examples(x, np.arange(count, dtype=np.uint8) % task.data.classes)

    return Search(some(100), some(20))


def standing(jobs: Iterable[Job], *_: Any) -> Iterator[tuple[str, Result]]:
    """In place of the engine: weights stay where they are, and steps pass."""
    for job in jobs:
        yield job.key, Result(State(job.start.tensors(), job.until))


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("name", TRAINING)
def test_the_whole_ladder_is_within_the_budget(
    name: str, task: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the task as it is, by its own steps and the FLOPs of its own networks."""
    if (name, task) in REFUSED:
        return
    whole = load_task(task)
    if whole.data.source not in ("modular-addition", "digits"):
        monkeypatch.setattr(datasets, "search", lambda task, seed: noise(task))
    elif whole.data.source == "digits":
        datasets.prepare(whole, download=False)
    tiny.trained_by(monkeypatch, standing)
    state = search(load_method(name), whole, 0, tmp_path)
    assert [rung.density for rung in state.rungs] == list(whole.ladder.trained)
    assert state.meter.spent <= whole.search.budget


def test_no_task_is_forgotten() -> None:
    assert sorted(SIZES) == sorted(task_names())


@pytest.mark.slow
@pytest.mark.parametrize("task", SIZES)
@pytest.mark.parametrize("name", baseline_names())
def test_a_baseline_finds_every_rung_or_says_why_not(
    name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shrunk(task)
    if small.data.source != "modular-addition":
        monkeypatch.setattr(datasets, "search", lambda task, seed: noise(task))
    method = load_method(name, QUICKER.get(name, {}))
    if (name, task) in REFUSED:
        with pytest.raises(NotApplicable, match=f"^{REFUSED[name, task]}"):
            search(method, small, 0, tmp_path)
        return
    state = search(method, small, 0, tmp_path)
    assert [rung.density for rung in state.rungs] == [0.5, 0.3]
    for rung in state.rungs:
        chosen = read_ticket(state.folder, rung.density)[1]
        total = sum(mask.numel() for mask in chosen.values())
        assert masks.kept(chosen) == round(rung.density * total)
