"""How far the masks of two methods keep the same weights, against three nulls.

At one density, seeds of A by seeds of B: a table a layer. The excess of a pair of masks is
e = (J - J0) / (Jmax - J0), with J their Jaccard index, J0 its value at the expected intersection
and Jmax = min / max of the two counts: 0 at the null, at most 1. Which intersection is expected is
what the nulls differ in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Masks = Mapping[str, Bools]
Floats32 = NDArray[np.float32]
Weights = Mapping[str, Floats32]

# Ten strata of |theta_0| in each layer, cut at these quantiles of the kept entries: close at the
# lower end, where one stratum holds all the small weights that nobody keeps.
CUTS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
EXACT = 2**24  # counts below it are exact in float32
NONE = 1e-12  # a room between J0 and Jmax below this is none
LEAST_ROOM = 0.03  # above the other nulls: what is left of less tells nothing


@dataclass(frozen=True)
class Layer:
    """Counts of one layer: kept in A and in B by seed, in both by pair of seeds.

    Attributes:
        a, b: [seeds].
        both: [seeds of A, seeds of B].
        stratified: [seeds], the intersection that is expected of a seed's own pair if the kept
            entries were drawn at random within each stratum of its |theta_0|.
    """

    name: str
    size: int
    a: Floats
    b: Floats
    both: Floats
    stratified: Floats

    @cached_property
    def expected(self) -> Floats:
        """The hypergeometric mean of `both`."""
        return np.outer(self.a, self.b) / max(1, self.size)

    @cached_property
    def most(self) -> Floats:
        """The highest intersections that the counts allow."""
        return np.minimum.outer(self.a, self.b)

    @cached_property
    def sums(self) -> Floats:
        """Kept in A plus kept in B."""
        return np.add.outer(self.a, self.b)

    @property
    def variance(self) -> Floats:
        """The hypergeometric variance of `both`."""
        n = float(self.size)
        if n < 2:
            return np.zeros_like(self.both)
        return np.outer(self.a * (n - self.a), self.b * (n - self.b)) / (n * n * (n - 1))


@dataclass(frozen=True)
class Overlaps:
    """The overlap of two methods at one density; NaN where there is nothing to overlap.

    Attributes:
        excess: [seeds of A, seeds of B] over the hypergeometric null, layers pooled.
        same_start: [seeds] over the null of the same start, layers pooled.
        profile: [seeds] how far the two profiles of layer densities are apart.
    """

    layers: tuple[Layer, ...]
    excess: Floats
    same_start: Floats
    profile: Floats


def overlaps(a: Sequence[Masks], b: Sequence[Masks], thetas: Sequence[Weights]) -> Overlaps:
    """Compare the masks of the same seeds, in one order.

    Args:
        thetas: theta_0 of each seed.
    """
    layers = tuple(
        _layer(name, [m[name] for m in a], [m[name] for m in b], [t[name] for t in thetas])
        for name in a[0]
    )
    return Overlaps(layers, pooled(layers), pooled_same_start(layers), _profile(layers))


def strata_of(a: Bools, b: Bools, theta: Floats32) -> NDArray[np.int64]:
    """The stratum of each entry of a layer, by the size of its initial weight; all are flat.

    The cuts are quantiles of |theta_0| among the entries that A or B keeps. Ten parts of equal size
    would do for dense masks alone: those of 2 % lie in the uppermost tenth, within which two
    methods that look at nothing but size would agree by .6 (simulated, with noise of .15 standard
    deviations); here they agree by .02 at most.
    """
    sizes = np.abs(theta)
    kept = np.concatenate([sizes[a], sizes[b]])
    if not kept.size:
        return np.zeros(sizes.size, dtype=np.int64)
    cuts = np.unique(np.quantile(kept, CUTS, method="inverted_cdf"))
    return np.searchsorted(cuts, sizes, side="right")


def _stratified(a: Bools, b: Bools, theta: Floats32) -> float:
    """The intersection that is expected if both keep at random within each stratum."""
    strata = strata_of(a, b, theta)
    counts = [
        np.bincount(strata[chosen], minlength=len(CUTS) + 1).astype(np.float64)
        for chosen in (a, b, slice(None))
    ]
    return float((counts[0] * counts[1] / np.maximum(1, counts[2])).sum())


def _layer(name: str, a: Sequence[Bools], b: Sequence[Bools], thetas: Sequence[Floats32]) -> Layer:
    first, second = (np.stack([mask.ravel() for mask in masks]) for masks in (a, b))
    kind: type[np.floating[Any]] = np.float32 if first.shape[1] < EXACT else np.float64
    both: NDArray[np.floating[Any]] = first.astype(kind) @ second.astype(kind).T
    same_seed = zip(first, second, thetas, strict=True)
    return Layer(
        name,
        first.shape[1],
        first.sum(axis=1).astype(np.float64),
        second.sum(axis=1).astype(np.float64),
        both.astype(np.float64),
        np.array([_stratified(x, y, theta.ravel()) for x, y, theta in same_seed]),
    )


def excess(
    both: Floats, expected: Floats, most: Floats, sums: Floats, least_room: float = NONE
) -> Floats:
    """e of intersections, of those that are expected, of the most that the counts allow.

    sums: kept in A plus kept in B. NaN where nothing is kept, or J0 is too near to Jmax.
    """

    def jaccard(common: Floats) -> Floats:
        return common / np.where(sums > 0, sums - common, np.nan)

    chance = jaccard(expected)
    room = jaccard(most) - chance
    return (jaccard(both) - chance) / np.where(room > least_room, room, np.nan)


def pooled(layers: Sequence[Layer]) -> Floats:
    """The excess of all layers together, over the sum of their own expectations."""
    names = ("both", "expected", "most", "sums")
    both, expected, most, sums = (together(layers, of) for of in names)
    return excess(both, expected, most, sums)


def pooled_same_start(layers: Sequence[Layer]) -> Floats:
    """The excess of each seed's own pair over the null of the same start, [seeds]."""
    own = [np.diag(together(layers, of)) for of in ("both", "most", "sums")]
    return excess(own[0], together(layers, "stratified"), own[1], own[2], LEAST_ROOM)


