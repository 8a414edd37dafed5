"""Scores and intervals over seeds, pure functions on numpy arrays (protocol, section 8).

Accuracies, differences of accuracies, levels and margins are fractions (0.98); only the loss L is
in points (100 times a fraction). Along a ladder densities run from dense to sparse. Values are one
a seed; methods are paired by seed. A failed cell arrives as its chance value, so anything
non-finite is a mistake of the caller and raises ValueError naming it.
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
class Gap:
    """A paired difference and the one-sided p of "not above zero"; None: too few seeds for one."""

    interval: Interval
    p: float | None


@dataclass(frozen=True)
class Matching:
    """The sparsest density proved to match dense, and the sparsest not refuted; None: none."""

    proved: float | None
    not_refuted: float | None


@dataclass(frozen=True)
class IterationsToMatch:
    """Steps to dense's level: ticket's restricted mean, ticket - dense, and how many arrived."""

    mean: float
    difference: Interval
    reached: int
    n: int


# Intervals


# Area


def area(accuracies: ArrayLike, steps: Sequence[int]) -> float:
    """Accuracy averaged over the logarithm of the step, from the first evaluation to the last.

    accuracies: [evaluations], fractions; steps: when each was read, strictly increasing, from 1 on.
    A = sum_i a_i log(t'_{i+1} / t'_i) / log(T / t_1): each accuracy holds between the midpoints t'
    in log step to its neighbours, the first from t_1 and the last to T on. A fraction; a curve that
    rises ten times sooner gains 1 / log10(T / t_1). A single evaluation is its own average. Raises
    ValueError for lengths that do not fit, points instead of fractions, or steps in another order.
    Source: protocol, section 8.1.
    """
    curve = _fractions("accuracies", _seeds("accuracies", accuracies))
    weights = _log_step_weights(tuple(steps))
    if len(weights) != curve.size:
        raise ValueError(f"accuracies: {curve.size}, needs one for each of {len(weights)} steps")
    # Summed exactly: no processor's own order of sums moves a score.
    return math.fsum(w * a for w, a in zip(weights, curve.tolist(), strict=True))


@lru_cache(maxsize=64)  # of few grids, asked for by every run
def _log_step_weights(steps: tuple[int, ...]) -> tuple[float, ...]:
    """What each evaluation counts for in the area; summing to 1."""
    if not steps or steps[0] < 1 or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"steps: {steps[:4]}… must strictly increase, from 1 on")
    if len(steps) == 1:
        return (1.0,)
    logs = [math.log(step) for step in steps]
    edges = [logs[0], *((a + b) / 2 for a, b in pairwise(logs)), logs[-1]]
    return tuple((b - a) / (logs[-1] - logs[0]) for a, b in pairwise(edges))


# Retention


def log_density_weights(densities: ArrayLike) -> FloatArray:
    """Trapezoid weights of the rungs in log density, summing to 1; a single rung weighs 1.

    densities: [rungs] in (0, 1], strictly decreasing; result: [rungs]. Raises ValueError for
    another order or range. Source: protocol, section 8.2.
    """
    ladder = _ladder(densities)
    if ladder.size == 1:
        return np.ones(1)
    gaps = -np.diff(np.log(ladder))
    halves = np.concatenate([gaps, [0.0]]) + np.concatenate([[0.0], gaps])
    return np.asarray(halves / halves.sum(), dtype=np.float64)


def loss_points(dense: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> FloatArray:
    """Each seed's loss L = 100 sum_j w_j (d - a_j), in points; negative above dense.

    dense: the score d of the same seed's dense run, [seeds], fractions; scores: [seeds, rungs],
    fractions; weights: [rungs], not negative, summing to 1; result: [seeds]. Raises ValueError for
    points instead of fractions, shapes that do not fit, or other weights.
    Source: protocol, section 8.2.
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
    """Retention 1 - L / L_random: 1 lossless, 0 no better than random; never clipped.

    loss: L in points, any shape (usually [seeds]); loss_random: the frozen mean L of `erk` tickets
    in points; result: the shape of loss, no unit. Raises ValueError for loss_random not above 0.
    Source: protocol, section 8.2.
    """
    losses = _finite("loss", loss)
    if not (np.isfinite(loss_random) and loss_random > 0):
        raise ValueError(f"loss_random: is {loss_random} points, must be finite and above 0")
    return np.asarray(1 - losses / loss_random, dtype=np.float64)


def rankable(loss_random: ArrayLike) -> bool:
    """Whether random pruning loses enough on a task for retention to be ranked.

    loss_random: L of `erk` tickets in points, [seeds]. True where the mean is at least 2 points
    and at least 10 of its own standard errors; False below two seeds, which have no standard
    error. Raises ValueError for a non-finite value. Source: protocol, section 8.2.
    """
    losses = _seeds("loss_random", loss_random)
    if losses.size < 2:
        return False
    mean, error = _mean_and_error(losses)
    return bool(_at_least(mean, RANKABLE_POINTS) and _at_least(mean, RANKABLE_ERRORS * error))


