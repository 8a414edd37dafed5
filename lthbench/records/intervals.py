"""Means, intervals and bounds over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
MIN_SEEDS = 3  # below this, individual values are shown instead of an interval
ALPHA = 0.05  # one-sided error of every yes/no decision


# Accuracies are counts over test sets of far fewer than a million examples, so closer means are
# equal up to rounding: 0.975 - 0.98 is not below -0.005, despite floating point.
TIE = 1e-9
FEW = 32  # values up to which plain summation is used


@dataclass(frozen=True)
class Interval:
    """Mean of n values and its interval; low and high are None where n is too small for one."""

    mean: float
    low: float | None
    high: float | None
    n: int


def alike(values: ArrayLike) -> bool:
    """Return whether values are equal up to rounding, as differences of equal counts are."""
    if isinstance(values, (list, tuple)) and set(map(type, values)) == {float}:
        return bool(max(values) - min(values) <= TIE)
    return bool(np.ptp(np.asarray(values, dtype=np.float64)) <= TIE)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Compute the mean over seeds with its two-sided t interval.

    Equal values give an interval of width zero. Source: protocol, section 10.1.

    Args:
        values: [seeds], any unit.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If there are no values, or one is not finite.
    """
    array = _seeds("values", values)
    if array.size < MIN_SEEDS:
        return Interval(float(array.mean()), None, None, array.size)
    mean, low, high = mean_bounds(array, level)
    return Interval(float(mean), float(low), float(high), array.size)


def drop_if_alike(found: Interval, values: Iterable[ArrayLike]) -> Interval:
    """Drop the bounds if seeds are equal on every task, since there is no spread to estimate."""
    return Interval(found.mean, None, None, found.n) if all(map(alike, values)) else found


def paired_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Compute the mean of first - second over seeds with its two-sided t interval.

    Source: protocol, section 10.1.

    Args:
        first: [seeds], any unit.
        second: [seeds], the same seeds in the same order and unit.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If lengths differ, or a value is not finite.
    """
    return t_interval(_paired("first", first, "second", second), level)


def suite_interval(tasks: Sequence[ArrayLike], level: float = 0.95) -> Interval:
    """Compute the plain mean over tasks with its two-sided Welch-Satterthwaite interval.

    There is no interval if a task has fewer than three seeds. Source: protocol, section 10.1.

    Args:
        tasks: For each task its values [seeds], all in one unit.
        level: Confidence level in (0, 1).

    Returns:
        The interval; n counts the (task, seed) units.

    Raises:
        ValueError: If there are no tasks, one is empty, or a value is not finite.
    """
    arrays = [_seeds(f"tasks[{k}]", values) for k, values in enumerate(tasks)]
    if not arrays:
        raise ValueError("tasks: is empty, needs at least one task")
    units = sum(array.size for array in arrays)
    if min(array.size for array in arrays) < MIN_SEEDS:
        return Interval(float(np.mean([array.mean() for array in arrays])), None, None, units)
    mean, low, high = suite_bounds(arrays, level)
    return Interval(float(mean), float(low), float(high), units)


def one_sided(values: ArrayLike, alpha: float = ALPHA) -> tuple[float, float] | tuple[None, None]:
    """Compute lower and upper one-sided t bounds of a mean, each at alpha on its own.

    Source: protocol, section 10.1.

    Args:
        values: [seeds], any unit.
        alpha: Error of each bound, in (0, 1).

    Returns:
        The bounds; (None, None) below three seeds.

    Raises:
        ValueError: If there are no values, or one is not finite.
    """
    array = _seeds("values", values)
    _open_unit("alpha", alpha)
    if array.size < MIN_SEEDS:
        return None, None
    lower, upper = _one_sided_bounds(array, alpha)
    return float(lower), float(upper)


def binomial_se(p: float, n: int) -> float:
    """Return the standard error of an accuracy p measured on n test examples.

    Source: protocol, section 10.1.

    Args:
        p: Accuracy, a fraction.
        n: Number of examples, at least 1.

    Raises:
        ValueError: If an argument is out of range.
    """
    if n < 1:
        raise ValueError(f"n: is {n}, needs at least one example")
    _fractions("p", p)
    return float(np.sqrt(p * (1 - p) / n))


def mean_bounds(values: FloatArray, level: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute mean, lower and upper t bound over the last axis: a batched `t_interval`.

    Source: protocol, section 10.1.

    Args:
        values: [..., seeds] with at least two seeds, finite.
        level: Confidence level in (0, 1).

    Returns:
        Three arrays [...].

    Raises:
        ValueError: If the level is out of range.
    """
    _open_unit("level", level)
    mean, error = _mean_and_error(values)
    half = _t_quantile((1 + level) / 2, values.shape[-1] - 1.0) * error
    return mean, mean - half, mean + half


