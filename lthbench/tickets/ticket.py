"""What a method returns, validated; and where its weights come from, found by comparing bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lthbench.errors import TicketError
from lthbench.networks.state import State, same
from lthbench.tickets import masks as mask_arithmetic


@dataclass(frozen=True)
class Ticket:
    """A subnetwork that a method proposes.

    Attributes:
        masks: bool by prunable name, True = kept; exactly round(density * N) kept in all.
        start: 0 for theta_0, k for theta_k of the canonical dense run.
        weights: the ticket's own weights by name, only if they are neither theta_0 nor theta_k.
        trained: whether the harness trains it before it is scored.
    """

    masks: Mapping[str, Tensor]
    start: int = 0
    weights: Mapping[str, Tensor] | None = None
    trained: bool = True


def check(
    ticket: Any,
    shapes: Mapping[str, tuple[int, ...]],
    names: Mapping[str, tuple[int, ...]],
    rewind_limit: int,
) -> None:
    """Refuse a ticket that breaks a rule, naming the tensor and the rule.

    Args:
        ticket: what the method yielded.
        shapes: of the prunable tensors.
        names: shapes of every tensor of the state, by name.
        rewind_limit: the latest step that it may start from.
    """
    if not isinstance(ticket, Ticket):
        raise TicketError(f"find_tickets yielded a {type(ticket).__name__}; yield Ticket(masks)")
    if not isinstance(ticket.masks, Mapping):
        raise TicketError("masks must be a mapping from parameter name to bool tensor")
    missing, extra = [n for n in shapes if n not in ticket.masks], set(ticket.masks) - set(shapes)
    if missing or extra:
        what = (
            f"mask missing for {missing[0]}" if missing else f"{min(map(str, extra))}: not prunable"
        )
        raise TicketError(f"{what}; masks need exactly the names of problem.prunable")
    for name, mask in ticket.masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
            raise TicketError(f"mask of {name} is {kind}; masks are bool tensors, True = kept")
        if tuple(mask.shape) != shapes[name]:
            raise TicketError(f"mask of {name} has shape {tuple(mask.shape)}, not {shapes[name]}")
    if type(ticket.start) is not int or not 0 <= ticket.start <= rewind_limit:
        raise TicketError(
            f"start {ticket.start!r}: a ticket starts at step 0 to {rewind_limit} of the dense run"
        )
    if ticket.start and not ticket.trained:
        raise TicketError(f"start {ticket.start} of an untrained ticket; these start at step 0")
    if ticket.weights is not None:
        _check_weights(ticket.weights, names)


def _check_weights(weights: Any, names: Mapping[str, tuple[int, ...]]) -> None:
    if not isinstance(weights, Mapping):
        raise TicketError("weights must be a mapping from name to tensor")
    if extra := sorted(map(str, set(weights) - set(names))):
        raise TicketError(f"weights of {extra[0]}: the network has no such tensor")
    for name, shape in names.items():
        tensor = weights.get(name)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            raise TicketError(
                f"weights need every tensor of the state; {name} is missing or misshapen"
            )
        if tensor.dtype != torch.float32:
            raise TicketError(f"weights of {name} are {tensor.dtype}; a state is float32")
        if not bool(tensor.isfinite().all()):
            raise TicketError(f"weights of {name} are not finite")


def rung_of(ticket: Ticket, ladder: Sequence[float], total: int, done: Sequence[float]) -> float:
    """Return the rung of the ticket's kept count; rungs come once each, sparsest last."""
    kept = mask_arithmetic.kept(ticket.masks)
    counts = {mask_arithmetic.target_count(density, total): density for density in ladder}
    if kept not in counts:
        nearest = min(counts, key=lambda count: abs(count - kept))
        raise TicketError(
            f"{kept} of {total} weights kept, which is no rung; the nearest keeps {nearest} "
            f"(density {counts[nearest]:.4g}); use keep_top(scores, density)"
        )
    rung = counts[kept]
    if rung in done:
        raise TicketError(f"the rung at density {rung:.4g} came twice; yield each rung once")
    if done and rung > done[-1]:
        raise TicketError(f"density {rung:.4g} after {done[-1]:.4g}; yield the sparsest last")
    return rung


