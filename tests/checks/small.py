"""A problem small enough to be computed again in numpy, and what the checks of tickets share.

Every step sees all examples and `examples` draws them all, so that no order is needed to train or
score again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthbench.evaluation.search import session
from lthbench.method.problem import Problem
from lthbench.method.source import load_method
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets.ticket import Ticket
from lthbench.tools.check import TASK
from lthbench.training.job import Examples
from tests import tiny
from tests.searching import begin

Arrays = dict[str, NDArray[np.float64]]
Bools = dict[str, NDArray[np.bool_]]
Find = Callable[..., Iterable[Ticket]]

LADDER = (0.5, 0.2)
STEPS, REWIND, RATE = 24, 2, 0.05
PER_CLASS = 8


def task(**changes: Any) -> Task:
    """An MLP 6-16-8-5 trained by Adam on all examples at once; rewinding to step 2 of 24."""
    recipe = tiny.recipe(steps=STEPS, batch=0, decayed=(), rate=RATE)
    ladder = TASK.ladder.model_copy(update={"trained": LADDER})
    search = TASK.search.model_copy(update={"rewind_limit": REWIND})
    network = tiny.network("mlp", depth=1, width=16, neck=8)
    source = TASK.data.model_copy(
        update={"source": "digits", "classes": tiny.CLASSES, "scale": 1 / 128, "shift": -1.0}
    )
    parts = {"recipe": recipe, "ladder": ladder, "search": search, "network": network}
    return TASK.model_copy(update={"data": source, **parts, **changes})


def examples() -> Examples:
    """Eight examples of each class, which lies in the first two features."""
    draw = np.random.default_rng(5)
    y = np.repeat(np.arange(tiny.CLASSES), PER_CLASS).astype(np.uint8)
    x = draw.integers(0, 256, (len(y), tiny.FEATURES))
    x[:, 0] = y * 51 + draw.integers(0, 51, len(y))
    x[:, 1] = (y * 2 % tiny.CLASSES) * 51 + draw.integers(0, 51, len(y))
    inputs = torch.from_numpy(x.astype(np.uint8))
    return Examples(inputs, torch.from_numpy(y), scale=1 / 128, shift=-1.0)


@contextmanager
def problem(of: Task | None = None, train: Examples | None = None) -> Iterator[Problem]:
    """The problem of seed 0, whose calls are answered in this process."""
    given = train or examples()
    arrays = datasets.Examples(given.x.numpy(), given.y.numpy())
    drawn = patch.object(session.datasets, "search", lambda *_: datasets.Search(arrays, arrays))
    with TemporaryDirectory() as folder, drawn:
        yield begin(of or task(), 0, Path(folder))[0]


def found(find: Find, of: Task | None = None, **options: Any) -> tuple[list[Ticket], Arrays]:
    """The tickets of a method on the small problem, one for each rung, and theta_0."""
    with problem(of) as given:
        tickets = list(find(given, **options))
        assert len(tickets) == len(given.densities)
        return tickets, arrays(given.theta())


def namespace(name: str) -> dict[str, Any]:
    """What a baseline's file defines, in a module of its own."""
    method = load_method(name)
    names: dict[str, Any] = {"__name__": "method"}
    exec(compile(method.source, method.path, "exec"), names)
    return names


def arrays(state: Mapping[str, Tensor] | State) -> Arrays:
    """Tensors as float64 arrays."""
    return {name: state[name].detach().double().numpy() for name in state}


def inputs() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The examples as a network sees them, (n, features), and their labels, (n,)."""
    given = examples()
    return given.x.double().numpy() / 128 - 1, given.y.numpy().astype(np.intp)


def assert_masks(tickets: Iterable[Ticket], expected: Iterable[Bools], slack: float = 0.01) -> None:
    """Masks keep what they should, but for a share of entries that rounding may have decided."""
    for ticket, wanted in zip(tickets, expected, strict=True):
        assert ticket.masks.keys() == wanted.keys()
        differ = sum(int((ticket.masks[n].numpy() != wanted[n]).sum()) for n in wanted)
        whole = sum(mask.size for mask in wanted.values())
        assert differ <= slack * whole, f"{differ} of {whole} entries differ"
