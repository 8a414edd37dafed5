"""Elastic transfer: a ticket of one depth, block by block, at another depth of its family.

Chen et al. 2021, "The elastic lottery ticket hypothesis", arXiv:2103.16547. A deeper network gets
copies of blocks, a shallower one loses the last ones; masks, weights and the state of norms move
together, by one table of sources, and nothing is rescaled or redrawn. The first block of a fixed
stage, and everything outside blocks, maps one to one. Pure functions: arguments are not changed,
results share no memory with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import cycle, islice
from typing import Literal, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from lthbench.errors import TicketError
from lthbench.networks.blocks import Level
from lthbench.networks.state import State
from lthbench.seeds import generator
from lthbench.tickets import ticket as tickets
from lthbench.tickets.allocation import largest_remainder
from lthbench.tickets.masks import Masks, counts, keep_top, target_count, total
from lthbench.tickets.ticket import Ticket

Order: TypeAlias = Literal["append", "interpolate"]
Blocks: TypeAlias = tuple[int, ...]  # of one stage: the source block of every target block
Sources: TypeAlias = Mapping[str, str]  # the source tensor of every target tensor

FACTOR = 2  # by which a transferred density may miss its rung


class AtDepth(Protocol):
    """What a problem exposes of its network, its ladders and its dense run."""

    @property
    def level(self) -> Level:
        """Names and shapes of all tensors, and the repeated blocks."""

    @property
    def densities(self) -> tuple[float, ...]:
        """The ladder of trained tickets, sparsest last."""

    @property
    def untrained_densities(self) -> tuple[float, ...]:
        """The ladder of untrained tickets, sparsest last."""

    def theta(self, k: int = 0) -> State:
        """Return the canonical dense run at step k."""


# --- which block comes from which ------------------------------------------------------------


def block_map(source: int, target: int, fixed: bool, order: str = "append") -> Blocks:
    """Return the source block of every target block of a stage with `source` and `target` blocks.

    Fewer: the last ones are dropped. More: every block is copied once before any is copied twice,
    earlier ones first, and never block 0 of a `fixed` stage. "append" puts the copies at the end,
    one round of the blocks after the other; "interpolate" puts each after its original.
    """
    first = int(fixed)
    if order not in get_args(Order):
        raise TicketError(f"order {order!r}: copies are placed by {' or '.join(get_args(Order))}")
    if source < first or target < first:
        least = "its fixed block at least" if fixed else "no fewer than 0"
        raise TicketError(f"not transferable: {source} to {target} blocks; a stage has {least}")
    if target > source == first:
        raise TicketError(
            f"not transferable: {source} to {target} blocks, and the source has none to copy"
        )
    added = islice(cycle(range(first, source)), max(0, target - source))
    blocks = (*range(min(source, target)), *added)
    return blocks if order == "append" else tuple(sorted(blocks))


def block_maps(source: Level, target: Level, order: str = "append") -> tuple[Blocks, ...]:
    """Return the map of every stage; TicketError names a block that the target cannot get."""
    _same_stages(source, target)
    maps = []
    for old, new in zip(source.stages, target.stages, strict=True):
        try:
            maps.append(block_map(len(old.blocks), len(new.blocks), new.fixed, order))
        except TicketError as error:
            block = (new.blocks[len(old.blocks) :] or new.blocks or old.blocks or ("",))[0]
            raise TicketError(f"{block}* from depth {source.depth}: {error}") from error
    return tuple(maps)


def undone(maps: tuple[Blocks, ...]) -> tuple[Blocks, ...]:
    """Return the maps that undo a deepening: of each block and its copies the first is kept."""
    return tuple(tuple(blocks.index(block) for block in sorted(set(blocks))) for blocks in maps)


# --- which tensor comes from which -----------------------------------------------------------


def sources(source: Level, target: Level, maps: tuple[Blocks, ...]) -> dict[str, str]:
    """Return the source tensor of every tensor of the target's state, in the target's order.

    Raises TicketError, naming the tensor, for one that has no source or one of another shape, for
    one with a mask on one side only, and for a source tensor that is left without a target.
    """
    _same_stages(source, target)
    origin: dict[str, str] = {}
    for old, new, blocks in zip(source.stages, target.stages, maps, strict=True):
        if len(blocks) != len(new.blocks) or not set(blocks) <= set(range(len(old.blocks))):
            raise TicketError(
                f"block map {blocks}: it must name one of {len(old.blocks)} source blocks for each "
                f"of {len(new.blocks)}"
            )
        if new.fixed and (blocks[:1] != (0,) or 0 in blocks[1:]):
            raise TicketError(f"{new.blocks[0]}* is fixed: it comes from block 0, which comes once")
        origin |= {name: old.blocks[b] for name, b in zip(new.blocks, blocks, strict=True)}
    found = {name: _moved(name, origin) for name in target.tensors}
    for name, old_name in found.items():
        _agree(name, old_name, source, target)
    _nothing_left(source, target, set(found.values()), set(origin.values()))
    return found


def carry(tensors: Mapping[str, Tensor], where: Sources) -> dict[str, Tensor]:
    """Return a copy of its source for every target tensor of a table of `sources`."""
    for name, old in where.items():
        if old not in tensors:
            raise TicketError(f"{name}: its source {old} is not among what is carried")
    return {name: tensors[old].detach().clone() for name, old in where.items()}


def copies(target: Level, maps: tuple[Blocks, ...]) -> tuple[str, ...]:
    """Return the target's prunable tensors in blocks that repeat an earlier block's source."""
    prefixes = tuple(
        stage.blocks[place]
        for stage, blocks in zip(target.stages, maps, strict=True)
        for place, block in enumerate(blocks)
        if block in blocks[:place]
    )
    return tuple(name for name in target.prunable if name.startswith(prefixes))


def _same_stages(source: Level, target: Level) -> None:
    here, there = ([stage.fixed for stage in level.stages] for level in (source, target))
    if here != there:
        raise TicketError(
            f"not transferable: {len(here)} stages at depth {source.depth} and {len(there)} at "
            f"depth {target.depth} do not correspond; carry between depths of one family"
        )


def _moved(name: str, blocks: Mapping[str, str]) -> str:
    block = _block(name, blocks)
    return name if block is None else blocks[block] + name.removeprefix(block)


def _block(name: str, blocks: Collection[str]) -> str | None:
    return next((block for block in blocks if name.startswith(block)), None)


def _agree(name: str, old: str, source: Level, target: Level) -> None:
    if old not in source.tensors:
        raise TicketError(
            f"{name} at depth {target.depth} has no source: there is no {old} at depth "
            f"{source.depth}; carry between depths of one family"
        )
    if source.tensors[old] != target.tensors[name]:
        raise TicketError(
            f"{name} has shape {target.tensors[name]}, its source {old} has {source.tensors[old]}; "
            "carry between depths of one family"
        )
    if (old in source.prunable) != (name in target.prunable):
        raise TicketError(f"{name} and its source {old}: only one of the two has a mask")


def _nothing_left(source: Level, target: Level, used: set[str], used_blocks: set[str]) -> None:
    """Check that tensors are dropped only with their whole block."""
    every = [block for stage in source.stages for block in stage.blocks]
    for name in source.tensors:
        block = _block(name, every)
        if name not in used and (block is None or block in used_blocks):
            raise TicketError(
                f"{name} at depth {source.depth} has no place at depth {target.depth}; carry "
                "between depths of one family"
            )


# --- exact counts ----------------------------------------------------------------------------


def to_count(
    masks: Masks, weights: Mapping[str, Tensor], wanted: int, among: Collection[str] = ()
) -> dict[str, Tensor]:
    """Bring masks to exactly `wanted` kept entries, changing the tensors of surplus or lack.

    Of the tensors in `among` (a deeper network's `copies`; all if it is empty, or if these alone
    cannot make up the difference), a tensor's surplus is what it keeps above their joint target
    density. Too many kept: tensors of surplus lose entries in proportion to it, smallest |weight|
    first. Too few: tensors of lack gain entries in proportion to it, largest |weight| first.
    Fractions are rounded by largest remainder, equal magnitudes ordered by `keep_top`'s fixed rank.
    So a ticket at its rung keeps its own entries when it is deepened, and what is added has the
    rung's density; no tensor passes that density by a whole entry.

    Raises TicketError if the density is off by more than a factor of 2, naming the tensor that is
    furthest off, for an invalid count, and for weights that do not fit the masks.
    """
    sizes = {name: mask.numel() for name, mask in masks.items()}
    have, every = counts(masks), sum(sizes.values())
    if not 0 <= wanted <= every:
        raise TicketError(f"{wanted} of {every} entries are to be kept; name a count from 0 to all")
    if not sum(have.values()) <= FACTOR * wanted <= FACTOR**2 * sum(have.values()):
        raise TicketError(_refusal(have, sizes, wanted))
    share = _new_counts(have, sizes, wanted, among)
    return {name: _resized(name, mask, weights, share[name]) for name, mask in masks.items()}


def _refusal(have: Mapping[str, int], sizes: Mapping[str, int], wanted: int) -> str:
    found, every = sum(have.values()), sum(sizes.values())
    rung = wanted / every
    worst = max(sizes, key=lambda name: (abs(have[name] - rung * sizes[name]), name))
    return (
        f"{worst}: the carried masks have density {found / every:.4g} for a rung of {rung:.4g}, "
        f"off by more than a factor of {FACTOR}; this tensor keeps {have[worst]} of {sizes[worst]}"
    )


def _new_counts(
    have: Mapping[str, int], sizes: Mapping[str, int], wanted: int, among: Collection[str]
) -> dict[str, int]:
    """Return how many entries each tensor keeps at the wanted count; exact arithmetic."""
    chosen = [name for name in have if name in among]
    left = wanted - sum(count for name, count in have.items() if name not in among)
    if not chosen or not 0 <= left <= sum(sizes[name] for name in chosen):
        chosen, left = list(have), wanted
    difference = left - sum(have[name] for name in chosen)
    if difference == 0:
        return dict(have)
    density = Fraction(left, sum(sizes[name] for name in chosen))
    lack = {name: density * sizes[name] - have[name] for name in chosen}  # negative: surplus
    # All lacks sum to the difference, so those with its sign sum to at least as much.
    lack = {name: value for name, value in lack.items() if value * difference > 0}
    scale = abs(difference) / sum((abs(value) for value in lack.values()), start=Fraction(0))
    moved = largest_remainder({n: abs(v) * scale for n, v in lack.items()}, abs(difference))
    sign = 1 if difference > 0 else -1
    return {name: count + sign * moved.get(name, 0) for name, count in have.items()}


def _resized(name: str, mask: Tensor, weights: Mapping[str, Tensor], count: int) -> Tensor:
    """Drop the mask's weakest entries, or add the strongest pruned ones."""
    have = int(torch.count_nonzero(mask))
    if count == have:
        return mask.clone()
    if name not in weights:
        raise TicketError(f"{name} has a mask but no weights to choose its entries by")
    magnitudes = {name: weights[name].detach().abs().to(mask.device)}
    if count < have:
        return keep_top(magnitudes, {name: count}, {name: mask})[name]
    return mask | keep_top(magnitudes, {name: count - have}, {name: ~mask})[name]


