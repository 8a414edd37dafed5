"""The page comparing two entries of a task side by side, from values embedded in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site import best_per_density
from lthbench.leaderboard.site.grid import Column, Grid, GridCell, GridRow, cost, missing
from lthbench.leaderboard.site.labels import DIVISIONS, level_of
from lthbench.leaderboard.site.pages import task_tables
from lthbench.records import intervals
from lthbench.records.scores import Estimate
from lthbench.report.formats import NA, decimals, interval, number, percent, plain
from lthbench.report.terms import is_untrained

ALL_PAIRS = 6  # entries up to which every pair is listed
AGAINST = 30  # pairs with the best entry that are listed otherwise
DIGITS = 10  # of the script's values, so that equal differences stay within stats.TIE of each other


def page(name: str, entries: Sequence[Entry], overlaps: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template values of the page.

    Args:
        name: Name of the task.
        entries: Comparable entries: at least two, of one protocol.
        overlaps: What evidence says of pairs, keyed by their ids separated by a space.
    """
    trained = task_tables.by_score([e for e in entries if not is_untrained(e.record)])
    ordered = trained + task_tables.by_headline([e for e in entries if is_untrained(e.record)])
    names = task_tables.entry_names(ordered)
    densities = sorted(
        {r.density for e in ordered for r in best_per_density.rungs_of(e.record)}, reverse=True
    )
    every = len(trained) <= ALL_PAIRS
    pairs = list(combinations(trained, 2)) if every else [(trained[0], e) for e in trained[1:]]
    by = best_per_density.scored_by(trained)
    scored = [p for p in pairs if all(best_per_density.score_of(e, by) for e in p)][:AGAINST]
    first = names[trained[0].id] if trained else ""
    return {
        "name": plain(name),
        "slug": name,
        "choices": [{"id": e.id, "label": _label(e, names)} for e in ordered],
        "data": _data(ordered, names, densities, overlaps, by),
        "pairs": _pairs(scored, names, by) if scored else None,
        "pairs_title": "Every pair" if every else f"{first}, the best, and others",
        "note": (
            "Differences are taken seed by seed, over the seeds that both have, with a 95 % t "
            f"interval from {intervals.MIN_SEEDS} seeds on, none where all are alike; p is the "
            "exact "
            f"two-sided test by flipping signs, from {best_per_density.LEAST_TESTED} seeds on, of "
            "this pair "
            "alone: the boards adjust theirs for all pairs."
        ),
    }


def _label(entry: Entry, names: Mapping[str, str]) -> str:
    untrained = ", untrained" if is_untrained(entry.record) else ""
    return f"{names[entry.id]}{untrained} ({level_of([entry])})"


def _data(
    entries: Sequence[Entry],
    names: Mapping[str, str],
    densities: Sequence[float],
    overlaps: Mapping[str, Any],
    by: str,
) -> dict[str, Any]:
    return {
        "rungs": [[_key(d), percent(d)] for d in densities],
        "scored": "retention" if by == "retention" else "points above erk",
        "digits": max((decimals(e.record) for e in entries), default=2),
        "least": intervals.MIN_SEEDS,
        "tie": intervals.TIE,
        "tested": best_per_density.LEAST_TESTED,
        "t": _quantiles(max((len(e.record.seeds) for e in entries), default=2)),
        "entries": {e.id: _values(e, names, by) for e in entries},
        "overlaps": dict(overlaps),
    }


def _key(density: float) -> str:
    return f"{density:.6g}"


def _quantiles(most: int) -> list[float | None]:
    """Return the .975 quantile of t by degrees of freedom, starting at 0."""
    from scipy import special

    return [None, *(round(float(special.stdtrit(df, 0.975)), 8) for df in range(1, most + 1))]


def _values(entry: Entry, names: Mapping[str, str], by: str) -> dict[str, Any]:
    told = entry.record.scores
    return {
        "id": entry.id,
        "label": names[entry.id],
        "kind": "untrained" if is_untrained(entry.record) else "trained",
        "href": task_tables.link(entry),
        "level": level_of([entry]),
        "division": DIVISIONS.get(told.division or "", NA),
        "cost": None if told.mean_cost is None else cost(told.mean_cost).text,
        "seeds": list(entry.record.seeds),
        "headline": _rounded(
            task_tables.headline(entry).ticket
            if is_untrained(entry.record)
            else best_per_density.score_of(entry, by)
        ),
        "rungs": {
            _key(r.density): _rounded(r.ticket)
            for r in best_per_density.rungs_of(entry.record)
            if r.ticket is not None
        },
    }


def _rounded(found: Estimate | None) -> list[float] | None:
    return None if found is None else [round(value, DIGITS) for value in found.values]


def _pairs(pairs: Sequence[tuple[Entry, Entry]], names: Mapping[str, str], by: str) -> Grid:
    what, digits = ("retention", 3) if by == "retention" else ("points above erk", 2)
    columns = (
        Column("first", "first", "t"),
        Column("second", "second", "t"),
        Column("seeds", "common seeds", css="num"),
        Column("difference", f"difference in {what}, paired", css="num"),
        Column("apart", "95 % interval leaves out zero", "t"),
    )
    rows = []
    for first, second in pairs:
        found = _difference(first, second, by)
        cells = [
            GridCell(names[first.id], task_tables.link(first)),
            GridCell(names[second.id], task_tables.link(second)),
        ]
        if found is None:
            cells += [GridCell("0", key=0), missing(), missing()]
        else:
            bounds = interval(found, digits, signed=True)
            text = f"{number(found.mean, digits, signed=True)} {bounds}".rstrip()
            known = found.low is not None and found.high is not None
            apart = known and not (found.low or 0) <= 0 <= (found.high or 0)
            cells += [
                GridCell(str(found.n), key=found.n),
                GridCell(text, key=float(f"{found.mean:.6g}")),
                GridCell("yes", css="yes")
                if apart
                else GridCell("no" if known else _unknown(found.n)),
            ]
        rows.append(GridRow(tuple(cells)))
    return Grid("pairs", f"Differences in {what}, seed by seed", columns, tuple(rows))


def _unknown(seeds: int) -> str:
    """Say why differences have no interval."""
    return f"{NA}: {'too few seeds' if seeds < intervals.MIN_SEEDS else f'all {seeds} are alike'}"


def _difference(first: Entry, second: Entry, by: str) -> intervals.Interval | None:
    a, b = (
        dict(zip(e.record.seeds, found.values, strict=True))
        for e in (first, second)
        if (found := best_per_density.score_of(e, by))
    )
    both = [seed for seed in a if seed in b]
    return best_per_density.paired([a[s] for s in both], [b[s] for s in both]) if both else None
