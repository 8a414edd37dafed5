"""Scores and intervals over seeds, pure functions on numpy arrays (protocol, section 8).

Accuracies, differences of accuracies, levels and margins are fractions (0.98); only the loss L is
in points (100 times a fraction). Along a ladder, densities run from dense to sparse. There is one
value per seed, and methods are paired by seed. A failed cell is represented by its chance value, so
a non-finite value is the caller's mistake and raises ValueError naming it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lthbench.records.intervals import (
    ALPHA,
    MIN_SEEDS,
    TIE,
    FloatArray,
    Interval,
    _above,
    _at_least,
    _finite,
    _fractions,
    _mean_and_error,
    _one_sided_bounds,
    _paired,
    _seeds,
    _t_upper_tail,
    _table,
    binomial_se,
    paired_interval,
    t_interval,
)

MARGIN_CAP = 0.005  # half a point
RANKABLE_POINTS = 2.0
RANKABLE_ERRORS = 10.0


@dataclass(frozen=True)
class Gap(Interval):
    """A paired difference and the one-sided p of "not above zero"; None with too few seeds."""

    p: float | None


@dataclass(frozen=True)
class Matching:
    """The sparsest density proved to match dense, and the sparsest not refuted; None if none."""

    proved: float | None
    not_refuted: float | None


@dataclass(frozen=True)
class IterationsToMatch:
    """Steps to dense's level: ticket's restricted mean, ticket - dense, and how many arrived."""

    mean: float
    difference: Interval
    reached: int
    n: int


# Area


def area(accuracies: ArrayLike, steps: Sequence[int]) -> float:
    """Compute the accuracy averaged over log step, from the first evaluation to the last.

    A = sum_i a_i log(t'_{i+1} / t'_i) / log(T / t_1): each accuracy extends between the midpoints
    t' in log step to its neighbours, the first from t_1 and the last to T. A curve that rises ten
    times sooner gains 1 / log10(T / t_1). A single evaluation is its own average. Source: protocol,
    section 8.1.

    Args:
        accuracies: [evaluations], fractions.
        steps: Steps of the evaluations, strictly increasing, at least 1.

    Returns:
        A fraction.

    Raises:
        ValueError: If lengths differ, accuracies are not fractions, or steps do not increase.
    """
    curve = _fractions("accuracies", _seeds("accuracies", accuracies))
    weights = _log_step_weights(tuple(steps))
    if len(weights) != curve.size:
        raise ValueError(f"accuracies: {curve.size}, needs one for each of {len(weights)} steps")
    # An exact sum, independent of the processor's order of summation.
    return math.fsum(w * a for w, a in zip(weights, curve.tolist(), strict=True))


@lru_cache(maxsize=64)  # few grids exist, and every run needs one
def _log_step_weights(steps: tuple[int, ...]) -> tuple[float, ...]:
    """Return the weight of each evaluation in the area; the weights sum to 1."""
    if not steps or steps[0] < 1 or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"steps: {steps[:4]}… must strictly increase, from 1 on")
    if len(steps) == 1:
        return (1.0,)
    logs = [math.log(step) for step in steps]
    edges = [logs[0], *((a + b) / 2 for a, b in pairwise(logs)), logs[-1]]
    return tuple((b - a) / (logs[-1] - logs[0]) for a, b in pairwise(edges))


# Retention


def log_density_weights(densities: ArrayLike) -> FloatArray:
    """Return trapezoid weights of the rungs in log density, summing to 1; a single rung weighs 1.

    Source: protocol, section 8.2.

    Args:
        densities: [rungs] in (0, 1], strictly decreasing.

    Returns:
        [rungs].

    Raises:
        ValueError: If densities are out of order or range.
    """
    ladder = _ladder(densities)
    if ladder.size == 1:
        return np.ones(1)
    gaps = -np.diff(np.log(ladder))
    halves = np.concatenate([gaps, [0.0]]) + np.concatenate([[0.0], gaps])
    return np.asarray(halves / halves.sum(), dtype=np.float64)


def loss_points(dense: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> FloatArray:
    """Compute each seed's loss L = 100 sum_j w_j (d - a_j), in points; negative above dense.

    Source: protocol, section 8.2.

    Args:
        dense: [seeds], the score d of the same seed's dense run, fractions.
        scores: [seeds, rungs], fractions.
        weights: [rungs], nonnegative, summing to 1.

    Returns:
        [seeds].

    Raises:
        ValueError: If scores are not fractions, shapes do not match, or weights are invalid.
    """
    table = _fractions("scores", _table("scores", scores))
    level = _fractions("dense", _seeds("dense", dense))
    shares = _finite("weights", weights)
    if level.size != table.shape[0]:
        raise ValueError(f"dense: {level.size} seeds, needs one for each of {table.shape[0]}")
    if shares.shape != table.shape[1:]:
        raise ValueError(f"weights: shape {shares.shape}, needs one for each of {table.shape[1]}")
    if shares.min() < 0 or abs(shares.sum() - 1) > TIE:
        raise ValueError(f"weights: {shares.tolist()} must not be negative and must sum to 1")
    return np.asarray(100 * (level - table @ shares), dtype=np.float64)


def retention(loss: ArrayLike, loss_random: float) -> FloatArray:
    """Compute retention 1 - L / L_random: 1 lossless, 0 no better than random; never clipped.

    Source: protocol, section 8.2.

    Args:
        loss: L in points, any shape (usually [seeds]).
        loss_random: The frozen mean L of `erk` tickets in points.

    Returns:
        An array of the shape of `loss`, without unit.

    Raises:
        ValueError: If `loss_random` is not above 0.
    """
    losses = _finite("loss", loss)
    if not (np.isfinite(loss_random) and loss_random > 0):
        raise ValueError(f"loss_random: is {loss_random} points, must be finite and above 0")
    return np.asarray(1 - losses / loss_random, dtype=np.float64)


def rankable(loss_random: ArrayLike) -> bool:
    """Return whether random pruning loses enough on a task for retention to be ranked.

    True if the mean is at least 2 points and at least 10 of its own standard errors; False below
    two seeds, which have no standard error. Source: protocol, section 8.2.

    Args:
        loss_random: [seeds], L of `erk` tickets in points.

    Raises:
        ValueError: If a value is not finite.
    """
    losses = _seeds("loss_random", loss_random)
    if losses.size < 2:
        return False
    mean, error = _mean_and_error(losses)
    return bool(_at_least(mean, RANKABLE_POINTS) and _at_least(mean, RANKABLE_ERRORS * error))


# Matching


def margin(dense_scores: ArrayLike, test_size: int) -> float:
    """Return how far below dense still matches, as a fraction.

    One dense s.d., at most half a point, but at least one binomial s.e. of the test set, below
    which nothing can be resolved. Source: protocol, section 8.3.

    Args:
        dense_scores: [seeds], accuracies or areas, fractions; at least two seeds (provisional below
            10).
        test_size: Number of test examples.

    Raises:
        ValueError: If there are fewer seeds, or a value is outside 0..1.
    """
    scores = _fractions("dense_scores", _seeds("dense_scores", dense_scores))
    if scores.size < 2:
        raise ValueError("dense_scores: one seed has no s.d., needs at least two")
    mean, error = _mean_and_error(scores)
    deviation = float(error) * float(np.sqrt(scores.size))
    return max(min(deviation, MARGIN_CAP), binomial_se(float(mean), test_size))


def matching_density(densities: ArrayLike, differences: ArrayLike, margin: float) -> Matching:
    """Find the sparsest density proved to match dense, and the sparsest not refuted.

    Rungs are tested from dense to sparse, each one-sided at .05, so that stopping at the first
    failure keeps the overall error at .05. Proved: lower bound above -margin. Not refuted: upper
    bound not below -margin. Both are None below three seeds. Source: protocol, section 8.3.

    Args:
        densities: [rungs], strictly decreasing.
        differences: [seeds, rungs], ticket - dense, fractions, paired by seed.
        margin: A fraction, nonnegative.

    Raises:
        ValueError: If shapes do not match.
    """
    ladder = _ladder(densities)
    table = _fractions("differences", _table("differences", differences, ladder.size), low=-1.0)
    if not 0 <= margin <= 1:
        raise ValueError(f"margin: is {margin}, must be a fraction")
    if table.shape[0] < MIN_SEEDS:
        return Matching(None, None)
    lower, upper = _one_sided_bounds(table.T, ALPHA)
    return Matching(
        proved=_last_before_failure(ladder, _above(lower, -margin)),
        not_refuted=_last_before_failure(ladder, _at_least(upper, -margin)),
    )


# Speed


def first_sustained(correct: ArrayLike, total: int, level: float, run: int = 3) -> int | None:
    """Return the index of the first of `run` consecutive evaluations at or above a level.

    Source: protocol, section 8.4.

    Args:
        correct: [evaluations], whole counts in 0..total.
        total: Number of examples.
        level: A fraction.
        run: Number of consecutive evaluations.

    Returns:
        The index; None if never reached, or reached with fewer than run - 1 evaluations left to
        confirm it (censored).

    Raises:
        ValueError: If counts are out of range.
    """
    if total < 1 or run < 1:
        raise ValueError(f"total, run: are {total}, {run}, both must be at least 1")
    counts = _whole_counts(correct, total)
    if not 0 <= level <= 1:
        _fractions("level", level)
    least = math.floor(level * total)
    while least / total - level < -TIE:
        least += 1
    if not counts or max(counts) < least:
        return None
    in_a_row = 0
    for index, count in enumerate(counts):
        in_a_row = in_a_row + 1 if count >= least else 0
        if in_a_row == run:
            return index - run + 1
    return None


def _whole_counts(correct: ArrayLike, total: int) -> Sequence[float]:
    """Convert a row of whole counts in 0..total; a record's own plain integers bypass numpy."""
    counts: Sequence[float]
    if isinstance(correct, (list, tuple)) and set(map(type, correct)) <= {int}:
        counts = correct
    else:
        array = _finite("correct", correct)
        if array.ndim != 1 or (array != np.round(array)).any():
            raise ValueError("correct: must be one row of whole counts")
        counts = array.tolist()
    if counts and (min(counts) < 0 or max(counts) > total):
        raise ValueError(f"correct: range {min(counts):g}..{max(counts):g} leaves 0..{total}")
    return counts


