"""Arithmetic on masks: choosing them from scores, counting, comparing, packing and digests.

A mask is one bool tensor for each prunable tensor, keyed by parameter name, True = kept.
Density is the kept fraction of all entries; counts are exact everywhere. An entry's flat index
is its row-major one, whatever the memory layout. Every error is a ``TicketError``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lthbench.errors import TicketError

Masks: TypeAlias = Mapping[str, Tensor]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_Bools: TypeAlias = NDArray[np.bool_]
_Ranks: TypeAlias = NDArray[np.uint64]

# Every integer of smaller magnitude has a float64 of its own; larger ones may share one.
_EXACT_INTEGERS = 2**53
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


# --- choosing ------------------------------------------------------------------------------


def target_count(density: float, total: int) -> int:
    """Return how many of ``total`` entries are kept at ``density``: ``round(density * total)``.

    The product is computed in float64 and rounded half to even, as by Python's ``round``: half of
    5 entries is 2. ``density`` must be in (0, 1]; the count may be 0.
    """
    _require_density(density)
    return round(density * total)


def keep_top(
    scores: Mapping[str, Tensor],
    keep: float | Mapping[str, int],
    within: Masks | None = None,
) -> dict[str, Tensor]:
    """Keep exactly the requested number of highest-scored entries.

    ``scores``: real tensors of any shape, dtype and device; infinities are ordered, NaN is
    refused, integers must lie within 2**53. ``keep``: a density in (0, 1] of all entries of
    ``scores``, ranked globally, or the exact count of each tensor, ranked layer by layer.
    ``within``: masks like ``scores``; only their True entries may be kept (a density
    still refers to all entries).

    Ties at the threshold are broken by a fixed pseudo-random rank, splitmix64 (Steele et al.
    2014) started at the first 8 bytes of sha256 of the tensor's name and read at the flat index.
    So equal values give equal masks in any dict order, dtype and device; masks of one set of
    scores are nested as their density falls, and narrowing by ``within`` changes nothing.

    Returns bool tensors of the scores' shapes, in the order and on the devices of ``scores``.
    Raises TicketError for NaN, names or shapes that do not agree, a density outside (0, 1] and a
    count above the number of entries that may be kept.
    """
    if not scores:
        raise TicketError("keep_top: there are no scores")
    if within is not None:
        _require_alike(scores, within, "scores", "within")
        _require_bool(within)
    pools = {name: _Pool.of(name, scores[name], within) for name in sorted(scores)}
    if isinstance(keep, Mapping):
        _require_names(scores, keep, "scores", "counts")
        chosen = {name: _choose([pool], keep[name], name)[0] for name, pool in pools.items()}
    else:
        size = sum(values.numel() for values in scores.values())
        picked = _choose(list(pools.values()), target_count(keep, size), "all tensors")
        chosen = dict(zip(pools, picked, strict=True))
    return {
        name: torch.from_numpy(chosen[name]).reshape(values.shape).to(values.device)
        for name, values in scores.items()
    }


@dataclass(frozen=True)
class _Pool:
    """One tensor's candidates: the scores that may be kept, and their flat indices (None = all)."""

    name: str
    size: int
    values: NDArray[np.float64]
    allowed: NDArray[np.intp] | None

    @classmethod
    def of(cls, name: str, scores: Tensor, within: Masks | None) -> _Pool:
        values = _float64(name, scores)
        if within is None:
            return cls(name, values.size, values, None)
        allowed = np.flatnonzero(_flat(within[name]))
        return cls(name, values.size, values[allowed], allowed)

    def indices(self, positions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the flat indices of candidates by their position in the pool."""
        return positions if self.allowed is None else self.allowed[positions]

    def mask(self, selected: _Bools) -> _Bools:
        """Return a new flat mask of the tensor, from one bool per candidate."""
        if self.allowed is None:
            return selected.copy()
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[self.allowed[selected]] = True
        return mask


def _choose(pools: Sequence[_Pool], count: int, where: str) -> list[_Bools]:
    """Return one flat mask per pool that together keep the ``count`` best candidates.

    ``pools`` must be sorted by name: their order decides between equal tie ranks.
    """
    sizes = [pool.values.size for pool in pools]
    available = sum(sizes)
    if not isinstance(count, (int, np.integer)):
        raise TicketError(f"keep_top: the count for {where} is {count!r}, not a whole number")
    if not 0 <= count <= available:
        raise TicketError(
            f"keep_top: {count} entries are to be kept in {where}, but {available} may be kept"
        )
    values = pools[0].values if len(pools) == 1 else np.concatenate([p.values for p in pools])
    starts = np.cumsum([0, *sizes])[:-1]
    selected, ties, missing = _above(values, count)
    if missing:
        parts = np.split(ties, np.searchsorted(ties, starts[1:]))
        ranks = [
            _tie_ranks(pool.name, pool.indices(part - start))
            for pool, part, start in zip(pools, parts, starts, strict=True)
        ]
        selected[ties[_lowest(np.concatenate(ranks), missing)]] = True
    split = np.split(selected, starts[1:])
    return [pool.mask(part) for pool, part in zip(pools, split, strict=True)]


def _above(values: NDArray[np.float64], count: int) -> tuple[_Bools, NDArray[np.intp], int]:
    """Return which values exceed the ``count``-th highest, which equal it, and how many to add."""
    nothing = np.empty(0, dtype=np.intp)
    if count in (0, values.size):
        return np.full(values.size, count > 0), nothing, 0
    threshold = np.partition(values, values.size - count)[values.size - count]
    selected = values > threshold
    missing = count - int(np.count_nonzero(selected))
    return selected, np.flatnonzero(values == threshold), missing


def _lowest(ranks: _Ranks, count: int) -> NDArray[np.intp]:
    """Return the positions of the ``count`` lowest ranks, stable among equal ones."""
    if count == ranks.size:
        return np.arange(count)
    threshold = np.partition(ranks, count - 1)[count - 1]
    below = np.flatnonzero(ranks < threshold)
    equal = np.flatnonzero(ranks == threshold)[: count - below.size]
    return np.concatenate([below, equal])


def _tie_ranks(name: str, indices: NDArray[np.intp]) -> _Ranks:
    """Return the pseudo-random ranks, uint64, of the entries at flat ``indices`` of a tensor."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    # Array arithmetic wraps modulo 2**64, as splitmix64 requires; scalars would warn.
    word = indices.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64((start + _GOLDEN) & _WORD)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: _Ranks = word ^ (word >> np.uint64(31))
    return mixed


def _float64(name: str, scores: Tensor) -> NDArray[np.float64]:
    """Return scores flat, as float64 on the CPU, which holds every accepted value exactly."""
    if not isinstance(scores, Tensor):
        kind = type(scores).__name__
        raise TicketError(f"scores of {name} are {kind}: give torch tensors (torch.as_tensor)")
    if scores.is_complex():
        raise TicketError(f"scores of {name} are complex ({scores.dtype}): use their magnitude")
    # To the CPU first: some accelerators have no float64.
    tensor = scores.detach().cpu().reshape(-1).to(torch.float64)
    values: NDArray[np.float64] = tensor.numpy()
    if np.isnan(values).any():
        unusable = int(np.count_nonzero(np.isnan(values)))
        raise TicketError(f"scores of {name} contain NaN ({unusable} of {values.size} entries)")
    integral = not scores.dtype.is_floating_point
    if integral and values.size and np.abs(values).max() >= _EXACT_INTEGERS:
        raise TicketError(f"scores of {name} hold integers beyond 2**53: scale them down")
    return values


# --- counts for each tensor ----------------------------------------------------------------


# --- counting and comparing ----------------------------------------------------------------


def counts(masks: Masks) -> dict[str, int]:
    """Return the number of kept entries of each tensor, in the order of ``masks``."""
    _require_bool(masks)
    return {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}


def kept(masks: Masks) -> int:
    """Return the number of kept entries of all tensors together."""
    return sum(counts(masks).values())


def total(masks: Masks) -> int:
    """Return N, the number of entries of all tensors together."""
    return sum(mask.numel() for mask in masks.values())


def density(masks: Masks) -> float:
    """Return the kept fraction of all entries, in [0, 1]; TicketError if there are none."""
    size = total(masks)
    if size == 0:
        raise TicketError("density: the masks have no entries")
    return kept(masks) / size


def nested(inner: Masks, outer: Masks) -> bool:
    """Return whether ``outer`` keeps every entry that ``inner`` keeps.

    Both must have the same names and shapes (TicketError otherwise); devices may differ.
    """
    _require_alike(inner, outer, "inner", "outer")
    _require_bool(inner)
    _require_bool(outer)
    return not any(bool((_flat(inner[name]) & ~_flat(outer[name])).any()) for name in inner)


# --- files ---------------------------------------------------------------------------------


def pack(masks: Masks) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return masks as bits and their shapes, ready for safetensors and JSON.

    The first dict holds flat uint8 CPU tensors of ceil(size / 8) bytes, row-major, the first
    entry in the highest bit, the last byte padded with zeros (``numpy.packbits``); the second
    the shapes. Both are keyed and sorted by parameter name: equal masks give equal bytes.
    """
    _require_bool(masks)
    names = sorted(masks)
    bits = {name: torch.from_numpy(np.packbits(_flat(masks[name]))) for name in names}
    return bits, {name: list(masks[name].shape) for name in names}


def unpack(bits: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return the masks that ``pack`` was given: bool CPU tensors, sorted by name.

    Raises TicketError for names that differ, invalid shapes, bits that are not flat uint8 of the
    right length, and padding bits that are not zero.
    """
    _require_names(bits, shapes, "bits", "shapes")
    return {name: _unpack_one(name, bits[name], shapes[name]) for name in sorted(bits)}


def _unpack_one(name: str, packed: Tensor, shape: Sequence[int]) -> Tensor:
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 0 for side in shape):
        raise TicketError(f"packed mask of {name}: {list(shape)} is not a shape")
    size = math.prod(shape)
    length = -(-size // 8)
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (length,):
        raise TicketError(
            f"packed mask of {name}: found {packed.dtype} of shape {list(packed.shape)}, "
            f"shape {list(shape)} needs torch.uint8 of shape [{length}]"
        )
    unpacked = np.unpackbits(packed.cpu().numpy())
    if unpacked[size:].any():
        raise TicketError(f"packed mask of {name}: the filling bits after entry {size} are not 0")
    return torch.from_numpy(unpacked[:size].astype(np.bool_)).reshape(tuple(shape))


def digest(masks: Masks) -> str:
    """Return sha256, in hex, of names, shapes and packed bits, whatever the order and device.

    The hash covers one line of JSON, ``[[name, shape], ...]`` sorted by name, and the packed bits
    of the tensors in the same order; the shapes say where each ends.
    """
    bits, shapes = pack(masks)
    header = json.dumps(list(shapes.items()), ensure_ascii=True, separators=(",", ":"))
    state = hashlib.sha256(header.encode("ascii") + b"\n")
    for packed in bits.values():
        state.update(packed.numpy().tobytes())
    return state.hexdigest()


# --- checks --------------------------------------------------------------------------------


def _flat(mask: Tensor) -> _Bools:
    """Return a mask as a flat, row-major array on the CPU."""
    flat: _Bools = mask.detach().cpu().reshape(-1).numpy()
    return flat


def _require_density(density: float) -> None:
    if 0 < density <= 1:
        return
    hint = ""
    if 1 < density <= 100:
        hint = f"; for {density:g} % write {density / 100:g}"
    raise TicketError(f"density {density!r} is outside (0, 1], the kept fraction{hint}")


def _require_bool(masks: Masks) -> None:
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise TicketError(f"mask of {name} is {mask.dtype}, masks are torch.bool, True = kept")


def _require_names(
    first: Mapping[str, Any], second: Mapping[str, Any], first_name: str, second_name: str
) -> None:
    for name in sorted(first.keys() ^ second.keys()):
        here, there = (first_name, second_name) if name in first else (second_name, first_name)
        raise TicketError(f"{name} is in {here} but not in {there}: both need the same tensors")


def _require_alike(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], first_name: str, second_name: str
) -> None:
    _require_names(first, second, first_name, second_name)
    for name in sorted(first):
        here, there = list(first[name].shape), list(second[name].shape)
        if here != there:
            raise TicketError(f"{name} has shape {here} in {first_name}, {there} in {second_name}")
