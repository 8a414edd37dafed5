"""What the boards say: headings, sentences and tables.

The main question is answered first: who may be first, with which score, and how certain that is.
Figures come from `standings`; they are only formatted here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.leaderboard.board import ranks
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.standings import RANKED_LEVEL, OnTask, Row, Standing
from lthbench.protocol.constants import LEVELS
from lthbench.protocol.task import load_suite
from lthbench.records import intervals
from lthbench.records.intervals import Interval
from lthbench.report import formats, terms
from lthbench.report.formats import NA, number, percent, plain
from lthbench.report.table import Table

NAME = 32  # characters of a name shown in a column
LISTED = 40  # records listed individually in text
LEFT = ("rank", "method", "record", "task", "level", "division", "not ranked")
DASH = "-"
NOT_ACCEPTED = "not accepted"  # a record that is not in the ledger has no level


@dataclass(frozen=True)
class Part:
    """A heading, sentences, and the tables below them; `rank` is the heading's depth."""

    heading: str
    depth: int
    lines: tuple[str, ...]
    tables: tuple[Table, ...] = ()


def parts(found: Sequence[Standing], suite: str | None = None) -> list[Part]:
    """Return everything to report, in order."""
    if not any(standing.rows for standing in found):
        where = f"Suite {suite}" if suite else "The leaderboard"
        return [Part(f"{where} has no entries yet", 1, (ADD,))]
    said = []
    for name in dict.fromkeys(standing.suite for standing in found):
        said += _suite([standing for standing in found if standing.suite == name])
    return said


ADD = "To add one: `lthbench evaluate METHOD --suite SUITE --final`, then `lthbench submit OUT`."


def _suite(found: Sequence[Standing]) -> list[Part]:
    suite = load_suite(found[0].suite)
    over = f"Score: mean retention over {_listed(found[0].tasks)}."
    if not found[0].tasks:
        over = "No task of it is ranked."
    said = [Part(f"Suite {suite.name}: {plain(suite.title)}", 1, (over, *found[0].notes))]
    names = _names(found)
    for at, standing in enumerate(found):
        same = next((o for o in found[:at] if _ids(o) == _ids(standing)), None)
        if same is not None and standing.rows:
            ranks = ", and the same ranks" if any(row.rank for row in standing.rows) else ""
            line = f"The same contenders as on the board {same.title}{ranks}."
            said.append(Part(f"Board {standing.title}", 2, (line,)))
        else:
            said.append(_board(standing, names))
    return [*said, _records(found), Part("How to read the boards", 2, (READING,))]


READING = (
    "Rank: the places that are left open, all pairs of a board compared at once at "
    f"{ranks.ALPHA:g}. Score: with its 95 % interval over the published seeds; 1 is lossless, 0 no "
    "better than random pruning. Cost: of a search, in dense trainings. Level: 0 reported, 1 "
    "artefacts checked, 2 drawn cells trained again, 3 the search run again; from 2 on an entry is "
    f"ranked; {NOT_ACCEPTED}: a record is there, but the ledger does not tell of it yet. Commands "
    "take a record's name or its last 8 digits: `lthbench cite --entry`, `verify`, `compare`."
)


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return names[0] if names else "the ranked tasks (there are none)"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _names(found: Sequence[Standing]) -> dict[str, str]:
    """Return each contender's name for tables, with its source where needed to tell two apart.

    A contender's id looks like an entry's id, which other commands accept, but is not one.
    """
    ids = {row.contender.id: row.contender.name for standing in found for row in standing.rows}
    several = {name for name, count in Counter(ids.values()).items() if count > 1}
    return {
        id: plain(name, NAME)
        + (f" (source {id.removeprefix(f'{name}--')})" if name in several else "")
        for id, name in ids.items()
    }


def _ids(standing: Standing) -> list[str]:
    return [row.contender.id for row in standing.rows]


def _board(standing: Standing, names: Mapping[str, str]) -> Part:
    ranked = [row for row in standing.rows if row.rank is not None]
    others = [row for row in standing.rows if row.rank is None]
    heading = f"Board {standing.title}: {len(ranked)} ranked"
    heading += f", {len(others)} not" if others else ""
    shown = [_ranked(ranked, standing, names)] if ranked else []
    shown += [_unranked(others, standing, names)] if others else []
    return Part(heading, 2, tuple(_verdict(ranked, standing, names)), tuple(shown))


def _verdict(ranked: Sequence[Row], standing: Standing, names: Mapping[str, str]) -> list[str]:
    """Say who may be first, or why nobody is ranked."""
    if not standing.rows:
        return ["No entries yet."]
    if not ranked:
        return [
            f"Nobody is ranked yet: that takes level {RANKED_LEVEL}, every ranked task, and all "
            "published seeds of each."
        ]
    first = [names[row.contender.id] for row in ranked if row.rank and row.rank[0] == 1]
    if len(ranked) == 1:
        return [f"{first[0]} is alone here."]
    if len(first) == 1:
        return [f"{first[0]} is first."]
    named = ", ".join(first[:4]) + (f" and {len(first) - 4} more" if len(first) > 4 else "")
    return [f"First place is open between {len(first)}: {named}."]


def _ranked(rows: Sequence[Row], standing: Standing, names: Mapping[str, str]) -> Table:
    division = standing.board not in ("init", "untrained")
    head = ("rank", "method", _score_head(standing), "cost", "level")
    return Table(
        "Ranked",
        (*head, *(("division",) if division else ())),
        tuple(
            (
                _rank(row.rank),
                names[row.contender.id],
                _score(row.score, standing),
                _cost(row.cost),
                level_of(counted(row)),
                *((terms.BOARDS[row.division],) if division else ()),
            )
            for row in rows
        ),
        left=LEFT,
    )


