"""The boards of a suite: which entries belong together, their scores, and who may be ranked.

A score depends only on a contender's own records and on the frozen references, so a new entry
changes nobody's score or interval; only ranks depend on all contenders of a board.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lthbench.io.paths import canonical_json
from lthbench.leaderboard.board import copies, ranks
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.protocol.constants import DIVISIONS
from lthbench.protocol.task import Suite, load_suite, suite_names
from lthbench.records import aggregate, intervals, metrics
from lthbench.records.intervals import Interval
from lthbench.records.metrics import Matching
from lthbench.records.reference import Reference
from lthbench.records.schema import Record
from lthbench.records.scores import Scores
from lthbench.report import terms

RANKED_LEVEL = 2
BoardName = Literal["init", "early", "open", "untrained"]
# The main board first. The divisions that each accepts, and its title.
BOARDS: Mapping[BoardName, tuple[str, tuple[str, ...]]] = {
    "early": ("early weights", ("init", "rewind")),
    "init": ("at initialisation", ("init",)),
    "open": ("open", ("init", "rewind", "open")),
    "untrained": ("untrained tickets", ("init", "rewind", "open")),
}


@dataclass(frozen=True)
class OnTask:
    """A contender's result on one task, over the published seeds.

    Attributes:
        score: Retention; for untrained tickets, the headline's accuracy; on an unranked task, the
            substitute for retention. One value per seed in `values`. None if unavailable.
        what: The kind of score, named as in `scores.headline`; "" without a score.
        headline: The density of the headline, for untrained tickets only.
        seeds: Number of published seeds that the record holds.
        published: Number of published seeds of the task.
        cost: Mean search cost, in dense trainings.
        options: Options that differ in, or are missing from, another of the contender's records.
        ranked: Whether the task counts for the suite's score.
    """

    entry: Entry
    score: Interval | None
    what: str
    values: tuple[float, ...]
    headline: float | None
    matching: Matching
    seeds: int
    published: int
    cost: float | None
    options: Mapping[str, Any]
    ranked: bool


@dataclass(frozen=True)
class Contender:
    """One method, identified by name and source, with one record per task.

    Attributes:
        id: The name and the first 8 digits of the source's digest. A second contender with the same
            name and digest ends in .2, one of another protocol or reference in .old.
    """

    id: str
    name: str
    digest: str
    untrained: bool
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class Row:
    """A contender on one board.

    Attributes:
        score: Of the suite, with its interval; None unless every ranked task is present.
        rank: The best and the worst possible rank; None if unranked.
        why_unranked: One short clause; "" if ranked.
        same: The id of the earlier entry with the same tickets; "" if there is none.
        level: The lowest level over its ranked tasks (over all tasks if none is ranked).
        division: The most permissive division over the same tasks.
        cost: The mean over the same tasks of the mean search costs.
    """

    contender: Contender
    score: Interval | None
    rank: tuple[int, int] | None
    why_unranked: str
    same: str
    level: int
    division: str
    cost: float | None
    tasks: Mapping[str, OnTask]


@dataclass(frozen=True)
class Standing:
    """One board of one suite.

    Attributes:
        tasks: Ranked tasks, in the suite's order.
        left_out: The suite's other tasks, and why each is not ranked.
        rows: Ranked rows by score, then unranked ones, then references; a copy of another's tickets
            directly below the original if that is unranked too.
        p: Adjusted p values between ranked rows, by the ids of their contenders.
        notes: What a reader must know about the board, one sentence each.
    """

    suite: str
    board: BoardName
    title: str
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    p: Mapping[tuple[str, str], float]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def standings(board: Board, suite: str | None = None) -> tuple[Standing, ...]:
    """Compute every board of a suite; by default of all ranked suites that have their own entries.

    The main board of a suite comes first; the board of untrained tickets exists only where there
    are any. By default, a suite is left out if all of its entries are also in another suite.

    Raises:
        TaskError: If the suite does not exist.
    """
    suites = [load_suite(suite)] if suite else _with_entries(board)
    alike = copies.likenesses(board.entries)
    same = {raw: found[0].id for raw, found in alike.items() if found[0].same}
    ranked = (found for found in suites if found.ranked)
    return tuple(standing for found in ranked for standing in _of(board, found, same))


def contenders(entries: Iterable[Entry], references: Mapping[str, Reference]) -> list[Contender]:
    """Group the entries of each method, in the order in which the ledger accepted them.

    An entry joins the first contender of its name and source without a record on its task,
    preferring one with the same options. Order of acceptance thus decides: a later entry fills a
    gap or starts a new contender, and never replaces another.
    """
    found: dict[tuple[Any, ...], list[dict[str, Entry]]] = {}
    entries = sorted(entries, key=copies.order)
    strange = stale(entries, references)
    for entry in entries:
        record = entry.record
        kind = terms.is_untrained(record), entry.digest in strange
        key = (record.method.name, record.method.digest, *kind)
        task, gaps = record.task.name, found.setdefault(key, [])
        free = [held for held in gaps if task not in held]
        same = [held for held in free if _options(held) == {_canonical(entry)}]
        if not free:
            free = [{}]
            gaps.extend(free)
        (same or free)[0][task] = entry
    return list(_named(found))


def published(record: Record) -> Scores | None:
    """Return a record's scores over the published seeds only, which all entries share."""
    wanted = record.task.published
    if not set(record.seeds) - set(wanted):
        return record.scores
    seeds, moved = tuple(seed for seed in record.seeds if seed in wanted), record.transfer
    if not seeds:
        return None
    if moved is not None:
        away = tuple(cell for cell in moved.cells if cell.seed in wanted)
        moved = moved.model_copy(update={"cells": away})
    kept = {
        "seeds": seeds,
        "cells": tuple(cell for cell in record.cells if cell.seed in wanted),
        "searches": tuple(search for search in record.searches if search.seed in wanted),
        "transfer": moved,
    }
    return aggregate.aggregate(record.model_copy(update=kept))


