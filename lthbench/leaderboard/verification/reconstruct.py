"""Reconstruction of a bundle's tickets for networks, and of their controls from the seed."""

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
from lthbench.tickets.controls import RULES


@dataclass(frozen=True)
class Held:
    """One ticket of a bundle.

    Attributes:
        start: None where it requires dense training (theta_k).
        stored: The weights as stored in the bundle.
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
        """Whether all weights follow from the seed, including pruned ones.

        A tensor that keeps nothing has no factor to reveal them.
        """
        if self.origin in ("signs", "scaled"):
            return all(bool(mask.any()) for mask in self.masks.values())
        return self.origin in ("init", "rewind")


def held(bundle: Bundle, task: Task, seed: int, density: float) -> Held:
    """Load a ticket of a bundle, with its weights rebuilt as far as possible without training."""
    header, masks, stored = archive.ticket(bundle, task.name, seed, density)
    start = start_of(task, seed, header, masks, stored)
    chosen = {name: torch.from_numpy(np.array(mask)) for name, mask in masks.items()}
    facts = header["origin"], header["start"], header["trained"]
    return Held(seed, density, *facts, chosen, start, stored)


def masks_of(
    task: Task, kind: str, density: float, seed: int, attempt: int, ticket: Held | None
) -> Mapping[str, Tensor]:
    """Return the masks of a cell.

    For a shuffled control these are the masks of its draw, which follows from the previous ones.
    """
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
    """Return the start of a control with redrawn weights; None where it requires another seed.

    For a ticket's own weights only the kept entries are right, which is all that training uses.

    Args:
        task: The task.
        kind: Kind of control.
        ticket: The ticket of the control.
        start: The ticket's start.
        attempt: Number of earlier draws.
        other: Another seed's theta_k, if known.
    """
    if ticket.step and other is None and ticket.origin not in ("signs", "free"):
        return None
    return starts.reinitialised(
        task, kind, ticket.origin, ticket.seed, start, ticket.masks, attempt, other
    )
