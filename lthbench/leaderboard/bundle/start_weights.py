"""The weights that a ticket starts from, out of the little that a bundle holds of them; and back.

What follows from the seed is computed again: theta_0, and of it the signs, or all times a factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthbench.errors import RecordError
from lthbench.leaderboard.bundle.ticket_member import HELD, SCALED
from lthbench.networks import families
from lthbench.networks.state import State, same
from lthbench.protocol.task import Task
from lthbench.tickets.ticket import completed

Masks = Mapping[str, NDArray[np.bool_]]
Stored = Mapping[str, NDArray[Any]]


def start_of(
    task: Task, seed: int, header: Mapping[str, Any], masks: Masks, stored: Stored
) -> State | None:
    """The state that a ticket's training starts from; None if it takes dense training to know.

    Bit by bit the one whose digest the record's cell names, where the origin is "init", "signs" or
    "scaled" (unless a tensor keeps nothing at all). Of other origins the kept entries are, and the
    pruned ones, which no training of the ticket sees, are zero.

    Args:
        header, masks, stored: as `lthbench.leaderboard.bundle.archive.ticket` gives them.

    Raises:
        RecordError: for masks or weights that are not of the task's network.
    """
    theta = families.initial(task.network, task.network.depth, seed)
    shapes = families.shapes(task.network, task.network.depth)
    if {name: mask.shape for name, mask in masks.items()} != shapes:
        raise RecordError(f"a ticket of seed {seed}: its masks are not of {task.name}'s network")
    origin, step = header["origin"], header["start"]
    chosen = {name: torch.from_numpy(np.array(mask)) for name, mask in masks.items()}
    if origin in HELD:
        return State(_held(task, seed, theta, chosen, stored), step)
    if step > 0:
        return None
    if origin not in SCALED:
        return theta
    return State(_scaled(theta, chosen, stored, signs=origin == "signs"), 0)


def _held(
    task: Task, seed: int, theta: State, chosen: Mapping[str, Tensor], stored: Stored
) -> dict[str, Tensor]:
    """Kept values at their places among zeros, and the other tensors whole."""
    whole = {name.removeprefix("whole/"): a for name, a in stored.items() if name[:6] == "whole/"}
    tensors = theta.tensors()
    others = {name: tuple(t.shape) for name, t in tensors.items() if name not in chosen}
    if others != {name: a.shape for name, a in whole.items()}:
        raise RecordError(f"a ticket of seed {seed}: its weights are not of {task.name}'s network")
    for name, mask in chosen.items():
        tensors[name] = torch.zeros_like(tensors[name])
        tensors[name][mask] = torch.from_numpy(np.array(stored[f"kept/{name}"]))
    return tensors | {name: torch.from_numpy(np.array(a)) for name, a in whole.items()}


def _scaled(
    theta: State, chosen: Mapping[str, Tensor], stored: Stored, *, signs: bool
) -> dict[str, Tensor]:
    """theta_0 or its signs times a factor a tensor; pruned entries as `completed` has them."""
    source = theta.tensors()
    weights = dict(source)
    for name, mask in chosen.items():
        factor = float(stored[f"factor/{name}"][0])
        whole = source[name].sign() if signs else source[name]
        weights[name] = _times(whole, factor) if mask.any() else whole * 0
    return completed(weights, source, chosen)


def _times(source: Tensor, factor: float) -> Tensor:
    """Rounded once, from float64."""
    return (source.double() * factor).float()


def stored_of(
    task: Task,
    seed: int,
    header: Mapping[str, Any],
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> dict[str, NDArray[Any]]:
    """What a bundle holds of a ticket's weights, by the ticket's origin.

    Args:
        header, masks, weights: as `lthbench.evaluation.search.session.read_ticket` gives them.

    Raises:
        RecordError: for scaled weights that no one factor a tensor gives.
    """
    origin = header["origin"]
    if origin in HELD:
        kept = {f"kept/{name}": weights[name][mask].numpy() for name, mask in masks.items()}
        whole = {f"whole/{name}": t.numpy() for name, t in weights.items() if name not in masks}
        return {**kept, **whole}
    if origin not in SCALED:
        return {}
    theta = families.initial(task.network, task.network.depth, seed).tensors()
    factors = {}
    for name, mask in masks.items():
        kept_values, source = weights[name][mask], theta[name][mask]
        source = source.sign() if origin == "signs" else source
        found = _factor(kept_values, source) if header["start"] == 0 else _magnitude(kept_values)
        if found is None:
            raise RecordError(f"the ticket of seed {seed}: {name} is no multiple of theta_0")
        factors[f"factor/{name}"] = np.array([found])
    return factors


def _magnitude(kept: Tensor) -> float:
    return float(kept[0].abs()) if len(kept) else 0.0


def _factor(kept: Tensor, source: Tensor) -> float | None:
    """One number that times each of the source, rounded once, is what was kept, bit by bit.

    Each entry allows the numbers between the midpoints to its float32 neighbours (as in
    `ticket.origin`): the middle of what all allow is furthest from any rounding.
    """
    nonzero = source != 0
    values, units = kept[nonzero].abs(), source[nonzero].abs().double()
    if not len(values):
        return 0.0
    above = torch.nextafter(values, torch.full_like(values, torch.inf)).double()
    below = torch.nextafter(values, torch.zeros_like(values)).double()
    low = float(((values.double() + below) / 2 / units).max())
    high = float(((values.double() + above) / 2 / units).min())
    quotient = float((values.double() / units)[units.argmax()])
    # Midpoints are rounded too: where hardly anything lies between them, the next numbers may fit.
    near = [
        end + n * float(np.spacing(end))
        for n in (-1, 1, -2, 2, -3, 3, -4, 4)
        for end in (low, high)
    ]
    for factor in (quotient, (low + high) / 2, low, high, *near):
        if same(_times(source, factor), kept):
            return factor
    return None