def ranked_tasks(
    suite: Suite, references: Mapping[str, Reference]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return a suite's tasks that can be ranked by their reference, and why the others cannot."""
    left_out = {}
    for task in suite.tasks:
        reference = references.get(task)
        if reference is None:
            left_out[task] = "no reference yet"
        elif not metrics.rankable(reference.values["test"].loss_random):
            left_out[task] = "random pruning loses too little there, or too unevenly over the seeds"
    return tuple(task for task in suite.tasks if task not in left_out), left_out


# Contenders


def _with_entries(board: Board) -> list[Suite]:
    """Return the ranked suites with entries, except those whose entries are all in another."""
    there = {entry.record.task.name for entry in board.entries if _stands(entry)}
    suites = [load_suite(name) for name in suite_names()]
    held = {s.name: there & set(s.tasks) for s in suites if s.ranked and there & set(s.tasks)}
    return [
        s for s in suites if s.name in held and not any(held[s.name] < o for o in held.values())
    ]


def _stands(entry: Entry) -> bool:
    return entry.state in ("accepted", "listed")


def _canonical(entry: Entry) -> bytes:
    return canonical_json(entry.record.method.options)


def _options(held: Mapping[str, Entry]) -> set[bytes]:
    return {_canonical(entry) for entry in held.values()}


def _named(found: Mapping[tuple[Any, ...], list[dict[str, Entry]]]) -> Iterator[Contender]:
    """Yield contenders with their ids; repeated names and sources are numbered from the second."""
    taken: dict[str, int] = {}
    for (name, digest, untrained, strange), groups in found.items():
        for held in groups:
            short = f"{name}--{digest[:8]}{'.old' if strange else ''}"
            taken[short] = taken.get(short, 0) + 1
            number = taken[short]
            identity = short if number == 1 else f"{short}.{number}"
            yield Contender(identity, name, digest, untrained, held)


def stale(entries: Iterable[Entry], references: Mapping[str, Reference]) -> dict[str, str]:
    """Return, by digest, why records do not follow the board's protocol, for those that do not."""
    digests = {task: reference.digest for task, reference in references.items()}
    found = {}
    for entry in entries:
        task, frozen = entry.record.task, entry.record.reference
        reference = references.get(task.name)
        if reference is None:
            continue
        if task.digest != reference.task_digest:
            now = reference.version
            found[entry.digest] = (
                f"version {task.version} of {task.name}; the board is of version {now}"
            )
        elif frozen is None or frozen.digest != digests[task.name]:
            found[entry.digest] = f"scored against another reference on {task.name}"
    return found


# Rows


def _of(board: Board, suite: Suite, same: Mapping[str, str]) -> Iterator[Standing]:
    tasks, left_out = ranked_tasks(suite, board.references)
    chosen = [e for e in board.entries if e.record.task.name in suite.tasks and _stands(e)]
    strange = stale(chosen, board.references)
    rows = [_row(c, suite, tasks, strange, same) for c in contenders(chosen, board.references)]
    notes = _notes(tasks, left_out, board.references)
    for name, (title, divisions) in BOARDS.items():
        mine = [
            row
            for row in rows
            if row.contender.untrained == (name == "untrained")
            and row.division in (*divisions, "reference")
        ]
        if mine or name != "untrained":
            placed, p = _ranked(mine, tasks)
            yield Standing(suite.name, name, title, tasks, placed, p, left_out, notes)


def _row(
    contender: Contender,
    suite: Suite,
    ranked: Sequence[str],
    strange: Mapping[str, str],
    same: Mapping[str, str],
) -> Row:
    """Build a contender's row before ranking; why_unranked covers what its own records decide."""
    options = _options(contender.entries)
    tasks = {
        name: _on_task(contender.entries[name], name in ranked, len(options) > 1, contender)
        for name in suite.tasks
        if name in contender.entries
    }
    there = [tasks[name] for name in ranked if name in tasks]
    values = [task.values for task in there]
    whole = bool(ranked) and len(there) == len(ranked)
    whole = whole and all(len(task.values) == task.published for task in there)
    counted = [task for task in tasks.values() if task.ranked] or [*tasks.values()]
    costs = [task.cost for task in counted if task.cost is not None]
    row = Row(
        contender=contender,
        score=intervals.drop_if_alike(intervals.suite_interval(values), values) if whole else None,
        rank=None,
        why_unranked="",
        same=next((same[t.entry.digest] for t in counted if t.entry.digest in same), ""),
        level=min(task.entry.level for task in counted),
        division=_division(task.entry for task in counted),
        cost=sum(costs) / len(costs) if costs else None,
        tasks=tasks,
    )
    return replace(row, why_unranked=_why(row, ranked, strange))


def _on_task(entry: Entry, ranked: bool, differ: bool, contender: Contender) -> OnTask:
    found, record = published(entry.record), entry.record
    told = found.headline if found else None
    untrained = found.untrained if found and contender.untrained else None
    if ranked and told and told.what == "above erk":  # points are never averaged with retention
        told = None
    values = told.found.values if told else ()
    return OnTask(
        entry=entry,
        score=intervals.drop_if_alike(intervals.t_interval(values), [values]) if values else None,
        what=told.what if told else "",
        values=values,
        headline=None if untrained is None else untrained.headline,
        matching=found.matching if found else Matching(None, None),
        seeds=len(set(record.seeds) & set(record.task.published)),
        published=record.task.seeds,
        cost=found.mean_cost if found else None,
        options=_differing(entry, contender) if differ else {},
        ranked=ranked,
    )


def _differing(entry: Entry, contender: Contender) -> dict[str, Any]:
    """Return the options of one record that the contender's other records do not share."""
    others = [other.record.method.options for other in contender.entries.values()]
    mine = entry.record.method.options
    return {k: v for k, v in mine.items() if any(k not in o or o[k] != v for o in others)}


def _division(entries: Iterable[Entry]) -> str:
    found = [entry.record.scores.division for entry in entries]
    return max(
        (name for name in found if name),
        key=DIVISIONS.index,
        default=DIVISIONS[0],
    )


def _why(row: Row, ranked: Sequence[str], strange: Mapping[str, str]) -> str:
    """Return why a row cannot be ranked; "" if that depends on the board."""
    if row.division == "reference":
        return "reference"
    entries = row.contender.entries
    for entry in entries.values():
        if entry.digest in strange:
            return strange[entry.digest]
    if row.same:
        return f"same tickets as {row.same}"
    there = [name for name in ranked if name in entries]
    if len(there) < len(ranked) or not ranked:
        return f"{len(there)} of {len(ranked)} tasks"
    for name in ranked:
        if (task := row.tasks[name]).seeds < task.published:
            return f"{task.seeds} of {task.published} seeds on {name}"
    if row.score is None:
        return "no score"
    if row.level < RANKED_LEVEL:
        return f"level {row.level}"
    units = sum(row.tasks[name].published for name in ranked)
    return "" if units >= ranks.LEAST_UNITS else f"{units} units, ranks need {ranks.LEAST_UNITS}"


def _ranked(
    rows: Sequence[Row], tasks: Sequence[str]
) -> tuple[tuple[Row, ...], Mapping[tuple[str, str], float]]:
    """Return rows in order, with rank intervals, and the underlying p values."""
    able = {row.contender.id: row for row in rows if not row.why_unranked}
    p: Mapping[tuple[str, str], float] = {}
    placed: list[Row] = []
    if able:
        values = {name: [row.tasks[t].values for t in tasks] for name, row in able.items()}
        found = ranks.rank(values)
        spans = zip(found.entries, found.low, found.high, strict=True)
        placed = [replace(able[name], rank=(low, high)) for name, low, high in spans]
        p = found.p
    rest = [row for row in rows if row.why_unranked]
    owners = {on.entry.id: row for row in rest for on in row.tasks.values()}

    def beneath(row: Row) -> tuple[Any, ...]:
        owner = owners.get(row.same, row)
        return *_rest_order(owner), owner is not row, *_rest_order(row)

    return (*placed, *sorted(rest, key=beneath)), p


def _rest_order(row: Row) -> tuple[bool, bool, float, str]:
    """Return a sort key: references last; rows with a score before those without."""
    score = row.score.mean if row.score else 0.0
    return row.division == "reference", row.score is None, -score, row.contender.id


def _notes(
    tasks: Sequence[str], left_out: Mapping[str, str], references: Mapping[str, Reference]
) -> tuple[str, ...]:
    notes = [f"{name} is not ranked: {why}." for name, why in left_out.items()]
    provisional = [name for name in tasks if references[name].provisional]
    if provisional:
        notes.append(
            f"Of fewer than 10 seeds, so provisional: reference of {', '.join(provisional)}."
        )
    return tuple(notes)
