"""The verdicts on the conjecture: named rules with their thresholds, each a pure function.

A rule never changes once there are data that it judges: a better rule gets a new version, and
verdicts of older versions remain in the files in which they were saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lthbench.protocol.task import Strict
from lthbench.records import intervals, metrics
from lthbench.records.schema import Record, Short

RULES_VERSION = 2
LEAST_SEEDS = 5
SAME_ABOVE = 0.2  # excess
SAME_BELOW = 0.05
TANGENT_MARGINS = 5.0

Result = Literal["supported", "refuted", "undecided", "too few seeds", "not measured"]
Of = Literal["pair", "a", "b"]
Text = Annotated[str, Field(max_length=1000)]


class Rule(Strict):
    """A verdict's name, its question, how it is decided, and its thresholds."""

    name: Short
    question: Text
    text: Text
    thresholds: dict[str, float]


class Estimate(Strict):
    """A mean over seeds.

    Attributes:
        low: Lower end of the two-sided 95 % interval; None below three seeds.
        high: Upper end of the same interval.
        lower: One-sided lower bound at .05, which the rules read.
        upper: One-sided upper bound at .05, which the rules read.
        values: One value per seed.
        p: One-sided p of an exact permutation test of "not above zero"; None: not computed.
    """

    mean: float
    low: float | None
    high: float | None
    lower: float | None
    upper: float | None
    values: tuple[Annotated[float, Field(ge=-1e9, le=1e9)], ...]
    p: float | None = None


class Figure(Strict):
    """A named number on which a verdict is based."""

    name: Short
    estimate: Estimate


class Verdict(Strict):
    """The result of a rule for a pair, or for one of the two entries."""

    rule: Short
    of: Of
    result: Result
    figures: tuple[Figure, ...]
    why: Text


SAME = Rule(
    name="same subnetwork",
    question="Do the two methods find the same subnetworks?",
    text="Read off the excess overlap of masks of one seed and density over two nulls, other "
    "seeds and same start, each averaged over the shared rungs by their share of the ladder in "
    "log density. Supported: both lower bounds are above the first threshold. Refuted: an upper "
    "bound is below the second. Else undecided.",
    thresholds={
        "supported above": SAME_ABOVE,
        "refuted below": SAME_BELOW,
        "alpha": intervals.ALPHA,
    },
)
ALREADY = Rule(
    name="already there at initialisation",
    question="Is the untrained ticket as good as the trained dense network?",
    text="Read off the accuracy of the untrained ticket, on the rung best on the held-out part, "
    "less dense accuracy, paired by seed. Supported: the lower bound is above minus the task's "
    "margin. Refuted: the upper bound is below it. Else undecided.",
    thresholds={"margins": 1.0, "alpha": intervals.ALPHA},
)
IDENTITY = Rule(
    name="identity matters",
    question="Does it matter which weights are kept, and which values they start from?",
    text="Read off the gaps to the shuffled and to the reinit control, paired by seed, each "
    "averaged over the rungs that have both by their share of the ladder in log density. "
    "Supported: both lower bounds are above zero at alpha. "
    "Refuted: an upper bound is below the task's margin. Else undecided.",
    thresholds={"above": 0.0, "margins": 1.0, "alpha": intervals.ALPHA},
)
TANGENT = Rule(
    name="tangent",
    question="Is the network linearised at its start as good as the dense one?",
    text="Read off the accuracy of linearised training less dense accuracy, paired by seed. "
    "Supported: the lower bound is above minus the task's margin. Refuted: the upper bound is "
    "more than the threshold's number of margins below dense. Else undecided.",
    thresholds={"margins": 1.0, "refuted margins": TANGENT_MARGINS, "alpha": intervals.ALPHA},
)


def rules() -> tuple[Rule, ...]:
    """Return every rule of this version, in reporting order."""
    return SAME, ALREADY, IDENTITY, TANGENT


def estimate(values: Sequence[float], p: float | None = None) -> Estimate | None:
    """Return the mean over seeds with its bounds; None where a seed has no value."""
    if not len(values) or not np.isfinite(values).all():
        return None
    whole = intervals.t_interval(values)
    lower, upper = intervals.one_sided(values)
    return Estimate(
        mean=whole.mean,
        low=whole.low,
        high=whole.high,
        lower=lower,
        upper=upper,
        values=tuple(float(value) for value in values),
        p=p,
    )


