"""Lists of tasks and entries: the best on each task near a density, and every entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site import best_per_density
from lthbench.leaderboard.site.grid import (
    NOTHING,
    Column,
    Grid,
    GridCell,
    GridRow,
    cost,
    found,
    missing,
)
from lthbench.leaderboard.site.labels import DIVISIONS, RANKED_LEVEL, STATES, many
from lthbench.leaderboard.site.pages import task_tables
from lthbench.leaderboard.site.pages.protocol import Protocol
from lthbench.leaderboard.site.pages.task import certain_cell
from lthbench.report.formats import NA, number, percent, plain

ASKED = 5  # %, the density shown on the front page


def task_grid(
    tasks: Mapping[str, Sequence[Entry]], protocols: Mapping[str, Protocol], root: str
) -> Grid:
    """Build one row per task: the best near 5 % density, whether that is certain, and links."""
    columns = (
        Column("task", "task", "t"),
        Column("what", "network and data", "t"),
        Column("entries", "entries", first="desc"),
        Column("near", "density, %", ""),
        Column("best", "best there", "t"),
        Column("score", "score", ""),
        Column("certain", "certain?", "t"),
        Column("compare", "two entries", ""),
    )
    held = sorted((name for name in tasks if tasks[name]), key=lambda n: (-len(tasks[n]), n))
    rows = [_task_row(name, tasks[name], protocols.get(name), root) for name in held]
    caption = f"Who is best near {ASKED} % density, task by task"
    return Grid("tasks", caption, columns, tuple(rows), silent=True)


def _task_row(name: str, entries: Sequence[Entry], protocol: Protocol | None, root: str) -> GridRow:
    mine = [
        e
        for e in entries
        if e.state in ("accepted", "listed")
        and (protocol is None or e.record.task.digest == protocol.digest)
    ]
    names = task_tables.entry_names(mine)
    answer = best_per_density.nearest(
        best_per_density.best(best_per_density.eligible(mine, "early")), ASKED / 100
    )
    compare = f"{root}compare/{name}.html"
    cells = [
        GridCell(plain(name), f"{root}tasks/{name}.html"),
        GridCell(plain(protocol.title) if protocol else ""),
        GridCell(f"{len(mine)}", key=len(mine)),
    ]
    if answer is None:
        cells += [missing(), missing("no entry yet" if not mine else NA), missing(), missing()]
    else:
        top = answer.entries[0]
        alike = f" and {len(answer.entries) - 1} more" if len(answer.entries) > 1 else ""
        more = Markup('<span class="why">{}</span>').format(alike) if alike else NOTHING
        cells += [
            GridCell(percent(answer.density)),
            GridCell(names[top.id], task_tables.link(top, root), extra=more),
            task_tables.score_cell(top, answer.found),
            certain_cell(answer, any(e.level >= RANKED_LEVEL for e in answer.entries)),
        ]
    cells.append(GridCell("compare", compare) if len(mine) > 1 else missing(""))
    return GridRow(tuple(cells), (("tasks", name),))


def entry_grid(entries: Sequence[Entry], root: str) -> Grid:
    """Build a grid of every entry, including retracted and superseded ones."""
    columns = (
        Column("method", "entry", "t"),
        Column("task", "task", "t"),
        Column("level", "verified", css="words", first="desc"),
        Column("state", "state", "t"),
        Column("division", "starts from", "t"),
        Column("score", "score", css="num"),
        Column("matches", "matches dense to, %", css="num", first="asc"),
        Column("cost", "search cost", css="num", first="asc"),
        Column("seeds", "seeds", css="num"),
    )
    rows = tuple(_entry_row(entry, root) for entry in entries)
    caption = f"All {many(len(entries), 'entry', 'entries')}"
    return Grid("entries", caption, columns, rows, _scored(entries))


def _scored(entries: Sequence[Entry]) -> str:
    """Describe the scores of a list, naming only the kinds that occur."""
    kinds = {told.what for e in entries if (told := e.record.scores.headline)}
    said = [text for what, text in SCORED.items() if what in kinds]
    return " ".join(said)


SCORED = {
    "retention": "A score without a unit is a retention.",
    "above erk": "Points above erk: where random pruning loses too little to divide by.",
    "accuracy": "Untrained tickets have an accuracy at their headline density; they are never "
    "ranked with trained ones.",
}


def _entry_row(entry: Entry, root: str) -> GridRow:
    told, record = entry.record.scores, entry.record
    matching = told.matching.proved
    cells = (
        GridCell(entry.id, task_tables.link(entry, root), css="" if _stands(entry) else "gone"),
        GridCell(plain(record.task.name), f"{root}tasks/{record.task.name}.html"),
        task_tables.level_cell([entry]),
        GridCell(STATES[entry.state].partition(",")[0]),
        GridCell(DIVISIONS.get(told.division or "", NA)),
        _entry_score(entry),
        missing("none") if matching is None else GridCell(percent(matching), key=matching),
        cost(told.mean_cost),
        GridCell(str(len(record.seeds)), key=len(record.seeds)),
    )
    facts = (
        ("method", plain(record.method.name).lower()),
        ("division", told.division or ""),
        ("level", str(entry.level)),
        ("tasks", record.task.name),
    )
    return GridRow(cells, facts)


def _stands(entry: Entry) -> bool:
    return entry.state in ("accepted", "listed")


def _entry_score(entry: Entry) -> GridCell:
    told = entry.record.scores.headline
    if told is None or told.what == "retention":
        return found(told.found if told else None, 2, 1)
    if told.what == "above erk":
        cell = found(told.found, 1, 1, signed=True)
        return replace(cell, text=f"{cell.text} points above erk", key=None)
    return GridCell(f"{number(100 * told.found.mean, 1)} % untrained", css="na")
