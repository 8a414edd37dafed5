"""The tables of a task's page that compare all entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from markupsafe import Markup

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.render import is_private
from lthbench.leaderboard.site import best_per_density, charts
from lthbench.leaderboard.site.grid import (
    NOTHING,
    Column,
    Grid,
    GridCell,
    GridRow,
    cost,
    figure,
    found,
    missing,
)
from lthbench.leaderboard.site.labels import DIVISIONS, level_of
from lthbench.records.metrics import IterationsToMatch
from lthbench.records.scores import Estimate, Moment, UntrainedRung
from lthbench.report.formats import NA, decimals, measure, number, percent, plain, score
from lthbench.report.terms import is_untrained

Kind = Literal["grokking", "steps"]


def by_score(entries: Sequence[Entry]) -> list[Entry]:
    """Sort by score, best first; entries without one last."""
    what = best_per_density.scored_by(entries)

    def place(entry: Entry) -> tuple[float, str]:
        told = best_per_density.score_of(entry, what)
        return (-told.mean if told else float("inf"), entry.id)

    return sorted(entries, key=place)


def headline_cell(entry: Entry, what: str) -> GridCell:
    """Format a trained entry's score: a retention, or points."""
    if what == "retention":
        return found(best_per_density.score_of(entry, what), 2, 1)
    return found(best_per_density.score_of(entry, what), decimals(entry.record), 1, signed=True)


def by_headline(entries: Sequence[Entry]) -> list[Entry]:
    """Sort untrained tickets by headline accuracy, best first."""
    return sorted(entries, key=lambda e: (-headline(e).ticket.mean, e.id))


def headline(entry: Entry) -> UntrainedRung:
    """Return an untrained entry's best rung on the held-out part."""
    assert entry.record.scores.untrained is not None
    return entry.record.scores.untrained.best


