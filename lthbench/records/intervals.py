"""Means, intervals and bounds over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


MIN_SEEDS = 3  # below this both values are shown and no interval


ALPHA = 0.05  # one-sided error of every yes or no


# Accuracies are counts over test sets of far fewer than a million examples, so means closer than
# this are one number written twice: 0.975 - 0.98 is not below -0.005, whatever the float says.
TIE = 1e-9


FEW = 32  # values that are summed one by one


@dataclass(frozen=True)
class Interval:
    """A mean of n values and its interval; low and high are None where n is too small for one."""

    mean: float
    low: float | None
    high: float | None
    n: int


def alike(values: ArrayLike) -> bool:
    """Whether values are equal but for rounding, as differences of equal counts are."""
    if isinstance(values, (list, tuple)) and set(map(type, values)) == {float}:
        return bool(max(values) - min(values) <= TIE)
    return bool(np.ptp(np.asarray(values, dtype=np.float64)) <= TIE)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean over seeds with its two-sided t interval.

    values: [seeds], any unit; level in (0, 1). Equal values give an interval of width zero.
    Raises ValueError for no values or a non-finite one. Source: protocol, section 10.1.
    """
    array = _seeds("values", values)
    if array.size < MIN_SEEDS:
        return Interval(float(array.mean()), None, None, array.size)
    mean, low, high = mean_bounds(array, level)
    return Interval(float(mean), float(low), float(high), array.size)


def paired_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of first - second over seeds with its two-sided t interval.

    first, second: [seeds] in the same order of seeds, any one unit; level in (0, 1).
    Raises ValueError for unequal lengths or a non-finite value. Source: protocol, section 10.1.
    """
    return t_interval(_paired("first", first, "second", second), level)


def suite_interval(tasks: Sequence[ArrayLike], level: float = 0.95) -> Interval:
    """Plain mean over tasks with its two-sided Welch-Satterthwaite interval.

    tasks: for each task its values [seeds], all in one unit; level in (0, 1). n counts the
    (task, seed) units. No interval where a task has fewer than three seeds.
    Raises ValueError for no tasks, an empty one or a non-finite value.
    Source: protocol, section 10.1.
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
    """Lower and upper one-sided t bound of a mean, each at alpha on its own.

    values: [seeds], any unit; alpha in (0, 1). (None, None) below three seeds.
    Raises ValueError for no values or a non-finite one. Source: protocol, section 10.1.
    """
    array = _seeds("values", values)
    _open_unit("alpha", alpha)
    if array.size < MIN_SEEDS:
        return None, None
    lower, upper = _one_sided_bounds(array, alpha)
    return float(lower), float(upper)


def binomial_se(p: float, n: int) -> float:
    """Standard error of an accuracy p read off n test examples.

    p and the result are fractions, n at least 1, or ValueError. Source: protocol, section 10.1.
    """
    if n < 1:
        raise ValueError(f"n: is {n}, needs at least one example")
    _fractions("p", p)
    return float(np.sqrt(p * (1 - p) / n))


def mean_bounds(values: FloatArray, level: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, lower and upper t bound over the last axis: t_interval for many boards at once.

    values: [..., seeds] with at least two seeds, finite; results: [...]. ValueError for a level
    outside (0, 1). Source: protocol, section 10.1.
    """
    _open_unit("level", level)
    mean, error = _mean_and_error(values)
    half = _t_quantile((1 + level) / 2, values.shape[-1] - 1.0) * error
    return mean, mean - half, mean + half


def suite_bounds(
    tasks: Sequence[FloatArray], level: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over tasks, lower and upper bound: suite_interval for many boards at once.

    tasks: for each task [..., seeds] with at least two seeds, finite; results: [...].
    s.e.^2 = sum s_k^2 / n_k / K^2, degrees of freedom by Welch and Satterthwaite. ValueError for a
    level outside (0, 1). Source: protocol, section 10.1; Welch 1947.
    """
    _open_unit("level", level)
    moments = [_mean_and_error(values) for values in tasks]
    mean = np.mean([mean for mean, _ in moments], axis=0)
    errors = np.array([error for _, error in moments])
    # Only the errors' proportions matter to the degrees of freedom; taken relative to the largest,
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
    """Exact one-sided p of "not above zero" by flipping the signs of the paired differences.

    ticket, control: [seeds], at most 16. The least p is 2**-n, so n = 5 can reach .031.
    Source: protocol, section 10.2.
    """
    differences = _paired("ticket", ticket, "control", control)
    n = differences.size
    if n > 16:
        raise ValueError(f"ticket: {n} seeds, all flips are listed up to 16")
    flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = flips @ differences
    return float(_at_least(sums, differences.sum()).mean())


def predicted(values: ArrayLike, reference: ArrayLike, level: float = 0.99) -> bool:
    """Whether the mean of new values lies in the reference's t prediction interval.

    values: [runs]; reference: [runs], at least 3. Source: protocol, section 6.
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


@lru_cache(maxsize=1024)  # a record asks for a few of them, hundreds of times
def _t_quantile_of(p: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, p))


def _t_upper_tail(t: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtr(freedom, -t))


def _mean_and_error(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and its standard error over the last axis, [...] each."""
    if values.ndim == 1 and 1 < values.size <= FEW:
        return _of_few(values.tolist())
    first = values[..., :1]
    # Measured from the first value, equal values have exactly that mean and no variance.
    offsets = values - first
    mean = first[..., 0] + offsets.mean(axis=-1)
    return mean, offsets.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def _of_few(values: list[float]) -> tuple[FloatArray, FloatArray]:
    """The same of a few seeds, ten times as quick without numpy."""
    first, n = values[0], len(values)
    offsets = [value - first for value in values]
    mean = sum(offsets) / n
    variance = sum((offset - mean) ** 2 for offset in offsets) / (n - 1)
    return np.float64(first + mean), np.float64(math.sqrt(variance) / math.sqrt(n))  # type: ignore[return-value]


def _one_sided_bounds(values: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bound over the last axis; the two-sided interval that leaves 2 alpha out."""
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
