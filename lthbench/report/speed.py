"""Tables of how soon a run reaches its target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from lthbench.records import intervals
from lthbench.records.metrics import IterationsToMatch
from lthbench.records.schema import Record
from lthbench.records.scores import Compressed, Delay, Grokking, Moment
from lthbench.report.formats import NA, estimate, number, percent, ratio
from lthbench.report.table import Table
from lthbench.report.terms import set_of

Row = TypeVar("Row")


def speed(record: Record) -> Iterable[Table]:
    """Build tables of how soon a ticket reaches its target, by the kind of the task."""
    found = record.scores.speed
    if found.grokking:
        yield _grokking(record, found.grokking)
    if found.steps:
        yield _steps(record, found.steps)
    if found.compressed:
        yield _compressed(record, found.compressed)


def _arrival(found: IterationsToMatch) -> str:
    return f"{number(found.mean, 0)} ({found.reached}/{found.n})"


def _later(found: IterationsToMatch) -> str:
    return estimate(found.difference, 0, 1, signed=True)


def _grokking(record: Record, found: Mapping[str, Grokking | None]) -> Table:
    rows = []
    dense = found.get("1")
    for density, row in _down(found):
        name = "dense" if float(density) == 1 else percent(float(density))
        if row is None:
            rows.append((name, NA, NA, NA, NA))
            continue
        later = "" if name == "dense" else _grokked_later(row, dense)
        memorised, generalised = _early(record, row.memorised), _early(record, row.generalised)
        # If memorised by the first evaluation but generalised later, the true delay is longer.
        pairs = zip(memorised, generalised, row.memorised.steps, strict=True)
        later_than = [first and not second for first, second, step in pairs if step is not None]
        told = (
            _by_seed(record, row.memorised, "≤ ", memorised),
            _by_seed(record, row.generalised, "≤ ", generalised),
        )
        delay = _by_seed(record, row.delay, "≥ ", later_than)
        rows.append((name, *told, later, delay))
    head = (
        *("density, %", "memorising step", "generalising step"),
        *("of dense's step", "delay, steps"),
    )
    level, steps = f"{100 * record.task.threshold:g} %", f"{record.task.steps:,}"
    caption = f"When a run memorises and when it generalises: {level} accuracy, sustained"
    note = (
        f"Memorising: on the training examples; generalising: on the {set_of(record)}. >: never by "
        f"T = {steps}. ≥, ≤, ≈: restricted means, in which T stands for a run that never did, and "
        f"{record.task.every:,} for one that had by the first evaluation; in brackets the seeds "
        "that did. Of dense's step: the ratio of generalising steps, their geometric mean. "
        "Delay: over the seeds that memorised."
    )
    return Table(caption, head, tuple(rows), note)


def _down(found: Mapping[str, Row]) -> list[tuple[str, Row]]:
    """Return rows by density, densest first, since a record's file sorts them by name."""
    return sorted(found.items(), key=lambda row: -float(row[0]))


def _early(record: Record, found: Moment) -> list[bool]:
    """Return, per seed, whether it arrived by the first evaluation, so the step is only bounded."""
    return [step == record.task.every for step in found.steps]


def _by_seed(
    record: Record, found: Moment | Delay | None, sign: str, bounds: Sequence[bool]
) -> str:
    """Format a mean step with the number of seeds that arrived, or each seed if there are few.

    If none arrived: more than the smallest step at which a run ended; if some did: at least the
    mean.

    Args:
        record: The record.
        found: The aggregate of the steps; None if unavailable.
        sign: "≤ " or "≥ ", for steps that are only bounds.
        bounds: Which of the seeds have such steps, in order.
    """
    if found is None:
        return NA
    reached, n, arrived = found.reached, found.n, found.steps
    last = found.values if isinstance(found, Delay) else (record.task.steps,) * n
    if n < intervals.MIN_SEEDS:
        pairs = zip(arrived, last, strict=True)
        return " / ".join(
            f"> {number(end, 0)}" if step is None else f"{sign if bound else ''}{number(step, 0)}"
            for (step, end), bound in zip(pairs, bounds, strict=True)
        )
    if not reached:
        return f"> {number(min(last), 0)} (0/{n})"
    bound, cut = sign if any(bounds) else "", "≥ " if reached < n else ""
    mark = "≈ " if {bound, cut} == {"≤ ", "≥ "} else bound or cut
    return f"{mark}{number(found.mean, 0)} ({reached}/{n})"


def _grokked_later(row: Grokking, dense: Grokking | None) -> str:
    """Format the ratio of ticket's to dense's generalising step; marked if cut off at T."""
    ours = row.generalised
    theirs = dense.generalised if dense else ours
    if not ours.reached and not theirs.reached:
        return NA
    cut = ours.reached < ours.n, theirs.reached < theirs.n
    mark = {(True, False): "≥ ", (False, True): "≤ ", (True, True): "≈ "}.get(cut, "")
    return mark + ratio(ours.log2_difference)


def _steps(record: Record, found: Mapping[str, IterationsToMatch | None]) -> Table:
    rows = [
        (percent(float(density)), *((NA, NA) if row is None else (_arrival(row), _later(row))))
        for density, row in _down(found)
    ]
    head = ("density, %", "steps to match", "−\u00a0dense, steps")
    note = (
        f"Restricted means: T = {record.task.steps:,} where a seed never did; in brackets the "
        "seeds that did. Steps count from the initial weights."
    )
    return Table("Steps until dense's level, less the margin, is held", head, tuple(rows), note)


def _compressed(record: Record, found: Compressed) -> Table:
    def schedule(divisor: int | None) -> str:
        if divisor is None:
            return "none"
        steps = f"{record.task.steps // divisor:,}"
        return f"T = {steps} steps" if divisor == 1 else f"T/{divisor} = {steps} steps"

    divisors = {"ticket": found.ticket, "dense": found.dense, "reinit": found.reinit}
    rows = tuple((name, schedule(divisor)) for name, divisor in divisors.items())
    rung = percent(found.density)
    caption = f"Shortest whole schedule that still matches dense at T, at {rung} % density"
    return Table(caption, ("network", "schedule"), rows)