def iterations_to_match(
    ticket_steps: Sequence[int | None], dense_steps: Sequence[int | None], steps: int
) -> IterationsToMatch:
    """Compute the ticket's restricted mean of min(t, T), and its paired difference from dense.

    The difference is in steps, negative where the ticket is faster; `reached` counts the ticket's
    seeds that matched by T. Source: protocol, section 8.4.

    Args:
        ticket_steps: [seeds], step of the first sustained match counted from theta_0; None =
            censored.
        dense_steps: [seeds], the same for dense, in the same order of seeds.
        steps: T.

    Raises:
        ValueError: If lengths differ, or a step is negative.
    """
    if steps < 1:
        raise ValueError(f"steps: is {steps}, must be at least 1")
    ticket = _restricted("ticket_steps", ticket_steps, steps)
    difference = paired_interval(ticket, _restricted("dense_steps", dense_steps, steps))
    reached = sum(step is not None and step <= steps for step in ticket_steps)
    return IterationsToMatch(float(ticket.mean()), difference, reached, ticket.size)


def log2_difference(
    ticket_steps: Sequence[int | None], dense_steps: Sequence[int | None], steps: int
) -> Interval:
    """Compute the paired difference of log2 of min(t, T), ticket - dense: -1 is twice as soon.

    Source: protocol, section 8.4.

    Args:
        ticket_steps: [seeds], step of the first sustained match; None = censored.
        dense_steps: [seeds], the same for dense, in the same order of seeds.
        steps: T.

    Raises:
        ValueError: If lengths differ, or a step is below 1.
    """
    restricted = (
        _restricted(name, values, steps)
        for name, values in (("ticket_steps", ticket_steps), ("dense_steps", dense_steps))
    )
    ticket, dense = restricted
    if min(ticket.min(), dense.min()) < 1:
        raise ValueError("ticket_steps, dense_steps: a step below 1 has no logarithm here")
    return paired_interval(np.log2(ticket), np.log2(dense))


