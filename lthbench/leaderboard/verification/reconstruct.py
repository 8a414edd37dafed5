"""Reconstruction of a bundle's tickets for networks, and of their controls' starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthbench.evaluation.starts import Given, reinitialised
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.bundle.start_weights import start_of
from lthbench.networks.state import State
from lthbench.protocol.task import Task


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
    stored: Mapping[str, NDArray[np.generic]]

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


def redraw_start(task: Task, kind: str, ticket: Held, attempt: int) -> State | None:
    """Return the start of a control with redrawn weights; None where it requires training.

    For a ticket's own weights only the kept entries are right, which is all that training uses.

    Args:
        task: The task.
        kind: Kind of control.
        ticket: The ticket of the control.
        attempt: Number of earlier draws.
    """
    if ticket.start is None:
        return None
    given = Given(ticket.masks, ticket.start, ticket.origin)
    if given.needs_theta:
        return None
    return reinitialised(task, kind, ticket.seed, given, attempt)
