"""Ranks as intervals: which contenders of a board differ for certain, by max-T.

The unit is a (task, seed) pair: the harness draws seeds and streams, so contenders are paired. A
suite's score is the plain mean over tasks of the mean over seeds, and a difference of two scores is
told in its standard errors, as `stats.suite_interval` computes them. If two contenders were alike,
the sign of each unit's difference would be a coin; the same coins are thrown for all pairs of a
board, so that the largest of all statistics knows how they hang together; protocol, section 10.2,
and Westfall & Young 1993.

The statistic is squared, T^2, and its variance is at least `LEAST_VARIANCE` of the mean square: a
difference that is the same on every seed has a large T, not an infinite one, and none has T = 0.
Any statistic is fair here, for the coins' throws go through the same one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthbench import seeds
from lthbench.errors import LthbenchError
from lthbench.io.paths import cache, canonical_json, digest, write_whole

FloatArray = NDArray[np.float64]
VERSION = 2  # of what is stored
ALPHA = 0.05
LEAST_UNITS = 10
ALL_TO = 16  # units up to which every flip is tried
DRAWN = 100_000  # flips, where not all are tried
MANY = 100  # contenders above which one step is made, with fewer flips
DRAWN_OF_MANY = 10_000
LEAST_DRAWN = 399  # so that .05 is a whole number of flips, 19 of them
TRIED = 5 * 10**9  # statistics of a board that are computed at most, while there are LEAST_DRAWN
LEAST_VARIANCE = 1e-10
TIE = 1e-9  # of T^2: closer statistics are one number, rounded twice
NOTHING = 1e-16  # T^2 below it is 0, rounded: equal means, of which rounding may leave 1e-33
TOGETHER = 2**24  # bytes of one array that is held
TILE = 256  # contenders by contenders that are compared at a time
STORED_FROM = 10**7  # statistics: what takes less is computed again


@dataclass(frozen=True)
class Adjusted(Mapping[tuple[str, str], float]):
    """Adjusted p values by two names, either first; a pair's is found when it is asked for.

    Attributes:
        rows: the place of each name in `units`, in order of rank.
        table: p by place, of boards that were stepped down; else None.
        maxima: the largest T^2 of each flip, rising; of boards of one step.
    """

    rows: Mapping[str, int]
    units: FloatArray = field(repr=False)
    sizes: tuple[int, ...]
    table: FloatArray | None = field(repr=False)
    maxima: FloatArray = field(repr=False)

    def __getitem__(self, pair: tuple[str, str]) -> float:
        first, second = (self.rows[name] for name in pair)
        if first == second:
            raise KeyError(pair)
        if self.table is not None:
            return float(self.table[first, second])
        found = _squared(self.units[[first]] - self.units[[second]], self.sizes)
        return float(_one_step(found, self.maxima)[0])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((a, b) for a in self.rows for b in self.rows if a != b)

    def __len__(self) -> int:
        return len(self.rows) * (len(self.rows) - 1)


@dataclass(frozen=True)
class Ranked:
    """Rank intervals of a board.

    Attributes:
        entries: best suite score first; those of equal score by name.
        low, high: the best and the worst rank that is left open to each.
        p: adjusted, by two names.
    """

    entries: tuple[str, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    p: Adjusted


def rank(scores: Mapping[str, Sequence[Sequence[float]]]) -> Ranked:
    """Rank intervals [1 + significantly better, K - significantly worse] at .05 for the board.

    Args:
        scores: by contender, for each task one value a seed; of one shape for all of them.

    Raises:
        ValueError: for no contender, fewer than ten units, or shapes that differ.
    """
    names, units, sizes = _table(scores)
    if sum(sizes) < LEAST_UNITS:
        raise ValueError(f"{sum(sizes)} units; ranks need {LEAST_UNITS}")
    p = _adjusted(names, units, sizes)
    low, high = _intervals(p)
    return Ranked(names, low, high, p)


def sign_flips(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Two-sided p of "no difference" for two suites' values: a board of these two alone.

    Raises:
        ValueError: for shapes that differ.
    """
    names, units, sizes = _table({"a": first, "b": second})
    return _adjusted(names, units, sizes)["a", "b"]


def _table(
    scores: Mapping[str, Sequence[Sequence[float]]],
) -> tuple[tuple[str, ...], FloatArray, tuple[int, ...]]:
    """Names in order, their values (contenders, units), and the units of each task."""
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
    """What each unit adds to the suite's mean."""
    return np.repeat([1 / (len(sizes) * size) for size in sizes], sizes)