def compressed_match(
    tickets: Mapping[int, ArrayLike], dense: ArrayLike, margin: float
) -> int | None:
    """Return the divisor of the shortest schedule whose mean matches dense at T; None if none does.

    A schedule matches if the mean difference is not below -margin. Source: protocol, section 8.4.

    Args:
        tickets: Divisor (8, 4, 2, 1: schedules of T/8, ...) to accuracies [seeds], fractions.
        dense: [seeds], accuracies at T of the same seeds, fractions.
        margin: A fraction.

    Raises:
        ValueError: If lengths differ, or a divisor is below 1.
    """
    reference = _fractions("dense", _seeds("dense", dense))
    if not 0 <= margin <= 1:
        raise ValueError(f"margin: is {margin}, must be a fraction")
    for divisor in sorted(tickets, reverse=True):
        name = f"tickets[{divisor}]"
        if divisor < 1:
            raise ValueError(f"{name}: a schedule's divisor must be at least 1")
        accuracies = _fractions(name, _seeds(name, tickets[divisor]))
        if _at_least(_paired(name, accuracies, "dense", reference).mean(), -margin):
            return divisor
    return None


# Identity


def identity_gap(ticket: ArrayLike, control: ArrayLike | None, level: float = 0.95) -> Gap | None:
    """Compute the paired difference ticket - control, with one-sided p of "not above zero".

    Without variance, p is the limit of t: 0 above zero, else 1. Source: protocol, section 8.5.

    Args:
        ticket: [seeds], any unit.
        control: [seeds], the same seeds in the same order and unit; None if not available.
        level: Confidence level in (0, 1).

    Returns:
        The gap; None if the control is not available.

    Raises:
        ValueError: If lengths differ, or a value is not finite.
    """
    if control is None:
        return None
    differences = _paired("ticket", ticket, "control", control)
    found = t_interval(differences, level)
    if differences.size < MIN_SEEDS:
        return Gap(**vars(found), p=None)
    mean, error = (float(moment) for moment in _mean_and_error(differences))
    if error == 0:
        return Gap(**vars(found), p=0.0 if _above(mean, 0.0) else 1.0)
    return Gap(**vars(found), p=_t_upper_tail(mean / error, differences.size - 1.0))