# --- tickets ---------------------------------------------------------------------------------


def elastic(ticket: Ticket, source: AtDepth, target: AtDepth, *, order: str = "append") -> Ticket:
    """Transfer a ticket from one depth to another by the elastic rules, on the same rung.

    Args:
        ticket: a ticket of the source.
        source: the problem at the ticket's depth; theta_k of its dense run is read if the ticket
            starts from it.
        target: the problem at the other depth.
        order: of the copies in a deeper network, "append" or "interpolate".

    Raises:
        TicketError: in one line, if there is no block to copy, if the ticket does not belong to the
            source, or if it ends at more than twice or less than half the rung's density.
    """
    own = ticket.weights
    start = dict(source.theta(ticket.start)) if own is None else own
    ladder = source.densities if ticket.trained else source.untrained_densities
    belongs(ticket, start, source.level)
    density = tickets.rung_of(ticket, ladder, total(ticket.masks), ())
    maps = block_maps(source.level, target.level, order)
    return carried(ticket, start, source.level, target.level, density, maps)


def carried(
    ticket: Ticket,
    start: Mapping[str, Tensor],
    source: Level,
    target: Level,
    density: float,
    maps: tuple[Blocks, ...],
) -> Ticket:
    """Return the ticket at the target, with exactly round(density * N) kept and its own weights.

    Args:
        ticket: a ticket of the source.
        start: what it starts from at the source: theta_0, theta_k, or its own weights.
        source: the network that it was found for.
        target: the network at the other depth.
        density: of the rung, in (0, 1].
        maps: from `block_maps`, or from `undone`, which reverses a deepening.
    """
    belongs(ticket, start, source)
    where = sources(source, target, maps)
    weights = carry(start, where)
    masks = carry(ticket.masks, {name: where[name] for name in target.prunable})
    moved = replace(ticket, masks=masks, weights=weights)
    return on_rung(moved, weights, target, density, copies(target, maps))


