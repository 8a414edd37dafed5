"""The front page and those of the suites: who ranks where, and how certain that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lthbench.leaderboard.analysis import power
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.ranks import ALPHA
from lthbench.leaderboard.board.render import accepted, counted, why_unranked
from lthbench.leaderboard.board.standings import Row, Standing
from lthbench.leaderboard.site.grid import (
    NOTHING,
    Column,
    Grid,
    GridCell,
    GridRow,
    axis,
    bounded,
    cost,
    missing,
    whisker,
)
from lthbench.leaderboard.site.labels import BOARDS, DIVISIONS, LEVELS, RANKED_LEVEL
from lthbench.leaderboard.site.pages import entries as entries_page
from lthbench.leaderboard.site.pages import task_tables
from lthbench.leaderboard.site.pages.protocol import Protocol
from lthbench.report.formats import NA, number, percent, plain, probability, ranks_left

FIRST = 60  # rows of the main board on the front page
OTHERS = 10  # rows of each other board there
NAMED = 4  # methods named in a sentence
MATRIX = 20  # ranked methods up to which p values are shown as a table


def main_board(standings: Sequence[Standing]) -> Standing | None:
    """Return the early-weights board with most to show."""
    early = [s for s in standings if s.board == "early" and s.rows]
    return max(early, key=lambda s: (len(ranked(s)), len(s.rows)), default=None)


def ranked(standing: Standing) -> list[Row]:
    """Return the rows that have a rank."""
    return [row for row in standing.rows if row.rank is not None]


def verdict(standing: Standing) -> str:
    """Say in one sentence who is first, if that is certain."""
    rows = ranked(standing)
    if not rows:
        entries = {e.id: e for row in standing.rows for e in row.contender.entries.values()}
        checked = sum(entry.level >= RANKED_LEVEL for entry in entries.values())
        if not checked:
            return "No entry is verified yet: listed, not ranked."
        return (
            "No method is verified on every task yet: listed, not ranked. "
            f"Entries verified: {checked} of {len(entries)}."
        )
    if len(rows) == 1:
        return f"{_name(rows[0])} is the only ranked method."
    first = [row for row in rows if row.rank and row.rank[0] == 1]
    if len(first) == 1:
        return f"{_name(first[0])} is first: certain at 95 % against every other ranked method."
    names = ", ".join(_name(row) for row in first[:NAMED])
    more = f" and {len(first) - NAMED} more" if len(first) > NAMED else ""
    return f"First place is open between {len(first)} methods: {names}{more}."


def _name(row: Row) -> str:
    return plain(row.contender.name)


def board_grid(standing: Standing, root: str, limit: int | None = None) -> Grid:
    """Build a board's table; ranks are data, so sorting does not renumber them."""
    untrained = standing.board == "untrained"
    tasks = standing.tasks or tuple(dict.fromkeys(t for r in standing.rows for t in r.tasks))
    columns = (
        Column("rank", "rank", css="rank", first="asc"),
        Column("method", "method", "t"),
        Column("score", "mean accuracy" if untrained else "retention, mean", css="num score"),
        Column("cost", "search cost", css="num", first="asc"),
        Column("level", "verified", css="words", first="desc"),
        Column("division", "starts from", "t"),
        *(Column(f"t-{task}", plain(task), css="num", task=task) for task in tasks),
    )
    ends = axis([row.score for row in standing.rows])
    names = _names(standing.rows)
    shown = standing.rows if limit is None else standing.rows[:limit]
    rows = tuple(_row(row, tasks, names[row.contender.id], ends, root, untrained) for row in shown)
    title = BOARDS[standing.board][0]
    caption = f"{title}, suite {standing.suite}: rank intervals at 95 %, {_what(untrained)}"
    return Grid(
        f"{standing.suite}-{standing.board}",
        caption,
        columns,
        rows,
        heading=1,
        silent=True,
        css="board",
    )


def _what(untrained: bool) -> str:
    return "accuracy at the headline density" if untrained else "retention over the suite's tasks"


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """Return row names, with the source's digest where two are equal."""
    count: dict[str, int] = {}
    for row in rows:
        count[row.contender.name] = count.get(row.contender.name, 0) + 1
    return {
        row.contender.id: _name(row)
        if count[row.contender.name] == 1
        else f"{_name(row)} ({row.contender.id.rpartition('--')[2]})"
        for row in rows
    }


def _row(
    row: Row, tasks: Sequence[str], name: str, ends: tuple[float, float], root: str, percents: bool
) -> GridRow:
    first = next(iter(row.tasks.values()), None)
    cells = (
        _rank(row),
        GridCell(name, task_tables.link(first.entry, root) if first else ""),
        _score(row, ends, percents),
        cost(row.cost),
        task_tables.level_cell(counted(row)),
        GridCell(DIVISIONS.get(row.division, NA)),
        *(_on_task(row, task, root, percents) for task in tasks),
    )
    facts = (
        ("method", plain(row.contender.name).lower()),
        ("division", row.division),
        ("level", str(row.level)),
        ("tasks", " ".join(row.tasks)),
        *((("unranked", ""),) if row.rank is None else ()),
    )
    return GridRow(cells, facts)


def _rank(row: Row) -> GridCell:
    if row.rank is None:
        why = plain(why_unranked(row))
        said = "reference" if why == "reference" else "not ranked"
        more = Markup('<span class="why">{}</span>').format(why if why != "reference" else "")
        return GridCell(said, css="na", extra=more if why != "reference" else NOTHING)
    low, high = row.rank
    return GridCell(ranks_left(row.rank), key=low + high / 1e5)


