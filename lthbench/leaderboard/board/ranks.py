"""Ranks as intervals: which contenders of a board differ significantly, by max-T.

The unit is a (task, seed) pair: the harness chooses seeds and streams, so contenders are paired. A
suite's score is the plain mean over tasks of the mean over seeds, and a difference of two scores is
given in its standard errors, as `stats.suite_interval` computes them. If two contenders were equal,
the sign of each unit's difference would be a coin toss. The same tosses are used for all pairs of a
board, so that the maximum statistic reflects their dependence; protocol, section 10.2, and
Westfall & Young 1993. Time grows with the pairs: a board of 100 contenders takes minutes, once.

The statistic is squared, T^2, and its variance is at least `LEAST_VARIANCE` of the mean square: a
constant difference over seeds has a large but finite T, and no nonzero difference has T = 0. Any
statistic is valid here, since the flips use the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthbench import seeds
from lthbench.errors import LthbenchError
from lthbench.io.paths import cache, canonical_json, digest, write_whole

FloatArray = NDArray[np.float64]
VERSION = 2  # of the stored results
ALPHA = 0.05
LEAST_UNITS = 10
ALL_TO = 16  # units up to which every flip is enumerated
DRAWN = 100_000  # flips, where not all are enumerated
LEAST_VARIANCE = 1e-10
TIE = 1e-9  # of T^2: closer statistics are equal up to rounding
NOTHING = 1e-16  # smaller T^2 is rounded to 0: equal means, for which rounding may leave 1e-33
TOGETHER = 2**24  # maximum bytes of one array
STORED_FROM = 10**7  # statistics; anything cheaper is recomputed


@dataclass(frozen=True)
class Ranked:
    """Rank intervals of a board.

    Attributes:
        entries: Best suite score first; equal scores in order of name.
        low: The best rank that remains possible for each entry.
        high: The worst rank that remains possible for each entry.
        p: Adjusted, by two names in either order.
    """

    entries: tuple[str, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    p: Mapping[tuple[str, str], float]


def rank(scores: Mapping[str, Sequence[Sequence[float]]]) -> Ranked:
    """Compute rank intervals [1 + significantly better, K - significantly worse] at .05.

    Args:
        scores: For each contender and task, one value per seed; the same shape for all contenders.

    Raises:
        ValueError: If there is no contender, there are fewer than ten units, or shapes differ.
    """
    names, units, sizes = _table(scores)
    if sum(sizes) < LEAST_UNITS:
        raise ValueError(f"{sum(sizes)} units; ranks need {LEAST_UNITS}")
    p = _adjusted(names, units, sizes)
    sure = np.triu(p <= ALPHA, 1)
    low, high = 1 + sure.sum(axis=0), len(names) - sure.sum(axis=1)
    pairs = ((a, b) for a in range(len(names)) for b in range(len(names)) if a != b)
    found = {(names[a], names[b]): float(p[a, b]) for a, b in pairs}
    return Ranked(names, tuple(low.tolist()), tuple(high.tolist()), found)


def sign_flips(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Return the two-sided p of "no difference" for two suites' values: a board of only these two.

    Raises:
        ValueError: If shapes differ.
    """
    names, units, sizes = _table({"a": first, "b": second})
    return float(_adjusted(names, units, sizes)[0, 1])


def _table(
    scores: Mapping[str, Sequence[Sequence[float]]],
) -> tuple[tuple[str, ...], FloatArray, tuple[int, ...]]:
    """Return names in order, their values (contenders, units), and the units of each task."""
    shapes = {tuple(len(task) for task in tasks) for tasks in scores.values()}
    if len(shapes) != 1:
        raise ValueError(f"{len(scores)} contenders of {len(shapes)} shapes; a board needs one")
    (sizes,) = shapes
    if min(sizes, default=0) < 2:
        raise ValueError(f"{sizes} seeds; each task needs two for a variance")
    table = {name: np.concatenate([*map(np.asarray, tasks)]) for name, tasks in scores.items()}
    weights = _weights(sizes)
    names = tuple(sorted(table, key=lambda name: (-float(weights @ table[name]), name)))
    units = np.array([table[name] for name in names], dtype=np.float64)
    if not np.isfinite(units).all():
        raise ValueError("values of a board must be finite")
    return names, units, sizes


def _weights(sizes: Sequence[int]) -> FloatArray:
    """Return the contribution of each unit to the suite's mean."""
    return np.repeat([1 / (len(sizes) * size) for size in sizes], sizes)


# The statistic


