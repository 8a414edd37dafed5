"""The content of a record in text, Markdown and LaTeX: answers, tables and remarks.

Numbers come from the record's aggregates and are only formatted here. Internally, a minus is
U+2212; characters that a terminal or LaTeX cannot show are replaced on output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lthbench.protocol.constants import CONTROLS, IDENTITY, PARTS
from lthbench.records import intervals
from lthbench.records.schema import Record
from lthbench.records.scores import Measures, Transfer
from lthbench.report.formats import (
    NA,
    decimals,
    difference,
    estimate,
    gap,
    is_area,
    measure,
    number,
    percent,
    probability,
    score,
)
from lthbench.report.speed import speed
from lthbench.report.table import Table
from lthbench.report.terms import (
    is_untrained,
    matching_available,
    set_of,
)


def tables(record: Record) -> tuple[Table, ...]:
    """Return every table of a record, the main one first."""
    return (*_scored(record, CONTROLS), *measures(record))


def _scored(record: Record, beside: Sequence[str]) -> tuple[Table, ...]:
    """Return the tables of scores, also for terminals, with these controls beside the ticket."""
    first = (as_they_stand(record),) if is_untrained(record) else ()
    return (*first, against(record, beside), identity(record), *speed(record), *carried(record))


def _controls(record: Record, among: Sequence[str]) -> list[str]:
    """Return these controls, except one missing everywhere because it did not exist at the time."""
    rungs = record.scores.rungs
    return [
        k for k in among if k != "reinit-signs" or any(rung.of(k) is not None for rung in rungs)
    ]


def _means(record: Record, what: str = "") -> str:
    """Describe the cells of a table of scores."""
    n, what = len(record.seeds), f"{what or measure(record)} on the {set_of(record)}, %"
    if n == 1:
        return f"{what}: one seed, no interval"
    if n == 2:
        return f"{what}: both seeds, no interval"
    return f"{what}: mean of {n} seeds, ± half its 95 % t interval"


AREA = (
    "Area: a run's accuracy averaged over the logarithm of the step, from the first evaluation to "
    "T. A run that generalises ten times sooner has {} points more."
)


def against(record: Record, beside: Sequence[str] = CONTROLS) -> Table:
    """Build one row per rung: the ticket, its difference from dense, the controls."""
    shown = _controls(record, CONTROLS[:2] if is_untrained(record) else beside)
    rows = [
        (
            percent(rung.density),
            score(record, rung.ticket),
            difference(record, rung.difference),
            *(score(record, rung.of(kind)) for kind in shown),
        )
        for rung in record.scores.rungs
    ]
    subject = "Ticket after training," if is_untrained(record) else "Ticket"
    caption = f"{subject} against dense and the controls: {_means(record)}"
    head = ("density, %", "ticket", "−\u00a0dense, points", *shown)
    span = math.log10(record.task.steps / record.task.every)
    note = AREA.format(number(100 / span, 0)) if is_area(record) and span else ""
    return Table(caption, head, tuple(rows), note)


def as_they_stand(record: Record) -> Table:
    """Build one row per rung: the untrained ticket, dense, and a random mask at theta_0."""
    found, digits = record.scores.untrained, decimals(record)
    assert found is not None
    tested = len(record.seeds) >= intervals.MIN_SEEDS
    rows = [
        (
            percent(rung.density),
            estimate(rung.ticket, digits),
            estimate(rung.difference, digits, signed=True),
            estimate(rung.random, digits),
            estimate(rung.above_random, digits, signed=True),
            *([probability(rung.p)] if tested else []),
        )
        for rung in found.rungs
    ]
    head = (
        *("density, %", "untrained", "−\u00a0dense, points"),
        *("random mask", "−\u00a0random mask, points", *(["p"] if tested else [])),
    )
    caption = f"Ticket as it stands, no weight trained: {_means(record, 'accuracy')}"
    best = percent(found.headline)
    note = f"The rung at {best} % is the best on the held-out part. Dense is trained."
    return Table(caption, head, tuple(rows), note)


def carried(record: Record) -> Iterable[Table]:
    """Build one row per depth and rung of transfer: the ticket, random, its components."""
    moved, found = record.transfer, record.scores.transfer
    if moved is None or found is None or moved.reason:
        return
    extra = [kind for kind in EXTRA if any(row.of(kind) is not None for row in found.rows)]
    rows = [
        (
            str(row.depth),
            percent(row.density),
            score(record, row.carried),
            score(record, row.erk),
            estimate(row.points, decimals(record), 1, signed=True),
            *("" if row.of(kind) is None else score(record, row.of(kind)) for kind in extra),
        )
        for row in found.rows
    ]
    head = ("depth", "density, %", "carried", "erk", "−\u00a0erk, points", *extra)
    rule = "by the elastic rule" if moved.rule == "elastic" else "by the method's own rule"
    caption = f"Tickets of depth {moved.source} carried {rule}: {_means(record)}"
    yield Table(caption, head, tuple(rows), _worth(record, found))


EXTRA = ("direct", *PARTS)


def _worth(record: Record, found: Transfer) -> str:
    """Describe the transfer score, and the components of a transferred ticket."""
    above = estimate(found.points, decimals(record), 1, signed=True, brackets=True)
    text = f"Transfer score: {above} points above erk, mean over depths and rungs."
    if found.gain is not None:
        text += f" That is {100 * found.gain:.0f} % of what IMP gains when it searches there."
    return (
        f"{text} What the ticket is made of: layers: random masks with its layers' densities, and "
        "weights drawn anew; mask-only: its masks, and those weights; weights-only: its weights, "
        "under those random masks."
    )


def identity(record: Record) -> Table:
    """Build one row per rung: which weights, which values, and how many of them count."""
    shown = _controls(record, IDENTITY)
    yes_or_no = {True: "yes", False: "no", None: NA}
    unknown, tested = bool(matching_available(record)), len(record.seeds) >= intervals.MIN_SEEDS
    rows = []
    for rung in record.scores.rungs:
        gaps: list[str] = []
        for control in shown:
            found = rung.gap(control)
            p = NA if found is None else probability(found.p)
            gaps += [gap(record, rung, control), *([p] if tested else [])]
        rows.append(
            (
                percent(rung.density),
                *gaps,
                yes_or_no[rung.identity_matters],
                NA if unknown else yes_or_no[rung.winning],
                NA if rung.effective is None else percent(rung.effective * rung.density),
            )
        )
    p_head = ("p",) if tested else ()
    head = (
        "density, %",
        *(text for kind in shown for text in (f"−\u00a0{kind}, points", *p_head)),
        *("identity matters", "winning", "effective density, %"),
    )
    caption = "Ticket minus its controls, paired by seed: which weights, which values"
    verdict = (
        "p is one-sided; identity matters if those of shuffled and reinit are below "
        f"{intervals.ALPHA:g}. "
    )
    if not tested:
        verdict = f"Identity matters is a test, which needs {intervals.MIN_SEEDS} seeds. "
    signs = (
        "Shuffled: which weights; reinit: their values, signs and magnitudes; reinit-signs: their "
        "magnitudes alone, so that what it has above reinit the signs are worth. "
    )
    note = (
        f"{signs if 'reinit-signs' in shown else ''}{verdict}Winning: it matches dense too. "
        "Effective density counts weights on a path from input to output."
    )
    return Table(caption, head, tuple(rows), note)


def measures(record: Record) -> Iterable[Table]:
    """Build one row for dense and each rung: training fit, distance moved, operations."""
    found = record.scores.measures
    known = [column for column in MEASURES if any(column.of(row) is not None for row in found)]
    if not known:
        return
    rows = [
        (
            "dense" if row.density == 1 and not place else percent(row.density),
            *(NA if (n := column.of(row)) is None else column.shown(n) for column in known),
        )
        for place, row in enumerate(found)
    ]
    caption = "Fit, learning distance, operations and nodes: means over seeds"
    after = " after training" if is_untrained(record) else ""
    note = (
        f"Of dense and the ticket{after}. Train accuracy: at T, on the examples that it learned "
        "from, none augmented. Learning distance: how far kept weights end from where they began, "
        "Euclidean. FLOPs: of one example's forward pass, a multiply-add two, pruned weights none, "
        "and of the training, three such passes an example. Effective nodes: units, channels and "
        "tokens on a path from input to output."
    )
    yield Table(caption, ("density, %", *(column.head for column in known)), tuple(rows), note)


def _operations(count: float) -> str:
    """Format in three digits, with a prefix: 532 k, 5.32 M."""
    size, prefix = next(((s, p) for s, p in PREFIXES if count >= s), (1.0, ""))
    return f"{count / size:.3g} {prefix}".rstrip()


PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Column:
    """One measure: heading, value in a row, and format."""

    head: str
    of: Callable[[Measures], float | None]
    shown: Callable[[float], str]


MEASURES = (
    Column("train accuracy, %", lambda row: row.train, lambda share: number(100 * share, 2)),
    Column("learning distance", lambda row: row.distance, lambda value: f"{value:.3g}"),
    Column("FLOPs, inference", lambda row: row.flops_inference, _operations),
    Column("FLOPs, training", lambda row: row.flops_training, _operations),
    Column("effective nodes", lambda row: row.effective_nodes, lambda count: number(count, 0)),
)
