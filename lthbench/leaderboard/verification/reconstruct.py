"""A bundle's tickets as networks see them, and the controls that follow from them by the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthbench.evaluation import starts
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.bundle.start_weights import start_of
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Task
from lthbench.tickets import controls

RULES: Mapping[str, Any] = {"random": "uniform", "erk": "erk", "untrained_random": "uniform"}


@dataclass(frozen=True)
class Held:
    """One ticket of a bundle.

    Attributes:
        start: None where dense training must tell it (theta_k).
        stored: the weights as the bundle holds them.
    """

    seed: int
    density: float
    origin: str
    step: int
    trained: bool
    masks: Mapping[str, Tensor]
    start: State | None
    stored: Mapping[str, NDArray[Any]]

    @property
    def whole(self) -> bool:
        """Whether all weights follow from the seed, pruned ones too.

        A tensor that keeps nothing has no factor to tell.
        """
        if self.origin in ("signs", "scaled"):
            return all(bool(mask.any()) for mask in self.masks.values())
        return self.origin in ("init", "rewind")


def held(bundle: Bundle, task: Task, seed: int, density: float) -> Held:
    """A ticket of a bundle, its weights rebuilt as far as no training is needed."""
    header, masks, stored = archive.ticket(bundle, task.name, seed, density)
    start = start_of(task, seed, header, masks, stored)
    chosen = {name: torch.from_numpy(np.array(mask)) for name, mask in masks.items()}
    facts = header["origin"], header["start"], header["trained"]
    return Held(seed, density, *facts, chosen, start, stored)


def masks_of(
    task: Task, kind: str, density: float, seed: int, attempt: int, ticket: Held | None
) -> Mapping[str, Tensor]:
    """The masks of a cell; of a shuffled control those of its draw, which began with the ones
    before it."""
    if kind in RULES:
        shapes = families.shapes(task.network, task.network.depth)
        (drawn,) = controls.random_masks(shapes, [density], seed, RULES[kind], attempt=attempt)
        return drawn
    assert ticket is not None
    chosen = ticket.masks
    if kind == "shuffled":
        for draw in range(attempt + 1):
            chosen, _ = controls.shuffled(chosen, seed, attempt=draw)
    return chosen


def reinit_start(
    task: Task,
    kind: str,
    ticket: Held,
    start: State,
    attempt: int,
    other: State | None = None,
) -> State | None:
    """Where a control with weights drawn anew starts; None where another seed must tell it.

    Of weights of the ticket's own the kept entries are right, which is all that a training sees.

    Args:
        other: another seed's theta_k, where it is known.
    """
    if ticket.step and other is None and ticket.origin not in ("signs", "free"):
        return None
    return starts.reinitialised(
        task, kind, ticket.origin, ticket.seed, start, ticket.masks, attempt, other
    )