def on_rung(
    ticket: Ticket,
    start: Mapping[str, Tensor],
    at: Level,
    density: float,
    among: Collection[str] = (),
) -> Ticket:
    """Return a transferred ticket, by whatever rule, with exactly round(density * N) kept.

    Args:
        ticket: the ticket at its target.
        start: what it starts from there; its magnitudes decide which entries are dropped or added.
        at: the target network.
        density: of the rung, in (0, 1].
        among: as in `to_count`.
    """
    belongs(ticket, start, at)
    wanted = target_count(density, total(ticket.masks))
    return replace(ticket, masks=to_count(ticket.masks, start, wanted, among))


def belongs(ticket: Ticket, start: Mapping[str, Tensor], at: Level) -> None:
    """Refuse a ticket for another network, naming the tensor that does not fit."""
    prunable = {name: at.tensors[name] for name in at.prunable}
    try:
        # How late it may start was checked when it was yielded.
        tickets.check(replace(ticket, weights=start), prunable, at.tensors, ticket.start)
    except TicketError as error:
        raise TicketError(f"not a ticket of depth {at.depth}: {error}") from error


def parts(
    ticket: Ticket, fresh: Mapping[str, Tensor], seed: int, *, attempt: int = 0
) -> dict[str, Ticket]:
    """Split a transferred ticket into parts, to see which of them accounts for its score.

    Each part has the ticket's masks or random ones with its count in every tensor, and its weights
    or others: "mask-only" is its masks with other weights, "weights-only" its weights under random
    masks, "layers" neither.

    Args:
        ticket: the ticket at its target.
        fresh: another draw of the target's theta_0, sharing no value with the source's.
        seed: of the random masks.
        attempt: of the draw.
    """
    lots = {
        name: torch.from_numpy(generator(seed, "control", "layers", name, attempt).random(shape))
        for name, shape in ((name, tuple(mask.shape)) for name, mask in ticket.masks.items())
    }
    drawn = keep_top(lots, counts(ticket.masks))
    return {
        "layers": Ticket(drawn, 0, fresh, trained=ticket.trained),
        "mask-only": Ticket(dict(ticket.masks), 0, fresh, trained=ticket.trained),
        "weights-only": replace(ticket, masks=drawn),
    }
