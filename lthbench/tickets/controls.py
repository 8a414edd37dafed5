"""Controls: what replaces a ticket's masks or start weights to show what they contribute.

Pure functions of their arguments and of the seed's streams ``control/<kind>``. Each draw takes
``attempt``: a control whose training failed is drawn again under the next number. Each tensor has
its own stream, so results do not depend on the order of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthbench.errors import TicketError
from lthbench.seeds import generator
from lthbench.tickets.allocation import Rule, layer_counts
from lthbench.tickets.masks import Masks, Shapes, counts, keep_top

__all__ = ["RULES", "fresh_magnitudes", "fresh_signs", "random_masks", "rescaled", "shuffled"]

# The protocol's names of the two kinds of random ticket.
_KINDS: dict[Rule, str] = {"uniform": "random", "erk": "erk"}
# The rule by which the masks of a control are drawn, by its kind in a record.
RULES: Mapping[str, Rule] = {"random": "uniform", "erk": "erk", "untrained_random": "uniform"}


def shuffled(
    masks: Masks, seed: int, *, attempt: int = 0
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Permute each tensor's mask within the tensor, keeping its count but not its positions.

    Answers "which weights?" (Frankle et al. 2021, "Pruning neural networks at initialization: why
    are we missing the mark?"). Returns the masks, in the order and on the devices of ``masks``, and
    the sorted names of tensors that cannot change because they are full, empty or of one element.
    Every other tensor's mask differs from the original.
    """
    kept = counts(masks)
    own = {name for name, mask in masks.items() if kept[name] in (0, mask.numel())}
    result = {
        name: mask.clone() if name in own else _shuffled_one(name, mask, seed, attempt)
        for name, mask in masks.items()
    }
    return result, tuple(sorted(own))


def _shuffled_one(name: str, mask: Tensor, seed: int, attempt: int) -> Tensor:
    """Return a permutation of ``mask``, neither full nor empty, other than ``mask`` itself."""
    flat: NDArray[np.bool_] = mask.detach().cpu().reshape(-1).numpy()
    # A permutation of few elements often leaves the mask unchanged, which would be no control.
    permuted, draw = flat, 0
    while np.array_equal(permuted, flat):
        random = generator(seed, "control", "shuffled", name, attempt, draw)
        permuted, draw = random.permutation(flat), draw + 1
    return torch.from_numpy(permuted).reshape(mask.shape).to(mask.device)


def random_masks(
    shapes: Shapes, densities: Sequence[float], seed: int, rule: Rule, *, attempt: int = 0
) -> list[dict[str, Tensor]]:
    """Draw random masks, one for each density, with the layer counts of ``rule``.

    All densities share one draw of scores, so sparser masks are subsets of denser ones wherever no
    tensor's count grows (rounding can move one entry between tensors). Bool CPU tensors in the
    order of ``shapes``. Raises TicketError as ``allocation.layer_counts`` does.
    """
    wanted = [layer_counts(shapes, density, rule) for density in densities]
    kind = _KINDS[rule]
    scores = {
        name: torch.from_numpy(generator(seed, "control", kind, name, attempt).random(shape))
        for name, shape in shapes.items()
    }
    return [keep_top(scores, keep) for keep in wanted]


def rescaled(
    fresh: Mapping[str, Tensor], like: Mapping[str, Tensor], masks: Masks, prunable: Iterable[str]
) -> dict[str, Tensor]:
    """Scale each prunable tensor of ``fresh`` so that its kept entries' norm is that of ``like``.

    For tasks where the scale of the weights by itself affects when a network generalises. Norms are
    Euclidean, summed exactly in float64; results are float32 tensors on the CPU. A tensor of
    ``fresh`` whose kept entries are all zero, or none, cannot be scaled and stays as it is. Other
    tensors of ``fresh`` are passed through.

    Raises TicketError for a missing tensor or shapes that differ.
    """
    result = dict(fresh)
    for name in prunable:
        mask = _like(masks, name, fresh)
        own = _norm(fresh[name], mask)
        wanted = _norm(_like(like, name, fresh), mask)
        factor = wanted / own if own > 0 else 1.0
        scaled = fresh[name].detach().cpu().to(torch.float64) * factor
        result[name] = scaled.to(torch.float32)
    return result


def _norm(values: Tensor, mask: Tensor) -> float:
    """Return the Euclidean norm of the entries that ``mask`` keeps."""
    entries = values.detach().cpu().to(torch.float64)[mask.cpu()]
    # fsum rounds once: threads and vector width cannot change the control's weights.
    return math.sqrt(math.fsum(entries.square().tolist()))


def fresh_signs(
    start: Mapping[str, Tensor],
    masks: Masks,
    prunable: Iterable[str],
    seed: int,
    *,
    attempt: int = 0,
) -> dict[str, Tensor]:
    """Give each kept entry of the prunable tensors its magnitude with a random sign.

    The control of tickets that consist of signs (Zhou et al. 2019, "Deconstructing lottery
    tickets"). Signs are drawn for every entry and used where ``masks`` keep it, so an entry's sign
    does not depend on the mask; the rest of ``start`` is passed through. Dtypes and devices are
    those of ``start``. Raises TicketError for a missing tensor or shapes that differ.
    """
    result = dict(start)
    for name in prunable:
        mask = _like(masks, name, start)
        values = start[name].detach()
        random = generator(seed, "control", "signs", name, attempt)
        drawn = random.integers(0, 2, size=tuple(values.shape), dtype=np.int8)
        negative = torch.from_numpy(np.asarray(drawn, dtype=np.bool_)).to(values.device)
        magnitude = values.abs()
        signed = torch.where(negative, -magnitude, magnitude)
        result[name] = torch.where(mask.to(values.device), signed, values)
    return result


def fresh_magnitudes(
    start: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    masks: Masks,
    prunable: Iterable[str],
) -> dict[str, Tensor]:
    """Give each kept entry of ``fresh`` the sign that it has in ``start``.

    Tests what a ticket owes to the signs of its start alone (Zhou et al. 2019, "Deconstructing
    lottery tickets"). A weight of 0 counts as positive. The rest of ``fresh`` is passed through;
    results are on the CPU. Raises TicketError for a missing tensor or shapes that differ.
    """
    result = dict(fresh)
    for name in prunable:
        mask, like = _like(masks, name, fresh).cpu(), _like(start, name, fresh).detach().cpu()
        values = fresh[name].detach().cpu()
        signed = torch.where(like < 0, -values.abs(), values.abs())
        result[name] = torch.where(mask, signed, values)
    return result


def _like(tensors: Mapping[str, Tensor], name: str, state: Mapping[str, Tensor]) -> Tensor:
    """Return ``tensors[name]`` after checking that it exists and has the shape in ``state``."""
    if name not in state:
        raise TicketError(f"{name} is prunable but not among the start weights")
    if name not in tensors:
        raise TicketError(f"{name} is prunable but has no tensor to go with its start weights")
    if tensors[name].shape != state[name].shape:
        found, wanted = list(tensors[name].shape), list(state[name].shape)
        raise TicketError(f"{name} has shape {found}, the start weights have {wanted}")
    return tensors[name]