def same_subnetwork(other_seeds: Estimate | None, same_start: Estimate | None) -> Verdict:
    """Decide whether two methods' masks share more than seeds and starts explain."""
    named = {"over other seeds": other_seeds, "over the same start": same_start}

    def decide(found: Sequence[Estimate]) -> Result:
        if all(_above(one.lower, SAME_ABOVE) for one in found):
            return "supported"
        return "refuted" if any(_above(SAME_BELOW, one.upper) for one in found) else "undecided"

    return _judged(SAME, "pair", named, decide, "no room above a null: the masks are full or empty")


def already_there(difference: Estimate | None, margin: float | None, of: Of) -> Verdict:
    """Decide whether untrained tickets are non-inferior to dense.

    Args:
        difference: Untrained ticket's accuracy minus dense's; None for trained tickets.
        margin: The non-inferiority margin; None if unknown.
        of: Which entry the verdict is on.
    """
    why = "the tickets are trained ones" if difference is None else "no frozen reference"
    return _non_inferior(ALREADY, of, difference, margin, 1.0, why)


def tangent(difference: Estimate | None, margin: float | None, of: Of) -> Verdict:
    """Decide whether linearised training is as good as dense.

    Args:
        difference: Linearised training's accuracy minus dense's; None: not measured.
        margin: The non-inferiority margin; None if unknown.
        of: Which entry the verdict is on.
    """
    why = "no record holds the accuracy of linearised training"
    return _non_inferior(TANGENT, of, difference, margin, TANGENT_MARGINS, why)


def identity_matters(
    shuffled: Estimate | None,
    reinit: Estimate | None,
    margin: float | None,
    of: Of,
) -> Verdict:
    """Decide whether tickets are above both controls."""
    named = {"ticket - shuffled": shuffled, "ticket - reinit": reinit}

    def decide(found: Sequence[Estimate]) -> Result:
        if all(_above(one.lower, 0.0) for one in found):
            return "supported"
        small = margin is not None and any(_above(margin, one.upper) for one in found)
        return "refuted" if small else "undecided"

    return _judged(IDENTITY, of, named, decide, "a control is missing")


def _non_inferior(
    rule: Rule,
    of: Of,
    difference: Estimate | None,
    margin: float | None,
    refuted_margins: float,
    why: str,
) -> Verdict:
    known = margin is not None

    def decide(found: Sequence[Estimate]) -> Result:
        assert margin is not None
        if _above(found[0].lower, -margin):
            return "supported"
        below = _above(-margin * refuted_margins, found[0].upper)
        return "refuted" if below else "undecided"

    return _judged(rule, of, {"less dense": difference if known else None}, decide, why)


def _judged(
    rule: Rule,
    of: Of,
    named: dict[str, Estimate | None],
    decide: Callable[[Sequence[Estimate]], Result],
    missing: str,
) -> Verdict:
    figures = tuple(Figure(name=n, estimate=one) for n, one in named.items() if one is not None)
    found = [figure.estimate for figure in figures]
    result: Result
    if len(figures) < len(named):
        result, why = "not measured", missing
    elif (least := min(len(one.values) for one in found)) < LEAST_SEEDS:
        result, why = "too few seeds", f"{least} seeds; a verdict needs {LEAST_SEEDS}"
    else:
        result, why = decide(found), ""
    return Verdict(rule=rule.name, of=of, result=result, figures=figures, why=why)


def _above(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value - bound > intervals.TIE


# Of one entry


def untrained(record: Record) -> Estimate | None:
    """Return the headline of untrained tickets minus dense, by seed."""
    found = record.scores.untrained
    if found is None or found.best.difference is None:
        return None
    return estimate(found.best.difference.values)


def gaps(record: Record) -> tuple[Estimate | None, Estimate | None]:
    """Return ticket minus each control by seed, averaged over the rungs that have both controls."""
    rungs = {
        rung.density: (rung.ticket.values, rung.shuffled.values, rung.reinit.values)
        for rung in record.scores.rungs
        if rung.ticket and rung.shuffled and rung.reinit
    }
    if not rungs:
        return None, None
    weights = metrics.log_density_weights(list(rungs))
    ticket, *others = (
        weights @ np.array(values, dtype=np.float64) for values in zip(*rungs.values(), strict=True)
    )
    first, second = (estimate((ticket - other).tolist()) for other in others)
    return first, second