def _factors(sizes: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Return, by task, the factors of sums of squares and of squared sums in the variance.

    The squared s.e. of a sum of task means is sum_k (Q_k - S_k^2 / n_k) / (n_k (n_k - 1)).
    """
    n = np.array(sizes, dtype=np.float64)
    return 1 / (n * (n - 1)), 1 / (n * n * (n - 1))


def _squared(differences: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """Return T^2 of each row of differences (pairs, units), with no sign flipped."""
    of_squares, of_sums = _factors(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(differences, starts, axis=1)
    squares = np.add.reduceat(differences**2, starts, axis=1) @ of_squares
    return _ratio((sums @ (1 / np.array(sizes))) ** 2, squares - sums**2 @ of_sums, squares)


def _ratio(above: FloatArray, below: FloatArray, squares: FloatArray) -> FloatArray:
    """Return T^2 with the variance bounded below; 0 where there is no difference at all."""
    least = LEAST_VARIANCE * squares + np.finfo(np.float64).tiny
    return np.asarray(above / np.maximum(below, least))


def _reached(observed: FloatArray) -> FloatArray:
    """Return the threshold at which a flip's statistic counts as no smaller than the observed one.

    An observed 0 has threshold 0, which every flip reaches, including a 0 rounded to 1e-33; any
    other threshold exceeds rounding noise. So only the observed values are cut off.
    """
    return np.where(observed < NOTHING, 0.0, observed * (1 - TIE))


def signs(units: int, drawn: int) -> FloatArray:
    """Return signs (flips, units): all with the first sign fixed, since T^2 is even, or random."""
    if units <= ALL_TO and 2 ** (units - 1) <= drawn:
        bits = (np.arange(2 ** (units - 1))[:, None] >> np.arange(units)) & 1
        return np.asarray(1 - 2 * bits[:, ::-1], dtype=np.float64)
    bits = seeds.generator(0, "ranks").integers(0, 2, (drawn, units), dtype=np.int8)
    return np.asarray(1 - 2 * bits, dtype=np.float64)


def _all(flips: FloatArray) -> bool:
    """Return whether these are all flips, including the identity."""
    return bool(len(flips) == 2 ** (flips.shape[1] - 1))


def _p(counts: NDArray[np.int64], flips: FloatArray) -> FloatArray:
    """Return p from the number of flips that reach a statistic: (b + 1) / (B + 1) if random."""
    more = 0 if _all(flips) else 1
    return np.asarray((counts + more) / (len(flips) + more), dtype=np.float64)


# p values


def _adjusted(names: Sequence[str], units: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """Return the symmetric matrix of a board's p values, from its stored result if available."""
    count = len(names)
    pairs = count * (count - 1) // 2
    flips = signs(sum(sizes), DRAWN)
    stored = None
    if pairs * len(flips) >= STORED_FROM:
        key = [VERSION, names, sizes, len(flips), digest(np.ascontiguousarray(units).tobytes())]
        stored = f"ranks-{digest(canonical_json(key))[:32]}.json"
    found = _read(stored, pairs)
    if found is None:
        found = step_down(units, sizes, flips)
        _store(stored, found)
    table = np.ones((count, count))
    table[np.triu_indices(count, 1)] = found
    return np.minimum(table, table.T)


def step_down(units: FloatArray, sizes: tuple[int, ...], flips: FloatArray) -> FloatArray:
    """Compute the adjusted p of each pair (in `triu_indices` order), by step-down max-T.

    From the largest statistic down, each is compared with the maximum over itself and all smaller
    ones; p never decreases along the way (Westfall & Young 1993, algorithm 2.8).

    Args:
        units: Values (contenders, units), task by task.
        sizes: Units of each task.
        flips: From `signs`.
    """
    first, second = np.triu_indices(len(units), 1)
    differences = units[first] - units[second]
    observed = _squared(differences, sizes)
    order = np.argsort(observed, kind="stable")
    differences, reached = differences[order], _reached(observed[order])
    of_squares, of_sums = _factors(sizes)
    task = np.repeat(np.arange(len(sizes)), sizes)
    squares = differences**2 @ of_squares[task]
    # Flips act on S_k^2 through products of two units: a sum over pairs of units of one task.
    left, right = np.triu_indices(len(task), 1)
    left, right = left[task[left] == task[right]], right[task[left] == task[right]]
    products = 2 * of_sums[task[left]] * differences[:, left] * differences[:, right]
    level = squares - differences**2 @ of_sums[task]
    means = differences / np.array(sizes)[task]
    counts = np.zeros(len(order), dtype=np.int64)
    least = LEAST_VARIANCE * squares + np.finfo(np.float64).tiny
    for block in _blocks(flips, len(order)):
        above = means @ block.T
        above *= above
        below = products @ (block[:, left] * block[:, right]).T
        np.subtract(level[:, None], below, out=below)
        np.maximum(below, least[:, None], out=below)
        above /= below
        np.maximum.accumulate(above, axis=0, out=above)
        counts += np.count_nonzero(above >= reached[:, None], axis=1)
    p = np.empty(len(order))
    p[order] = np.maximum.accumulate(_p(counts, flips)[::-1])[::-1]
    return p


def _blocks(flips: FloatArray, width: int) -> Iterator[FloatArray]:
    step = max(1, TOGETHER // (8 * max(1, width)))
    return (flips[start : start + step] for start in range(0, len(flips), step))


# Stored results


def _read(name: str | None, wanted: int) -> FloatArray | None:
    """Return a stored result; None if none can be read."""
    if name is None:
        return None
    try:
        table: Any = json.loads((cache() / "board" / name).read_bytes())
        found = np.array(table, dtype=np.float64)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    fits = found.shape == (wanted,) and bool(np.isfinite(found).all())
    return found if fits and (found >= 0).all() else None


def _store(name: str | None, found: FloatArray) -> None:
    """Store a result in the cache, if it is writable."""
    if name is not None:
        with suppress(LthbenchError):
            write_whole(cache() / "board" / name, canonical_json(found.tolist()))