def _score(row: Row, ends: tuple[float, float], percents: bool) -> GridCell:
    if row.score is None:
        return missing()
    if not percents:
        return bounded(row.score, 2, whisker(row.score, ends))
    scaled = type(row.score)(
        100 * row.score.mean,
        None if row.score.low is None else 100 * row.score.low,
        None if row.score.high is None else 100 * row.score.high,
        row.score.n,
    )
    return bounded(scaled, 1, whisker(row.score, ends))


def _on_task(row: Row, task: str, root: str, percents: bool) -> GridCell:
    told = row.tasks.get(task)
    if told is None:
        return missing("missing")
    href = task_tables.link(told.entry, root)
    if told.score is None:
        return GridCell("no score", href, css="na")
    value = 100 * told.score.mean if percents else told.score.mean
    text = number(value, 1 if percents else 2)
    if told.headline is not None:
        text += f" at {percent(told.headline)} %"
    said = [f"{plain(str(k))} {plain(str(v))}" for k, v in told.options.items()]
    heard = accepted([told.entry]) and not accepted(counted(row))
    if told.entry.level > row.level or heard:  # a row shows the lowest of its entries' levels
        said.append(LEVELS[told.entry.level].word)
    extra = Markup('<span class="why">{}</span>').format(", ".join(said)) if said else NOTHING
    return GridCell(text, href, key=float(f"{value:.6g}"), extra=extra)


def p_matrix(standing: Standing) -> Grid | None:
    """Build the table of adjusted p values, for a board that is not too long."""
    rows = ranked(standing)
    if not 2 <= len(rows) <= MATRIX:
        return None
    names = _names(standing.rows)
    ids = [row.contender.id for row in rows]
    columns = (
        Column("method", "method", ""),
        *(Column(f"p{i}", names[one], "", css="num") for i, one in enumerate(ids)),
    )
    made = []
    for one in ids:
        cells = [GridCell(names[one])]
        for other in ids:
            p = None if one == other else standing.p[one, other]
            known = "" if p is None else probability(p)
            cells.append(GridCell(known, css="yes" if p is not None and p <= ALPHA else ""))
        made.append(GridRow(tuple(cells)))
    caption = f"Adjusted p values between ranked methods, {BOARDS[standing.board][0].lower()}"
    note = f"Bold: different at {ALPHA:g}, adjusted for all pairs of the board."
    name = f"p-{standing.suite}-{standing.board}"
    return Grid(name, caption, columns, tuple(made), note, sorts=False)


# Pages


def index(
    standings: Sequence[Standing],
    tasks: Mapping[str, Sequence[Entry]],
    protocols: Mapping[str, Protocol],
) -> dict[str, Any]:
    """Return the template values of the front page."""
    main = main_board(standings)
    away = [name for name in tasks if name in protocols and not protocols[name].ranked]
    boarded = {name: found for name, found in tasks.items() if name not in away}
    shown = [s for s in standings if s.rows and (s is main or not _same(s, main))]
    boards = [
        {
            "suite": s.suite,
            "board": s.board,
            "title": BOARDS[s.board][0],
            "what": BOARDS[s.board][1],
            "tasks": s.tasks,
            "main": s is main,
            "verdict": verdict(s),
            "grid": board_grid(s, "", FIRST if s is main else OTHERS),
            "count": len(s.rows),
            "more": max(0, len(s.rows) - (FIRST if s is main else OTHERS)),
            "pairs": len(ranked(s)) > 1,
            "same": [BOARDS[o.board][0].lower() for o in standings if o is not s and _same(o, s)]
            if s is main
            else [],
            "notes": s.notes,
        }
        for s in shown
    ]
    told = power.of_standings(standings, main.suite) if main else ()
    boards.sort(key=lambda b: (not b["main"], main is None or b["suite"] != main.suite))
    return {
        "boards": boards,
        "tasks": entries_page.task_grid(boarded, protocols, ""),
        "asked": entries_page.ASKED,
        "power": power.table(told, f"What suite {main.suite} can tell") if main and told else None,
        "empty": sorted(name for name in boarded if not boarded[name]),
        "away": sorted(away),
        "filters": filters([row for s in standings for row in s.rows], list(tasks)),
        "count": sum(len(found) for found in tasks.values()),
        "verified": sum(e.level >= RANKED_LEVEL for found in tasks.values() for e in found),
    }


def _same(a: Standing, b: Standing | None) -> bool:
    """Return whether two boards of a suite are identical, so that the front page needs only one."""
    if b is None or a.suite != b.suite:
        return False
    said = ([(r.contender.id, r.rank, r.why_unranked) for r in s.rows] for s in (a, b))
    return next(said) == next(said)


def suite(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """Return the complete boards of one suite."""
    return [
        {
            "board": s.board,
            "title": BOARDS[s.board][0],
            "what": BOARDS[s.board][1],
            "verdict": verdict(s),
            "grid": board_grid(s, "../"),
            "count": len(s.rows),
            "matrix": p_matrix(s),
            "notes": s.notes,
        }
        for s in standings
        if s.rows
    ]


def filters(rows: Sequence[Row], tasks: Iterable[str]) -> dict[str, Any]:
    """Return the filter options for boards, limited to values that occur."""
    return offered(tasks, {row.division for row in rows}, {row.level for row in rows})


def offered(
    tasks: Iterable[str], divisions: Iterable[str | None], levels: Iterable[int]
) -> dict[str, Any]:
    """Return a page's filter options."""
    there = set(divisions)
    return {
        "tasks": sorted(tasks),
        "divisions": [division for division in DIVISIONS if division in there],
        "levels": sorted(levels),
    }