def suite_bounds(
    tasks: Sequence[FloatArray], level: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute mean over tasks, lower and upper bound: a batched `suite_interval`.

    s.e.^2 = sum s_k^2 / n_k / K^2, degrees of freedom by Welch and Satterthwaite. Source: protocol,
    section 10.1; Welch 1947.

    Args:
        tasks: For each task [..., seeds] with at least two seeds, finite.
        level: Confidence level in (0, 1).

    Returns:
        Three arrays [...].

    Raises:
        ValueError: If the level is out of range.
    """
    _open_unit("level", level)
    moments = [_mean_and_error(values) for values in tasks]
    mean = np.mean([mean for mean, _ in moments], axis=0)
    errors = np.array([error for _, error in moments])
    # The degrees of freedom depend only on the proportions of the errors; relative to the largest,
    # fourth powers cannot underflow, and a task without variance drops out.
    largest = errors.max(axis=0)
    scale = np.where(largest > 0, largest, 1.0)
    shares = (errors / scale) ** 2
    seeds = np.array([values.shape[-1] for values in tasks]).reshape(-1, *[1] * largest.ndim)
    spread = (shares**2 / (seeds - 1)).sum(axis=0)
    # No variance anywhere: width zero, whatever the degrees of freedom.
    freedom = np.where(largest > 0, shares.sum(axis=0) ** 2 / np.where(spread > 0, spread, 1), 1.0)
    error = scale * np.sqrt(shares.sum(axis=0)) / len(tasks)
    half = _t_quantile((1 + level) / 2, freedom) * error
    return mean, mean - half, mean + half


def sign_flip(ticket: ArrayLike, control: ArrayLike) -> float:
    """Compute the exact one-sided p of "not above zero" by sign flips of the paired differences.

    The smallest p is 2**-n, so n = 5 can reach .031. Source: protocol, section 10.2.

    Args:
        ticket: [seeds], at most 16.
        control: [seeds], the same seeds in the same order.
    """
    differences = _paired("ticket", ticket, "control", control)
    n = differences.size
    if n > 16:
        raise ValueError(f"ticket: {n} seeds, all flips are listed up to 16")
    flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = flips @ differences
    return float(_at_least(sums, differences.sum()).mean())


def predicted(values: ArrayLike, reference: ArrayLike, level: float = 0.99) -> bool:
    """Return whether the mean of new values lies in the reference's t prediction interval.

    Source: protocol, section 6.

    Args:
        values: [runs].
        reference: [runs], at least 3.
        level: Level of the prediction interval in (0, 1).
    """
    new, old = _seeds("values", values), _seeds("reference", reference)
    mean, error = (float(moment) for moment in _mean_and_error(old))
    deviation = error * float(np.sqrt(old.size))
    reach = float(_t_quantile((1 + level) / 2, old.size - 1.0)) * deviation
    width = reach * float(np.sqrt(1 / old.size + 1 / new.size))
    return bool(_at_least(width, abs(float(new.mean()) - mean)))


def _t_quantile(p: float, freedom: float | FloatArray) -> FloatArray | float:
    if isinstance(freedom, float):
        return _t_quantile_of(p, freedom)
    from scipy import special

    return np.asarray(special.stdtrit(freedom, p), dtype=np.float64)


@lru_cache(maxsize=1024)  # a record needs a few of them, hundreds of times
def _t_quantile_of(p: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, p))


def _t_upper_tail(t: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtr(freedom, -t))


def _mean_and_error(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Compute the mean and its standard error over the last axis, [...] each."""
    if values.ndim == 1 and 1 < values.size <= FEW:
        return _of_few(values.tolist())
    first = values[..., :1]
    # Relative to the first value, so that equal values give exactly that mean and no variance.
    offsets = values - first
    mean = first[..., 0] + offsets.mean(axis=-1)
    return mean, offsets.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def _of_few(values: list[float]) -> tuple[FloatArray, FloatArray]:
    """Compute the same for a few seeds, ten times faster without numpy."""
    first, n = values[0], len(values)
    offsets = [value - first for value in values]
    mean = sum(offsets) / n
    variance = sum((offset - mean) ** 2 for offset in offsets) / (n - 1)
    return np.float64(first + mean), np.float64(math.sqrt(variance) / math.sqrt(n))  # type: ignore[return-value]


def _one_sided_bounds(values: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Return bounds over the last axis, from the two-sided interval that excludes 2 alpha."""
    mean, error = _mean_and_error(values)
    half = _t_quantile(1 - alpha, values.shape[-1] - 1.0) * error
    return mean - half, mean + half


def _at_least(value: ArrayLike, bound: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(np.subtract(value, bound) >= -TIE)


def _above(value: ArrayLike, bound: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(np.subtract(value, bound) > TIE)


def _finite(name: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    fine = np.isfinite(array)
    if not fine.all():
        index = tuple(int(i) for i in np.argwhere(~fine)[0])
        raise ValueError(f"{name}{list(index) or ''}: is {array[index]}, must be finite")
    return array


def _seeds(name: str, values: ArrayLike) -> FloatArray:
    array = _finite(name, values)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name}: shape {array.shape}, must be one value for each seed")
    return array


def _table(name: str, values: ArrayLike, rungs: int | None = None) -> FloatArray:
    array = _finite(name, values)
    if array.ndim != 2 or not array.size or rungs not in (None, array.shape[1]):
        raise ValueError(f"{name}: shape {array.shape}, must be [seeds, {rungs or 'rungs'}]")
    return array


def _fractions(name: str, values: ArrayLike, low: float = 0.0) -> FloatArray:
    array = _finite(name, values)
    if array.size and (array.min() < low or array.max() > 1):
        raise ValueError(
            f"{name}: {array.min():g}..{array.max():g} leaves {low:g}..1: fractions, not points"
        )
    return array


def _paired(first_name: str, first: ArrayLike, second_name: str, second: ArrayLike) -> FloatArray:
    left, right = _seeds(first_name, first), _seeds(second_name, second)
    if left.size != right.size:
        raise ValueError(
            f"{first_name}, {second_name}: {left.size} and {right.size} seeds, must be the same"
        )
    return left - right


def _open_unit(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: is {value}, must be between 0 and 1")