# The statistic


def _factors(sizes: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """By task: what squares of values, and what squares of their sum, add to the variance.

    The squared s.e. of a sum of task means is sum_k (Q_k - S_k^2 / n_k) / (n_k (n_k - 1)).
    """
    n = np.array(sizes, dtype=np.float64)
    return 1 / (n * (n - 1)), 1 / (n * n * (n - 1))


def _squared(differences: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """T^2 of each row of differences (pairs, units), no sign flipped."""
    of_squares, of_sums = _factors(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(differences, starts, axis=1)
    squares = np.add.reduceat(differences**2, starts, axis=1) @ of_squares
    return _ratio((sums @ (1 / np.array(sizes))) ** 2, squares - sums**2 @ of_sums, squares)


def _ratio(above: FloatArray, below: FloatArray, squares: FloatArray) -> FloatArray:
    """T^2 with its least variance; 0 where there is no difference at all."""
    least = LEAST_VARIANCE * squares + np.finfo(np.float64).tiny
    return np.asarray(above / np.maximum(below, least))


def _reached(observed: FloatArray) -> FloatArray:
    """What a flip's statistic must come to, to count as no smaller than the observed one.

    An observed 0 asks for 0, which every flip reaches, one that is rounded to 1e-33 as well; all
    others ask for more than flips that are 0, rounded, have. So only what is observed is cut off.
    """
    return np.where(observed < NOTHING, 0.0, observed * (1 - TIE))


def signs(units: int, drawn: int) -> FloatArray:
    """Signs (flips, units): all of them, the first sign fixed, as T^2 does not see it; or drawn."""
    if units <= ALL_TO and 2 ** (units - 1) <= drawn:
        bits = (np.arange(2 ** (units - 1))[:, None] >> np.arange(units)) & 1
        return np.asarray(1 - 2 * bits[:, ::-1], dtype=np.float64)
    bits = seeds.generator(0, "ranks").integers(0, 2, (drawn, units), dtype=np.int8)
    return np.asarray(1 - 2 * bits, dtype=np.float64)


def _all(flips: FloatArray) -> bool:
    """Whether these are all flips, the unflipped one among them."""
    return bool(len(flips) == 2 ** (flips.shape[1] - 1))


def _p(counts: NDArray[np.int64], flips: FloatArray) -> FloatArray:
    """p from how many flips reach a statistic: of drawn ones (b + 1) / (B + 1)."""
    more = 0 if _all(flips) else 1
    return np.asarray((counts + more) / (len(flips) + more), dtype=np.float64)


# p values


def _adjusted(names: Sequence[str], units: FloatArray, sizes: tuple[int, ...]) -> Adjusted:
    """p values of a board, from its stored result where there is one."""
    count = len(names)
    pairs = count * (count - 1) // 2
    flips = signs(sum(sizes), _drawn(count))
    stored = None
    if pairs * len(flips) >= STORED_FROM:
        key = [VERSION, names, sizes, len(flips), digest(np.ascontiguousarray(units).tobytes())]
        stored = f"ranks-{digest(canonical_json(key))[:32]}.json"
    wanted = pairs if count <= MANY else len(flips)
    found = _read(stored, wanted)
    if found is None:
        found = step_down(units, sizes, flips) if count <= MANY else _maxima(units, sizes, flips)
        _store(stored, found)
    rows = {name: row for row, name in enumerate(names)}
    if count > MANY:
        return Adjusted(rows, units, sizes, None, found)
    table = np.ones((count, count))
    table[np.triu_indices(count, 1)] = found
    return Adjusted(rows, units, sizes, np.minimum(table, table.T), np.zeros(0))


def _drawn(count: int) -> int:
    """How many flips a board of so many contenders gets."""
    if count <= MANY:
        return DRAWN
    return min(DRAWN_OF_MANY, max(LEAST_DRAWN, TRIED // (count * (count - 1) // 2)))


def step_down(units: FloatArray, sizes: tuple[int, ...], flips: FloatArray) -> FloatArray:
    """Adjusted p of each pair (in the order of `triu_indices`), by step-down max-T.

    From the largest statistic on, each is held against the maximum over itself and all that are
    smaller; p never falls on the way (Westfall & Young 1993, algorithm 2.8).

    Args:
        units: values (contenders, units), task by task.
        sizes: units of each task.
        flips: of `signs`.
    """
    first, second = np.triu_indices(len(units), 1)
    differences = units[first] - units[second]
    observed = _squared(differences, sizes)
    order = np.argsort(observed, kind="stable")
    differences, reached = differences[order], _reached(observed[order])
    of_squares, of_sums = _factors(sizes)
    task = np.repeat(np.arange(len(sizes)), sizes)
    squares = differences**2 @ of_squares[task]
    # S_k^2 flips as its products of two units do: a sum over pairs of units of one task.
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


def _maxima(units: FloatArray, sizes: tuple[int, ...], flips: FloatArray) -> FloatArray:
    """The largest T^2 over all pairs of each flip, rising."""
    blocks = list(_blocks(flips, len(units) * (len(sizes) + 2)))
    threads = min(len(blocks), os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:  # numpy's loops let others run
        found = list(pool.map(lambda block: _largest(units, sizes, block), blocks))
    return np.sort(np.concatenate(found))


def _largest(units: FloatArray, sizes: tuple[int, ...], flips: FloatArray) -> FloatArray:
    """The largest T^2 over all pairs of each of a few flips.

    A pair's sums are differences of its contenders' sums, so that what S_k^2 takes from the
    variance is a squared distance, which one product of two tall matrices gives for all pairs.
    """
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    of_squares, of_sums = _factors(sizes)
    centred = units - units.mean(axis=0)  # keeps the distances' cancellation small
    means = flips @ (centred / np.array(sizes)[tasks]).T
    places = [flips[:, tasks == k] @ centred[:, tasks == k].T for k in range(len(sizes))]
    points = np.stack(places, axis=-1) * np.sqrt(of_sums)  # flips, contenders, tasks
    norms = (points**2).sum(axis=-1, keepdims=True)
    ones = np.ones_like(norms)
    left = np.concatenate([2 * points, -norms, -ones], axis=-1)
    right = np.concatenate([points, ones, norms], axis=-1)
    rounding = 1e-13 * float(norms.max())
    whole = centred * np.sqrt(of_squares)[tasks]
    largest = np.zeros(len(flips))
    for a, b in _tiles(len(units)):
        squares = ((whole[a, None, :] - whole[None, b, :]) ** 2).sum(axis=-1)
        least = LEAST_VARIANCE * squares + rounding
        below, above = np.empty_like(squares), np.empty_like(squares)
        for at in range(len(flips)):
            np.matmul(left[at, a], right[at, b].T, out=below)
            below += squares
            np.maximum(below, least, out=below)
            np.subtract(means[at, a][:, None], means[at, b], out=above)
            above *= above
            above /= below
            largest[at] = max(largest[at], above.max())
    return largest


def _tiles(count: int) -> Iterator[tuple[slice, slice]]:
    """Squares of pairs that cover each pair, some of them twice."""
    starts = range(0, count, TILE)
    for a in starts:
        for b in starts:
            if a <= b:
                yield slice(a, min(a + TILE, count)), slice(b, min(b + TILE, count))


def _one_step(observed: FloatArray, maxima: FloatArray) -> FloatArray:
    """p of each statistic against the maximum over all pairs; the flips were drawn."""
    smaller = np.searchsorted(maxima, _reached(observed), side="left")
    return np.asarray((len(maxima) - smaller + 1) / (len(maxima) + 1), dtype=np.float64)


# Rank intervals


def _intervals(p: Adjusted) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ranks that are left open; the places of `p` are in order of score."""
    count = len(p.rows)
    better, worse = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for a, b in _tiles(count):
        sure = _block_of_p(p, a, b) <= ALPHA
        sure &= np.arange(a.start, a.stop)[:, None] < np.arange(b.start, b.stop)
        worse[a] += sure.sum(axis=1)
        better[b] += sure.sum(axis=0)
    return tuple((1 + better).tolist()), tuple((count - worse).tolist())


def _block_of_p(p: Adjusted, a: slice, b: slice) -> FloatArray:
    if p.table is not None:
        return p.table[a, b]
    differences = p.units[a, None, :] - p.units[None, b, :]
    found = _squared(differences.reshape(-1, p.units.shape[1]), p.sizes)
    return _one_step(found, p.maxima).reshape(differences.shape[:2])


# What is stored


def _read(name: str | None, wanted: int) -> FloatArray | None:
    """A stored result; None if there is none that can be read."""
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
    """Keep a result for next time, where the cache can be written."""
    if name is not None:
        with suppress(LthbenchError):
            write_whole(cache() / "board" / name, canonical_json(found.tolist()))