def origin(
    ticket: Ticket,
    thetas: Mapping[int, State],
    trained: Sequence[State],
    elsewhere: Sequence[State] = (),
) -> tuple[str, int]:
    """Determine where the ticket's weights come from, and their step k; the first match counts.

    Args:
        ticket: the ticket, already checked.
        thetas: theta_0 and every known theta_k up to the rewind limit.
        trained: the states that this method's `train` returned.
        elsewhere: theta_0 and theta_k of the same seed at other depths.

    Returns:
        The origin and the step at which training begins (protocol, section 5): "init", "rewind",
        "signs", "scaled" (of untrained tickets: theta_0 times one positive factor per tensor),
        "transferred" (tensor by tensor one of a theta elsewhere), "final" or "free". Pruned entries
        are zeroed before comparing; all comparisons are bitwise.
    """
    if not ticket.trained:
        thetas = {0: thetas[0]}  # biases and norms as drawn: a later state's are learned
    if ticket.weights is None:
        return ("rewind" if ticket.start else "init"), ticket.start
    weights = _pruned(ticket.weights, ticket.masks)
    for k, theta in sorted(thetas.items()):
        if _equal(weights, _pruned(theta.tensors(), ticket.masks)):
            return ("rewind" if k else "init"), k
    for k, theta in sorted(thetas.items()):
        if _signs(weights, theta.tensors(), ticket.masks):
            return "signs", k
    if not ticket.trained and _scaled(weights, thetas[0].tensors(), ticket.masks):
        return "scaled", 0
    for theta in elsewhere if ticket.trained else ():
        if copied(weights, theta.tensors(), ticket.masks):
            return "transferred", theta.step
    for state in trained:
        if _equal(weights, _pruned(state.tensors(), ticket.masks)):
            return "final", ticket.start  # learning-rate rewinding: the schedule restarts
    return "free", ticket.start


def completed(
    weights: Mapping[str, Tensor], theta: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Fill in the pruned entries of weights of origin "signs" or "scaled" by their own rule.

    A ticket's training never sees these entries, but its shuffled control does: zeros there would
    handicap the control for reasons unrelated to the masks.
    """
    whole = dict(weights)
    for name, mask in masks.items():
        kept, source = weights[name][mask], theta[name][mask]
        if len(kept):
            largest = int(source.abs().argmax())  # its quotient has the smallest rounding error
            one_magnitude = bool((kept.abs() == kept[0].abs()).all())
            rest = (
                kept[0].abs() * theta[name].sign()
                if one_magnitude
                else theta[name] * (kept[largest] / source[largest])
            )
            whole[name] = torch.where(mask, weights[name], rest)
    return whole


def copied(
    weights: Mapping[str, Tensor], source: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> bool:
    """Return whether each tensor's kept entries equal a source tensor's of its shape bitwise."""

    def one_of(tensor: Tensor, mask: Tensor | None) -> bool:
        alike = [other for other in source.values() if other.shape == tensor.shape]
        if mask is None:
            return any(same(tensor, other) for other in alike)
        return any(same(tensor[mask], other[mask]) for other in alike)

    return all(one_of(tensor, masks.get(name)) for name, tensor in weights.items())


def _pruned(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: torch.where(masks[name], tensor, torch.zeros_like(tensor))
        if name in masks
        else tensor
        for name, tensor in tensors.items()
    }


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)


def _signs(
    weights: Mapping[str, Tensor], theta: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> bool:
    """Return whether prunable tensors are one magnitude times theta's signs, others theta's."""
    if weights.keys() != theta.keys():
        return False
    for name, tensor in weights.items():
        if name not in masks:
            if not same(tensor, theta[name]):
                return False
            continue
        kept, source = tensor[masks[name]], theta[name][masks[name]]
        if len(kept) and not (
            bool((kept.abs() == kept[0].abs()).all())
            and bool(kept[0] != 0)
            and torch.equal(kept.sign(), source.sign())
        ):
            return False
    return True


def _scaled(
    weights: Mapping[str, Tensor], theta: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> bool:
    """Return whether prunable tensors are theta's times one positive factor, others theta's."""
    if weights.keys() != theta.keys():
        return False
    return all(
        _one_factor(tensor[masks[name]], theta[name][masks[name]])
        if name in masks
        else same(tensor, theta[name])
        for name, tensor in weights.items()
    )


def _one_factor(scaled: Tensor, source: Tensor) -> bool:
    """Return whether one positive number times each entry of ``source`` rounds to ``scaled``.

    An entry allows the factors between the two midpoints to its float32 neighbours, divided by the
    source entry; a factor exists exactly if these intervals have a point in common.
    """
    if not torch.equal(scaled.sign(), source.sign()):
        return False
    nonzero = source != 0
    if not same(scaled[~nonzero], source[~nonzero]):  # zeros keep their sign too
        return False
    values, units = scaled[nonzero].abs(), source[nonzero].abs().double()
    if not len(values):
        return True
    above = torch.nextafter(values, torch.full_like(values, torch.inf)).double()
    below = torch.nextafter(values, torch.zeros_like(values)).double()
    low, high = (values.double() + below) / 2 / units, (values.double() + above) / 2 / units
    return bool(low.max() <= high.min() * (1 + 1e-15))  # the divisions are rounded in float64