# Matching


def margin(dense_scores: ArrayLike, test_size: int) -> float:
    """How far below dense still matches, as a fraction.

    dense_scores: accuracies or areas, [seeds], fractions, at least two seeds (provisional below
    10); test_size: test examples. One dense s.d., at most half a point, but never less than one
    binomial s.e. of the test set, below which nothing can be told. Raises ValueError for fewer
    seeds or a value outside 0..1. Source: protocol, section 8.3.
    """
    scores = _fractions("dense_scores", _seeds("dense_scores", dense_scores))
    if scores.size < 2:
        raise ValueError("dense_scores: one seed has no s.d., needs at least two")
    mean, error = _mean_and_error(scores)
    deviation = float(error) * float(np.sqrt(scores.size))
    return max(min(deviation, MARGIN_CAP), binomial_se(float(mean), test_size))


def matching_density(densities: ArrayLike, differences: ArrayLike, margin: float) -> Matching:
    """The sparsest density proved to match dense, and the sparsest not refuted.

    densities: [rungs], strictly decreasing; differences: ticket - dense, [seeds, rungs], fractions,
    paired by seed; margin: a fraction, not negative. Rungs are tested from dense to sparse, each
    one-sided at .05, so that stopping at the first failure keeps the error of the whole at .05.
    Proved: lower bound above -margin. Not refuted: upper bound not below -margin. Both None below
    three seeds. Raises ValueError for shapes that do not fit. Source: protocol, section 8.3.
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
    """Index of the first of `run` consecutive evaluations at or above a level.

    correct: [evaluations], whole counts of 0..total; level: a fraction. None: never, or crossed
    with fewer than run - 1 evaluations left to confirm it (censored).
    Raises ValueError for counts out of range. Source: protocol, section 8.4.
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
    """One row of whole counts of 0..total; a record's own, plain integers, without numpy."""
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
    """Restricted mean of min(t, T) for the ticket, and its paired difference from dense.

    ticket_steps, dense_steps: [seeds], step of the first sustained match counted from theta_0, in
    the same order of seeds, None = censored; steps: T. The difference is in steps, negative where
    the ticket is faster; reached counts the ticket's seeds that matched by T.
    Raises ValueError for unequal lengths or a negative step. Source: protocol, section 8.4.
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
    """Paired difference of log2 of min(t, T), ticket - dense: -1 is twice as soon.

    ticket_steps, dense_steps: [seeds], step of the first sustained match, in the same order of
    seeds, None = censored; steps: T. Raises ValueError for unequal lengths or a step below 1.
    Source: protocol, section 8.4.
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
    """Divisor of the shortest schedule whose mean matches dense at T; None: none does.

    tickets: divisor (8, 4, 2, 1: schedules of T/8, ...) to accuracies [seeds], fractions; dense:
    accuracies at T of the same seeds; margin: a fraction. Matches: mean difference not below
    -margin. Raises ValueError for lengths that do not fit or a divisor below 1.
    Source: protocol, section 8.4.
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
    """Paired difference ticket - control with its interval and one-sided p of "not above zero".

    ticket, control: [seeds] in the same order of seeds, any one unit; level in (0, 1). None where
    the control is None: not available. Without variance p is t's limit: 0 above zero, else 1.
    Raises ValueError for unequal lengths or a non-finite value. Source: protocol, section 8.5.
    """
    if control is None:
        return None
    differences = _paired("ticket", ticket, "control", control)
    interval = t_interval(differences, level)
    if differences.size < MIN_SEEDS:
        return Gap(interval, None)
    mean, error = (float(moment) for moment in _mean_and_error(differences))
    if error == 0:
        return Gap(interval, 0.0 if _above(mean, 0.0) else 1.0)
    return Gap(interval, _t_upper_tail(mean / error, differences.size - 1.0))


def identity_matters(shuffled: Gap | None, reinit: Gap | None) -> bool | None:
    """Whether ticket is above both the shuffled and the reinit control at one-sided .05.

    shuffled, reinit: from identity_gap. None where a control is not available or has too few seeds
    for a test: it never counts for the ticket. Source: protocol, section 8.5.
    """
    if shuffled is None or reinit is None or shuffled.p is None or reinit.p is None:
        return None
    return shuffled.p < ALPHA and reinit.p < ALPHA


def winning(matches: bool, shuffled: Gap | None, reinit: Gap | None) -> bool | None:
    """Whether a rung's ticket wins: it matches dense and is above both controls.

    matches: the rung is at or before the matching density; shuffled, reinit: its gaps from
    identity_gap. None where it matches and a control is not available.
    Source: protocol, section 8.3.
    """
    return identity_matters(shuffled, reinit) if matches else False


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