def together(layers: Sequence[Layer], of: str) -> Floats:
    """A figure of all layers together, by the name it has in one."""
    total: Floats = np.sum([getattr(layer, of) for layer in layers], axis=0)
    return total


def over_other_seeds(table: Floats) -> Floats:
    """What each seed's own pair has beyond other seeds' pairs, as a share of what is left to 1.

    table: [n, n] excesses of A's seeds by B's. A seed's value is its own cell less what its row
    and its column have elsewhere, plus the mean of all cells off the diagonal, over 1 less that
    mean: what only this A has in common with this B, whatever each shares with everyone. The mean
    over seeds is (mean on the diagonal - mean off it) / (1 - mean off it). NaN for one seed, and
    where other seeds' masks are the same already.
    """
    n = len(table)
    if n < 2:
        return np.full(n, np.nan)
    off = table.copy()
    np.fill_diagonal(off, 0.0)
    rows, columns, mean = off.sum(1) / (n - 1), off.sum(0) / (n - 1), off.sum() / (n * (n - 1))
    room = 1 - mean if 1 - mean > LEAST_ROOM else np.nan
    return np.asarray((np.diag(table) - rows - columns + mean) / room, dtype=np.float64)


def _profile(layers: Sequence[Layer]) -> Floats:
    """Total variation between the two shares of kept weights by layer, [seeds].

    0: the same share of the kept weights lies in each layer; 1: no layer holds weights of both.
    """
    a, b = (np.array([getattr(layer, side) for layer in layers]) for side in "ab")
    totals = [np.where(side.sum(0) > 0, side.sum(0), np.nan) for side in (a, b)]
    return np.asarray(np.abs(a / totals[0] - b / totals[1]).sum(0) / 2, dtype=np.float64)
