"""How far two masks overlap, and how far they would by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lthbench.tickets.masks import Masks, _flat, _require_alike, counts


@dataclass(frozen=True)
class OverlapFigures:
    """How far two masks keep the same entries, compared with chance at the same counts.

    Counts are entries; None where a figure is undefined (nothing kept, no freedom left).

    - ``size``, ``kept_a``, ``kept_b``, ``intersection``: what was counted.
    - ``expected``, ``deviation``: mean and standard deviation of the intersection when each
      tensor's kept entries are drawn at random (hypergeometric, tensors independent).
    - ``jaccard``: J = intersection / union, in [0, 1].
    - ``chance``: J0 = expected / (kept_a + kept_b - expected), a ratio of expectations: the mean
      of J lies above it by a term that vanishes as the tensors grow.
    - ``limit``: Jmax, the highest J that the counts allow: min / max of the two counts in one
      tensor, sum of minima / sum of maxima pooled.
    - ``excess``: (J - J0) / (Jmax - J0): 0 at chance, 1 for nested masks.
    - ``z``: (intersection - expected) / deviation.
    """

    size: int
    kept_a: int
    kept_b: int
    intersection: int
    expected: float
    deviation: float
    jaccard: float | None
    chance: float | None
    limit: float | None
    excess: float | None
    z: float | None


@dataclass(frozen=True)
class Overlap:
    """The overlap of two masks: ``tensors`` one by one, sorted by name, and ``pooled``."""

    tensors: Mapping[str, OverlapFigures]
    pooled: OverlapFigures


def overlap(a: Masks, b: Masks) -> Overlap:
    """Compare which entries two masks of the same names and shapes keep.

    The pooled chance sums the tensors' own expectations: with pooled counts any two methods with
    similar layer densities would look alike. Raises TicketError for names or shapes that differ.
    """
    _require_alike(a, b, "a", "b")
    kept_a, kept_b = counts(a), counts(b)
    both = {name: int(np.count_nonzero(_flat(a[name]) & _flat(b[name]))) for name in sorted(a)}
    tables = {name: (a[name].numel(), kept_a[name], kept_b[name], both[name]) for name in both}
    return Overlap(
        tensors={name: _overlap_figures([table]) for name, table in tables.items()},
        pooled=_overlap_figures(list(tables.values())),
    )


def _overlap_figures(tables: Sequence[tuple[int, int, int, int]]) -> OverlapFigures:
    """Return the pooled figures of tensors, each (size, kept in a, kept in b, in both)."""
    size, first, second, both = (sum(column) for column in zip(*tables, strict=True))
    # Fractions: rounding must not decide whether a figure is undefined.
    expected = sum((Fraction(k * m, n) for n, k, m, _ in tables if n), start=Fraction(0))
    variance = sum((_hypergeometric_variance(n, k, m) for n, k, m, _ in tables), start=Fraction(0))
    most = sum(min(k, m) for _, k, m, _ in tables)
    jaccard = _ratio(Fraction(both), first + second - both)
    chance = _ratio(expected, first + second - expected)
    limit = _ratio(Fraction(most), first + second - most)
    excess = None
    if jaccard is not None and chance is not None and limit is not None:
        excess = _ratio(jaccard - chance, limit - chance)
    deviation = math.sqrt(variance)
    return OverlapFigures(
        size=size,
        kept_a=first,
        kept_b=second,
        intersection=both,
        expected=float(expected),
        deviation=deviation,
        jaccard=_float(jaccard),
        chance=_float(chance),
        limit=_float(limit),
        excess=_float(excess),
        z=float(both - expected) / deviation if variance else None,
    )


def _hypergeometric_variance(size: int, first: int, second: int) -> Fraction:
    """Return the variance of the intersection of two random subsets of a set of ``size``."""
    if size < 2:
        return Fraction(0)
    return Fraction(first * second * (size - first) * (size - second), size * size * (size - 1))


def _ratio(numerator: Fraction, denominator: Fraction | int) -> Fraction | None:
    return Fraction(numerator / denominator) if denominator else None


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