def entry_names(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the row name of each entry, with its digest where two are equal."""
    count = Counter(e.record.method.name for e in entries)
    return {e.id: charts.shown_name(e, count[e.record.method.name] > 1) for e in entries}


def link(entry: Entry, root: str = "../") -> str:
    """Return the link to an entry's page."""
    return f"{root}entries/{entry.record.task.name}/{entry.id}.html"


def level_cell(entries: Sequence[Entry]) -> GridCell:
    """Show the lowest level of a row's entries, and whether their bundles are available.

    Unaccepted entries are sorted and filtered as level 0, their initial level if accepted.
    """
    least = min(entry.level for entry in entries)
    private = sum(is_private(entry) for entry in entries)
    told = (
        "bundle not public"
        if len(entries) == 1
        else f"{private} of {len(entries)} bundles not public"
    )
    more = Markup('<span class="why">{}</span>').format(told) if private else NOTHING
    return GridCell(level_of(entries), key=least, css=f"level-{least}", extra=more)


def score_cell(entry: Entry, value: Estimate | None) -> GridCell:
    """Format a rung's score as in the record's own tables."""
    if value is None:
        return missing()
    if is_untrained(entry.record):
        return found(value, decimals(entry.record))
    return GridCell(score(entry.record, value), key=float(f"{100 * value.mean:.6g}"))


# Every entry


def facts(entry: Entry) -> tuple[tuple[str, str], ...]:
    """Return an entry's method, division and level, for filters."""
    return (
        ("method", plain(entry.record.method.name).lower()),
        ("division", entry.record.scores.division or ""),
        ("level", str(entry.level)),
    )


def every(entries: Sequence[Entry], names: Mapping[str, str]) -> Grid | None:
    """Build the table of entries by rungs, with every accuracy of the task."""
    if not entries:
        return None
    ladder = sorted(
        {r.density for e in entries for r in best_per_density.rungs_of(e.record)}, reverse=True
    )
    tops = {
        best.density: {entry.id for entry in best.entries}
        for best in best_per_density.best(best_per_density.eligible(entries, "open"))
    }
    by = best_per_density.scored_by(entries)
    columns = (
        Column("method", "method", "t"),
        Column("level", "verified", css="words", first="desc"),
        Column("division", "starts from", "t"),
        Column("score", best_per_density.HEADS[by], css="num"),
        Column("matches", "matches dense to, %", css="num", first="asc"),
        Column("cost", "search cost", css="num", first="asc"),
        *(Column(f"d{i}", f"at {percent(d)} %", css="num") for i, d in enumerate(ladder)),
    )
    rows = []
    for entry in entries:
        scored = {r.density: r.ticket for r in best_per_density.rungs_of(entry.record)}
        cells = [score_cell(entry, scored.get(d)) for d in ladder]
        marked = [
            GridCell(c.text, key=c.key, css="top") if entry.id in tops.get(d, ()) else c
            for c, d in zip(cells, ladder, strict=True)
        ]
        rows.append(GridRow((*_common_cells(entry, names, by), *marked), facts(entry)))
    what = f"{measure(entries[0].record)} on the test split, %"
    note = (
        "± is half the 95 % interval over seeds. Bold: the best of each density, of verified "
        "entries where there are any. Search cost in dense trainings a seed."
    )
    return Grid("every", f"Every entry at every density: {what}", columns, tuple(rows), note)


def _common_cells(entry: Entry, names: Mapping[str, str], by: str) -> tuple[GridCell, ...]:
    told = entry.record.scores
    matching = told.matching.proved
    return (
        GridCell(names[entry.id], link(entry)),
        level_cell([entry]),
        GridCell(DIVISIONS.get(told.division or "", NA)),
        headline_cell(entry, by),
        missing("none") if matching is None else GridCell(percent(matching), key=matching),
        cost(told.mean_cost),
    )


def untrained(entries: Sequence[Entry], names: Mapping[str, str]) -> Grid | None:
    """Build the table of untrained tickets; None without any."""
    if not entries:
        return None
    columns = (
        Column("method", "method", "t"),
        Column("level", "verified", css="words", first="desc"),
        Column("division", "starts from", "t"),
        Column("density", "best density, %", css="num", first="asc"),
        Column("score", "accuracy, %", css="num"),
        Column("dense", "− dense, points", css="num"),
        Column("random", "− random mask, points", css="num"),
        Column("cost", "search cost", css="num", first="asc"),
    )
    rows = []
    for entry in entries:
        rung, digits = headline(entry), decimals(entry.record)
        name, word, division, *_ = _common_cells(entry, names, "")
        cells = (
            *(name, word, division),
            GridCell(percent(rung.density), key=rung.density),
            found(rung.ticket, digits),
            found(rung.difference, digits, signed=True),
            found(rung.above_random, digits, signed=True),
            cost(entry.record.scores.mean_cost),
        )
        rows.append(GridRow(cells, facts(entry)))
    caption = "Untrained tickets: accuracy as they stand, at the rung best on the held-out part"
    return Grid("untrained", caption, columns, tuple(rows))


# Cost, steps, transfer


def front(entries: Sequence[Entry]) -> list[Entry]:
    """Return the Pareto front of score and cost, cheapest first."""
    by = best_per_density.scored_by(entries)
    known = [
        (price, -told.mean, entry.id, entry)
        for entry in entries
        if (told := best_per_density.score_of(entry, by))
        and (price := entry.record.scores.mean_cost) is not None
        and entry.record.scores.division != "reference"
    ]
    best, chosen = float("inf"), []
    for _, loss, _, entry in sorted(known, key=lambda one: one[:3]):
        if loss < best:
            best = loss
            chosen.append(entry)
    return chosen


def front_table(entries: Sequence[Entry], names: Mapping[str, str]) -> Grid | None:
    """Build the table of the Pareto front; None if it is empty."""
    chosen = front(entries)
    if not chosen:
        return None
    by = best_per_density.scored_by(entries)
    columns = (
        Column("method", "method", "t"),
        Column("cost", "search cost", css="num", first="asc"),
        Column("score", best_per_density.HEADS[by], css="num"),
        Column("level", "verified", css="words", first="desc"),
    )
    rows = []
    for entry in chosen:
        name, word, _, score, _, price = _common_cells(entry, names, by)
        rows.append(GridRow((name, price, score, word), facts(entry)))
    caption = "What each price buys: entries that none is at once better and cheaper than"
    note = "Search cost in dense trainings a seed. Every entry's cost stands in the table above."
    return Grid("front", caption, columns, tuple(rows), note)


def steps(entries: Sequence[Entry], names: Mapping[str, str]) -> list[Grid]:
    """Build the tables of iterations to match, by the kind of the task."""
    made = []
    speeds = [e.record.scores.speed for e in entries]
    if any(speed.grokking for speed in speeds):
        made.append(_by_rung(entries, names, "grokking"))
    if any(speed.steps for speed in speeds):
        made.append(_by_rung(entries, names, "steps"))
    if any(speed.compressed for speed in speeds):
        made.append(_compressed(entries, names))
    return made


def _arrivals(entry: Entry, kind: Kind) -> dict[float, Moment | IterationsToMatch | None]:
    """Return when an entry's runs arrive, by density; dense has 1."""
    speed = entry.record.scores.speed
    if kind == "steps":
        return {float(d): row for d, row in (speed.steps or {}).items()}
    grokked = (speed.grokking or {}).items()
    return {float(d): None if row is None else row.generalised for d, row in grokked}


def _by_rung(entries: Sequence[Entry], names: Mapping[str, str], kind: Kind) -> Grid:
    told = [(entry, _arrivals(entry, kind)) for entry in entries]
    densities = sorted({d for _, at in told for d in at if d != 1}, reverse=True)
    columns = (
        Column("method", "method", "t"),
        *(
            Column(f"d{i}", f"at {percent(d)} %", css="num", first="asc")
            for i, d in enumerate(densities)
        ),
    )
    rows = []
    for entry, at in told:
        cells = [_step_cell(at.get(d)) for d in densities]
        rows.append(GridRow((GridCell(names[entry.id], link(entry)), *cells), facts(entry)))
    what = (
        "Step at which runs generalise"
        if kind == "grokking"
        else "Steps until dense's level, less the margin, is held"
    )
    note = (
        "Restricted means: T stands for a seed that never did; in brackets the seeds that did. "
        "More on each entry's page."
    )
    return Grid("steps", f"{what}, by density", columns, tuple(rows), note)


def _step_cell(value: Moment | IterationsToMatch | None) -> GridCell:
    if value is None:
        return missing()
    count = f"({value.reached}/{value.n})"
    if not value.reached:
        return missing(f"never {count}")
    return GridCell(f"{number(value.mean, 0)} {count}", key=float(f"{value.mean:.6g}"))


def _compressed(entries: Sequence[Entry], names: Mapping[str, str]) -> Grid:
    columns = (
        Column("method", "method", "t"),
        Column("density", "density, %", css="num"),
        *(Column(kind, kind, css="num", first="asc") for kind in ("ticket", "dense", "reinit")),
    )
    rows = []
    for entry in entries:
        value = entry.record.scores.speed.compressed
        if not value:
            continue
        cells = [_schedule(entry, n) for n in (value.ticket, value.dense, value.reinit)]
        density = GridCell(percent(value.density), key=value.density)
        rows.append(
            GridRow((GridCell(names[entry.id], link(entry)), density, *cells), facts(entry))
        )
    caption = "Iterations to match: the shortest whole schedule that still matches dense at T"
    note = "The learning rate decays, so a crossing on the way would only show the schedule."
    return Grid("steps", caption, columns, tuple(rows), note)


def _schedule(entry: Entry, divisor: int | None) -> GridCell:
    if divisor is None:
        return missing("none")
    steps = entry.record.task.steps // divisor
    return GridCell("T" if divisor == 1 else f"T/{divisor}", key=steps)


def transfer(entries: Sequence[Entry], names: Mapping[str, str]) -> Grid | None:
    """Build the table of transfer scores; None without any."""
    carried = [
        (scored.points.mean, entry, scored)
        for entry in entries
        if (scored := entry.record.scores.transfer) and scored.points
    ]
    if not carried:
        return None
    places = [(row.depth, row.density) for row in carried[0][2].rows]
    columns = (
        Column("method", "method", "t"),
        Column("points", "points above erk", css="num"),
        Column("gain", "share of IMP's gain, %", css="num"),
        *(
            Column(f"p{i}", f"depth {depth}, {percent(density)} %", css="num")
            for i, (depth, density) in enumerate(places)
        ),
    )
    rows = []
    for _, entry, told in sorted(carried, key=lambda scored: -scored[0]):
        by_place = {(row.depth, row.density): row.points for row in told.rows}
        cells = (
            GridCell(names[entry.id], link(entry)),
            found(told.points, 2, 1, signed=True, brackets=True),
            missing() if told.gain is None else figure(100 * told.gain, 0),
            *(found(by_place.get(place), 2, 1, signed=True) for place in places),
        )
        rows.append(GridRow(cells, facts(entry)))
    caption = "Transfer: tickets carried to other depths, points above erk tickets there"
    note = "The first figure is the mean over depths and rungs, with its 95 % interval over seeds."
    return Grid("transfer", caption, columns, tuple(rows), note)
