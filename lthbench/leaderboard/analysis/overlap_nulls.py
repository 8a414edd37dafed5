"""How far the masks of two methods keep the same weights, against three nulls.

At one density there is one table per layer, seeds of A by seeds of B. The excess of a pair of masks
is e = (J - J0) / (Jmax - J0), where J is their Jaccard index, J0 its value at the expected
intersection and Jmax = min / max of the two counts: 0 at the null, at most 1. The nulls differ in
the expected intersection.
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

# Ten strata of |theta_0| in each layer, cut at these quantiles of the kept entries: finer at the
# lower end, where otherwise one stratum would hold all the small weights that nobody keeps.
CUTS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
EXACT = 2**24  # counts below it are exact in float32
NONE = 1e-12  # treat a smaller gap between J0 and Jmax as none
LEAST_ROOM = 0.03  # for the other nulls: a smaller remaining gap is uninformative


@dataclass(frozen=True)
class Layer:
    """Counts of one layer: kept in A and in B by seed, in both by pair of seeds.

    Attributes:
        a: [seeds], kept in A.
        b: [seeds], kept in B.
        both: [seeds of A, seeds of B], kept in both.
        stratified: [seeds], the expected intersection of a seed's own pair if the kept entries were
            drawn at random within each stratum of its |theta_0|.
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
        """The largest intersections that the counts allow."""
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
        excess: [seeds of A, seeds of B], over the hypergeometric null, layers pooled.
        same_start: [seeds], over the null of the same start, layers pooled.
        profile: [seeds], the distance between the two profiles of layer densities.
    """

    layers: tuple[Layer, ...]
    excess: Floats
    same_start: Floats
    profile: Floats


def overlaps(a: Sequence[Masks], b: Sequence[Masks], thetas: Sequence[Weights]) -> Overlaps:
    """Compare the masks of the same seeds, in one order.

    Args:
        a: Masks of the first method, one item per seed.
        b: Masks of the second method, one item per seed.
        thetas: theta_0 of each seed.
    """
    layers = tuple(
        _layer(name, [m[name] for m in a], [m[name] for m in b], [t[name] for t in thetas])
        for name in a[0]
    )
    return Overlaps(layers, pooled(layers), pooled_same_start(layers), _profile(layers))


def strata_of(a: Bools, b: Bools, theta: Floats32) -> NDArray[np.int64]:
    """Return the stratum of each entry of a layer, by the size of its initial weight; all flat.

    The cuts are quantiles of |theta_0| among the entries that A or B keeps. Ten parts of equal size
    would suit dense masks only: masks of 2 % lie in the top tenth, within which two methods that
    look only at magnitude would agree by .6 (simulated, with noise of .15 standard deviations);
    here they agree by .02 at most.
    """
    sizes = np.abs(theta)
    kept = np.concatenate([sizes[a], sizes[b]])
    if not kept.size:
        return np.zeros(sizes.size, dtype=np.int64)
    cuts = np.unique(np.quantile(kept, CUTS, method="inverted_cdf"))
    return np.searchsorted(cuts, sizes, side="right")


def _stratified(a: Bools, b: Bools, theta: Floats32) -> float:
    """Return the expected intersection if both keep at random within each stratum."""
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
    """Return the excess e for arrays of intersections.

    Args:
        both: Observed intersections.
        expected: Intersections expected under the null.
        most: The largest intersections that the counts allow.
        sums: Kept in A plus kept in B.
        least_room: Smallest usable gap between J0 and Jmax.

    Returns:
        The excess; NaN where nothing is kept, or J0 is too close to Jmax.
    """

    def jaccard(common: Floats) -> Floats:
        return common / np.where(sums > 0, sums - common, np.nan)

    chance = jaccard(expected)
    room = jaccard(most) - chance
    return (jaccard(both) - chance) / np.where(room > least_room, room, np.nan)


def pooled(layers: Sequence[Layer]) -> Floats:
    """Return the excess of all layers together, relative to the sum of their expectations."""
    names = ("both", "expected", "most", "sums")
    both, expected, most, sums = (together(layers, of) for of in names)
    return excess(both, expected, most, sums)


def pooled_same_start(layers: Sequence[Layer]) -> Floats:
    """Return the excess of each seed's own pair over the null of the same start, [seeds]."""
    own = [np.diag(together(layers, of)) for of in ("both", "most", "sums")]
    return excess(own[0], together(layers, "stratified"), own[1], own[2], LEAST_ROOM)


def together(layers: Sequence[Layer], of: str) -> Floats:
    """Sum a figure over all layers, by its name in one layer."""
    total: Floats = np.sum([getattr(layer, of) for layer in layers], axis=0)
    return total


def over_other_seeds(table: Floats) -> Floats:
    """Return how far each own pair exceeds other seeds' pairs, as a share of what is left to 1.

    A seed's value is its own cell minus the means of the rest of its row and column, plus the mean
    of all off-diagonal cells, divided by 1 minus that mean: what only this A shares with this B,
    beyond what each shares with everyone. The mean over seeds is
    (mean on the diagonal - mean off it) / (1 - mean off it).

    Args:
        table: [n, n] excesses, A's seeds by B's.

    Returns:
        [n]; NaN for one seed, and where other seeds' masks are already the same.
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
    """Return the total variation between the two shares of kept weights by layer, [seeds].

    0: the same share of the kept weights lies in each layer; 1: no layer holds weights of both.
    """
    a, b = (np.array([getattr(layer, side) for layer in layers]) for side in "ab")
    totals = [np.where(side.sum(0) > 0, side.sum(0), np.nan) for side in (a, b)]
    return np.asarray(np.abs(a / totals[0] - b / totals[1]).sum(0) / 2, dtype=np.float64)
