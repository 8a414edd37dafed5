"""Conversion between a ticket's starting weights and the little that a bundle stores of them.

What follows from the seed is recomputed: theta_0, its signs, or a multiple of either.
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
    """Rebuild the state that a ticket's training starts from; None if that requires dense training.

    For origins "init", "signs" and "scaled", the result matches the digest in the record's cell bit
    for bit (unless a tensor keeps nothing at all). For other origins, kept entries match, and
    pruned ones, which no training of the ticket uses, are zero.

    Args:
        task: The ticket's task.
        seed: The ticket's seed.
        header: As returned by `lthbench.leaderboard.bundle.archive.ticket`.
        masks: As returned by the same function.
        stored: As returned by the same function.

    Raises:
        RecordError: If masks or weights do not match the task's network.
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
    """Return kept values at their places among zeros, and the other tensors whole."""
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
    """Return theta_0 or its signs times one factor per tensor; pruned entries as in `completed`."""
    source = theta.tensors()
    weights = dict(source)
    for name, mask in chosen.items():
        factor = float(stored[f"factor/{name}"][0])
        whole = source[name].sign() if signs else source[name]
        weights[name] = _times(whole, factor) if mask.any() else whole * 0
    return completed(weights, source, chosen)


def _times(source: Tensor, factor: float) -> Tensor:
    """Multiply in float64 and round once."""
    return (source.double() * factor).float()


def stored_of(
    task: Task,
    seed: int,
    header: Mapping[str, Any],
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> dict[str, NDArray[Any]]:
    """Return what a bundle stores of a ticket's weights, by the ticket's origin.

    Args:
        task: The ticket's task.
        seed: The ticket's seed.
        header: As returned by `lthbench.evaluation.search.session.read_ticket`.
        masks: As returned by the same function.
        weights: As returned by the same function.

    Raises:
        RecordError: If scaled weights are not a single factor per tensor.
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
    """Return a number whose product with the source, rounded once, equals `kept` bit for bit.

    Each entry allows the numbers between the midpoints to its float32 neighbours (as in
    `ticket.origin`): the centre of their intersection is furthest from any rounding.
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
    # Midpoints are rounded too: if the interval is nearly empty, the adjacent numbers may fit.
    near = [
        end + n * float(np.spacing(end))
        for n in (-1, 1, -2, 2, -3, 3, -4, 4)
        for end in (low, high)
    ]
    for factor in (quotient, (low + high) / 2, low, high, *near):
        if same(_times(source, factor), kept):
            return factor
    return None