def identity_matters(shuffled: Gap | None, reinit: Gap | None) -> bool | None:
    """Return whether ticket is above both the shuffled and the reinit control at one-sided .05.

    Source: protocol, section 8.5.

    Args:
        shuffled: Gap from `identity_gap`.
        reinit: Gap from `identity_gap`.

    Returns:
        None if a control is not available or has too few seeds for a test: it never counts for the
        ticket.
    """
    if shuffled is None or reinit is None or shuffled.p is None or reinit.p is None:
        return None
    return shuffled.p < ALPHA and reinit.p < ALPHA


# Internals


def _last_before_failure(ladder: FloatArray, passed: NDArray[np.bool_]) -> float | None:
    rungs = int(np.logical_and.accumulate(passed).sum())
    return float(ladder[rungs - 1]) if rungs else None


def _restricted(name: str, steps: Sequence[int | None], limit: int) -> FloatArray:
    array = _seeds(name, [limit if step is None else step for step in steps])
    if array.min() < 0:
        raise ValueError(f"{name}: step {array.min():g} is negative")
    return np.minimum(array, limit)


def _ladder(densities: ArrayLike) -> FloatArray:
    ladder = _finite("densities", densities)
    if ladder.ndim != 1 or not ladder.size:
        raise ValueError(f"densities: shape {ladder.shape}, must be one ladder of rungs")
    if ladder.min() <= 0 or ladder.max() > 1 or (np.diff(ladder) >= 0).any():
        raise ValueError(f"densities: {ladder.tolist()} must fall strictly within (0, 1]")
    return ladder