def _unranked(rows: Sequence[Row], standing: Standing, names: Mapping[str, str]) -> Table:
    return Table(
        "Listed, not ranked",
        ("method", "not ranked", _score_head(standing), "cost", "level"),
        tuple(
            (
                names[row.contender.id],
                REASONS.get(why_unranked(row), why_unranked(row)),
                _score(row.score, standing),
                _cost(row.cost),
                level_of(counted(row)),
            )
            for row in rows
        ),
        left=LEFT,
    )


REASONS = {"reference": "a reference: final weights"}


def why_unranked(row: Row) -> str:
    """Say why a row is not ranked; for unaccepted entries, the level is never the reason."""
    unheard = row.why_unranked == "level 0" and not accepted(counted(row))
    return NOT_ACCEPTED if unheard else row.why_unranked


def _records(found: Sequence[Standing]) -> Part:
    """List every record of the suite's contenders, with the id that other commands accept."""
    told = {}
    for standing in found:
        for row in standing.rows:
            for task, on in row.tasks.items():
                told[on.entry.digest] = (task, row, on)
    chosen = sorted(told.values(), key=_record_order)
    options = any(on.options for _, _, on in chosen)
    rows = [
        (
            plain(task, NAME),
            plain(on.entry.id, NAME + 10),
            _on_task(row, on),
            _matching(on),
            _level(on.entry),
            *((_options(on.options),) if options else ()),
        )
        for task, row, on in chosen[:LISTED]
    ]
    more = len(chosen) - len(rows)
    note = "Matching: the sparsest density proved to match dense, and the sparsest not refuted."
    note += f" {more} records more: --json lists them all." if more > 0 else ""
    note += _private([on.entry for _, _, on in chosen])
    head = (
        "task",
        "record",
        "score",
        "matching, %",
        "level",
        *(["options"] if options else []),
    )
    table = Table(_records_caption(on for _, _, on in chosen), head, tuple(rows), note, LEFT)
    return Part(f"Records of suite {found[0].suite}", 2, (), (table,))


def _records_caption(found: Iterable[OnTask]) -> str:
    """Describe the scores of the records, naming only the kinds that occur."""
    kinds = {on.what for on in found}
    said = [word for what, word in SCORED.items() if what in kinds]
    return f"Each record, with its {' or '.join(said) or 'score'}"


SCORED = {
    "retention": "retention",
    "above erk": "points above erk",
    "accuracy": "accuracy (of untrained tickets)",
}


def _private(found: Sequence[Entry]) -> str:
    """Name, in one sentence, the entries whose bundle was checked but is not available."""
    names = [entry.id for entry in found if is_private(entry)]
    if not names:
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f" Bundle at no public address: {', '.join(names[:LISTED])}{more}."


def _record_order(item: tuple[str, Row, OnTask]) -> tuple[str, bool, float, str]:
    task, row, on = item
    return task, row.contender.untrained, -_mean(on), on.entry.id


# Cells


def level(number: int) -> str:
    """Format a level with its word."""
    return f"{number} {LEVELS[number]}"


def counted(row: Row) -> list[Entry]:
    """Return the entries behind a row's level: those on ranked tasks, or all."""
    ranked = [on.entry for on in row.tasks.values() if on.ranked]
    return ranked or [on.entry for on in row.tasks.values()]


def accepted(found: Sequence[Entry]) -> bool:
    """Return whether the ledger includes all of the entries."""
    return all(entry.state != "listed" for entry in found)


def level_of(found: Sequence[Entry]) -> str:
    """Return the lowest level of entries; those not in the ledger rank below any level."""
    return level(min(entry.level for entry in found)) if accepted(found) else NOT_ACCEPTED


def is_private(entry: Entry) -> bool:
    """Return whether an entry's bundle was checked, but its record gives no address for it."""
    bundle = entry.record.bundle
    return entry.level >= 1 and bundle is not None and not bundle.urls


def _level(entry: Entry) -> str:
    """Format an entry's level, and whether it is challenged."""
    many = len(entry.challenges)
    times = f", challenged {many} times" if many > 1 else ", challenged" if many else ""
    return f"{level_of([entry])}{times}"


def _rank(rank: tuple[int, int] | None) -> str:
    return DASH if rank is None else formats.ranks_left(rank)


def _score_head(standing: Standing) -> str:
    return "accuracy, %" if standing.board == "untrained" else "score"


def _score(score: Interval | None, standing: Standing) -> str:
    if score is None:
        return DASH
    untrained = standing.board == "untrained"
    return _interval(score, *((1, 100) if untrained else (2, 1)))


def _interval(score: Interval, digits: int, scale: float) -> str:
    spread = formats.interval(score, digits, scale)
    if not spread and score.n >= intervals.MIN_SEEDS:
        spread = f"(all {score.n})"
    return f"{number(scale * score.mean, digits)} {spread}".strip()


def _cost(cost: float | None) -> str:
    return NA if cost is None else formats.cost_text(cost)


def _mean(on: OnTask) -> float:
    return on.score.mean if on.score else float("-inf")


def _on_task(row: Row, on: OnTask) -> str:
    if on.score is None:
        return NA
    if row.contender.untrained:
        return f"{_interval(on.score, 1, 100)} % at {percent(on.headline or 1)} %"
    if on.what == "above erk":
        return f"{_interval(on.score, 1, 1)} points above erk"
    return _interval(on.score, 2, 1)


def _matching(on: OnTask) -> str:
    both = [on.matching.proved, on.matching.not_refuted]
    if both == [None, None]:
        return DASH
    return " / ".join(DASH if density is None else percent(density) for density in both)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(k, 20)}={plain(str(v), 20)}" for k, v in sorted(options.items()))
